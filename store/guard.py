"""The inside of a query process: one SQL statement under limits that hold whatever DuckDB does.

Started by store.sql, one process a query. It loads no DuckDB extension (sqlite_scan ignores
DuckDB's own sandbox), sees only the store's data files where the kernel has Landlock, and answers
in bytes that need no unpickling: the other end does not trust it.
"""

import ctypes
import decimal  # noqa: F401 (DuckDB and Arrow import these late, when no file can be opened)
import json
import os
import re
import resource
import signal
import uuid  # noqa: F401
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import FailureError, LimitError, MeleeError, SqlError
from schemas.filters import quoted
from store import syntax
from store.catalog import SETTINGS

TABLE, ERROR = b"T", b"E"
_SLACK_BYTES = 768 << 20  # address space for thread stacks and allocator arenas, and the result
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Limits:
    """What one query may use; beyond it, it ends with a LimitError."""

    seconds: float = 30.0
    memory_bytes: int = 1 << 30
    rows: int = 1_000_000
    result_bytes: int = 256 << 20
    threads: int = 2


@dataclass(frozen=True)
class SqlPlan:
    """What a query sees; made by store.sql.describe.

    root: the store's folder. views: (name, SQL) in the order of making. shown: what `over` or the
    frame-level views are bound to, as a table of game_id, rev, side; None where nothing is bound.
    files: game files of each side that is shown, and of both; alike: all have the same leaves.
    """

    root: Path
    anchor: Path
    readable: tuple[Path, ...]
    views: tuple[tuple[str, str], ...]
    shown: pa.Table | None
    files: dict[str, list[str]]
    alike: bool = False


def answer(sender: Connection, plan: SqlPlan, sql: str, limits: Limits) -> None:
    """Run one query and send TABLE + Arrow stream, or ERROR + JSON."""
    try:
        _limit(limits)
        message = TABLE + _table_bytes(_run(plan, sql, limits), limits)
    except MeleeError as error:
        message = _error_bytes(error)
    except MemoryError:
        message = _error_bytes(LimitError(_MEMORY))
    except Exception as error:  # noqa: BLE001 (the border of a process: nothing of it gets lost)
        text = _readable(f"{type(error).__name__}: {error}", plan.root)
        message = _error_bytes(FailureError(f"the query process failed: {text}"))
    sender.send_bytes(message)


def _error_bytes(error: MeleeError) -> bytes:
    return ERROR + json.dumps({"class": type(error).__name__, **error.as_dict()}).encode()


_MEMORY = "the query needs more memory than it may use"


# --- walls around the process -------------------------------------------------------------------


def _limit(limits: Limits) -> None:
    """Limits of the kernel: DuckDB's own ones are exceeded by a single long string."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.exists() else 0
    space = pages * resource.getpagesize() + limits.memory_bytes + _SLACK_BYTES
    caps = {
        resource.RLIMIT_AS: space,
        resource.RLIMIT_CPU: int(limits.seconds * limits.threads) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for name, cap in caps.items():
        resource.setrlimit(name, (cap, cap))
    # Should nobody be left to kill it, the process ends by itself.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.seconds + 1)


# Landlock: numbers are the same on every architecture; linux/landlock.h.
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NO_NEW_PRIVILEGES = 38
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> number of file system rights


def _confine(readable: Sequence[Path]) -> bool:
    """Let this process read these paths only, write nothing, connect nowhere; False without it."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << max(n for abi, n in _RIGHTS_OF_ABI.items() if abi <= version)) - 1
    network = 3 if version >= 4 else 0  # bind and connect of TCP
    handled = (ctypes.c_uint64 * 2)(rights, network)
    ruleset = libc.syscall(_CREATE, handled, 16 if version >= 4 else 8, 0)
    for path in readable:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = access.to_bytes(8, "little") + target.to_bytes(4, "little")
        libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
        os.close(target)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    failed = libc.syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return not failed


# --- the query ----------------------------------------------------------------------------------


def _run(plan: SqlPlan, sql: str, limits: Limits) -> pa.Table:
    connection = _connection(limits)
    _confine([*plan.readable, plan.anchor])
    connection.execute(f"set threads = {limits.threads}")
    try:
        public = {name for name, _ in plan.views if not name.startswith("_")}
        syntax.check(connection, sql, public)
        _open_views(connection, plan, sql)
        return _fetched(connection, sql, limits)
    except duckdb.OutOfMemoryException as error:
        raise LimitError(_MEMORY) from error
    except duckdb.Error as error:
        raise SqlError(_readable(str(error), plan.root)) from error


