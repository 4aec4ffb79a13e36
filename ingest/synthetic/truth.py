"""All columns of a simulated game, as its Slippi version would record them."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.slp import numpy_type
from ingest.synthetic import states as s
from ingest.synthetic.actions import GUARDING, INTANGIBLE
from ingest.synthetic.arena import BODIES, NANA
from ingest.synthetic.fight import FIRST_FRAME, Recording
from ingest.synthetic.scene import Ending, Setting
from schemas import columns
from schemas.columns import Column

Array = npt.NDArray[Any]
Table = dict[str, Array]
Floats = Mapping[str, npt.NDArray[np.float64]]

_ODD_SEED_GAMES = 8  # in one game of so many the ports see different seeds
_SCENE_LOADS = 60  # frames that the scene counter is ahead of the first frame
_STICK_BITS = ((0x80000, 0x40000, "joystick_x"), (0x10000, 0x20000, "joystick_y"),
               (0x800000, 0x400000, "cstick_x"), (0x100000, 0x200000, "cstick_y"))  # fmt: skip
_ANY_TRIGGER = 0x80000000


@dataclass(frozen=True)
class Side:
    """One character's columns, T rows; `present` is False where it sends nothing (a lost Nana)."""

    port: int  # 0-based
    columns: Table
    present: Array


@dataclass(frozen=True)
class Truth:
    """What a reader must find, rollbacks resolved: arrays by column name of schemas.columns.

    Only columns of the game's version that a replay carries are there. sides, followers: lower port
    first; a follower is None where the character has none. items: a row an item and frame, in file
    order, of which `item_row` is the frame's row. stage: only the columns of this game's stage.
    """

    setting: Setting
    end: Ending
    frame: Table
    sides: tuple[Side, Side]
    followers: tuple[Side | None, Side | None]
    items: Table
    item_row: Array
    stage: Table

    @property
    def n_frames(self) -> int:
        """T."""
        return len(self.frame["frame"])

    @property
    def characters(self) -> Iterator[tuple[int, Side]]:
        """(follower 0 or 1, columns) in the order in which a file has them."""
        for pair in zip(self.sides, self.followers, strict=True):
            yield from ((n, side) for n, side in enumerate(pair) if side is not None)


def tell(
    rng: random.Random, setting: Setting, end: Ending, played: Recording, stage: Table
) -> Truth:
    """Derive and type every column; stage: of the whole game, cut here to what was played."""
    n = played.n_frames
    frames = np.arange(FIRST_FRAME, FIRST_FRAME + n)
    seeds = _seeds(setting.seed, n + 1)
    odd = rng.random() < 1 / _ODD_SEED_GAMES
    sides: list[Side | None] = [None, None]
    followers: list[Side | None] = [None, None]
    for side, is_follower, raw in played.fighters:
        own_seeds = seeds[1:] if odd and side == 1 else seeds[:-1]
        internal = NANA if is_follower else BODIES[setting.characters[side]].internal
        values = _player(raw, own_seeds) | {"character": np.full(n, internal)}
        values["state_flags_4"] = values["state_flags_4"] | (8 if is_follower else 0)
        typed = _typed(values, columns.PLAYER, setting, n)
        (followers if is_follower else sides)[side] = Side(
            setting.ports[side], typed, raw["_present"] > 0
        )
    frame = {
        "frame": frames,
        "random_seed": seeds[:-1],
        "scene_frame_counter": frames - FIRST_FRAME + _SCENE_LOADS,
        "latest_finalized_frame": frames,
    }
    first, second = sides
    assert first is not None
    assert second is not None
    return Truth(
        setting=setting,
        end=end,
        frame=_typed(frame, columns.FRAME, setting, n),
        sides=(first, second),
        followers=(followers[0], followers[1]),
        items=_typed(played.items, columns.ITEM, setting, len(played.items["_row"])),
        item_row=played.items["_row"].astype(np.int64),
        stage={c.name: stage[c.name][:n] for c in columns.STAGE
               if c.name in stage and c.since <= setting.layout},
    )  # fmt: skip


def _typed(
    values: Mapping[str, Array], group: tuple[Column, ...], setting: Setting, n: int
) -> Table:
    """Columns of the version in their types. One that the simulation does not know is zeros."""
    return {
        c.name: np.asarray(values.get(c.name, np.zeros(n))).astype(numpy_type(c))
        for c in group
        if c.source and c.since <= setting.layout
    }


