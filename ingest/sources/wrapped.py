"""Replays that are packed one by one: .slp.gz, .slp.xz, .slp.zst, .slpz."""

import gzip
import io
import lzma
from collections.abc import Callable
from dataclasses import dataclass

from ingest.sources import item, slpz

_MEMORY_MAX = 2**28  # of one unpacker: dictionaries and windows of hostile files
_FEED_BYTES = 1024  # a zstd frame may hold 128 kB in 4 bytes: so much is met before the limit is


def is_wrapped(name: str) -> bool:
    """Whether a file of this name holds one packed replay."""
    return name.lower().endswith(tuple(_WRAPPINGS))


def unwrap(name: str, data: bytes, size_max: int) -> bytes:
    """The .slp in a packed file of this name, one byte more than `size_max` at most.

    Raises whatever the unpackers do: EOFError, OSError, ValueError, their own errors.
    """
    return _find(name).unwrap(data, size_max + 1)


def size_hint(name: str, data: bytes) -> int:
    """Bytes of the .slp as the packed file says, which need not be true; the limit at most."""
    return min(_find(name).size_hint(data), item.REPLAY_BYTES_MAX)


def _find(name: str) -> "_Wrapping":
    return next(w for ending, w in _WRAPPINGS.items() if name.lower().endswith(ending))


@dataclass(frozen=True)
class _Wrapping:
    unwrap: Callable[[bytes, int], bytes]
    size_hint: Callable[[bytes], int]


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

    unpackers = zstandard.ZstdDecompressor(max_window_size=_MEMORY_MAX)
    out, at = bytearray(), 0
    while at < len(data) and len(out) < size:
        unpacker = unpackers.decompressobj()  # stream_reader takes a cut for the end
        while not unpacker.eof and len(out) < size:
            if at >= len(data):
                raise EOFError("the packed replay ends early")
            piece = data[at : at + _FEED_BYTES]
            out += unpacker.decompress(piece)
            at += len(piece)
        at -= len(unpacker.unused_data)  # the next frame's
    return bytes(out[:size])


def _slpz(data: bytes, size: int) -> bytes:
    return slpz.unpack(data, size - 1)


def _gzip_size(data: bytes) -> int:
    return int.from_bytes(data[-4:], "little")


def _some_size(data: bytes) -> int:
    return 25 * len(data)  # xz packs replays to a tenth


_WRAPPINGS = {
    ".slp.gz": _Wrapping(_gzip, _gzip_size),
    ".slp.xz": _Wrapping(_xz, _some_size),
    ".slp.zst": _Wrapping(_zstd, _some_size),
    ".slpz": _Wrapping(_slpz, slpz.size),
}
ENDINGS = (".slp", *_WRAPPINGS)
"""How the names of replays end."""
