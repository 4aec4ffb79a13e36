"""A stored game against peppi's raw arrays, read anew and told without the code that stored it.

Every leaf of the game file must have been compared at the end, the computed ones too.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from peppi_py import _peppi

from ingest.replay import ParsedGame
from ingest.slp import GAME_END, split
from schemas.columns import FRAME, ITEM, PLAYER, STAGE
from schemas.game import SIDES, leaves
from tests.ingest.test_replay import assert_same, leaf
from tests.ingest.test_resolve import plain_slots

STAGE_STARTS: dict[str, tuple[int, float]] = {
    "fod_platform_left": (2, 20.0),
    "fod_platform_right": (2, 28.0),
    "whispy_direction": (28, 0),
    "stadium_event": (3, 0),
    "stadium_type": (3, 5),
}
"""stage column -> the stage that it is of, and what is true before the first event"""
_LEFT_OR_RIGHT = {"fod_platform_left": 1, "fod_platform_right": 0}


def version(game: ParsedGame) -> tuple[int, ...]:
    return tuple(game.footer["start"]["slippi"]["version"])


def raw_leaf(frames: pa.StructArray, source: str, rows: pa.Array | None = None) -> Any:
    """A leaf of peppi's own struct at some rows, found without the code under test."""
    array = frames
    for name in source.split("."):
        if array.type.get_field_index(name) < 0:
            return None
        array = array.flatten()[array.type.get_field_index(name)]
    return array if rows is None else array.take(rows)


def assert_equals_raw(path: Path, parsed: ParsedGame) -> None:
    """Every leaf, bit by bit. path: what peppi reads; the last copy of each frame counts."""
    frames = _peppi.read_slippi(str(path), skip_frames=False).frames
    ids = frames.field("id").to_pylist()
    last = {frame: row for row, frame in enumerate(ids)}
    rows = pa.array([last[frame] for frame in sorted(last)])
    table = parsed.table
    assert table["frame"].to_pylist() == sorted(last)
    assert parsed.footer["rollback_rows"] == len(ids) - len(last)
    compared = set()
    for column in FRAME:
        expected = raw_leaf(frames, column.source, rows)
        stored = table[column.name].combine_chunks()
        assert_same(stored, pa.nulls(len(rows), column.type) if expected is None else expected,
                    column.name)  # fmt: skip
        compared.add(column.name)
    ports = [field.name for field in frames.type.field("ports").type]
    for side, port in zip(SIDES, ports, strict=True):
        leader = f"ports.{port}.leader"
        compared |= _assert_character(parsed, side, frames, leader, rows)
        if raw_leaf(frames, f"ports.{port}.follower") is not None:
            hers = rows if version(parsed) >= (2, 2) else _closed_up(path, port, sorted(last))
            compared |= _assert_character(
                parsed, f"{side}.follower", frames, f"ports.{port}.follower", hers
            )
        else:
            assert leaf(table, f"{side}.follower") is None
    compared |= _assert_items(table, frames, rows)
    compared |= _assert_stage(parsed, frames, rows)
    assert compared == {name.replace(".list.element", "") for name in leaves(table.schema)}


def _assert_character(
    parsed: ParsedGame, path: str, frames: pa.StructArray, source: str, rows: pa.Array
) -> set[str]:
    """Every leaf of one character. Returns those that the file has."""
    compared = set()
    there = raw_leaf(frames, source, rows).is_valid()
    number = pa.scalar(int(source.split(".")[1].removeprefix("P")), pa.uint8())
    for column in PLAYER:
        name = f"{path}.{column.name}"
        stored = leaf(parsed.table, name)
        if stored is not None:
            compared.add(name)
        if column.name == "port":
            assert_same(stored, pa.compute.if_else(there, number, None), name)
            continue
        expected = raw_leaf(frames, f"{source}.{column.source}", rows)
        if column.name == "random_seed":
            seed = parsed.table["random_seed"].combine_chunks()
            assert stored is None or not pa.compute.any(pa.compute.equal(stored, seed)).as_py()
            stored = seed if stored is None else pa.compute.coalesce(stored, seed)
            # where nothing was sent there is no seed either
            stored = pa.compute.if_else(expected.is_valid(), stored, None)
        if expected is None:
            assert stored is None, name
            continue
        assert_same(stored, expected, name)
    return compared


def nana_events(path: Path, kind: str, port: str) -> npt.NDArray[np.void]:
    """The follower's events of one kind, in file order, read without peppi."""
    whole = split(path.read_bytes())
    # what follows game end is of nobody's concern
    until = int(np.append(np.flatnonzero(whole.codes == GAME_END), len(whole.codes))[0])
    events = replace(whole, codes=whole.codes[:until], offsets=whole.offsets[:until]).records(kind)
    return np.asarray(events[(events["port"] == int(port[1]) - 1) & (events["follower"] != 0)])


