"""The .slpz wrapping: a replay's events in columns, one byte of one kind of event after another.

Everything is big-endian. 24 bytes of header: u32 version (0), u32 offsets of the payload sizes
event, of game start, of the metadata and of the packed part, u32 size of that part unpacked. The
first three parts are as in the .slp. The last is one zstd frame: u32 number of events, their codes
in order, then for each code from low to high byte 0 of all its events, byte 1 of all, and so on.
(AlexanderHarrison/slpz:Readme.md)
"""

import struct

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_HEADER = struct.Struct(">6I")
_SLP_HEAD = b"{U\x03raw[$U#l"
_PAYLOAD_SIZES = 0x35
_FEED_BYTES = 1024  # a zstd frame may hold 128 kB in 4 bytes: so much is met before the limit is
_WINDOW_BYTES_MAX = 2**27
_EVENTS_MAX = 2**23
"""No replay has more: events have 30 bytes on average, and each takes 20 here."""


class SlpzError(ValueError):
    """The bytes do not follow the format."""


def unpack(data: bytes, bytes_max: int) -> bytes:
    """The .slp inside, bit for bit; one byte more than the limit where it is longer.

    Raises SlpzError for anything that is not to the format, whatever its sizes and offsets say.
    """
    if len(data) < _HEADER.size:
        raise SlpzError(f"{len(data)} bytes are no .slpz header")
    version, *offsets, n_unpacked = _HEADER.unpack_from(data)
    if version:
        raise SlpzError(f"version {version} of the format; 0 is known")
    if offsets != sorted(offsets) or offsets[0] < _HEADER.size or offsets[-1] > len(data):
        raise SlpzError(f"offsets {offsets} in a file of {len(data)} bytes")
    sizes_at, start_at, metadata_at, packed_at = offsets
    if size(data) > bytes_max:
        return bytes(bytes_max + 1)
    sizes = _payload_sizes(data[sizes_at:start_at])
    events = _events(_unpacked(data[packed_at:], n_unpacked), sizes)
    raw_bytes = metadata_at - sizes_at + len(events)
    return b"".join((_SLP_HEAD, struct.pack(">I", raw_bytes), data[sizes_at:metadata_at],
                     events, data[metadata_at:packed_at]))  # fmt: skip


def size(data: bytes) -> int:
    """Bytes of the .slp inside, as the header says, which need not be true."""
    if len(data) < _HEADER.size:
        return 0
    _, sizes_at, _, _, packed_at, events = _HEADER.unpack_from(data)
    return int(len(_SLP_HEAD) + 4 + max(packed_at - sizes_at, 0) + max(events - 4, 0))


def _payload_sizes(event: bytes) -> npt.NDArray[np.int64]:
    """Payload bytes by event code (256,), -1 where the code is not in the table."""
    if len(event) < 2 or event[0] != _PAYLOAD_SIZES or len(event) != 1 + event[1]:
        raise SlpzError("no event of payload sizes at its offset")
    if (event[1] - 1) % 3:
        raise SlpzError(f"a table of {event[1] - 1} bytes: not three an event")
    sizes = np.full(256, -1)
    for code, size in struct.iter_unpack(">BH", event[2:]):
        sizes[code] = size
    return sizes


def _unpacked(frame: bytes, size: int) -> Bytes:
    import zstandard  # not for those who read plain files only

    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj()
    parts, length = [], 0
    for at in range(0, len(frame), _FEED_BYTES):
        if unpacker.eof:
            raise SlpzError("bytes after the packed events")
        try:
            parts.append(unpacker.decompress(frame[at : at + _FEED_BYTES]))
        except zstandard.ZstdError as error:
            raise SlpzError(f"the packed events cannot be read: {error}") from error
        length += len(parts[-1])
        if length > size:
            raise SlpzError(f"more than the {size} bytes of events that the header says")
    if not unpacker.eof:
        raise SlpzError("the packed events end early")
    if unpacker.unused_data:
        raise SlpzError("bytes after the packed events")
    if length != size or size < 4:
        raise SlpzError(f"{length} bytes of events, not {size} as the header says")
    return np.frombuffer(b"".join(parts), np.uint8)


def _events(columns: Bytes, sizes: npt.NDArray[np.int64]) -> bytes:
    """Events one after another, as the console wrote them."""
    n_events = int.from_bytes(columns[:4].tobytes(), "big")
    if n_events > _EVENTS_MAX:
        raise SlpzError(f"{n_events} events; up to {_EVENTS_MAX} are read")
    order, columns = columns[4 : 4 + n_events], columns[4 + n_events :]
    counts = np.bincount(order, minlength=256)
    if ((counts > 0) & (sizes < 0)).any():
        unknown = int(np.flatnonzero((counts > 0) & (sizes < 0))[0])
        raise SlpzError(f"event 0x{unknown:02X} is not in the table of payload sizes")
    if len(order) != n_events or int((counts * np.maximum(sizes, 0)).sum()) != len(columns):
        raise SlpzError(f"{n_events} events do not fill {len(columns)} bytes")
    lengths = (sizes + 1).astype(np.int32)[order]
    ends = np.cumsum(lengths, dtype=np.int32)  # of less than REPLAY_BYTES_MAX
    begins = ends - lengths
    out = np.empty(int(ends[-1]) if n_events else 0, np.uint8)
    out[begins] = order
    at = 0
    for code in np.flatnonzero(counts):
        size, count = int(sizes[code]), int(counts[code])
        block = columns[at : at + size * count].reshape(size, count)
        at += size * count
        _place(out, begins[order == code] + 1, block)
    return out.tobytes()


def _place(out: Bytes, begins: npt.NDArray[np.int64], block: Bytes) -> None:
    """Write each column of the block where its event's payload begins."""
    size, count = block.shape
    if size <= count:
        for n, row in enumerate(block):
            out[begins + n] = row
        return
    for n, begin in enumerate(begins):  # few events of a large payload
        out[begin : begin + size] = block[:, n]
