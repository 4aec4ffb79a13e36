"""Members of a .7z, block by block: a block is unpacked once, front to back.

py7zr reads the list and knows the methods; the loop that unpacks is ours, because py7zr's takes in
the packed bytes much faster than it gives out members and so ends up with an archive in memory.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, cast

import py7zr.archiveinfo
from py7zr import SevenZipFile

from ingest.sources.place import DICTIONARY_BYTES_MAX

# A thousand bytes of a hostile file may announce 8 million members, a kB of memory each.
py7zr.archiveinfo.MAX_NUMFILES = min(py7zr.archiveinfo.MAX_NUMFILES, 2**20)

_CHUNK = 2**18
_CHUNK_UNBOUNDED = 2**12
"""Packed bytes at a time for methods that give out whatever these unpack to."""
_LZMA = {b"\x03", b"\x03\x01\x01", b"\x21"}
_BOUNDED = _LZMA | {b"\x00", b"\x04\x02\x02"}
"""Methods that give out as much as is asked for: delta, LZMA, LZMA2; none, bzip2."""
_WITH_DICTIONARY = {b"\x03\x01\x01": "LZMA", b"\x21": "LZMA2", b"\x03\x04\x01": "PPMd"}


class SevenZipError(ValueError):
    """The bytes do not follow the format, or ask for too much memory."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the list. is_link: its bytes are where it points to, not a file's."""

    name: str
    size: int
    crc32: int | None
    is_link: bool


@dataclass(slots=True)
class Block:
    """What is packed together. at: where in the file; number: from 1."""

    number: int
    folder: Any
    at: int
    packed: int
    members: list[Member] = field(default_factory=list)


def read_list(file: IO[bytes]) -> tuple[list[Block], list[str]]:
    """The blocks in order, and the names of the files that have no bytes.

    Raises whatever py7zr does for a damaged list, or an encrypted one.
    """
    archive = SevenZipFile(file)
    streams = archive.header.main_streams
    blocks: list[Block] = []
    empty = []
    if streams is not None:
        stream = 0
        ends = streams.packinfo.packpositions
        for number, folder in enumerate(streams.unpackinfo.folders, 1):
            n_streams = len(folder.packed_indices)
            at, packed = ends[stream], ends[stream + n_streams] - ends[stream]
            at += archive.afterheader + streams.packinfo.packpos
            blocks.append(Block(number, folder, at, packed))
            stream += n_streams
    by_folder = {id(block.folder): block for block in blocks}
    for entry in archive.files:
        if entry.is_directory:
            continue
        if entry.emptystream:
            empty.append(entry.filename)
            continue
        is_link = bool(entry.is_symlink or entry.is_junction)
        member = Member(entry.filename, entry.uncompressed, entry.crc32, is_link)
        by_folder[id(entry.folder)].members.append(member)
    for block in blocks:
        block.folder.files = None  # py7zr's own list, a kB a member
    return blocks, empty


def dictionary_bytes(block: Block) -> int:
    """Memory that unpacking a block takes. Raises SevenZipError where it is more than we give."""
    total = 0
    for coder in block.folder.coders:
        properties = coder.get("properties") or b""
        kind = _WITH_DICTIONARY.get(coder["method"])
        if kind == "LZMA2" and properties:
            bits = properties[0]
            total += (2 | (bits & 1)) << (bits // 2 + 11) if bits < 40 else 2**32 - 1
        elif kind:
            total += int.from_bytes(properties[1:5], "little")
    if total > DICTIONARY_BYTES_MAX:
        most = DICTIONARY_BYTES_MAX // 2**20
        raise SevenZipError(f"a dictionary of {total // 2**20} MB; up to {most} MB is read")
    return total


Opened = tuple[Member, Callable[[], IO[bytes]]]


def members(file: IO[bytes], block: Block, check: Callable[[], None]) -> Iterator[Opened]:
    """Each member with a call that opens it; good until the next one is asked for.

    Members that are not opened are unpacked and dropped. check: called at each read. Raises
    whatever the unpackers do for damage.
    """
    stream = _Stream(file, block, check)
    for member in block.members:
        reader = _Reader(stream, member)
        yield member, partial(_opened, reader)
        reader.drain()


def _opened(reader: "_Reader") -> IO[bytes]:
    return cast("IO[bytes]", reader)


class _Stream:
    """A block's bytes."""

    def __init__(self, file: IO[bytes], block: Block, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check
        self._unpacker = block.folder.get_decompressor(block.packed, reset=True)
        methods = {coder["method"] for coder in block.folder.coders}
        self._chunk = _CHUNK if methods <= _BOUNDED else _CHUNK_UNBOUNDED
        self._lzma = self._unpacker.chain[0] if methods <= _LZMA else None
        self._at, self._stop = block.at, block.at + block.packed

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none only at the end. Raises EOFError where packed bytes lack."""
        while True:
            self._check()
            before = self._at
            if self._lzma:  # py7zr would only add a checksum of the whole block, and two copies
                data = bytes(self._lzma.decompress(self.packed(self._chunk), size))
            else:
                data = bytes(self._unpacker.decompress(_Gate(self), size))
            if data or not size:
                return data
            if self._at == before and self._at == self._stop:
                raise EOFError("the block ends early")

    def packed(self, size: int) -> bytes:
        """The next packed bytes, unless the unpacker has some that it has not worked off."""
        if not getattr(_innermost(self._unpacker.chain[0]), "needs_input", True):
            return b""
        self._file.seek(self._at)
        data = self._file.read(min(size, self._chunk, self._stop - self._at))
        if not data and self._at < self._stop:
            raise EOFError("the archive is cut off")
        self._at += len(data)
        return data


def _innermost(unpacker: Any) -> Any:
    """lzma's own unpacker inside py7zr's for LZMA1."""
    return getattr(unpacker, "_decompressor", unpacker)


class _Gate:
    """What py7zr takes for the file."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.packed(size)


class _Reader(io.RawIOBase):
    """One member's bytes; its CRC-32 is checked when they have all been read."""

    def __init__(self, stream: _Stream, member: Member) -> None:
        self._stream = stream
        self._member = member
        self._left = member.size
        self._crc32 = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        parts = []
        while wanted:
            data = self._stream.read(wanted)
            self._crc32 = zlib.crc32(data, self._crc32)
            self._left -= len(data)
            wanted -= len(data)
            parts.append(data)
        if not self._left and self._member.crc32 not in (None, self._crc32):
            raise SevenZipError("its bytes are damaged: wrong CRC-32")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self) -> None:
        """Unpack what nobody has read."""
        while self._left:
            self._left -= len(self._stream.read(min(self._left, 2**20)))
