"""The numbers of the simulated game: fighters, attacks, shots, stages. Only tables, no behaviour.

Near Melee's own numbers and rounded: a model should find worlds apart between Fox and Jigglypuff,
nobody should take a figure from here for a frame count of the game. Units: game units, frames.
"""

import math
from typing import NamedTuple

from schemas.stages import STAGES as GEOMETRY


class Body(NamedTuple):
    """How one character moves, and what its neutral special does."""

    internal: int
    gravity: float
    fall: float
    fast_fall: float
    walk: float
    run: float
    jump: float
    drift: float
    squat: int
    """frames of knee bend before a jump"""
    weight: int
    special: tuple[int, int]
    """action states of the neutral special: on the ground, in the air"""
    shot: int = 0
    """item type that the special sends out; 0 for a blow"""
    jumps: int = 2


BODIES = {  # external id -> body
    0: Body(2, 0.13, 2.9, 3.5, 0.85, 2.3, 3.1, 1.12, 4, 104, (347, 348)),
    1: Body(3, 0.1, 2.4, 2.96, 1.2, 1.6, 2.7, 1.0, 5, 114, (372, 377)),
    2: Body(1, 0.23, 2.8, 3.4, 1.6, 2.2, 3.68, 0.83, 3, 75, (341, 344), 54),
    3: Body(24, 0.095, 1.7, 2.3, 1.1, 1.5, 2.2, 1.0, 4, 60, (353, 354), 122),
    4: Body(4, 0.08, 1.6, 2.0, 0.85, 1.4, 2.25, 0.78, 3, 70, (385, 389), 50, 6),
    5: Body(5, 0.13, 1.9, 2.4, 0.65, 1.5, 2.59, 0.8, 8, 117, (341, 344), 100),
    6: Body(6, 0.11, 2.13, 3.0, 1.2, 1.3, 2.5, 1.0, 6, 104, (346, 349), 64),
    7: Body(17, 0.069, 1.6, 2.0, 1.1, 1.34, 2.4, 0.68, 4, 100, (341, 342), 105),
    8: Body(0, 0.095, 1.7, 2.3, 1.1, 1.5, 2.3, 0.86, 4, 100, (343, 344), 48),
    9: Body(18, 0.085, 2.2, 2.5, 1.6, 1.8, 2.4, 0.9, 4, 87, (343, 347)),
    10: Body(16, 0.082, 1.5, 2.3, 1.0, 1.4, 2.3, 1.2, 5, 85, (345, 350), 112),
    11: Body(8, 0.09, 1.83, 2.2, 0.84, 1.4, 2.5, 0.93, 4, 94, (350, 354), 67),
    12: Body(9, 0.08, 1.5, 2.0, 0.85, 1.3, 2.3, 1.1, 5, 90, (352, 353), 99),
    13: Body(12, 0.11, 1.9, 2.7, 1.24, 1.8, 2.6, 0.85, 3, 80, (341, 342), 89),
    14: Body(10, 0.1, 1.6, 2.0, 1.0, 1.4, 2.4, 0.7, 3, 88, (341, 342), 106),
    15: Body(15, 0.064, 1.3, 1.6, 0.7, 1.1, 1.97, 1.35, 5, 60, (350, 358), 0, 6),
    16: Body(13, 0.066, 1.4, 2.3, 1.0, 1.4, 2.1, 0.89, 3, 110, (346, 348), 94),
    17: Body(14, 0.093, 1.93, 2.93, 1.15, 1.6, 2.4, 1.2, 5, 108, (346, 351), 86),
    18: Body(19, 0.073, 1.4, 1.85, 0.7, 1.1, 2.2, 1.0, 6, 90, (343, 346), 108),
    19: Body(7, 0.12, 2.13, 3.0, 1.2, 1.8, 2.8, 0.8, 3, 90, (344, 348), 79),
    20: Body(22, 0.17, 3.1, 3.5, 1.4, 1.5, 4.1, 0.83, 5, 80, (341, 344), 55),
    21: Body(20, 0.11, 2.13, 3.0, 1.2, 1.6, 2.5, 1.0, 4, 85, (346, 349), 65),
    22: Body(21, 0.095, 1.7, 2.3, 1.1, 1.5, 2.3, 0.86, 4, 100, (343, 344), 49),
    23: Body(26, 0.114, 2.4, 2.9, 1.2, 1.61, 2.7, 0.9, 5, 85, (343, 347)),
    24: Body(23, 0.11, 1.9, 2.5, 1.24, 1.72, 2.6, 0.85, 3, 55, (341, 342), 91),
    25: Body(25, 0.13, 2.0, 2.6, 0.73, 1.35, 2.5, 0.78, 6, 109, (347, 348)),
}
ICE_CLIMBERS, NANA = 14, 11

# How often a character is seen: a quarter is Fox, as in ranked play; the rest share what is left.
POPULARITY = {2: 25, 20: 17, 9: 14, 19: 9, 0: 8, 12: 5, 15: 4, 16: 3, 14: 3, 13: 2, 25: 2, 22: 2}
POPULARITY_OF_OTHERS = 0.5


class Shot(NamedTuple):
    """How a projectile flies. A `stun` of False (Fox's laser) only does damage."""

    speed: float
    lift: float
    gravity: float
    life: int
    damage: float
    height: float = 7.0
    bounce: float = 0.0
    stun: bool = True


