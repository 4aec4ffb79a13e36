"""A .slpz gives back its .slp bit for bit, and what is none is told from it whatever it says."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.sources import item, items, slpz
from ingest.synthetic import make_game
from tests.ingest.slpz_files import assemble, columns, pack

MAX = item.REPLAY_BYTES_MAX
TABLE = b"\x35\x0a" + struct.pack(">BHBHBH", 0x36, 5, 0x37, 3, 0x38, 300)
START = b"\x36hello"


@st.composite
def replays(draw: st.DrawFn) -> bytes:
    """A replay of any events, payload sizes from 1 byte to more than there are events."""
    codes = draw(st.lists(st.integers(0, 255), unique=True, max_size=8))
    sizes = {0x36: draw(st.integers(1, 700))}
    sizes |= {c: draw(st.integers(1, 300)) for c in codes if c not in (0x35, 0x36)}
    table = b"".join(struct.pack(">BH", *pair) for pair in sizes.items())
    order = draw(st.lists(st.sampled_from(list(sizes)), max_size=40))
    raw = b"".join((b"\x35", bytes([1 + len(table)]), table, b"\x36", os.urandom(sizes[0x36]),
                    *(bytes([c]) + os.urandom(sizes[c]) for c in order)))  # fmt: skip
    return b"{U\x03raw[$U#l" + struct.pack(">I", len(raw)) + raw + draw(st.binary(max_size=50))


@given(replays())
def test_any_replay_comes_back(slp: bytes) -> None:
    packed = pack(slp)
    assert packed is not None
    assert slpz.unpack(packed, MAX) == slp


@pytest.mark.slow
def test_every_real_replay_comes_back(replays: Path) -> None:
    n_packed = n_bytes = n_packed_bytes = 0
    for path in sorted(replays.rglob("*.slp")):
        slp = path.read_bytes()
        if (packed := pack(slp)) is not None:
            same = slpz.unpack(packed, MAX) == slp  # no dump of somebody's game
            assert same, path.name
            n_packed += 1
            n_bytes += len(slp)
            n_packed_bytes += len(packed)
    assert n_packed > 100
    assert n_packed_bytes < n_bytes / 7


def test_replays_in_slpz_are_items(tmp_path: Path) -> None:
    slp = make_game(1, n_frames=200).slp
    packed = pack(slp)
    assert packed is not None
    (tmp_path / "a.slpz").write_bytes(packed)
    (tmp_path / "b.SLPZ").write_bytes(packed[:-1])
    whole, cut = sorted(items([tmp_path]), key=lambda found: found.source)
    assert (whole.data, whole.rule) == (slp, None)
    assert (cut.data, cut.rule) == (None, "bad_file")
    assert cut.detail == "SlpzError: the packed events end early"


def hostile(events: bytes, size: int | None = None, *, tail: bytes = b"") -> bytes:
    packed = zstandard.compress(events) + tail
    return assemble([TABLE, START, b"}"], packed, len(events) if size is None else size)


GOOD = columns([b"\x37abc", b"\x38" + bytes(300), b"\x37def"])
BAD = {
    "no .slpz header": b"",
    "version 7": b"\0\0\0\x07" + hostile(GOOD)[4:],
    "offsets [24, 35": hostile(GOOD)[:40],
    "offsets [9": hostile(GOOD)[:4] + b"\0\0\0\x09" + hostile(GOOD)[8:],
    "no event of payload sizes": assemble([b"\x36\x01", START, b"}"], b"", 4),
    "not three an event": assemble([b"\x35\x03ab", START, b"}"], b"", 4),
    "cannot be read": assemble([TABLE, START, b"}"], b"no zstd at all", len(GOOD)),
    "end early": hostile(GOOD)[:-1],
    "bytes after the packed events": hostile(GOOD, tail=b"\0" * 3),
    "more than the 300": hostile(GOOD, 300),
    "not 400 as the header says": hostile(GOOD, 400),
    "event 0x39 is not in the table": hostile(columns([b"\x39ab"])),
    "do not fill": hostile(b"\0\0\0\x02" + GOOD[4:]),
    "16777215 events; up to": hostile(b"\0\xff\xff\xff" + GOOD[4:]),  # 10 kB may hold as many
}


@pytest.mark.parametrize("detail", BAD)
def test_what_is_no_slpz_is_told(detail: str) -> None:
    with pytest.raises(slpz.SlpzError) as caught:
        slpz.unpack(BAD[detail], MAX)
    assert detail in str(caught.value)


def test_one_that_says_it_is_too_large_is_not_unpacked() -> None:
    assert len(slpz.unpack(hostile(GOOD, 2**32 - 1), MAX)) == MAX + 1
    assert len(slpz.unpack(hostile(GOOD), 300)) == 301


def test_a_bomb_is_left_at_its_declared_size() -> None:
    bomb = zstandard.compress(bytes(2**30))  # 33 kB
    with pytest.raises(slpz.SlpzError, match="more than the 99 bytes"):
        slpz.unpack(assemble([TABLE, START, b"}"], bomb, 99), MAX)


@given(st.binary(max_size=400), st.integers(0, len(hostile(GOOD)) - 1))
def test_no_bytes_do_more_than_be_refused(noise: bytes, at: int) -> None:
    data = bytearray(hostile(GOOD))
    data[at : at + len(noise)] = noise
    with suppress(slpz.SlpzError):
        slpz.unpack(bytes(data), 10**6)
