"""The catalog: DuckLake on SQLite, append-only, one snapshot per commit.

The only module that knows how the catalog is kept. Connections are opened where they are used and
never cross a fork; several processes may commit and read at once.
"""

import fcntl
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from schemas.errors import NotFoundError, StoreError
from schemas.filters import quoted
from schemas.game import REVISION
from schemas.records import NEEDS_REPAIR, SORTED_BY, TABLES, TRANSIENT_RULES, Rows
from store.commit import HEX_ID, Met, insert, insert_missing, nothing_met, table_of
from store.layout import Layout, catalog_identity, refuse_network

__all__ = ["HEX_ID", "SETTINGS", "SNAPSHOT_COLUMN", "Catalog", "extension_path"]

FILES_MAX = 16
"""A table of more data files than this is merged at the end of an ingest."""
LOCK_WAIT_S = 600.0
COMMIT_TRIES = 200
CLEANUP_AGE = "1 hour"
"""Merged files stay that long for readers who listed them before."""
LAYOUT = {"parquet_compression": "zstd", "parquet_version": "2", "parquet_row_group_size": "24576"}
"""A fifth smaller than DuckLake's defaults; small groups are passed over by char, and shared among
threads."""
SCAN_KEPT_S = 600.0
"""A list of a table's files is asked for anew after that time: well before they may be gone."""
_SCANS_MAX = 256

FIRST_SNAPSHOT = 1
"""The tables without rows. DuckLake's snapshot 0 has no tables and answers nothing."""
SNAPSHOT_COLUMN = "_ducklake_internal_snapshot_id"
"""Column of merged files: the snapshot that brought the row."""
_TRANSIENT = ("lock", "conflict", "busy", "serializ")
SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
"""DuckDB never fetches or guesses anything here."""

T = TypeVar("T")


