"""Each kind of damage made, rescued, named, and told from what the undamaged replay says."""

import base64
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.facts import GameFile, game_rows, natural_key
from ingest.repair import REPAIRS, Rescued, rescue
from ingest.replay import ParsedGame, parse
from ingest.rules import Refusal
from ingest.slp import GAME_END, MAGIC, PAYLOADS
from ingest.synthetic import make_game
from schemas.game import leaves
from tests.ingest.streams import (
    CODE,
    RAW,
    Stream,
    assert_prefix,
    assert_same_game,
    take_apart,
)
from tests.ingest.test_replay import assert_equals_truth, leaf

VERSIONS = [(1, 0), (2, 2), (3, 3), (3, 19)]
FILE = GameFile("00" * 16, 1, bytes(32), 1)


@cache
def replay(version: tuple[int, int] = (3, 19)) -> bytes:
    """A short game of Ice Climbers, whose Nana is out for a while, as a version writes it."""
    return make_game(11, chars=("ice_climbers", "fox"), stage="fod", version=version,
                     n_frames=400).slp  # fmt: skip


@cache
def whole(version: tuple[int, int] = (3, 19)) -> ParsedGame:
    return parse(replay(version))


def refusal(data: bytes, *, repair: bool = True) -> Refusal:
    with pytest.raises(Refusal) as refused:
        parse(data, repair=repair)
    return refused.value


def rescued(data: bytes, *steps: str, version: tuple[int, int] = (3, 19)) -> ParsedGame:
    """The game, repaired by just these steps, its rows the first ones of the whole game."""
    game = parse(data)
    assert game.footer["repairs"] == [s for s in REPAIRS if s in {*steps, *always(version)}]
    assert refusal(data, repair=False).detail == f"declined: {', '.join(game.footer['repairs'])}"
    assert game.footer["replay_bytes"] == len(data)
    assert game.footer["start"]["slippi"] == whole(version).footer["start"]["slippi"]
    rows = game_rows(game.table, game.footer, FILE)
    assert rows["games"][0]["repaired"] is True
    assert_prefix(game.table, whole(version).table)
    return game


def rescued_bytes(data: bytes) -> Rescued:
    return rescue(data, Refusal("truncated", "made so"))


def always(version: tuple[int, int]) -> set[str]:
    return {"relaid"} if (3, 0) <= version < (3, 7) else set()


def test_names_and_meanings() -> None:
    assert all(meaning and name.isidentifier() and name.islower() for name, meaning in
               REPAIRS.items())  # fmt: skip


# --- cut ------------------------------------------------------------------------------------------


def nth_frame(stream: Stream, n: int) -> int:
    """Number of the first event of the nth frame."""
    frames = [int.from_bytes(event[1:5], "big", signed=True) for event in stream.events[1:]]
    return 1 + frames.index(n - 123)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("way", ["truncated", "unfinished", "container_missing"])
def test_a_cut_replay_keeps_its_whole_frames(version: tuple[int, int], way: str) -> None:
    stream = take_apart(replay(version))
    length = len(stream.raw())
    stream.events = stream.events[: nth_frame(stream, 200) + 3]  # all pre-frame events, no more
    stream.tail = stream.events.pop()[:20]
    files = {
        "truncated": stream.pack(length),
        "unfinished": stream.pack(0),
        "container_missing": stream.raw() + stream.tail,
    }
    game = rescued(files[way], way, version=version)
    assert len(game.table) == 200
    assert (game.footer["end"], game.footer["metadata"]) == (None, None)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_a_hole_ends_the_game_and_leaves_the_metadata(version: tuple[int, int]) -> None:
    stream = take_apart(replay(version))
    # the hole begins inside the last event of a frame: its number is whole, its values are not
    last = nth_frame(stream, 200) - 1
    stream.events[last] = stream.events[last][:5]
    stream.events[last + 1 : last + 9] = [bytes(600)]
    game = rescued(stream.pack(), "events_cut", version=version)
    assert len(game.table) == 199
    assert game.footer["end"] is None
    assert game.footer["metadata"] == whole(version).footer["metadata"]


