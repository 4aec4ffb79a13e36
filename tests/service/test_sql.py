"""SQL over HTTP: every format, its limits, and that other work goes on beside a runaway query."""

import threading
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import N_GAMES, assert_error, running

SQL = (
    "select stage, count(*) as n, max(seconds) as longest, max(started_at) as at, "
    "list(distinct char order by char) as chars, any_value(game_id) as id "
    "from perspectives group by stage order by stage"
)


def ask(client: httpx.Client, sql: str, **fields: object) -> httpx.Response:
    return client.post("/v1/sql", json={"sql": sql, **fields})


def test_formats_agree(client: httpx.Client) -> None:
    got = {f: ask(client, SQL, format=f) for f in ("json", "csv", "arrow", "parquet")}
    assert {response.status_code for response in got.values()} == {200}
    document = got["json"].json()
    assert [c["name"] for c in document["columns"]] == [
        "stage",
        "n",
        "longest",
        "at",
        "chars",
        "id",
    ]
    arrow = pa.ipc.open_stream(got["arrow"].content).read_all()
    parquet = pq.read_table(pa.BufferReader(got["parquet"].content))
    csv = pyarrow.csv.read_csv(pa.BufferReader(got["csv"].content))
    for table in (arrow, parquet, csv):
        assert table.column("n").to_pylist() == [row[1] for row in document["rows"]]
        assert table.column_names == ["stage", "n", "longest", "at", "chars", "id"]
    assert sum(row[1] for row in document["rows"]) == 2 * N_GAMES
    assert got["csv"].headers["content-type"] == "text/csv; charset=utf-8"


def test_over_and_frames(client: httpx.Client) -> None:
    manifest = client.post("/v1/datasets", json={"query": "char='fox'"}).json()
    counted = ask(client, "select count(*) as n from frames", over="char='fox'").json()
    assert counted["rows"] == [[manifest["frames"]]]


def test_numbers_that_json_has_not(client: httpx.Client) -> None:
    sql = "select 'nan'::double as a, '-inf'::float as b, null as c, 'é'::varchar as d"
    assert ask(client, sql).json()["rows"] == [["nan", "-inf", None, "é"]]


def test_any_type_fits_any_format(client: httpx.Client) -> None:
    sql = (
        "select game_id, [1, null] as l, {'a': 'x'} as s, 1.5 as d,"
        " '\\xFF'::blob as b, time '10:00' as t, date '2020-01-02' as day,"
        " true as yes,"
        " 170141183460469231731687303715884105727::hugeint as h from games limit 1"
    )
    got = {f: ask(client, sql, format=f) for f in ("json", "csv", "arrow", "parquet")}
    assert {f: r.status_code for f, r in got.items()} == dict.fromkeys(got, 200), got["csv"].text
    (row,) = got["json"].json()["rows"]
    assert row[1:7] == [[1, None], {"a": "x"}, "1.5", "ff", "10:00:00", "2020-01-02"]
    assert '"[1, null]"' in got["csv"].text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"sql": "select nothing from perspectives"}, 400, "sql"),
        ({"sql": "drop table games"}, 400, "sql"),
        ({"sql": "select 1; select 2"}, 400, "sql"),
        ({"sql": "select * from '/etc/passwd'"}, 400, "sql"),
        ({"sql": "select 1", "over": "char='fxo'"}, 400, "unknown_name"),
        ({"sql": "select 1", "snapshot": 98765}, 404, "not_found"),
        ({"sql": "select 1", "format": "xml"}, 400, "usage"),
        ({"sql": "select interval 1 month as i", "format": "parquet"}, 400, "sql"),
        ({"sql": "select " + "1," * 40_000 + "1"}, 400, "usage"),
        ({"sequel": "select 1"}, 400, "usage"),
        ({"sql": "select * from range(2000000)"}, 413, "limit"),
    ],
)
def test_errors(client: httpx.Client, body: dict[str, str], status: int, code: str) -> None:
    assert_error(client.post("/v1/sql", json=body), status, code)


@pytest.mark.slow
def test_a_runaway_query_ends_and_others_go_on(store: Path) -> None:
    settings = Settings(store=store, port=0, sql_time_s=3.0, sql_processes=1, sql_waiting_max=1)
    endless = "select count(*) from range(1000000000) a, range(1000000000) b"
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        ended: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: ended.append(ask(client, endless))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        assert_error(ask(client, "select 1"), 503, "busy")
        begun = time.monotonic()
        assert client.get("/v1/facets").status_code == 200
        assert time.monotonic() - begun < 2.0
        for thread in threads:
            thread.join()
        for response in ended:
            assert_error(response, 413, "limit")
        assert ask(client, "select 1 as one").json()["rows"] == [[1]]
