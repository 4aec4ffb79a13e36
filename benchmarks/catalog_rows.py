"""Catalog rows of games that never were, spread as ranked games are; no game files.

Usage of characters and stages, lengths and versions follow what the shared replays and the ranked
archives show roughly; the same seed gives the same rows.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.game import REVISION
from schemas.names import item_name
from schemas.records import TABLES, Rows

BATCH = 1_000
"""Games of a commit, as an ingest commits them."""

# Share of each character in ranked games, and what it sends out: item type -> items a minute.
_USAGE: dict[str, tuple[float, dict[int, float]]] = {
    "fox": (0.205, {74: 2.6, 54: 4.5, 56: 0.7}), "falco": (0.165, {75: 6.6, 55: 6.8, 57: 0.9}),
    "marth": (0.125, {}), "captain_falcon": (0.105, {}),
    "sheik": (0.090, {80: 3.0, 79: 4.2, 85: 1.2, 97: 0.1}), "jigglypuff": (0.045, {}),
    "peach": (0.042, {99: 1.7, 103: 1.1}), "samus": (0.030, {94: 1.4, 95: 1.8}),
    "ganondorf": (0.030, {}), "ice_climbers": (0.028, {106: 1.0}), "luigi": (0.025, {}),
    "yoshi": (0.022, {}), "dr_mario": (0.018, {}), "pikachu": (0.016, {}), "link": (0.011, {}),
    "young_link": (0.011, {65: 1.6, 59: 1.0, 63: 3.3, 61: 0.5}), "donkey_kong": (0.008, {}),
    "game_and_watch": (0.006, {115: 1.8, 117: 2.2, 124: 3.5}), "mewtwo": (0.005, {112: 1.1}),
    "mario": (0.005, {}), "roy": (0.004, {}), "zelda": (0.003, {}), "bowser": (0.003, {100: 3.7}),
    "ness": (0.002, {}), "pichu": (0.001, {}), "kirby": (0.001, {}),
}  # fmt: skip
_HELD = frozenset((74, 75, 80, 85, 97, 103, 115, 117, 124))  # items that are no projectiles
_STAGES = (  # name, external id, share
    ("battlefield", 31, 0.20), ("final_destination", 32, 0.17), ("pokemon_stadium", 3, 0.18),
    ("yoshis_story", 8, 0.19), ("dream_land_n64", 28, 0.15), ("fountain_of_dreams", 2, 0.11),
)  # fmt: skip
_VERSIONS = (
    (3_007_000, 0.03), (3_009_000, 0.05), (3_012_000, 0.10), (3_013_000, 0.12), (3_014_000, 0.25),
    (3_016_000, 0.25), (3_018_000, 0.20),
)  # fmt: skip
_RANKS = ("platinum", "diamond", "master")
_MEDIAN_FRAMES, _SPREAD = 9_000, 0.42
_PLAYERS = 40_000

Numbers = npt.NDArray[Any]
Columns = dict[str, Sequence[object]]


def game_id(seed: int, n: int, what: str = "game") -> str:
    """32 hex digits of game n."""
    return hashlib.sha256(f"{what} {seed}/{n}".encode()).hexdigest()[:32]


def batches(games: int, seed: int = 0, twice: float = 0.02) -> Iterator[Rows]:
    """The rows of game 0 to `games`, BATCH games at a time.

    twice: share of the games that are the second recording of an earlier one.
    """
    for start in range(0, games, BATCH):
        yield rows(range(start, min(start + BATCH, games)), seed, twice)


def rows(numbers: range, seed: int = 0, twice: float = 0.02) -> Rows:
    """The rows of some games as `Catalog.commit` takes them."""
    draw = np.random.default_rng([seed, numbers.start])
    game = _games(numbers, draw, seed, twice)
    sides = _sides(game, draw)
    items = _items(game, sides, draw)
    n = len(numbers)
    ledger: Columns = {
        "replay_id": game["game_id"],
        "sha256": [bytes.fromhex(i + game_id(seed, n, "more"))
                   for i, n in zip(map(str, game["game_id"]), numbers, strict=True)],
        "source": ["/archives/ranked-1.7z" if i < 150_000 else "/archives/ranked-2.7z"
                   for i in numbers],
        "member": [f"{_RANKS[i % 3]}-{_RANKS[i // 3 % 3]}-{game_id(seed, i, 'member')[:24]}.slp"
                   for i in numbers],
        "replay_bytes": game["replay_bytes"],
        "outcome": ["stored"] * n,
        "seen_at": [datetime(2026, 11, 25) + timedelta(milliseconds=100 * i) for i in numbers],
        "rev": [REVISION] * n,
    }  # fmt: skip
    perspectives = [_perspectives(game, sides, side) for side in (0, 1)]
    players = [game | sides[side] for side in (0, 1)]
    return {
        "games": _dicts("games", game),
        "players": _in_turn([_dicts("players", p) for p in players]),
        "perspectives": _in_turn([_dicts("perspectives", p) for p in perspectives]),
        "item_counts": items,
        "replays": _dicts("replays", ledger),
    }


def _dicts(table: str, columns: Columns) -> list[dict[str, object]]:
    names = [field.name for field in TABLES[table]]
    n = len(next(iter(columns.values())))
    lists = [columns.get(name) or [None] * n for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _in_turn(pair: list[list[dict[str, object]]]) -> list[Any]:
    return [row for both in zip(*pair, strict=True) for row in both]


# --- columns --------------------------------------------------------------------------------------


def _pick(draw: np.random.Generator, n: int, shares: Sequence[float]) -> list[int]:
    weights = np.asarray(shares) / sum(shares)
    return [int(i) for i in draw.choice(len(weights), n, p=weights)]


def _games(numbers: range, draw: np.random.Generator, seed: int, twice: float) -> Columns:
    n = len(numbers)
    frames = np.clip(_MEDIAN_FRAMES * np.exp(draw.normal(0, _SPREAD, n)), 300, 28_923).astype(int)
    stages = [_STAGES[i] for i in _pick(draw, n, [share for *_, share in _STAGES])]
    versions = [_VERSIONS[i][0] for i in _pick(draw, n, [share for _, share in _VERSIONS])]
    again, earlier = draw.random(n) < twice, draw.random(n)
    natural = [int(earlier[k] * i) if again[k] else i for k, i in enumerate(numbers)]
    keys = [game_id(seed, i, "key") for i in natural]
    ends = [("game", "stocks"), ("no_contest", "quit"), ("time", "percent")]
    ended = [ends[i] for i in _pick(draw, n, (0.85, 0.14, 0.01))]
    lags = draw.random(n) < 0.01
    whole = [[int(f)] if not lag else [int(f) // 3, int(f) - int(f) // 3]
             for f, lag in zip(frames, lags, strict=True)]  # fmt: skip
    began = [datetime(2022, 6, 1) + timedelta(seconds=float(s)) for s in draw.uniform(0, 7e7, n)]
    winners = [int(side) for side in draw.integers(0, 2, n)]
    ids = [game_id(seed, i) for i in numbers]
    return {
        "game_id": ids, "rev": [REVISION] * n, "rewrite": [0] * n, "natural_key": keys,
        "bucket": [int(key[:4], 16) for key in keys],
        "stage": [name for name, *_ in stages], "stage_id": [number for _, number, _ in stages],
        "version": versions, "n_frames": frames.tolist(), "seconds": (frames / 60).tolist(),
        "started_at": began, "mode": ["ranked"] * n, "end_method": [end for end, _ in ended],
        "winner_by": [by for _, by in ended], "platform": ["dolphin"] * n, "is_pal": [False] * n,
        "is_frozen_stadium": [None] * n, "is_teams": [False] * n, "repaired": [False] * n,
        "newer_than_parser": [False] * n,
        "rollback_rows": (frames * draw.uniform(0, 0.2, n)).astype(int).tolist(),
        "parquet_bytes": (frames * draw.uniform(26, 36, n)).astype(int).tolist(),
        "winner_side": winners, "lras_side": [1 - w if end == "no_contest" else None
                                              for w, (end, _) in zip(winners, ended, strict=True)],
        "match_id": [f"mode.ranked-{began[k - k % 2].isoformat(timespec='milliseconds')}Z"
                     for k in range(n)],
        "game_number": draw.integers(1, 4, n).tolist(), "tiebreaker": [0] * n,
        "random_seed": draw.integers(0, 2**32, n).tolist(), "first_frame": [-123] * n,
        "last_frame": (frames - 124).tolist(), "stretches": whole,
        "replay_bytes": (frames * draw.uniform(340, 360, n)).astype(int).tolist(),
        "parquet_sha256": [hashlib.sha256(i.encode()).digest() for i in ids],
        "parquet_crc32": draw.integers(0, 2**32, n).tolist(),
        "leaf_set": [f"{version:08x}" for version in versions],
    }  # fmt: skip


def _sides(game: Columns, draw: np.random.Generator) -> list[Columns]:
    n, names, shares = len(game["game_id"]), list(_USAGE), [share for share, _ in _USAGE.values()]
    sides: list[Columns] = []
    # Six in ten come from the anonymised dumps: no code, and the rank in place of the name.
    hidden = [int(str(i)[:2], 16) < 154 for i in game["game_id"]]
    for side in (0, 1):
        won = np.array([winner == side for winner in game["winner_side"]])
        who = (_PLAYERS * draw.random(n) ** 3).astype(int)  # few play most of the games
        sides.append({
            "side": [side] * n, "port": [side + 1] * n,
            "char": [names[i] for i in _pick(draw, n, shares)],
            "code": [None if h else f"{chr(65 + i % 26)}{chr(65 + i // 26 % 26)}{i % 7}X#{i}"
                     for i, h in zip(who, hidden, strict=True)],
            "name": [f"{_RANKS[i % 3]} player" if h else f"player {i * 7919 % 100_003}"
                     for i, h in zip(who, hidden, strict=True)],
            "rank": [_RANKS[i % 3] if h else None for i, h in zip(who, hidden, strict=True)],
            "type": ["human"] * n,
            "costume": draw.integers(0, 5, n).tolist(),
            "stocks_left": np.where(won, draw.integers(1, 5, n), 0).tolist(),
            "stocks_lost": np.where(won, draw.integers(0, 4, n), 4).tolist(),
            "percent_left": draw.uniform(0, 160, n).astype(np.float32).tolist(),
            "percent_dealt": draw.uniform(50, 600, n).astype(np.float32).tolist(),
            "ucf_dash_back": ["ucf"] * n, "ucf_shield_drop": ["ucf"] * n,
            "placement": (1 - won).tolist(),
        })  # fmt: skip
    return sides


def _perspectives(game: Columns, sides: list[Columns], side: int) -> Columns:
    other = {f"opp_{name}": values for name, values in sides[1 - side].items()}
    won = [winner == side for winner in game["winner_side"]]
    taken = sides[1 - side]["stocks_lost"]
    return game | sides[side] | other | {"won": won, "stocks_taken": taken}


def _items(game: Columns, sides: list[Columns], draw: np.random.Generator) -> list[Any]:
    """Rows of item_counts; fills in how many each side owned."""
    counts: list[dict[str, object]] = []
    per_minute = np.asarray(game["n_frames"]) / 3600
    for side, columns in enumerate(sides):
        owned, projectiles = [], []
        for identity, char, minutes in zip(
            game["game_id"], map(str, columns["char"]), per_minute, strict=True
        ):
            found = {k: int(draw.poisson(rate * minutes)) for k, rate in _USAGE[char][1].items()}
            owned.append(sum(found.values()))
            projectiles.append(sum(n for kind, n in found.items() if kind not in _HELD))
            counts += [
                {"game_id": identity, "rev": REVISION, "side": side, "type": kind,
                 "item": item_name(kind), "spawned": n, "frames": 20 * n}
                for kind, n in found.items() if n
            ]  # fmt: skip
        sides[side] = {**columns, "items": owned, "projectiles": projectiles}
    return counts
