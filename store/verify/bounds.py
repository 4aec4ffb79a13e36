"""What a value of a game file may be, column by column, and which columns may well stand still.

Wide on purpose: in all stored real replays these bounds find one trigger of 3.8e22. A value outside
is kept (the replay says so), but named.
"""

from schemas.columns import FRAME, ITEM, PLAYER, STAGE, Column
from schemas.names import CHARACTERS_INTERNAL, ITEMS

Bounds = tuple[float, float]

_FAR: Bounds = (-10_000, 10_000)  # the widest stage ends at 350 units, items fly on to some 500
_FAST: Bounds = (-1_000, 1_000)  # units a frame; the largest of real games is 19
_STICK: Bounds = (-1, 1)
_FRAME: dict[str, Bounds] = {
    "frame": (-123, 60 * 60 * 60 * 24),
    "latest_finalized_frame": (-124, 60 * 60 * 60 * 24),
}
_PLAYER: dict[str, Bounds] = {
    "port": (1, 4),
    "pre_state": (0, 700),  # the largest state is Kirby's 522
    "pre_position_x": _FAR,
    "pre_position_y": _FAR,
    "pre_direction": _STICK,
    "joystick_x": _STICK,
    "joystick_y": _STICK,
    "cstick_x": _STICK,
    "cstick_y": _STICK,
    "triggers": (0, 1),
    "triggers_physical_l": (0, 2),  # raw / 140: adapters send up to 255
    "triggers_physical_r": (0, 2),
    "pre_percent": (0, 999),
    "character": (min(CHARACTERS_INTERNAL), max(CHARACTERS_INTERNAL)),
    "state": (0, 700),
    "position_x": _FAR,
    "position_y": _FAR,
    "direction": _STICK,
    "percent": (0, 999),
    "shield": (-1, 60.01),
    "last_hit_by": (0, 6),
    "stocks": (0, 99),
    "state_age": (-1_000, 100_000),
    "airborne": (0, 1),
    "jumps": (0, 10),
    "l_cancel": (0, 2),
    "hurtbox_state": (0, 2),
    "velocities_self_x_air": _FAST,
    "velocities_self_y": _FAST,
    "velocities_knockback_x": _FAST,
    "velocities_knockback_y": _FAST,
    "velocities_self_x_ground": _FAST,
    "hitlag": (0, 1_000),
}
_ITEM: dict[str, Bounds] = {
    "slot": (-1, 14),
    "type": (min(ITEMS), max(ITEMS)),
    "direction": _STICK,
    "velocity_x": _FAST,
    "velocity_y": _FAST,
    "position_x": _FAR,
    "position_y": _FAR,
    "timer": (-100_000, 100_000),
    "owner": (-1, 3),
}
_STAGE: dict[str, Bounds] = {
    "fod_platform_left": (-10, 50),
    "fod_platform_right": (-10, 50),
    "whispy_direction": (0, 2),
    "stadium_event": (0, 6),
    "stadium_type": (0, 9),
    "randall_x": (-110, 110),
    "randall_y": (-40, 0),
}

BOUNDS: dict[Column, Bounds] = {
    column: bounds[column.name]
    for columns, bounds in ((FRAME, _FRAME), (PLAYER, _PLAYER), (ITEM, _ITEM), (STAGE, _STAGE))
    for column in columns
    if column.name in bounds
}
"""Smallest and largest value; NaN and infinity are outside, too. No entry: any value may be."""

ONLY_ON_STAGE = {
    "fod_platform_left": 2,
    "fod_platform_right": 2,
    "whispy_direction": 28,
    "stadium_event": 3,
    "stadium_type": 3,
    "randall_x": 8,
    "randall_y": 8,
}
"""Stage columns that are null elsewhere, with the external id of their stage."""

MAY_STAND_STILL: dict[str, str] = {
    "port": "online, the host is always on port 1",
    "character": "a collection of one character",
    "stadium_event": "Stadium is frozen in ranked games",
    "stadium_type": "Stadium is frozen in ranked games",
    "state_flags_0": "nobody reflects or absorbs",
    "damage": "no item of the common ones takes damage",
    "misc_0": "Samus alone",
    "misc_1": "Peach alone",
    "misc_2": "Samus and Mewtwo alone",
    "misc_3": "Samus and Mewtwo alone",
}
"""Columns of game files that hold one value, or none, in many a sound store, and why."""
