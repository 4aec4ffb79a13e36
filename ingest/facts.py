"""What the catalog says about one game, from its frames and its footer alone.

Nothing else goes in, so a catalog can be made anew from game files. Null means that the replay does
not tell. Rules and their evidence: the tables below.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.resolve import stretches
from schemas.game import SIDES
from schemas.names import PROJECTILES, character_name, item_name, stage_name
from schemas.records import (
    GAMES,
    ITEM_COUNTS,
    PERSPECTIVES,
    PLAYERS,
    Field,
    Rows,
    version_number,
)
from store.parquet import leaf_set

Row = dict[str, Any]
Json = Any


@dataclass(frozen=True)
class GameFile:
    """A game file's identity: 32 hex digits of the replay, size and checksums of the parquet."""

    game_id: str
    size: int
    sha256: bytes
    crc32: int


def game_rows(table: pa.Table, footer: Mapping[str, Json], file: GameFile) -> Rows:
    """Rows of games, players, perspectives and item_counts for one game.

    table: the frames as stored; footer: as ingest.replay wrote it.
    """
    sides = [_Side(table, footer, side) for side in range(2)]
    spawned = _spawned(table, sides)
    about = _about_game(table, footer, sides) | {
        "game_id": file.game_id,
        "parquet_bytes": file.size,
        "parquet_sha256": file.sha256,
        "parquet_crc32": file.crc32,
        "rewrite": 0,
    }
    players = [_player(side, sides[1 - side.side], spawned) for side in sides]
    key = {"game_id": file.game_id, "rev": footer["rev"]}
    return {
        "games": [_row(GAMES, about)],
        "players": [_row(PLAYERS, key | player) for player in players],
        "perspectives": [
            _row(PERSPECTIVES, about | _perspective(about, players[side], players[1 - side]))
            for side in range(2)
        ],
        "item_counts": [
            _row(ITEM_COUNTS, key | count) for count in (spawned.rows() if spawned else [])
        ],
    }


_RANGES = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
}


def _row(fields: Sequence[Field], values: Row) -> Row:
    """Exactly the table's columns. A number that its column cannot hold is damage: null."""

    def fitting(field: Field) -> Any:
        value = values[field.name]
        if field.sql in _RANGES and value is not None:
            low, high = _RANGES[field.sql]
            return value if low <= value <= high else None
        return value

    return {field.name: fitting(field) for field in fields}


class _Side:
    """One player of a game: the start block's words, and what the frames show."""

    def __init__(self, table: pa.Table, footer: Mapping[str, Json], side: int) -> None:
        self.side = side
        self.start: Row = footer["start"]["players"][side]
        self.port = int(self.start["port"].removeprefix("P"))
        frames = _whole(table, SIDES[side])
        self.stocks = _numbers(frames, "stocks")
        self.percent = _numbers(frames, "percent")
        names = _dig(footer["metadata"], "players", str(self.port - 1), "names")
        netplay = self.start.get("netplay") or {}
        self.name = _text(netplay.get("name")) or _text(_dig(names, "netplay"))
        self.code = _text(netplay.get("code")) or _text(_dig(names, "code"))
        self.tag = _text(self.start.get("name_tag"))
        self.placement = self._placement(footer["end"])

    def _placement(self, end: Json) -> int | None:
        for player in _dig(end, "players") or []:
            if player["port"] == f"P{self.port}":
                return int(player["placement"])
        return None

    @property
    def stocks_lost(self) -> int | None:
        """Stocks lost from frame to frame; one that comes back in between counts again."""
        return int(-np.minimum(np.diff(self.stocks), 0).sum()) if len(self.stocks) else None

    @property
    def percent_taken(self) -> float | None:
        """Sum of the increases from frame to frame."""
        return float(np.maximum(np.diff(self.percent), 0).sum()) if len(self.percent) else None


def _whole(table: pa.Table, name: str) -> pa.Array:
    """A top-level column in one piece; combine_chunks would copy the one piece that it has."""
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numbers(frames: pa.StructArray, name: str) -> npt.NDArray[np.float64]:
    """A leaf's values where there are any; both types are exact in 64 bits."""
    return np.asarray(frames.field(name).drop_null(), np.float64)


def _dig(value: Json, *path: str) -> Json:
    """A value inside nested objects; None where anything on the way is something else."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _normalised(text: str | None) -> str | None:
    """As players type it: the game's full-width letters and signs become plain ones."""
    return unicodedata.normalize("NFKC", text).strip() or None if text else None


# --- game -----------------------------------------------------------------------------------------