class Catalog:
    """An open catalog; use as a context manager. A method may be called from any thread."""

    def __init__(
        self, layout: Layout, read_only: bool = False, *, any_columns: bool = False
    ) -> None:
        """Open the catalog of a store, an empty one where there is none yet.

        any_columns: also one that lacks tables or columns (to save what is in it). Raises
        StoreError where the catalog is damaged, gone, older or on a network file system.
        """
        self.layout = layout
        self._scans: dict[tuple[Any, ...], tuple[str, float]] = {}
        self._once: dict[tuple[Any, ...], bool] = {}
        self._met: dict[tuple[int, int], dict[str, Met]] = {}
        refuse_network(layout.root)
        with _signals_as_raised():
            self._connection = _opened(layout, read_only, any_columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; reading afterwards is an error."""
        self._connection.close()

    # --- reading --------------------------------------------------------------------------------

    def query(self, sql: str, values: Sequence[object] = (), **tables: pa.Table) -> pa.Table:
        """Run trusted SQL; `tables` are visible under their names. The catalog is `lake`.

        Raises StoreError where one of the catalog's files is damaged or gone.
        """
        with _signals_as_raised(), self._connection.cursor() as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            try:
                return cursor.execute(sql, list(values)).to_arrow_table()
            except duckdb.Error as error:
                # of no kind at all: what a damaged head of a parquet file brings
                if type(error) not in (
                    duckdb.IOException,
                    duckdb.InvalidInputException,
                    duckdb.Error,
                ):
                    raise
                self._scans.clear()  # a file may have been merged into another one since
                hint = "a file of its catalog is damaged or gone: meleewm rebuild makes it anew"
                # The service passes this on: no path of this machine.
                line = _line(error).replace(str(self.layout.root.absolute()), self.layout.root.name)
                raise StoreError(f"the store cannot be read: {line}", hint) from error

    def snapshot(self) -> int:
        """Number of the newest snapshot."""
        return int(self.query("from ducklake_current_snapshot('lake')").column(0)[0].as_py())

    def snapshots(self) -> list[dict[str, Any]]:
        """All snapshots, oldest first: number, time (UTC), what the commit added per table."""
        rows = self.query(
            "select snapshot_id, cast(snapshot_time as timestamp) as at, commit_extra_info as added"
            f" from ducklake_snapshots('lake') where snapshot_id >= {FIRST_SNAPSHOT}"
            " order by snapshot_id"
        )
        return [
            {"snapshot": n, "at": at, "added": json.loads(added) if added else {}}
            for n, at, added in zip(*(column.to_pylist() for column in rows.columns), strict=True)
        ]

    def check_snapshot(self, snapshot: int | None) -> int:
        """The snapshot asked for, or the newest. Raises NotFoundError for one that is not there."""
        newest = self.snapshot()
        if snapshot is None:
            return newest
        if not FIRST_SNAPSHOT <= snapshot <= newest:
            raise NotFoundError(f"there is no snapshot {snapshot}", f"the newest is {newest}")
        found = self.query(
            "select 1 from ducklake_snapshots('lake') where snapshot_id = ?", [snapshot]
        )
        if not found:
            message = f"snapshot {snapshot} is gone: the store was vacuumed since"
            raise NotFoundError(message, f"the newest is {newest}; meleewm snapshots lists all")
        return snapshot

    def at(self, table: str, snapshot: int) -> str:
        """A table as of a snapshot, for the text of `query`: a scan of its parquet files.

        DuckLake's own scan asks SQLite for statistics of each column of a filter, 20 ms a query.
        """
        now = time.monotonic()
        key = (catalog_identity(self.layout), table, snapshot)
        text, listed = self._scans.get(key, ("", now - SCAN_KEPT_S))
        if now - listed >= SCAN_KEPT_S:
            text = self._scan(table, snapshot)
            if len(self._scans) >= _SCANS_MAX:
                self._scans.clear()
            self._scans[key] = text, now
        return text

    def _scan(self, table: str, snapshot: int) -> str:
        files, fields = self.files(table, snapshot), TABLES[table]
        columns = ", ".join(field.name for field in fields)
        if not files:
            nulls = ", ".join(f"cast(null as {field.sql}) as {field.name}" for field in fields)
            return f"(select {nulls} where false)"
        merged = self.query(
            "select file_name, coalesce(max(cast(stats_max_value as bigint)), ?) as last"
            " from parquet_metadata(?) where path_in_schema = ? group by all",
            [snapshot + 1, files, SNAPSHOT_COLUMN],
        )
        last = dict(zip(*merged.to_pydict().values(), strict=True))
        whole = [f for f in files if last.get(f, 0) <= snapshot]
        later = [f for f in files if last.get(f, 0) > snapshot]
        scans = [
            f"select {columns} from read_parquet([{', '.join(map(quoted, some))}]){then}"
            for some, then in ((whole, ""), (later, f" where {SNAPSHOT_COLUMN} <= {snapshot}"))
            if some
        ]
        return f"({' union all '.join(scans)})"

    def each_game_once(self, snapshot: int) -> bool:
        """Whether no game can have two rows: of two revisions, or written again; most often so."""
        key = (catalog_identity(self.layout), snapshot)
        if key not in self._once:
            bounds = self.query(
                "select min(stats_min_value) as low, max(stats_max_value) as high"
                " from parquet_metadata(?) where path_in_schema in ('rev', 'rewrite')"
                " group by path_in_schema",
                [self.files("games", snapshot) or [str(self.layout.anchor)]],
            ).to_pylist()
            self._once[key] = all(b["low"] == b["high"] is not None for b in bounds)
        return self._once[key]

    def files(self, table: str, snapshot: int) -> list[str]:
        """Paths of the parquet files that hold a table's rows at a snapshot.

        A merged file also holds later rows: its column SNAPSHOT_COLUMN says since when each counts.
        """
        data, deletes = self._listed_files(table, snapshot)
        if deletes:
            hint = "ask again in a moment; where a vacuum was killed, run meleewm vacuum again"
            raise StoreError("rows of removed games are being taken out", hint)
        return data

    def files_in_use(self) -> set[str]:
        """Names of all files of all tables that the newest snapshot needs."""
        newest = self.snapshot()
        listed = [self._listed_files(name, newest) for name in TABLES]
        return {Path(path).name for both in listed for files in both for path in files}

    def _listed_files(self, table: str, snapshot: int) -> tuple[list[str], list[str]]:
        """Paths of a table's files of rows, and of those that say which rows are deleted."""
        assert table in TABLES, table
        listed = self.query(
            "select data_file, delete_file"
            f" from ducklake_list_files('lake', '{table}', snapshot_version => {int(snapshot)})"
            " order by data_file"
        )
        data, deletes = (column.drop_null().to_pylist() for column in listed.columns)
        return data, deletes

    def known_replays(self, *, repair: bool = True, revision: int = REVISION) -> pa.ChunkedArray:
        """Ids (16 bytes, in no order) of the replays that an ingest need not read again.

        What is stored is known at any revision, a refusal to the rules that made it alone: one of
        another revision, of TRANSIENT_RULES, or (to an ingest that repairs) for want of repair is
        none. Where one replay lies is known from the rows that say what became of it, never from
        those of its copies.
        """
        open_rules = (*TRANSIENT_RULES, *((NEEDS_REPAIR,) if repair else ()))
        known = self.query(
            f"select unhex({HEX_ID}) from (select game_id from lake.games union"
            " select game_id from lake.removals union"  # what was taken out stays out
            " select replay_id from lake.replays where outcome in ('stored', 'repaired')"
            " or outcome = 'refused' and rev = ? and rule not in (select unnest(?))) as t(game_id)"
            " where game_id is not null",
            [revision, list(open_rules)],
        )
        return known.column(0)

    # --- writing --------------------------------------------------------------------------------

    def commit(self, rows: Rows) -> int:
        """Add rows as one snapshot and return its number; rows that are there already are dropped.

        Queues behind other writers of this machine, and does the whole transaction again where
        SQLite says that it is locked. Raises StoreError when neither ends.
        """
        batch = {name: table_of(name, some) for name, some in rows.items() if some}
        with locked(self.layout), _signals_as_raised():
            # A rebuild may have put another catalog in place, with other snapshots and rows.
            met = self._met.setdefault(catalog_identity(self.layout), nothing_met())
            snapshot, added = self._retried(lambda cursor: insert(cursor, batch, met))
            for name, known in met.items() if added else ():
                known.committed(batch.get(name), snapshot)
        return snapshot

    def add_missing(self, name: str, rows: pa.Table) -> None:
        """Add rows that another catalog had, as they are, each as often as it is missing here."""
        with locked(self.layout), _signals_as_raised():
            self._retried(lambda cursor: insert_missing(cursor, name, rows))

    def compact(self, files_max: int = FILES_MAX) -> list[str]:
        """Merge the small files of tables that have more than `files_max`; returns their names.

        Every snapshot answers as before. Files replaced by an earlier merge go.
        """
        snapshot = self.snapshot()
        merged = [name for name in TABLES if len(self.files(name, snapshot)) > files_max]
        with locked(self.layout), _signals_as_raised():
            self._connection.execute("reset threads")
            for name in merged:
                self._retried(_calling(f"merge_adjacent_files('lake', '{name}')"))
            age = f"cast(now() as timestamp) - interval '{CLEANUP_AGE}'"
            self._retried(_calling(f"cleanup_old_files('lake', older_than => {age})"))
            self._connection.execute("set threads = 1")
        return merged

    def remove_rows(self, game_ids: Sequence[str]) -> int:
        """Take the rows of these games out of all tables but ledger and removals; how many games.

        Snapshots from before still have them, until `expire`.
        """
        wanted = pa.table({"id": pa.array(game_ids, pa.string())})
        names = ("games", "players", "perspectives", "item_counts")

        def work(cursor: duckdb.DuckDBPyConnection) -> int:
            cursor.register("wanted", wanted)
            rows = [
                cursor.execute(
                    f"delete from lake.{name}"
                    " where game_id in (select cast(id as uuid) from wanted)"
                ).fetchall()[0][0]
                for name in names
            ]
            taken = {name: -n for name, n in zip(names, rows, strict=True) if n}
            note = "call lake.set_commit_message('', '', extra_info => ?)"
            cursor.execute(note, [json.dumps(taken)])
            return int(rows[0])

        with locked(self.layout), _signals_as_raised():
            found = self.query(
                f"select 1 from lake.games where {HEX_ID} in (select id from wanted) limit 1",
                wanted=wanted,
            )
            removed = self._retried(work)[1] if len(found) else 0
            newest = self.snapshot()
            for name in names:  # also after a vacuum that was killed between the two
                if self._listed_files(name, newest)[1]:
                    call = f"rewrite_data_files('lake', '{name}', delete_threshold => 0)"
                    self._retried(_calling(call))
        return removed

    def expire(self) -> int:
        """Forget every snapshot but the newest, and delete the files that only those needed."""
        with locked(self.layout), _signals_as_raised():
            newest = self.snapshot()
            old = [n["snapshot"] for n in self.snapshots() if n["snapshot"] < newest]
            versions = ", ".join(map(str, old))
            if old:
                call = f"call ducklake_expire_snapshots('lake', versions => [{versions}])"
                self._retried(lambda cursor: cursor.execute(call))
            # the second: what killed commits have left; with the lock, no other is under way
            for name in ("cleanup_old_files", "delete_orphaned_files"):
                self._retried(_calling(f"{name}('lake', cleanup_all => true)"))
        return len(old)

    def _retried(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[int, T]:
        """Run `work` in a transaction until it commits; the newest snapshot, and what it said."""
        for attempt in range(COMMIT_TRIES):
            with self._connection.cursor() as cursor:
                try:
                    cursor.execute("begin")
                    said = work(cursor)
                    cursor.execute("commit")
                    self._scans.clear()
                    return self.snapshot(), said
                except duckdb.Error as error:
                    _roll_back(cursor)
                    if not any(word in str(error).lower() for word in _TRANSIENT):
                        raise StoreError(f"the catalog refused: {_line(error)}") from error
            time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))  # noqa: S311 (no secret)
        raise StoreError(f"the catalog stayed locked for {COMMIT_TRIES} tries", "run it again")


