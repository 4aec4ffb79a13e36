"""An ingest counts every file, loses nothing to crashes, and gives the same store every time."""

import hashlib
import os
import random
import signal
import subprocess
import threading
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import Progress, Summary, ingest, process
from schemas.errors import UsageError
from schemas.game import REVISION
from store.catalog import Catalog
from store.layout import open_layout
from store.parquet import leaf_set, read_footer, read_game
from tests import kills
from tests.kills import game_files, tables, until, worker_pids

N_GAMES = 6
needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="finds workers in /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six games, one of them twice, one of a newer Slippi, three to repair, and four files that
    become none."""
    out = tmp_path_factory.mktemp("replays")
    for seed in range(N_GAMES):
        game = make_game(seed, n_frames=300, version=(3, 19) if seed else (2, 0))
        (out / f"{seed}.slp").write_bytes(game.slp)
    whole = (out / "1.slp").read_bytes()
    (out / "copy of 1.slp").write_bytes(whole)
    (out / "cut.slp").write_bytes(whole[:5_000])
    (out / "cut short.slp").write_bytes(whole[:500])
    (out / "empty.slp").write_bytes(b"")
    (out / "no metadata.slp").write_bytes(make_game(9, n_frames=200).slp.partition(b"U\x08meta")[0])
    (out / "old.slp").write_bytes(make_game(9, n_frames=200, version=(3, 5)).slp)
    (out / "picture.slp").write_bytes(b"\x89PNG")
    (out / "new.slp").write_bytes(of_a_newer_slippi(make_game(8, n_frames=200).slp))
    return out


def of_a_newer_slippi(slp: bytes) -> bytes:
    """The same game with a longer game end, in the payload table and in the stream."""
    data = bytearray(slp)
    size = data.index(b"\x39\x00\x06", 15)
    data[size : size + 3] = b"\x39\x00\x0a"
    raw = int.from_bytes(data[11:15], "big")
    data[15 + raw : 15 + raw] = bytes(4)
    data[11:15] = (raw + 4).to_bytes(4, "big")
    return bytes(data)


N_REPAIRED = 3
EXPECTED = {"stored": N_GAMES + 1, "repaired": N_REPAIRED, "known": 1, "newer_than_parser": 1,
            "refused": {"not_a_replay": 2, "truncated": 1}}  # fmt: skip
N_FILES = 14


def counts(summary: Summary) -> dict[str, Any]:
    told = summary.as_dict()
    assert summary.files == summary.stored + summary.repaired + summary.known + sum(
        summary.refused.values()
    )
    return {name: told[name] for name in EXPECTED}


@pytest.fixture(scope="module")
def peace(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of an undisturbed ingest, whose progress ended at its summary."""
    store = tmp_path_factory.mktemp("peace") / "store"
    seen: list[Progress] = []
    summary = ingest([folder], store, workers=2, progress=seen.append)
    assert counts(summary) == EXPECTED
    assert (seen[-1].files, seen[-1].games) == (N_FILES, len(game_files(store)))
    assert [p.files for p in seen] == sorted(p.files for p in seen)
    return store


def test_every_file_is_in_the_ledger(folder: Path, peace: Path) -> None:
    with Catalog(open_layout(peace), read_only=True) as catalog:
        ledger = catalog.query("select source, outcome, rule, detail, rev from lake.replays")
    rows = {Path(row["source"]).name: row for row in ledger.to_pylist()}
    assert set(rows) == {path.name for path in folder.iterdir()}
    assert rows["cut short.slp"]["rule"] == "truncated"
    assert rows["empty.slp"]["detail"] == "empty"
    details = [row["detail"] for row in rows.values() if row["detail"]]
    assert details == [" ".join(detail.split()) for detail in details]
    for mended in ("no metadata.slp", "cut.slp", "old.slp"):
        assert rows[mended]["outcome"] == "repaired"
    outcomes = {rows["1.slp"]["outcome"], rows["copy of 1.slp"]["outcome"]}
    assert outcomes == {"stored", "known"}
    assert all(row["rev"] == REVISION for row in rows.values())


def test_the_catalog_says_what_lies_on_disk(peace: Path) -> None:
    layout = open_layout(peace)
    with Catalog(layout, read_only=True) as catalog:
        games = catalog.query("from lake.games").to_pylist()
    assert len(games) == len(game_files(peace)) == N_GAMES + 1 + N_REPAIRED
    for game in games:
        path = layout.game_path(str(game["game_id"]).replace("-", ""))
        data = path.read_bytes()
        assert game["parquet_bytes"] == len(data)
        assert game["parquet_sha256"] == hashlib.sha256(data).digest()
        table = read_game(data)
        assert game["n_frames"] == len(table)
        assert game["leaf_set"] == leaf_set(table.schema)
        assert read_footer(data)["rev"] == REVISION


def test_without_repair_what_is_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    summary = ingest([folder], tmp_path / "store", workers=2, options=Options(repair=False))
    refused = EXPECTED["refused"] | {"needs_repair": N_REPAIRED}  # type: ignore[operator]
    assert counts(summary) == EXPECTED | {"repaired": 0, "refused": refused}
    with Catalog(open_layout(tmp_path / "store"), read_only=True) as catalog:
        sql = "select detail from lake.replays where rule = 'needs_repair' order by detail"
        details = catalog.query(sql).column(0).to_pylist()
        repaired = catalog.query("select count(*) from lake.games where repaired").column(0)
    assert details == [f"declined: {name}" for name in ("metadata_missing", "relaid", "truncated")]
    assert repaired.to_pylist() == [0]


