"""Ingest of archives beside their bare decompression and beside the same replays unpacked.

`python -m benchmarks.archives [FOLDER]`, or a part of `python -m benchmarks.ingest`: FOLDER of .slp
files; without one the unpacked real replays of the tests where they are, else 40 simulated games.
Runs as in benchmarks/ingest.py: a process each, pinned to the same cores, in turn, the median of
ROUNDS. Making the archives takes most of the time.
"""

import sys
import tempfile
from pathlib import Path

import py7zr

from benchmarks.machine import header, median, replays, row
from benchmarks.pinned import Run, full, unpacked

ROUNDS = 3
CORES = 2
LARGE_BYTES = 10**9
"""Of replays in the archive that memory is measured with, four times what the first one holds."""
SEED_AT = 0x13D  # in game start
BLOCK_BYTES = 2**28


def main(folder: Path | None) -> None:
    """Print the figures."""
    header("peppi-py", "py7zr", "pyarrow")
    with tempfile.TemporaryDirectory() as scratch:
        report(replays(folder, Path(scratch)), Path(scratch))


def report(folder: Path, scratch: Path) -> None:
    """Print the figures over these replays; archives and stores go to `scratch`."""
    paths = sorted(folder.rglob("*.slp"))
    size = sum(path.stat().st_size for path in paths)
    print(f"\narchives of {len(paths)} replays, {size / 1e6:.0f} MB; {CORES} cores")
    solid = scratch / "solid.7z"
    _seven_zip(solid, [path.read_bytes() for path in paths], BLOCK_BYTES * 1000)
    _rates(solid, paths, size, scratch)
    large, n_large = scratch / "large.7z", LARGE_BYTES // size + 1
    _seven_zip(large, variants(paths, n_large), BLOCK_BYTES)
    _memory(solid, large, n_large, paths, scratch)


def _seven_zip(path: Path, replays: "list[bytes]", block_bytes: int) -> None:
    """A .7z with a block for each so many bytes. preset 3: made quickly, no slower to unpack."""
    filters = [{"id": py7zr.FILTER_LZMA2, "preset": 3}]
    mode, n = "w", 0
    while n < len(replays):
        with py7zr.SevenZipFile(path, mode, filters=filters) as archive:
            written = 0
            while n < len(replays) and written < block_bytes:
                archive.writestr(replays[n], f"{n}.slp")
                written += len(replays[n])
                n += 1
        mode = "a"
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB packed")


def variants(paths: list[Path], n: int) -> list[bytes]:
    """Each replay n times, with a random seed of its own each time."""
    out = []
    for variant in range(n):
        for path in paths:
            slp = bytearray(path.read_bytes())
            at = 16 + slp[16] + SEED_AT if len(slp) > 16 else 0
            slp[at : at + 4] = (variant + 1).to_bytes(4, "big")
            out.append(bytes(slp))
    return out


def _rates(solid: Path, paths: list[Path], size: int, scratch: Path) -> None:
    smallest = min(paths, key=lambda path: path.stat().st_size)
    bare, files, packed = [], [], []
    for n in range(ROUNDS):
        bare.append(unpacked(solid, CORES))
        files.append(full(paths, scratch / f"files-{n}", CORES))
        packed.append(full([solid], scratch / f"packed-{n}", CORES, first=smallest))
    rates = {
        "its decompression by py7zr": size / _mid([run.wall for run in bare]),
        "the files unpacked": size / _mid([run.wall_no_start for run in files]),
    }
    ours = size / _mid([run.wall_no_start for run in packed])
    for what, rate in rates.items():
        row(f"solid .7z beside {what}", f"{ours / 1e6:.0f} MB/s", f"{rate / 1e6:.0f} MB/s",
            ours / rate)  # fmt: skip
    slower = min(rates.values())
    row("  beside the slower of the two (>= 0.8)", f"{ours / 1e6:.0f} MB/s",
        f"{slower / 1e6:.0f} MB/s", ours / slower)  # fmt: skip
    spent = _cpu(packed) - _cpu(files)
    row("  CPU more than for the files, beside py7zr", f"{spent:.1f} s", f"{_cpu(bare):.1f} s",
        spent / _cpu(bare))  # fmt: skip


def _memory(solid: Path, large: Path, n_large: int, paths: list[Path], scratch: Path) -> None:
    smallest = min(paths, key=lambda path: path.stat().st_size)
    most = 600 + 250 * CORES
    for times, archive in ((1, solid), (n_large, large)):
        run = full([archive], scratch / f"memory-{times}", CORES, first=smallest)
        what = f"peak memory, {CORES} workers, {times} x the replays (<= 1)"
        row(what, f"{run.peak_mb:.0f} MB", f"{most} MB", run.peak_mb / most)


def _cpu(runs: list[Run]) -> float:
    return _mid([run.cpu_no_start for run in runs])


def _mid(values: list[float]) -> float:
    return median(values)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
