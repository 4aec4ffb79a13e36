"""Synthetic replays: every simulated value comes back, whoever reads, and the games make sense."""

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from peppi_py._peppi import read_slippi

from ingest import slp
from ingest.synthetic import Side, SyntheticGame, Truth, make_game, write_games
from ingest.synthetic import states as s
from schemas import columns, names
from schemas.columns import Column
from schemas.errors import UnknownNameError, UsageError
from tests.strategies import GROWTH, game_parameters, peppi_reads, peppi_versions, versions

Array = npt.NDArray[Any]

READABLE = [v for v in GROWTH if peppi_reads(v)]
LEADER_FOLLOWER = ("leader", "follower")
START_OF_SECOND_RECORDING = slice(0x5 - 1, 0x141 - 1)  # of the payload: game info and seed


# ---------------------------------------------------------------------------- reading


def peppi(folder: Path, game: SyntheticGame) -> Any:
    path = folder / "game.slp"
    path.write_bytes(game.slp)
    return read_slippi(str(path))


def leaf(array: pa.StructArray, path: str) -> Array:
    for name in path.split("."):
        array = array.field(name)
    assert array.null_count == 0, path
    values: Array = array.to_numpy(zero_copy_only=False)
    return values


def same(found: Array, expected: Array, what: str) -> None:
    np.testing.assert_array_equal(found, expected, what, strict=True)


def assert_columns(
    found: pa.StructArray,
    expected: Mapping[str, Array],
    group: tuple[Column, ...],
    prefix: str = "",
) -> None:
    told = [c for c in group if c.name in expected]
    assert {c.name for c in told} == set(expected)
    for column in told:
        same(leaf(found, column.source.removeprefix(prefix)), expected[column.name], column.name)


def assert_side(
    frames: pa.StructArray, side: Side, follower: int, *, has_frame_start: bool
) -> None:
    """All columns of one character, in the rows in which it is in the game.

    Before 2.2, where no event begins a frame, peppi closes the gap of a lost Nana: her later rows
    move up and the nulls stand at the end. (So it does with a real 2.0 game.)
    """
    found = frames.field("ports").field(f"P{side.port + 1}").field(LEADER_FOLLOWER[follower])
    valid = found.is_valid()
    if has_frame_start:
        same(valid.to_numpy(zero_copy_only=False), side.present, "present")
    expected = {name: values[side.present] for name, values in side.columns.items()}
    assert_columns(found.filter(valid), expected, columns.PLAYER)


def stage_of(frames: pa.StructArray, truth: Truth) -> dict[str, Array]:
    """The stage on each frame, from the events: what a reader carries forward."""
    state = {name: values[0] for name, values in truth.stage.items()}
    told: dict[str, list[Any]] = {name: [] for name in state}
    for row in frames:
        for event in row["fod_platform"].as_py():
            side = ("right", "left")[event["platform"]]
            state[f"fod_platform_{side}"] = event["height"]
        for event in row["dreamland_whispy"].as_py():
            state["whispy_direction"] = event["direction"]
        for event in row["stadium_transformation"].as_py():
            state |= {"stadium_event": event["event"], "stadium_type": event["type"]}
        for name, values in told.items():
            values.append(state[name])
    return {name: np.array(values, truth.stage[name].dtype) for name, values in told.items()}


def assert_game(folder: Path, game: SyntheticGame) -> None:
    """Everything that peppi reads, resolved to the last copy of each frame, is the truth."""
    truth = game.truth
    read = peppi(folder, game)
    ids = leaf(read.frames, "id")
    same(ids, truth.frame["frame"][game.order], "rows")
    frames = read.frames.take(pa.array(game.last_rows))
    assert_columns(frames, truth.frame, columns.FRAME)
    for follower, side in truth.characters:
        assert_side(frames, side, follower, has_frame_start=truth.setting.layout >= (2, 2))
    if truth.setting.layout >= (3, 0):
        items = frames.field("item")
        counts = np.diff(items.offsets.to_numpy()).tolist()
        assert counts == np.bincount(truth.item_row, minlength=len(frames)).tolist()
        assert_columns(items.flatten(), truth.items, columns.ITEM, "item.")
    if truth.setting.layout >= (3, 18):
        for name, found in stage_of(frames, truth).items():
            same(found, truth.stage[name], name)


