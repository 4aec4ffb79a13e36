"""Replays taken apart to be damaged and put together again: payload table, events, what follows."""

import struct
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ingest.replay import ParsedGame
from ingest.slp import GAME_END, GAME_START, KINDS, MAGIC, PAYLOADS, START, split
from schemas.game import leaves
from tests.ingest.test_replay import assert_same, leaf

RAW = len(MAGIC) + 4
CODE = {event: kind.code for event, kind in KINDS.items()}


@dataclass
class Stream:
    """A replay in pieces. sizes: as the table says. events: each with its code byte, game start
    first. tail: metadata and the closing brace."""

    sizes: dict[int, int]
    events: list[bytes] = field(default_factory=list)
    tail: bytes = b"}"

    def raw(self) -> bytes:
        """Payload table and events."""
        table = b"".join(struct.pack(">BH", code, size) for code, size in self.sizes.items())
        return bytes([PAYLOADS, len(table) + 1]) + table + b"".join(self.events)

    def pack(self, length: int | None = None) -> bytes:
        """The file; length: what the header says instead of the truth."""
        raw = self.raw()
        told = len(raw) if length is None else length
        return MAGIC + struct.pack(">I", told) + raw + self.tail

    def numbers(self, event: str) -> list[int]:
        """Which of `events` are of one kind."""
        code = {"game start": GAME_START, "game end": GAME_END, **CODE}[event]
        return [n for n, whole in enumerate(self.events) if whole[0] == code]

    def first(self, event: str) -> int:
        """Number of the first event of a kind."""
        return self.numbers(event)[0]

    def patch(self, event: int, offset: int, value: bytes) -> None:
        """Write over bytes of an event; offset counts from its code byte."""
        whole = self.events[event]
        self.events[event] = whole[:offset] + value + whole[offset + len(value) :]

    def patch_start(self, name: str, port: int, value: bytes) -> None:
        """Write over a field of game start; ports count from 0."""
        place = next(known for known in START if known.name == name)
        self.patch(0, place.offset + place.stride * port, value)


def take_apart(data: bytes) -> Stream:
    """A whole replay's pieces."""
    events = split(data)
    whole = [data[at - 1 : at + events.sizes[code]] for code, at in events.events]
    return Stream(dict(events.sizes), whole, data[events.stop :])


def assert_prefix(table: pa.Table, whole: pa.Table) -> None:
    """All leaves of a table equal the first rows of another one's, bit by bit."""
    beginning = whole.slice(0, len(table))
    assert len(beginning) == len(table)
    assert set(leaves(table.schema)) <= set(leaves(whole.schema))
    for name in leaves(whole.schema):
        path = name.replace(".list.element", "")
        stored, expected = leaf(table, path), leaf(beginning, path)
        if stored is None:  # a seed that never differs is not kept
            assert path.endswith("random_seed")
            assert expected.null_count == len(expected)
            continue
        assert_same(stored, expected, path)
    counts: list[Any] = [t["items"].combine_chunks().value_lengths() for t in (table, beginning)]
    assert counts[0].equals(counts[1])


def assert_same_game(game: ParsedGame, whole: ParsedGame) -> None:
    """Every row and every word of start, end and metadata."""
    assert len(game.table) == len(whole.table)
    assert_prefix(game.table, whole.table)
    for key in ("start", "end", "metadata", "rollback_rows", "start_bytes"):
        assert game.footer[key] == whole.footer[key], key
