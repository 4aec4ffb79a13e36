"""Facts follow from frames and footer: winner, keys, players, items, where the truth is known."""

import base64
import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest

from ingest import facts
from ingest.facts import GameFile, game_rows, natural_key
from ingest.replay import ParsedGame, parse
from ingest.synthetic import SyntheticGame, make_game
from schemas.names import PROJECTILES, character_name
from schemas.records import TABLES
from store.parquet import encode_game, read_footer, read_game

FILE = GameFile("0" * 32, 1000, b"x" * 32, 7)


def rows_of(game: ParsedGame) -> dict[str, list[dict[str, Any]]]:
    return game_rows(game.table, game.footer, FILE)  # type: ignore[return-value]


def changed(game: ParsedGame, **footer: Any) -> ParsedGame:
    """The same frames under another footer: `start__stage=3` changes one word of the start."""
    new = copy.deepcopy(game.footer)
    for path, value in footer.items():
        *parents, last = path.split("__")
        inner = new
        for key in parents:
            inner = inner[key]
        inner[last] = value
    return ParsedGame(game.table, new)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticGame:
    return make_game(5, chars=("fox", "falco"), stage="fd")


@pytest.fixture(scope="module")
def game(synthetic: SyntheticGame) -> ParsedGame:
    return parse(synthetic.slp)


def test_rows_have_exactly_the_columns_of_their_tables(game: ParsedGame) -> None:
    rows = rows_of(game)
    assert {name: len(rows[name]) for name in ("games", "players", "perspectives")} == {
        "games": 1, "players": 2, "perspectives": 2}  # fmt: skip
    for name, table in rows.items():
        for row in table:
            assert list(row) == [field.name for field in TABLES[name]]


def test_facts_come_from_the_game_file_alone(game: ParsedGame) -> None:
    data = encode_game(game.table, game.footer)
    assert game_rows(read_game(data), read_footer(data), FILE) == rows_of(game)


def test_the_two_perspectives_mirror_each_other(game: ParsedGame) -> None:
    own, other = rows_of(game)["perspectives"]
    for name in [name for name in own if f"opp_{name}" in own]:
        assert (own[name], own[f"opp_{name}"]) == (other[f"opp_{name}"], other[name])
    assert {own["char"], own["opp_char"]} == {"fox", "falco"}
    assert own["won"] is not other["won"]
    assert own["stocks_taken"] == other["stocks_lost"]


def test_players_and_numbers_equal_the_simulation(
    synthetic: SyntheticGame, game: ParsedGame
) -> None:
    truth, rows = synthetic.truth, rows_of(game)
    about = rows["games"][0]
    assert about["n_frames"] == truth.n_frames
    assert about["stretches"] == [truth.n_frames]
    assert about["first_frame"] == -123
    assert about["stage"] == "final_destination"
    assert about["version"] == 3_019_000
    for side, player in enumerate(rows["players"]):
        columns = truth.sides[side].columns
        stocks = columns["stocks"].astype(int)
        assert player["stocks_left"] == stocks[-1]
        assert player["stocks_lost"] == stocks[0] - stocks[-1]
        assert player["percent_left"] == columns["percent"][-1]
        taken = np.maximum(np.diff(columns["percent"].astype(np.float64)), 0).sum()
        assert rows["players"][1 - side]["percent_dealt"] == taken
        assert player["char"] == character_name(truth.setting.characters[side])
        assert player["port"] == truth.setting.ports[side] + 1


def test_items_count_by_first_owner(synthetic: SyntheticGame, game: ParsedGame) -> None:
    items, rows = synthetic.truth.items, rows_of(game)
    assert len(items["id"]) > 0
    first = {i: at for at, i in reversed(list(enumerate(items["id"].tolist())))}
    ports = {port: side for side, port in enumerate(synthetic.truth.setting.ports)}
    spawned = Counter(
        (ports.get(int(items["owner"][at])), int(items["type"][at])) for at in first.values()
    )
    assert {(r["side"], r["type"]): r["spawned"] for r in rows["item_counts"]} == spawned
    assert sum(r["frames"] for r in rows["item_counts"]) == len(items["id"])
    for side, player in enumerate(rows["players"]):
        own = {kind: n for (owner, kind), n in spawned.items() if owner == side}
        assert player["items"] == sum(own.values())
        assert player["projectiles"] == sum(n for k, n in own.items() if k in PROJECTILES)


