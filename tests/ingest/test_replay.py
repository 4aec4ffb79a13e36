"""The contract with peppi's private reader, and the table against a synthetic game's truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.replay import parse
from ingest.rules import Refusal
from ingest.slp import split
from ingest.synthetic import SyntheticGame, make_game
from ingest.synthetic.truth import Side
from schemas.columns import FRAME, PLAYER, STAGE, Column
from schemas.game import FULL, SIDES, leaves
from store.parquet import encode_game

# All versions that changed something; peppi by itself cannot read 3.0 to 3.6.
VERSIONS = [(0, 1), (0, 2), (1, 2), (1, 4), (2, 0), (2, 1), (2, 2), (3, 0), (3, 2), (3, 5), (3, 6),
            (3, 7), (3, 8), (3, 10), (3, 11), (3, 14), (3, 15), (3, 16), (3, 17), (3, 18),
            (3, 19)]  # fmt: skip


def assert_same(stored: pa.Array, expected: pa.Array, what: str) -> None:
    """Equal types, nulls and bits: NaN equals itself, and -0 is not 0."""
    assert stored.type == expected.type, what
    assert stored.is_valid().equals(expected.is_valid()), what
    assert_bits(stored.drop_null(), expected.drop_null(), what)


def assert_bits(stored: pa.Array, expected: pa.Array, what: str) -> None:
    if pa.types.is_floating(stored.type):
        stored, expected = stored.view(pa.uint32()), expected.view(pa.uint32())
    assert stored.equals(expected), what


def leaf(table: pa.Table, path: str) -> Any:
    """A leaf by its dotted name; None where the file has none."""
    head, *rest = path.split(".")
    array = table[head].combine_chunks()
    for name in rest:
        array = array.flatten() if pa.types.is_list(array.type) else array
        index = array.type.get_field_index(name)
        if index < 0:
            return None
        # a parent's nulls reach its children only through flatten, which costs
        array = array.flatten()[index] if array.null_count else array.field(index)
    return array


# --- synthetic games ------------------------------------------------------------------------------


def assert_side(table: pa.Table, path: str, side: Side) -> None:
    """One character of a game, null on the frames on which it sent nothing."""
    gone = pa.array(~side.present)
    for name, values in side.columns.items():
        if name == "random_seed":
            continue
        expected = pa.compute.if_else(gone, None, pa.array(values))
        stored = leaf(table, f"{path}.{name}")
        assert stored is not None, name
        assert_same(stored, expected, f"{path}.{name}")


def assert_equals_truth(game: SyntheticGame, table: pa.Table) -> None:
    truth = game.truth
    for name, values in truth.frame.items():
        assert_same(table[name].combine_chunks(), pa.array(values), name)
    for path, side in zip(SIDES, truth.sides, strict=True):
        assert_side(table, path, side)
        assert leaf(table, f"{path}.port") == pa.array([side.port + 1] * len(table), pa.uint8())
    for path, follower in zip(SIDES, truth.followers, strict=True):
        if follower is not None:
            assert_side(table, f"{path}.follower", follower)
        else:
            assert leaf(table, f"{path}.follower") is None
    for name, values in truth.items.items():
        if name != "slot":
            assert_same(leaf(table, f"items.{name}"), pa.array(values), f"items.{name}")
    for name, values in truth.stage.items():
        assert_same(leaf(table, f"stage.{name}"), pa.array(values), f"stage.{name}")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_synthetic_game_comes_back(version: tuple[int, int]) -> None:
    game = make_game(7, version=version, n_frames=900)
    assert_equals_truth(game, parse(game.slp).table)


@pytest.mark.parametrize("stage", ["fod", "stadium", "dreamland", "yoshis", "fd"])
def test_stage_state_comes_back(stage: str) -> None:
    game = make_game(3, stage=stage, chars=("ice_climbers", "fox"), n_frames=1500, rollbacks=True)
    parsed = parse(game.slp)
    assert_equals_truth(game, parsed.table)
    assert parsed.footer["rollback_rows"] == len(game.order) - game.truth.n_frames > 0


@pytest.mark.parametrize("version", [(0, 1), (1, 2), (2, 0), (2, 1), (2, 2)])
def test_a_nana_who_comes_back_keeps_her_frames(version: tuple[int, int]) -> None:
    """Before 2.2 peppi closes the gap: what it gives as it stands would be on wrong frames."""
    game = make_game(2, chars=("ice_climbers", "fox"), version=version, n_frames=3000)
    nana = game.truth.followers[0]
    assert nana is not None
    assert (np.diff(nana.present.astype(int)) == 1).any()
    assert_equals_truth(game, parse(game.slp).table)


def without_events(slp: bytes, *lost: tuple[int, int]) -> bytes:
    """The same file without Nana's nth event of a kind, for each (code, n)."""
    events = split(slp)
    for code, nth in lost:
        ats = [at for found, at in split(slp).events if found == code and slp[at + 5] == 1]
        at, size = ats[nth] - 1, events.sizes[code] + 1
        raw = int.from_bytes(slp[11:15], "big") - size
        slp = slp[:11] + raw.to_bytes(4, "big") + slp[15:at] + slp[at + size :]
    return slp


