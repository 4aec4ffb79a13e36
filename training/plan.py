"""How much memory a pool will take, known from the members before a byte of a game is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import LimitError
from schemas.features import View
from schemas.shard import Member

WINDOW_BYTES = 16
"""A window's start, and its place in the epoch's order."""
USABLE_SHARE = 0.8
"""Of the free memory: the rest is for the model, the library and the game being read."""


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