def test_items_are_unknown_where_the_version_has_none() -> None:
    rows = rows_of(parse(make_game(5, version=(2, 2), n_frames=300).slp))
    assert rows["item_counts"] == []
    assert [player["items"] for player in rows["players"]] == [None, None]


# --- winner ---------------------------------------------------------------------------------------


class Standing(facts._Side):
    """A side as the judges see it."""

    def __init__(self, side: int, stocks: int, percent: float, placement: int | None) -> None:
        self.side, self.port = side, side + 1
        self.stocks, self.percent = np.array([4.0, stocks]), np.array([0.0, percent])
        self.placement = placement


def winner(end: dict[str, Any] | None, stocks: Any, percent: Any, placed: Any) -> Any:
    sides: list[facts._Side] = [Standing(n, stocks[n], percent[n], placed[n]) for n in range(2)]
    method = facts.END_METHODS.get(end["method"]) if end else None
    return facts._winner(method, sides, end)


UNPLACED = (None, None)


@pytest.mark.parametrize(
    ("end", "stocks", "percent", "placed", "expected"),
    [
        ({"method": "Game"}, (2, 0), (0, 0), (0, 1), (0, "stocks")),
        ({"method": "Game"}, (0, 1), (0, 0), UNPLACED, (1, "stocks")),
        ({"method": "Game"}, (0, 0), (0, 0), (1, 0), (1, "placement")),
        ({"method": "Game"}, (1, 1), (0, 0), UNPLACED, (None, None)),
        # the quitter loses, whatever the placements say
        ({"method": "NoContest", "lras_initiator": "P1"}, (4, 1), (0, 90), (0, 1), (1, "quit")),
        ({"method": "NoContest", "lras_initiator": None}, (4, 1), (0, 90), (0, 1), (None, None)),
        ({"method": "NoContest", "lras_initiator": "P4"}, (4, 0), (0, 90), (0, 1), (0, "stocks")),
        ({"method": "Time"}, (3, 2), (120, 0), (1, 0), (0, "stocks")),
        ({"method": "Time"}, (2, 2), (120, 30), (0, 1), (1, "percent")),
        ({"method": "Time"}, (2, 2), (30, 30), (0, 1), (0, "placement")),
        ({"method": "Resolved"}, (0, 3), (0, 0), UNPLACED, (1, "stocks")),
        ({"method": "Unresolved"}, (3, 1), (0, 0), UNPLACED, (None, None)),
        (None, (3, 1), (0, 0), UNPLACED, (None, None)),
        (None, (0, 1), (0, 0), UNPLACED, (1, "stocks")),
    ],
)
def test_who_won(end: Any, stocks: Any, percent: Any, placed: Any, expected: Any) -> None:
    assert winner(end, stocks, percent, placed) == expected


def test_every_end_method_has_judges() -> None:
    assert set(facts.WINNER_RULES) == {None, *facts.END_METHODS.values()}


def test_a_quit_names_the_quitter() -> None:
    quit_game = make_game(6, quit=True)
    about = rows_of(parse(quit_game.slp))["games"][0]
    assert about["end_method"] == "no_contest"
    assert about["winner_by"] == "quit"
    assert about["winner_side"] == 1 - about["lras_side"]


# --- words ----------------------------------------------------------------------------------------


def test_both_recordings_of_a_game_share_key_and_bucket() -> None:
    first = parse(make_game(8, n_frames=300, rollbacks=True).slp)
    second = parse(make_game(8, n_frames=300, rollbacks=True, recording=1).slp)
    other = parse(make_game(9, n_frames=300, rollbacks=True).slp)
    keys = [natural_key(parsed.footer) for parsed in (first, second, other)]
    assert keys[0] == keys[1] != keys[2]
    assert rows_of(first)["games"][0]["bucket"] == facts.bucket(keys[1])
    without = [changed(g, start__match={"id": ""}) for g in (first, second, other)]
    keys = [natural_key(parsed.footer) for parsed in without]
    assert keys[0] == keys[1] != keys[2]


def test_the_fallback_key_is_of_the_bytes_that_the_reference_names(game: ParsedGame) -> None:
    start = bytearray(base64.b64decode(game.footer["start_bytes"]))
    plain = changed(game, start__match={"id": ""})
    key = natural_key(plain.footer)
    for offset, same in ((0x4, True), (0x5, False), (0x140, False), (0x141, True)):
        other = start.copy()
        other[offset - 1] ^= 1  # the payload lacks the event's code
        text = base64.b64encode(other).decode()
        assert (natural_key(changed(plain, start_bytes=text).footer) == key) == same