def _closed_up(path: Path, port: str, frames: list[int]) -> pa.Array:
    """Peppi's rows of Nana's frames where it closed her gaps: the nth is of her nth event."""
    rows = {frame: n for n, frame in enumerate(nana_events(path, "post", port)["frame"].tolist())}
    return pa.array([rows.get(frame) for frame in frames], pa.int64())


def _assert_items(table: pa.Table, frames: pa.StructArray, rows: pa.Array) -> set[str]:
    if frames.type.get_field_index("item") < 0:
        assert table["items"].null_count == len(table)
        return {name.replace(".list.element", "") for name in leaves(table.schema)
                if name.startswith("items")}  # fmt: skip
    lists = frames.field("item").take(rows)
    stored = table["items"].combine_chunks()
    assert stored.offsets.to_pylist() == lists.offsets.to_pylist()
    compared = {"items.slot"}
    for column in ITEM:
        name = f"items.{column.name}"
        expected = raw_leaf(lists.flatten(), column.source.removeprefix("item."))
        if column.source and expected is not None:
            assert_same(leaf(table, name), expected, name)
            compared.add(name)
        elif column.source:
            assert leaf(table, name) is None
    ids, offsets = lists.flatten().field("id").to_pylist(), lists.offsets.to_pylist()
    slots = plain_slots([ids[a:b] for a, b in pairwise(offsets)])
    assert leaf(table, "items.slot").to_pylist() == slots
    return compared


def _assert_stage(parsed: ParsedGame, frames: pa.StructArray, rows: pa.Array) -> set[str]:
    """Events carried forward over last copies, row by row; Randall has a test of its own."""
    compared = set()
    here = parsed.footer["start"]["stage"]
    for column in STAGE:
        name = f"stage.{column.name}"
        stored = leaf(parsed.table, name)
        compared |= {name} if stored is not None else set()
        if not column.source:
            numbers = parsed.table["frame"].to_pylist()
            clouds = (
                [randall(n)["xy".index(column.name[-1])] for n in numbers] if here == 8 else None
            )
            assert_near(stored, clouds or [None] * len(rows))
            continue
        event, _, field = column.source.partition(".")
        if frames.type.get_field_index(event) < 0:
            assert stored is None
            continue
        stage, state = STAGE_STARTS[column.name]
        expected: list[Any] = [None] * len(rows) if stage != here else []
        for sent in frames.field(event).take(rows).to_pylist() if stage == here else []:
            own = [e for e in sent if e.get("platform") == _LEFT_OR_RIGHT.get(column.name)]
            state = own[-1][field] if own else state
            expected.append(state)
        assert_same(stored, pa.array(expected, column.type), name)
    return compared


def assert_near(stored: pa.Array, expected: Sequence[float | None]) -> None:
    """Equal within float32, null where null."""
    assert stored.is_null().to_pylist() == [value is None for value in expected]
    if stored.null_count == 0:
        assert np.abs(np.asarray(stored) - np.array(expected, float)).max() < 1e-4


_CORNERS = {
    416: ((89.752640, -33.184479), (90.078781, -33.044704), (90.404922, -32.904930),
          (90.731071, -32.765152), (90.924553, -32.492607), (91.064377, -32.166355),
          (91.204193, -31.840103), (91.344017, -31.513851)),
    469: ((91.337135, -15.194888), (91.197365, -14.868743), (91.057587, -14.542601),
          (90.917810, -14.216456), (90.710365, -13.967143), (90.369179, -13.869664),
          (90.027992, -13.772183), (89.686807, -13.674699)),
    1016: ((-101.919677, -13.679761), (-102.245819, -13.819535), (-102.571960, -13.959306),
           (-102.898102, -14.099090), (-103.147614, -14.320136), (-103.306305, -14.637515),
           (-103.464996, -14.954894)),
    1069: ((-103.554932, -31.590042), (-103.396255, -31.907413), (-103.237564, -32.224785),
           (-103.078873, -32.542156), (-102.774399, -32.721680), (-102.466263, -32.897751),
           (-102.158142, -33.073826)),
}  # fmt: skip
"""Randall's four corners: first frame of 1,200 -> (left edge, height) of each frame."""


def randall(frame: int) -> tuple[float, float]:
    """Centre and height of the cloud: the table of shared/reference/slippi.md 4, frame by frame."""
    t = frame % 1200
    left, height = -101.850006 + 0.35484 * (t + 125 if t < 416 else t - 1076), -33.2489
    for first, corner in _CORNERS.items():
        if first <= t < first + len(corner):
            left, height = corner[t - first]
    if 424 <= t < 469:
        left, height = 91.35, -31.160233 + 0.354839325 * (t - 424)
    elif 477 <= t < 1016:
        left, height = 101.235443 - 11.9 - 0.35484 * (t - 477), -13.64989
    elif 1023 <= t < 1069:
        left, height = -103.6, -15.277869 - 0.354839325 * (t - 1023)
    return left + 11.9 / 2, height
