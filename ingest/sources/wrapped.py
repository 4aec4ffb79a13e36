"""Replays that are packed one by one: .slp.gz, .slp.xz, .slp.zst, .slpz."""

import gzip
import io
import lzma
from collections.abc import Callable

from ingest.sources import item, slpz

_MEMORY_MAX = 2**28  # of one unpacker: dictionaries and windows of hostile files


def is_wrapped(name: str) -> bool:
    """Whether a file of this name holds one packed replay."""
    return name.lower().endswith(tuple(_WRAPPINGS))


def unwrap(name: str, data: bytes) -> bytes:
    """The .slp in a packed file of this name, one byte more than the limit at most.

    Raises whatever the unpackers do: EOFError, OSError, ValueError, their own errors.
    """
    lower = name.lower()
    reader = next(read for ending, read in _WRAPPINGS.items() if lower.endswith(ending))
    return reader(data, item.REPLAY_BYTES_MAX + 1)


def _gzip(data: bytes, size: int) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(size)


def _xz(data: bytes, size: int) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX)
    out = unpacker.decompress(data, size)
    if not unpacker.eof and len(out) < size:
        raise EOFError("the packed replay ends early")
    return out


def _zstd(data: bytes, size: int) -> bytes:
    import zstandard  # not for those who read plain files only

    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY_MAX)
    with unpacker.stream_reader(data, read_across_frames=True) as reader:
        return bytes(reader.read(size))


def _slpz(data: bytes, size: int) -> bytes:
    return slpz.unpack(data, size - 1)


_WRAPPINGS: dict[str, Callable[[bytes, int], bytes]] = {
    ".slp.gz": _gzip,
    ".slp.xz": _xz,
    ".slp.zst": _zstd,
    ".slpz": _slpz,
}
ENDINGS = (".slp", *_WRAPPINGS)
"""How the names of replays end."""
