"""Replays of made-up people, and a search for their names in everything that a store holds."""

import base64
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest import slp
from ingest.synthetic import make_game
from store.parquet import read_footer

FIELDS = {field.name: field for field in slp.START}


@dataclass(frozen=True)
class Person:
    """What a replay says of somebody; tags are full-width, as Melee keeps them."""

    tag: str
    name: str
    code: str
    uid: str

    @property
    def texts(self) -> tuple[str, ...]:
        return self.tag, self.name, self.code, self.uid


JANE = Person("ＺＹＸＯＭ", "Zyxomma Quill", "QWVX#907", "quetzalcoatlZyxomma012345678")
JOHN = Person("ＢＲＯＶＵ", "ブロヴのジョン", "BROV#13", "brovuslavPumpernickel9876543")
RANKED = Person("", "Diamond Player", "", "")
LEFT_OVER = "Gwendolyn"  # behind the end of every shorter text
CONSOLE, STRANGER, FOLDER = "Kitchen Wii", "Ferdinand", "humperdinck home"
SECRETS = [*JANE.texts, *JOHN.texts, LEFT_OVER, CONSOLE, STRANGER, FOLDER]


def replay_of(seed: int, *people: Person, version: tuple[int, int] = (3, 19)) -> bytes:
    """A simulated game of these two, with somebody else's names on the ports where nobody plays."""
    data = make_game(seed, n_frames=200, version=version, ports=(1, 2), with_metadata=False).slp
    block = bytearray(data)
    events = 15 + 1 + block[16]
    for port, person in enumerate((*people, JANE, JOHN)):
        texts = {
            "name_tag": person.tag.encode("cp932"),
            "netplay_name": person.name.encode("cp932"),
            "netplay_code": person.code.replace("#", "＃").encode("cp932"),
            "netplay_suid": person.uid.encode(),
        }
        for name, text in texts.items():
            field = FIELDS[name]
            if field.since > version:
                continue
            size = int(field.format.removesuffix("s"))
            at = events + field.offset + field.stride * port
            block[at : at + size] = (text + b"\0" + LEFT_OVER.encode() * 4)[:size]
    names = [{"netplay": person.name, "code": person.code} for person in people]
    metadata = {
        "startAt": "2023-04-05T06:07:08Z",
        "lastFrame": 76,
        "playedOn": "dolphin",
        "consoleNick": CONSOLE,
        "players": {str(n): {"names": told, "characters": {}} for n, told in enumerate(names)},
        f"seen by {STRANGER}": {"note": STRANGER},
    }
    return bytes(block[:-1]) + b"U\x08metadata" + slp.ubjson(metadata) + b"}"


def forms(text: str) -> set[bytes]:
    """A text as it may lie in a file: plain, full-width, in several encodings."""
    plain = unicodedata.normalize("NFKC", text)
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in plain)
    found = {text, plain, wide, plain.lower(), plain.upper()}
    encodings = "utf-8", "utf-16-le", "utf-16-be", "cp932"
    encoded = {t.encode(e, "ignore") for t in found for e in encodings}
    return encoded | {plain.encode().hex().encode(), plain.encode().hex(" ").encode()}


def contents(store: Path) -> Iterator[bytes]:
    """The bytes of every file, and what stands in them packed or encoded."""
    for path in store.rglob("*"):
        if not path.is_file():
            continue
        yield path.read_bytes()
        if path.suffix != ".parquet":
            continue
        if path.is_relative_to(store / "games"):
            footer = read_footer(path)
            yield json.dumps(footer, ensure_ascii=False).encode()
            yield base64.b64decode(footer["start_bytes"])
        # not by pyarrow: of DuckDB's parquet v2 it refuses some integers ("delta bit width")
        with duckdb.connect() as connection:
            table = connection.execute("from read_parquet(?)", [str(path)]).to_arrow_table()
        for column in table.columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                yield repr(column.to_pylist()).encode()


def found_in(haystack: list[bytes], texts: list[str]) -> set[str]:
    return {
        text for text in texts if any(form in data for form in forms(text) for data in haystack)
    }
