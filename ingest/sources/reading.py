"""Reads files and archives by several threads, ahead of those who take the items, but not far.

Unpackers release Python's lock, so archives, blocks of a .7z and shares of a large .zip are
unpacked on several cores. What waits to be taken is bounded in bytes (place.ROOM_BYTES).
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from ingest.sources.archives import Part, parts
from ingest.sources.folders import walk
from ingest.sources.item import Item
from ingest.sources.place import (
    DICTIONARY_BYTES_MAX,
    ROOM_BYTES,
    Hold,
    Passed,
    Place,
    Room,
    Stopped,
)
from ingest.sources.watching import ready
from schemas.errors import UsageError

READERS_MAX = 16
_WAITING_MAX = 500  # items, most of them plain files not read yet
_FILES_AHEAD = 4  # archives found and not begun, a reader


def items(paths: Sequence[Path], readers: int | None = None) -> "Items":
    """Every replay of these files, folders (all the way down) and archives.

    readers: threads that unpack archives (default: one a core). Raises UsageError, before anything
    is read, for a path that is not there.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {path}")
    return Items(lambda shared: walk(paths, shared.passed.add), readers or _readers())


def watch(folders: Sequence[Path], *, rescue_after_s: float, readers: int | None = None) -> "Items":
    """Every replay of these folders as it is finished, without end: see `watching.ready`.

    Raises UsageError for a path that is no folder.
    """
    for path in folders:
        if not path.is_dir():
            raise UsageError(f"{path} is no folder: there is nothing to watch")

    def found(shared: _Shared) -> Iterator[Path | Item]:
        return ready(folders, shared.passed.add, shared.wait, rescue_after_s)

    return Items(found, readers or _readers())


def _readers() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), READERS_MAX)
    return min(os.cpu_count() or 1, READERS_MAX)


class Items(Iterator[Item]):
    """An iterator over items that several threads may share, and anyone may close.

    In order where only plain files are read; else in any order.
    """

    def __init__(self, find: "Callable[[_Shared], Iterator[Path | Item]]", readers: int) -> None:
        self._shared = _Shared()
        self._threads = [threading.Thread(target=_find, args=(self._shared, find, readers))]
        self._threads += [
            threading.Thread(target=_read, args=(self._shared,)) for _ in range(readers)
        ]
        self._shared.n_running = len(self._threads)
        self._started = threading.Lock()

    @property
    def passed_over(self) -> Counter[str]:
        """How many files were passed over so far, by the ending of their names."""
        return self._shared.passed.counts

    def __next__(self) -> Item:
        if self._started.acquire(blocking=False):
            for thread in self._threads:
                thread.daemon = True
                thread.start()
        item = self._shared.take()
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """End the reading, from whatever thread; who waits for an item gets no more."""
        self._shared.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._shared.stop()


class _Shared:
    """What finding and reading threads share with those who take: pieces to read, items read."""

    def __init__(self) -> None:
        self.room = Room(ROOM_BYTES)
        self.dictionaries = Room(DICTIONARY_BYTES_MAX), Room(DICTIONARY_BYTES_MAX)
        self.passed = Passed()
        self.n_running = 0
        self._parts: deque[tuple[Path, Part]] = deque()
        self._unfinished = 1  # pieces that may give more pieces; the search is one
        self._waiting: deque[tuple[Item, int]] = deque()
        self._error: BaseException | None = None
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: Item, held: int) -> None:
        """Hand on an item, and the room held for it. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._waiting) < _WAITING_MAX)
            if self._stopped:
                raise Stopped
            self._waiting.append((item, held))
            self._changed.notify_all()

    def take(self) -> Item | None:
        """The next item; None when there are no more. Raises what a reader failed of."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._error or self._waiting or not self.n_running
            )
            if self._error:
                raise self._error
            if self._stopped or not self._waiting:
                return None
            item, held = self._waiting.popleft()
            self._changed.notify_all()
        self.room.give(held)
        return item

    def add_part(self, path: Path, part: Part, most: int | None = None) -> None:
        """One more piece to read; waits while there are `most`. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or most is None or len(self._parts) < most)
            if self._stopped:
                raise Stopped
            self._parts.append((path, part))
            self._unfinished += 1
            self._changed.notify_all()

    def next_part(self) -> tuple[Path, Part] | None:
        """A piece to read; None when all are read."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._parts or not self._unfinished)
            if self._stopped or not self._parts:
                return None
            found = self._parts.popleft()
            self._changed.notify_all()
            return found

    def done(self) -> None:
        """A piece, or the search for files, gives no more pieces."""
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """A thread has ended."""
        with self._changed:
            self.n_running -= 1
            self._error = self._error or error
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Do nothing for so long. Raises Stopped."""
        with self._changed:
            if self._changed.wait_for(lambda: self._stopped, seconds):
                raise Stopped

    def stop(self) -> None:
        """Let all end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for room in (self.room, *self.dictionaries):
            room.stop()


def _find(shared: _Shared, find: Callable[[_Shared], Iterator[Path | Item]], readers: int) -> None:
    """Body of the thread that looks for files."""
    try:
        for found in find(shared):
            pieces = None if isinstance(found, Item) else parts(found, readers)
            if isinstance(found, Item):
                shared.put(found, 0)
            elif pieces is None:
                shared.put(Item(found), 0)
            else:
                for part in pieces:
                    shared.add_part(found, part, _FILES_AHEAD * readers)
        shared.done()
        shared.end()
    except Stopped:
        shared.end()
    except BaseException as error:  # noqa: BLE001 - raised again by who takes
        shared.end(error)


def _read(shared: _Shared) -> None:
    """Body of a thread that reads pieces."""
    try:
        while piece := shared.next_part():
            path, part = piece
            hold = Hold(shared.room)
            place = Place(path, shared.room, *shared.dictionaries, passed=shared.passed, hold=hold)
            for found in part(place):
                if isinstance(found, Item):
                    shared.put(found, hold.pass_on())
                else:
                    shared.add_part(path, found)
            shared.room.give(hold.pass_on())
            shared.done()
        shared.end()
    except Stopped:
        shared.end()
    except BaseException as error:  # noqa: BLE001 - raised again by who takes
        shared.end(error)
