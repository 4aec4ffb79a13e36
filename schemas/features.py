"""Feature views: what a model sees of a game, declared one feature a row, and the formulas behind.

The `v22...` and `v3...` views give the numbers, order and types of the original encodings (its
`archive` dialect: float percent, processed buttons and trigger). A new view is one entry of VIEWS.
Formulas take the array module (numpy or torch) as an argument; nothing here imports torch.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from schemas.columns import PLAYER
from schemas.errors import UnknownNameError, nearest
from schemas.game import SIDES

Array = Any  # numpy.ndarray or torch.Tensor, as the array module says
Module = Any  # numpy or torch

Group = Literal["core", "velocity", "dynamics", "binary", "controller", "context"]
"""What the training target takes from a feature: core and velocity as a difference to the frame
before, dynamics and binary as they are, controller as the condition; context is never predicted."""

FORMULAS_REVISION = 1
"""Raised by hand when a formula gives other numbers: view hashes must change with it."""


@dataclass(frozen=True)
class Feature:
    """One float column of a player.

    source: leaf of the player in a game file, or an item column that `schemas.rows` computes.
    how: key of FORMULAS; `scale` and `bit` are its parameters.
    stand_in: raw value where the game's version has no such leaf, or a null.
    """

    name: str
    source: str
    group: Group
    how: str = "scale"
    scale: float = 1.0
    bit: int = 0
    stand_in: float = 0

    @property
    def since(self) -> tuple[int, int]:
        """First Slippi version that records the source."""
        return SINCE[self.source]


@dataclass(frozen=True)
class IntFeature:
    """One id column of a player (or the stage): clipped to 0 ... vocab - 1, embedded in `width`."""

    name: str
    source: str
    vocab: int
    width: int
    how: str = "id"
    stand_in: int = 0
    predicted: bool = True

    @property
    def since(self) -> tuple[int, int]:
        """First Slippi version that records the source."""
        return SINCE[self.source]


ITEM_SOURCES = ("nearest_dx", "nearest_dy", "n_items")
"""Columns of a player that follow from the frame's items."""
ITEM_LEAVES = ("slot", "position_x", "position_y")
"""Leaves of an item that they are computed from."""
SINCE = {c.name: c.since for c in PLAYER} | dict.fromkeys(ITEM_SOURCES, (3, 0)) | {"stage": (0, 1)}

# --- formulas ---------------------------------------------------------------------------------


def _scaled(xp: Module, value: Array, feature: Feature) -> Array:
    return xp.asarray(value, dtype=xp.float32) * feature.scale


def _count(xp: Module, value: Array, feature: Feature) -> Array:
    # The original multiplied an int64 by a Python float: 50 of 256 counts differ from float32.
    return xp.asarray(value, dtype=xp.float64) * feature.scale


def _stick(xp: Module, value: Array, _: Feature) -> Array:
    return xp.asarray(value, dtype=xp.float32) * 0.5 + 0.5


def _hitstun(xp: Module, value: Array, feature: Feature) -> Array:
    # misc_as is a union: now and then an integer whose bits are a subnormal float.
    size = xp.abs(value)
    bits = xp.asarray(value.view(xp.uint32), dtype=xp.float32)
    frames = xp.where((size > 0) & (size < 1e-10), bits, value)
    return xp.clip(frames, 0, 200) * feature.scale


FORMULAS: dict[str, Callable[[Module, Array, Feature], Array]] = {
    "scale": _scaled,
    "count": _count,
    "stick": _stick,
    "hitstun": _hitstun,
    "positive": lambda _, value, __: value > 0,
    "nonzero": lambda _, value, __: value != 0,
    "zero": lambda _, value, __: value == 0,
    "bit": lambda _, value, feature: (value & feature.bit) != 0,
}


def _id(xp: Module, value: Array, feature: IntFeature) -> Array:
    return xp.clip(xp.asarray(value, dtype=xp.int32), 0, feature.vocab - 1)


def _ground(xp: Module, value: Array, feature: IntFeature) -> Array:
    raw = xp.asarray(value, dtype=xp.int32)
    return xp.clip(xp.where(raw == 65535, 0, raw + 1), 0, feature.vocab - 1)


def _frames(xp: Module, value: Array, feature: IntFeature) -> Array:
    known = xp.where(value == value, value, 0)  # noqa: PLR0124 - NaN has no integer
    return xp.clip(known, 0, feature.vocab - 1)


