"""Ingest beside a bare peppi loop over the same replays, and the sizes of game files.

`python -m benchmarks.ingest [FOLDER]`: FOLDER of .slp files; 40 simulated games without one.
"""

import hashlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import peppi_py._peppi as peppi

from benchmarks.machine import cpu_seconds, header, median, row
from ingest.synthetic import write_games
from ingest.worker import Options, process
from store.layout import Layout, open_layout
from store.parquet import read_game

ROUNDS = 3


def main(folder: Path | None) -> None:
    """Print the figures."""
    header("peppi-py", "pyarrow", "numpy")
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            folder = Path(scratch) / "replays"
            write_games(folder, 40, seed=1)
        paths = [p for p in sorted(folder.rglob("*.slp")) if _readable(p)]
        frames = sum(len(peppi.read_slippi(str(p)).frames) for p in paths)
        size = sum(p.stat().st_size for p in paths)
        print(f"{len(paths)} replays, {size / 1e6:.0f} MB, {frames:,} rows\n")
        _rates(paths, size, Path(scratch))
        _files(paths, Path(scratch))


def _readable(path: Path) -> bool:
    # peppi's panics print a stack from Rust, past Python's sys.stderr.
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        peppi.read_slippi(str(path))
    except (OSError, BaseException) as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return False
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return True


def _rates(paths: list[Path], size: int, scratch: Path) -> None:
    bare, ours = [], []
    for n in range(ROUNDS):
        layout = open_layout(scratch / f"store-{n}", create=True)
        bare.append(cpu_seconds(lambda: [peppi.read_slippi(str(p)) for p in paths]))
        ours.append(cpu_seconds(partial(_store, layout, paths)))
    rate, best = size / median(ours) / 1e6, size / median(bare) / 1e6
    row(
        "ingest, one core (against bare peppi)", f"{rate:.0f} MB/s", f"{best:.0f} MB/s", rate / best
    )


def _store(layout: Layout, paths: list[Path]) -> None:
    for path in paths:
        content = path.read_bytes()
        process(layout, content, hashlib.sha256(content).digest(), Options())


def _files(paths: list[Path], scratch: Path) -> None:
    games = sorted((scratch / "store-0" / "games").rglob("*.parquet"))
    stored = sum(p.stat().st_size for p in games if "anchor" not in p.name)
    size = sum(p.stat().st_size for p in paths)
    row(
        "game files (against .slp bytes)",
        f"{stored / 1e6:.1f} MB",
        f"{size / 1e6:.1f} MB",
        stored / size,
    )
    rows: list[int] = []
    seconds = cpu_seconds(lambda: rows.extend(read_game(p).num_rows for p in games))
    row("reading all of a game file back", f"{sum(rows) / seconds / 1e6:.2f} M frames/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
