"""A stored game against the events of its own file, read one after another without peppi.

For repaired games: what counts as a whole frame is told here a second time, plainly.
"""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.replay import ParsedGame
from ingest.slp import GAME_END, KINDS, Split, layout
from schemas.columns import FRAME, ITEM, NEWEST_KNOWN, PLAYER, Column
from schemas.game import SIDES
from tests.ingest.test_replay import assert_same, leaf

_CODES = {kind.code: event for event, kind in KINDS.items()}
_STAGE = {"dreamland_whispy": ("direction", "whispy_direction")}

Event = tuple[str, int]
"""Kind, and its number among the events of this kind."""


def whole_frames(events: Split) -> dict[int, list[Event]]:
    """Frame number -> events of its last whole copy."""
    seen = dict.fromkeys(KINDS, 0)
    whole: dict[int, list[Event]] = {}
    opened: list[Event] = []
    number = None
    for code, at in events.events:
        if code == GAME_END:
            break
        event = _CODES.get(code)
        if event is None:
            continue
        frame = int.from_bytes(events.data[at : at + 4], "big", signed=True)
        if event == "start" or (frame != number and KINDS["start"].code not in events.sizes):
            _close(events, number, opened, whole)
            opened, number = [], frame
        opened.append((event, seen[event]))
        seen[event] += 1
    _close(events, number, opened, whole)
    return dict(sorted(whole.items()))


def _close(
    events: Split, number: int | None, opened: list[Event], whole: dict[int, list[Event]]
) -> None:
    kinds = [event for event, _ in opened]
    is_closed = KINDS["end"].code not in events.sizes or "end" in kinds
    if number is not None and is_closed and kinds.count("pre") == kinds.count("post") > 0:
        whole[number] = opened


@cache
def _newest(event: str) -> np.dtype[np.void]:
    return layout(event, NEWEST_KNOWN)


def recorded(events: Split, column: Column) -> bool:
    """Whether the file's payloads are long enough to hold a column."""
    code = KINDS[column.event].code
    fields = _newest(column.event).fields
    assert fields is not None
    part, offset = fields[column.name][:2]
    return bool(offset + part.itemsize <= 1 + events.sizes.get(code, 0))


def native(values: Any) -> pa.Array:
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def assert_equals_own_events(events: Split, game: ParsedGame) -> int:
    """Every column of a stored game, bit by bit. Returns the number of frames."""
    records = {event: events.records(event, NEWEST_KNOWN) for event in KINDS}
    frames = whole_frames(events)
    table = game.table
    assert table["frame"].to_pylist() == list(frames)
    for column in FRAME[1:]:
        stored = table[column.name].combine_chunks()
        if not recorded(events, column):
            assert stored.null_count == len(frames)
            continue
        rows = [n for of in frames.values() for event, n in of if event == column.event]
        assert_same(stored, native(records[column.event][column.name][rows]), column.name)
    for side in SIDES:
        port = leaf(table, f"{side}.port")[0].as_py()
        for path, follower in ((side, 0), (f"{side}.follower", 1)):
            assert_character(events, records, frames, table, path, (port - 1, follower))
    assert_items(events, records, frames, table)
    assert_stage(events, records, frames, table)
    return len(frames)


def assert_character(
    events: Split,
    records: dict[str, Any],
    frames: dict[int, list[Event]],
    table: pa.Table,
    path: str,
    who: tuple[int, int],
) -> None:
    sent = {}
    for kind in ("pre", "post"):
        ports, followers = records[kind]["port"], records[kind]["follower"]
        sent[kind] = [
            next((n for event, n in of if event == kind and (ports[n], followers[n]) == who), None)
            for of in frames.values()
        ]
    if not any(n is not None for n in sent["pre"]):
        assert leaf(table, path) is None
        return
    for column in PLAYER:
        stored = leaf(table, f"{path}.{column.name}")
        if not column.source:
            continue
        if not recorded(events, column):
            assert stored is None, column.name
            continue
        rows = sent[column.event]
        values = native(records[column.event][column.name])
        expected = values.take(pa.array(rows, pa.int64()))
        if column.name == "random_seed":
            seed = table["random_seed"].combine_chunks()
            stored = seed if stored is None else pa.compute.coalesce(stored, seed)
            stored = pa.compute.if_else(expected.is_valid(), stored, None)
        assert_same(stored, expected, f"{path}.{column.name}")


def assert_items(
    events: Split, records: dict[str, Any], frames: dict[int, list[Event]], table: pa.Table
) -> None:
    if KINDS["item"].code not in events.sizes:
        assert table["items"].null_count == len(table)
        return
    rows = [[n for event, n in of if event == "item"] for of in frames.values()]
    lists = table["items"].combine_chunks()
    assert np.diff(lists.offsets.to_numpy()).tolist() == [len(of) for of in rows]
    flat = [n for of in rows for n in of]
    for column in ITEM:
        if column.source:
            stored = leaf(table, f"items.{column.name}")
            if not recorded(events, column):
                assert stored is None, column.name
                continue
            assert_same(stored, native(records["item"][column.name][flat]), column.name)


def assert_stage(
    events: Split, records: dict[str, Any], frames: dict[int, list[Event]], table: pa.Table
) -> None:
    """Whispy alone among the repaired games; the others' stage is null, or not recorded."""
    for kind, (name, column) in _STAGE.items():
        stored = leaf(table, f"stage.{column}")
        if KINDS[kind].code not in events.sizes:
            assert stored is None
            continue
        if stored.null_count == len(table):
            continue
        state, expected = 0, []
        for of in frames.values():
            for event, n in of:
                state = int(records[kind][name][n]) if event == kind else state
            expected.append(state)
        assert stored.to_pylist() == expected
        assert max(expected) > 0