# --- in a transaction ---------------------------------------------------------------------------


@contextmanager
def _signals_as_raised() -> Iterator[None]:
    """Ctrl-C while DuckDB works goes on as what the signal's handler raised.

    DuckDB ends the query and raises RuntimeError from it, which would look like a fault of ours.
    """
    try:
        yield
    except RuntimeError as error:
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise error.__cause__ from None


def _calling(what: str) -> Callable[[duckdb.DuckDBPyConnection], object]:
    return lambda cursor: cursor.execute(f"call ducklake_{what}")


def _roll_back(cursor: duckdb.DuckDBPyConnection) -> None:
    # A failed COMMIT has already ended the transaction.
    with suppress(duckdb.Error):
        cursor.execute("rollback")


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# --- opening ------------------------------------------------------------------------------------


def extension_path(name: str) -> Path:
    """DuckDB's own signed binary inside an installed wheel: no network, no home folder."""
    spec = find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        hint = "pip install 'meleewm[store]'"
        raise StoreError(f"DuckDB's extension {name} is not installed", hint)
    folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
    return folder / f"{name}.duckdb_extension"


def _opened(layout: Layout, read_only: bool, any_columns: bool) -> duckdb.DuckDBPyConnection:
    is_new = not layout.catalog.exists()
    # asked again: another process may begin this store right now
    if is_new and any(layout.games.glob("*/*.parquet")) and not layout.catalog.exists():
        message = f"{layout.catalog} is gone, though there are game files beside it"
        hint = f"meleewm rebuild --store {layout.root} makes it anew from them"
        raise StoreError(message, hint)
    connection = _create(layout) if is_new else _attach(layout, read_only)
    if not any_columns and _missing_tables(connection):  # its maker was killed
        connection.close()
        connection = _create(layout)
        is_new = True
    missing = [] if any_columns else _missing_columns(connection)
    if missing:
        connection.close()
        message = f"the catalog of {layout.root} is an older one, without {missing[0]}"
        hint = f"meleewm rebuild --store {layout.root} makes it anew from the game files"
        raise StoreError(message, hint)
    if is_new and read_only:
        connection.close()
        connection = _attach(layout, read_only)
    return connection