def _about_game(table: pa.Table, footer: Mapping[str, Json], sides: list[_Side]) -> Row:
    start, end, metadata = footer["start"], footer["end"], footer["metadata"]
    frames = table["frame"].to_numpy()
    match = start.get("match") or {}
    match_id = _text(match.get("id"))
    key = natural_key(footer)
    method = END_METHODS.get(_dig(end, "method"))
    winner, winner_by = _winner(method, sides, end)
    return {
        "rev": footer["rev"],
        "natural_key": key.hex(),
        "bucket": bucket(key),
        "stage": stage_name(start["stage"]),
        "stage_id": start["stage"],
        "version": version_number(*start["slippi"]["version"]),
        "n_frames": len(frames),
        "seconds": len(frames) / 60,
        "started_at": _started_at(_dig(metadata, "startAt")),
        "mode": _mode(match_id, _dig(start.get("scene"), "major")),
        "end_method": method,
        "winner_side": winner,
        "winner_by": winner_by,
        "lras_side": _quitter(sides, end),
        "platform": _text(_dig(metadata, "playedOn")),
        "is_pal": start.get("is_pal"),
        "is_frozen_stadium": _is_frozen_stadium(table, start),
        "is_teams": start["is_teams"],
        "repaired": bool(footer["repairs"]),
        "newer_than_parser": footer["newer_than_parser"],
        "rollback_rows": footer["rollback_rows"],
        "match_id": match_id,
        "game_number": match.get("game") if match_id else None,
        "tiebreaker": match.get("tiebreaker") if match_id else None,
        "random_seed": start["random_seed"],
        "first_frame": int(frames[0]),
        "last_frame": int(frames[-1]),
        "stretches": stretches(frames),
        "replay_bytes": footer["replay_bytes"],
        "leaf_set": leaf_set(table.schema),
    }


def natural_key(footer: Mapping[str, Json]) -> bytes:
    """16 bytes that both clients' recordings of one game share.

    Match id, game and tiebreaker where the replay has them; else what both consoles were told of
    the game at its start (0x5 to 0x140 of game start: rules, players, seed), never times, lengths.
    """
    match = footer["start"].get("match") or {}
    if match_id := match.get("id"):
        told = f"{match_id}\0{match['game']}\0{match['tiebreaker']}".encode()
    else:
        told = base64.b64decode(footer["start_bytes"])[0x4:0x140]
    return hashlib.sha256(told).digest()[:16]


def bucket(key: bytes) -> int:
    """16 bits of a natural key's hash: which of train, val and test a game belongs to."""
    return int.from_bytes(hashlib.sha256(key).digest()[:2], "big")


def _started_at(text: Json) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
    except (TypeError, ValueError, OverflowError):
        return None


_SCENE_ONLINE = 8


def _mode(match_id: str | None, scene: int | None) -> str | None:
    """`mode.ranked-2023-…` says it; without a match id the scene still tells online from local."""
    named = re.match(r"mode\.(ranked|unranked|direct|teams)-", match_id or "")
    if named:
        return named[1]
    return None if scene is None else "online" if scene == _SCENE_ONLINE else "local"


_STADIUM = 3
_FIRST_CHANGE_BY = 3600  # an unfrozen Stadium has changed before this frame


def _is_frozen_stadium(table: pa.Table, start: Row) -> bool | None:
    """The flag is unreliable before 3.19, and events tell from 3.18 on; null on other stages."""
    version = tuple(start["slippi"]["version"][:2])
    if start["stage"] != _STADIUM or version < (3, 18):
        return None
    events = _whole(table, "stage")
    if events.type.get_field_index("stadium_event") < 0:
        return None
    if (events.field("stadium_event").to_numpy() != 0).any():
        return False
    if version >= (3, 19):
        return bool(start["is_frozen_ps"])
    return True if table["frame"][-1].as_py() >= _FIRST_CHANGE_BY else None


# --- winner ---------------------------------------------------------------------------------------

END_METHODS = {
    "Game": "game",
    "Time": "time",
    "NoContest": "no_contest",
    "Resolved": "resolved",
    "Unresolved": "unresolved",
}

Judge = Callable[[list[_Side], Json], int | None]


def _more_stocks(sides: list[_Side], _end: Json) -> int | None:
    return _higher([side.stocks[-1] if len(side.stocks) else None for side in sides])


def _last_one_standing(sides: list[_Side], end: Json) -> int | None:
    alive = [len(side.stocks) > 0 and side.stocks[-1] > 0 for side in sides]
    return _more_stocks(sides, end) if sum(alive) == 1 else None


def _less_percent(sides: list[_Side], _end: Json) -> int | None:
    return _higher([-side.percent[-1] if len(side.percent) else None for side in sides])


def _first_place(sides: list[_Side], _end: Json) -> int | None:
    return _higher([None if side.placement is None else -side.placement for side in sides])


def _not_the_quitter(sides: list[_Side], end: Json) -> int | None:
    quitter = _quitter(sides, end)
    return None if quitter is None else 1 - quitter


def _higher(values: list[Any]) -> int | None:
    first, second = values
    if first is None or second is None or first == second:
        return None
    return 0 if first > second else 1


def _quitter(sides: list[_Side], end: Json) -> int | None:
    initiator = _dig(end, "lras_initiator")
    return next((side.side for side in sides if initiator == f"P{side.port}"), None)


