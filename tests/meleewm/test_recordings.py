"""One game that both clients recorded, through the commands: one game, whichever came first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meleewm.cli import main
from schemas.shard import SPLITS, Request
from store.layout import open_layout
from store.select import select

GAMES = 2
Json = Callable[..., Any]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """The two recordings of some games."""
    out = tmp_path_factory.mktemp("pairs")
    words = ["synth", "--games", str(GAMES), "--recordings", "2", "--out", str(out), "--seed", "14"]
    assert main([*words, "--quiet"]) == 0
    return [(out / f"game-14-{n}.slp", out / f"game-14-{n}-other.slp") for n in range(GAMES)]


@pytest.fixture(scope="module", params=["first", "second"])
def store(
    request: pytest.FixtureRequest,
    pairs: list[tuple[Path, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Stores of both recordings: the first ones first, the second ones first."""
    root = tmp_path_factory.mktemp(request.param) / "store"
    firsts, seconds = ([str(pair[n]) for pair in pairs] for n in (0, 1))
    orders = {"first": [firsts, seconds], "second": [seconds, firsts]}
    for paths in orders[request.param]:
        assert main(["ingest", *paths, "--store", str(root), "--workers", "2", "--quiet"]) == 0
    return root


@pytest.fixture
def ask(store: Path, capsys: pytest.CaptureFixture[str]) -> Json:
    """Run a command on the store and read its JSON."""

    def run(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--store", str(store)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


DATASETS: dict[tuple[str, ...], set[str]] = {}
"""Selections -> their dataset ids over all stores."""


def test_the_recordings_differ(pairs: list[tuple[Path, Path]], ask: Json) -> None:
    sql = "select started_at, rollback_rows, n_frames, natural_key from games"
    rows = ask("sql", sql, "--recordings", "all", "--format", "json")
    assert len(rows) == 2 * GAMES
    assert len({row["natural_key"] for row in rows}) == GAMES
    assert len({row["started_at"] for row in rows}) == 2 * GAMES
    assert any(first.read_bytes()[:2000] == second.read_bytes()[:2000] for first, second in pairs)
    assert all(first.read_bytes() != second.read_bytes() for first, second in pairs)


@pytest.mark.parametrize("recordings", ["one", "all"])
def test_two_recordings_are_one_game_in_any_order(ask: Json, recordings: str) -> None:
    times = 2 if recordings == "all" else 1
    asked = ("--recordings", recordings)
    counted = ", ".join(
        f"(select count(*) from {t}) as {t}" for t in ("games", "perspectives", "players")
    )
    told = ask("sql", f"select {counted}", *asked, "--format", "json")
    games = GAMES * times
    assert told == [{"games": games, "perspectives": 2 * games, "players": 2 * games}]
    selection = ask("select", "n_frames > 0", "--json", *asked)
    assert selection["games"] == games
    DATASETS.setdefault(asked, set()).add(selection["dataset_id"])
    assert len(DATASETS[asked]) == 1, "the dataset depends on the order of ingest"


def test_both_recordings_fall_on_one_side_of_a_split(ask: Json, store: Path) -> None:
    sql = "select game_id, natural_key, bucket from games"
    rows = ask("sql", sql, "--recordings", "all", "--format", "json")
    assert len({(row["natural_key"], row["bucket"]) for row in rows}) == GAMES
    keys = {row["game_id"].replace("-", ""): row["natural_key"] for row in rows}
    seen: list[str] = []
    for split in sorted(set(SPLITS) - {"all"}):
        members = select(open_layout(store), Request(split=split, recordings="all")).members
        of_split = [keys[member.game_id] for member in members]
        assert all(of_split.count(key) == 2 for key in of_split)
        seen += of_split
    assert sorted(seen) == sorted(keys.values())


def test_the_ledger_tells_of_both(ask: Json, pairs: list[tuple[Path, Path]]) -> None:
    rows = ask("sql", "select source, outcome from replays", "--format", "json")
    assert {Path(row["source"]) for row in rows} == {path for pair in pairs for path in pair}
    assert {row["outcome"] for row in rows} == {"stored"}