INT_FORMULAS: dict[str, Callable[[Module, Array, IntFeature], Array]] = {
    "id": _id,
    "ground": _ground,
    "frames": _frames,
}

# --- features ---------------------------------------------------------------------------------

_CORE = (
    Feature("percent", "percent", "core", scale=0.01),
    Feature("x", "position_x", "core", scale=0.05),
    Feature("y", "position_y", "core", scale=0.05),
    Feature("shield", "shield", "core", scale=0.01, stand_in=60),
)
_VELOCITY = (
    Feature("speed_air_x", "velocities_self_x_air", "velocity", scale=0.05),
    Feature("speed_y", "velocities_self_y", "velocity", scale=0.05),
    Feature("speed_ground_x", "velocities_self_x_ground", "velocity", scale=0.05),
    Feature("speed_attack_x", "velocities_knockback_x", "velocity", scale=0.05),
    Feature("speed_attack_y", "velocities_knockback_y", "velocity", scale=0.05),
)
_STATE_AGE = (Feature("state_age", "state_age", "context", scale=0.01),)
_DYNAMICS = (
    Feature("hitlag", "hitlag", "dynamics", scale=0.1),
    Feature("stocks", "stocks", "dynamics", scale=0.25, stand_in=4),
    Feature("combo_count", "combo_count", "dynamics", "count", scale=0.1),
)
# Not masked by the hitstun flag (state_flags_3 & 2): the original was not.
_HITSTUN = (Feature("hitstun", "misc_as", "dynamics", "hitstun", scale=0.02),)
_PROJECTILES = (
    Feature("nearest_dx", "nearest_dx", "context", scale=0.05),
    Feature("nearest_dy", "nearest_dy", "context", scale=0.05),
    Feature("n_items", "n_items", "context", scale=0.1),
)
_BINARY = (
    Feature("facing", "direction", "binary", "positive"),
    Feature("invulnerable", "hurtbox_state", "binary", "nonzero"),
    Feature("on_ground", "airborne", "binary", "zero"),
)
_FLAGS = tuple(
    Feature(f"flag_{byte}_{bit}", f"state_flags_{byte}", "binary", "bit", bit=1 << bit)
    for byte in range(5)
    for bit in range(8)
)
_BUTTONS = {"a": 0x100, "b": 0x200, "x": 0x400, "y": 0x800, "z": 0x10, "l": 0x40, "r": 0x20,
            "d_up": 0x08}  # fmt: skip
_CONTROLLER = (
    Feature("main_x", "joystick_x", "controller", "stick"),
    Feature("main_y", "joystick_y", "controller", "stick"),
    Feature("c_x", "cstick_x", "controller", "stick"),
    Feature("c_y", "cstick_y", "controller", "stick"),
    Feature("shoulder", "triggers", "controller"),
    *(Feature(f"button_{n}", "buttons", "controller", "bit", bit=b) for n, b in _BUTTONS.items()),
)

_IDS = (
    IntFeature("action", "state", 400, 32),
    IntFeature("jumps_left", "jumps", 8, 4),
    IntFeature("character", "character", 33, 8, predicted=False),
    IntFeature("l_cancel", "l_cancel", 3, 2),
    IntFeature("hurtbox_state", "hurtbox_state", 3, 2),
    IntFeature("ground", "ground", 32, 4, "ground", stand_in=65535),
    IntFeature("last_attack_landed", "last_attack_landed", 64, 8),
)
_AGE_ID = (IntFeature("state_age", "state_age", 150, 8, "frames", predicted=False),)
_STAGE = IntFeature("stage", "stage", 33, 4, predicted=False)