def test_a_second_run_stores_nothing(folder: Path, peace: Path) -> None:
    before = game_files(peace), tables(peace, without=())
    again = ingest([folder], peace, workers=2)
    none = {"stored": 0, "repaired": 0, "newer_than_parser": 0, "refused": {}}
    assert counts(again) == none | {"known": N_FILES}
    assert (game_files(peace), tables(peace, without=())) == before


def test_order_and_workers_do_not_matter(folder: Path, peace: Path, tmp_path: Path) -> None:
    backwards = sorted(folder.iterdir(), reverse=True)
    assert counts(ingest(backwards, tmp_path / "store", workers=1)) == EXPECTED
    assert game_files(tmp_path / "store") == game_files(peace)
    ignore = ("seen_at", "source", "outcome")
    assert tables(tmp_path / "store", without=ignore) == tables(peace, without=ignore)


def test_archives_give_the_same_games(folder: Path, peace: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"season 1/{path.name}")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    summary = ingest([tmp_path], tmp_path / "store", workers=2)
    expected_refused = EXPECTED["refused"] | {"bad_archive": 1}  # type: ignore[operator]
    assert counts(summary) == EXPECTED | {"refused": expected_refused}
    assert game_files(tmp_path / "store") == game_files(peace)
    with Catalog(open_layout(tmp_path / "store"), read_only=True) as catalog:
        rows = catalog.query("select source, member from lake.replays").to_pylist()
    assert {row["source"] for row in rows} == {str(tmp_path / n) for n in ("all.zip", "bad.zip")}
    assert "season 1/cut.slp" in {row["member"] for row in rows}


def test_a_path_that_is_not_there_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ingest([tmp_path / "nowhere"], tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()


# --- processes that die ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough games to be killed at."""
    out = tmp_path_factory.mktemp("many")
    for seed in range(12):
        (out / f"{seed}.slp").write_bytes(make_game(seed, n_frames=1_500).slp)
    return out


def has_written(store: Path, n: int) -> bool:
    return len(list(store.glob("games/*/*.parquet"))) >= n


def disturb(store: Path, times: int, sign: signal.Signals) -> threading.Thread:
    """Send a signal to a worker, again and again, each time after it began to write games."""

    def run() -> None:
        for n in range(1, times + 1):
            until(partial(has_written, store, n))
            for pid in worker_pids(store)[:1]:
                os.kill(pid, sign)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@needs_proc
@pytest.mark.slow
def test_a_killed_worker_loses_nothing(many: Path, tmp_path: Path) -> None:
    thread = disturb(tmp_path / "store", 3, signal.SIGKILL)
    summary = ingest([many], tmp_path / "store", workers=2)
    thread.join()
    assert summary.files == 12
    # each kill hit another replay, or the same one twice: then that one is named
    assert summary.stored + summary.refused["crashed"] == 12
    assert summary.stored >= 11
    assert worker_pids(tmp_path / "store") == []


@needs_proc
@pytest.mark.slow
def test_a_hung_worker_costs_the_replay_it_held(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TASK_SECONDS_MAX", 2.0)
    thread = disturb(tmp_path / "store", 1, signal.SIGSTOP)
    summary = ingest([many], tmp_path / "store", workers=1)
    thread.join()
    assert (summary.stored, dict(summary.refused)) == (11, {"hung": 1})


@needs_proc
def test_a_replay_that_kills_twice_is_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reads nothing but dies: its replay is a row, and the ingest goes on."""
    real = subprocess.Popen

    def short_lived(arguments: list[str], **options: Any) -> Any:
        code = (
            arguments[3]
            .replace("serve;", "serve, Connection;")
            .replace("serve(", "Connection(int(sys.argv[1])).send('ready'); sys.exit(3); serve(")
        )
        return real([*arguments[:3], code, *arguments[4:]], **options)

    monkeypatch.setattr(subprocess, "Popen", short_lived)
    summary = ingest([folder / "1.slp"], tmp_path / "store", workers=1)
    assert dict(summary.refused) == {"crashed": 1}
    with Catalog(open_layout(tmp_path / "store"), read_only=True) as catalog:
        (row,) = catalog.query("select detail from lake.replays").to_pylist()
    assert "exit status 3" in row["detail"]
    monkeypatch.undo()
    again = ingest([folder / "1.slp"], tmp_path / "store", workers=1)
    assert again.stored == 1, "what may not have been the replay's fault is tried again"
    with Catalog(open_layout(tmp_path / "store"), read_only=True) as catalog:
        outcomes = catalog.query("select outcome from lake.replays order by outcome").to_pylist()
    assert [row["outcome"] for row in outcomes] == ["refused", "stored"]


@needs_proc
@pytest.mark.slow
def test_a_rerun_after_kills_makes_the_store_of_peace(many: Path, tmp_path: Path) -> None:
    """Parent and worker, in between and before a commit; twenty rounds: `python -m tests.kills`."""
    seed = random.SystemRandom().randrange(10**6)
    assert kills.run(many, tmp_path, 3, seed) == []


@needs_proc
@pytest.mark.slow
def test_ctrl_c_commits_what_is_ready(many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = kills.start(many, store)
    until(partial(has_written, store, 4))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert worker_pids(store) == []
    rows = tables(store)
    n = len(rows["games"])
    assert len(rows["replays"]) == len(game_files(store)) == n >= 4
    done = f"{n} files are done with, {n} games stored"
    assert said.decode() == f"error: interrupted: {done}; the same command goes on from here\n"
    rest = ingest([many], store, workers=2)
    assert rest.stored + n == rest.stored + rest.known == 12