def _seeds(seed: int, n: int) -> Array:
    """Melee's generator, one step a frame."""
    seeds = np.empty(n, np.uint32)
    for row in range(n):
        seeds[row] = seed
        seed = (seed * 214013 + 2531011) & 0xFFFFFFFF
    return seeds


def _before(values: Array) -> Array:
    """What a value was before its frame: the one after the frame before."""
    return np.concatenate([values[:1], values[:-1]])


def _player(raw: Floats, seeds: Array) -> Table:
    """Every column of one character: what was recorded, and what follows from it."""
    controls = _controls(raw)
    return {
        **{name: values for name, values in raw.items() if not name.startswith("_")},
        **controls,
        **_flags(raw),
        "random_seed": seeds,
        "pre_state": _before(raw["state"]),
        "pre_position_x": _before(raw["position_x"]),
        "pre_position_y": _before(raw["position_y"]),
        "pre_direction": _before(raw["direction"]),
        "pre_percent": _before(raw["percent"]),
        "velocities_self_x_ground": np.where(
            raw["airborne"] > 0, 0.0, raw["velocities_self_x_air"]
        ),
        "animation_index": raw["state"],
    }


def _controls(raw: Floats) -> Table:
    """Processed sticks, trigger and buttons of raw ones."""
    held = {
        "joystick_x": _stick(raw["raw_analog_x"]),
        "joystick_y": _stick(raw["raw_analog_y"]),
        "cstick_x": _stick(raw["raw_analog_cstick_x"]),
        "cstick_y": _stick(raw["raw_analog_cstick_y"]),
    }
    analog = np.minimum(1.0, raw["_trigger"] / s.TRIGGER_MAX)
    physical = raw["buttons_physical"].astype(np.uint32)
    buttons = physical.copy()
    for positive, negative, name in _STICK_BITS:
        buttons |= np.where(held[name] > 0.5, positive, 0).astype(np.uint32)
        buttons |= np.where(held[name] < -0.5, negative, 0).astype(np.uint32)
    buttons |= np.where(analog > 0, _ANY_TRIGGER, 0).astype(np.uint32)
    return {
        **held,
        "triggers": np.where(physical & s.BUTTON_L, 1.0, analog),
        "triggers_physical_l": analog,
        "triggers_physical_r": np.zeros(len(analog)),
        "buttons": buttons,
    }


def _stick(raw: Array) -> Array:
    clipped = np.clip(raw / s.STICK_MAX, -1.0, 1.0)
    return np.where(np.abs(raw) < s.DEAD_ZONE, 0.0, clipped)


def _flags(raw: Floats) -> Table:
    """The five bytes of state flags, and the columns that go with them."""
    state = raw["state"].astype(np.int64)
    is_intangible = np.isin(state, list(INTANGIBLE))
    in_hitlag, in_hitstun = raw["hitlag"] > 0, raw["misc_as"] > 0

    def bits(**masks: Array) -> Array:
        return sum((mask.astype(np.uint8) * _BITS[name] for name, mask in masks.items()),
                   np.zeros(len(state), np.uint8))  # fmt: skip

    return {
        "state_flags_0": bits(),
        "state_flags_1": bits(
            intangible=is_intangible,
            fast_fall=raw["_fast"] > 0,
            defender=raw["_was_hit"] > 0,
            hitlag=in_hitlag,
        ),
        "state_flags_2": bits(shield=np.isin(state, list(GUARDING))),
        "state_flags_3": bits(hitstun=in_hitstun),
        "state_flags_4": bits(dead=state <= s.DEAD_LAST),
        # The game reuses these bytes outside hitstun: not a number there must not reach a model.
        "misc_as": np.where(state == s.ENTRY_END, np.nan, raw["misc_as"]),
        "hurtbox_state": np.where(is_intangible, 2, raw["_safe"] > 0),
    }


_BITS = {
    "intangible": 0x04, "fast_fall": 0x08, "defender": 0x10, "hitlag": 0x20,
    "shield": 0x80, "hitstun": 0x02, "dead": 0x40,
}  # fmt: skip
