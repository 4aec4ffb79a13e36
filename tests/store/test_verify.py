"""verify names each kind of damage, and columns that say nothing; stats says what there is."""

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.columns import GROUPS
from schemas.records import Rows
from store.catalog import Catalog
from store.layout import Layout
from store.parquet import encode_game, read_whole
from store.upkeep import stats
from store.verify import bounds as table
from store.verify import verify
from store.verify.parallel import DiedError, in_order
from tests.store.makers import Game, make_game, make_store, write_files

GAMES = [make_game(n, version=(3, 14) if n % 2 else (2, 0)) for n in range(6)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = make_store(tmp_path_factory.mktemp("verify") / "melee", [GAMES])
    assert _damage(layout) == []
    return layout


@pytest.fixture
def layout(sound: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(sound.root, tmp_path / "melee")
    return Layout(tmp_path / "melee")


def _damage(layout: Layout) -> list[tuple[str, str | None]]:
    return [(f.kind, f.game_id) for f in verify(layout) if f.is_damage]


# --- files and disk -----------------------------------------------------------------------------


def test_a_sound_store_and_its_progress(layout: Layout) -> None:
    seen: list[tuple[int, int]] = []
    verify(layout, progress=lambda *step: seen.append(step))
    assert seen[-1] == (6, 6)


def test_damage_is_named_with_game_and_path(layout: Layout) -> None:
    flipped, cut, gone = (layout.game_path(game.game_id) for game in GAMES[:3])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-10])
    gone.unlink()
    expected = {("checksum", flipped), ("size", cut), ("missing", gone)}
    with Catalog(layout, read_only=True) as catalog:
        found = [f for f in verify(layout, catalog=catalog) if f.is_damage]
        assert {(f.kind, layout.root / f.where) for f in found} == expected
        assert all(f.game_id and f.game_id in f.where for f in found)
        quick = [f for f in verify(layout, quick=True, catalog=catalog) if f.is_damage]
    assert quick == [f for f in found if f.kind != "checksum"]


def test_a_file_without_a_row_is_named_and_no_damage(layout: Layout) -> None:
    orphan, part, stranger, misplaced = (
        layout.games / "ff" / f"{'f' * 32}.1.parquet",
        layout.games / "ff" / f".{'f' * 32}.1.parquet.01234567.part",
        layout.games / "ff" / "notes.txt",
        layout.games / "ff" / f"{'e' * 32}.1.parquet",
    )
    orphan.parent.mkdir(exist_ok=True)
    for path in (orphan, part, stranger, misplaced):
        path.write_bytes(b"PAR1")
    found = {(f.kind, f.where.rpartition("/")[2]) for f in verify(layout)}
    assert {("orphan", orphan.name), ("part", part.name)} <= found
    assert {("stranger", stranger.name), ("stranger", misplaced.name)} <= found
    assert _damage(layout) == []


def _store_of(root: Path, games: Sequence[tuple[Game, pa.Table, Mapping[str, Any]]]) -> Layout:
    """A store whose files hold these tables, and whose games' rows say so (with changes)."""
    layout = make_store(root, [])
    with Catalog(layout) as catalog:
        for game, frames, changes in games:
            parquet = encode_game(frames, read_whole(game.parquet)[1])
            file = {
                "parquet_bytes": len(parquet), "parquet_crc32": zlib.crc32(parquet),
                "parquet_sha256": sha256(parquet).digest(),
            }  # fmt: skip
            rows: Rows = {**game.rows, "games": [{**game.rows["games"][0], **file, **changes}]}
            rows["perspectives"] = [
                {**row, **{k: v for k, v in {**file, **changes}.items() if k in row}}
                for row in game.rows["perspectives"]
            ]
            layout.game_path(game.game_id).parent.mkdir(exist_ok=True)
            layout.game_path(game.game_id).write_bytes(parquet)
            catalog.commit(rows)
    return layout