@pytest.mark.parametrize("version", READABLE, ids=str)
def test_values_come_back(tmp_path: Path, version: tuple[int, int]) -> None:
    game = make_game(1, version=version, chars=("ice_climbers", "fox"), n_frames=700)
    assert len(game.truth.item_row) > 50 or version < (3, 0)
    assert_game(tmp_path, game)


@given(game_parameters(peppi_versions))
@settings(deadline=None, max_examples=25)
def test_values_come_back_of_any_game(
    tmp_path_factory: pytest.TempPathFactory, game: dict[str, Any]
) -> None:
    assert_game(tmp_path_factory.mktemp("game"), make_game(**game))


@pytest.mark.slow
@given(game_parameters(peppi_versions))
@settings(deadline=None, max_examples=50)
def test_values_come_back_of_any_long_game(
    tmp_path_factory: pytest.TempPathFactory, game: dict[str, Any]
) -> None:
    long = game | {"n_frames": 20 * game["n_frames"]}
    assert_game(tmp_path_factory.mktemp("game"), make_game(**long))


@given(game_parameters(versions))
@settings(deadline=None, max_examples=25)
def test_our_own_reader_finds_the_same(game: dict[str, Any]) -> None:
    """Also where peppi cannot read: 3.0 to 3.6."""
    made = make_game(**game)
    truth, found = made.truth, slp.split(made.slp)
    assert (found.fault, found.version) == ("", truth.setting.layout)
    for event in ("pre", "post"):
        records = found.records(event)
        for follower, side in truth.characters:
            own = records[(records["port"] == side.port) & (records["follower"] == follower)]
            last = {int(frame): n for n, frame in enumerate(own["frame"])}
            own = own[list(last.values())]
            # a lost Nana's last copies can be of rows that were taken back: drop those
            own = own[np.isin(own["frame"], truth.frame["frame"][side.present])]
            for column in columns.wire(event, truth.setting.layout, columns.PLAYER):
                expected = side.columns[column.name][side.present]
                same(own[column.name].astype(expected.dtype), expected, column.name)


def test_items_of_unreadable_versions_come_back() -> None:
    truth = (game := make_game(2, version=(3, 5), chars=("fox", "samus"), n_frames=1500)).truth
    records = slp.split(game.slp).records("item")
    same(records["frame"].astype(np.int32), truth.frame["frame"][truth.item_row], "frame")
    for name, values in truth.items.items():
        same(records[name].astype(values.dtype), values, name)


@pytest.mark.parametrize(("stage", "seed"), [("fod", 1), ("dream_land", 1), ("stadium", 2)])
def test_stage_events_say_what_the_stage_does(tmp_path: Path, stage: str, seed: int) -> None:
    game = make_game(seed, stage=stage, chars=("jigglypuff", "peach"), rollbacks=True)
    assert all(len(np.unique(values)) > 1 for values in game.truth.stage.values())
    assert_game(tmp_path, game)


# ---------------------------------------------------------------------------- a new column


def test_a_new_column_reaches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = slp.payload_sizes((3, 20))
    row = Column("spin", "post.spin", columns.F32, (3, 20), "split", "", "invented")
    monkeypatch.setattr(columns, "PLAYER", (*columns.PLAYER, row))
    game = make_game(1, version=(3, 20), n_frames=50)
    found = slp.split(game.slp)
    assert found.sizes == before | {slp.KINDS["post"].code: before[slp.KINDS["post"].code] + 4}
    assert found.records("post")["spin"].tolist() == [0.0] * 100
    assert game.truth.sides[0].columns["spin"].dtype == np.float32
    assert "spin" not in make_game(1, version=(3, 19), n_frames=50).truth.sides[0].columns
    assert len(peppi(tmp_path, game).frames) == 50


# ---------------------------------------------------------------------------- start, end, metadata


