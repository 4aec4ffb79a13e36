"""Folders of synthetic replays."""

from collections.abc import Callable
from pathlib import Path

from ingest.slp import MAGIC
from ingest.synthetic.game import ROLLBACKS_FROM, make_game, seeded
from store.layout import write_atomic

QUIT_SHARE, ROLLBACK_SHARE = 0.1, 0.4


def write_games(
    out: Path,
    games: int,
    seed: int = 0,
    version: tuple[int, ...] = (3, 19, 0),
    *,
    frames: tuple[int, int] = (2000, 5000),
    recordings: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `game-<seed>-<n>.slp` for n from 0 and return the paths; whole files stay.

    frames: bounds of each game's length limit, in frames. recordings: 2 also writes
    `game-<seed>-<n>-other.slp`, what the other client recorded of the game. progress: called with
    (games done, games).
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(games):
        for recording, other in enumerate(("", "-other")[:recordings]):
            path = out / f"game-{seed}-{n}{other}.slp"
            if not _is_whole(path, version):
                write_atomic(path, _game(seed, n, version, frames, recording))
            paths.append(path)
        if progress:
            progress(n + 1, games)
    return paths


def _game(
    seed: int, n: int, version: tuple[int, ...], frames: tuple[int, int], recording: int
) -> bytes:
    rng = seeded(f"{seed}/{n}")
    low, high = frames
    limit = low + round((high - low) * (1 - rng.random() ** 2))  # most games end by stocks
    return make_game(
        rng.getrandbits(63),
        version=version,
        n_frames=limit,
        recording=recording,
        quit=rng.random() < QUIT_SHARE,
        rollbacks=version >= ROLLBACKS_FROM and rng.random() < ROLLBACK_SHARE,
    ).slp


def _is_whole(path: Path, version: tuple[int, ...]) -> bool:
    """Whether a file with both braces and all its raw bytes, of that version, is there."""
    if not path.exists():
        return False
    data = path.read_bytes()
    begin = len(MAGIC) + 4
    raw_bytes = int.from_bytes(data[len(MAGIC) : begin], "big")
    if not data.startswith(MAGIC) or not data.endswith(b"}") or len(data) <= begin + raw_bytes:
        return False
    start = begin + 1 + data[begin + 1]  # the payload table counts itself
    return tuple(data[start + 1 : start + 1 + len(version)]) == tuple(version)