@pytest.mark.parametrize(
    ("match_id", "scene", "mode"),
    [
        ("mode.ranked-2023-01-01T00:00:00.00-0", 8, "ranked"),
        ("mode.unranked-x", 8, "unranked"),
        ("mode.direct-x", 8, "direct"),
        ("mode.teams-x", 8, "teams"),
        ("mode.other-x", 8, "online"),
        ("", 8, "online"),
        ("", 2, "local"),
        ("", None, None),
    ],
)
def test_mode(match_id: str, scene: int | None, mode: str | None, game: ParsedGame) -> None:
    words = {"start__match": {"id": match_id, "game": 1, "tiebreaker": 0}}
    words["start__scene"] = {"major": scene, "minor": 2} if scene else None  # type: ignore[assignment]
    assert rows_of(changed(game, **words))["games"][0]["mode"] == mode


@pytest.mark.parametrize(
    ("text", "year"),
    [("2020-01-02T03:04:05Z", 2020), ("2019-12-31T23:00:00-05:00", 2020),
     ("2018-06-22T07:52:59", 2018), ("soon", None), (5, None), (None, None),
     ("0001-01-01T00:00:00+14:00", None)],
)  # fmt: skip
def test_started_at_is_utc_or_unknown(text: Any, year: int | None, game: ParsedGame) -> None:
    at = rows_of(changed(game, metadata={"startAt": text}))["games"][0]["started_at"]
    assert (at and at.year) == year


def test_names_are_normalised_and_ranks_read(game: ParsedGame) -> None:
    players = copy.deepcopy(game.footer["start"]["players"])
    players[0] |= {"netplay": {"name": "Some One", "code": "ＦＯＸ＃１２３", "suid": ""}}
    players[0]["name_tag"] = "ＡＢ　１"
    players[1] |= {"netplay": {"name": "Platinum Player", "code": "", "suid": ""}, "name_tag": ""}
    first, second = rows_of(changed(game, start__players=players, metadata=None))["players"]
    assert (first["code"], first["tag"], first["name"]) == ("FOX#123", "AB 1", "Some One")
    assert (second["code"], second["tag"], second["rank"]) == (None, None, "platinum")
    assert first["rank"] is None


def test_names_of_old_games_stand_in_the_metadata() -> None:
    parsed = parse(make_game(1, version=(2, 0), n_frames=200, ports=(1, 3)).slp)
    names = {"2": {"names": {"netplay": "Some One", "code": "ABC#1"}}, "0": "no object"}
    first, second = rows_of(changed(parsed, metadata={"players": names}))["players"]
    assert (first["code"], second["code"], second["name"]) == (None, "ABC#1", "Some One")


@pytest.mark.parametrize("metadata", [None, {}, {"players": []}, {"players": {"0": {"names": 3}}}])
def test_any_metadata_will_do(metadata: Any, game: ParsedGame) -> None:
    assert rows_of(changed(game, metadata=metadata))["games"][0]["platform"] is None


def test_numbers_that_no_column_holds_are_unknown(game: ParsedGame) -> None:
    players = copy.deepcopy(game.footer["start"]["players"])
    players[0]["costume"] = 200
    rows = rows_of(changed(game, start__players=players))
    assert rows["players"][0]["costume"] is None
    assert rows["perspectives"][1]["opp_costume"] is None


@pytest.mark.parametrize(
    ("version", "n_frames", "flag", "frozen"),
    [((3, 19), 300, True, True), ((3, 19), 300, False, False), ((3, 18), 300, True, None),
     ((3, 16), 300, True, None)],
)  # fmt: skip
def test_frozen_stadium(
    version: tuple[int, int], n_frames: int, flag: bool, frozen: bool | None
) -> None:
    parsed = parse(make_game(2, version=version, stage="stadium", n_frames=n_frames).slp)
    about = rows_of(changed(parsed, start__is_frozen_ps=flag))["games"][0]
    assert about["is_frozen_stadium"] is frozen


def test_elsewhere_no_stadium_is_frozen(game: ParsedGame) -> None:
    assert rows_of(game)["games"][0]["is_frozen_stadium"] is None
