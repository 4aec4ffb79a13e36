"""The command as a user meets it: results on stdout, one line for what is wrong, exit codes."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.meleewm.conftest import ROOT, done, run


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("char='fxo'", "fox"),
        ("1=1; drop table games", ";"),
        ("char='fox' and (select 1)", "select"),
        ("chra='fox'", "char"),
    ],
)
@pytest.mark.parametrize("verb", ["select", "lock"])
def test_wrong_query_is_one_line_and_exit_2(store: Path, verb: str, query: str, named: str) -> None:
    result = run(verb, query, "--store", store)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("char='fxo'", "fox"),
        ("1=1; drop table games", ";"),
        ("char='fox' and (select 1)", "select"),
    ],
)
def test_wrong_query_of_a_training_run(store: Path, query: str, named: str, tmp_path: Path) -> None:
    result = run("train", "--query", query, "--store", store, "--run-dir", tmp_path / "run")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["ingset"], "nearest: ingest"),
        (["ingest", ".", "--stor", "x"], "--store"),
        (["synth", "--games", "0", "--out", "x"], "above zero"),
        (["synth", "--games", "1", "--out", "x", "--slippi-version", "four"], "3.19.0"),
        (["select", "char='fox'", "--store", "no-such-store"], "no-such-store"),
        (["ingest", "no-such-file"], "no-such-file"),
        (["train", "--query", "char='fox'", "--modle", "mlp"], "--model"),
        (["train", "--store", "a", "--url", "b", "--query", "char='fox'"], "together"),
        (["train", "--query", "char='fox'", "--store", "no-such-store"], "no-such-store"),
        (["eval", "no-such-run"], "no-such-run is no run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exit_2(words: list[str], named: str) -> None:
    result = run(*words)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


def test_debug_shows_the_traceback(store: Path) -> None:
    result = run("select", "char='fxo'", "--store", store, "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_second_ingest_stores_nothing_and_says_so(replay_folder: Path, store: Path) -> None:
    summary = json.loads(done("ingest", replay_folder, "--store", store, "--json"))
    assert summary["files"] == 10
    assert summary["known"] == 10
    assert summary["stored"] == 0


def test_sql_answers_in_every_format(store: Path) -> None:
    sql = "select side, count(*) as n from perspectives group by side order by side"
    table = done("sql", sql, "--store", store)
    assert table.split() == ["side", "n", *table.split()[2:]]
    assert json.loads(done("sql", sql, "--store", store, "--format", "json")) == [
        {"side": 0, "n": 10},
        {"side": 1, "n": 10},
    ]
    assert done("sql", sql, "--store", store, "--format", "csv").splitlines()[1:] == [
        "0,10",
        "1,10",
    ]
    command = [sys.executable, "-m", "meleewm", "sql", sql, "--store", str(store), "--format"]
    raw = subprocess.run([*command, "parquet"], cwd=ROOT, capture_output=True, check=True).stdout
    assert pq.read_table(io.BytesIO(raw)).num_rows == 2


@pytest.mark.parametrize(
    "sql",
    [
        "select char, stage, count(*) from perspectives group by all order by 3 desc",
        "select count(*), max(p0.percent) from frames",
        "select char, avg(percent), avg(opp_percent) from pframes group by 1",
        "select type, count(*), max(velocity_x) from items group by 1",
        "select outcome, count(*) from replays group by 1",
    ],
)
def test_questions_have_answers(store: Path, sql: str) -> None:
    assert json.loads(done("sql", sql, "--store", store, "--format", "json"))


def test_any_value_in_any_format(store: Path) -> None:
    sql = "select a.side, b.side, [1, null] as list, 'nan'::float as x, '\\x01'::blob as raw from"
    sql += " perspectives a join perspectives b using (game_id) where a.side < b.side limit 1"
    (row,) = json.loads(done("sql", sql, "--store", store, "--format", "json"))
    assert row == {"side": 0, "side_1": 1, "list": [1, None], "x": "nan", "raw": "01"}
    csv = done("sql", sql, "--store", store, "--format", "csv")
    assert csv.splitlines() == ['"side","side_1","list","x","raw"', '0,1,"[1, null]",nan,"01"']
    assert done("sql", sql, "--store", store).split()[:2] == ["side", "side_1"]
    refused = run("sql", "select interval 1 day", "--store", store, "--format", "parquet")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_hostile_sql_is_one_line_and_exit_2(store: Path) -> None:
    for sql in ("drop table games", "select * from read_text('/etc/passwd')", "selec 1"):
        result = run("sql", sql, "--store", store)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")


def test_over_binds_to_a_selection(store: Path) -> None:
    sql = "select distinct char from perspectives"
    found = json.loads(
        done("sql", sql, "--store", store, "--over", "char='fox'", "--format", "json")
    )
    assert found in ([], [{"char": "fox"}])


def test_select_counts_and_lists(store: Path) -> None:
    counted = json.loads(done("select", "n_frames > 0", "--store", store, "--json"))
    assert counted["games"] == 10
    assert counted["perspectives"] == 20
    assert len(counted["members"]) == 10
    assert "dataset" in done("select", "n_frames > 0", "--store", store, "--count")


def test_reverse_order_of_ingest_gives_the_same_dataset(
    replay_folder: Path, store: Path, tmp_path: Path
) -> None:
    paths = sorted(replay_folder.glob("*.slp"), reverse=True)
    done("ingest", *paths[:5], "--store", tmp_path / "other", "--workers", 1)
    done("ingest", *paths[5:], "--store", tmp_path / "other", "--workers", 1)
    ids = [
        json.loads(done("select", "n_frames > 0", "--store", where, "--json"))["dataset_id"]
        for where in (store, tmp_path / "other")
    ]
    assert ids[0] == ids[1]


def test_lock_and_export(store: Path, tmp_path: Path) -> None:
    lock = tmp_path / "all.lock"
    lock.write_text(done("lock", "n_frames > 0", "--store", store))
    manifest = json.loads(
        done("export", "n_frames > 0", "--store", store, "--out", tmp_path / "out", "--json")
    )
    assert json.loads(lock.read_text())["dataset_id"] == manifest["dataset_id"]
    (shard,) = (tmp_path / "out").glob("shards/*.tar")
    shutil.unpack_archive(shard, tmp_path / "games")
    for path in (tmp_path / "games").glob("*.parquet"):
        (stored,) = store.glob(f"games/*/{path.stem}.*.parquet")
        assert path.read_bytes() == stored.read_bytes()


def test_snapshots_stats_verify(store: Path) -> None:
    assert json.loads(done("snapshots", "--store", store, "--json"))
    assert json.loads(done("stats", "--store", store, "--json"))
    assert run("verify", "--store", store).returncode == 0


def test_verify_finds_damage(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    victim = next(copy.glob("games/*/*.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    result = run("verify", "--store", copy)
    assert result.returncode == 1
    assert victim.stem.split(".")[0] in result.stdout
