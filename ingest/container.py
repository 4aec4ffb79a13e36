"""The .slp container: header, payload table, start block, metadata; knows nothing of frames.

Everything here reads hostile bytes: lengths are checked before use, and metadata is read by a
reader of our own with limits, because peppi's dies of deep nesting and knows few types.
"""

import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ingest.rules import START_BYTES_MIN, Refusal, StartBlock
from ingest.slp import EVENTS_MAX, GAME_END, GAME_START, MAGIC, PAYLOADS, payload_sizes
from schemas.columns import NEWEST_KNOWN

_RAW = len(MAGIC) + 4
METADATA_KEY = b"U\x08metadata"


KNOWN_PAYLOADS: dict[int, float] = {
    **payload_sizes(NEWEST_KNOWN),
    0x10: 516,  # a piece of something larger
    0x3D: math.inf,  # Gecko codes: travel inside 0x10, and their size here can overflow
}
"""event code -> payload bytes without the code; a larger one belongs to a newer Slippi"""


@dataclass(frozen=True)
class Container:
    """One .slp file taken apart; see `open_container`."""

    data: bytes
    raw_stop: int
    sizes: dict[int, int]
    start: StartBlock
    metadata: dict[str, Any] | None
    repairs: tuple[str, ...]

    @cached_property
    def newer_than_parser(self) -> bool:
        """Whether the file has events or fields that this code does not know, and so loses."""
        return any(size > KNOWN_PAYLOADS.get(code, -1) for code, size in self.sizes.items())

    @property
    def plain(self) -> tuple[bytes, memoryview, bytes]:
        """The same replay in pieces, with its true length and without metadata."""
        raw = memoryview(self.data)[_RAW : self.raw_stop]
        return MAGIC + struct.pack(">I", len(raw)), raw, b"}"


def open_container(data: bytes) -> Container:
    """Take a .slp file apart.

    Raises Refusal (not_a_replay, truncated, unfinished, unreadable).
    """
    if not data.startswith(MAGIC) or len(data) < _RAW:
        raise Refusal("not_a_replay", f"begins with {data[:11].hex(' ')}" if data else "empty")
    sizes, events = _payload_table(data)
    raw_stop = _raw_stop(data, sizes, events)
    metadata, repairs = read_metadata(data, raw_stop)
    start = StartBlock(data[events + 1 : events + 1 + sizes[GAME_START]])
    return Container(data, raw_stop, sizes, start, metadata, repairs)


def _payload_table(data: bytes) -> tuple[dict[int, int], int]:
    """Payload size of each event code, and where the events after the table begin."""
    head = data[_RAW : _RAW + 2]
    if len(head) < 2 or head[0] != PAYLOADS or head[1] % 3 != 1:
        raise Refusal("unreadable", f"no payload table: {head.hex(' ') or 'nothing'}")
    stop = _RAW + 1 + head[1]
    if len(data) <= stop:
        raise Refusal(_short(data), "the file ends inside the payload table")
    sizes: dict[int, int] = dict(struct.iter_unpack(">BH", data[_RAW + 2 : stop]))
    if data[stop] != GAME_START or sizes.get(GAME_START, 0) < START_BYTES_MIN:
        raise Refusal("unreadable", f"no game start: event {data[stop]:#04x} comes first")
    if len(data) < stop + 1 + sizes[GAME_START]:
        raise Refusal(_short(data), "the file ends inside game start")
    return sizes, stop


def _short(data: bytes) -> str:
    """The rule that names a file without even a start: its length is 0 while it is written."""
    return "truncated" if any(data[len(MAGIC) : _RAW]) else "unfinished"


def _raw_stop(data: bytes, sizes: dict[int, int], events: int) -> int:
    """Where the event stream ends. Its length is 0 while the game is being written."""
    (length,) = struct.unpack_from(">I", data, len(MAGIC))
    if length == 0:
        return _walk_to_end(data, sizes, events)
    if _RAW + length > len(data):
        missing = _RAW + length - len(data)
        raise Refusal("truncated", f"{missing} of {length} bytes of events are missing")
    return _RAW + int(length)


