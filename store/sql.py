"""SQL over a store: the tables that a query sees, and the process that runs it.

The catalog is asked here, once: which parquet files hold the snapshot. The query itself runs in a
process of its own (store.guard) that knows nothing but these files.
"""

import json
import multiprocessing
import re
import time
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import FRAME, ITEM, PLAYER, STAGE
from schemas.errors import FailureError, LimitError, MeleeError, SqlError
from schemas.game import FULL
from schemas.records import TABLES
from schemas.shard import MEMBERS, Request
from store.catalog import Catalog
from store.guard import ERROR, Limits, SqlPlan, answer
from store.layout import Layout
from store.select import live_games, rewrites, select

__all__ = ["FRAME_VIEWS", "VIEWS", "Limits", "SqlPlan", "describe", "run_guarded", "run_sql"]

ALIKE_FROM = 256
"""Below so many game files of one leaf set, to scan them without the anchor saves less than it
takes to see whether the answer would be the same."""
_START_S = 10.0  # a loaded machine may take that long to fork


# --- views --------------------------------------------------------------------------------------

_BOUND_BY_FILE = "select * from _raw_{0} semi join _shown using (game_id, rev, rewrite)"
_BOUND_BY_GAME = "select * from _raw_{0} semi join _shown using (game_id, rev)"
_BOUND_BY_SIDE = "select * from _raw_{0} semi join _shown_sides using (game_id, rev, side)"
_BOUND_BY_BOTH = "select * from _raw_{0} semi join _shown_sides using (game_id, rev, rewrite, side)"
_LEDGER_OF_GAMES = (
    "select * from _raw_replays semi join"
    " (select game_id as replay_id from _shown) using (replay_id)"
)

VIEWS: dict[str, tuple[str, str]] = {
    "games": (_BOUND_BY_FILE, _BOUND_BY_FILE),
    "players": (_BOUND_BY_GAME, _BOUND_BY_SIDE),
    "perspectives": (_BOUND_BY_FILE, _BOUND_BY_BOTH),
    "item_counts": (_BOUND_BY_GAME, _BOUND_BY_SIDE),
    "replays": ("select * from _raw_replays", _LEDGER_OF_GAMES),
}
"""Catalog tables as SQL sees them: (over everything, over a query)."""


def _frame_view(files: str) -> str:
    """One row a frame of the files in a variable; the anchor stands first and types the rest."""
    columns = ", ".join(FULL.names)
    scan = f"read_parquet(getvariable('{files}'), filename = true)"
    return f"select {_ID_OF_FILE} as game_id, {columns} from {scan}"


_REV_OF_FILE = "cast(split_part(parse_filename(filename), '.', 2) as integer)"
_ID_OF_FILE = "cast(left(parse_filename(filename), 32) as uuid)"


def _side_view(side: int) -> str:
    """One row a frame of one side: own columns plain, the other side's `opp_...`.

    Characters and the stage's name come from `perspectives`; the stage's own columns stand plain.
    """
    own, other = f"p{side}", f"p{1 - side}"
    frame = [column.name for column in FRAME if column.name != "random_seed"]
    players = [
        f"{prefix}{_player_column(who, column.name)} as {alias}{column.name}"
        for prefix, who, alias in (("", own, ""), ("", other, "opp_"))
        for column in PLAYER
    ]
    followers = [f"{own}.follower as follower", f"{other}.follower as opp_follower"]
    on_stage = [f"stage.{column.name} as {column.name}" for column in STAGE]
    columns = ", ".join([*frame, *players, *followers, *on_stage])
    scan = f"read_parquet(getvariable('files_{side}'), filename = true)"
    rows = f"select {_ID_OF_FILE} as game_id, {_REV_OF_FILE} as rev, {columns} from {scan}"
    names = "game_id, rev, side, char, opp_char, stage"
    # rewrite 0: a game file written again has the same facts in another row
    sides = f"select {names} from _raw_perspectives where side = {side} and rewrite = 0"
    return f"select * exclude (rev) from ({sides}) join ({rows}) using (game_id, rev)"


def _player_column(who: str, name: str) -> str:
    # A player's seed is null where it equals the frame's.
    return f"coalesce({who}.random_seed, random_seed)" if name == "random_seed" else f"{who}.{name}"


def _items_view() -> str:
    columns = ", ".join(f"item.{column.name} as {column.name}" for column in ITEM)
    unnested = f"select game_id, frame, unnest(items) as item from ({_frame_view('files')})"
    return f"select game_id, frame, {columns} from ({unnested})"


FRAME_VIEWS: dict[str, str] = {
    "frames": _frame_view("files"),
    "pframes": f"{_side_view(0)} union all {_side_view(1)}",
    "items": _items_view(),
}
"""Frame-level views over the game files."""


