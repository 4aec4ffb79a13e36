"""Whether a stored game holds what its replay says and nothing else: for replays damaged at random.

An undamaged one must equal peppi's raw arrays; of a repaired one every stored row must be an event
of the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.replay import ParsedGame
from ingest.slp import GAME_END, KINDS, MAGIC, Split, layout, split
from schemas.columns import FRAME, ITEM, NEWEST_KNOWN, PLAYER, Column
from schemas.game import SIDES
from tests.ingest.own_events import recorded
from tests.ingest.raw_peppi import assert_equals_raw
from tests.ingest.test_replay import leaf

Records = npt.NDArray[np.void]
_OF_METADATA = {"metadata_missing", "brace_missing", "metadata_unreadable"}
"""Repairs that leave the frames as peppi gives them."""


def assert_faithful(data: bytes, game: ParsedGame, scratch: Path) -> None:
    """Raises AssertionError. scratch: a file to write over."""
    frames = game.table["frame"].to_numpy()
    assert len(frames) > 0
    assert (np.diff(frames.astype(np.int64)) > 0).all(), "frame numbers do not rise"
    events = split(data, beyond="wrong_length" in game.footer["repairs"])
    if not set(game.footer["repairs"]) <= _OF_METADATA:
        assert_own_rows(events, game)
        return
    length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")
    if not length:  # the recorder died after game end: there the stream ends
        end = int(np.flatnonzero(events.codes == GAME_END)[0])
        length = int(events.offsets[end]) + events.sizes[GAME_END] - len(MAGIC) - 4
    # metadata of kinds that peppi does not know is no damage: it reads the rest
    raw = data[len(MAGIC) + 4 :][:length]
    scratch.write_bytes(MAGIC + length.to_bytes(4, "big") + raw + b"}")
    assert_equals_raw(scratch, game)


def assert_own_rows(events: Split, game: ParsedGame) -> None:
    """Every row of every character and every item is an event of this file, bit by bit; what the
    file's payloads do not hold is null."""
    table = game.table
    for event in ("start", "end"):
        columns = [column for column in FRAME[1:] if column.event == event]
        there = _there(events, columns, lambda name: table[name].null_count < len(table))
        _assert_rows(events, event, there, table, {c.name: table[c.name] for c in there}, {})
    nobody = np.ones(len(table), bool)
    for side in SIDES:
        for path, follower in ((side, False), (f"{side}.follower", True)):
            rows = leaf(table, path)
            if rows is not None:
                nobody &= np.asarray(rows.is_null())
                _assert_character(events, table, path, follower)
    assert not nobody.any(), "a frame without characters"
    if events.sizes.get(KINDS["item"].code):
        columns = [column for column in ITEM if column.source]
        there = _there(events, columns, lambda name: leaf(table, f"items.{name}") is not None)
        counts = table["items"].combine_chunks().value_lengths().to_numpy()
        frames = np.repeat(table["frame"].to_numpy(), counts)
        items = pa.table(
            {"frame": frames} | {c.name: leaf(table, f"items.{c.name}") for c in there}
        )
        _assert_rows(events, "item", there, items, {c.name: items[c.name] for c in there}, {})
    else:
        assert table["items"].null_count == len(table)


def _there(events: Split, columns: list[Column], stored: Any) -> list[Column]:
    """The columns that the file records; the others must not be stored."""
    there = [c for c in columns if events.sizes.get(KINDS[c.event].code) and recorded(events, c)]
    assert not [c.name for c in columns if c not in there and stored(c.name)]
    return there


def _assert_character(events: Split, table: pa.Table, path: str, follower: bool) -> None:
    rows = leaf(table, path)
    sent = np.asarray(rows.is_valid())
    port = np.asarray(leaf(table, f"{path}.port").drop_null())
    seed = table["random_seed"].combine_chunks()
    for event in ("pre", "post"):
        columns = [c for c in PLAYER if c.event == event and c.name != "random_seed"]
        there = _there(events, columns, lambda name: leaf(table, f"{path}.{name}") is not None)
        stored = {c.name: leaf(table, f"{path}.{c.name}") for c in there}
        assert all(np.array_equal(np.asarray(v.is_valid()), sent) for v in stored.values())
        if event == "pre":
            own = leaf(table, f"{path}.random_seed")
            stored["random_seed"] = seed if own is None else pa.compute.coalesce(own, seed)
        of_character = table.filter(pa.array(sent))
        kept = {name: values.filter(pa.array(sent)) for name, values in stored.items()}
        _assert_rows(events, event, there, of_character, kept,
                     {"port": port - 1, "follower": follower})  # fmt: skip


def _assert_rows(
    events: Split,
    event: str,
    there: list[Column],
    table: pa.Table,
    stored: dict[str, Any],
    known: dict[str, Any],
) -> None:
    """Each row, with its frame number, is one of the file's events of a kind."""
    if not there:
        return
    dtype = layout(event, NEWEST_KNOWN)
    rows: Records = np.zeros(len(table), dtype)
    sent: Records = events.records(event, NEWEST_KNOWN)
    if "follower" in known:
        sent["follower"] = sent["follower"] != 0
    own: Records = np.zeros(len(sent), dtype)
    names = ["frame", *known, *stored]
    for name in names:
        own[name] = sent[name]
    rows["frame"] = table["frame"].to_numpy()
    for name, values in {**known, **stored}.items():
        rows[name] = np.asarray(values)
    made_up = {row.tobytes() for row in rows} - {row.tobytes() for row in own}
    assert not made_up, f"{len(made_up)} rows of {event} are not in the file"
