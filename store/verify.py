"""What is in a store, and whether it is what the catalog says: sizes, checksums, schema, columns.

Names constant and all-null columns too: such a column is a bug that nobody sees in a training loss.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import StoreError
from schemas.game import FULL
from schemas.records import TABLES, version_text
from store.catalog import HEX_ID, Catalog
from store.layout import Layout
from store.parquet import leaf_set, read_footer, read_game
from store.select import live_games

DAMAGE = {"missing", "size", "checksum", "unreadable", "schema"}
"""Kinds of findings that make a store damaged; the others are worth a look."""
_GAMES_FOR_CONSTANTS = 2  # one game is constant in many ways
_LOOKED_AT = ("games", "players", "perspectives", "item_counts")


@dataclass(frozen=True)
class Finding:
    """One thing that verify found: its kind, the file or column, and what exactly."""

    kind: str
    where: str
    detail: str

    @property
    def is_damage(self) -> bool:
        """Whether the store is damaged by it."""
        return self.kind in DAMAGE


def verify(
    layout: Layout,
    *,
    catalog: Catalog | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every game file and compare it with its row; see DAMAGE for what is damage.

    progress: called with (games done, games in all).
    """
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return verify(layout, catalog=opened, progress=progress)
    rows = _file_rows(catalog)
    findings: list[Finding] = []
    seen = _Columns()
    for done, row in enumerate(rows, 1):
        path = layout.game_path(row["game_id"], row["rev"])
        findings += _check_file(path, row, seen)
        if progress:
            progress(done, len(rows))
    expected = {layout.game_path(row["game_id"], row["rev"]) for row in rows}
    findings += _orphans(layout, expected)
    findings += seen.findings("game files")
    findings += [f for table in _LOOKED_AT for f in _table_findings(catalog, table)]
    return findings


def stats(layout: Layout, *, catalog: Catalog | None = None) -> dict[str, Any]:
    """Counts, sizes and suspicious columns of a store's newest snapshot, as JSON types."""
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return stats(layout, catalog=opened)
    snapshot = catalog.snapshot()
    games, sides = catalog.at("games", snapshot), catalog.at("perspectives", snapshot)
    live = live_games(games, catalog.at("removals", snapshot), "one")

    def counted(column: str, source: str) -> dict[str, int]:
        rows = catalog.query(
            f"select {column}, count(*) as n from {source} group by all order by n desc, 1"
        )
        return {str(k): n for k, n in zip(*(c.to_pylist() for c in rows.columns), strict=True)}

    shown = f"(select * from {games} semi join ({live}) using (game_id, rev, rewrite))"
    shown_sides = f"(select * from {sides} semi join ({live}) using (game_id, rev, rewrite))"
    (totals,) = catalog.query(
        "select count(*) as games, coalesce(sum(n_frames), 0)::bigint as frames,"
        f" coalesce(sum(parquet_bytes), 0)::bigint as game_bytes from {shown}"
    ).to_pylist()
    findings = [f for table in _LOOKED_AT for f in _table_findings(catalog, table)]
    return {
        "snapshot": snapshot,
        **totals,
        "hours": round(totals["frames"] / 60 / 3600, 2),
        "catalog_bytes": _disk_bytes(layout.catalog.parent.glob("catalog.sqlite*"))
        + _disk_bytes(layout.tables.rglob("*.parquet")),
        "characters": counted("char", shown_sides),
        "stages": counted("stage", shown),
        "versions": {
            version_text(int(k)) if k != "None" else k: n
            for k, n in counted("version", shown).items()
        },
        "replays": counted("outcome", catalog.at("replays", snapshot)),
        "refused": counted(
            "rule", f"(from {catalog.at('replays', snapshot)} where outcome = 'refused')"
        ),
        "suspicious_columns": [f"{f.where}: {f.detail}" for f in findings],
    }


# --- files --------------------------------------------------------------------------------------


def _file_rows(catalog: Catalog) -> list[dict[str, Any]]:
    """The facts of every game file; of two rows about one file, the later one counts."""
    table = catalog.query(
        f"select {HEX_ID} as game_id, rev, n_frames, parquet_bytes, parquet_sha256, parquet_crc32,"
        " leaf_set from lake.games order by game_id, rev"
    )
    return list(table.to_pylist())