def test_a_length_that_is_too_short() -> None:
    data = replay()
    length = int.from_bytes(data[RAW - 4 : RAW], "big")
    game = rescued(data[: RAW - 4] + struct.pack(">I", length // 2) + data[RAW:], "wrong_length")
    assert_same_game(game, whole())


def test_a_second_game_behind_the_first() -> None:
    stream = take_apart(replay())
    stream.events.pop()
    first = stream.raw() + stream.events[0] + stream.raw()
    game = rescued(MAGIC + bytes(4) + first, "unfinished", "events_cut")
    assert len(game.table) == len(whole().table) - 1


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_anywhere_is_refused_by_a_rule_or_gives_a_prefix(
    version: tuple[int, int], data: st.DataObject
) -> None:
    slp = replay(version)
    at = data.draw(st.integers(0, len(slp) - 1))
    for cut in (slp[:at], slp[RAW:at]):
        try:
            game = parse(cut)
        except Refusal as refused:
            rule = refused.rule
        else:
            rule = ""
            assert game.footer["repairs"]
            assert_prefix(game.table, whole(version).table)
            assert len(game.table) >= (at - 2000) // 700
        assert rule in ("", "not_a_replay", "truncated", "no_frames", "unreadable")
        assert not rule or at < 2000


# --- frames and events ----------------------------------------------------------------------------


def without(game: ParsedGame, rows: list[int]) -> pa.Table:
    return game.table.take(pa.array(np.delete(np.arange(len(game.table)), rows)))


@pytest.mark.parametrize("version", [(2, 2), (3, 3), (3, 19)], ids=str)
@pytest.mark.parametrize("event", ["pre", "post", "start"])
def test_a_lost_event_costs_its_frame(version: tuple[int, int], event: str) -> None:
    stream = take_apart(replay(version))
    del stream.events[next(n for n in stream.numbers(event) if n >= nth_frame(stream, 150))]
    game = parse(stream.pack())
    # before 3.0 nothing says where a frame ends: without its start it is the rest of the last one
    lost = [149, 150] if (event, version) == ("start", (2, 2)) else [150]
    assert set(game.footer["repairs"]) == {*always(version), "frames_dropped"}
    assert_prefix(game.table, without(whole(version), lost))
    assert len(game.table) == len(whole(version).table) - len(lost)
    assert game.footer["end"] == whole(version).footer["end"]


def test_a_frame_begun_twice() -> None:
    stream = take_apart(replay())
    at = nth_frame(stream, 150)
    stream.events[at:at] = stream.events[at : at + 4]
    assert_same_game(rescued(stream.pack(), "frames_dropped"), whole())


def test_rollbacks_of_a_replay_laid_out_anew() -> None:
    made = make_game(3, chars=("ice_climbers", "fox"), stage="fod", version=(3, 3), n_frames=900,
                     rollbacks=True)  # fmt: skip
    game = parse(made.slp)
    assert game.footer["repairs"] == ["relaid"]
    assert game.footer["rollback_rows"] == len(made.order) - made.truth.n_frames > 0
    assert_equals_truth(made, game.table)


@pytest.mark.parametrize("version", [(1, 0), (3, 19)], ids=str)
def test_frames_that_repeat_for_ever_cost_no_more_than_once(version: tuple[int, int]) -> None:
    """128 MB of them took a worker 1.4 GB; only the last copies are laid out anew now."""
    stream = take_apart(replay(version))
    start, *frames, end = stream.events
    wrong = [event[:8] + bytes(len(event) - 8) for event in frames]
    stream.events = [start, *wrong * 4, *frames, end]
    cut = stream.pack()[: -len(end) - len(stream.tail)]
    made_whole = rescued_bytes(cut)
    assert made_whole.repeated == 4 * len(whole(version).table)
    assert len(b"".join(made_whole.replay)) < 1.01 * len(replay((3, 19)))
    game = parse(cut)
    assert_prefix(game.table, whole(version).table)
    assert len(game.table) == len(whole(version).table)
    assert game.footer["rollback_rows"] == made_whole.repeated


def test_a_frame_begun_twice_before_frames_had_starts() -> None:
    stream = take_apart(replay((1, 0)))
    at = nth_frame(stream, 150)
    stream.events[at:at] = stream.events[at : at + 3]
    game = parse(stream.pack())
    assert game.footer["repairs"] == ["frames_dropped", "frames_missing"]
    assert_prefix(game.table, without(whole((1, 0)), [150]))


def test_frame_numbers_that_jump_before_2_2() -> None:
    stream = take_apart(replay((1, 0)))
    del stream.events[nth_frame(stream, 150) : nth_frame(stream, 160)]
    game = parse(stream.pack())
    assert game.footer["repairs"] == ["frames_missing"]
    assert_prefix(game.table, without(whole((1, 0)), list(range(150, 160))))
    assert game_rows(game.table, game.footer, FILE)["games"][0]["stretches"] == [150, 240]


@pytest.mark.parametrize("port", [2, 200])
def test_events_of_a_port_where_nobody_plays(port: int) -> None:
    stream = take_apart(replay())
    free = next(n for n in range(4) if n + 1 not in (leaf(whole().table, f"p{s}.port")[0].as_py()
                                                     for s in (0, 1)))  # fmt: skip
    for n in stream.numbers("pre")[::-5]:
        stranger = bytearray(stream.events[n])
        stranger[5] = free if port < 4 else port
        stream.events.insert(n, bytes(stranger))
    assert_same_game(rescued(stream.pack(), "events_dropped"), whole())


def test_garbage_after_game_end() -> None:
    stream = take_apart(replay((3, 3)))
    stream.events.append(bytes(99))
    assert_same_game(rescued(stream.pack(), version=(3, 3)), whole((3, 3)))


# --- the table ------------------------------------------------------------------------------------


def test_an_event_of_no_bytes() -> None:
    stream = take_apart(replay())
    stream.sizes[0xFF] = 0
    for n in stream.numbers("start")[::-7]:
        stream.events.insert(n, b"\xff")
    game = rescued(stream.pack(), "table_zero_size")
    assert_same_game(game, whole())
    assert game.footer["newer_than_parser"] is False


def test_a_table_without_game_end() -> None:
    stream = take_apart(replay())
    del stream.sizes[GAME_END]
    stream.events.pop()
    game = rescued(stream.pack(), "table_no_end")
    assert len(game.table) == len(whole().table)
    assert game.footer["end"] is None


def test_a_development_build_of_3_17() -> None:
    """Stage events came before their version, the raw c-stick after it."""
    stream = take_apart(replay((3, 18)))
    stream.sizes[CODE["pre"]] = 64
    stream.events = [e[:65] if e[0] == CODE["pre"] else e for e in stream.events]
    stream.patch_start("version", 0, bytes((3, 17)))
    game = parse(stream.pack())
    assert game.footer["repairs"] == ["relaid"]
    assert game.footer["start"]["slippi"] == {"version": [3, 17, 0]}
    gone = {f"p{s}{f}.raw_analog_cstick_{axis}" for s in (0, 1) for axis in "xy"
            for f in ("", ".follower") if s == 0 or not f}  # fmt: skip
    assert set(leaves(whole((3, 18)).table.schema)) - set(leaves(game.table.schema)) == gone
    heights = leaf(game.table, "stage.fod_platform_left")
    assert heights == leaf(whole((3, 18)).table, "stage.fod_platform_left")


@pytest.mark.parametrize(("event", "size"), [("pre", 57), ("post", 5), ("end", 3)])
def test_payloads_that_are_too_short_for_any_version(event: str, size: int) -> None:
    stream = take_apart(replay())
    stream.sizes[CODE[event]] = size
    assert refusal(stream.pack()).rule == "unreadable"


# --- codes and text -------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "code", "key", "known"), [
    (1, 6, "method", None), (1, 9, "method", None), (2, 9, "lras_initiator", None),
    (3, 77, "players", 1),
])  # fmt: skip
def test_codes_of_game_end(offset: int, code: int, key: str, known: int | None) -> None:
    stream = take_apart(replay())
    port = leaf(whole().table, "p0.port")[0].as_py() - 1 if key == "players" else 0
    stream.patch(-1, offset + port, bytes([code]))
    payload = stream.events[-1][1:]
    game = rescued(stream.pack(), "end_code")
    assert len(game.table) == len(whole().table)
    expected = whole().footer["end"] | {"bytes": base64.b64encode(payload).decode()}
    told = game.footer["end"]
    assert {k: v for k, v in told.items() if k != key} == {
        k: v for k, v in expected.items() if k != key
    }
    assert told[key] == known if known is None else len(told[key]) == known
    if key == "method":
        assert game_rows(game.table, game.footer, FILE)["games"][0]["end_method"] is None


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("steps", [(), ("end_code",)])
def test_end_and_start_have_the_keys_of_their_version(
    version: tuple[int, int], steps: tuple[str, ...]
) -> None:
    stream = take_apart(replay(version))
    if steps:
        stream.patch(-1, 1, b"\x06")
    else:
        stream.sizes[0xFF] = 0
        steps = ("table_zero_size",)
    game = rescued(stream.pack(), *steps, version=version)
    since = {"lras_initiator": (2, 0), "players": (3, 13), "method": (0, 1), "bytes": (0, 1)}
    assert set(game.footer["end"]) == {key for key, first in since.items() if first <= version}
    assert game.footer["start"] == whole(version).footer["start"]
    since = {"is_pal": (1, 5), "is_frozen_ps": (2, 0), "scene": (3, 7), "language": (3, 12),
             "match": (3, 14)}  # fmt: skip
    assert since.keys() & game.footer["start"] == {k for k, v in since.items() if v <= version}