def test_a_nana_of_half_frames_loses_them() -> None:
    game = make_game(2, chars=("ice_climbers", "fox"), version=(2, 0), n_frames=3000)
    x = leaf(parse(game.slp).table, "p0.follower.position_x")
    less = parse(without_events(game.slp, (0x37, 100), (0x38, 100))).table
    expected = pa.compute.if_else(pa.array(np.arange(len(x)) != 100), x, None)
    assert_same(leaf(less, "p0.follower.position_x"), expected, "x")
    halves = without_events(game.slp, (0x37, 100), (0x38, 200))
    with pytest.raises(Refusal, match="frames_dropped"):
        parse(halves, repair=False)
    rest = parse(halves)
    assert rest.footer["repairs"] == ["frames_dropped", "frames_missing"]
    kept = np.delete(np.arange(len(x)), [100, 200])
    assert rest.table["frame"].to_pylist() == (kept - 123).tolist()
    assert_same(leaf(rest.table, "p0.follower.position_x"), x.take(pa.array(kept)), "x")


def test_a_leaf_is_there_from_its_version_on() -> None:
    for version in VERSIONS:
        table = parse(make_game(7, version=version, n_frames=200).slp).table
        found = set(leaves(table.schema))
        for column in PLAYER:
            if column.name != "random_seed":
                assert (f"p0.{column.name}" in found) == (column.since <= version), column
        for column in STAGE:
            assert (f"stage.{column.name}" in found) == (column.since <= version), column
        assert table.column_names == FULL.names
        nulls = {name for name in table.column_names if table[name].null_count}
        assert nulls == {c.name for c in FRAME if c.since > version} | (
            {"items"} if version < (3, 0) else set()
        )


def test_a_new_row_of_the_column_table_needs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Column("hitlag_again", "post.hitlag", pa.float32(), (3, 8), "plain", "", "")
    monkeypatch.setattr("ingest.replay.PLAYER", (*PLAYER, twin))
    table = parse(make_game(1, n_frames=200).slp).table
    assert leaf(table, "p1.hitlag_again") == leaf(table, "p1.hitlag")


def test_ports_are_kept_and_sorted() -> None:
    table = parse(make_game(1, n_frames=200, ports=(2, 4)).slp).table
    assert leaf(table, "p0.port")[0].as_py() == 2
    assert leaf(table, "p1.port")[0].as_py() == 4


def test_path_and_bytes_are_one(tmp_path: Path) -> None:
    game = make_game(1, n_frames=200)
    path = tmp_path / "game.slp"
    path.write_bytes(game.slp)
    one, other = parse(path), parse(game.slp)
    assert encode_game(one.table, one.footer) == encode_game(other.table, other.footer)
