"""The query language: what it says, what it refuses, and that DuckDB would say the same."""

import itertools
import random
from collections.abc import Iterator
from datetime import datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import filters
from schemas.errors import QueryError, UnknownNameError
from schemas.filters import Filter
from schemas.query import MAX_CHARS, MAX_DEPTH, canonical, parse, to_sql
from tests.strategies import QUERY_COLUMNS, queries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "true"),
        ("  ", "true"),
        ("char='fox'", "char = 'fox'"),
        ("'FOX' == CHAR", "char = 'fox'"),
        ("character in ('Fox', 'fox')", "char = 'fox'"),
        ("opponent != 'falcon'", "opp_char <> 'captain_falcon'"),
        ("stage in ('fd', 'bf', 'fd')", "stage in ('battlefield', 'final_destination')"),
        ("3600 < n_frames", "n_frames > 3600"),
        ("n_frames >= 007.50", "n_frames >= 7.5"),
        ("opp_char <> char", "char <> opp_char"),
        ("stocks_taken > stocks_lost", "stocks_lost < stocks_taken"),
        ("not won", "won = false"),
        ("won <> true", "won = false"),
        ("not not (won and (is_pal and won))", "is_pal = true and won = true"),
        ("not n_frames < 5", "n_frames >= 5"),
        ("not stage not in ('fd','bf')", "stage in ('battlefield', 'final_destination')"),
        ("won or char='fox' or (won or true)", "true"),
        ("false or won", "won = true"),
        ("version >= 3.10", "version >= '3.10.0'"),
        ("version = '3.9'", "version = '3.9.0'"),
        ("date < '2024'", "date < '2024-01-01 00:00:00'"),
        ("date <= '2024'", "date < '2025-01-01 00:00:00'"),
        ("date = '2024-12'", "date < '2025-01-01 00:00:00' and date >= '2024-12-01 00:00:00'"),
        ("date <> '2024-02-29'", "date < '2024-02-29 00:00:00' or date >= '2024-03-01 00:00:00'"),
        ("'2024-02-28' < date", "date >= '2024-02-29 00:00:00'"),
        ("date > '2024-01-01 10:30'", "date >= '2024-01-01 10:31:00'"),
        ("date = '2024-01-01 10:30:00'", "date = '2024-01-01 10:30:00'"),
        (
            "date between '2024-01-01' and '2024-01-02'",
            "date < '2024-01-03 00:00:00' and date >= '2024-01-01 00:00:00'",
        ),
        (
            "date in ('2024-01-01 00:00:01', '2024-01-01')",
            (
                "date < '2024-01-02 00:00:00' and date >= '2024-01-01 00:00:00' or "
                "date = '2024-01-01 00:00:01'"
            ),
        ),
        ("code = 'fox＃123'", "code = 'FOX#123'"),
        ("tag = 'O''Neill'", "tag = 'O''Neill'"),
        ("rank is not null", "rank is not null"),
        ("opp_rank = 'Gold'", "opp_rank = 'gold'"),
        ("code not like 'A%'", "code not like 'A%'"),
        ("code like 'fox＃%'", "code like 'FOX#%'"),
        ("opp_code like 'ｆｏｘ#1_'", "opp_code like 'FOX#1_'"),
        ("tag like 'Ａb%'", "tag like 'Ab%'"),
        ("char like 'Fo%'", "char like 'fo%'"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical(parse(text)) == expected
    assert parse(expected) == parse(text)


def test_precedence() -> None:
    text = "won or is_pal and not repaired"
    assert canonical(parse(text)) == "is_pal = true and repaired = false or won = true"
    text = "(won or is_pal) and repaired"
    assert canonical(parse(text)) == "(is_pal = true or won = true) and repaired = true"
    assert canonical(parse("not (won or is_pal)")) == "not (is_pal = true or won = true)"


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("rank = 'golden'", 7, "unknown rank 'golden' (nearest: gold)"),
        ("char='fxo'", 5, "unknown character 'fxo' (nearest: fox)"),
        ("chr='fox'", 0, "unknown column 'chr' (nearest: char)"),
        ("stage = 'fox'", 8, "unknown stage"),
        ("mode = 'rankd'", 7, "nearest: ranked"),
        ("1=1; drop table games", 3, "unexpected ';'"),
        ("1=1", 2, "expected a column"),
        ("char='fox' and (select 1)", 16, "'select' at character 17"),
        ("char='fox' order by 1", 11, "found 'order'"),
        ("char='fox') or (1=1", 10, "found ')'"),
        ("true union select 1", 5, "found 'union'"),
        ("lower(char) = 'fox'", 0, "'lower'"),
        ("games.char = 'fox'", 5, "unexpected '.'"),
        ('char = "fox"', 7, "single quotes"),
        ("char = 'fox", 7, "quote"),
        ("char = 'fo\0x'", 7, "unexpected"),
        ("char = null", 7, "is null"),
        ("char < 'fox'", 7, "no order"),
        ("char between 'a' and 'b'", 13, "no order"),
        ("tag < char", 6, "no order"),
        ("char = 5", 7, "cannot be compared with '5'"),
        ("n_frames = '5'", 11, "cannot be compared with '5'"),
        ("won = 1", 6, "cannot be compared"),
        ("char = n_frames", 7, "types differ"),
        ("n_frames like '5'", 14, "like is for text"),
        ("n_frames > 1e999", 11, "unexpected"),
        ("n_frames > 1234567890123456789", 11, "digits"),
        ("n_frames > 1.2.3", 11, "no number"),
        ("n_frames", 8, "expected a comparison"),
        ("version > 'three'", 10, "no version"),
        ("date = '2023-02-30'", 7, "no date"),
        ("date = '9999-12-31'", 7, "too late"),
        ("month = '2023-13'", 8, "no month"),
        ("game_id = 'abc'", 10, "no game id"),
        ("stage in ()", 10, "expected a value"),
        ("stage in (select 1)", 10, "expected a value"),
        ("char is 'fox'", 8, "expected 'null'"),
        ("won and", 7, "the query ends"),
        ("(won", 4, "expected ')'"),
        ("won -- comment", 4, "unexpected '-'"),
    ],
)
def test_refused(text: str, position: int, words: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert caught.value.position == position
    assert "\n" not in str(caught.value)


def test_caps() -> None:
    parse("(" * (MAX_DEPTH - 1) + "won" + ")" * (MAX_DEPTH - 1))
    for text in ("(" * MAX_DEPTH + "won" + ")" * MAX_DEPTH, "not " * MAX_DEPTH + "won"):
        with pytest.raises(QueryError, match="levels"):
            parse(text)
    with pytest.raises(QueryError, match="longer"):
        parse("won or " * MAX_CHARS + "won")
    terms = " or ".join(f"stage='fd'and n_frames={n}" for n in range(140))
    with pytest.raises(QueryError, match="written out"):
        parse(terms)


def test_versions_sort_as_versions() -> None:
    where, values = to_sql(parse("version > '3.9' and version < '3.10'"))
    assert where == "version < ? and version > ?"
    assert values == [3_010_000, 3_009_000]


def test_sql_holds_no_text_of_the_user() -> None:
    where, values = to_sql(parse("tag in ('; drop table x', 'b') and date = '2023-04-01'"))
    assert where == "started_at < ? and started_at >= ? and tag in (?, ?)"
    assert values == [datetime(2023, 4, 2), datetime(2023, 4, 1), "; drop table x", "b"]


def test_one_more_row_works_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Filter("seed", "random_seed % 10", "integer", "last digit of the seed", None, ("dice",))
    monkeypatch.setitem(filters.FILTERS, "seed", row)
    query = parse("dice in (3, 1) and seed < stocks_left")
    assert canonical(query) == "seed < stocks_left and seed in (1, 3)"
    assert to_sql(query) == (
        "random_seed % 10 < stocks_left and random_seed % 10 in (?, ?)",
        [1, 3],
    )
    with pytest.raises(UnknownNameError, match="nearest: seed"):
        parse("sead = 3")


def test_every_filter_names_real_columns() -> None:
    from schemas.records import PERSPECTIVES

    con = duckdb.connect()
    con.execute(f"create table p ({', '.join(f'{f.name} {f.sql}' for f in PERSPECTIVES)})")
    for row in filters.FILTERS.values():
        con.execute(f"select {row.sql} from p")
        assert parse(f"{row.name} is null")
    every = [name for row in filters.FILTERS.values() for name in (row.name, *row.aliases)]
    assert len(every) == len(set(every))


@pytest.fixture(scope="module")
def table() -> Iterator[duckdb.DuckDBPyConnection]:
    """Rows around the values that the queries name, with many nulls."""
    draw = random.Random(5)
    pools: dict[str, list[object]] = {
        "char": ["fox", "marth", "sheik", "puff", None],
        "opp_char": ["fox", "marth", "sheik", None],
        "stage": ["final_destination", "battlefield", None],
        "code": ["FOX#1", "A'B", "", "fox#1", None],
        "n_frames": [0, 3600, 3601, -1, 2**31 - 1, None],
        "seconds": [0.1, 60, 60.25, 0.5, 0, None],
        "percent_dealt": [0.1, 100, 0.3, 0.30000001, None],
        "projectiles": [0, 10, 60, None],
        "won": [True, False, None],
        "is_pal": [True, False, None],
        "started_at": [datetime(2023, 4, 1), datetime(2023, 4, 1, 0, 0, 1), datetime(2025, 1, 1),
                       datetime(2024, 12, 31, 23, 59, 59), None],
    }  # fmt: skip
    con = duckdb.connect()
    con.execute(
        "create table p (id integer, char varchar, opp_char varchar, stage varchar, code varchar,"
        " n_frames integer, seconds float, percent_dealt float, projectiles integer, won boolean,"
        " is_pal boolean, started_at timestamp)"
    )
    for number in range(300):
        row = [number, *(draw.choice(pool) for pool in pools.values())]
        con.execute(f"insert into p values ({','.join('?' * len(row))})", row)
    con.execute("create view v as select *, started_at as date, "
                "strftime(started_at, '%Y-%m') as month from p")  # fmt: skip
    yield con
    con.close()


def _ids(con: duckdb.DuckDBPyConnection, where: str, values: list[object]) -> list[int]:
    rows = con.execute(f"select id from v where {where} order by id", values).fetchall()
    return list(itertools.chain.from_iterable(rows))


@settings(max_examples=400, deadline=None)
@given(text=queries())
def test_text_printed_text_and_filter_select_the_same_rows(
    table: duckdb.DuckDBPyConnection, text: str
) -> None:
    query = parse(text)
    printed = canonical(query)
    where, values = to_sql(query)
    expected = _ids(table, text, [])
    assert _ids(table, where, list(values)) == expected
    assert _ids(table, printed, []) == expected
    assert parse(printed) == query
    assert canonical(parse(printed)) == printed


_DAYS = {"year": ["2023", "2024"], "month": ["2023-04", "2024-12"],
         "day": ["2023-04-01", "2024-12-31", "2025-01-01"],
         "minute": ["2023-04-01 00:00", "2024-12-31 23:59"]}  # fmt: skip
_WHOLE = {"year": "-01-01 00:00:00", "month": "-01 00:00:00", "day": " 00:00:00", "minute": ":00"}


@settings(max_examples=200, deadline=None)
@given(draw=st.data())
def test_a_date_without_all_its_parts_is_a_stretch_of_time(
    table: duckdb.DuckDBPyConnection, draw: st.DataObject
) -> None:
    """What started within 2023-04 is what DuckDB cuts to 2023-04."""
    unit = draw.draw(st.sampled_from(sorted(_DAYS)))
    first, second = (draw.draw(st.sampled_from(_DAYS[unit])) for _ in range(2))
    op = draw.draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
    form = draw.draw(st.sampled_from(
        ["{x} {op} {a}", "not {x} {op} {a}", "{x} in ({a}, {b})", "{x} not in ({a}, {b})",
         "{x} between {a} and {b}", "{x} not between {a} and {b}"]))  # fmt: skip
    query = parse(form.format(x="date", op=op, a=f"'{first}'", b=f"'{second}'"))
    a, b = (f"timestamp '{text}{_WHOLE[unit]}'" for text in (first, second))
    expected = _ids(table, form.format(x=f"date_trunc('{unit}', date)", op=op, a=a, b=b), [])
    where, values = to_sql(query)
    assert _ids(table, where, list(values)) == expected
    assert _ids(table, canonical(query), []) == expected
    assert parse(canonical(query)) == query


def test_strategy_covers_known_columns() -> None:
    assert all(filters.find(name, 0) for name in QUERY_COLUMNS)
