"""Which replays need no reading: those that the store knows, and those taken up in this run."""

import threading
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.sources import Item
from ingest.worker import Outcome

Ids = npt.NDArray[np.uint64]
_RECENT_MAX = 2**16


class Known:
    """A set of replays by the first 16 bytes of their SHA-256; a method may be called anywhere.

    16 bytes a replay: as Python objects the 850,000 of all public archives would be 100 MB.
    """

    counts_known = True
    """Whether files with known replays, and unreadable ones, are counted and in the ledger."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        """ids: 16 bytes each, in any order."""
        self._lock = threading.Lock()
        self._recent: set[bytes] = set()
        self._open: set[bytes] = set()
        self._keep(_numbers(ids))

    def looks_at(self, item: Item) -> bool:  # noqa: ARG002 - others choose
        """Whether an item is to be read."""
        return True

    def ready(self, outcome: Outcome) -> Outcome:
        """An outcome with the rows that its commit needs."""
        return outcome

    def claim(self, sha256: bytes) -> bool:
        """Whether this replay is new; of several copies the first asker gets it."""
        replay = sha256[:16]
        with self._lock:
            if replay in self._recent or self._is_kept(replay):
                return False
            self._recent.add(replay)
            self._open.add(replay)
            if len(self._recent) > _RECENT_MAX:
                recent = np.frombuffer(b"".join(self._recent), np.uint64).reshape(-1, 2)
                self._keep(np.concatenate([np.stack([self._first, self._second], 1), recent]))
                self._recent.clear()
            return True

    def settle(self, sha256: bytes) -> None:
        """It is known now what became of a claimed replay."""
        with self._lock:
            self._open.discard(sha256[:16])

    def is_open(self, sha256: bytes) -> bool:
        """Whether a worker holds this replay, and nobody can tell yet what becomes of it."""
        return sha256[:16] in self._open

    def _keep(self, ids: Ids) -> None:
        order = np.argsort(ids[:, 0])
        self._first, self._second = ids[order, 0], ids[order, 1]

    def _is_kept(self, replay: bytes) -> bool:
        first, second = np.frombuffer(replay, np.uint64)
        begin, stop = (self._first.searchsorted(first, side) for side in _BOTH)
        return bool((self._second[begin:stop] == second).any())


_BOTH: tuple[Literal["left", "right"], ...] = ("left", "right")


def _numbers(ids: pa.ChunkedArray) -> Ids:
    """Two halves of each id."""
    return np.concatenate([np.empty((0, 2), np.uint64), *map(_halves, ids.chunks)])


def _halves(chunk: pa.Array) -> Ids:
    fixed = chunk.cast(pa.binary(16))
    if not len(fixed):
        return np.empty((0, 2), np.uint64)
    halves = np.frombuffer(fixed.buffers()[1], np.uint64).reshape(-1, 2)
    return halves[fixed.offset : fixed.offset + len(fixed)]


class Claim:
    """One item's claim on its replay: made once, although two workers may ask."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._granted: bool | None = None
        self.sha256: bytes | None = None
        self.size = 0

    def grant(self, sha256: bytes, size: int) -> bool:
        """Whether to go on with these bytes."""
        if self._granted is None or sha256 != self.sha256:
            self._granted = self._known.claim(sha256)
        self.sha256, self.size = sha256, size
        return self._granted

    def refused(self, rule: str, detail: str) -> Outcome:
        """The outcome of a replay that cost its worker."""
        return Outcome("refused", self.sha256, self.size, rule, detail)
