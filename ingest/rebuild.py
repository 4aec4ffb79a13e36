"""The catalog made anew from game files alone; and the rows of one game file, checked.

It is built beside the store's own and then put in its place: interrupted, it goes on where it was.
What no game file knows (the ledger, removals of games whose files are gone) is taken over from the
old catalog where that can still be read.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.facts import GameFile, game_rows
from schemas.errors import StoreError, UsageError
from schemas.game import FULL
from schemas.records import TABLES, Rows, arrow_schema
from store.catalog import HEX_ID, Catalog, locked
from store.layout import Layout, names_kept
from store.parquet import read_whole
from store.verify.files import GAME_FILE, on_disk
from store.verify.parallel import DiedError, in_order

FILES_A_PIECE = 32
GAMES_PER_COMMIT = 1_000
Progress = Callable[[int, int], None]
"""(game files done, game files in all)"""


@dataclass
class Rebuilt:
    """What a rebuild did. left: (path relative to the store, why it is not in the catalog)."""

    games: int = 0
    removed: int = 0
    ledger: int = 0
    ledger_lost: str | None = None
    left: list[tuple[str, str]] = field(default_factory=list)
    kept: str | None = None
    snapshot: int = 0


def rebuild(
    layout: Layout, *, force: bool = False, workers: int = 1, progress: Progress | None = None
) -> Rebuilt:
    """Make a store's catalog from its game files; dataset ids stay.

    force: also where there is a catalog that can be read. Snapshots begin anew; the old catalog is
    kept in `catalog.old`. Raises UsageError, StoreError.
    """
    done = Rebuilt()
    old = _Old(layout)
    if old.is_whole and not force:
        message = f"{layout.catalog} is there and can be read: a rebuild would lose its snapshots"
        raise UsageError(message, "--force makes it anew all the same; its ledger is kept")
    beside = _beside(layout)
    with ExitStack() as held:
        with Catalog(beside) as catalog:
            _take_over(old, layout, catalog, done)
            _add_games(layout, catalog, done, workers, progress)
            # Then what others have added meanwhile; now they wait.
            held.enter_context(locked(layout))
            _take_over(old, layout, catalog, done)
            _add_games(layout, catalog, done, workers, None)
            catalog.compact(files_max=1)
            done.snapshot = catalog.snapshot()
        done.kept = _put_in_place(layout, beside)
    return done


def file_rows(path: Path, names: str) -> Rows:
    """The catalog's rows of a game file. Raises StoreError where it is not one, or not this one.

    names: how the store keeps names (store.layout.names_kept).
    """
    found = GAME_FILE.fullmatch(path.name)
    assert found, path
    game_id, rev = found[1], int(found[2])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"it cannot be read: {error.strerror}") from error
    table, footer = read_whole(data)
    if footer.get("rev") != rev:
        raise StoreError(f"its footer says revision {footer.get('rev')}, its name {rev}")
    if table.column_names != FULL.names or not len(table):
        raise StoreError("it has not the columns and frames of a game")
    if footer.get("names", "plain") != names:
        raise StoreError("its names are not kept as the store's are (another key, or none)")
    file = GameFile(game_id, len(data), hashlib.sha256(data).digest(), zlib.crc32(data))
    try:
        return game_rows(table, footer, file)
    except Exception as error:
        # whatever stands in a footer that is not ours
        raise StoreError(f"its footer is not whole: {type(error).__name__}: {error}") from error


def rows_of_files(layout: Layout, paths: list[Path]) -> list[tuple[Path, Rows | str]]:
    """The rows of each file, or why there are none."""
    found: list[tuple[Path, Rows | str]] = []
    names = names_kept(layout)
    for path in paths:
        try:
            found.append((path, file_rows(path, names)))
        except StoreError as error:
            found.append((path, error.message))
    return found


def read_files(
    layout: Layout, paths: list[Path], workers: int
) -> Iterator[tuple[Path, Rows | str]]:
    """The same in worker processes, in order; a file that kills its process costs that file."""
    starts = range(0, len(paths), FILES_A_PIECE)
    pieces = [paths[start : start + FILES_A_PIECE] for start in starts]
    work = partial(rows_of_files, layout)
    for piece, result in in_order(work, pieces, workers):
        if not isinstance(result, DiedError):
            yield from result
            continue
        for (path,), alone in in_order(work, [[path] for path in piece], 1):
            yield (path, str(alone)) if isinstance(alone, DiedError) else alone[0]


def mark_of_removal(path: Path) -> Mapping[str, Any]:
    """The row of `removals` that a .removed file stands for; a damaged mark still removes."""
    said: Mapping[str, Any] = {}
    with suppress(ValueError, OSError):
        told = json.loads(path.read_bytes())
        said = told if isinstance(told, dict) else {}
    removed_at = None
    with suppress(ValueError, TypeError):
        removed_at = datetime.fromisoformat(said["removed_at"]) if "removed_at" in said else None
    reason = said.get("reason")
    return {
        "game_id": path.name.partition(".")[0],
        "removed_at": removed_at,
        "reason": reason if isinstance(reason, str) else None,
    }


# --- the old catalog ----------------------------------------------------------------------------


class _Old:
    """What can be saved from the catalog that is replaced."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.reason: str | None = None
        self.is_whole = False
        if not layout.catalog.exists():
            # a rebuild that was killed while it put the catalogs in place has kept it there
            _keep_rest(layout)
            self.layout = Layout(layout.root / _KEPT)
            self.reason = "there was no catalog"
            return
        try:
            with Catalog(layout, read_only=True) as catalog:
                _read_through(catalog)
            self.is_whole = True
        except StoreError as error:
            self.reason = error.message

    def rows(self, name: str, key: str) -> pa.Table:
        """All rows of a table, as a commit takes them; columns that it lacks are null.

        Raises StoreError.
        """
        with Catalog(self.layout, read_only=True, any_columns=True) as catalog:
            hexed = HEX_ID.replace("game_id", key)
            table = catalog.query(f"select * replace ({hexed} as {key}) from lake.{name}")
        for column in arrow_schema(TABLES[name]):
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table), column.type))
        return table.select([field.name for field in TABLES[name]])