def test_a_player_type_that_there_is_not() -> None:
    stream = take_apart(replay())
    first, second = (leaf(whole().table, f"p{s}.port")[0].as_py() - 1 for s in (0, 1))
    free = next(n for n in range(4) if n not in (first, second))
    stream.patch_start("type", free, b"\x07")
    assert_same_start(rescued(stream.pack(), "player_type"), "type", (None, None))
    stream.patch_start("type", second, b"\x09")
    game = rescued(stream.pack(), "player_type")
    assert_same_start(game, "type", (None, "unknown"))
    types = [row["type"] for row in game_rows(game.table, game.footer, FILE)["players"]]
    assert types == ["human", None]


def assert_same_start(
    game: ParsedGame, key: str, changed: tuple[object, object], unknown: str = "unknown"
) -> None:
    """Players as in the whole game but for one key, where `changed` says what it is now."""
    for now, then, value in zip(
        game.footer["start"]["players"], whole().footer["start"]["players"], changed, strict=True
    ):
        expected = then[key] if value is None else None if value == unknown else value
        assert now == then | {key: expected}


def test_followers_of_a_character_that_has_none() -> None:
    """External 32 is Popo: peppi knows a follower with 14 alone."""
    stream = take_apart(replay())
    stream.patch_start("character", leaf(whole().table, "p0.port")[0].as_py() - 1, b"\x20")
    game = rescued(stream.pack(), "follower")
    assert len(game.table) == len(whole().table)
    assert_same_start(game, "character", (32, None))


