"""The container gives its parts, names what is wrong, and never dies of hostile bytes."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import slp
from ingest.container import KNOWN_PAYLOADS, open_container
from ingest.rules import RULES, Refusal
from ingest.synthetic import make_game

GAME = make_game(1, n_frames=200, version=(3, 19)).slp
RAW = len(slp.MAGIC) + 4
RAW_STOP = RAW + int.from_bytes(GAME[RAW - 4 : RAW], "big")


def with_metadata(tail: bytes) -> bytes:
    return GAME[:RAW_STOP] + b"U\x08metadata" + tail + b"}"


def outcome(data: bytes) -> str:
    try:
        open_container(data)
    except Refusal as refused:
        return refused.rule
    return "open"


def test_a_whole_file() -> None:
    container = open_container(GAME)
    assert not container.newer_than_parser
    assert container.repairs == ()
    assert container.metadata is not None
    assert isinstance(container.metadata["startAt"], str)
    assert b"".join(container.plain) == GAME[:RAW_STOP] + b"}"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "not_a_replay"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not_a_replay"),
        (GAME[:12], "not_a_replay"),
        (GAME[: len(GAME) // 2], "truncated"),
        (GAME[: RAW + 8], "truncated"),
        (GAME[:RAW] + b"\x00" + GAME[RAW + 1 :], "unreadable"),
        (GAME[: RAW - 4] + bytes(4) + GAME[RAW : RAW_STOP - 7], "unfinished"),
    ],
)
def test_what_is_wrong_has_a_name(data: bytes, rule: str) -> None:
    assert outcome(data) == rule


def test_length_zero_with_a_game_end_is_whole() -> None:
    container = open_container(GAME[: RAW - 4] + bytes(4) + GAME[RAW:])
    assert b"".join(container.plain) == GAME[:RAW_STOP] + b"}"


@pytest.mark.parametrize("change", ["larger", "unknown"])
def test_a_newer_slippi_is_marked(change: str) -> None:
    data = bytearray(GAME)
    sizes = slp.split(GAME).sizes
    at = RAW + 2 + 3 * list(sizes).index(0x38)
    data[at : at + 3] = (
        struct.pack(">BH", 0x38, sizes[0x38] + 4)
        if change == "larger"
        else struct.pack(">BH", 0x77, 4)
    )
    assert open_container(bytes(data)).newer_than_parser


def test_known_payloads_are_those_of_the_newest_version() -> None:
    expected = {0x36: 760, 0x37: 66, 0x38: 84, 0x39: 6, 0x3A: 12, 0x3B: 44, 0x3C: 8, 0x3F: 9,
                0x40: 5, 0x41: 8}  # fmt: skip
    assert {code: KNOWN_PAYLOADS[code] for code in expected} == expected


METADATA: list[tuple[bytes, Any]] = [
    (b"{}", {}),
    (b"{i\x01aU\x07U\x01bl\xff\xff\xff\xff}", {"a": 7, "b": -1}),
    (b"{U\x01aTU\x01bFU\x01cZU\x01dCxU\x01ei\xff}",
     {"a": True, "b": False, "c": None, "d": "x", "e": -1}),
    (b"{U\x01a[U\x01SU\x02hi[]]}", {"a": [1, "hi", []]}),
    (b"{U\x01a[$U#U\x03\x01\x02\x03}", {"a": [1, 2, 3]}),
    (b"{U\x01a{#U\x01U\x01bd\x3f\x80\x00\x00}", {"a": {"b": 1.0}}),
    (b"{U\x01ad\x7f\xc0\x00\x00}", {"a": "nan"}),
    (b"{U\x01aSU\x02\xff\xfe}", {"a": "��"}),
]  # fmt: skip


@pytest.mark.parametrize(("tail", "value"), METADATA)
def test_metadata_of_every_type(tail: bytes, value: Any) -> None:
    assert open_container(with_metadata(tail)).metadata == value


@pytest.mark.parametrize(
    "tail",
    [
        b"{U\x01a" * 15_000,  # peppi dies of it
        b"[" * 200,
        b"{U\x01a[$Z#l\x7f\xff\xff\xff}",  # nine bytes that stand for two thousand million values
        b"{U\x01aSl\x7f\xff\xff\xffx}",
        b"{U\x01aSi\xff}",
        b"{U\x01a[$U\x01\x01]}",
        b"U\x05",
        b"{U",
        b"",
    ],
)
def test_bad_metadata_costs_the_metadata_alone(tail: bytes) -> None:
    container = open_container(with_metadata(tail))
    assert container.metadata is None
    assert container.repairs == ("metadata_unreadable",)


def test_a_missing_brace_is_noted() -> None:
    assert open_container(GAME[:RAW_STOP]).repairs == ("metadata_missing",)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_container_or_a_rule(data: st.DataObject) -> None:
    mutated = bytearray(GAME[:900] + GAME[-200:])
    for _ in range(data.draw(st.integers(0, 8))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutated)))
    assert outcome(bytes(mutated[:cut])) in {"open", *RULES}