@pytest.mark.parametrize("version", READABLE, ids=str)
def test_start_says_what_was_chosen(tmp_path: Path, version: tuple[int, int]) -> None:
    game = make_game(2, version=version, chars=("marth", "puff"), stage="bf", ports=(2, 4),
                     n_frames=60)  # fmt: skip
    setting, start = game.truth.setting, peppi(tmp_path, game).start
    assert start["slippi"]["version"] == [*version, 0]
    assert (start["stage"], start["timer"], start["random_seed"]) == (31, 1, setting.seed)
    assert [(p["port"], p["character"], p["stocks"]) for p in start["players"]] == [
        ("P2", 9, 4), ("P4", 15, 4)]  # fmt: skip
    assert start.get("is_frozen_ps", setting.frozen) == setting.frozen
    assert start.get("is_pal", setting.pal) == setting.pal
    assert setting.online, "choose a seed whose game is"
    assert start.get("scene", {"major": 8, "minor": 2}) == {"major": 8, "minor": 2}
    for player, name, code in zip(start["players"], setting.names, setting.codes, strict=True):
        if version >= (3, 9):
            assert player["netplay"]["name"] == name
            assert player["netplay"]["code"] == code.replace("#", "＃")
    if version >= (3, 14):
        assert start["match"]["id"].startswith("mode.unranked-")
        assert start["match"]["game"] == setting.game_number


END_VERSIONS = [(1, 7), (2, 0), (3, 12), (3, 19)]


@pytest.mark.parametrize("version", END_VERSIONS, ids=str)
def test_a_game_that_ends_by_stocks(tmp_path: Path, version: tuple[int, int]) -> None:
    game = make_game(7, version=version)
    end = peppi(tmp_path, game).end
    assert end["method"] == ("Game" if version >= (2, 0) else "Resolved")
    left = [int(side.columns["stocks"][-1]) for side in game.truth.sides]
    assert sorted(left)[0] == 0 < sorted(left)[1]
    if version >= (3, 13):
        assert [p["placement"] for p in end["players"]] == [int(n == 0) for n in left]


@pytest.mark.parametrize("version", END_VERSIONS, ids=str)
def test_a_game_that_is_quit(tmp_path: Path, version: tuple[int, int]) -> None:
    game = make_game(7, version=version, quit=True)
    end, ports = peppi(tmp_path, game).end, game.truth.setting.ports
    assert end["method"] == ("NoContest" if version >= (2, 0) else "Unresolved")
    if version >= (2, 0):
        assert end["lras_initiator"] in [f"P{port + 1}" for port in ports]
    if version >= (3, 13):  # as in real games: first place goes to the one who quit
        first = next(p["port"] for p in end["players"] if p["placement"] == 0)
        assert first == end["lras_initiator"]


def test_a_game_that_runs_out_of_time(tmp_path: Path) -> None:
    read = peppi(tmp_path, make_game(7, n_frames=723))
    assert (len(read.frames), read.end["method"], read.start["timer"]) == (723, "Time", 10)


def test_end_and_metadata_can_be_missing(tmp_path: Path) -> None:
    game = make_game(7, n_frames=99, with_end=False, with_metadata=False)
    read = peppi(tmp_path, game)
    assert (read.end, read.metadata, len(read.frames)) == (None, None, 99)


def test_metadata(tmp_path: Path) -> None:
    game = make_game(7, chars=("ics", "falco"), n_frames=300, ports=(1, 3))
    found = peppi(tmp_path, game).metadata
    assert (found["lastFrame"], found["playedOn"]) == (300 - 124, "dolphin")
    assert found["players"]["0"]["characters"] == {"10": 300, "11": 300}
    assert found["players"]["2"]["characters"] == {"22": 300}
    assert found["players"]["2"]["names"]["code"] == game.truth.setting.codes[1]


# ---------------------------------------------------------------------------- rollbacks, recordings


def test_rollback_rows_repeat_frames_and_were_wrong() -> None:
    game = make_game(3, chars=("fox", "falco"), rollbacks=True, n_frames=2000)
    assert len(game.order) > 2050
    steps = np.diff(game.order)
    assert set(steps) <= set(range(-6, 2))
    assert (steps == 0).sum() > 2 * (steps < 0).sum()  # mostly by a single frame
    assert not game.wrong[game.last_rows].any()
    records = slp.split(game.slp).records("post")
    remote = records[records["port"] == game.truth.sides[1].port]
    final = game.truth.sides[1].columns["position_x"][game.order]
    differs = remote["position_x"].astype(np.float32) != final
    assert not differs[~game.wrong].any()
    assert differs[game.wrong].mean() > 0.3


