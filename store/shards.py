"""Shards as virtual tars: every byte follows from the members and their game files.

Nothing is written to disk to be served; store.export writes the same bytes into a folder.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from schemas.errors import StoreError
from schemas.shard import FilePart, Member, shard_etag, shard_parts
from store.layout import Layout

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileSpan:
    """A piece of a game file, for `read` or os.sendfile."""

    path: Path
    offset: int
    length: int
    file_bytes: int


class VirtualTar:
    """One shard of a dataset as a random-access sequence of bytes.

    size: its length. etag: strong, quotes included: equal tags, equal bytes.
    """

    def __init__(self, layout: Layout, members: Sequence[Member]) -> None:
        self.layout = layout
        self.etag = shard_etag(members)
        self.parts = list(shard_parts(members))
        lengths = [part.size if isinstance(part, FilePart) else len(part) for part in self.parts]
        self._starts = list(accumulate(lengths, initial=0))
        self.size = self._starts.pop()

    def spans(self, start: int = 0, stop: int | None = None) -> Iterator[bytes | FileSpan]:
        """The pieces of bytes start to stop (excluded; default the end), in order."""
        stop = self.size if stop is None else min(stop, self.size)
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            part, begin = self.parts[at], start - self._starts[at]
            if isinstance(part, FilePart):
                length = min(part.size - begin, stop - start)
                path = self.layout.game_path(part.game_id, part.rev)
                yield FileSpan(path, begin, length, part.size)
            else:
                length = min(len(part) - begin, stop - start)
                yield part[begin : begin + length]
            start += length
            at += 1

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from start to stop (excluded), in chunks of at most CHUNK_BYTES.

        Raises StoreError where a game file is missing or has another size than the catalog says.
        """
        for span in self.spans(start, stop):
            if isinstance(span, FileSpan):
                yield from _file_chunks(span)
            else:
                yield span


def _file_chunks(span: FileSpan) -> Iterator[bytes]:
    try:
        with span.path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            if size != span.file_bytes:
                raise _damaged(
                    span.path, f"it has {size} bytes, the catalog says {span.file_bytes}"
                )
            file.seek(span.offset)
            left = span.length
            while left:
                chunk = file.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise _damaged(span.path, "it became shorter while it was read")
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise _damaged(span.path, error.strerror or str(error)) from error


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"game file {path.name} cannot be read: {reason}", "run meleewm verify")