def _connection(limits: Limits) -> duckdb.DuckDBPyConnection:
    # DuckDB looks at the machine's control groups when it opens, so it opens before the walls are
    # up; with one thread, since Landlock binds threads that are started later only.
    config = {
        **SETTINGS,
        "threads": "1",
        "memory_limit": f"{limits.memory_bytes}B",
        "temp_directory": "",
    }
    return duckdb.connect(config=dict(config))


def _open_views(connection: duckdb.DuckDBPyConnection, plan: SqlPlan, sql: str) -> None:
    """Make the views that the text can name, then close every door behind them."""
    if plan.shown is not None:
        connection.register("_given", plan.shown)
        connection.execute(
            "create table _shown_sides as"
            " select cast(game_id as uuid) as game_id, rev, rewrite, side from _given"
        )
        connection.unregister("_given")
    words = set(re.findall(r"[a-z_]+", sql.lower()))
    wanted = [(n, text) for n, text in plan.views if n.startswith("_") or n in words]
    _list_files(connection, plan, [str(plan.anchor)], wanted)
    if plan.alike and plan.files["files"] and any("getvariable" in text for _, text in wanted):
        _scan_plainly(connection, plan, sql, wanted)
    folders = ", ".join(quoted(str(path)) for path in plan.readable)
    connection.execute(f"set allowed_directories = [{folders}]")
    connection.execute(f"set allowed_paths = [{quoted(str(plan.anchor))}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _list_files(
    connection: duckdb.DuckDBPyConnection,
    plan: SqlPlan,
    first: list[str],
    views: Sequence[tuple[str, str]],
) -> None:
    for name, files in plan.files.items():
        connection.execute(f"set variable {name} = ?", [first + files])
    for name, text in views:
        connection.execute(f"create or replace view {name} as {text}")


def _scan_plainly(
    connection: duckdb.DuckDBPyConnection,
    plan: SqlPlan,
    sql: str,
    views: Sequence[tuple[str, str]],
) -> None:
    """Scan like files without the anchor, four times as fast, where the answer is the same.

    That is: no leaf is named that they lack, and no whole struct is asked for.
    """
    over_files = [(name, text) for name, text in views if "getvariable" in text]
    try:
        expected = connection.execute(f"describe {sql}").fetchall()
        _list_files(connection, plan, [], over_files)
        if connection.execute(f"describe {sql}").fetchall() == expected:
            return
    except duckdb.Error:
        pass  # said, if it is the query's fault, when it runs over the anchor
    _list_files(connection, plan, [str(plan.anchor)], over_files)


def _fetched(connection: duckdb.DuckDBPyConnection, sql: str, limits: Limits) -> pa.Table:
    cursor = connection.execute(sql)
    types = [str(column[1]) for column in cursor.description or []]
    batches, n_rows, n_bytes = [], 0, 0
    reader = cursor.to_arrow_reader(_BATCH_ROWS)
    for batch in reader:
        n_rows += batch.num_rows
        n_bytes += batch.nbytes
        if n_rows > limits.rows:
            raise LimitError(f"the result has more than {limits.rows} rows", "add a LIMIT")
        if n_bytes > limits.result_bytes:
            raise LimitError(
                f"the result is larger than {limits.result_bytes} bytes", "add a LIMIT"
            )
        batches.append(batch)
    table = pa.Table.from_batches(batches, reader.schema)
    columns = [_outside(*pair) for pair in zip(table.columns, types, strict=True)]
    return pa.table(columns, names=_unique(table.column_names))


def _unique(names: Sequence[str]) -> list[str]:
    """`char, char` -> `char, char_1`: two columns of one name would be one in JSON and parquet."""
    taken, given = set(names), dict[str, None]()
    for name in names:
        free, n = name, 1
        while free in given or (free != name and free in taken):
            free, n = f"{name}_{n}", n + 1
        given[free] = None
    return list(given)


def _outside(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A column as it leaves: ids as 32 hex digits, sums as 64-bit integers where they fit."""
    if kind == "UUID":
        return pc.replace_substring(column, "-", "")
    if kind == "HUGEINT":
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column
    return column


def _table_bytes(table: pa.Table, limits: Limits) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    if sink.tell() > 2 * limits.result_bytes:
        raise LimitError(f"the result is larger than {limits.result_bytes} bytes", "add a LIMIT")
    return bytes(sink.getvalue())


def _readable(message: str, root: Path) -> str:
    """DuckDB's message as one line, without a path of this machine."""
    text = message.partition("\nLINE 1:")[0]
    text = " ".join(text.replace(str(root), "").split())
    text = re.sub(r"/[\w.+-]+(?:/[\w.+-]+)+", "…", text)
    return re.sub(r"^\w+ Error: ", "", text)[:500]
