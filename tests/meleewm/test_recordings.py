"""One game that both clients recorded, through the commands: one game, whichever came first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.synthetic import write_games
from meleewm.cli import main
from schemas.shard import SPLITS, Request
from store.layout import open_layout
from store.select import select

GAMES = 2
SQL = """select replace(game_id::varchar, '-', '') as game_id, natural_key, bucket, started_at,
    (select count(*) from perspectives) as perspectives, (select count(*) from players) as players,
    (select count(*) from replays where outcome = 'stored') as stored from games order by 1"""
Rows = list[dict[str, Any]]
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """The two recordings of some games."""
    out = tmp_path_factory.mktemp("pairs")
    paths = write_games(out, GAMES, 14, frames=(300, 500), recordings=2)
    return list(zip(paths[::2], paths[1::2], strict=True))


@pytest.fixture(scope="module", params=["first", "second"])
def store(
    request: pytest.FixtureRequest,
    pairs: list[tuple[Path, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Stores of both recordings: the first ones first, the second ones first."""
    root = tmp_path_factory.mktemp(request.param) / "store"
    firsts, seconds = ([str(pair[n]) for pair in pairs] for n in (0, 1))
    for paths in [firsts, seconds] if request.param == "first" else [seconds, firsts]:
        assert main(["ingest", *paths, "--store", str(root), "--workers", "1", "--quiet"]) == 0
    return root


@pytest.fixture
def ask(store: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command on the store and read its JSON."""

    def run(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--store", str(store)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


SEEN: dict[str, Any] = {}
"""What the first store said, under a name: the other one must say the same."""


@pytest.mark.slow
def test_two_recordings_are_one_game_in_any_order(
    ask: Ask, store: Path, pairs: list[tuple[Path, Path]]
) -> None:
    every: Rows = ask("sql", SQL, "--recordings", "all", "--format", "json")
    shown: Rows = ask("sql", SQL, "--format", "json")
    assert all(first.read_bytes() != second.read_bytes() for first, second in pairs)
    assert len({row["started_at"] for row in every}) == 2 * GAMES
    for rows, games in ((shown, GAMES), (every, 2 * GAMES)):
        assert len({row["game_id"] for row in rows}) == len(rows) == games
        # both recordings of a game share its key, and so the side of every split
        assert len({(row["natural_key"], row["bucket"]) for row in rows}) == GAMES
        assert {(row["perspectives"], row["players"]) for row in rows} == {(2 * games, 2 * games)}
        assert {row["stored"] for row in rows} == {2 * GAMES}, "the ledger tells of both"
    one = ask("select", "n_frames > 0", "--json")
    both = ask("select", "n_frames > 0", "--json", "--recordings", "all")
    assert [member["game_id"] for member in one["members"]] == [row["game_id"] for row in shown]
    assert len(both["members"]) == 2 * GAMES
    told = [shown, every, one["dataset_id"], both["dataset_id"]]
    assert SEEN.setdefault("store", told) == told, "it depends on the order of ingest"
    assert_same_split(store, {row["game_id"]: row["natural_key"] for row in every})


def assert_same_split(store: Path, keys: dict[str, str]) -> None:
    """keys: game id -> natural key, of all recordings."""
    seen: list[str] = []
    for split in sorted(set(SPLITS) - {"all"}):
        members = select(open_layout(store), Request(split=split, recordings="all")).members
        of_split = [keys[member.game_id] for member in members]
        assert all(of_split.count(key) == 2 for key in of_split)
        seen += of_split
    assert sorted(seen) == sorted(keys.values())


def test_synth_writes_both_recordings(tmp_path: Path) -> None:
    words = ["synth", "--games", "1", "--recordings", "2", "--slippi-version", "1.0"]
    assert main([*words, "--out", str(tmp_path), "--seed", "5", "--quiet"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "game-5-0-other.slp",
        "game-5-0.slp",
    ]
