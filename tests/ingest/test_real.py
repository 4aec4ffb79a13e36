"""Every real replay of ../shared, ingested once: who is stored, who is refused and why, bit by bit.

Compared with peppi's raw arrays and with the files' own events, not with the code that stored them.
"""

import base64
import csv
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.rebuild import rebuild
from ingest.replay import ParsedGame
from ingest.slp import GAME_START, split
from ingest.workers import Summary, ingest
from schemas.game import SIDES
from schemas.records import TABLES, version_number
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.parquet import read_footer, read_game
from store.verify import verify
from tests.conftest import SHARED, require
from tests.ingest.own_events import assert_equals_own_events
from tests.ingest.own_facts import facts
from tests.ingest.raw_peppi import assert_equals_raw, nana_events, version
from tests.ingest.streams import CODE, assert_prefix, take_apart
from tests.ingest.test_replay import assert_same, leaf

# make test keeps a file's tests in one process: so the replays are ingested once
pytestmark = [pytest.mark.slow, pytest.mark.replays]

GAMES_MIN = 120


@dataclass(frozen=True)
class Real:
    """The replays, what manifest.csv says of each, and the store and summary of their ingest."""

    folder: Path
    manifest: dict[str, dict[str, str]]
    layout: Layout
    summary: Summary

    @property
    def games(self) -> list[tuple[Path, ParsedGame, dict[str, str]]]:
        """Replay file, stored game and manifest row of every game that is to be stored."""
        return [
            (self.folder / row["file"], self.stored(sha256), row)
            for sha256, row in self.manifest.items()
            if cause(row) is None
        ]

    def stored(self, sha256: str) -> ParsedGame:
        """The game file of a replay, read whole."""
        data = self.layout.game_path(sha256[:32]).read_bytes()
        return ParsedGame(read_game(data), read_footer(data))


@pytest.fixture(scope="session")
def real(replays: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """All real replays in a store, by two workers."""
    path = SHARED / "replays" / "manifest.csv"
    require(path.exists(), "../shared/replays/manifest.csv says what the replays are")
    with path.open() as file:
        manifest = {row["sha256"]: row for row in csv.DictReader(file)}
    there = all((replays / row["file"]).exists() for row in manifest.values())
    require(there, f"{replays} has not all files of manifest.csv")
    store = tmp_path_factory.mktemp("real") / "store"
    summary = ingest([replays], store, workers=2)
    return Real(replays, manifest, open_layout(store), summary)


def cause(row: dict[str, str]) -> str | None:
    """The rule that must refuse a file of the manifest; None for a game that must be stored."""
    if "no slippi signature" in row["notes"]:
        # the first byte of a bare event stream is that of its payload table
        return None if "got: [53," in row["peppi_verdict"] else "not_a_replay"
    if any(mode in row["stage"] for mode in ("TARGET_TEST", "HOME_RUN")):
        return "special_mode"
    if row["players"] != "2":
        return "not_two_players"
    return None if int(row["frames"]) else "no_frames"


def repairs(row: dict[str, str]) -> list[str]:
    """What must have been done to a file of the manifest that is stored."""
    notes, verdict = row["notes"], row["peppi_verdict"]
    reasons = {
        "relaid": "at least one field" in verdict
        or ("failed to fill" in verdict and "rawlen 0" not in notes),
        "unfinished": "rawlen 0" in notes and "no game end" in notes,
        "container_missing": "no slippi signature" in notes,
        "events_cut": "unknown event: 0x0" in verdict,
        "frames_dropped": "equal number of values" in verdict,
        "table_zero_size": "zero-size" in verdict,
        "table_no_end": "missing Game End" in verdict,
    }
    return [name for name, there in reasons.items() if there]


def test_every_replay_is_stored_or_refused_with_its_cause(real: Real) -> None:
    with Catalog(real.layout, read_only=True) as catalog:
        ledger = catalog.query("select hex(sha256) as sha, outcome, rule, detail from lake.replays")
    rows = {row["sha"].lower(): row for row in ledger.to_pylist()}
    assert set(rows) == set(real.manifest)
    for sha256, row in rows.items():
        told = real.manifest[sha256]
        expected = cause(told)
        outcome = "refused" if expected else "repaired" if repairs(told) else "stored"
        assert (row["rule"], row["outcome"]) == (expected, outcome), sha256
        if expected is None:
            assert row["detail"] == (", ".join(repairs(told)) or None)
        else:
            assert row["detail"]
        if expected == "not_two_players":
            assert row["detail"].startswith(f"{told['players']} players")


def test_counts_add_up_and_reach_what_was_asked(real: Real) -> None:
    summary, manifest = real.summary, real.manifest
    refused = [rule for rule in map(cause, manifest.values()) if rule]
    assert summary.refused == {rule: refused.count(rule) for rule in refused}
    rejected = [row for row in manifest.values() if row["peppi_verdict"] != "parses"]
    assert len(rejected) == 16
    assert Counter(map(cause, rejected)) == {
        None: 12, "special_mode": 2, "not_a_replay": 1, "no_frames": 1
    }  # fmt: skip
    assert summary.repaired == 12
    assert summary.files == len(manifest) == len(list(real.folder.rglob("*.slp")))
    assert summary.files == summary.stored + summary.repaired + len(refused) == 151
    assert summary.known == 0
    assert summary.replay_bytes == sum(int(row["bytes"]) for row in manifest.values())
    assert summary.stored >= GAMES_MIN


def test_every_game_is_stored_bit_by_bit(real: Real) -> None:
    """What lies in the store equals what peppi gives, Nana's rows of before 2.2 on their frames."""
    whole = [(path, game, row) for path, game, row in real.games if not repairs(row)]
    assert len(whole) == real.summary.stored
    for path, game, row in whole:
        assert game.footer["repairs"] == []
        assert len(game.table) == int(row["frames"])
        assert_equals_raw(path, game)


def test_every_repaired_game_equals_its_own_events(real: Real) -> None:
    """Bit by bit, with the leaves of the file's own version and no other."""
    rescued = [(path, game, row) for path, game, row in real.games if repairs(row)]
    assert len(rescued) == real.summary.repaired
    for path, game, row in rescued:
        assert game.footer["repairs"] == repairs(row), row["file"]
        events = split(path.read_bytes())
        assert version(game)[:2] == events.version
        assert base64.b64decode(game.footer["start_bytes"]) == events.payloads(GAME_START)[0]
        frames = assert_equals_own_events(events, game)
        # manifest.csv counts a frame number once, also where no copy of it is whole
        assert frames == len(game.table)
        assert "no slippi signature" in row["notes"] or 0 <= int(row["frames"]) - frames <= 1


def catalog_rows(real: Real, table: str, order: str) -> dict[str, list[dict[str, Any]]]:
    """SHA-256 of the replay, cut to a game id -> its rows of a table."""
    with Catalog(real.layout, read_only=True) as catalog:
        rows = catalog.query(f"from lake.{table} order by {order}").to_pylist()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["game_id"]).replace("-", ""), []).append(row)
    return found


