"""SQL over a store: what its tables show, what is refused, and limits that hold."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import LimitError, MeleeError, NotFoundError, QueryError, SqlError
from schemas.records import TABLES
from store import guard, sql, syntax
from store.catalog import Catalog
from store.layout import Layout
from store.sql import FRAME_VIEWS, VIEWS, Limits, SqlPlan, describe, run_guarded, run_sql
from tests.store.makers import make_game, make_store

# Every other game is too old for most leaves; numbers 20 and 21 are recordings of one game.
GAMES = [make_game(n, n_frames=20 + n, version=(3, 14) if n % 2 else (2, 0)) for n in range(12)] + [
    make_game(20),
    make_game(21, natural=20),
]
REMOVED, TWINS = GAMES[0], GAMES[-2:]
SHOWN = [*GAMES[1:-2], min(TWINS, key=lambda game: game.game_id)]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    layout = make_store(tmp_path_factory.mktemp("sql") / "melee", [GAMES[:5], GAMES[5:]])
    with Catalog(layout) as opened:
        removal = {"game_id": REMOVED.game_id, "removed_at": None, "reason": "asked"}
        opened.commit({"removals": [removal]})
        yield opened


@pytest.fixture(scope="module")
def layout(catalog: Catalog) -> Layout:
    return catalog.layout


@pytest.fixture(scope="module")
def plan(catalog: Catalog, layout: Layout) -> SqlPlan:
    return describe(layout, catalog=catalog)


def _rows(catalog: Catalog, text: str, **how: Any) -> list[tuple[object, ...]]:
    table = run_sql(catalog.layout, text, catalog=catalog, **how)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _one(catalog: Catalog, text: str, **how: Any) -> object:
    ((value,),) = _rows(catalog, text, **how)
    return value


# --- what the tables show -----------------------------------------------------------------------


def test_tables_have_their_columns(catalog: Catalog, layout: Layout) -> None:
    for name in VIEWS:
        table = run_sql(layout, f"select * from {name}", catalog=catalog)
        assert table.column_names == [field.name for field in TABLES[name]]


def test_tables_show_one_recording_and_no_removed_game(catalog: Catalog) -> None:
    ids = {game.game_id for game in SHOWN}
    for name in ("games", "players", "perspectives", "item_counts", "frames", "pframes", "items"):
        found = {row[0] for row in _rows(catalog, f"select distinct game_id from {name}")}
        expected = {g.game_id for g in SHOWN if name != "items" or g.rows["games"][0]["version"]
                    == 3_014_000}  # fmt: skip
        assert found == expected, name
    every = {row[0] for row in _rows(catalog, "select game_id from games", recordings="all")}
    assert every == ids | {game.game_id for game in TWINS}
    assert _one(catalog, "select count(*) from replays") == len(GAMES)


def test_old_snapshots_answer(catalog: Catalog) -> None:
    newest = catalog.snapshot()
    assert _one(catalog, "select count(*) from games", snapshot=newest - 1) == len(SHOWN) + 1
    assert _one(catalog, "select count(*) from games", snapshot=newest - 2) == 5
    assert _one(catalog, "select count(*) from frames", snapshot=newest - 2) == sum(range(20, 25))
    assert _one(catalog, "select count(*) from games", snapshot=1) == 0
    assert _one(catalog, "select count(*) from frames", snapshot=1) == 0
    with pytest.raises(NotFoundError):
        run_sql(catalog.layout, "select 1", snapshot=99, catalog=catalog)


def test_old_snapshots_answer_after_a_merge(tmp_path: Path) -> None:
    layout = make_store(tmp_path / "melee", [[game] for game in GAMES[:4]])
    with Catalog(layout) as catalog:
        newest = catalog.snapshot()
        catalog.compact(files_max=2)
        counts = [
            _one(catalog, "select count(*) from perspectives", snapshot=newest - back)
            for back in (0, 1, 2, 3, 4)
        ]
    assert counts == [8, 6, 4, 2, 0]


def test_over_binds_sides_and_games(catalog: Catalog) -> None:
    over = "char = 'fox'"
    sides = [
        (game.game_id, row["side"])
        for game in SHOWN
        for row in game.rows["perspectives"]
        if row["char"] == "fox"
    ]
    assert 0 < len(sides) < 2 * len(SHOWN)
    for name in ("perspectives", "players", "pframes"):
        found = _rows(catalog, f"select distinct game_id, side from {name}", over=over)
        assert sorted(found) == sorted(sides), name
    for name in ("games", "frames"):
        found = _rows(catalog, f"select distinct game_id from {name}", over=over)
        assert {row[0] for row in found} == {game_id for game_id, _ in sides}, name
    ledger = _rows(catalog, "select replay_id from replays", over=over)
    assert {row[0] for row in ledger} == {game_id for game_id, _ in sides}
    assert _one(catalog, "select count(*) from games", over="char='ganon'") == 0
    assert _one(catalog, "select count(*) from pframes", over="char='ganon'") == 0
    with pytest.raises(QueryError, match="fxo"):
        run_sql(catalog.layout, "select 1", over="char='fxo'", catalog=catalog)


def test_frames_of_unlike_versions(catalog: Catalog) -> None:
    text = (
        "select version, count(*), count(p0.percent), count(p0.hitlag), count(items)"
        " from frames join games using (game_id) group by version order by version"
    )
    (old, new) = _rows(catalog, text)
    assert old[1] == old[2]
    assert old[3] == old[4] == 0
    assert new[1] == new[2] == new[3] == new[4]


@pytest.mark.parametrize(
    "text",
    ["select avg(p0.percent) as a, count(*) as n from frames", "select p0 from frames order by all",
     "select count(p0.follower.percent) as n from frames", "select * from pframes order by all",
     "select char, count(follower) as n from pframes group by char order by 1",
     "select count(distinct type) as n from items"],
)  # fmt: skip
def test_like_files_answer_as_unlike_ones(tmp_path: Path, text: str) -> None:
    layout = make_store(tmp_path / "melee", [[make_game(n) for n in range(4)]])
    plan = describe(layout)
    assert run_guarded(replace(plan, alike=True), text) == run_guarded(plan, text)


def test_pframes_are_both_sides_of_frames(catalog: Catalog) -> None:
    text = (
        "select count(*) from pframes a join frames b using (game_id, frame)"
        " where case a.side when 0 then a.percent = b.p0.percent and a.opp_state = b.p1.state"
        " else a.percent = b.p1.percent and a.opp_state = b.p0.state end"
    )
    frames = _one(catalog, "select count(*) from frames")
    assert isinstance(frames, int)
    assert _one(catalog, text) == 2 * frames
    assert _one(catalog, "select count(*) from pframes where port = side + 1") == 2 * frames
    assert _one(catalog, "select count(*) from pframes where follower is not null") == 0


def test_columns_of_one_name_are_all_there(catalog: Catalog) -> None:
    table = run_sql(catalog.layout, "select 1 as a, 2 as a, 3 as a_1, 4 as a", catalog=catalog)
    assert table.to_pylist() == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_values_leave_as_they_are_used_outside(catalog: Catalog) -> None:
    table = run_sql(
        catalog.layout,
        "select game_id, sum(n_frames) as n, sum(n_frames) as n, cast('1' || repeat('0', 30) as"
        " hugeint) as big from games group by 1 order by 1 limit 1",
        catalog=catalog,
    )
    assert table.column_names == ["game_id", "n", "n_1", "big"]
    assert [str(kind) for kind in table.schema.types[:3]] == ["string", "int64", "int64"]
    game_id = table.column(0)[0].as_py()
    assert len(game_id) == 32
    assert _one(catalog, f"select count(*) from games where game_id = '{game_id}'") == 1


@pytest.mark.parametrize(
    "text",
    [
        "with a as (select char, won from perspectives) select count(won) from a group by char",
        "select * exclude (code, opp_code) from perspectives limit 3",
        "select char, row_number() over (partition by char order by n_frames) from perspectives",
        "select unnest(range(3)) as x union all select * from generate_series(1, 3)",
        "select avg(seconds)::decimal(9, 1) from games where seconds > 0.5",
        "select [1.5]::float[], [1, 2]::int[2], row(1)::struct(a int)",
        "describe perspectives",
        "summarize games",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) from n",
        "select list_transform([1, 2], x -> x + 1), {'a': 1}, [1, 2][1], 'a' || 'b' like 'a%'",
        "select count(*) filter (won) from perspectives where stage in (select stage from games)",
        "select strftime(started_at, '%Y'), count(distinct code) from perspectives group by 1;",
    ],
)  # fmt: skip
def test_sql_that_people_write(plan: SqlPlan, text: str) -> None:
    assert len(run_guarded(plan, text)) > 0


# --- what is refused ----------------------------------------------------------------------------

HOSTILE = [
    "select 1; select 2",
    "drop table games",
    "create table x as select 1",
    "insert into games values (1)",
    "copy games to '/tmp/x.csv'",
    "attach '/tmp/x.db'",
    "attach ':memory:' as m",
    "install httpfs",
    "load '/tmp/x'",
    "set threads = 99",
    "reset threads",
    "pragma database_list",
    "call duckdb_settings()",
    "explain select 1",
    "checkpoint",
    "export database '/tmp/x'",
    "prepare q as select 1",
    "show tables",
    "show all tables",
    "from '/etc/passwd'",
    "select * from 'x.parquet'",
    "select * from read_text('/etc/passwd')",
    "select * from read_parquet('/**/*.parquet')",
    "select * from read_csv('/etc/passwd')",
    "select * from sqlite_scan('/x/catalog.sqlite', 'ducklake_table')",
    "select * from glob('/*')",
    "select * from duckdb_settings()",
    "select * from duckdb_views",
    "select * from sqlite_master",
    "select * from information_schema.tables",
    "select * from query('select 1')",
    "select * from query_table('games')",
    "select * from parquet_metadata('x')",
    "select * from main.games",
    "select * from _raw_games",
    "select * from _shown",
    "select * from games at (version => 1)",
    "with _raw_games as (select 1) select * from _raw_games",
    "with duckdb_views as (select 1) select (select count(*) from duckdb_views)",
    "select * from (with pg_class as (select 1) select 1), pg_class",
    'with "a/b.parquet" as (select 1) select * from "a/b.parquet"',
    "select getenv('HOME')",
    "select current_setting('memory_limit')",
    "select getvariable('files')",
    "select write_log('x')",
    "select sleep_ms(100)",
    "select nextval('x')",
    "select current_query()",
    "select stats(1)",
    "select json_execute_serialized_sql('x')",
    "select $1",
    "select ?",
    "",
    ";",
    "select",
    "selct 1",
    "select 1 from nowhere",
    "select nocolumn from games",
    "select 'unclosed",
    "select 1/*",
    "select " + "x" * 70_000,
    "\0",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_sql_is_a_line(plan: SqlPlan, layout: Layout, text: str) -> None:
    with pytest.raises(SqlError) as caught:
        run_guarded(plan, text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert str(layout.root.parent) not in message


def test_errors_name_the_nearest(plan: SqlPlan) -> None:
    with pytest.raises(SqlError, match=r"no table 'perspective' \(nearest: perspectives\)"):
        run_guarded(plan, "select * from perspective")
    with pytest.raises(SqlError, match=r"function getenv is not allowed here \(at character 8\)"):
        run_guarded(plan, "select getenv('x')")
    with pytest.raises(SqlError, match="n_frames"):
        run_guarded(plan, "select nframes from games")


def _without_syntax_check(
    sender: Connection, plan: SqlPlan, statement: str, limits: Limits
) -> None:
    syntax.check = lambda *_: None
    guard.answer(sender, plan, statement, limits)


@pytest.mark.parametrize(
    "statement",
    [
        "select content from read_text('/etc/passwd')",
        "select * from read_csv('{root}/store.json')",
        "select * from read_blob('{root}/catalog.sqlite')",
        "select * from '{root}/games/../store.json'",
        "copy (select 1) to '{root}/games/x.csv'",
        "copy (select 1) to '{root}/x.parquet'",
        "attach '{root}/catalog.sqlite' (type sqlite)",
        "attach '{root}/new.duckdb'",
        "install sqlite",
        "load '{extension}'",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "select * from read_csv('http://127.0.0.1:1/x.csv')",
    ],
)
def test_walls_hold_without_the_syntax_check(plan: SqlPlan, layout: Layout, statement: str) -> None:
    from store.catalog import extension_path

    statement = statement.format(root=layout.root, extension=extension_path("sqlite_scanner"))
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_without_syntax_check, args=(sender, plan, statement, Limits()))
    child.start()
    sender.close()
    answer = receiver.recv_bytes()
    child.join()
    assert answer[:1] == guard.ERROR, answer
    assert not list(layout.root.rglob("x.*"))
    assert not list(layout.root.rglob("new.*"))


def test_the_kernel_closes_files_too(layout: Layout) -> None:
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_read_confined, args=(sender, layout))
    child.start()
    sender.close()
    has_landlock, outcomes = receiver.recv()
    child.join()
    if not has_landlock:
        pytest.skip("this kernel has no Landlock")
    assert outcomes == ["read", "PermissionError", "PermissionError", "PermissionError"]


def _read_confined(sender: Connection, layout: Layout) -> None:
    game = layout.game_path(GAMES[1].game_id)
    has_landlock = guard._confine([layout.games])
    outcomes = []
    for path, mode in ((game, "rb"), (layout.catalog, "rb"), (Path("/etc/passwd"), "rb"),
                       (layout.games / "x", "wb")):  # fmt: skip
        try:
            path.open(mode).close()
            outcomes.append("read")
        except OSError as error:
            outcomes.append(type(error).__name__)
    sender.send((has_landlock, outcomes))


# --- limits -------------------------------------------------------------------------------------

TIGHT = Limits(seconds=3, memory_bytes=256 << 20, rows=1000, result_bytes=1 << 20)


@pytest.mark.parametrize(
    "text",
    [
        "select length(repeat('x', 2000000000))",
        "select repeat('x', 3000000)",
        "select count(*) from range(1000000000000)",
        "select count(*) from range(900000) a, range(900000) b where a.range % 7 > b.range % 5",
        "select list(range) from range(200000000)",
        "select * from range(2000)",
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
        "select max(n) from (select rank() over (order by hash(range)) n from range(99999999))",
    ],
)
def test_limits_hold(plan: SqlPlan, text: str) -> None:
    start = time.monotonic()
    with pytest.raises(LimitError):
        run_guarded(plan, text, TIGHT)
    assert time.monotonic() - start < TIGHT.seconds + 5
    assert not [p for p in multiprocessing.active_children() if p.name.startswith("ForkServer")]


def test_threads_may_ask_at_once(plan: SqlPlan) -> None:
    texts = [f"select {n} as n, count(*) as games from games" for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda text: run_guarded(plan, text), texts))
    assert [table.to_pylist() for table in tables] == [
        [{"n": n, "games": len(SHOWN)}] for n in range(8)
    ]


def test_a_query_leaves_nothing_for_the_next(plan: SqlPlan) -> None:
    for _ in range(2):
        assert run_guarded(plan, "select count(*) as n from games").to_pylist() == [
            {"n": len(SHOWN)}
        ]


def test_a_broken_file_is_an_error_without_paths(tmp_path: Path) -> None:
    game = make_game(1)
    layout = make_store(tmp_path / "melee", [[game]])
    layout.game_path(game.game_id).write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(MeleeError) as caught:
        run_sql(layout, "select count(*) from frames where p0.percent > 1")
    assert str(tmp_path) not in str(caught.value)


def test_views_are_listed() -> None:
    assert set(VIEWS) | set(FRAME_VIEWS) == {
        "games", "players", "perspectives", "item_counts", "replays", "frames", "pframes", "items",
    }  # fmt: skip
    assert sql.Limits is Limits