def describe(
    layout: Layout,
    *,
    over: str | None = None,
    snapshot: int | None = None,
    recordings: str = "one",
    frames: bool = True,
    catalog: Catalog | None = None,
) -> SqlPlan:
    """What SQL sees of a store at a snapshot, all of it or bound to a query.

    frames: also list the game files for the frame-level views. Raises QueryError, NotFoundError.
    """
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return describe(
                layout, over=over, snapshot=snapshot, recordings=recordings, frames=frames,
                catalog=opened,
            )  # fmt: skip
    snapshot = catalog.check_snapshot(snapshot)
    views = [(f"_raw_{name}", f"from {catalog.at(name, snapshot)}") for name in TABLES]
    is_bound = over is not None
    members = MEMBERS.empty_table()
    if is_bound or frames:
        request = Request(query=over, snapshot=snapshot, recordings=recordings)
        members = select(layout, request, catalog=catalog).table
    live = live_games("_raw_games", "_raw_removals", recordings)
    of_query = "select distinct game_id, rev, rewrite from _shown_sides"
    views.append(("_shown", of_query if is_bound else live))
    views += [(name, texts[is_bound].format(name)) for name, texts in VIEWS.items()]
    return SqlPlan(
        root=layout.root,
        anchor=layout.anchor.absolute(),
        readable=(layout.games.absolute(), layout.tables.absolute()),
        views=(*views, *FRAME_VIEWS.items()),
        shown=_sides(members, rewrites(catalog, snapshot)) if is_bound else None,
        files=_game_files(layout, members),
        alike=len(members) >= ALIKE_FROM and _are_alike(members),
    )


def _are_alike(members: pa.Table) -> bool:
    return bool(pc.count_distinct(members.column("leaf_set")).as_py() == 1)


def _sides(members: pa.Table, rewritten: dict[tuple[str, int], int]) -> pa.Table:
    """One row a game and side, with the newest rewrite of the game's file."""
    parents = pc.list_parent_indices(members.column("sides").combine_chunks())
    games = members.select(["game_id", "rev"])
    numbers = np.zeros(len(games), np.int32)
    if rewritten:
        keys = zip(*(games.column(name).to_pylist() for name in games.column_names), strict=True)
        numbers[:] = [rewritten.get(key, 0) for key in keys]
    games = games.append_column("rewrite", pa.array(numbers)).take(parents)
    return games.append_column("side", pc.list_flatten(members.column("sides")))


def _game_files(layout: Layout, members: pa.Table) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {"files": [], "files_0": [], "files_1": []}
    columns = (members.column(name).to_pylist() for name in ("game_id", "rev", "sides"))
    for game_id, rev, sides in zip(*columns, strict=True):
        path = str(layout.game_path(game_id, rev).absolute())
        files["files"].append(path)
        for side in sides:
            files[f"files_{side}"].append(path)
    return files


# --- running ------------------------------------------------------------------------------------


def run_sql(
    layout: Layout,
    sql: str,
    *,
    over: str | None = None,
    snapshot: int | None = None,
    recordings: str = "one",
    limits: Limits | None = None,
    catalog: Catalog | None = None,
) -> pa.Table:
    """Answer one SELECT over a store; see `describe` and `run_guarded`."""
    frames = bool(set(re.findall(r"[a-z_]+", sql.lower())) & set(FRAME_VIEWS))
    plan = describe(
        layout, over=over, snapshot=snapshot, recordings=recordings, frames=frames, catalog=catalog
    )
    return run_guarded(plan, sql, limits or Limits())


def run_guarded(plan: SqlPlan, sql: str, limits: Limits | None = None) -> pa.Table:
    """Run one SELECT in a process of its own and return its rows.

    Raises SqlError for what is refused or wrong, LimitError for what takes too much time, memory or
    room. The process is gone when this returns.
    """
    limits = limits or Limits()
    context = multiprocessing.get_context("forkserver")
    # `__main__` too: else every process would import the program's main module again.
    context.set_forkserver_preload(["__main__", "store.guard"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, plan, sql, limits), daemon=True)
    process.start()
    sender.close()
    try:
        message = _received(receiver, limits)
    finally:
        process.kill()
        process.join()
        receiver.close()
    if message[:1] == ERROR:
        raise _error(json.loads(message[1:]))
    return pa.ipc.open_stream(message[1:]).read_all()


def _received(receiver: Connection, limits: Limits) -> bytes:
    """The child's one message, within the time."""
    deadline = time.monotonic() + limits.seconds
    try:
        if receiver.poll(max(deadline - time.monotonic(), 0)):
            return receiver.recv_bytes(2 * limits.result_bytes + 65_536)
    except (EOFError, OSError):
        # Killed by a limit of the kernel: memory that DuckDB does not count, or processor time.
        raise LimitError("the query ran into its limit of memory or processor time") from None
    raise LimitError(f"the query takes longer than {limits.seconds:g} s", "select fewer games")


def _error(fields: dict[str, str]) -> MeleeError:
    kinds: dict[str, type[MeleeError]] = {"SqlError": SqlError, "LimitError": LimitError}
    kind = kinds.get(fields["class"], FailureError)
    return kind(fields["message"], fields.get("hint", ""))