TEXTS: list[tuple[str, bytes, Callable[[dict[str, object]], object], object]] = [
    ("name_tag", b"\x82\x60\xfd\x82\x61\0", lambda p: p["name_tag"], "Ａ"),
    ("netplay_name", b"AB\x81\0", lambda p: p["netplay"]["name"], "AB"),  # type: ignore[index]
    ("netplay_code", b"AB\x81\x94\xa0\0", lambda p: p["netplay"]["code"], ""),  # type: ignore[index]
    ("netplay_suid", b"abc\xff\0", lambda p: p["netplay"]["suid"], ""),  # type: ignore[index]
    ("dash_back", b"\0\0\0\x07", lambda p: p["ucf"]["dash_back"], None),  # type: ignore[index]
    ("shield_drop", b"\x01\0\0\0", lambda p: p["ucf"]["shield_drop"], None),  # type: ignore[index]
]


@pytest.mark.parametrize(("field", "value", "told", "expected"), TEXTS, ids=[t[0] for t in TEXTS])
def test_bytes_of_game_start_that_say_nothing(
    field: str, value: bytes, told: Callable[[dict[str, object]], object], expected: object
) -> None:
    stream = take_apart(replay())
    port = leaf(whole().table, "p1.port")[0].as_py() - 1
    stream.patch_start(field, port, value)
    step = "start_code" if field in ("dash_back", "shield_drop") else "start_text"
    game = rescued(stream.pack(), step)
    assert len(game.table) == len(whole().table)
    assert told(game.footer["start"]["players"][1]) == expected
    assert game.footer["start"]["players"][0] == whole().footer["start"]["players"][0]
    assert value in base64.b64decode(game.footer["start_bytes"])