def test_a_second_recording_is_the_same_game(tmp_path: Path) -> None:
    one, two = (
        make_game(3, rollbacks=True, n_frames=900, recording=recording) for recording in (0, 1)
    )
    starts = [slp.split(game.slp).payloads(slp.GAME_START)[0] for game in (one, two)]
    assert starts[0][START_OF_SECOND_RECORDING] == starts[1][START_OF_SECOND_RECORDING]
    assert len(one.order) != len(two.order)
    # each client is sure of its own side, and has to guess the other's
    for game, near in ((one, 0), (two, 1)):
        records = slp.split(game.slp).records("post")
        for n, side in enumerate(game.truth.sides):
            shown = records[records["port"] == side.port]["position_x"].astype(np.float32)
            assert (shown != side.columns["position_x"][game.order]).any() == (n != near)
    assert peppi(tmp_path, one).metadata["startAt"] != peppi(tmp_path, two).metadata["startAt"]
    assert_game(tmp_path, two)
    for a, b in zip(one.truth.sides, two.truth.sides, strict=True):
        for name, values in a.columns.items():
            same(values, b.columns[name], name)


# ---------------------------------------------------------------------------- the simulation

SOME_GAMES = [
    make_game(n, chars=chars, stage=stage, n_frames=2500)
    for n, (chars, stage) in enumerate(
        [(("fox", "marth"), "fd"), (("ics", "falco"), "ys"), (("peach", "samus"), "bf")]
    )
]


def moving(side: Side) -> Array:
    """Rows that begin and end in the air, out of hitlag, in a state that physics moves."""
    c = side.columns
    still = np.isin(c["state"], [s.REBIRTH, s.REBIRTH_WAIT, s.CLIFF_CATCH, s.CLIFF_WAIT,
                                 s.CLIFF_CLIMB, s.ENTRY, s.ENTRY_START])  # fmt: skip
    free = (c["airborne"] == 1) & (c["hitlag"] == 0) & (c["state"] > 10) & ~still
    rows: Array = free[1:] & free[:-1] & (c["position_y"][1:] > 0) & side.present[1:]
    return rows


@pytest.mark.parametrize("game", SOME_GAMES)
def test_displacement_is_the_sum_of_velocities(game: SyntheticGame) -> None:
    for _, side in game.truth.characters:
        c, rows = side.columns, moving(side)
        assert rows.sum() > 100
        x = c["velocities_self_x_air"] + c["velocities_knockback_x"]
        y = c["velocities_self_y"] + c["velocities_knockback_y"]
        for position, velocity in ((c["position_x"], x), (c["position_y"], y)):
            np.testing.assert_allclose(np.diff(position)[rows], velocity[1:][rows], atol=1e-4)


@pytest.mark.parametrize("game", SOME_GAMES)
def test_input_of_a_frame_causes_the_state_after_it(game: SyntheticGame) -> None:
    for side in game.truth.sides:
        c = side.columns
        same(c["pre_state"][1:], c["state"][:-1], "pre_state")
        jumps = np.flatnonzero((c["state"] == s.KNEE_BEND) & (c["state_age"] == 0))
        assert len(jumps)
        assert (c["buttons_physical"][jumps] & s.BUTTON_X).all()
        assert not (c["buttons_physical"][jumps - 1] & s.BUTTON_X).any()


@pytest.mark.parametrize("game", SOME_GAMES)
def test_flags_and_counters_agree(game: SyntheticGame) -> None:
    for follower, side in game.truth.characters:
        c = side.columns
        hitstun = c["state_flags_3"] & 0x02 > 0
        assert hitstun.any() or follower
        assert (c["misc_as"][hitstun] > 0).all()
        assert ((c["state_flags_1"] & 0x20 > 0) == (c["hitlag"] > 0)).all()
        assert ((c["state_flags_4"] & 0x40 > 0) == (c["state"] <= 10)).all()
        assert (c["instance_id"][c["state"] <= 10] == 0).all()
        landed = c["state"][c["l_cancel"] > 0]  # and may be hit on that very frame
        assert set(landed) <= set(range(70, 92)), set(landed)
        assert set(np.diff(c["stocks"].astype(int))) <= {0, -1}
        assert (np.abs(c["joystick_x"]) <= 1).all()
        assert np.isnan(c["misc_as"]).any(), "a model must meet what real files hold"