def test_facts_equal_those_told_from_bytes_and_raw_arrays(real: Real) -> None:
    """Games, players and items of every replay that peppi reads: winner, quits, codes, UCF ..."""
    games, players, counts = (
        catalog_rows(real, table, "game_id, side" if table != "games" else "game_id")
        for table in ("games", "players", "item_counts")
    )
    winners: Counter[str | None] = Counter()
    for path, _, row in real.games:
        if repairs(row):
            continue
        game_id = row["sha256"][:32]
        game, sides, items = facts(path)
        stored = games[game_id][0]
        stored["natural_key"] = str(stored["natural_key"]).replace("-", "")
        assert {key: stored[key] for key in game} == game, row["file"]
        for own, told in zip(sides, players[game_id], strict=True):
            own["percent_dealt"] = float(np.float32(own["percent_dealt"]))
            assert {key: told[key] for key in own} == own, row["file"]
        spawned = {
            (of["side"], of["type"], what): of[what]
            for of in counts.get(game_id, [])
            for what in ("spawned", "frames")
        }
        assert spawned == items, row["file"]
        winners[game["winner_by"]] += 1
    assert winners == {"stocks": 75, "quit": 36, None: 15}


def test_facts_agree_with_the_launchers_own_statistics(real: Real) -> None:
    """slippi-js counts stocks by another rule, damage only within punishes, and names fewer
    winners; what it says must not contradict."""
    path = SHARED / "reference" / "slippi_js_stats" / "summary.csv"
    require(path.exists(), "../shared/reference has statistics of slippi-js")
    games, players = (catalog_rows(real, table, "game_id") for table in ("games", "players"))
    compared = named = 0
    with path.open() as file:
        for row in csv.DictReader(file):
            game_id = row["sha256"][:32]
            if game_id not in games or games[game_id][0]["repaired"]:
                continue
            game = games[game_id][0]
            own = next(p for p in players[game_id] if p["port"] == int(row["port"]))
            compared += 1
            assert game["last_frame"] == int(row["last_frame"])
            # one period opens with each stock; the last one stays open where stocks are left
            assert int(row["stocks"]) - own["stocks_lost"] in (0, 1)
            assert float(row["damage"]) <= own["percent_dealt"] + 0.01
            if row["winner"]:
                named += 1
                assert (game["winner_side"] == own["side"]) == (row["winner"] == "1")
    assert compared >= 250
    assert named >= 100