# --- views ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """An ordered choice of features.

    A row is the block of the first player, then the same block of the second; ids likewise, with
    the stage (external id) as the last one. Groups are positions inside one player's block.
    """

    name: str
    floats: tuple[Feature, ...]
    ints: tuple[IntFeature, ...]
    stage: IntFeature = _STAGE

    def group(self, group: Group) -> tuple[int, ...]:
        """Positions of a group inside one player's block of floats."""
        return tuple(i for i, f in enumerate(self.floats) if f.group == group)

    @property
    def core(self) -> tuple[int, ...]:
        """percent, x, y, shield."""
        return self.group("core")

    @property
    def velocity(self) -> tuple[int, ...]:
        """The five speeds."""
        return self.group("velocity")

    @property
    def dynamics(self) -> tuple[int, ...]:
        """hitlag, stocks, combo, and hitstun where the view has it."""
        return self.group("dynamics")

    @property
    def binary(self) -> tuple[int, ...]:
        """facing, invulnerable, on_ground, and the 40 flags where the view has them."""
        return self.group("binary")

    @property
    def controller(self) -> tuple[int, ...]:
        """Sticks, shoulder, buttons: 13 values."""
        return self.group("controller")

    @property
    def n_float(self) -> int:
        """Float columns of a row (F)."""
        return 2 * len(self.floats)

    @property
    def n_int(self) -> int:
        """Id columns of a row (I), the stage included."""
        return 2 * len(self.ints) + 1

    @property
    def n_control(self) -> int:
        """Controller values of both players (C)."""
        return 2 * len(self.controller)

    def both(self, positions: tuple[int, ...]) -> tuple[int, ...]:
        """Row columns of these block positions: the first player's, then the second's."""
        return positions + tuple(len(self.floats) + i for i in positions)

    @cached_property
    def control_columns(self) -> tuple[int, ...]:
        """Row columns of both controllers, in the order of `Batch.controls`."""
        return self.both(self.controller)

    @cached_property
    def delta_columns(self) -> tuple[int, ...]:
        """Row columns whose change to the frame before is predicted (core, then velocity)."""
        return self.both(self.core) + self.both(self.velocity)

    @cached_property
    def value_columns(self) -> tuple[int, ...]:
        """Row columns predicted as they are (binary, then dynamics)."""
        return self.both(self.binary) + self.both(self.dynamics)

    @cached_property
    def target_int_columns(self) -> tuple[int, ...]:
        """Id columns that are predicted: those of the first player, then of the second."""
        one = tuple(i for i, feature in enumerate(self.ints) if feature.predicted)
        return one + tuple(len(self.ints) + i for i in one)

    @property
    def n_float_target(self) -> int:
        """Size of the float target: [delta core, delta velocity, binary, dynamics], each p0 p1."""
        return len(self.delta_columns) + len(self.value_columns)

    @property
    def n_int_target(self) -> int:
        """Size of the id target."""
        return len(self.target_int_columns)

    @cached_property
    def uses_items(self) -> bool:
        """Whether a feature needs the items of a frame."""
        return any(f.source in ITEM_SOURCES for f in self.floats)

    @cached_property
    def columns(self) -> list[str]:
        """Leaves of a game file that the view reads, as parquet names them."""
        sources = dict.fromkeys([f.source for f in self.floats] + [f.source for f in self.ints])
        found = ["frame"]
        found += [f"{side}.{s}" for side in SIDES for s in sources if s not in ITEM_SOURCES]
        if self.uses_items:
            found += [f"items.list.element.{leaf}" for leaf in ITEM_LEAVES]
        return found

    @cached_property
    def hash(self) -> str:
        """16 hex digits that change with any feature, its order, or the formulas."""
        table = [FORMULAS_REVISION, [asdict(f) for f in self.floats]]
        table += [[asdict(f) for f in (*self.ints, self.stage)]]
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


_MOTION = (*_CORE, *_VELOCITY)
_WITH_AGE = (*_IDS, *_AGE_ID)
VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("v22", (*_MOTION, *_STATE_AGE, *_DYNAMICS, *_BINARY, *_CONTROLLER), _IDS),
        View("v22-state-age", (*_MOTION, *_DYNAMICS, *_BINARY, *_CONTROLLER), _WITH_AGE),
        View("v22-projectiles",
             (*_MOTION, *_DYNAMICS, *_PROJECTILES, *_BINARY, *_CONTROLLER), _WITH_AGE),
        View("v3", (*_MOTION, *_DYNAMICS, *_HITSTUN, *_BINARY, *_FLAGS, *_CONTROLLER), _WITH_AGE),
        View("v3-projectiles",
             (*_MOTION, *_DYNAMICS, *_HITSTUN, *_PROJECTILES, *_BINARY, *_FLAGS, *_CONTROLLER),
             _WITH_AGE),
    )
}  # fmt: skip
"""All views by name."""


def view(name: str) -> View:
    """The view of that name.

    Raises UnknownNameError with the nearest one.
    """
    if name not in VIEWS:
        raise UnknownNameError(f"unknown view '{name}'", nearest(name, VIEWS) or ", ".join(VIEWS))
    return VIEWS[name]
