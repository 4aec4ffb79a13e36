"""The contract with peppi's private reader, and the table against truth: synthetic and real."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from peppi_py import _peppi

from ingest.container import open_container
from ingest.replay import ParsedGame, parse
from ingest.resolve import item_slots
from ingest.rules import Refusal
from ingest.slp import split
from ingest.synthetic import SyntheticGame, make_game
from ingest.synthetic.truth import Side
from schemas.columns import FRAME, ITEM, PLAYER, STAGE, Column
from schemas.game import FULL, SIDES, leaves
from store.parquet import encode_game, read_game
from tests.conftest import SHARED

# All versions that changed something, but for 3.0 to 3.6, which peppi cannot read.
VERSIONS = [(0, 1), (0, 2), (1, 2), (1, 4), (2, 0), (2, 1), (2, 2), (3, 7), (3, 8), (3, 10),
            (3, 11), (3, 14), (3, 15), (3, 16), (3, 17), (3, 18), (3, 19)]  # fmt: skip


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
        array = array.flatten()[index]
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


def test_a_nana_of_half_frames_is_refused() -> None:
    game = make_game(2, chars=("ice_climbers", "fox"), version=(2, 0), n_frames=3000)
    x = leaf(parse(game.slp).table, "p0.follower.position_x")
    less = parse(without_events(game.slp, (0x37, 100), (0x38, 100))).table
    expected = pa.compute.if_else(pa.array(np.arange(len(x)) != 100), x, None)
    assert_same(leaf(less, "p0.follower.position_x"), expected, "x")
    with pytest.raises(Refusal, match="half of a frame"):
        parse(without_events(game.slp, (0x37, 100), (0x38, 200)))


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


def test_frames_without_a_start_are_refused() -> None:
    with pytest.raises(Refusal) as refused:
        parse(make_game(1, version=(3, 3), n_frames=200).slp)
    assert refused.value.rule == "unreadable"
    assert "panicked" in refused.value.detail


# --- real games -----------------------------------------------------------------------------------


def real_games(replays: Path) -> list[tuple[str, Path, dict[str, str]]]:
    with (SHARED / "replays" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [(row["sha256"], replays / row["file"], row) for row in rows]


def raw_leaf(frames: pa.StructArray, source: str, rows: pa.Array | None = None) -> Any:
    """A leaf of peppi's own struct at some rows, found without the code under test."""
    array = frames
    for name in source.split("."):
        if array.type.get_field_index(name) < 0:
            return None
        array = array.flatten()[array.type.get_field_index(name)]
    return array if rows is None else array.take(rows)


def assert_character(
    parsed: ParsedGame, path: str, frames: pa.StructArray, source: str, rows: pa.Array
) -> int:
    """Every leaf of one character, bit by bit. Returns how many were compared."""
    compared = 0
    for column in PLAYER:
        if not column.source:
            continue
        expected = raw_leaf(frames, f"{source}.{column.source}", rows)
        stored = leaf(parsed.table, f"{path}.{column.name}")
        if column.name == "random_seed":
            seed = parsed.table["random_seed"].combine_chunks()
            stored = seed if stored is None else pa.compute.coalesce(stored, seed)
            # where nothing was sent there is no seed either
            stored = pa.compute.if_else(expected.is_valid(), stored, None)
        if expected is None:
            assert stored is None, column.name
            continue
        assert_same(stored, expected, f"{path}.{column.name}")
        compared += 1
    return compared


def assert_equals_raw(path: Path, parsed: ParsedGame) -> None:
    frames = _peppi.read_slippi(str(path), skip_frames=False).frames
    ids = frames.field("id").to_pylist()
    last = {frame: row for row, frame in enumerate(ids)}
    rows = pa.array([last[frame] for frame in sorted(last)])
    assert parsed.table["frame"].to_pylist() == sorted(last)
    assert parsed.footer["rollback_rows"] == len(ids) - len(last)
    for column in FRAME:
        expected = raw_leaf(frames, column.source, rows)
        stored = parsed.table[column.name].combine_chunks()
        assert_same(stored, pa.nulls(len(rows), column.type) if expected is None else expected,
                    column.name)  # fmt: skip
    ports = [field.name for field in frames.type.field("ports").type]
    for side, port in zip(SIDES, ports, strict=True):
        assert assert_character(parsed, side, frames, f"ports.{port}.leader", rows) >= 20
        if raw_leaf(frames, f"ports.{port}.follower") is not None:
            is_closed_up = tuple(parsed.footer["start"]["slippi"]["version"]) < (2, 2)
            hers = closed_up(path, port, sorted(last)) if is_closed_up else rows
            assert_character(parsed, f"{side}.follower", frames, f"ports.{port}.follower", hers)
        else:
            assert leaf(parsed.table, f"{side}.follower") is None
    assert_items(parsed.table, frames, rows)