SHOTS = {  # item type -> shot
    48: Shot(1.5, -0.5, 0.06, 75, 6, bounce=1.2),
    49: Shot(1.4, -0.6, 0.07, 75, 7, bounce=1.7),
    50: Shot(2.0, 0.0, 0.0, 30, 6, 3),
    54: Shot(7.0, 0.0, 0.0, 35, 3, stun=False),
    55: Shot(5.0, 0.0, 0.0, 50, 3),
    64: Shot(4.0, 0.6, 0.04, 60, 9),
    65: Shot(3.6, 0.6, 0.04, 60, 8),
    67: Shot(1.0, 1.2, 0.02, 90, 14),
    79: Shot(4.5, 0.0, 0.0, 40, 3),
    86: Shot(1.8, 2.4, 0.1, 80, 9),
    89: Shot(1.4, 0.3, 0.03, 90, 7, bounce=0.8),
    91: Shot(1.4, 0.3, 0.03, 80, 8, bounce=0.8),
    94: Shot(2.2, 0.0, 0.0, 80, 12),
    99: Shot(2.2, 0.8, 0.07, 120, 8),
    100: Shot(1.6, 0.0, 0.0, 20, 4),
    105: Shot(1.3, 0.0, 0.0, 70, 6),
    106: Shot(1.5, -0.4, 0.05, 60, 4, bounce=0.5),
    108: Shot(1.8, 0.3, 0.0, 60, 10),
    112: Shot(1.9, 0.0, 0.0, 90, 11),
    122: Shot(1.2, 2.2, 0.1, 60, 4),
}
CHARGE_SHOT, SHADOW_BALL, TURNIP, SHY_GUY = 94, 112, 99, 210
GUNS = {54: 74, 55: 75}
"""laser -> the gun that is held while it fires; an item, but no projectile"""


class Attack(NamedTuple):
    """One blow. It hits from frame `first` to `last` of `total`, `reach` units ahead (or behind,
    if negative), between `low` and `high` above the feet."""

    id: int
    first: int
    last: int
    total: int
    damage: float
    angle: int
    base: int
    growth: int
    reach: float
    low: float
    high: float
    lag: int = 0

    @property
    def aim(self) -> tuple[float, float]:
        """Cosine and sine of the angle; rounded, so that no maths library changes a bit."""
        turn = math.radians(self.angle)
        return round(math.cos(turn), 6), round(math.sin(turn), 6)


ATTACKS = {  # action state -> attack
    44: Attack(2, 2, 4, 17, 4, 60, 20, 50, 14, 2, 12),
    50: Attack(6, 6, 14, 36, 8, 70, 40, 70, 15, 0, 12),
    53: Attack(7, 5, 8, 27, 9, 40, 20, 100, 17, 2, 12),
    56: Attack(8, 5, 11, 24, 9, 85, 40, 110, 11, 4, 26),
    57: Attack(9, 7, 9, 28, 10, 75, 40, 100, 18, -2, 6),
    60: Attack(10, 12, 18, 40, 15, 40, 30, 105, 21, 2, 12),
    63: Attack(11, 7, 14, 42, 16, 80, 35, 110, 12, 2, 28),
    64: Attack(12, 6, 10, 46, 14, 28, 30, 90, 19, -2, 8),
    65: Attack(13, 4, 24, 42, 11, 45, 15, 100, 13, -2, 14, 15),
    66: Attack(14, 6, 14, 40, 9, 45, 20, 100, 16, 0, 13, 20),
    67: Attack(15, 5, 12, 38, 13, 40, 20, 100, -17, 0, 13, 20),
    68: Attack(16, 8, 14, 39, 13, 85, 30, 110, 11, 6, 26, 18),
    69: Attack(17, 5, 22, 46, 12, 75, 20, 95, 10, -8, 8, 18),
}
SPECIAL_BLOW = Attack(18, 18, 24, 55, 18, 40, 30, 100, 18, 2, 14)
SHOT_FRAME, SHOT_TOTAL = 10, 32
"""frame of a special on which its shot leaves, and frames until it is over"""


class Surface(NamedTuple):
    """Something to stand on. `ground` is the id that replays give it."""

    left: float
    right: float
    y: float
    ground: int


class Stage(NamedTuple):
    """Floor first, then platforms; `blast` = left, right, top, bottom. `hang` = x at the ledge."""

    surfaces: tuple[Surface, ...]
    blast: tuple[float, float, float, float]
    hang: float


# external id -> ground ids of floor and platforms, and x of a fighter that hangs at the ledge
_GROUNDS = {
    2: ((5, 0, 1, 2), 66.26),
    3: ((34, 35, 36), 90.66),
    8: ((3, 1, 5, 4), 58.91),
    28: ((4, 0, 1, 2), 80.18),
    31: ((1, 2, 4, 3), 71.31),
    32: ((1,), 88.47),
}


def _stage(number: int) -> Stage:
    geometry = GEOMETRY[number]
    grounds, hang = _GROUNDS[number]
    edge = geometry.edge  # the floor is level here, though Yoshi's slopes at its ends
    lines = [(-edge, edge, 0.0), *((p.left, p.right, p.y) for p in geometry.platforms)]
    surfaces = (Surface(*line, ground) for line, ground in zip(lines, grounds, strict=True))
    return Stage(tuple(surfaces), geometry.blast, hang)


STAGES = {number: _stage(number) for number in _GROUNDS}
"""external id -> stage, for the six tournament stages"""
FOUNTAIN, STADIUM, YOSHIS, DREAM_LAND = 2, 3, 8, 28
