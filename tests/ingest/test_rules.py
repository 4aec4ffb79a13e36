"""Each rule has a meaning, and the start block alone refuses what cannot be a game of two."""

import pytest

from ingest.replay import parse
from ingest.rules import RULES, START_RULES, Refusal, StartBlock, check_start
from ingest.synthetic import make_game
from schemas.names import SPECIAL_MODE_STAGES

GAME = make_game(1, n_frames=200, ports=(1, 3)).slp
AT = GAME.index(b"\x36\x03\x13", 40)  # game start, Slippi 3.19
TYPE = 0x66  # of port 1; the others follow by 0x24


def patched(offset: int, value: bytes) -> bytes:
    data = bytearray(GAME)
    data[AT + offset : AT + offset + len(value)] = value
    return bytes(data)


def refusal(data: bytes) -> Refusal | None:
    try:
        parse(data)
    except Refusal as refused:
        return refused
    return None


def test_names_and_meanings() -> None:
    assert {name for name, _ in START_RULES} <= set(RULES)
    assert all(meaning and name.islower() for name, meaning in RULES.items())


def test_ports_and_stage() -> None:
    start = StartBlock(GAME[AT + 1 : AT + 761])
    assert start.ports == (1, 3)
    assert start.scene in (2, 8)
    check_start(start)


@pytest.mark.parametrize("stage", sorted(SPECIAL_MODE_STAGES)[:3])
def test_special_stages(stage: int) -> None:
    found = refusal(patched(0x13, stage.to_bytes(2, "big")))
    assert found
    assert found.rule == "special_mode"


@pytest.mark.parametrize(("scene", "detail"), [(15, "Target Test"), (32, "Home-Run Contest")])
def test_special_scenes(scene: int, detail: str) -> None:
    found = refusal(patched(0x1A4, bytes([scene])))
    assert found
    assert (found.rule, found.detail) == ("special_mode", detail)


@pytest.mark.parametrize(("port", "kind", "n"), [(0, 3, 1), (1, 0, 3), (3, 1, 3)])
def test_other_numbers_of_players(port: int, kind: int, n: int) -> None:
    found = refusal(patched(TYPE + 0x24 * port, bytes([kind])))
    assert found
    assert found.rule == "not_two_players"
    assert found.detail.startswith(f"{n} players")


@pytest.mark.parametrize(("offset", "value"), [(0xD, 1), (0x1A1, 1), (TYPE, 1), (TYPE, 2)])
def test_teams_flag_pal_and_cpu_stay(offset: int, value: int) -> None:
    assert refusal(patched(offset, bytes([value]))) is None


def test_a_start_without_frames() -> None:
    first_frame = GAME.index(b"\x3a\xff\xff\xff\x85", AT)
    raw = GAME[15:first_frame]
    found = refusal(GAME[:11] + len(raw).to_bytes(4, "big") + raw + b"}")
    assert found
    assert found.rule == "no_frames"
