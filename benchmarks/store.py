"""Catalog and SQL at the size of the whole archive, each figure beside its baseline.

`python -m benchmarks.store [--games N] [--many N] [--files N] [--folder DIR]`: catalogs of N and of
many games, frame-level SQL over files. The stores are made once and kept (benchmarks/fixtures.py).
The baseline of a query is the same SQL over the same rows in tables in memory, asked in turn.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks import catalog_rows
from benchmarks.fixtures import FOLDER, Built, catalog_store, game_store
from benchmarks.machine import header, median, row
from schemas.records import TABLES
from schemas.shard import Lock, Request
from store.catalog import Catalog
from store.layout import Layout
from store.select import from_lock, select
from store.sql import describe, run_guarded, run_sql

GAMES, MANY, FILES = 287_504, 1_000_000, 2_000
QUERY = "char='fox' and stage='fd' and opp_char in ('marth','sheik','falco') and projectiles > 10"
MATCHUPS = (
    "select char, opp_char, stage, count(*) as games, avg(won::int) as won, sum(n_frames) as long"
    " from perspectives group by all"
)
ONE_COLUMN = "select avg(p0.percent) as a from frames"
ROUNDS = 9


# --- clocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """Medians over so many rounds."""

    rounds: int

    def times(self, work: Callable[[], object]) -> tuple[float, float]:
        """Of the clock and of this process's CPU, in ms."""
        return _medians([_once(work) for _ in range(self.rounds)])

    def beside(self, name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        """Print both, run in turn so that what else runs slows both."""
        pairs = [(_once(ours), _once(theirs)) for _ in range(self.rounds)]
        wall, cpu = _medians([pair[0] for pair in pairs])
        base_wall, base_cpu = _medians([pair[1] for pair in pairs])
        row(name, f"{wall:.0f} ms", f"{base_wall:.0f} ms", wall / base_wall)
        row("  cpu", f"{cpu:.0f} ms", f"{base_cpu:.0f} ms", cpu / base_cpu)


def _once(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = (median(values) for values in zip(*times, strict=True))
    return wall, cpu


# --- all of it ------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--games", type=int, default=GAMES, help="games of the first catalog")
    parser.add_argument("--many", type=int, default=MANY, help="of the second; 0 for none")
    parser.add_argument("--files", type=int, default=FILES, help="game files of frame-level SQL")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the stores are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each query")
    args = parser.parse_args(arguments)
    clock = Clock(args.rounds)
    header("duckdb", "pyarrow", "numpy")
    print(f"load {os.getloadavg()[0]:.1f} (figures count on a quiet machine); ms are medians\n")
    _catalog(clock, args.games, args.folder, bound_ms=60, twice=0.02)
    if args.many:
        # of all archives together, most games stand twice
        _catalog(clock, args.many, args.folder, bound_ms=150, twice=0.3)
    _frames(clock, args.files, args.folder)


# --- catalogs -------------------------------------------------------------------------------------


def _catalog(clock: Clock, games: int, folder: Path, *, bound_ms: int, twice: float) -> None:
    began = time.perf_counter()
    layout, built = catalog_store(games, twice=twice, folder=folder)
    print(f"catalog of {games:,} games (ready after {time.perf_counter() - began:.0f} s)")
    _inserting(built)
    _sizes(layout)
    _opening(clock, layout)
    with Catalog(layout, read_only=True) as catalog:
        _asking(clock, layout, catalog, bound_ms)
        _everything(layout, catalog)
    print()


def _inserting(built: Built) -> None:
    share = built.games / GAMES
    plain = _plain_insert(built.games)
    name = f"commits and merges, made at load {built.load:.1f} (<= {40 * share:.0f} s)"
    row(name, f"{built.commits_cpu + built.merges_cpu:.1f} s cpu", f"{plain:.1f} s",
        (built.commits_cpu + built.merges_cpu) / plain)  # fmt: skip
    row("  clock", f"{built.commits_wall + built.merges_wall:.1f} s")
    row("  of it merges, cpu", f"{built.merges_cpu:.1f} s")


def _plain_insert(games: int) -> float:
    """CPU seconds to put rows into tables in memory, from ten batches."""
    connection = duckdb.connect()
    for name, fields in TABLES.items():
        connection.execute(
            f"create table {name} ({', '.join(f'{f.name} {f.sql}' for f in fields)})"
        )
    spent = 0.0
    for n in range(10):
        batch = catalog_rows.rows(range(n * catalog_rows.BATCH, (n + 1) * catalog_rows.BATCH))
        began = time.process_time()
        for name, rows in batch.items():
            columns = {f.name: [r[f.name] for r in rows] for f in TABLES[name]}
            connection.register("batch", pa.table(columns))
            casts = ", ".join(f"cast({f.name} as {f.sql})" for f in TABLES[name])
            connection.execute(f"insert into {name} select {casts} from batch")
            connection.unregister("batch")
        spent += time.process_time() - began
    return spent * games / (10 * catalog_rows.BATCH)


def _sizes(layout: Layout) -> None:
    with Catalog(layout, read_only=True) as catalog:
        snapshot = catalog.snapshot()
        by_table = {
            name: sum(Path(path).stat().st_size for path in catalog.files(name, snapshot))
            for name in TABLES
        }
        (games,) = catalog.query("select count(*) as n from lake.games").to_pylist()
    metadata = layout.catalog.stat().st_size
    total, bound = sum(by_table.values()) + metadata, 120e6 * games["n"] / GAMES
    name = f"catalog on disk (<= {bound / 1e6:.0f} MB)"
    row(name, f"{total / 1e6:.1f} MB", f"{bound / 1e6:.0f} MB", total / bound)
    for table, size in by_table.items():
        row(f"  {table}", f"{size / 1e6:.1f} MB")
    row("  DuckLake's metadata", f"{metadata / 1e6:.1f} MB")


def _opening(clock: Clock, layout: Layout) -> None:
    wall, cpu = clock.times(lambda: Catalog(layout, read_only=True).close())
    row("opening a catalog", f"{wall:.0f} / {cpu:.0f} ms", "wall / cpu")


class _Memory:
    """A catalog's rows in tables in memory, to be asked by the same code."""

    def __init__(self, catalog: Catalog) -> None:
        self.layout, self._snapshot = catalog.layout, catalog.snapshot()
        self._connection = duckdb.connect()
        for name, fields in TABLES.items():
            rows = catalog.query(f"from lake.{name}")  # noqa: F841 (DuckDB looks it up by name)
            casts = ", ".join(f"cast({f.name} as {f.sql}) as {f.name}" for f in fields)
            order = " order by char, opp_char, stage" if name == "perspectives" else ""
            self._connection.execute(f"create table {name} as select {casts} from rows{order}")

    def at(self, table: str, _snapshot: int) -> str:
        """As `Catalog.at`."""
        return table

    def snapshot(self) -> int:
        """As `Catalog.snapshot`."""
        return self._snapshot

    def check_snapshot(self, _snapshot: int | None) -> int:
        """As `Catalog.check_snapshot`."""
        return self._snapshot

    def each_game_once(self, _snapshot: int) -> bool:
        """As `Catalog.each_game_once`."""
        return True

    def query(self, sql: str, values: tuple[object, ...] = (), **tables: pa.Table) -> pa.Table:
        """As `Catalog.query`."""
        with self._connection.cursor() as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            return cursor.execute(sql, list(values)).to_arrow_table()


def _asking(clock: Clock, layout: Layout, catalog: Catalog, bound_ms: int) -> None:
    memory = _Memory(catalog)

    def ours() -> object:
        return select(layout, Request(QUERY), catalog=catalog)

    def theirs() -> object:
        return select(layout, Request(QUERY), catalog=memory)  # type: ignore[arg-type]

    found = select(layout, Request(QUERY), catalog=catalog)
    print(f"  {len(found.table):,} games are selected")
    clock.beside(f"filtered selection (<= {bound_ms} ms, <= 3 x)", ours, theirs)
    matchups = MATCHUPS.replace("perspectives", "{}")
    clock.beside(
        "matchup table of all rows (<= 60 ms)",
        lambda: catalog.query(matchups.format("lake.perspectives")),
        lambda: memory.query(matchups.format("perspectives")),
    )
    wall, cpu = clock.times(lambda: run_sql(layout, MATCHUPS, catalog=catalog))
    row("  as meleewm sql: views, its process", f"{wall:.0f} / {cpu:.0f} ms", "wall / own cpu")
    wall, cpu = clock.times(catalog.snapshots)
    name = f"listing {len(catalog.snapshots())} snapshots (<= 50 ms)"
    row(name, f"{wall:.0f} / {cpu:.0f} ms", "wall / cpu")


def _everything(layout: Layout, catalog: Catalog) -> None:
    """A dataset over all games: made, described, locked, read back (<= 5 s at 287,504)."""
    timed: dict[str, float] = {}

    def step(name: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        timed[name] = time.process_time() - began

    selection = select(layout, Request(), catalog=catalog)
    step("selection", lambda: select(layout, Request(), catalog=catalog))
    step("manifest", selection.manifest)
    step("members.parquet", selection.members_parquet)
    step("lock", lambda: selection.lock().to_json())
    text, members = selection.lock().to_json(), selection.members_parquet()
    step("lock read back", lambda: from_lock(layout, Lock.from_json(text), catalog=catalog))
    step("describe for SQL", lambda: describe(layout, over="", catalog=catalog))
    row("dataset over everything, cpu (<= 5 s)", f"{sum(timed.values()):.1f} s")
    for name, seconds in timed.items():
        row(f"  {name}", f"{seconds:.2f} s")
    row("  sizes of lock, members", f"{len(text) / 1e6:.1f} MB", f"{len(members) / 1e6:.1f} MB")


# --- frames ---------------------------------------------------------------------------------------


def _frames(clock: Clock, files: int, folder: Path) -> None:
    for alike, bound in ((True, 20), (False, 8)):
        layout, built = game_store(files, alike=alike, folder=folder)
        what = "one leaf set" if alike else "mixed leaf sets"
        print(f"{built.games:,} game files of {what}, {built.frames / 1e6:.1f} M frames")
        with Catalog(layout, read_only=True) as catalog:
            plan = describe(layout, over="", catalog=catalog)
            whole, _ = clock.times(partial(run_sql, layout, ONE_COLUMN, over="", catalog=catalog))
        guarded, _ = clock.times(partial(run_guarded, plan, ONE_COLUMN))
        bare, _ = clock.times(partial(_bare_scan, plan.files["files"], alike))
        start, _ = clock.times(partial(run_guarded, plan, "select 1 as one"))
        base = built.frames / bare / 1e3
        for name, ms in (
            (f"sql --over, one column (>= {bound} M frames/s)", whole),
            ("  less selecting the games", guarded),
            ("  less start of the query's process", guarded - start),
        ):
            rate = built.frames / ms / 1e3
            row(name, f"{rate:.1f} M frames/s", f"{base:.1f} M frames/s", rate / base)
        print()


def _bare_scan(files: list[str], alike: bool) -> None:
    """DuckDB in this process over the list of files."""
    with duckdb.connect() as connection:
        union = "" if alike else ", union_by_name = true"
        sql = f"select avg(p0.percent) from read_parquet(?{union})"
        connection.execute(sql, [files]).fetchall()


if __name__ == "__main__":
    main()