def _check_file(path: Path, row: dict[str, Any], seen: "_Columns") -> Iterator[Finding]:
    """The first thing that is wrong with a game file; its columns are counted in `seen`."""
    if not path.exists():
        yield Finding("missing", path.name, "the catalog has it, the disk has not")
        return
    data = path.read_bytes()
    if len(data) != row["parquet_bytes"]:
        expected = row["parquet_bytes"]
        yield Finding("size", path.name, f"{len(data)} bytes instead of {expected}")
        return
    sha256 = hashlib.sha256(data).digest()
    if sha256 != row["parquet_sha256"] or zlib.crc32(data) != row["parquet_crc32"]:
        yield Finding("checksum", path.name, "its bytes are not those that were written")
        return
    try:
        table = read_game(data)
        read_footer(data)
    except StoreError as error:
        yield Finding("unreadable", path.name, error.message)
        return
    yield from _check_schema(path, table, row)
    seen.add(table)


def _check_schema(path: Path, table: pa.Table, row: dict[str, Any]) -> Iterator[Finding]:
    if table.column_names != FULL.names:
        yield Finding("schema", path.name, f"top-level columns {table.column_names}")
    elif leaf_set(table.schema) != row["leaf_set"]:
        yield Finding("schema", path.name, f"its leaves are not those of set {row['leaf_set']}")
    elif len(table) != row["n_frames"]:
        yield Finding("schema", path.name, f"{len(table)} frames instead of {row['n_frames']}")


def _orphans(layout: Layout, expected: set[Path]) -> list[Finding]:
    """Files that no row names: an ingest runs, or was killed between a file and its commit.

    No damage: nothing that a query shows is missing, and the next ingest takes the replay up.
    """
    found = sorted(path for path in layout.games.rglob("*") if path.is_file())
    detail = "no row of the catalog names it: an ingest runs, or was interrupted"
    return [Finding("orphan", path.name, detail) for path in found if path not in expected]


def _disk_bytes(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


# --- columns ------------------------------------------------------------------------------------


class _Columns:
    """What each leaf of many tables has held so far: its smallest and largest value."""

    def __init__(self) -> None:
        self.games = 0
        self.bounds: dict[str, tuple[Any, Any] | None] = {}

    def add(self, table: pa.Table) -> None:
        """Count one game's columns in."""
        self.games += 1
        for name, column in _leaves("", dict(zip(table.column_names, table.columns, strict=True))):
            low, high = pc.min_max(column).as_py().values()
            known = self.bounds.setdefault(name, None)
            if low is not None:
                self.bounds[name] = (
                    (min(known[0], low), max(known[1], high)) if known else (low, high)
                )

    def findings(self, where: str) -> Iterator[Finding]:
        """The leaves that held nothing, or one value only, in all of the games."""
        if self.games < _GAMES_FOR_CONSTANTS:
            return
        for name, bounds in self.bounds.items():
            if bounds is None:
                yield Finding("all_null", f"{where}: {name}", f"null in all {self.games} games")
            elif bounds[0] == bounds[1]:
                yield Finding("constant", f"{where}: {name}", f"always {bounds[0]}")


def _leaves(
    prefix: str, columns: dict[str, pa.ChunkedArray]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(dotted name, values) of every leaf; lists are flattened. As deep as our schema is."""
    for name, column in columns.items():
        if pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        if pa.types.is_struct(column.type):
            inner = dict(zip((f.name for f in column.type), column.flatten(), strict=True))
            yield from _leaves(f"{prefix}{name}.", inner)
        else:
            yield prefix + name, column


def _table_findings(catalog: Catalog, table: str) -> list[Finding]:
    """Columns of a catalog table that say nothing."""
    names = [field.name for field in TABLES[table]]
    each = ", ".join(f"count({n}) as {n}_n, min({n}) = max({n}) as {n}_c" for n in names)
    (row,) = catalog.query(
        f"select count(distinct game_id) as games, {each} from lake.{table}"
    ).to_pylist()
    if row["games"] < _GAMES_FOR_CONSTANTS:
        return []
    nulls = [n for n in names if row[f"{n}_n"] == 0]
    constants = [n for n in names if row[f"{n}_c"]]
    return [
        *(Finding("all_null", f"{table}.{n}", f"null in all {row['games']} games") for n in nulls),
        *(Finding("constant", f"{table}.{n}", "one value in every row") for n in constants),
    ]
