"""Windows a second from a pool, beside the usual per-sample DataLoader over tensors in memory.

`python -m benchmarks.loader [FOLDER]`: FOLDER of .slp files; 40 simulated games without one.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import cpu_seconds, header, row
from ingest.synthetic import write_games
from ingest.workers import ingest
from schemas.features import view
from schemas.shard import Request
from store.export import export
from store.layout import open_layout
from store.select import select
from training.pool import Pool
from training.stream import ShardStream, open_dataset

BATCH = 1024
BATCHES = 60
VIEW = "v22-state-age"


def main(folder: Path | None) -> None:
    """Print the figures."""
    header("torch", "pyarrow", "numpy")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        shards = _shards(folder, Path(scratch))
        for context in (10, 60):
            pool = _filled(shards, context)
            ours = _pool_rate(pool)
            usual = _usual_rate(pool, context)
            name = f"windows a second, K={context}, batch {BATCH}"
            row(name, f"{ours:,.0f}", f"{usual:,.0f}", ours / usual)


def _shards(folder: Path | None, scratch: Path) -> Path:
    if folder is None:
        folder = scratch / "replays"
        write_games(folder, 40, seed=1)
    ingest([folder], scratch / "store", workers=2)
    layout = open_layout(scratch / "store")
    export(layout, select(layout, Request()), scratch / "shards")
    return scratch / "shards"


def _filled(shards: Path, context: int) -> Pool:
    chosen, pool = view(VIEW), None
    dataset = open_dataset(shards=shards)
    pool = Pool(chosen, context)
    stream = ShardStream(dataset, epoch=0, seed=0)

    def fill() -> None:
        for game in stream.games(chosen):
            pool.add(game.member.game_id, game.table, game.member.sides)

    seconds = cpu_seconds(fill)
    rows = sum(m.n_frames * len(m.sides) for m in dataset.members)
    row(f"shards on disk to pool, K={context}", f"{rows / seconds / 1e6:.2f} M rows/s")
    return pool


def _pool_rate(pool: Pool) -> float:
    began = time.process_time()
    for step in range(BATCHES):
        pool.draw(0, step, BATCH)
    return BATCHES * BATCH / (time.process_time() - began)


class Usual(Dataset[dict[str, torch.Tensor]]):
    """What a first trainer writes: tensors in memory, a dict a window, default collation."""

    def __init__(self, pool: Pool, context: int) -> None:
        rows = pool.frames(0)
        self.floats, self.ints = torch.from_numpy(rows.floats), torch.from_numpy(rows.ints).long()
        self.context = context

    def __len__(self) -> int:
        """Windows of the first game."""
        return len(self.floats) - self.context

    def __getitem__(self, start: int) -> dict[str, torch.Tensor]:
        """One window and its target row."""
        stop = start + self.context
        return {
            "floats": self.floats[start:stop],
            "ints": self.ints[start:stop],
            "float_target": self.floats[stop] - self.floats[stop - 1],
            "int_target": self.ints[stop],
        }


def _usual_rate(pool: Pool, context: int) -> float:
    loader = DataLoader(Usual(pool, context), batch_size=BATCH, shuffle=True)
    drawn, began = 0, time.process_time()
    for batch in loader:
        drawn += len(batch["floats"])
        if drawn > 8 * BATCH:
            break
    return drawn / (time.process_time() - began)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
