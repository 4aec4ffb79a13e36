"""Members of a .tar, packed or not, in one pass from front to back."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

from ingest.sources.place import DICTIONARY_BYTES_MAX, Gauge

Member = tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]
_HEADER_BYTES_MAX = 2**20
_BEFORE_HEADER = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class TarError(ValueError):
    """The bytes do not follow the format."""


def members(
    file: IO[bytes], name: str, check: Callable[[], None], gauge: Gauge
) -> Iterator[Member]:
    """Each member with a call that opens it; good until the next one is asked for.

    name: of the archive, its ending says how it is packed. check: called at each read. Raises,
    after the members before it, whatever the readers do for damage, and TarError where tarfile
    would take damage for the end.
    """
    seen: Counter[str] = Counter()
    stream: Any = _Watched(_unpacked(file, name), check, gauge)
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_header(seen)) as archive:
        n_members = 0
        for entry in archive:
            vars(archive)["members"] = []  # tarfile keeps every one
            n_members += 1
            yield entry, partial(_opened, archive, entry)
    if seen["InvalidHeaderError"]:
        raise TarError(f"damaged after {n_members} members: the rest is not read")
    if not seen["EOFHeaderError"]:
        raise TarError(f"cut off after {n_members} members: no mark of its end")


def _opened(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(entry)
    assert opened is not None, entry.type
    return opened


def _header(seen: Counter[str]) -> type[tarfile.TarInfo]:
    """tarfile's header, counting the errors that it ends on in silence."""

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                seen[type(error).__name__] += 1
                raise
            if header.type in _BEFORE_HEADER and header.size > _HEADER_BYTES_MAX:
                raise TarError(f"a header of {header.size} bytes")  # tarfile reads it in one go
            return header

    return Header


def _unpacked(file: IO[bytes], name: str) -> Any:
    """The tar inside its compression, as a stream."""
    name = name.lower()
    if name.endswith((".gz", ".tgz")):
        return gzip.GzipFile(fileobj=file)
    if name.endswith((".bz2", ".tbz2")):
        return bz2.BZ2File(file)
    if name.endswith((".xz", ".txz")):
        return _Xz(file)
    if name.endswith((".zst", ".tzst")):
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=DICTIONARY_BYTES_MAX)
        return unpacker.stream_reader(file, read_across_frames=True)
    return file


class _Watched(io.RawIOBase):
    """A stream that can be stopped, and whose bytes are counted against its packed size."""

    def __init__(self, stream: Any, check: Callable[[], None], gauge: Gauge) -> None:
        self._stream = stream
        self._check = check
        self._gauge = gauge

    def read(self, size: int = -1) -> bytes:
        self._check()
        data: bytes = self._stream.read(size)
        self._gauge.add(len(data))
        return data


class _Xz:
    """An .xz stream with a limit to its dictionary, which LZMAFile has not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._unpacker = self._new()

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY_BYTES_MAX)

    def read(self, size: int) -> bytes:
        while True:
            if self._unpacker.eof:
                rest = self._unpacker.unused_data or self._file.read(2**16)
                if not rest.strip(b"\0"):
                    return b""
                self._unpacker = self._new()
                packed = rest
            else:
                packed = self._file.read(2**16) if self._unpacker.needs_input else b""
                if not packed and self._unpacker.needs_input:
                    raise EOFError("the packed stream ends early")
            if data := self._unpacker.decompress(packed, size):
                return data