def test_rows_that_do_not_fit_their_files(tmp_path: Path) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"n_frames": 7, "stretches": [7]}, "40 frames instead of 7"),
        ({"last_frame": 7}, "frames -123 to -84, not -123 to 7"),
        ({"stretches": [20, 20]}, "runs of consecutive frames"),
        ({"version": 3_013_000}, "version 3014000, its row 3013000"),
        ({"leaf_set": "01234567"}, "leaves"),
        ({"stage_id": 2}, "stage_id"),
    ]
    games = [make_game(n) for n in range(len(changes) + 1)]
    frames = [read_whole(game.parquet)[0] for game in games]
    numbers = frames[-1].column("frame").to_numpy().copy()
    numbers[5], numbers[6] = numbers[6], numbers[5]
    frames[-1] = frames[-1].set_column(0, "frame", pa.array(numbers))
    changes.append(({"stretches": [5, 1, 1, 33]}, "do not grow"))
    spoilt = [(*pair, change) for *pair, (change, _) in zip(games, frames, changes, strict=True)]
    layout = _store_of(tmp_path / "melee", spoilt)
    found = {f.game_id: f.detail for f in verify(layout) if f.kind == "schema"}
    for game, (_, said) in zip(games, changes, strict=True):
        assert said in found[game.game_id]


def test_many_files_in_processes_say_the_same(layout: Layout, monkeypatch: Any) -> None:
    layout.game_path(GAMES[3].game_id).write_bytes(b"PAR1")
    alone = verify(layout)
    monkeypatch.setattr("store.verify.check.FILES_A_PIECE", 2)
    assert verify(layout, workers=2) == alone
    assert alone


# --- tables -------------------------------------------------------------------------------------


def test_tables_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    def changed(game: Game, name: str, number: int, **values: object) -> Rows:
        rows = [dict(row) for row in game.rows[name]]
        rows[number] |= values
        return {**game.rows, name: list(rows)}

    spoilt = [
        (changed(GAMES[0], "perspectives", 0, stage="venom"), "than games"),
        (changed(GAMES[1], "perspectives", 1, code="X#1"), "than players"),
        (changed(GAMES[2], "players", 0, stocks_lost=3), "opponent"),
        (changed(GAMES[3], "item_counts", 0, spawned=9), "items"),
        ({**GAMES[4].rows, "players": GAMES[4].rows["players"][:1]}, "two sides"),
        (changed(GAMES[5], "games", 0, stretches=[39, 2]), "add up"),
    ]
    layout = make_store(tmp_path / "melee", [])
    write_files(layout, GAMES)
    with Catalog(layout) as catalog:
        for rows, _ in spoilt:
            catalog.commit(rows)
        catalog.commit({"players": make_game(9).rows["players"]})
    found = [f for f in verify(layout) if f.kind == "rows"]
    for game, (_, said) in zip(GAMES, spoilt, strict=True):
        assert any(said in f.detail for f in found if f.game_id == game.game_id), said
    assert any(f.game_id == make_game(9).game_id and "without its game" in f.detail for f in found)


def test_ids_without_a_name_are_named(tmp_path: Path) -> None:
    game = GAMES[1]
    rows: Rows = dict(game.rows)
    for name in ("games", "perspectives"):
        rows[name] = [{**row, "stage": "stage_99"} for row in game.rows[name]]
    layout = make_store(tmp_path / "melee", [])
    layout.game_path(game.game_id).parent.mkdir()
    layout.game_path(game.game_id).write_bytes(game.parquet)
    with Catalog(layout) as catalog:
        catalog.commit(rows)
        (found,) = [f for f in verify(layout, catalog=catalog) if f.where == "games.stage"]
    assert (found.kind, found.game_id) == ("bounds", game.game_id)
    assert "stage_99" in found.detail


# --- columns ------------------------------------------------------------------------------------


