"""The pool: every row of a selection in memory, and batches of windows drawn from it.

Its size is known from the members before a byte of a game is read.

A window is K consecutive rows of one game and side and the row after them, its target. The
pre-frame input of a frame has already caused the post-frame state of the same frame, so the
controls of the target row are the condition under which its state follows from the context.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from schemas.errors import EmptySelectionError, LimitError, UsageError
from schemas.features import View
from schemas.rows import Rows, game_rows
from schemas.shard import Member

BUFFERS = 4
"""Batches that stay intact while others are drawn: contexts rotate through kept memory, since fresh
pages cost more than the gather that fills them."""

WINDOW_BYTES = 16
"""A window's start, and its place in the epoch's order."""
USABLE_SHARE = 0.8
"""Of the free memory: the rest is for the model, the library and the game being read."""

Run = tuple[int, int]
"""[start, stop) of consecutive usable frames, as rows of the pool."""


# --- plan ---------------------------------------------------------------------------------------


def row_bytes(view: View) -> int:
    """Bytes of one row of a pool: float32, int16 and the frame number."""
    return 4 * view.n_float + 2 * view.n_int + 4


@dataclass(frozen=True)
class Plan:
    """Sizes of a pool. A game with both sides selected stands in it twice."""

    games: int
    perspectives: int
    rows: int
    windows: int
    bytes: int

    def require(self, free: int | None = None) -> "Plan":
        """The plan itself, where it fits.

        free: bytes that may be taken (default: this machine's, see memory_free).
        Raises LimitError with both figures and the number of games that would fit.
        """
        free = memory_free() if free is None else free
        if free is None or self.bytes <= free * USABLE_SHARE:
            return self
        fitting = int(self.games * free * USABLE_SHARE / self.bytes)
        raise LimitError(
            f"the windows of {self.games:,} games ({self.rows:,} frames and sides) take "
            f"{self.bytes / 1e9:.1f} GB of memory, {free * USABLE_SHARE / 1e9:.1f} GB may be used",
            f"--limit {fitting} would fit" if fitting else "no game would fit",
        )


def plan(members: Iterable[Member], view: View, context: int) -> Plan:
    """The pool of these members, exactly, but for rows that turn out to be unusable."""
    games = perspectives = rows = windows = 0
    for member in members:
        sides = len(member.sides)
        games += 1
        perspectives += sides
        rows += sides * member.n_frames
        windows += sides * sum(max(length - context, 0) for length in member.stretches)
    size = rows * row_bytes(view) + windows * WINDOW_BYTES
    return Plan(games, perspectives, rows, windows, size)


def memory_free(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: the machine's and its container's; None if unknown.

    root: where /proc and /sys are.
    """
    return min(_limits(root), default=None)


def _limits(root: Path) -> Iterator[int]:
    meminfo = root / "proc/meminfo"
    if meminfo.is_file():
        fields = dict(
            line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line
        )
        if "MemAvailable" in fields:
            yield int(fields["MemAvailable"].split()[0]) * 1024
    group = root / "sys/fs/cgroup"
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        yield max(int(text) - int(used.read_text()), 0)


# --- pool ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """B windows, ready for a model: context in, condition in, target out.

    floats (B, K, F) float32 and ints (B, K, I) int64: the context, oldest row first.
    controls (B, C) float32: both controllers on the target frame.
    float_target (B, 30 or 112) float32: [change of core p0 p1, of velocity p0 p1, binary p0 p1,
    dynamics p0 p1]. int_target (B, 12) int64. Both of the target frame.
    game (B,) int32: index into Pool.games. target_frame (B,) int32: the console's frame number.
    floats and ints are overwritten once BUFFERS more batches have been drawn: clone them to keep
    them longer.
    """

    floats: Tensor
    ints: Tensor
    controls: Tensor
    float_target: Tensor
    int_target: Tensor
    game: Tensor
    target_frame: Tensor

    def __len__(self) -> int:
        return len(self.game)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class PoolGame:
    """One game seen from one side: rows [start, stop) and windows [first_window, +n_windows)."""

    game_id: str
    side: int
    start: int
    stop: int
    runs: tuple[Run, ...]
    first_window: int
    n_windows: int


class Pool:
    """Rows of many games in one view, row-major, scaled on entry; see the module's docstring.

    rows: how many the plan foresees (see `plan`); more are taken in too, at the price of a
    copy. `missing` and `not_finite` sum up what game_rows made up or mended, by feature.
    """

    def __init__(self, view: View, context: int, rows: int = 0) -> None:
        if context < 1:
            raise UsageError(f"a context of {context} frames", "at least 1")
        self.view, self.context = view, context
        self.games: list[PoolGame] = []
        self.missing: Counter[str] = Counter()
        self.not_finite: Counter[str] = Counter()
        self.unusable = 0
        self._rows = 0
        self._starts: list[npt.NDArray[np.int64]] = []
        self._allocate(rows)
        self._gather: _Gather | None = None
        self._order: tuple[tuple[int, int], Tensor] | None = None

    @property
    def n_windows(self) -> int:
        """Windows of all games."""
        last = self.games[-1] if self.games else None
        return last.first_window + last.n_windows if last else 0

    @property
    def n_rows(self) -> int:
        """Rows of all games and sides."""
        return self._rows

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        return self._floats.nbytes + self._ints.nbytes + self._frames.nbytes

    @property
    def fingerprint(self) -> str:
        """16 hex digits over view, context and the windows in their order.

        A place in one pool means the same in another one exactly where these are equal.
        """
        games = [(g.game_id, g.side, g.runs) for g in self.games]
        text = repr((self.view.hash, self.context, games))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def add(self, game_id: str, table: pa.Table, sides: Sequence[int] = (0, 1)) -> None:
        """Take in one game, once for each of `sides` (0: lower port first, 1: higher port first).

        table: as schemas.rows.game_rows wants it. The order of games decides the window numbers.
        """
        if not sides or not set(sides) <= {0, 1}:
            raise UsageError(f"game {game_id} with sides {list(sides)}", "0, 1 or both")
        rows = game_rows(table, self.view)
        self.missing.update(rows.missing)
        self.not_finite.update(rows.not_finite)
        self.unusable += int(np.count_nonzero(~rows.usable))
        for side in sides:
            self._append(game_id, side, rows.swapped() if side else rows)
        self._gather = self._order = None

    def frames(self, game: int) -> Rows:
        """All rows of Pool.games[game], without a copy: for rollouts and baselines."""
        known = self.games[game]
        part = slice(known.start, known.stop)
        usable = np.zeros(known.stop - known.start, np.bool_)
        for start, stop in known.runs:
            usable[start - known.start : stop - known.start] = True
        return Rows(self._floats[part], self._ints[part], self._frames[part], usable)

    def order(self, seed: int, epoch: int) -> Tensor:
        """(n_windows,) int64: every window once, in an order that only seed and epoch decide."""
        if self._order is None or self._order[0] != (seed, epoch):
            digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            self._order = (seed, epoch), torch.randperm(self.n_windows, generator=generator)
        return self._order[1]

    def steps(self, size: int) -> int:
        """Batches of an epoch; the last one may be shorter."""
        return -(-self.n_windows // size)

    def draw(self, seed: int, step: int, size: int) -> Batch:
        """The batch of a step counted over all epochs: a pure function of its arguments.

        So a run resumes anywhere, by its step alone. Raises EmptySelectionError without windows.
        """
        if not self.n_windows:
            raise EmptySelectionError(
                f"no game has {self.context + 1} frames in a row", "another query, or --context"
            )
        epoch, at = divmod(step, self.steps(size))
        return self.batch(self.order(seed, epoch)[at * size : (at + 1) * size])

    def epoch(self, size: int, *, seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """All batches of one epoch: each window once."""
        for step in range(self.steps(size)):
            yield self.draw(seed, epoch * self.steps(size) + step, size)

    def batch(self, indices: Tensor) -> Batch:
        """The windows of these numbers, (B,) int64, in this order."""
        if self._gather is None:
            self._gather = _Gather(self)
        return self._gather(indices)

    # --- taking in ----------------------------------------------------------------------------

    def _allocate(self, rows: int) -> None:
        self._floats = np.empty((rows, self.view.n_float), np.float32)
        self._ints = np.empty((rows, self.view.n_int), np.int16)
        self._frames = np.empty(rows, np.int32)

    def _reserve(self, rows: int) -> None:
        n, needed = self._rows, self._rows + rows
        if needed <= len(self._frames):
            return
        floats, ints, frames = self._floats, self._ints, self._frames
        self._allocate(max(needed, n * 3 // 2))
        self._floats[:n], self._ints[:n], self._frames[:n] = floats[:n], ints[:n], frames[:n]

    def _append(self, game_id: str, side: int, rows: Rows) -> None:
        n = len(rows.frame)
        self._reserve(n)
        start, stop = self._rows, self._rows + n
        self._floats[start:stop] = rows.floats
        self._ints[start:stop] = rows.ints
        self._frames[start:stop] = rows.frame
        runs = tuple((start + a, start + b) for a, b in runs_of(rows.frame, rows.usable))
        starts = [np.arange(a, b - self.context, dtype=np.int64) for a, b in runs]
        n_windows = sum(map(len, starts))
        self.games.append(PoolGame(game_id, side, start, stop, runs, self.n_windows, n_windows))
        self._starts += starts
        self._rows = stop


def runs_of(frame: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_]) -> list[Run]:
    """[start, stop) of the runs of consecutive, usable frames."""
    if not len(frame):
        return []
    broken = (np.diff(frame) != 1) | ~usable[1:] | ~usable[:-1]
    cuts = [0, *(np.flatnonzero(broken) + 1).tolist(), len(frame)]
    return [(a, b) for a, b in pairwise(cuts) if usable[a]]


class _Gather:
    """Cuts batches out of a pool that has stopped growing.

    Windows overlap: as rows of a strided view each is one contiguous copy, 20 to 100 times faster
    than gathering frame by frame.
    """

    def __init__(self, pool: Pool) -> None:
        view, k = pool.view, pool.context
        self.context, self.view = k, view
        self.floats = torch.from_numpy(pool._floats[: pool.n_rows])
        self.ints = torch.from_numpy(pool._ints[: pool.n_rows])
        self.frames = torch.from_numpy(pool._frames[: pool.n_rows])
        self.starts = torch.from_numpy(np.concatenate(pool._starts or [np.empty(0, np.int64)]))
        self.first_rows = torch.tensor([g.start for g in pool.games], dtype=torch.int64)
        self.float_windows = _windows(self.floats, k)
        self.int_windows = _windows(self.ints, k)
        self.control = torch.tensor(view.control_columns)
        self.delta = torch.tensor(view.delta_columns)
        self.value = torch.tensor(view.value_columns)
        self.target_int = torch.tensor(view.target_int_columns)
        self.ring: list[tuple[Tensor, Tensor, Tensor]] = []
        self.turn = 0

    def __call__(self, indices: Tensor) -> Batch:
        start = self.starts.index_select(0, indices)
        floats, ints = self._context(start)
        target = start + self.context
        row, before = self.floats.index_select(0, target), floats[:, -1]
        delta = row.index_select(1, self.delta) - before.index_select(1, self.delta)
        ids = self.ints.index_select(0, target).index_select(1, self.target_int)
        game = torch.searchsorted(self.first_rows, start, right=True) - 1
        return Batch(
            floats=floats,
            ints=ints,
            controls=row.index_select(1, self.control),
            float_target=torch.cat((delta, row.index_select(1, self.value)), dim=1),
            int_target=ids.long(),
            game=game.int(),
            target_frame=self.frames.index_select(0, target),
        )

    def _context(self, start: Tensor) -> tuple[Tensor, Tensor]:
        n, k = len(start), self.context
        floats, small, ints = (kept[:n] for kept in self._buffers(n))
        torch.index_select(self.float_windows, 0, start, out=floats)
        torch.index_select(self.int_windows, 0, start, out=small)
        ints.copy_(small)
        return floats.view(n, k, self.view.n_float), ints.view(n, k, self.view.n_int)

    def _buffers(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        if not self.ring or len(self.ring[0][0]) < n:
            self.ring = [self._new(n) for _ in range(BUFFERS)]
        self.turn = (self.turn + 1) % BUFFERS
        return self.ring[self.turn]

    def _new(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        width = self.context * self.view.n_int
        floats = torch.empty(n, self.context * self.view.n_float)
        return floats, torch.empty(n, width, dtype=torch.int16), torch.empty(n, width).long()


def _windows(rows: Tensor, context: int) -> Tensor:
    """(n_rows - context, context * columns): row r holds rows r ... r + context - 1."""
    n, columns = rows.shape
    return rows.as_strided((max(n - context, 0), context * columns), (columns, 1))
