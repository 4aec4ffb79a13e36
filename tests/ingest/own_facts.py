"""What the catalog must say of a replay, told a second time: from the bytes of game start and game
end by their offsets, and from peppi's raw arrays row by row. Nothing of ingest is used.

Rules: shared/reference/slippi.md 1, 2 and 5; names and projectiles: slippi-ids.json beside it.
"""

import hashlib
import json
import re
import struct
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from peppi_py import _peppi

from tests.conftest import SHARED

Row = dict[str, Any]
_HEAD = 15
_METHODS = {0: "unresolved", 1: "time", 2: "game", 3: "resolved", 7: "no_contest"}
_UCF = {1: "ucf", 2: "arduino"}


@cache
def ids() -> dict[str, Any]:
    """The reference's own tables: characters, stages, items, projectiles."""
    found: dict[str, Any] = json.loads((SHARED / "reference" / "slippi-ids.json").read_text())
    return found


class Blocks:
    """Game start and game end of an undamaged file, by the offsets of the specification."""

    def __init__(self, data: bytes) -> None:
        sizes = dict(struct.iter_unpack(">BH", data[_HEAD + 2 : _HEAD + 1 + data[_HEAD + 1]]))
        begin = _HEAD + 1 + data[_HEAD + 1]
        self.start = data[begin : begin + 1 + sizes[0x36]]
        self.version = tuple(self.start[1:4])
        self.events = set(sizes)
        # a length of 0: the recorder died after game end, or the game was copied before it was told
        stop = _HEAD + (int.from_bytes(data[11:_HEAD], "big") or len(data) - _HEAD)
        at = begin
        while at < stop and data[at] != 0x39:
            at += 1 + sizes[data[at]]
        self.end = data[at : at + 1 + sizes[0x39]] if at < stop else b""
        self.ports = [port for port in range(4) if self.start[0x66 + 0x24 * port] != 3]

    def number(self, offset: int, form: str = "B") -> int | None:
        """A field of game start; None where the version has none."""
        if offset + struct.calcsize(form) > len(self.start):
            return None
        return int(struct.unpack_from(f">{form}", self.start, offset)[0])

    def text(self, offset: int, size: int) -> str | None:
        """Text up to its zero; None where it is empty or the version has none."""
        field = self.start[offset : offset + size].partition(b"\0")[0]
        return field.decode("cp932") or None

    def of_end(self, offset: int) -> int | None:
        """A signed byte of game end."""
        return struct.unpack_from(">b", self.end, offset)[0] if len(self.end) > offset else None


@cache
def facts(path: Path) -> tuple[Row, list[Row], Counter[Any]]:
    """The game's row, its players' rows, and (side, item type) -> (spawned, rows)."""
    data = path.read_bytes()
    blocks, replay = Blocks(data), _peppi.read_slippi(str(path), skip_frames=False)
    frames, metadata = replay.frames, replay.metadata or {}
    last = {number: row for row, number in enumerate(frames.field("id").to_pylist())}
    rows = [last[number] for number in sorted(last)]
    counts, owners = _items(frames, rows, blocks)
    players = [_player(blocks, frames, rows, metadata, port) for port in blocks.ports]
    taken = [player.pop("percent_taken") for player in players]
    for n, own in enumerate(players):
        own["percent_dealt"] = taken[1 - n]
        own |= _owned(owners, n)
    game = _game(blocks, replay, sorted(last), metadata, players)
    return game, players, counts


def _player(blocks: Blocks, frames: Any, rows: list[int], metadata: Row, port: int) -> Row:
    post = frames.field("ports").field(f"P{port + 1}").field("leader").field("post")
    stocks, percent = (
        [v for v in post.field(name).take(rows).to_pylist() if v is not None]
        for name in ("stocks", "percent")
    )
    told = metadata.get("players", {}).get(str(port), {}).get("names", {})
    code = blocks.text(0x221 + 0xA * port, 0xA) or told.get("code") or None
    name = blocks.text(0x1A5 + 0x1F * port, 0x1F) or told.get("netplay") or None
    tag = blocks.text(0x161 + 0x10 * port, 0x10)
    at = 0x65 + 0x24 * port
    kind = blocks.start[at + 1]
    rank = re.fullmatch(r"(\w+) Player", name or "") if not code else None
    return {
        "port": port + 1,
        "char": ids()["characters_external"][str(blocks.start[at])].lower(),
        "type": ("human", "cpu", "demo")[kind],
        "cpu_level": blocks.start[at + 0xF] if kind == 1 else None,
        "costume": blocks.start[at + 3],
        "code": code and unicodedata.normalize("NFKC", code),
        "tag": tag and unicodedata.normalize("NFKC", tag).strip(),
        "name": name,
        "rank": rank and rank[1].lower(),
        "stocks_left": stocks[-1],
        "stocks_lost": sum(max(0, a - b) for a, b in pairwise(stocks)),
        "percent_left": percent[-1],
        "percent_taken": sum(max(0.0, b - a) for a, b in pairwise(percent)),
        "ucf_dash_back": _UCF.get(blocks.number(0x141 + 8 * port, "I") or 0),
        "ucf_shield_drop": _UCF.get(blocks.number(0x145 + 8 * port, "I") or 0),
        "placement": blocks.of_end(3 + port),
    }


