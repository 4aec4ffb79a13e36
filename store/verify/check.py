"""The whole check of a store: files in worker processes, then disk, catalog and columns."""

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

from schemas.errors import StoreError
from schemas.game import FULL
from store.catalog import HEX_ID, Catalog
from store.layout import Layout
from store.parquet import leaf_set, read_game
from store.verify.columns import GAMES_MIN, VALUES_MIN, Columns
from store.verify.files import FILE_COLUMNS, check_file, check_size, on_disk
from store.verify.findings import Finding
from store.verify.parallel import DiedError, in_order
from store.verify.rows import contradictions, silent_columns, unknown_names

FILES_A_PIECE = 64
"""Game files that a worker process checks at a time: a third of a second."""

Progress = Callable[[int, int], None]
"""(games done, games in all)"""


def verify(
    layout: Layout,
    *,
    quick: bool = False,
    workers: int = 0,
    games_min: int = GAMES_MIN,
    values_min: int = VALUES_MIN,
    catalog: Catalog | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Compare a store's game files and tables with each other; see store.verify.findings.

    quick: only look whether each file is there, with its size. workers: processes that read files,
    0 for this one. games_min, values_min: fewer of a version say nothing about its columns.
    """
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return verify(
                layout, quick=quick, workers=workers, games_min=games_min, values_min=values_min,
                catalog=opened, progress=progress,
            )  # fmt: skip
    findings, seen = _files_and_disk(layout, catalog, quick, workers, progress)
    wrong = list(contradictions(catalog))
    findings += wrong
    if not quick:
        findings += seen.findings(games_min, values_min)
        if not wrong:  # else a table may not be readable
            findings += unknown_names(catalog)
            findings += silent_columns(catalog, games_min)
    return findings


def verify_files(
    layout: Layout,
    catalog: Catalog,
    *,
    quick: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[Finding]:
    """The part of `verify` that is about files alone."""
    return _files_and_disk(layout, catalog, quick, workers, progress)[0]


def _files_and_disk(
    layout: Layout, catalog: Catalog, quick: bool, workers: int, progress: Progress | None
) -> tuple[list[Finding], Columns]:
    files = newest_files(catalog)
    removed = set(
        catalog.query(f"select distinct {HEX_ID} as id from lake.removals")[0].to_pylist()
    )
    findings: list[Finding] = []
    seen = Columns()
    check = partial(_check_sizes if quick else _check_files, layout)
    done = 0
    workers = 0 if quick or len(files) <= FILES_A_PIECE else workers  # not worth a start
    for piece, result in in_order(check, _pieces(files), workers):
        if isinstance(result, DiedError):
            findings += _died(layout, piece, result)
        else:
            found, columns = result
            # `vacuum` takes the files of removed games
            findings += [f for f in found if f.kind != "missing" or f.game_id not in removed]
            seen.add(columns)
        done += len(piece)
        if progress:
            progress(done, len(files))
    findings += _anchor(layout)
    findings += _disk(layout, files, removed)
    return findings, seen


def newest_files(catalog: Catalog) -> pa.Table:
    """A row for every game file: game_id (hex), FILE_COLUMNS; of rewrites the last one."""
    return catalog.query(
        f"select {HEX_ID} as game_id, {FILE_COLUMNS} from lake.games"
        " anti join (select game_id, rev, unnest(range(max(rewrite))) as rewrite from lake.games"
        "   where rewrite > 0 group by all) using (game_id, rev, rewrite)"
        " order by game_id, rev"
    )


def _pieces(files: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(files), FILES_A_PIECE):
        yield files.slice(start, FILES_A_PIECE)


def _check_files(layout: Layout, rows: pa.Table) -> tuple[list[Finding], Columns]:
    seen = Columns()
    return [f for row in rows.to_pylist() for f in check_file(layout, row, seen)], seen


def _check_sizes(layout: Layout, rows: pa.Table) -> tuple[list[Finding], Columns]:
    return [f for row in rows.to_pylist() for f in check_size(layout, row)], Columns()


def _died(layout: Layout, piece: pa.Table, died: DiedError) -> Iterator[Finding]:
    """A process died over one of some files: which one is found by asking for each alone."""
    singles = (piece.slice(n, 1) for n in range(len(piece)))
    for single, result in in_order(partial(_check_files, layout), singles, 1):
        (row,) = single.select(["game_id", "rev"]).to_pylist()
        if isinstance(result, DiedError):
            path = layout.game_path(row["game_id"], row["rev"])
            where = str(path.relative_to(layout.root))
            yield Finding("unreadable", where, str(died), row["game_id"])
        else:
            yield from result[0]


def _anchor(layout: Layout) -> Iterator[Finding]:
    where = layout.anchor.name
    if not layout.anchor.exists():
        yield Finding("missing", where, "SQL over frames needs it; meleewm repair writes it anew")
        return
    try:
        whole = leaf_set(read_game(layout.anchor).schema) == leaf_set(FULL)
        detail = "its leaves are not those of this version"
    except StoreError as error:
        whole, detail = False, error.message
    if not whole:
        yield Finding("unreadable", where, f"{detail}; meleewm repair writes it anew")


def _disk(layout: Layout, files: pa.Table, removed: set[str]) -> Iterator[Finding]:
    """Files that no row names, and removals without their mark."""
    names = zip(*(files.column(name).to_pylist() for name in ("game_id", "rev")), strict=True)
    expected = {f"{game_id}.{rev}.parquet" for game_id, rev in names}
    marked = set()
    for path, kind in on_disk(layout):
        where, game_id = str(path.relative_to(layout.root)), path.name.partition(".")[0]
        if kind == "game" and path.name not in expected:
            detail = "no row of the catalog names it: an ingest runs, or was interrupted"
            yield Finding("orphan", where, detail, game_id)
        elif kind == "part":
            yield Finding(kind, where, "never finished: an ingest runs, or was killed")
        elif kind == "stranger":
            yield Finding(kind, where, "none of ours: it is left alone")
        elif kind == "removed":
            marked.add(game_id)
    for game_id in sorted(removed - marked):
        where = str(layout.removed_path(game_id).relative_to(layout.root))
        yield Finding(
            "removal", where, "a removed game without it comes back by a rebuild", game_id
        )
    for game_id in sorted(marked - removed):
        where = str(layout.removed_path(game_id).relative_to(layout.root))
        yield Finding("removed", where, "no removal of the catalog says so", game_id)