def test_constant_and_empty_columns_are_named_by_version(tmp_path: Path) -> None:
    games: list[tuple[Game, pa.Table, dict[str, Any]]] = []
    for number in range(8):
        game = make_game(number, version=(3, 14) if number % 2 else (2, 0))
        frames = read_whole(game.parquet)[0]
        if number % 2:
            frames = _with(frames, "p1", "shield", 60.0)
        games.append((game, frames, {}))
    layout = _store_of(tmp_path / "melee", games)
    findings = verify(layout, games_min=4, values_min=40)
    found = {f.where: f for f in findings if f.kind != "bounds"}
    assert found["p1.shield"].kind == "constant"
    assert found["p1.shield"].detail == "always 60 in all 4 games of Slippi 3.14 (4)"
    assert "p0.shield" not in found
    assert found["games.match_id"].detail == "null in all 4 games of Slippi 3.14 (4)"
    assert found["item_counts.type"].kind == "constant"
    # what an old version does not record is no news, nor are columns that may stand still
    silent = {"scene_frame_counter", "items.list.element.slot", "p0.port", "p0.percent", "frame"}
    assert not silent & set(found)
    assert {f.where for f in findings if f.kind == "all_null"} >= {"games.match_id"}


def _with(frames: pa.Table, side: str, name: str, value: float, row: int | None = None) -> pa.Table:
    """One leaf set to a value, in one row or all."""
    column = frames.column(side).combine_chunks()
    at = column.type.get_field_index(name)
    values = column.field(at).to_numpy(zero_copy_only=False).copy()
    values[slice(None) if row is None else row] = value
    leaves = [column.field(n) for n in range(column.type.num_fields)]
    leaves[at] = pa.array(values, column.type[at].type)
    struct = pa.StructArray.from_arrays(leaves, fields=list(column.type))
    return frames.set_column(frames.column_names.index(side), side, struct)


def test_values_out_of_bounds_are_named(tmp_path: Path) -> None:
    spoilt: list[tuple[Game, pa.Table, dict[str, Any]]] = []
    values = {"position_x": np.nan, "position_y": -np.inf, "velocities_self_y": 2e4, "state": 999}
    for number, (name, value) in enumerate(values.items()):
        game = make_game(number)
        frames = read_whole(game.parquet)[0]
        spoilt.append((game, _with(frames, "p0", name, value, row=7), {}))
    found = {f.where: f for f in verify(_store_of(tmp_path / "melee", spoilt))}
    for (game, _, _), (name, value) in zip(spoilt, values.items(), strict=True):
        odd = found[f"p0.{name}"]
        assert (odd.kind, odd.game_id) == ("bounds", game.game_id)
        assert f"{value:g}" in odd.detail
        assert not odd.is_damage
        assert f"p1.{name}" not in found


def test_every_bound_is_of_a_column() -> None:
    lists = {"frame": table._FRAME, "player": table._PLAYER, "item": table._ITEM,
             "stage": table._STAGE}  # fmt: skip
    for group, columns in GROUPS.items():
        assert set(lists[group]) <= {column.name for column in columns}
    names = {column.name for columns in GROUPS.values() for column in columns}
    assert set(table.MAY_STAND_STILL) | set(table.ONLY_ON_STAGE) <= names


# --- processes ----------------------------------------------------------------------------------


def _work(piece: int) -> int:
    if piece == 5:
        os._exit(9)
    return piece * piece


def test_a_piece_that_kills_its_process_costs_that_piece() -> None:
    results = dict(in_order(_work, range(8), 1))
    assert isinstance(results.pop(5), DiedError)
    assert results == {n: n * n for n in range(8) if n != 5}


# --- stats --------------------------------------------------------------------------------------


def test_stats(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        removal = {"game_id": GAMES[0].game_id, "removed_at": None, "reason": "asked"}
        refused = {
            **GAMES[0].rows["replays"][0],
            "source": "x",
            "outcome": "refused",
            "rule": "solo",
        }
        catalog.commit({"removals": [removal], "replays": [refused]})
    found = stats(layout)
    assert json.loads(json.dumps(found)) == found
    assert found["games"] == 5
    assert found["frames"] == 200
    assert sum(found["characters"].values()) == 10
    assert found["versions"] == {"3.14.0": 3, "2.0.0": 2}
    assert found["replays"] == {"stored": 6, "refused": 1}
    assert found["refused"] == {"solo": 1}
    assert found["game_bytes"] == sum(len(game.parquet) for game in GAMES[1:])


def test_empty_store(tmp_path: Path) -> None:
    layout = make_store(tmp_path / "melee", [])
    with Catalog(layout, read_only=True) as catalog:
        assert verify(layout, catalog=catalog) == []
        assert stats(layout, catalog=catalog)["games"] == 0