def _items(frames: Any, rows: list[int], blocks: Blocks) -> tuple[Counter[Any], Any]:
    """(side, type) -> spawned and rows; and (type, first owner's port) of each spawned item."""
    if blocks.version < (3, 0):
        return Counter(), None
    first: dict[int, tuple[int, int | None]] = {}
    seen: Counter[int] = Counter()
    lists = frames.field("item").take(rows)
    wanted = ("id", "type", "owner") if blocks.version >= (3, 6) else ("id", "type")
    columns = [lists.flatten().field(name).to_pylist() for name in wanted]
    for spawn, kind, *owner in zip(*columns, strict=True):
        first.setdefault(spawn, (kind, owner[0] if owner else None))
        seen[spawn] += 1
    counts: Counter[Any] = Counter()
    for spawn, (kind, owner_port) in first.items():
        side = blocks.ports.index(owner_port) if owner_port in blocks.ports else None
        counts[side, kind, "spawned"] += 1
        counts[side, kind, "frames"] += seen[spawn]
    return counts, counts if blocks.version >= (3, 6) else None


def _owned(counts: Any, side: int) -> Row:
    if counts is None:
        return {"items": None, "projectiles": None}
    own = {kind: n for (of, kind, what), n in counts.items() if of == side and what == "spawned"}
    shot = sum(n for kind, n in own.items() if str(kind) in ids()["projectiles"])
    return {"items": sum(own.values()), "projectiles": shot}


def _game(blocks: Blocks, replay: Any, frames: list[int], metadata: Row, players: list[Row]) -> Row:
    match = blocks.start[0x2BE : 0x2BE + 50].partition(b"\0")[0].decode() or None
    scene = blocks.number(0x1A4)
    told = re.match(r"mode\.([a-z]+)-", match or "")
    method = _METHODS.get(blocks.end[1]) if blocks.end else None
    quitter = blocks.of_end(2)
    lras = blocks.ports.index(quitter) if quitter in blocks.ports else None
    winner, by = _winner(method, lras, players)
    numbers = [blocks.number(0x2F1, "I"), blocks.number(0x2F5, "I")]
    key = f"{match}\0{numbers[0]}\0{numbers[1]}".encode() if match else blocks.start[0x5:0x141]
    started = metadata.get("startAt")
    at = datetime.fromisoformat(started) if started else None
    pal, flagged = blocks.number(0x1A1), blocks.number(0x1A2)
    gaps = [n for n, (a, b) in enumerate(pairwise(frames), 1) if b != a + 1]
    return {
        "natural_key": hashlib.sha256(key).hexdigest()[:32],
        "stage_id": blocks.number(0x13, "H"),
        "version": blocks.version[0] * 10**6 + blocks.version[1] * 1000 + blocks.version[2],
        "n_frames": len(frames),
        "first_frame": frames[0],
        "last_frame": frames[-1],
        "stretches": [b - a for a, b in pairwise([0, *gaps, len(frames)])],
        "rollback_rows": len(replay.frames) - len(frames),
        "started_at": at and (at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at),
        "mode": told[1] if told else None if scene is None else "online" if scene == 8 else "local",
        "end_method": method,
        "lras_side": lras,
        "winner_side": winner,
        "winner_by": by,
        "platform": metadata.get("playedOn"),
        "is_pal": None if pal is None else bool(pal),
        "is_frozen_stadium": _frozen(blocks, replay, frames[-1], flagged),
        "is_teams": bool(blocks.start[0xD]),
        "match_id": match,
        "game_number": numbers[0] if match else None,
        "tiebreaker": numbers[1] if match else None,
        "random_seed": blocks.number(0x13D, "I"),
        "repaired": False,
        "newer_than_parser": not blocks.events <= {*range(0x36, 0x42), 0x10},
    }


def _frozen(blocks: Blocks, replay: Any, last: int, flag: int | None) -> bool | None:
    if blocks.number(0x13, "H") != 3 or blocks.version < (3, 18):
        return None
    sent = replay.frames.field("stadium_transformation").flatten().field("event").to_pylist()
    if any(sent):
        return False
    return bool(flag) if blocks.version >= (3, 19) else True if last >= 3600 else None


def _winner(
    method: str | None, lras: int | None, players: list[Row]
) -> tuple[int | None, str | None]:
    """Reference 5: last one with stocks; after a quit the other one, never placements; after time
    stocks, then percent, then placement; else unknown."""
    stocks = [player["stocks_left"] for player in players]
    percent = [player["percent_left"] for player in players]
    places = [player["placement"] for player in players]
    if method == "no_contest" and lras is not None:
        return 1 - lras, "quit"
    if method == "time" and stocks[0] != stocks[1]:
        return stocks.index(max(stocks)), "stocks"
    if sorted(map(bool, stocks)) == [False, True]:
        return stocks.index(max(stocks)), "stocks"
    if method == "time" and percent[0] != percent[1]:
        return percent.index(min(percent)), "percent"
    if method in ("time", "game") and None not in places and places[0] != places[1]:
        return places.index(min(places)), "placement"
    return None, None