def test_an_early_nana_stands_on_the_frames_of_her_events(real: Real) -> None:
    """In every real game before 2.2, every value of hers equals the event of that frame."""
    gone = 0
    for path, game, row in real.games:
        if "ICE_CLIMBERS" not in row["characters"] or version(game) >= (2, 2):
            continue
        table = game.table
        for side in SIDES:
            if (nana := leaf(table, f"{side}.follower")) is not None:
                port = f"P{leaf(table, f'{side}.port')[0]}"
                assert_equals_events(table, side, path, port)
                gone += nana.null_count
    assert gone == 326


def assert_equals_events(table: pa.Table, side: str, path: Path, port: str) -> None:
    for kind in ("pre", "post"):
        events = nana_events(path, kind, port)
        there = pa.compute.is_in(table["frame"].combine_chunks(), pa.array(events["frame"] + 0))
        assert there.equals(leaf(table, f"{side}.follower").is_valid())
        for name in (events.dtype.names or ())[4:]:
            stored = leaf(table, f"{side}.follower.{name}")
            if name != "random_seed":
                sent = events[name].astype(events[name].dtype.newbyteorder("="))
                assert_same(stored.drop_null(), pa.array(sent), name)


def test_randall_is_where_players_stand_on_it(real: Real) -> None:
    """Ground id 0 on Yoshi's Story is the cloud: height exact, and x within its width."""
    checked = 0
    for _, game, row in real.games:
        if row["stage_id"] != "8" or version(game) < (2, 0):
            continue  # ground ids came with 2.0
        table = game.table
        cloud_x, cloud_y = (leaf(table, f"stage.randall_{axis}").to_numpy() for axis in "xy")
        for side in SIDES:
            stands = (leaf(table, f"{side}.airborne").to_numpy() == 0) & (
                leaf(table, f"{side}.ground").to_numpy() == 0
            )
            x, y = (leaf(table, f"{side}.position_{axis}").to_numpy() for axis in "xy")
            assert (np.abs(y - cloud_y)[stands] < 0.01).all()
            assert (np.abs(x - cloud_x)[stands] < 7).all()
            checked += int(stands.sum())
    assert checked > 100


def test_a_replay_of_a_slippi_to_come_is_stored_marked_and_counted(
    real: Real, tmp_path: Path
) -> None:
    """A real 3.19 one with four more bytes in each post-frame event."""
    path, game, _ = next(of for of in real.games if version(of[1])[:2] == (3, 19))
    stream = take_apart(path.read_bytes())
    stream.sizes[CODE["post"]] += 4
    for n in stream.numbers("post"):
        stream.events[n] += b"\x12\x34\x56\x78"
    stream.patch_start("version", 0, bytes((3, 20)))
    (tmp_path / "new.slp").write_bytes(stream.pack())
    (tmp_path / "cut.slp").write_bytes(stream.pack()[:200_000])
    summary = ingest([tmp_path], tmp_path / "store", workers=1)
    assert (summary.stored, summary.repaired, summary.newer_than_parser) == (1, 1, 2)
    layout = open_layout(tmp_path / "store")
    with Catalog(layout, read_only=True) as catalog:
        rows = catalog.query("select game_id, repaired, newer_than_parser, version from lake.games")
    for row in rows.to_pylist():
        assert row["newer_than_parser"]
        table = read_game(layout.game_path(str(row["game_id"]).replace("-", "")).read_bytes())
        assert_prefix(table, game.table)
        assert row["repaired"] or len(table) == len(game.table)
        assert row["version"] == version_number(3, 20, version(game)[2])


# --- upkeep -------------------------------------------------------------------------------------


def test_verify_names_the_one_odd_column_of_real_replays(real: Real) -> None:
    findings = verify(real.layout)
    assert [f for f in findings if f.is_damage] == []
    odd = {f.where for f in findings if f.kind == "bounds"}
    # every Slippi 0.1 and 1.0 wrote 3.8e22 there
    assert {leaf.rpartition(".")[2] for leaf in odd} == {"triggers_physical_r"}


def test_a_rebuild_says_what_the_ingest_said(real: Real, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "store")
    shutil.copytree(real.layout.root, layout.root)
    done = rebuild(layout, force=True)
    assert done.left == []
    for name in TABLES:
        sides = []
        for one in (real.layout, layout):
            with Catalog(one, read_only=True) as catalog:
                rows = catalog.query(f"from lake.{name}").to_pylist()
            sides.append(sorted(map(repr, rows)))
        assert sides[0] == sides[1], name