def _attach(layout: Layout, read_only: bool) -> duckdb.DuckDBPyConnection:
    # A commit is a hundred small statements: a second thread costs them a third more.
    threads = {} if read_only else {"threads": "1"}
    connection = duckdb.connect(config={**SETTINGS, **threads})
    try:
        for name in ("sqlite_scanner", "ducklake"):
            connection.load_extension(str(extension_path(name)))
        # DATA_PATH is given anew each time: the one in the catalog breaks when the store moves,
        # and would tell whoever gets the store in whose home folder it was made.
        paths = [f"{layout.tables.name}/"] * (not layout.catalog.exists())
        for data_path in [*paths, f"{layout.tables.absolute()}/"]:
            connection.execute("detach database if exists lake")
            connection.execute(
                f"attach {quoted(f'ducklake:sqlite:{layout.catalog}')} as lake ("
                f"data_path {quoted(data_path)}, override_data_path true,"
                " meta_journal_mode 'WAL', meta_busy_timeout 30000, data_inlining_row_limit 0"
                f"{', read_only' if read_only else ''})"
            )
    except duckdb.Error as error:
        connection.close()
        raise StoreError(f"{layout.catalog} cannot be opened: {_line(error)}") from error
    return connection


def _missing_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    # not duckdb_tables(): that looks into every table of DuckLake's own as well
    rows = connection.execute("show tables from lake").fetchall()
    return [name for name in TABLES if (name,) not in rows]