def _walk_to_end(data: bytes, sizes: dict[int, int], position: int) -> int:
    for _ in range(EVENTS_MAX):
        code = data[position] if position < len(data) else None
        if code not in sizes:
            break
        position += 1 + sizes[code]
        if code == GAME_END and position <= len(data):
            return position
    raise Refusal("unfinished", "raw length 0 and no game end: cut off, or still being written")


def read_metadata(data: bytes, raw_stop: int) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Metadata, and what was wrong with it: a replay is not lost for its last words."""
    tail = data[raw_stop:]
    if not tail.startswith(METADATA_KEY):
        return None, () if tail.startswith(b"}") else ("metadata_missing",)
    reader = _Ubjson(tail, len(METADATA_KEY))
    try:
        value = reader.value()
    except (ValueError, IndexError, struct.error):
        return None, ("metadata_unreadable",)
    if not isinstance(value, dict):
        return None, ("metadata_unreadable",)
    return value, () if reader.rest.startswith(b"}") else ("brace_missing",)


_DEPTH_MAX = 32
_VALUES_MAX = 100_000
_NUMBERS = {"i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_CONSTANTS = {"Z": None, "T": True, "F": False}


class _Ubjson:
    """A reader of Universal Binary JSON with limits on depth and on the number of values.

    Raises ValueError, IndexError or struct.error for anything that is not UBJSON. Numbers that JSON
    cannot say (NaN, infinities) become text; text that is not UTF-8 keeps its readable part.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._values = 0

    @property
    def rest(self) -> bytes:
        """What follows the value."""
        return self._data[self._position : self._position + 1]

    def value(self, marker: str = "", depth: int = 0) -> Any:
        """The value at the position; marker: its type where the container said it already."""
        self._values += 1
        if depth > _DEPTH_MAX or self._values > _VALUES_MAX:
            raise ValueError("metadata nested too deep, or too much of it")
        marker = marker or self._marker()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in "SH":
            return self._text(self._length())
        if marker == "C":
            return self._text(1)
        if marker == "{":
            return {key: self.value(kind, depth + 1) for key, kind in self._members(keys=True)}
        if marker == "[":
            return [self.value(kind, depth + 1) for _, kind in self._members(keys=False)]
        raise ValueError(f"unknown type {marker!r}")

    def _members(self, *, keys: bool) -> Any:
        """Yield (key, type) in front of each member; '' where the member says its type itself."""
        kind, count = "", None
        if self._peek() == "$":
            self._position += 1
            kind = self._marker()
        if self._peek() == "#":
            self._position += 1
            count = self._length()
        if kind and count is None:
            raise ValueError("a typed container without a count")
        close = "}" if keys else "]"
        done = 0
        while done < count if count is not None else self._peek() != close:
            yield (self._text(self._length()) if keys else ""), kind
            done += 1
        if count is None:
            self._position += 1

    def _peek(self) -> str:
        return chr(self._data[self._position])

    def _marker(self) -> str:
        while (marker := self._peek()) == "N":  # no-operation
            self._position += 1
        self._position += 1
        return marker

    def _number(self, marker: str) -> int | float | str:
        code = _NUMBERS[marker]
        (number,) = struct.unpack_from(code, self._data, self._position)
        self._position += struct.calcsize(code)
        return number if isinstance(number, int) or math.isfinite(number) else repr(number)

    def _length(self) -> int:
        marker = self._marker()
        number = self._number(marker) if marker in "iUIlL" else -1
        if not isinstance(number, int) or number < 0:
            raise ValueError("bad length")
        return number

    def _text(self, length: int) -> str:
        stop = self._position + length
        if stop > len(self._data):
            raise ValueError("text longer than the file")
        text = self._data[self._position : stop].decode("utf-8", "replace")
        self._position = stop
        return text
