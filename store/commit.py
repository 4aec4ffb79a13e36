"""What a commit adds to the catalog: the rows of a batch that it has not yet.

Runs inside the transaction of store.catalog, which alone opens, locks and repeats it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from schemas.records import NEEDS_REPAIR, TABLES, TRANSIENT_RULES, arrow_schema

# One row of each table is known again by these columns: DuckLake has no unique constraint, and a
# commit may be durable although its writer died before hearing so.
KEYS = {
    "games": ("game_id", "rev", "rewrite"),
    "players": ("game_id", "rev", "side"),
    "perspectives": ("game_id", "rev", "rewrite", "side"),
    "item_counts": ("game_id", "rev", "side", "type"),
    "replays": ("sha256", "rev", "source", "member"),
}
# What every selection needs; the ledger alone has rows without a game.
NEVER_NULL = {"game_id", "rewrite", "natural_key", "bucket", "n_frames", "stretches", "version",
              "leaf_set", "parquet_bytes", "parquet_crc32", "parquet_sha256"}  # fmt: skip
HEX_ID = "replace(cast(game_id as varchar), '-', '')"
"""SQL of a game id as it stands outside the catalog."""
_RECENT_MAX = 65_536

Key = tuple[Any, ...]


def table_of(name: str, batch: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows of a batch in Arrow, without one that stands in it twice."""
    fields = TABLES[name]
    table = pa.Table.from_pylist(batch, schema=arrow_schema(fields))
    needed = [field.name for field in fields if field.name in NEVER_NULL]
    assert not any(table.column(column).null_count for column in needed), name
    if name not in KEYS or len(table.group_by(list(KEYS[name])).aggregate([])) == len(table):
        return table
    first = {key: at for at, key in reversed(list(enumerate(_keys(table, KEYS[name]))))}
    return table.take(sorted(first.values()))


def _keys(table: pa.Table, columns: Sequence[str]) -> list[Key]:
    return list(zip(*(table.column(column).to_pylist() for column in columns), strict=True))


class Met:
    """Eight bytes of each id in a table, in memory: which of a batch may stand there already.

    To ask the table would open each of its files at every commit. Takes 8 to 80 bytes a row.
    """

    def __init__(self, name: str, column: str) -> None:
        """column: ids of at least eight bytes, as hex digits or bytes; one may be null."""
        self._name, self._column = name, column
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()
        self._snapshot = 0

    def catch_up(self, cursor: duckdb.DuckDBPyConnection, snapshot: int) -> None:
        """Take in what was committed until a snapshot, by whomever."""
        if snapshot == self._snapshot:
            return
        added = f"lake.{self._name}"
        if self._snapshot and _is_kept(cursor, self._snapshot + 1):
            bounds = f"{self._snapshot + 1}, {snapshot}"
            added = f"ducklake_table_insertions('lake', 'main', '{self._name}', {bounds})"
        self._take(cursor.execute(f"select {self._column} from {added}").to_arrow_table())
        self._snapshot = snapshot

    def maybe(self, batch: pa.Table) -> pa.Table:
        """The rows of a batch whose id may be in the table: all that are, hardly another."""
        heads = self._heads(batch)
        at = np.searchsorted(self._sorted, np.array(heads, np.uint64))
        old = np.append(self._sorted, np.uint64(0))[at].tolist()
        found = [new in self._recent or new == near for new, near in zip(heads, old, strict=True)]
        return batch.filter(pa.array(found, pa.bool_()))

    def committed(self, batch: pa.Table | None, snapshot: int) -> None:
        """Take in a batch that is this snapshot; any other one is left to `catch_up`."""
        if snapshot == self._snapshot + 1:
            if batch is not None:
                self._take(batch)
            self._snapshot = snapshot

    def _take(self, rows: pa.Table) -> None:
        self._recent.update(self._heads(rows))
        if len(self._recent) > _RECENT_MAX:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()

    def _heads(self, rows: pa.Table) -> list[int]:
        """The first eight bytes of each id as a number; 0 for null."""
        ids = rows.column(self._column).to_pylist()
        if pa.types.is_binary(rows.column(self._column).type):
            return [int.from_bytes(i[:8], "big") if i else 0 for i in ids]
        return [int(i[:8] + i[9:13] + i[14:18] if len(i) > 32 else i[:16], 16) for i in ids]


def nothing_met() -> dict[str, Met]:
    """For a catalog that was just opened: by table."""
    return {"games": Met("games", "game_id"), "replays": Met("replays", "sha256")}


