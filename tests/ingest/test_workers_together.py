"""Three ingests into one store while its service and the command read from it."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ingest.synthetic import make_game
from ingest.workers import ingest
from meleewm.serve import child_service
from store.catalog import Catalog
from store.layout import open_layout
from store.verify import verify
from tests import kills
from tests.conftest import ROOT
from tests.kills import game_files, tables, worker_pids

N_GAMES = 18
SHARES = (range(12), range(6, 18), (*range(12, 18), *range(6)))
"""Each game is in two of the three inputs."""


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    out = [tmp_path / f"input-{n}" for n in range(len(SHARES))]
    games = [make_game(seed, n_frames=400).slp for seed in range(N_GAMES)]
    for folder, share in zip(out, SHARES, strict=True):
        folder.mkdir()
        for n in share:
            (folder / f"{n}.slp").write_bytes(games[n])
    return out


def read_all(url: str) -> int:
    """What a trainer, a page and a query get, each whole; the number of games that they saw."""
    with httpx.Client(base_url=url, timeout=60) as client:
        manifest = client.post("/v1/datasets", json={"games_per_shard": 4})
        assert manifest.status_code == 200, manifest.text
        for shard in manifest.json()["shards"]:
            got = client.get(shard["url"])
            assert (got.status_code, len(got.content)) == (200, shard["bytes"]), got.text[:200]
            with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
                assert len(tar.getnames()) == 2 * shard["games"]
        sql = "select count(*), count(distinct game_id) from games"
        counted = client.post("/v1/sql", json={"sql": sql})
        assert counted.status_code == 200, counted.text
        (row,) = counted.json()["rows"]
        listed = client.get("/v1/games")
        assert listed.status_code == 200, listed.text
    assert row[0] == row[1] >= manifest.json()["games"]
    return int(row[0])


def sql_command(store: Path) -> int:
    """The number of games, by the command."""
    command = [sys.executable, "-m", "meleewm", "sql", "--store", str(store), "--format", "json",
               "select count(*) as n from games"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    return int(row["n"])


@contextmanager
def reading(url: str, store: Path) -> Iterator[list[int]]:
    """Readers that read again and again as long as the block runs; gives what they saw."""
    seen: list[int] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set():
                seen.append(read_all(url))
                seen.append(sql_command(store))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


@pytest.mark.slow
def test_three_ingests_and_readers_at_once(inputs: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest([inputs[0] / "0.slp"], store, workers=1)
    with child_service(store) as url, reading(url, store) as seen:
        ingests = [kills.start(folder, store) for folder in inputs]
        for process in ingests:
            _, said = process.communicate(timeout=kills.SECONDS_MAX)
            assert process.returncode == 0, said.decode("utf-8", "replace")
        assert read_all(url) == N_GAMES
    assert seen == sorted(seen), "a reader saw fewer games than before"
    assert seen[0] >= 1
    assert worker_pids(store) == []

    ingest(inputs, tmp_path / "peace", workers=2)
    assert game_files(store) == game_files(tmp_path / "peace")
    ours, peace = (
        tables(folder, without=("seen_at", "outcome")) for folder in (store, tmp_path / "peace")
    )
    assert ours == peace
    assert len(ours["games"]) == N_GAMES
    assert len(ours["replays"]) == sum(map(len, SHARES))
    bad = [f for f in verify(open_layout(store)) if f.is_damage or f.kind == "orphan"]
    assert bad == []
    with Catalog(open_layout(store), read_only=True) as catalog:
        stored = catalog.query("select distinct sha256 from lake.replays where outcome = 'stored'")
    assert len(stored) == N_GAMES
