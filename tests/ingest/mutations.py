"""Ways in which a replay can be damaged, odd, or hostile: each a small function of a random source.

A mutation changes a `Stream` (the replay in pieces) or its bytes; a wrapper packs the bytes the way
people keep replays, and may damage that, too. Nothing here knows what an ingest makes of it.
"""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

import py7zr
import zstandard

from ingest.slp import GAME_END, GAME_START, KINDS, MAGIC, PAYLOADS, START, ubjson
from tests.ingest.slpz_files import pack as pack_slpz
from tests.ingest.streams import CODE, RAW, Stream

OfStream = Callable[[Random, Stream], None]
OfBytes = Callable[[Random, bytes], bytes]
_GECKO, _PIECES = 0x3D, 0x10
_OF_CHARACTERS = (CODE["pre"], CODE["post"])
_FRAME_CODES = [kind.code for kind in KINDS.values()]


# --- bytes ----------------------------------------------------------------------------------------


def _span(rng: Random, data: bytes, longest: int = 400) -> tuple[int, int]:
    at = rng.randrange(len(data) + 1)
    return at, min(len(data), at + rng.randrange(1, longest))


def flip_bits(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_in_head(rng: Random, data: bytes) -> bytes:
    """Container, payload table and start block are the small part that decides most."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        out[rng.randrange(min(len(out), 850))] = rng.randrange(256)
    return bytes(out)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_short(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(min(len(data), 900))]


def lose_bytes(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def insert_bytes(rng: Random, data: bytes) -> bytes:
    at, _ = _span(rng, data)
    n = rng.randrange(1, 600)
    return data[:at] + (bytes(n) if rng.random() < 0.3 else rng.randbytes(n)) + data[at:]


def zero_bytes(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data, 4000)
    return data[:start] + bytes(stop - start) + data[stop:]


def repeat_bytes(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data, 3000)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 3)) + data[stop:]


def swap_bytes(rng: Random, data: bytes) -> bytes:
    at = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    a, b, c = at
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def raw_length(rng: Random, data: bytes) -> bytes:
    true = int.from_bytes(data[len(MAGIC) : RAW], "big")
    told = rng.choice((0, 0, 1, true // 2, true - 1, true + 1, true + 20, 2**31, 2**32 - 1))
    return data[: len(MAGIC)] + struct.pack(">I", max(0, told)) + data[RAW:]


def lose_container(rng: Random, data: bytes) -> bytes:
    return data[RAW : len(data) - rng.choice((0, 1, 60))]


def add_garbage(rng: Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 2000))


def two_files(rng: Random, data: bytes) -> bytes:
    return data + data[rng.choice((0, 0, RAW)) :]


OF_BYTES: dict[str, OfBytes] = {
    of.__name__: of
    for of in (
        flip_bits, flip_in_head, cut, cut_short, lose_bytes, insert_bytes, zero_bytes,
        repeat_bytes, swap_bytes, raw_length, lose_container, add_garbage, two_files,
    )
}  # fmt: skip


# --- events ---------------------------------------------------------------------------------------


def _any(rng: Random, stream: Stream) -> int:
    """One of the events behind game start; game start where there are none."""
    return rng.randrange(1, len(stream.events)) if len(stream.events) > 1 else 0


def _some(rng: Random, stream: Stream, codes: list[int]) -> list[int]:
    """Some events of these kinds: one, a few, or all."""
    found = [n for n, event in enumerate(stream.events) if event[0] in codes]
    if not found or rng.random() < 0.2:
        return found
    return [rng.choice(found) for _ in range(rng.choice((1, 1, 3, 10)))]


def lose_events(rng: Random, stream: Stream) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = _any(rng, stream)
        del stream.events[at : at + rng.choice((1, 1, 2, 30))]
        if not whole(stream):
            return


def lose_a_kind(rng: Random, stream: Stream) -> None:
    code = rng.choice(list(stream.sizes))
    stream.events = [event for event in stream.events if event[0] != code]


def repeat_events(rng: Random, stream: Stream) -> None:
    at = _any(rng, stream)
    part = stream.events[at : at + rng.choice((1, 1, 4, 9, 60))]
    place = rng.choice((at, _any(rng, stream)))
    stream.events[place:place] = part * rng.choice((1, 1, 1, 5))


def reorder_events(rng: Random, stream: Stream) -> None:
    at = _any(rng, stream)
    n = rng.choice((2, 2, 3, 12, 100, len(stream.events)))
    part = stream.events[at : at + n]
    rng.shuffle(part)
    stream.events[at : at + n] = part


def events_backwards(_rng: Random, stream: Stream) -> None:
    stream.events[1:] = stream.events[:0:-1]


def end_in_the_middle(rng: Random, stream: Stream) -> None:
    size = stream.sizes.get(GAME_END, 1)
    end = bytes([GAME_END]) + rng.randbytes(size)
    stream.events.insert(_any(rng, stream), end)


def stream_twice(rng: Random, stream: Stream) -> None:
    table = stream.raw()[: 1 + stream.raw()[1]]
    again = [table, *stream.events] if rng.random() < 0.5 else list(stream.events)
    stream.events += again


def payload_of_events(rng: Random, stream: Stream) -> None:
    """Random bytes somewhere in some events: values, frame numbers, ports."""
    for n in _some(rng, stream, _FRAME_CODES):
        whole = bytearray(stream.events[n])
        at = rng.randrange(1, len(whole)) if len(whole) > 1 else 0
        size = rng.choice((1, 2, 4))
        whole[at : at + size] = rng.randbytes(len(whole[at : at + size]))
        stream.events[n] = bytes(whole)


def values_of_events(rng: Random, stream: Stream) -> None:
    """Extreme values behind the words that say whose event it is: nothing in them is damage."""
    extreme = (
        b"\x7f\xc0\x00\x01",
        b"\xff\xff\xff\xff",
        b"\x7f\x80\x00\x00",
        bytes(4),
        b"\x80\0\0\0",
    )
    for n in _some(rng, stream, [CODE["pre"], CODE["post"], CODE["item"], CODE["start"]]):
        whole = stream.events[n]
        if len(whole) > 20:
            at = rng.randrange(7, len(whole) - 4)
            stream.patch(n, at, rng.choice(extreme))


def frame_numbers(rng: Random, stream: Stream) -> None:
    told = rng.choice((-124, -123, 0, 5, 2**31 - 1, -(2**31), 30_000, rng.randrange(-200, 400)))
    whole_frame = rng.random() < 0.5
    for n in _some(rng, stream, _FRAME_CODES):
        old = stream.events[n][1:5]
        stream.patch(n, 1, struct.pack(">i", told))
        after = n + 1
        while whole_frame and after < len(stream.events) and stream.events[after][1:5] == old:
            stream.patch(after, 1, struct.pack(">i", told))
            after += 1


def characters_of_events(rng: Random, stream: Stream) -> None:
    """Another port, or a follower that was none, in some events."""
    port, follower = rng.choice((0, 1, 2, 3, 4, 255)), rng.choice((0, 0, 1, 1, 7))
    for n in _some(rng, stream, list(_OF_CHARACTERS)):
        stream.patch(n, rng.choice((5, 6)), bytes([rng.choice((port, follower))]))


def items(rng: Random, stream: Stream) -> None:
    """Many items, items of one id, unknown kinds, owners that are none."""
    if CODE["item"] not in stream.sizes:
        return
    size = stream.sizes[CODE["item"]]
    for n in sorted(_some(rng, stream, [CODE["post"]]), reverse=True)[:50]:
        number = stream.events[n][1:5]
        for _ in range(rng.choice((1, 3, 16, 40))):
            body = bytearray(rng.randbytes(max(4, size)))
            body[:4] = number
            body[0x21:0x25] = struct.pack(">I", rng.choice((0, 1, 2**32 - 1, rng.randrange(99))))
            stream.events.insert(n, bytes([CODE["item"]]) + bytes(body[:size]))


def stage_events(rng: Random, stream: Stream) -> None:
    """Stage events on any stage, with any values."""
    event = rng.choice(("fod_platform", "dreamland_whispy", "stadium_transformation"))
    if CODE[event] not in stream.sizes and rng.random() < 0.7:
        return
    size = stream.sizes.setdefault(CODE[event], 9)
    for n in sorted(_some(rng, stream, [CODE["post"]]), reverse=True)[:50]:
        body = stream.events[n][1:5] + rng.randbytes(max(0, size - 4))
        stream.events.insert(n, bytes([CODE[event]]) + body[:size])


def gecko_codes(rng: Random, stream: Stream) -> None:
    """Gecko code lists in pieces, as Slippi sends them since 3.3; some pieces lie."""
    stream.sizes[_PIECES] = 516
    stream.sizes[_GECKO] = rng.randrange(65_536)
    n = rng.choice((1, 2, 5))
    for piece in range(n):
        used = rng.choice((512, 512, 100, 0, 513, 65_535))
        last = piece == n - 1 if rng.random() < 0.8 else rng.randrange(256)
        inner = _GECKO if rng.random() < 0.8 else rng.randrange(256)
        body = rng.randbytes(512) + struct.pack(">HBB", used, inner, int(last))
        stream.events.insert(1 + piece, bytes([_PIECES]) + body)


# --- payload table and versions -------------------------------------------------------------------


def table_sizes(rng: Random, stream: Stream) -> None:
    """The table alone lies: events are then read at wrong places."""
    code = rng.choice(list(stream.sizes))
    change = rng.choice((-1, 1, -4, 4, -(10**6), 10**5))
    stream.sizes[code] = min(65_535, max(0, stream.sizes[code] + change))


def table_rows(rng: Random, stream: Stream) -> None:
    code = rng.choice(list(stream.sizes))
    if rng.random() < 0.5:
        del stream.sizes[code]
    else:
        stream.sizes[rng.randrange(256)] = rng.choice((0, 1, 4, 65_535))
    if rng.random() < 0.2:
        stream.sizes |= dict.fromkeys(range(rng.randrange(20, 60)), 9)


def resize(rng: Random, stream: Stream) -> None:
    """Table and events agree on another size: fields of a Slippi to come, or of one long gone."""
    code = rng.choice(list(stream.sizes))
    size = stream.sizes[code]
    new = max(0, size + rng.choice((4, 4, 1, 100, -1, -4, -8, -size)))
    stream.sizes[code] = new
    stream.events = [
        e[: 1 + new].ljust(1 + new, b"\x77") if e[0] == code else e for e in stream.events
    ]


def unknown_events(rng: Random, stream: Stream) -> None:
    code = rng.choice((0x42, 0x50, 0xFF, 0x00))
    size = stream.sizes.setdefault(code, rng.choice((0, 1, 4, 40)))
    for _ in range(rng.choice((1, 5, 40))):
        stream.events.insert(_any(rng, stream), bytes([code]) + rng.randbytes(size))


_VERSIONS = ((0, 0), (0, 1), (1, 0), (2, 0), (2, 2), (3, 0), (3, 3), (3, 6), (3, 7), (3, 10),
             (3, 18), (3, 19), (3, 20), (4, 0), (255, 255))  # fmt: skip


def version(rng: Random, stream: Stream) -> None:
    stream.patch(0, 1, bytes(rng.choice(_VERSIONS)))


def unknown_payloads(rng: Random, stream: Stream) -> None:
    """A payload table with another count of bytes than it has rows, or none."""
    first = bytes([PAYLOADS, rng.choice((0, 1, 2, 5, 255))]) + rng.randbytes(rng.randrange(30))
    stream.events.insert(rng.choice((0, _any(rng, stream))), first)


# --- game start, game end, metadata ---------------------------------------------------------------

_TEXTS = (b"\x82\x60\x81", b"\xff" * 60, b"A" * 60, "ＦＯＸ＃１".encode("shift_jis"), b"\xfd\xfe",
          b"\x81\x94" * 30, b"FOX#123\0", b"mode.ranked-2023", b"\x00", "é☃".encode())  # fmt: skip


def start_fields(rng: Random, stream: Stream) -> None:
    """One or more fields of game start, by name: types, characters, stage, teams, codes, text."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        field = rng.choice(START)
        size = struct.calcsize(field.format)
        if field.format.endswith("s"):
            value = rng.choice(_TEXTS)[:size].ljust(size, rng.choice((b"\0", b"\xff")))
        else:
            odd = (bytes(size), b"\xff" * size, rng.randbytes(size), (1).to_bytes(size, "big"))
            value = rng.choice(odd)
        port = rng.randrange(4) if field.stride else 0
        if field.offset + field.stride * port + size <= len(stream.events[0]):
            stream.patch(0, field.offset + field.stride * port, value)


def players(rng: Random, stream: Stream) -> None:
    """Who plays where: types of the ports, characters, a stage of another mode."""
    for port in range(4):
        if rng.random() < 0.4:
            stream.patch_start("type", port, bytes([rng.choice((0, 0, 1, 2, 3, 3, 4, 99))]))
        if rng.random() < 0.4:
            stream.patch_start("character", port, bytes([rng.choice((0, 2, 14, 26, 32, 33, 255))]))
    if rng.random() < 0.3:
        stream.patch_start(
            "stage", 0, struct.pack(">H", rng.choice((0, 1, 3, 8, 33, 84, 285, 65_535)))
        )


def end_fields(rng: Random, stream: Stream) -> None:
    for n in stream.numbers("game end"):
        at = rng.randrange(1, len(stream.events[n])) if len(stream.events[n]) > 1 else 0
        stream.patch(n, at, bytes([rng.choice((0, 1, 2, 3, 4, 6, 7, 9, 77, 255))]))


def lose_end(_rng: Random, stream: Stream) -> None:
    stream.events = [event for event in stream.events if event[0] != GAME_END]


def lose_metadata(rng: Random, stream: Stream) -> None:
    stream.tail = rng.choice((b"}", b"", b"U\x08metadata{}}", b"U\x08metadata", b"U\x08metadat"))


_LIES = (
    b"{U\x01aSl\x7f\xff\xff\xff", b"{U\xffa}", b"[$Z#l\x7f\xff\xff\xff", b"{$U#L" + b"\x7f" * 8,
    b"[$[#l\x00\x01\x00\x00", b"{U\x01aSU\x04\xff\xfe\xff\xfe}", b"{U\x01aZU\x01bTU\x01cF}",
    b"{U\x01aD\x7f\xf8\0\0\0\0\0\0}", b"{U\x01aL\xff\xff\xff\xff\xff\xff\xff\xff}", b"l\0\0\0\1",
    b"{U\x01aSI\x01\x00" + b"x" * 256 + b"}", b"{i\xffa}", b"{U\x01a}", b"{U\x01aH", b"\xff" * 40,
    b"{U\x07startAtSU\x05soon!}", b"{U\x07players[]}",
    b"{U\x07playersSU\x01xU\x08playedOnl\0\0\0\1}",
)  # fmt: skip


def metadata(rng: Random, stream: Stream) -> None:
    """Deep nesting, lengths that lie, text that is none, types that peppi does not know."""
    kind = rng.choice(("deep", "lies", "names"))
    if kind == "deep":
        depth = rng.choice((5, 31, 32, 33, 500, 20_000))
        opening, closing = rng.choice(((b"{U\x01a", b"}"), (b"[", b"]")))
        value = opening * depth + b"Z" + (closing * depth if rng.random() < 0.7 else b"")
    elif kind == "lies":
        value = rng.choice(_LIES)
    else:
        names = {"netplay": "é☃ Player", "code": "ＦＯＸ＃１"}
        about = {"startAt": "2023-01-01T00:00:00Z", "lastFrame": -5, "playedOn": "x" * 200}
        value = ubjson({"players": {str(n): {"names": names} for n in range(9)}, **about})
    stream.tail = b"U\x08metadata" + value + rng.choice((b"}", b"}", b""))


OF_STREAM: dict[str, OfStream] = {
    of.__name__: of
    for of in (
        lose_events, lose_a_kind, repeat_events, reorder_events, events_backwards,
        end_in_the_middle, stream_twice, payload_of_events, values_of_events, frame_numbers,
        characters_of_events, items, stage_events, gecko_codes, table_sizes, table_rows, resize,
        unknown_events, version, unknown_payloads, start_fields, players, end_fields, lose_end,
        lose_metadata, metadata,
    )
}  # fmt: skip


# --- wrappers -------------------------------------------------------------------------------------


def _zip(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _seven_zip(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w") as archive:
        archive.writef(io.BytesIO(data), name)
    return out.getvalue()


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _slpz(data: bytes) -> bytes:
    """A replay that the format has no place for stays a .slp in all but its name."""
    try:
        return pack_slpz(data) or data
    except (struct.error, IndexError):
        return data


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    ".slp.gz": lambda data: gzip.compress(data, mtime=0),
    ".slp.xz": lzma.compress,
    ".slp.zst": zstandard.compress,
    ".slpz": _slpz,
    ".zip": lambda data: _zip("a.slp", data),
    ".7z": lambda data: _seven_zip("a.slp", data),
    ".tar": lambda data: _tar("a.slp", data),
    ".tar.gz": lambda data: gzip.compress(_tar("a.slp", data), mtime=0),
    ".tar.zst": lambda data: zstandard.compress(_tar("a.slp", data)),
}
"""Ending of a file's name -> the file that holds a replay."""


def wrap(rng: Random, data: bytes) -> tuple[str, bytes]:
    """The replay in an archive, and the ending of its name; one in three archives is damaged."""
    ending = rng.choice(list(WRAPPERS))
    packed = WRAPPERS[ending](data)
    if rng.random() < 0.35:
        damage = rng.choice((flip_bits, cut, lose_bytes, insert_bytes, zero_bytes, add_garbage))
        packed = damage(rng, packed)
    return ending, packed


def whole(stream: Stream) -> bool:
    """Whether a stream still begins with a game start, which mutations of events ask for."""
    return bool(stream.events) and stream.events[0][:1] == bytes([GAME_START])