def nana_events(path: Path, kind: str, port: str) -> npt.NDArray[np.void]:
    """The follower's events of one kind, in file order, read without peppi."""
    events = split(path.read_bytes()).records(kind)
    return np.asarray(events[(events["port"] == int(port[1]) - 1) & (events["follower"] == 1)])


def closed_up(path: Path, port: str, frames: list[int]) -> pa.Array:
    """Peppi's rows of Nana's frames where it closed her gaps: the nth is of her nth event."""
    rows = {frame: n for n, frame in enumerate(nana_events(path, "post", port)["frame"].tolist())}
    return pa.array([rows.get(frame) for frame in frames], pa.int64())


def assert_items(table: pa.Table, frames: pa.StructArray, rows: pa.Array) -> None:
    if frames.type.get_field_index("item") < 0:
        assert table["items"].null_count == len(table)
        return
    lists = frames.field("item").take(rows)
    stored = table["items"].combine_chunks()
    assert stored.offsets.to_pylist() == lists.offsets.to_pylist()
    for column in ITEM:
        name = column.source.removeprefix("item.")
        expected = raw_leaf(lists.flatten(), name)
        if column.source and expected is not None:
            assert_same(stored.flatten().field(column.name), expected, column.name)
    slots = item_slots(lists.flatten().field("id").to_numpy(), lists.offsets.to_numpy())
    np.testing.assert_array_equal(stored.flatten().field("slot").to_numpy(), slots)


def parsed_or_refused(path: Path) -> ParsedGame | Refusal:
    try:
        return parse(path)
    except Refusal as refused:
        return refused


@pytest.mark.slow
@pytest.mark.replays
def test_every_real_game_is_stored_bit_by_bit(replays: Path) -> None:
    """What is stored, after its way through parquet, equals what peppi gives; the rest is named."""
    compared = 0
    for sha256, path, row in real_games(replays):
        parsed = parsed_or_refused(path)
        if isinstance(parsed, Refusal):
            assert parsed.detail
            wanted = row["peppi_verdict"] == "parses" and row["players"] == "2"
            assert not wanted or int(row["frames"]) == 0, (sha256, parsed.rule)
            continue
        assert row["players"] == "2"
        assert len(parsed.table) == int(row["frames"])
        read = read_game(encode_game(parsed.table, parsed.footer))
        assert_equals_raw(path, ParsedGame(read, parsed.footer))
        compared += 1
    assert compared >= 120


@pytest.mark.replays
def test_an_early_nana_stands_on_the_frames_of_her_events(replays: Path) -> None:
    """In every real game before 2.2, every value of hers equals the event of that frame."""
    gone = 0
    for _, path, row in real_games(replays):
        if "ICE_CLIMBERS" not in row["characters"] or row["players"] != "2":
            continue
        if split(path.read_bytes()).version >= (2, 2):
            continue
        table = parse(path).table
        for side in SIDES:
            if (nana := leaf(table, f"{side}.follower")) is not None:
                port = f"P{leaf(table, f'{side}.port')[0]}"
                assert_equals_events(table, side, path, port)
                gone += nana.null_count
    assert gone == 326


def assert_equals_events(table: pa.Table, side: str, path: Path, port: str) -> None:
    for kind in ("pre", "post"):
        events = nana_events(path, kind, port)
        there = pa.compute.is_in(table["frame"].combine_chunks(), pa.array(events["frame"] + 0))
        assert there.equals(leaf(table, f"{side}.follower").is_valid())
        for name in (events.dtype.names or ())[4:]:
            stored = leaf(table, f"{side}.follower.{name}")
            if name != "random_seed":
                sent = events[name].astype(events[name].dtype.newbyteorder("="))
                assert_same(stored.drop_null(), pa.array(sent), name)


@pytest.mark.replays
def test_randall_is_where_players_stand_on_it(replays: Path) -> None:
    """Ground id 0 on Yoshi's Story is the cloud: height exact, and x within its width."""
    checked = 0
    for _, path, row in real_games(replays):
        if row["stage_id"] != "8" or row["players"] != "2" or row["peppi_verdict"] != "parses":
            continue
        if open_container(path.read_bytes()).start.payload[0] < 2:
            continue  # ground ids came with 2.0
        table = parse(path).table
        cloud_x, cloud_y = (leaf(table, f"stage.randall_{axis}").to_numpy() for axis in "xy")
        for side in SIDES:
            stands = (leaf(table, f"{side}.airborne").to_numpy() == 0) & (
                leaf(table, f"{side}.ground").to_numpy() == 0
            )
            x, y = (leaf(table, f"{side}.position_{axis}").to_numpy() for axis in "xy")
            assert (np.abs(y - cloud_y)[stands] < 0.01).all()
            assert (np.abs(x - cloud_x)[stands] < 7).all()
            checked += int(stands.sum())
    assert checked > 100
