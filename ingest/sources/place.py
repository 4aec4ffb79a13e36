"""What readers of archives share: where they read, what they may hold, what they pass over."""

import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ingest.sources.item import Item, line, printable

ROOM_BYTES = 96 * 2**20
"""So much of replays may wait in memory, whatever the archives hold; a larger one waits alone."""
DICTIONARY_BYTES_MAX = 2**28
"""For the dictionaries of all unpackers together: 256 MB is what 7-Zip's highest preset takes."""
BOMB_BYTES = 2**30
BOMB_RATIO = 250
"""No archive of replays unpacks to so much more than its size: 8 to 30 times is usual."""
ENDINGS_MAX = 100


class Stopped(BaseException):
    """Nobody reads on. Not an Exception: damaged archives may raise any of those."""


class Room:
    """Bytes that may be held at a time by several threads together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._stopped = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until so much is free, or all of it for more than there is. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._used or self._used + size <= self._size
            )
            self.check()
            self._used += size

    def give(self, size: int) -> None:
        """Free what was taken."""
        if size:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def check(self) -> None:
        """Raise Stopped where it is time to end."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Raise Stopped in all who wait, and in all who ask."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Passed:
    """Counts files that are no replays, by the ending of their names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Count one."""
        ending = printable(PurePosixPath(name).suffix.lower()) or "without an ending"
        with self._lock:
            full = len(self.counts) >= ENDINGS_MAX and ending not in self.counts
            self.counts["others" if full or len(ending) > 20 else ending] += 1


class BombError(ValueError):
    """An archive unpacks to far more than replays do."""


@dataclass
class Gauge:
    """Counts what an archive gives against its own size."""

    packed: int
    unpacked: int = 0

    def add(self, size: int) -> None:
        """Raises BombError where it is too much."""
        self.unpacked += size
        if self.unpacked > max(BOMB_BYTES, BOMB_RATIO * self.packed):
            raise BombError(f"unpacks to more than {BOMB_RATIO} times its size")


class Hold:
    """What one reading thread has taken of the room for the item that comes next."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def take(self, size: int) -> None:
        """Take so much for one replay, in place of what is held."""
        self._room.give(self._bytes)
        self._bytes = 0
        self._room.take(size)
        self._bytes = size

    def pass_on(self) -> int:
        """The bytes held; from now on somebody else's to free."""
        size, self._bytes = self._bytes, 0
        return size


@dataclass(frozen=True)
class Place:
    """An archive that is being read by one thread, or one inside it.

    inner: name of the archive inside, None for the outer one. inner_dictionaries: a room of its
    own for those inside, or two threads might each hold what the other one waits for.
    """

    path: Path
    room: Room
    dictionaries: Room
    inner_dictionaries: Room
    passed: Passed
    hold: Hold
    inner: str | None = None

    def inside(self, name: str) -> "Place":
        """The place of an archive in this one."""
        return replace(self, inner=name, dictionaries=self.inner_dictionaries)

    def member(self, name: str) -> str:
        """How the ledger names a member: one of an inner archive after that one's name."""
        return printable(name if self.inner is None else f"{self.inner}/{name}")

    def refused(self, name: str | None, rule: str, detail: str | BaseException) -> Item:
        """What stands for a member, or (name None) for the whole archive, that is not read."""
        inner = None if self.inner is None else printable(self.inner)
        member = inner if name is None else self.member(name)
        text = detail if isinstance(detail, str) else line(detail)
        return Item(self.path, member, rule=rule, detail=text)