def _is_kept(cursor: duckdb.DuckDBPyConnection, snapshot: int) -> bool:
    """Whether no vacuum has taken a snapshot: else all of the table is looked at again."""
    sql = "select 1 from ducklake_snapshots('lake') where snapshot_id = ?"
    return bool(cursor.execute(sql, [snapshot]).fetchall())


@contextmanager
def _registered(cursor: duckdb.DuckDBPyConnection, batch: pa.Table) -> Iterator[None]:
    cursor.register("batch", batch)
    yield
    cursor.unregister("batch")


_KNOWN_GAMES = (
    f"select {HEX_ID}, rev, rewrite from lake.games"
    " where game_id in (select cast(game_id as uuid) from batch)"
)
# A replay whose worker died or hung is tried again and gets a row again, as does one that was
# refused for want of repair when an ingest repairs it. A place without a hash is one as well.
_KNOWN_PLACES = (
    f"select rev, sha256, source, member, rule is not distinct from '{NEEDS_REPAIR}'"
    " from lake.replays where (sha256 in (select sha256 from batch) or sha256 is null)"
    f" and coalesce(rule, '') not in {TRANSIENT_RULES}"
)


def insert(
    cursor: duckdb.DuckDBPyConnection, batch: Mapping[str, pa.Table], met: Mapping[str, Met]
) -> dict[str, int]:
    """Insert what is new, and tell how much of each table; nothing where everything is known."""
    now = cursor.execute("from ducklake_current_snapshot('lake')").fetchone()
    assert now
    for table in met.values():
        table.catch_up(cursor, now[0])
    games = set(_known(cursor, batch.get("games"), met["games"], _KNOWN_GAMES))
    places = _known(cursor, batch.get("replays"), met["replays"], _KNOWN_PLACES)
    added = {}
    for name, rows in batch.items():
        fresh = _fresh_places(rows, places) if name == "replays" else _fresh_games(rows, games)
        if len(fresh):
            added[name] = len(fresh)
            casts = ", ".join(f"cast({field.name} as {field.sql})" for field in TABLES[name])
            with _registered(cursor, fresh):
                cursor.execute(f"insert into lake.{name} select {casts} from batch")
    if added:
        note = "call lake.set_commit_message('', '', extra_info => ?)"
        cursor.execute(note, [json.dumps(added)])
    return added


def insert_missing(cursor: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Insert rows of a table, each as often as it is not there yet, whatever its keys."""
    casts = ", ".join(f"cast({field.name} as {field.sql})" for field in TABLES[name])
    with _registered(cursor, rows):
        missing = f"select {casts} from batch except all from lake.{name}"
        (n,) = cursor.execute(f"insert into lake.{name} {missing}").fetchall()[0]
    if n:
        note = "call lake.set_commit_message('', '', extra_info => ?)"
        cursor.execute(note, [json.dumps({name: n})])


def _known(
    cursor: duckdb.DuckDBPyConnection, batch: pa.Table | None, met: Met, sql: str
) -> list[Key]:
    """What `sql` finds for the rows of a batch that may be there already; most often none may."""
    doubtful = [] if batch is None else met.maybe(batch)
    if not len(doubtful):
        return []
    with _registered(cursor, doubtful):
        return cursor.execute(sql).fetchall()


def _fresh_games(rows: pa.Table, known: set[Key]) -> pa.Table:
    """Rows of games, or of a table about games, without those of known (game_id, rev, rewrite)."""
    if not known or "rev" not in rows.column_names:
        return rows
    keys = _keys(rows, [name for name in KEYS["games"] if name in rows.column_names])
    # players and item_counts do not depend on the file's bytes: they come with the first writing
    return rows.filter(pa.array([(*key, 0)[:3] not in known for key in keys], pa.bool_()))


def _fresh_places(rows: pa.Table, known: Sequence[Key]) -> pa.Table:
    """Rows of the ledger that say something new: of one place and revision there is one verdict.

    known: (rev, sha256, source, member, whether it was refused for want of repair).
    """
    if not known:
        return rows
    met, judged = {row[1:4] for row in known}, {row[:4] for row in known if not row[4]}
    places = _keys(rows, ("rev", "sha256", "source", "member"))
    outcomes = rows.column("outcome").to_pylist()
    fresh = [
        place[1:] not in met if outcome == "known" else place not in judged
        for place, outcome in zip(places, outcomes, strict=True)
    ]
    return rows.filter(pa.array(fresh, pa.bool_()))