_STANDING: tuple[str, Judge] = ("stocks", _last_one_standing)
_PLACED: tuple[str, Judge] = ("placement", _first_place)
WINNER_RULES: dict[str | None, tuple[tuple[str, Judge], ...]] = {
    "game": (_STANDING, _PLACED),
    # placements are worthless after a quit: most of them put the quitter first
    "no_contest": (("quit", _not_the_quitter), _STANDING),
    "time": (("stocks", _more_stocks), ("percent", _less_percent), _PLACED),
    "resolved": (_STANDING,),
    # a game that is over by stocks is over, also in the dumps that cut its end away
    "unresolved": (_STANDING,),
    None: (_STANDING,),
}
"""end method -> judges in order, each with what `winner_by` then says"""


def _winner(method: str | None, sides: list[_Side], end: Json) -> tuple[int | None, str | None]:
    for winner_by, judge in WINNER_RULES[method]:
        if (winner := judge(sides, end)) is not None:
            return winner, winner_by
    return None, None


# --- players --------------------------------------------------------------------------------------

_RANKED_NAME = re.compile(
    r"(bronze|silver|gold|platinum|diamond|master|grandmaster) player", re.IGNORECASE
)
_UCF = {"Ucf": "ucf", "Arduino": "arduino"}


def _player(own: _Side, other: _Side, spawned: "_Spawned | None") -> Row:
    start = own.start
    return {
        "side": own.side,
        "port": own.port,
        "char": character_name(start["character"]),
        "code": _normalised(own.code),
        "tag": _normalised(own.tag),
        "name": own.name,
        "rank": _rank(own),
        "type": start["type"] and start["type"].lower(),
        "cpu_level": start.get("cpu_level"),
        "costume": start["costume"],
        "stocks_left": int(own.stocks[-1]) if len(own.stocks) else None,
        "stocks_lost": own.stocks_lost,
        "percent_left": float(own.percent[-1]) if len(own.percent) else None,
        "percent_dealt": other.percent_taken,
        "items": spawned.owned_by(own.side) if spawned else None,
        "projectiles": spawned.owned_by(own.side, _PROJECTILES) if spawned else None,
        "ucf_dash_back": _UCF.get(_dig(start.get("ucf"), "dash_back")),
        "ucf_shield_drop": _UCF.get(_dig(start.get("ucf"), "shield_drop")),
        "placement": own.placement,
    }


def _rank(side: _Side) -> str | None:
    """The anonymised ranked dumps put the rank in place of the name, and leave the code empty."""
    return rank_told(side.name or "") if side.code is None else None


def rank_told(name: str) -> str | None:
    """The rank that a display name consists of: it names nobody."""
    told = _RANKED_NAME.fullmatch(name)
    return told[1].lower() if told else None


def _perspective(about: Row, own: Row, other: Row) -> Row:
    winner = about["winner_side"]
    return {
        **own,
        **{f"opp_{name}": value for name, value in other.items()},
        "won": None if winner is None else winner == own["side"],
        "stocks_taken": other["stocks_lost"],
    }


# --- items ----------------------------------------------------------------------------------------

_PROJECTILES = np.array(sorted(PROJECTILES))
_NOBODY = -1


@dataclass(frozen=True)
class _Spawned:
    """Items of a game, one entry a spawn id: type, frames it was there, first owner's side.

    sides is None before Slippi 3.6, which does not record owners.
    """

    types: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64] | None

    def owned_by(self, side: int, types: npt.NDArray[np.int64] | None = None) -> int | None:
        """How many a side owned first, of all types or of some."""
        if self.sides is None:
            return None
        own = self.sides == side
        return int((own if types is None else own & np.isin(self.types, types)).sum())

    def rows(self) -> list[Row]:
        """One row for each side and type."""
        sides = np.full(len(self.types), _NOBODY) if self.sides is None else self.sides
        groups, inverse, spawned = np.unique(
            np.stack([sides, self.types]), axis=1, return_inverse=True, return_counts=True
        )
        frames = np.bincount(inverse.ravel(), self.frames, len(spawned)).astype(np.int64)
        return [
            {
                "side": None if side == _NOBODY else side,
                "type": kind,
                "item": item_name(kind),
                "spawned": int(spawned[i]),
                "frames": int(frames[i]),
            }
            for i, (side, kind) in enumerate(groups.T.tolist())
        ]


def _spawned(table: pa.Table, sides: list[_Side]) -> _Spawned | None:
    """Items of a game; None before Slippi 3.0, which records none."""
    lists = _whole(table, "items")
    if lists.null_count:
        return None
    items = lists.flatten()
    _, first, frames = np.unique(
        items.field("id").to_numpy(), return_index=True, return_counts=True
    )
    types = items.field("type").to_numpy()[first].astype(np.int64)
    if items.type.get_field_index("owner") < 0:
        return _Spawned(types, frames, None)
    side_of_port = np.full(256, _NOBODY)
    for side in sides:
        side_of_port[side.port - 1] = side.side
    owners = items.field("owner").to_numpy()[first].astype(np.uint8)  # -1, nobody, becomes 255
    return _Spawned(types, frames, side_of_port[owners])
