"""Members of a .zip, one by one, so that none costs another.

The list of members is read here, not by zipfile: that gives up an archive for one bad name, needs
a kB of memory a member, and reads nothing of an archive whose end is cut off.
"""

import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

_END = struct.Struct("<4s4H2LH")
_END_64_AT = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_MEMBER = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_COMMENT_BYTES_MAX = 2**16
_CHUNK = 2**18
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_UNIX = 3
_IN_EXTRA = 0xFFFFFFFF


class ZipError(ValueError):
    """The bytes do not follow the format."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the list. at: offset of its local header; sizes in bytes."""

    name: str
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    at: int
    is_link: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether it is the entry of a folder."""
        return self.name.endswith("/")


def members(file: IO[bytes]) -> Iterator[Member]:
    """The members in the list's order; of a cut archive those before the cut.

    Raises ZipError where the list is damaged or missing, after the members that were readable.
    """
    file_bytes = file.seek(0, 2)
    found = _end(file, file_bytes)
    if found is None:
        yield from _unlisted(file, file_bytes)
        raise ZipError("the list of members at its end is missing: read as far as it goes")
    at, stop, shift = found
    buffer = b""
    while at < stop:
        if len(buffer) < _MEMBER.size or len(buffer) < _length(buffer):
            file.seek(at)
            buffer = file.read(min(_CHUNK, stop - at))
        if len(buffer) < _MEMBER.size or len(buffer) < _length(buffer):
            raise ZipError("the list of members is damaged")
        length = _length(buffer)
        yield _member(buffer[:length], shift)
        buffer, at = buffer[length:], at + length


def open_member(file: IO[bytes], member: Member) -> IO[bytes]:
    """Its bytes, checked against size and CRC-32 when read to the end.

    Raises ZipError, and whatever zipfile does for damage and for methods that it does not know.
    """
    if member.flags & _ENCRYPTED:
        raise ZipError("encrypted")
    file.seek(member.at)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
        raise ZipError("it is not where the list of members says")
    *_, name_bytes, extra_bytes = _LOCAL.unpack(head)
    file.seek(name_bytes + extra_bytes, 1)
    entry = zipfile.ZipInfo()
    entry.compress_type = member.method
    entry.compress_size, entry.file_size, entry.CRC = member.packed, member.size, member.crc32
    return cast("IO[bytes]", zipfile.ZipExtFile(file, "r", entry))


def _end(file: IO[bytes], file_bytes: int) -> tuple[int, int, int] | None:
    """Where the list begins and stops, and by how much its offsets are off (bytes before it)."""
    tail_at = max(0, file_bytes - _COMMENT_BYTES_MAX - _END.size)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        return None
    end_at = tail_at + at
    *_, size, offset, _comment = _END.unpack_from(tail, at)
    if end_at >= _END_64_AT.size + _END_64.size:
        file.seek(end_at - _END_64_AT.size - _END_64.size)
        before = file.read(_END_64.size)
        if file.read(4) == b"PK\6\7" and before[:4] == b"PK\6\6":
            *_, size, offset = _END_64.unpack(before)
            end_at -= _END_64_AT.size + _END_64.size
    begin = end_at - size
    if begin < 0:
        raise ZipError("the list of members is damaged")
    return begin, end_at, begin - offset


def _length(record: bytes) -> int:
    if record[:4] != b"PK\1\2":
        raise ZipError("the list of members is damaged")
    name, extra, comment = struct.unpack_from("<3H", record, 28)
    return int(_MEMBER.size + name + extra + comment)


def _member(record: bytes, shift: int) -> Member:
    (_, _, system, _, _, flags, method, _, _, crc32, packed, size, n_name, n_extra, _, _, _, kind,
     at) = _MEMBER.unpack_from(record)  # fmt: skip
    name = record[_MEMBER.size : _MEMBER.size + n_name]
    extra = record[_MEMBER.size + n_name :][:n_extra]
    size, packed, at = _large(extra, size, packed, at)
    is_link = system == _UNIX and stat.S_ISLNK(kind >> 16)
    at = max(at + shift, 0)
    return Member(_text(name, flags), flags, method, crc32, packed, size, at, is_link)


def _large(extra: bytes, *values: int) -> tuple[int, ...]:
    """Sizes and offset, those that did not fit from the extra field of 64-bit numbers."""
    found, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            found = extra[at + 4 : at + 4 + length]
        at += 4 + length
    out = []
    for value in values:
        if value == _IN_EXTRA and len(found) >= 8:
            value, found = int.from_bytes(found[:8], "little"), found[8:]
        out.append(value)
    return tuple(out)


def _text(name: bytes, flags: int) -> str:
    try:  # many packers write UTF-8 without saying so
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace") if flags & _UTF8 else name.decode("cp437")


def _unlisted(file: IO[bytes], file_bytes: int) -> Iterator[Member]:
    """Members by the headers before each one's bytes, as far as those say where the next is."""
    at = 0
    while at + _LOCAL.size <= file_bytes:
        file.seek(at)
        head = file.read(_LOCAL.size)
        if head[:4] != b"PK\3\4":
            return
        _, _, flags, method, _, _, crc32, packed, size, n_name, n_extra = _LOCAL.unpack(head)
        name, extra = file.read(n_name), file.read(n_extra)
        size, packed, _at = _large(extra, size, packed, 0)
        if flags & _SIZES_FOLLOW and not packed:
            return  # written in one go: only unpacking would find the end
        yield Member(_text(name, flags), flags, method, crc32, packed, size, at)
        at += _LOCAL.size + n_name + n_extra + packed