def test_games_hold_what_models_shall_learn() -> None:
    seen = {int(state) for g in SOME_GAMES for _, side in g.truth.characters
            for state in np.unique(side.columns["state"])}  # fmt: skip
    groups = [{0, 1, 2, 3}, {12}, {13}, {14}, {15, 16, 17}, {18}, {20}, {21}, {24}, {25, 26},
              {27, 28}, {29}, {42}, {44, 53, 56, 57}, {60, 63, 64}, set(range(65, 70)),
              set(range(70, 75)), set(range(75, 84)), {84, 85, 86}, set(range(87, 92)), {178},
              {180}, {181}, {233, 234}, {252}, {322}, {323}, {324}, {341}]  # fmt: skip
    assert [group for group in groups if not group & seen] == []
    items = {int(kind) for g in SOME_GAMES for kind in np.unique(g.truth.items["type"])}
    assert items >= {54, 55, 74, 75, 94, 99, 106, 210}


def test_items_fly_as_their_velocity_says() -> None:
    for game in SOME_GAMES:
        i = game.truth.items
        for number in np.unique(i["id"]):
            own = i["id"] == number
            assert len(np.unique(i["type"][own])) == 1
            assert (np.diff(game.truth.item_row[own]) == 1).all()
            assert (np.diff(i["timer"][own]) == -1).all()
            if i["type"][own][0] in names.PROJECTILES:
                moved = np.diff(i["position_x"][own])
                np.testing.assert_allclose(moved, i["velocity_x"][own][1:], atol=1e-4)
        assert i["id"].min() == 0
        ports = [side.port for side in game.truth.sides]
        assert set(np.unique(i["owner"])) <= {-1, *ports}


@pytest.mark.slow
def test_games_between_all_characters_end_by_stocks() -> None:
    for n, chars in enumerate(itertools.combinations(range(1, 26, 4), 2)):
        game = make_game(n, chars=chars, n_frames=12000)
        assert game.truth.end.method == 2, chars
        assert game.truth.n_frames > 600


# ---------------------------------------------------------------------------- determinism, files


def test_same_seed_same_bytes_in_any_process() -> None:
    code = (
        "import hashlib; from ingest.synthetic import make_game; print(hashlib.sha256("
        "make_game(11, chars=('ics', 'fox'), stage='ys', rollbacks=True, n_frames=800).slp)"
        ".hexdigest())"
    )
    here = make_game(11, chars=("ics", "fox"), stage="ys", rollbacks=True, n_frames=800).slp
    there = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"},
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert there.stdout.strip() == hashlib.sha256(here).hexdigest()
    assert make_game(12, n_frames=800).slp != make_game(13, n_frames=800).slp


def test_a_version_changes_the_file_and_not_the_fight() -> None:
    old, new = (make_game(9, version=v, n_frames=500).truth for v in ((0, 1), (3, 19)))
    for a, b in zip(old.sides, new.sides, strict=True):
        for name, values in a.columns.items():
            same(values, b.columns[name], name)


def test_write_games(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    paths = write_games(tmp_path, 3, 8, frames=(200, 400),
                        progress=lambda *done: calls.append(done))  # fmt: skip
    assert [p.name for p in paths] == ["game-8-0.slp", "game-8-1.slp", "game-8-2.slp"]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert sorted(tmp_path.iterdir()) == paths
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}
    paths[1].write_bytes(before[paths[1]][1][:-500])
    write_games(tmp_path, 4, 8, frames=(200, 400))
    assert [p.read_bytes() for p in paths] == [data for _, data in before.values()]
    assert paths[0].stat().st_mtime_ns == before[paths[0]][0]
    for path in paths:
        assert 200 <= len(np.unique(leaf(read_slippi(str(path)).frames, "id"))) <= 400
    write_games(tmp_path, 3, 8, (2, 0, 0), frames=(200, 400))
    assert [slp.split(p.read_bytes()).version for p in paths] == [(2, 0)] * 3


def test_a_quarter_is_fox() -> None:
    drawn = [c for n in range(300) for c in make_game(n, n_frames=1).truth.setting.characters]
    assert 0.18 < drawn.count(2) / len(drawn) < 0.32
    assert len(set(drawn)) > 15
    assert json.dumps(drawn)  # plain numbers


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"version": (2, 2), "rollbacks": True}, UsageError),
        ({"version": (3,)}, UsageError),
        ({"version": (3, 999)}, UsageError),
        ({"ports": (1, 1)}, UsageError),
        ({"ports": (0, 2)}, UsageError),
        ({"chars": ("fxo", "fox")}, UnknownNameError),
        ({"chars": (26, 2)}, UsageError),
        ({"stage": "corneria"}, UsageError),
        ({"n_frames": 0}, UsageError),
    ],
)
def test_what_no_game_can_be_is_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make_game(1, **wrong)
