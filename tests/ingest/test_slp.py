"""The container and its events: sizes as the format has them, and a reader that no bytes upset."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import slp
from ingest.synthetic import make_game
from tests.strategies import GROWTH

# Payload bytes by first version, without the code byte (reference/slippi.md 1, from the wiki).
SIZES = {
    0x36: {(0, 1): 320, (1, 0): 352, (1, 3): 416, (1, 5): 417, (2, 0): 418, (3, 7): 420,
           (3, 9): 584, (3, 11): 700, (3, 12): 701, (3, 14): 760},
    0x37: {(0, 1): 58, (1, 2): 59, (1, 4): 63, (3, 15): 64, (3, 17): 66},
    0x38: {(0, 1): 33, (0, 2): 37, (2, 0): 51, (2, 1): 52, (3, 5): 72, (3, 8): 76, (3, 11): 80,
           (3, 16): 84},
    0x39: {(0, 1): 1, (2, 0): 2, (3, 13): 6},
    0x3A: {(2, 2): 8, (3, 10): 12},
    0x3B: {(3, 0): 37, (3, 2): 41, (3, 6): 42, (3, 16): 44},
    0x3C: {(3, 0): 4, (3, 7): 8},
    0x3F: {(3, 18): 9},
    0x40: {(3, 18): 5},
    0x41: {(3, 18): 8},
}  # fmt: skip
GAME = make_game(5, chars=("fox", "falco"), stage="fod", n_frames=1000, rollbacks=True)
UNTOLD = {0x10, 0x3D}  # gecko codes: real files have them, ours need none


@pytest.mark.parametrize("version", GROWTH, ids=str)
def test_payload_sizes(version: tuple[int, int]) -> None:
    expected = {
        code: max(size for since, size in sizes.items() if since <= version)
        for code, sizes in SIZES.items()
        if min(sizes) <= version
    }
    assert slp.payload_sizes(version) == expected
    game = make_game(1, version=version, n_frames=20).slp
    assert slp.split(game).sizes == expected


def test_split_gives_every_event_in_the_order_of_a_frame() -> None:
    whole = slp.split(GAME.slp)
    assert (whole.fault, whole.version) == ("", (3, 19))
    codes = [code for code, _ in whole.events]
    assert (codes[0], codes[-1]) == (slp.GAME_START, slp.GAME_END)
    rank = {kind.code: n for n, kind in enumerate(slp.KINDS.values())}
    frames = "".join(chr(65 + rank[code]) for code in codes[1:-1]).split("A")[1:]
    assert len(frames) == len(GAME.order)
    assert all(list(frame) == sorted(frame) for frame in frames)
    assert slp.KINDS["fod_platform"].code in codes


def test_a_bare_stream_and_a_file_being_written_split_alike() -> None:
    begin = len(slp.MAGIC) + 4
    raw = GAME.slp[begin : begin + int.from_bytes(GAME.slp[begin - 4 : begin], "big")]
    whole = slp.split(GAME.slp)
    for data in (raw, slp.MAGIC + bytes(4) + raw):
        again = slp.split(data)
        assert again.fault == ""
        assert [c for c, _ in again.events] == [c for c, _ in whole.events]
        assert again.payloads(0x38) == whole.payloads(0x38)


@given(st.integers(0, len(GAME.slp)))
def test_a_cut_file_gives_what_is_whole(at: int) -> None:
    part, whole = slp.split(GAME.slp[:at]), slp.split(GAME.slp)
    n = len(part.events)
    assert part.events == whole.events[:n]
    assert part.stop <= at
    if n < len(whole.events):
        assert part.fault


@given(st.binary(max_size=400), st.booleans(), st.integers(0, 255))
def test_no_bytes_upset_the_reader(noise: bytes, wrapped: bool, n_table: int) -> None:
    data = bytes([slp.PAYLOADS, n_table]) + noise
    head = slp.MAGIC + struct.pack(">I", len(data)) if wrapped else b""
    found = slp.split(head + data)
    for code, at in found.events:
        assert 0 <= at <= at + found.sizes[code] <= len(head + data)
    assert found.version >= (0, 0)
    assert slp.split(noise).stop <= len(noise)


def test_a_hole_ends_the_walk_and_is_named() -> None:
    whole = slp.split(GAME.slp)
    _, at = whole.events[100]
    holed = GAME.slp[: at - 1] + bytes(600) + GAME.slp[at + 599 :]
    found = slp.split(holed)
    assert (found.fault, found.stop, len(found.events)) == ("event 0x00 has no size", at - 1, 100)


def test_records_of_another_version_are_padded_or_cut() -> None:
    game = make_game(1, version=(3, 2), n_frames=30)
    found = slp.split(game.slp)
    newer, older = found.records("post", (3, 19)), found.records("post", (0, 1))
    assert (newer["hitlag"] == 0).all()
    for name in ("position_x", "stocks"):
        assert newer[name].tolist() == older[name].tolist()
    assert "state_age" not in (older.dtype.names or ())


def test_ubjson() -> None:
    value = {"a": {"b": 1}, "c": "é"}
    assert slp.ubjson(value) == b"{U\x01a{U\x01bl\0\0\0\x01}U\x01cSU\x02\xc3\xa9}"


@pytest.mark.replays
def test_real_files_have_these_sizes(replays: Path) -> None:
    checked, odd = 0, 0
    for path in sorted(replays.rglob("*.slp")):
        found = slp.split(path.read_bytes()[:4096])
        if found.version == (0, 0) or slp.GAME_START not in found.sizes:
            continue
        checked += 1
        told = {code: size for code, size in found.sizes.items() if code not in UNTOLD}
        odd += told != slp.payload_sizes(min(found.version, (3, 19)))
    assert checked > 100
    assert odd <= 5, odd  # development builds of 3.17 and made files
