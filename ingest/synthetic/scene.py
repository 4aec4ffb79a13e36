"""What surrounds a fight: stage events, start block, metadata, end. All invented, all seeded."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.slp import N_PORTS, Version
from ingest.synthetic.arena import DREAM_LAND, FOUNTAIN, STADIUM
from ingest.synthetic.fight import FIRST_FRAME

Array = npt.NDArray[Any]

PLAY_ROW = -FIRST_FRAME
TIMER_S, FRAMES_PER_S = 480, 60
END_TIME, END_GAME, END_NO_CONTEST = 1, 2, 7
UNRESOLVED, RESOLVED = 0, 3  # all that files before 2.0 can say
ABSENT = -1
EMPTY_PORT = 3
ONLINE, LOCAL = (8, 2), (2, 2)  # scene major and minor

_NAMES = ("FOXY", "MANG", "ZEPH", "KITE", "LUNA", "ODIN", "PLUM", "RUNE", "SAGE", "TIDE", "VEGA",
          "WREN")  # fmt: skip
_FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)
_BETWEEN_RECORDINGS = timedelta(seconds=40)
"""how far apart the clocks of two clients are; seen on a real pair"""

# Frames after a change of Stadium begins: (frames, event), as in a real game; the type is that of
# the form to come. On the way back to the normal form event 1 does not occur.
_STADIUM_PHASES = ((0, 1), (1, 2), (2, 3), (304, 4), (485, 5), (606, 6), (607, 0))
_STADIUM_FIRST, _STADIUM_STAYS, _STADIUM_NORMAL, _STADIUM_FORMS = 3704, 1800, 5, (3, 4, 6, 9)


@dataclass(frozen=True)
class Setting:
    """All choices of a game that the fight does not make itself; `ports` are 0-based, rising."""

    version: tuple[int, int, int]
    stage: int
    characters: tuple[int, int]
    ports: tuple[int, int]
    seed: int
    names: tuple[str, str]
    codes: tuple[str, str]
    costumes: tuple[int, int]
    online: bool
    frozen: bool
    pal: bool
    started: datetime
    game_number: int

    @property
    def layout(self) -> Version:
        """Major and minor version, which decide what a file holds."""
        return self.version[:2]


def choose(
    rng: random.Random,
    version: tuple[int, int, int],
    stage: int,
    characters: tuple[int, int],
    ports: tuple[int, int],
) -> Setting:
    """Draw names, costumes, date and switches of a game."""
    names = _NAMES[int(rng.random() * 6)], _NAMES[6 + int(rng.random() * 6)]
    codes = f"{names[0]}#{int(rng.random() * 1000):03}", f"{names[1]}#{int(rng.random() * 1000):03}"
    started = _FIRST_DAY + timedelta(seconds=int(rng.random() * 3 * 365 * 86400))
    return Setting(
        version=version,
        stage=stage,
        characters=characters,
        ports=ports,
        seed=rng.getrandbits(32),
        names=names,
        codes=codes,
        costumes=(int(rng.random() * 4), int(rng.random() * 4)),
        online=rng.random() < 0.7,
        frozen=rng.random() < 0.5,
        pal=rng.random() < 0.05,
        started=started,
        game_number=1 + int(rng.random() * 3),
    )


# ---------------------------------------------------------------------------- start, end, metadata


def _per_port(setting: Setting, values: Sequence[Any], empty: Any) -> list[Any]:
    row = [empty] * N_PORTS
    for port, value in zip(setting.ports, values, strict=True):
        row[port] = value
    return row


def _wide(text: str) -> bytes:
    """As Melee keeps text: full-width signs in Shift-JIS."""
    return "".join(chr(ord(c) + 0xFEE0) for c in text).encode("shift_jis")


def _code(text: str) -> bytes:
    return text.replace("#", "＃").encode("shift_jis")


def start_values(setting: Setting, timer_s: int) -> dict[str, Any]:
    """Values of slp.START, of all versions: tournament rules, no items."""

    def each(values: Sequence[Any], empty: Any = 0) -> list[Any]:
        return _per_port(setting, values, empty)

    online = setting.online
    day = setting.started.strftime("%Y-%m-%dT%H:%M:%S.00-0")
    values: dict[str, Any] = {
        "version": (*setting.version, 0),
        "bitfield": (0x32, 0x01, 0x86, 0x4C),  # stock battle as tournaments set it
        "item_spawn_frequency": -1,
        "self_destruct_score": -1,
        "stage": setting.stage,
        "timer": timer_s,
        "item_spawn_bitfield": (255, 255, 255, 255, 255),
        "damage_ratio": 1.0,
        "character": each(setting.characters, 26),
        "type": each((0, 0), EMPTY_PORT),
        "stocks": each((4, 4)),
        "costume": each(setting.costumes),
        "handicap": [9] * N_PORTS,
        "player_bitfield": [0xC0] * N_PORTS,
        "cpu_level": [1] * N_PORTS,
        "offense_ratio": [1.0] * N_PORTS,
        "defense_ratio": [1.0] * N_PORTS,
        "model_scale": [1.0] * N_PORTS,
        "random_seed": setting.seed,
        "dash_back": each((1, 1)),
        "shield_drop": each((1, 1)),
        "name_tag": each([_wide(name) for name in setting.names], b""),
        "is_pal": int(setting.pal),
        "is_frozen_ps": int(setting.frozen),
        "scene_major": (ONLINE if online else LOCAL)[0],
        "scene_minor": (ONLINE if online else LOCAL)[1],
        "language": 1,
    }
    if online:
        values |= {
            "netplay_name": each([name.encode() for name in setting.names], b""),
            "netplay_code": each([_code(code) for code in setting.codes], b""),
            "netplay_suid": each([(n.lower() * 7).encode() for n in setting.names], b""),
            "match_id": f"mode.unranked-{day}".encode(),
            "match_game": setting.game_number,
        }
    return values


@dataclass(frozen=True)
class Ending:
    """How a game ended: method as from 2.0 on, who quit (0-based port, -1), place of each port."""

    method: int
    quitter: int
    placements: tuple[int, int, int, int]


def ending(
    setting: Setting, method: int, stocks: Sequence[int], percent: Sequence[float]
) -> Ending:
    """The end of a fight from its last frame; who is behind is who quits."""
    first_leads = (stocks[0], -percent[0]) >= (stocks[1], -percent[1])
    winner = 0 if first_leads else 1
    if method != END_NO_CONTEST:
        quitter = ABSENT
    else:
        quitter = setting.ports[1 - winner]
        # In 18 of 22 real games that were quit the quitter holds placement 0: no reader may
        # take placements for the result there.
        winner = 1 - winner
    places = _per_port(setting, (winner, 1 - winner), ABSENT)
    return Ending(method, quitter, (places[0], places[1], places[2], places[3]))


def end_values(setting: Setting, end: Ending) -> dict[str, Any]:
    """Values of slp.END."""
    method = end.method
    if setting.layout < (2, 0):
        method = UNRESOLVED if method == END_NO_CONTEST else RESOLVED
    return {"method": method, "lras_initiator": end.quitter, "placements": end.placements}


def metadata(
    setting: Setting, last_frame: int, seen: Sequence[dict[str, int]], recording: int
) -> dict[str, Any]:
    """The metadata that Slippi writes after the game; `seen` = frames by internal character."""
    started = setting.started + recording * _BETWEEN_RECORDINGS
    players: dict[str, Any] = {}
    for port, name, code, characters in zip(
        setting.ports, setting.names, setting.codes, seen, strict=True
    ):
        names = {"netplay": name, "code": code} if setting.online else {}
        players[str(port)] = {"names": names, "characters": characters}
    return {
        "startAt": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lastFrame": last_frame,
        "players": players,
        "playedOn": "dolphin",
    }


# ---------------------------------------------------------------------------- stage


def timeline(setting: Setting, rng: random.Random, n_rows: int) -> dict[str, Array]:
    """What the stage does on each of `n_rows` frames, as columns of schemas.columns.STAGE."""
    if setting.stage == FOUNTAIN:
        return {
            "fod_platform_left": _heights(rng, n_rows, 20.0),
            "fod_platform_right": _heights(rng, n_rows, 28.0),
        }
    if setting.stage == DREAM_LAND:
        return {"whispy_direction": _wind(rng, n_rows)}
    if setting.stage == STADIUM:
        event, form = _transformations(rng, 0 if setting.frozen else n_rows, n_rows)
        return {"stadium_event": event, "stadium_type": form}
    return {}


def _heights(rng: random.Random, n_rows: int, start: float) -> Array:
    """A platform of Fountain: rests, then moves to another height, for ever."""
    heights = np.full(n_rows, start, np.float32)
    row = PLAY_ROW + 600 + int(rng.random() * 140)
    while row < n_rows:
        target, speed = 2.0 + 33.0 * rng.random(), 0.1 + 0.05 * rng.random()
        n = max(1, math.ceil(abs(target - start) / speed))
        path = np.linspace(start, target, n + 1, dtype=np.float32)[1:]
        heights[row : row + n] = path[: n_rows - row]
        heights[row + n :] = target
        start = target
        row += n + 120 + int(rng.random() * 400)
    return heights


def _wind(rng: random.Random, n_rows: int) -> Array:
    """Whispy of Dream Land: 0 none, 1 left, 2 right, blowing for some seconds at a time."""
    wind = np.zeros(n_rows, np.uint8)
    row = PLAY_ROW + 620 + int(rng.random() * 60)
    while row < n_rows:
        blows = 180 + int(rng.random() * 120)
        wind[row : row + blows] = 1 + int(rng.random() * 2)
        row += blows + 500 + int(rng.random() * 400)
    return wind


def _transformations(rng: random.Random, changing: int, n_rows: int) -> tuple[Array, Array]:
    """Stadium's (event, type) by frame; a form and the normal one take turns while it changes."""
    event = np.zeros(n_rows, np.uint16)
    form = np.full(n_rows, _STADIUM_NORMAL, np.uint16)
    row, is_normal = PLAY_ROW + _STADIUM_FIRST, True
    while row < changing:
        coming = _STADIUM_FORMS[int(rng.random() * 4)] if is_normal else _STADIUM_NORMAL
        form[row:] = coming
        phases = _STADIUM_PHASES if is_normal else _STADIUM_PHASES[1:]
        for after, phase in phases:
            event[row + after - phases[0][0] :] = phase
        row += _STADIUM_PHASES[-1][0] + _STADIUM_STAYS
        is_normal = not is_normal
    return event, form
