"""The .slp container and its events: arrays to bytes for any Slippi version, and bytes to events.

Frame events are laid out by `schemas.columns.wire`, so that a new column is written and read
without a change here; what that table cannot name (game start, game end, stage events) has its own
tables below. Facts: project-slippi/slippi-wiki:SPEC.md. All numbers are big-endian.
"""

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import columns

Version = tuple[int, int]
Array = npt.NDArray[Any]

MAGIC = b"{U\x03raw[$U#l"
PAYLOADS, GAME_START, GAME_END = 0x35, 0x36, 0x39
N_PORTS = 4

# ---------------------------------------------------------------------------- layouts


class Kind(NamedTuple):
    """One event that occurs within frames; `extra` are fields that schemas.columns cannot name."""

    code: int
    since: Version
    extra: tuple[tuple[str, str], ...] = ()


_OF_A_CHARACTER = (("port", "u1"), ("follower", "u1"))

# In the order of a frame, which all whole frames of real replays keep.
KINDS = {
    "start": Kind(0x3A, (2, 2)),
    "pre": Kind(0x37, (0, 1), _OF_A_CHARACTER),
    "fod_platform": Kind(0x3F, (3, 18), (("platform", "u1"), ("height", ">f4"))),
    "dreamland_whispy": Kind(0x40, (3, 18), (("direction", "u1"),)),
    "stadium_transformation": Kind(0x41, (3, 18), (("event", ">u2"), ("type", ">u2"))),
    "item": Kind(0x3B, (3, 0)),
    "post": Kind(0x38, (0, 1), _OF_A_CHARACTER),
    "end": Kind(0x3C, (3, 0)),
}
_RANK = {event: rank for rank, event in enumerate(KINDS)}


class Field(NamedTuple):
    """A field of game start or game end; with a `stride` it is there once for each port."""

    name: str
    offset: int  # from the event's code byte, as the specification counts
    format: str
    since: Version = (0, 1)
    stride: int = 0


START = (
    Field("version", 0x1, "4B"),
    Field("bitfield", 0x5, "4B"),
    Field("is_raining_bombs", 0xB, "B"),
    Field("is_teams", 0xD, "B"),
    Field("item_spawn_frequency", 0x10, "b"),
    Field("self_destruct_score", 0x11, "b"),
    Field("stage", 0x13, "H"),
    Field("timer", 0x15, "I"),
    Field("item_spawn_bitfield", 0x28, "5B"),
    Field("damage_ratio", 0x35, "f"),
    Field("character", 0x65, "B", stride=0x24),
    Field("type", 0x66, "B", stride=0x24),
    Field("stocks", 0x67, "B", stride=0x24),
    Field("costume", 0x68, "B", stride=0x24),
    Field("team_shade", 0x6C, "B", stride=0x24),
    Field("handicap", 0x6D, "B", stride=0x24),
    Field("team", 0x6E, "B", stride=0x24),
    Field("player_bitfield", 0x71, "B", stride=0x24),
    Field("cpu_level", 0x74, "B", stride=0x24),
    Field("damage_start", 0x75, "H", stride=0x24),
    Field("damage_spawn", 0x77, "H", stride=0x24),
    Field("offense_ratio", 0x7D, "f", stride=0x24),
    Field("defense_ratio", 0x81, "f", stride=0x24),
    Field("model_scale", 0x85, "f", stride=0x24),
    Field("random_seed", 0x13D, "I"),
    Field("dash_back", 0x141, "I", (1, 0), 8),
    Field("shield_drop", 0x145, "I", (1, 0), 8),
    Field("name_tag", 0x161, "16s", (1, 3), 0x10),
    Field("is_pal", 0x1A1, "B", (1, 5)),
    Field("is_frozen_ps", 0x1A2, "B", (2, 0)),
    Field("scene_minor", 0x1A3, "B", (3, 7)),
    Field("scene_major", 0x1A4, "B", (3, 7)),
    Field("netplay_name", 0x1A5, "31s", (3, 9), 0x1F),
    Field("netplay_code", 0x221, "10s", (3, 9), 0xA),
    Field("netplay_suid", 0x249, "29s", (3, 11), 0x1D),
    Field("language", 0x2BD, "B", (3, 12)),
    Field("match_id", 0x2BE, "51s", (3, 14)),
    Field("match_game", 0x2F1, "I", (3, 14)),
    Field("match_tiebreaker", 0x2F5, "I", (3, 14)),
)

END = (
    Field("method", 0x1, "B"),
    Field("lras_initiator", 0x2, "b", (2, 0)),
    Field("placements", 0x3, "b", (3, 13), 1),
)


def layout(event: str, version: Version) -> np.dtype[np.void]:
    """Code byte and payload of one frame event as `version` carries it, big-endian and packed."""
    group: tuple[columns.Column, ...] = columns.FRAME + columns.PLAYER + columns.ITEM
    fields = [("code", "u1"), ("frame", ">i4"), *KINDS[event].extra]
    fields += [
        (column.name, numpy_type(column).newbyteorder(">").str)
        for column in columns.wire(event, version, group)
    ]
    return np.dtype(fields)