def test_an_unknown_language() -> None:
    stream = take_apart(replay())
    stream.patch_start("language", 0, b"\x44")
    game = rescued(stream.pack(), "start_code")
    assert game.footer["start"] == whole().footer["start"] | {"language": None}


def test_a_match_id_that_cannot_be_read_names_no_game() -> None:
    """The key is then that of a game without one; a piece of an id could be another game's."""
    stream = take_apart(replay())
    stream.patch_start("match_id", 0, b"mode.ranked-2023\xff\xfe")
    game = rescued(stream.pack(), "start_text")
    assert game.footer["start"]["match"]["id"] == ""
    blank = take_apart(replay())
    blank.patch_start("match_id", 0, bytes(51))
    assert natural_key(game.footer) == natural_key(parse(blank.pack()).footer)


# --- what stays refused ---------------------------------------------------------------------------


def test_rules_judge_the_repaired_start() -> None:
    stream = take_apart(replay())
    stream.patch_start("stage", 0, b"\x00\x21")
    stream.patch(-1, 1, b"\x06")
    assert refusal(stream.pack()[:20_000]).rule == "special_mode"
    stream = take_apart(replay())
    stream.patch_start("type", leaf(whole().table, "p0.port")[0].as_py() - 1, b"\x09")
    stream.events = [e for e in stream.events if e[0] not in (CODE["pre"], CODE["post"])]
    found = refusal(stream.pack())
    assert (found.rule, found.detail[:9]) == ("not_two_players", "1 players")


@pytest.mark.parametrize("repair", [True, False])
def test_what_no_rescue_helps_keeps_its_rule(repair: bool) -> None:
    data = replay()
    begun = data[: RAW - 4] + bytes(4) + data[RAW:]
    first = data.index(b"\x3a\xff\xff\xff\x85")
    for cut, rule in ((data[:4], "not_a_replay"), (data[:RAW], "unreadable"),
                      (data[:300], "truncated"), (begun[:300], "unfinished"),
                      (begun[: first + 5], "no_frames"), (begun[: first + 90], "unreadable"),
                      (data[RAW : RAW + 300], "not_a_replay")):  # fmt: skip
        assert refusal(cut, repair=repair).rule == rule


def test_bytes_of_no_sense_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk is bounded: a table may say that every byte is an event."""
    monkeypatch.setattr("ingest.slp.EVENTS_MAX", 20_000)
    monkeypatch.setattr("ingest.container.EVENTS_MAX", 20_000)
    stream = take_apart(replay())
    stream.events = stream.events[: nth_frame(stream, 20)]
    stream.sizes[0] = 0
    stream.tail = bytes(30_000)
    game = rescued(stream.pack(0), "unfinished", "table_zero_size")
    assert len(game.table) == 20
    noise = bytes([PAYLOADS, 7, 0x36, 1, 64, 0, 0, 1, 0x36]) + bytes(40_000)
    assert refusal(MAGIC + bytes(4) + noise).rule == "not_two_players"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_game_or_a_rule(data: st.DataObject) -> None:
    mutated = bytearray(replay(data.draw(st.sampled_from(VERSIONS)))[:30_000])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(0, 900), st.integers(0, len(mutated) - 1)))
        mutated[at] = data.draw(st.integers(0, 255))
    with suppress(Refusal):
        game = parse(bytes(mutated))
        game_rows(game.table, game.footer, FILE)