def _take_over(old: _Old, layout: Layout, catalog: Catalog, done: Rebuilt) -> None:
    """Ledger and removals: what game files do not know."""
    marks = [mark_of_removal(path) for path, kind in on_disk(layout) if kind == "removed"]
    removals = {str(mark["game_id"]): mark for mark in marks}
    if old.layout.catalog.exists():
        try:
            told = old.rows("removals", "game_id").to_pylist()
            removals = {row["game_id"]: row for row in told} | removals
            ledger = old.rows("replays", "replay_id")
            catalog.add_missing("replays", ledger)
            done.ledger = len(ledger)
        except StoreError as error:
            done.ledger_lost = error.message
    else:
        done.ledger_lost = old.reason
    already = catalog.query(f"select {HEX_ID} as id from lake.removals").column(0).to_pylist()
    new = [row for game_id, row in sorted(removals.items()) if game_id not in set(already)]
    if new:
        catalog.commit({"removals": new})
    done.removed = len(removals)


# --- game files ---------------------------------------------------------------------------------


def _add_games(
    layout: Layout, catalog: Catalog, done: Rebuilt, workers: int, progress: Progress | None
) -> None:
    paths = [path for path, kind in on_disk(layout) if kind == "game"]
    known = _listed(catalog)  # by a rebuild that was interrupted
    todo = [path for path in paths if path.name not in known]
    done.games, done.left = len(paths) - len(todo), []
    batch: Rows = {}
    for n, (path, rows) in enumerate(read_files(layout, todo, workers), 1):
        if isinstance(rows, str):
            done.left.append((str(path.relative_to(layout.root)), rows))
        else:
            done.games += 1
            for name, some in rows.items():
                batch.setdefault(name, []).extend(some)
        if len(batch.get("games", [])) >= GAMES_PER_COMMIT:
            catalog.commit(batch)
            batch = {}
        if progress:
            progress(len(paths) - len(todo) + n, len(paths))
    if batch:
        catalog.commit(batch)


# --- files of the catalog -----------------------------------------------------------------------

_BESIDE, _KEPT = "rebuilding", "catalog.old"


def _beside(layout: Layout) -> Layout:
    """Where the new catalog is built; one that cannot be opened is begun anew."""
    beside = Layout(layout.root / _BESIDE)
    if beside.catalog.exists():
        try:
            with Catalog(beside, read_only=True) as catalog:
                _read_through(catalog)
                is_fit = all(_size(layout, name) == size for name, size in _listed(catalog).items())
        except StoreError:
            is_fit = False
        if not is_fit:  # damaged, or game files were written again since
            shutil.rmtree(beside.root)
    beside.tables.mkdir(parents=True, exist_ok=True)
    return beside


def _read_through(catalog: Catalog) -> None:
    """Open each file of the catalog. Raises StoreError."""
    for name, fields in TABLES.items():
        catalog.query(f"select count(distinct {fields[0].name}) from lake.{name}")


def _listed(catalog: Catalog) -> dict[str, int]:
    """File name of each game -> its size."""
    rows = catalog.query(f"select {HEX_ID} as game_id, rev, parquet_bytes from lake.games")
    return {f"{r['game_id']}.{r['rev']}.parquet": r["parquet_bytes"] for r in rows.to_pylist()}


def _size(layout: Layout, name: str) -> int | None:
    path = layout.games / name[:2] / name
    return path.stat().st_size if path.exists() else None


def _put_in_place(layout: Layout, beside: Layout) -> str | None:
    """Swap the catalogs, under the store's lock; returns where the old one is kept.

    Killed at any moment, it leaves a store whose catalog is whole, or is gone and kept whole (see
    `_keep_rest`): never one of two halves.
    """
    kept = layout.root / _KEPT
    if layout.catalog.exists():
        if kept.exists():
            shutil.rmtree(kept)
        kept.mkdir()
        layout.catalog.replace(kept / layout.catalog.name)
    _keep_rest(layout)
    if layout.tables.exists():
        shutil.rmtree(layout.tables)  # of a catalog that is gone
    for path in _sqlite_files(layout):
        path.unlink()  # likewise
    beside.tables.replace(layout.tables)
    for path in _sqlite_files(beside):
        path.replace(layout.root / path.name)
    shutil.rmtree(beside.root)
    return _KEPT if kept.exists() else None


def _keep_rest(layout: Layout) -> None:
    """Move what belongs to a kept catalog to it, the tables last."""
    kept = Layout(layout.root / _KEPT)
    if kept.catalog.exists() and not kept.tables.exists():
        for path in (*_sqlite_files(layout), layout.tables):
            if path.exists():
                path.replace(kept.root / path.name)


def _sqlite_files(layout: Layout) -> list[Path]:
    """The write-ahead log before the file that it belongs to."""
    found = layout.catalog.parent.glob(f"{layout.catalog.name}*")
    return sorted(found, key=lambda path: -len(path.name))