def _missing_columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute(
        "select table_name, column_name from information_schema.columns"
        " where table_catalog = 'lake' and table_schema = 'main'"
    ).fetchall()
    names = ((table, field.name) for table, fields in TABLES.items() for field in fields)
    found = set(rows)
    return [f"{table}.{name}" for table, name in names if (table, name) not in found]


def _create(layout: Layout) -> duckdb.DuckDBPyConnection:
    """Make the missing tables, as one snapshot; several processes may do so at once.

    Returns the connection that made them: opening another takes half a second, in which DuckDB
    checks the signatures of its extensions.
    """
    with locked(layout):
        connection = _attach(layout, read_only=False)
        try:
            for option, value in LAYOUT.items():
                connection.execute(f"call lake.set_option('{option}', '{value}')")
            connection.execute("begin")
            for name in _missing_tables(connection):
                columns = ", ".join(f"{field.name} {field.sql}" for field in TABLES[name])
                connection.execute(f"create table lake.{name} ({columns})")
                if name in SORTED_BY:
                    order = ", ".join(SORTED_BY[name])
                    connection.execute(f"alter table lake.{name} set sorted by ({order})")
            connection.execute("commit")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Queue behind other writers: colliding SQLite transactions fail instead of waiting."""
    with layout.catalog.with_suffix(".lock").open("wb") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another process holds {file.name} for {LOCK_WAIT_S:.0f} s"
                    raise StoreError(message, "is an ingest stuck?") from None
                time.sleep(0.01)
        yield  # closing the file, or dying, gives the lock back
