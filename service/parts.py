"""What is served byte by byte: bytes in memory and whole files in a row, with an ETag."""

import hashlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import StoreError

Part = bytes | tuple[Path, int]
"""Bytes in memory, or a whole file and the size that it must have."""
CHUNK = 1 << 20  # 64 KiB loses to per-call cost, 4 MiB to page faults


@dataclass(frozen=True)
class Source:
    """One representation. etag: strong, quotes included: equal tags, equal bytes."""

    parts: Sequence[Part]
    size: int
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "Source":
        """A source of bytes in memory, its tag by content."""
        return cls([content], len(content), f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@dataclass(frozen=True)
class Slice:
    """What lies between two offsets of the parts' sum."""

    parts: Sequence[Part]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def segments(self) -> Generator[tuple[bytes | int, int, int], None, None]:
        """(bytes or open descriptor, first, end) of each part that is touched.

        A descriptor is open until the next item is asked for or the iterator is closed.
        Raises StoreError for a file that is gone or has another size than it should.
        """
        start, stop = self.start, self.stop
        for part in self.parts:
            size = len(part) if isinstance(part, bytes) else part[1]
            first, end = max(start, 0), min(stop, size)
            start, stop = start - size, stop - size
            if first >= end:
                continue
            if isinstance(part, bytes):
                yield part, first, end
                continue
            descriptor = _open(*part)
            try:
                yield descriptor, first, end
            finally:
                os.close(descriptor)

    def chunks(self) -> Generator[bytes, None, None]:
        """The bytes, assembled into chunks."""
        found, room = list[bytes](), CHUNK
        for source, at, end in self.segments():
            while at < end:
                n = min(end - at, room)
                found.append(
                    source[at : at + n] if isinstance(source, bytes) else _read(source, n, at)
                )
                at, room = at + n, room - n
                if not room:
                    yield b"".join(found)
                    found, room = [], CHUNK
        if found:
            yield b"".join(found)


def _open(path: Path, size: int) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"game file {path.name}: {error.strerror}", "meleewm verify") from error
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        raise StoreError(f"game file {path.name} has {found} bytes, not {size}", "meleewm verify")
    return descriptor


def _read(descriptor: int, n: int, at: int) -> bytes:
    data = os.pread(descriptor, n, at)
    if len(data) != n:
        raise shrunk()
    return data


def shrunk() -> StoreError:
    """A file that lost its end after it was opened."""
    return StoreError("a game file became shorter while it was read", "meleewm verify")
