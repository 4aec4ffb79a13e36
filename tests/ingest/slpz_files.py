"""Writes .slpz files after the format's own page, for tests of reading them."""

import struct

import numpy as np
import zstandard


def pack(slp: bytes) -> bytes | None:
    """A .slp as .slpz; None where the format has no place for it, as its own packer refuses it.

    That is: no whole events, the sizes and the start first, that fill the raw length.
    """
    raw = int.from_bytes(slp[11:15], "big")
    if len(slp) < 15 + raw or raw < 2 or slp[15] != 0x35:
        return None
    table = 15 + 1 + slp[16]
    sizes = dict(struct.iter_unpack(">BH", slp[17:table]))
    start = table + 1 + sizes.get(0x36, 0)
    if start > 15 + raw or slp[table] != 0x36:
        return None
    events = split(slp[start : 15 + raw], sizes)
    if events is None:
        return None
    packed = zstandard.compress(columns(events))
    parts = [slp[15:table], slp[table:start], slp[15 + raw :]]
    return assemble(parts, packed, len(columns(events)))


def assemble(parts: list[bytes], packed: bytes, size: int) -> bytes:
    """Header and parts: payload sizes, game start, metadata, packed events of that size."""
    offsets = [24]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(">6I", 0, *offsets, size) + b"".join(parts) + packed


def split(stream: bytes, sizes: dict[int, int]) -> list[bytes] | None:
    """The events of a stream, or None where they do not fill it."""
    events, at = [], 0
    while at < len(stream):
        size = sizes.get(stream[at], 0)
        if not size or at + 1 + size > len(stream):
            return None
        events.append(stream[at : at + 1 + size])
        at += 1 + size
    return events


def columns(events: list[bytes]) -> bytes:
    """Number, codes in order, and the transposed payloads of each code."""
    payloads: dict[int, list[bytes]] = {}
    for event in events:
        payloads.setdefault(event[0], []).append(event[1:])
    blocks = []
    for _, rows in sorted(payloads.items()):
        block = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        blocks.append(block.T.tobytes())
    order = bytes(event[0] for event in events)
    return struct.pack(">I", len(events)) + order + b"".join(blocks)