def numpy_type(column: columns.Column) -> np.dtype[Any]:
    """The type of a column; pyarrow's own conversion asks for pandas."""
    kind = column.type
    letter = (
        "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    )
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def block_size(fields: Sequence[Field], version: Version) -> int:
    """Payload bytes of game start or game end, without the code byte."""
    ends = (f.offset + f.stride * (N_PORTS - 1) + struct.calcsize(f.format)
            for f in fields if f.since <= version)  # fmt: skip
    return max(ends) - 1


def payload_sizes(version: Version) -> dict[int, int]:
    """Event code -> payload bytes, for every event that a file of `version` may hold."""
    sizes = {GAME_START: block_size(START, version), GAME_END: block_size(END, version)}
    for event, kind in KINDS.items():
        if kind.since <= version:
            sizes[kind.code] = layout(event, version).itemsize - 1
    return sizes


# ---------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class Batch:
    """Events of one kind, n of them. `row` (n,) says to which frame row each belongs; `fields` are
    arrays (n,) by name (`frame`, `port`, `follower`, columns); a missing one becomes zeros."""

    event: str
    row: Array
    fields: Mapping[str, Array]


def pack_block(
    code: int, fields: Sequence[Field], version: Version, values: Mapping[str, Any]
) -> bytes:
    """Game start or game end with its code byte; a field without a value stays zero."""
    block = bytearray(1 + block_size(fields, version))
    block[0] = code
    for field in fields:
        if field.since > version or field.name not in values:
            continue
        ports = values[field.name] if field.stride else [values[field.name]]
        for n, value in enumerate(ports):
            at = field.offset + n * field.stride
            many = isinstance(value, tuple)
            struct.pack_into(f">{field.format}", block, at, *(value if many else (value,)))
    return bytes(block)


def pack_frames(version: Version, batches: Iterable[Batch]) -> memoryview:
    """All frame events in the order of the file; events newer than `version` are left out.

    Within a row the order is that of KINDS, and within a kind that of the batches.
    """
    parts = [
        (b.row, _RANK[b.event], _records(b, version))
        for b in batches
        if KINDS[b.event].since <= version
    ]
    row = np.concatenate([rows for rows, _, _ in parts])
    rank = np.concatenate([np.full(len(rows), rank, np.int8) for rows, rank, _ in parts])
    size = np.concatenate([np.full(len(rows), r.itemsize) for rows, _, r in parts])
    order = np.lexsort((rank, row))
    at = np.empty(len(row), np.int64)
    at[order] = np.cumsum(size[order]) - size[order]
    out = np.empty(int(size.sum()), np.uint8)
    done = 0
    for _, _, records in parts:
        payload = records.view(np.uint8).reshape(len(records), records.itemsize)
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            rows = payload[start : start + _RECORDS_AT_ONCE]
            first = done + start
            out[at[first : first + len(rows), None] + np.arange(records.itemsize)] = rows
        done += len(records)
    return out.data


def _records(batch: Batch, version: Version) -> Array:
    dtype = layout(batch.event, version)
    records = np.zeros(len(batch.row), dtype)
    records["code"] = KINDS[batch.event].code
    for name in dtype.names or ():
        if name in batch.fields:
            records[name] = batch.fields[name]
    return records


Bytes = bytes | memoryview


def pack_replay(
    version: Version,
    start: bytes,
    frames: Bytes,
    end: bytes = b"",
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """A whole .slp of packed events. Without `metadata` only the closing brace follows them."""
    return b"".join(replay_pieces(version, start, frames, end, metadata))


def replay_pieces(
    version: Version,
    start: bytes,
    frames: Bytes,
    end: bytes = b"",
    metadata: Mapping[str, Any] | None = None,
) -> tuple[Bytes, ...]:
    """As `pack_replay`, without a copy of the frames."""
    sizes = payload_sizes(version)
    table = struct.pack(">BB", PAYLOADS, 3 * len(sizes) + 1)
    table += b"".join(struct.pack(">BH", code, size) for code, size in sizes.items())
    raw = table, start, frames, end
    tail = b"" if metadata is None else _key("metadata") + ubjson(metadata)
    return MAGIC, struct.pack(">I", sum(map(len, raw))), *raw, tail, b"}"


def ubjson(value: Any) -> bytes:
    """Maps, strings up to 255 bytes and 32-bit integers: all that Slippi's own metadata needs."""
    if isinstance(value, Mapping):
        return b"{" + b"".join(_key(k) + ubjson(v) for k, v in value.items()) + b"}"
    if isinstance(value, str):
        return b"S" + _key(value)
    return struct.pack(">ci", b"l", value)


def _key(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">cB", b"U", len(data)) + data


# ---------------------------------------------------------------------------- reading


EVENTS_MAX = 4_000_000
"""More than any replay has that we take: the longest game of all has a million. It bounds what a
walk over bytes of no sense may cost."""


@dataclass(frozen=True)
class Split:
    """A file taken apart by its own payload table.

    sizes: event code -> payload bytes. codes (E,) uint8 and offsets (E,) int64: each event, and
    where in `data` its payload begins. stop: where the walk ended. fault: why it ended early, ''
    for a whole stream.
    """

    data: bytes
    sizes: dict[int, int]
    codes: Array
    offsets: Array
    stop: int
    fault: str

    @property
    def events(self) -> list[tuple[int, int]]:
        """(code, offset of the payload) of each event."""
        return list(zip(self.codes.tolist(), self.offsets.tolist(), strict=True))

    def payloads(self, code: int) -> list[bytes]:
        """Payloads of one event, without the code byte, in file order."""
        size = self.sizes.get(code, 0)
        return [self.data[at : at + size] for at in self.offsets[self.codes == code].tolist()]

    @property
    def version(self) -> Version:
        """Major and minor of the recorder; (0, 0) where there is no game start."""
        start = self.payloads(GAME_START)
        return (start[0][0], start[0][1]) if start and len(start[0]) > 1 else (0, 0)

    def records(self, event: str, version: Version | None = None) -> Array:
        """The events of one kind as a structured array in the layout of `version` (the file's own).

        Bytes beyond the layout are left out, bytes that the file lacks are zeros.
        """
        return self.records_at(event, self.codes == KINDS[event].code, version or self.version)

    def records_at(self, event: str, picked: Array, version: Version) -> Array:
        """As `records`, of some events: picked (E,) bool says which, all of this kind."""
        dtype = layout(event, version)
        size = min(dtype.itemsize - 1, self.sizes.get(KINDS[event].code, 0))
        at = self.offsets[picked]
        rows = np.zeros((len(at), dtype.itemsize), np.uint8)
        rows[:, 0] = KINDS[event].code
        stream = np.frombuffer(self.data, np.uint8)
        for start in range(0, len(at), _RECORDS_AT_ONCE):
            part = slice(start, start + _RECORDS_AT_ONCE)
            rows[part, 1 : 1 + size] = stream[at[part, None] + np.arange(size)]
        return rows.view(dtype)[:, 0]


_RECORDS_AT_ONCE = 16_384
"""Places of so many records are computed at a time: they take eight times the records' bytes."""


def split(data: bytes, *, beyond: bool = False) -> Split:
    """Walk the events of a file by its own payload table; a damaged file gives what was readable.

    Works on a file with or without the container around the stream, and while it is being written
    (raw length 0: the walk then goes to the end of the bytes). beyond: do so whatever the length
    in the header says.
    """
    begin, stop, fault = 0, len(data), ""
    if data.startswith(MAGIC):
        begin = len(MAGIC) + 4
        length = int.from_bytes(data[len(MAGIC) : begin], "big")
        fault = "raw data ends early" if begin + length > stop else ""
        stop = min(stop, begin + length) if length and not beyond else stop
    sizes, at = _payload_table(data[begin : begin + _TABLE_BYTES_MAX])
    nothing = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    if not sizes:
        return Split(data, {}, *nothing, min(begin, stop), "no payload table")
    offsets = array("q")
    at, ended = _walk(data, sizes, begin + at, stop, offsets)
    places = np.frombuffer(offsets, np.int64) if offsets else nothing[1]
    codes = np.frombuffer(data, np.uint8)[places - 1]
    return Split(data, sizes, codes, places, at, ended or fault)


def _walk(
    data: bytes, sizes: dict[int, int], at: int, stop: int, offsets: "array[int]"
) -> tuple[int, str]:
    """Append where payloads begin. Returns where the walk ended, and why it ended before `stop`."""
    strides = [1 + sizes[code] if code in sizes else 0 for code in range(256)]
    found = offsets.append
    for _ in range(EVENTS_MAX):
        if at >= stop:
            return at, ""
        stride = strides[data[at]]
        if not stride or at + stride > stop:
            return at, f"event 0x{data[at]:02x} " + ("is cut" if stride else "has no size")
        found(at + 1)
        at += stride
    return at, f"more than {EVENTS_MAX} events"


_TABLE_BYTES_MAX = 1 + 255


def _payload_table(raw: bytes) -> tuple[dict[int, int], int]:
    """Sizes by code, and where the events begin; ({}, 0) where the stream starts otherwise."""
    if len(raw) < 2 or raw[0] != PAYLOADS or (raw[1] - 1) % 3 or len(raw) < 1 + raw[1]:
        return {}, 0
    rows = struct.iter_unpack(">BH", raw[2 : 1 + raw[1]])
    return dict(rows), 1 + raw[1]
