"""Ingest beside a bare peppi loop over the same replays, and what game files weigh and read like.

`python -m benchmarks.ingest [FOLDER]`: FOLDER of .slp files; without one the unpacked real replays
of the tests where they are, else 40 simulated games. Every timed run is a process of its own
(benchmarks/pinned.py) on cores of its own, ours and the baseline in turn, the median of ROUNDS.

Starting (worker, catalog, first commit) takes a second or so of CPU, which counts in a run of
seconds and is nothing in one of hours: rates stand with it and less it, over the replays once and
over COPIES of each as other games. What ARCHIVE games take is computed from the two.
"""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import pyarrow as pa

from benchmarks import archives
from benchmarks.machine import cpu_seconds, header, median, replays, row
from benchmarks.pinned import Run, bare, full, readable
from ingest.workers import ingest
from schemas.features import view
from schemas.records import version_number, version_text
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.parquet import read_game

ROUNDS = 3
COPIES = 6
ARCHIVE = 287_504
VIEWS = ("v3", "v3-projectiles")
LONG_GAME = 3_000  # frames; below it the footer is most of a game file
RECENT = version_number(3, 7)


def main(folder: Path | None) -> None:
    """Print the figures."""
    header("peppi-py", "pyarrow", "numpy", "duckdb")
    with tempfile.TemporaryDirectory() as scratch:
        folder = replays(folder, Path(scratch))
        found = sorted(folder.rglob("*.slp"))
        paths = [path for path in found if readable(path)]
        size = sum(path.stat().st_size for path in paths)
        print(
            f"{len(found)} replays; rates: the {len(paths)}, {size / 1e6:.0f} MB, of bare peppi\n"
        )
        _rates(paths, size, Path(scratch))
        _long(paths, Path(scratch))
        layout = open_layout(Path(scratch) / "all", create=True)
        ingest([folder], layout.root, workers=2)
        games = _games(layout)
        _sizes(games)
        _reading(layout, games)
        archives.report(folder, Path(scratch))


# --- rates ----------------------------------------------------------------------------------------


def _rates(paths: list[Path], size: int, scratch: Path) -> None:
    peppi, ours, two_peppi, two_ours = [], [], [], []
    for n in range(ROUNDS):
        peppi.append(bare(paths, cores=1))
        ours.append(full(paths, scratch / f"one-{n}", workers=1))
        two_peppi.append(bare(paths, cores=2))
        two_ours.append(full(paths, scratch / f"two-{n}", workers=2))
    for clock in ("cpu", "wall"):
        base = size / _mid(peppi, clock)
        for suffix, what in (
            ("", f"ingest on one core, {clock}"),
            ("_no_start", "  less start-up"),
        ):
            rate = size / _mid(ours, clock + suffix)
            name = f"{what} (>= 0.25)"
            row(name, f"{rate / 1e6:.0f} MB/s", f"{base / 1e6:.0f} MB/s", rate / base)
    start = _mid(ours, "wall") - _mid(ours, "wall_no_start")
    row("  start-up: an ingest of the smallest replay", f"{start:.2f} s")
    gain = _mid(ours, "wall_no_start") / _mid(two_ours, "wall_no_start")
    base = _mid(peppi, "wall") / _mid(two_peppi, "wall")
    row("two workers over one, wall (>= 0.85)", f"{gain:.2f} x", f"{base:.2f} x", gain / base)
    for workers, runs in ((1, ours), (2, two_ours)):
        peak, most = max(run.peak_mb for run in runs), 600 + 250 * workers
        row(f"peak memory, {workers} worker(s) (<= 1)", f"{peak:.0f} MB", f"{most} MB", peak / most)


def _long(paths: list[Path], scratch: Path) -> None:
    """One core over several times as many replays, and what that makes of a whole archive."""
    more = _copied(paths, scratch / "copies")
    size = sum(path.stat().st_size for path in more)
    peppi, ours = [], []
    for n in range(ROUNDS):
        peppi.append(bare(more, cores=1))
        ours.append(full(more, scratch / f"long-{n}", workers=1))
        shutil.rmtree(scratch / f"long-{n}")
    print(f"\n{len(more)} replays, {size / 1e6:.0f} MB: copies under other ids")
    bare_s, whole_s, work_s = (
        _mid(peppi, "cpu"), _mid(ours, "cpu"), _mid(ours, "cpu_no_start"),
    )  # fmt: skip
    base = f"{size / bare_s / 1e6:.0f} MB/s"
    for name, seconds in (
        ("ingest on one core, cpu (>= 0.25)", whole_s),
        ("  less start-up (>= 0.25)", work_s),
    ):
        row(name, f"{size / seconds / 1e6:.0f} MB/s", base, bare_s / seconds)
    times = ARCHIVE / len(more)
    computed = whole_s - work_s + times * work_s
    row(
        f"  {ARCHIVE:,} such games, computed (>= 0.25)",
        f"{computed / 3600:.2f} h", f"{times * bare_s / 3600:.2f} h", times * bare_s / computed,
    )  # fmt: skip


def _copied(paths: list[Path], folder: Path) -> list[Path]:
    """Each replay COPIES times, as other games."""
    folder.mkdir()
    copies = []
    for n, path in enumerate(paths):
        for copy, slp in enumerate(archives.variants([path], COPIES)):
            copies.append(folder / f"{copy}-{n}.slp")
            copies[-1].write_bytes(slp)
    return sorted(copies)


def _mid(runs: list[Run], what: str) -> float:
    return median([getattr(run, what) for run in runs])


# --- game files -----------------------------------------------------------------------------------


def _games(layout: Layout) -> pa.Table:
    with Catalog(layout) as catalog:
        return catalog.query(
            "select replace(game_id::varchar, '-', '') as id, version, n_frames, replay_bytes,"
            " parquet_bytes from lake.games"
        )


def _sizes(games: pa.Table) -> None:
    rows = games.to_pylist()
    recent = [r for r in rows if r["version"] >= RECENT and r["n_frames"] >= LONG_GAME]
    print()
    _size(f"game files, >= 3.7 and {LONG_GAME:,} frames (<= 0.10)", recent)
    _size("game files, all (<= 0.11)", rows)
    versions = sorted({r["version"] // 1000 for r in rows})
    for number in versions:
        same = [r for r in rows if r["version"] // 1000 == number]
        text = version_text(number * 1000).rpartition(".")[0]
        _size(f"  Slippi {text}, {len(same)} games", same)


def _size(name: str, rows: list[dict[str, int]]) -> None:
    if rows:
        stored, size = (sum(r[key] for r in rows) for key in ("parquet_bytes", "replay_bytes"))
        row(name, f"{stored / 1e6:.2f} MB", f"{size / 1e6:.2f} MB", stored / size, digits=4)


def _reading(layout: Layout, games: pa.Table) -> None:
    paths = [layout.game_path(game) for game in games["id"].to_pylist()]
    frames = sum(games["n_frames"].to_pylist())

    def read(columns: list[str] | None) -> None:
        for path in paths:
            read_game(path, columns)

    print()
    for name, columns in (
        ("reading all of a game file (>= 1.5)", None),
        *((f"reading the columns of {name} (>= 2.5)", view(name).columns) for name in VIEWS),
    ):
        seconds = median([cpu_seconds(partial(read, columns)) for _ in range(ROUNDS)])
        row(name, f"{frames / seconds / 1e6:.2f} M frames/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
