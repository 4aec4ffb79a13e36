"""Who holds the controllers: a seeded policy that picks a plan by situation and plays it out.

It sees both fighters and answers with raw sticks and buttons only, so that all that happens in a
game follows from recorded inputs.
"""

import random
from collections import deque
from itertools import accumulate
from typing import NamedTuple, Protocol

from ingest.synthetic import states as s
from ingest.synthetic.states import BUTTON_A, BUTTON_B, BUTTON_L, BUTTON_X

Pad = tuple[int, int, int, int, int, int]
"""raw stick x, y, c-stick x, y (-80 to 80), trigger (0 to 140), buttons"""
NEUTRAL: Pad = (0, 0, 0, 0, 0, 0)


class Seen(Protocol):
    """What the policy may look at."""

    x: float
    y: float
    vy: float
    ky: float
    state: int
    airborne: int
    hitstun: int


class Plan(NamedTuple):
    """What to hold. `ahead` is towards the opponent (the stage's centre if `home`); c-stick,
    trigger and buttons are held for the first `press` frames only."""

    frames: tuple[int, int]
    ahead: int = 0
    up: int = 0
    c_ahead: int = 0
    c_up: int = 0
    trigger: int = 0
    buttons: int = 0
    press: int = 2
    home: bool = False


PLANS = {
    "stand": Plan((4, 16)),
    "walk": Plan((8, 24), ahead=45),
    "dash": Plan((8, 24), ahead=80),
    "retreat": Plan((6, 16), ahead=-80),
    "crouch": Plan((4, 10), up=-80),
    "hop": Plan((6, 12), ahead=60, buttons=BUTTON_X),
    "jump": Plan((10, 20), ahead=60, buttons=BUTTON_X, press=10),
    "jump_back": Plan((10, 20), ahead=-60, buttons=BUTTON_X, press=10),
    "drift": Plan((6, 14), ahead=70),
    "drift_back": Plan((6, 14), ahead=-70),
    "fast_fall": Plan((6, 12), up=-80),
    "jab": Plan((6, 14), buttons=BUTTON_A),
    "tilt": Plan((8, 16), ahead=45, buttons=BUTTON_A),
    "up_tilt": Plan((8, 16), up=45, buttons=BUTTON_A),
    "down_tilt": Plan((8, 16), up=-45, buttons=BUTTON_A),
    "smash": Plan((12, 24), c_ahead=80),
    "up_smash": Plan((12, 24), c_up=80),
    "down_smash": Plan((12, 24), c_up=-80),
    "forward_air": Plan((8, 20), ahead=50, c_ahead=80),
    "back_air": Plan((8, 20), c_ahead=-80),
    "up_air": Plan((8, 20), c_up=80),
    "down_air": Plan((8, 20), ahead=30, c_up=-80),
    "shoot": Plan((14, 30), buttons=BUTTON_B),
    "shield": Plan((8, 22), trigger=140, buttons=BUTTON_L, press=20),
    "roll": Plan((6, 10), ahead=-80, trigger=140, buttons=BUTTON_L, press=4),
    "dodge": Plan((6, 10), up=-80, trigger=140, buttons=BUTTON_L, press=4),
    "air_dodge": Plan((6, 10), ahead=60, trigger=140, buttons=BUTTON_L, press=4),
    "home": Plan((6, 12), ahead=80, home=True),
    "jump_home": Plan((8, 14), ahead=80, buttons=BUTTON_X, press=6, home=True),
}

# How often each plan is picked, by situation.
_WEIGHTS: dict[str, dict[str, float]] = {
    "near": {"jab": 2, "tilt": 3, "up_tilt": 2, "down_tilt": 2, "smash": 4, "up_smash": 4,
             "down_smash": 3, "shield": 3, "roll": 2, "dodge": 1, "hop": 3, "jump_back": 1,
             "retreat": 2},
    "middle": {"dash": 8, "walk": 2, "hop": 4, "jump": 2, "shoot": 3, "retreat": 2, "shield": 1,
               "stand": 1, "crouch": 1},
    "far": {"dash": 8, "walk": 3, "shoot": 5, "jump": 2, "stand": 1, "retreat": 1},
    "air_near": {"jab": 3, "forward_air": 4, "back_air": 3, "up_air": 3, "down_air": 3, "drift": 1,
                 "drift_back": 1, "air_dodge": 0.5},
    "air_far": {"drift": 4, "fast_fall": 3, "jump": 1, "shoot": 1, "drift_back": 1},
    "off_stage": {"home": 3, "jump_home": 4},
    "hurt": {"stand": 1, "home": 2},
}  # fmt: skip
_CHOICES = {
    situation: list(zip(accumulate(weights.values()), (PLANS[p] for p in weights), strict=True))
    for situation, weights in _WEIGHTS.items()
}
NEAR, FAR, LANDING_SOON = 20.0, 60.0, 4


class Bot:
    """One player. `edge` is the x at which its stage ends."""

    def __init__(self, rng: random.Random, edge: float) -> None:
        self._rng = rng
        self._edge = edge
        self._plan, self._age, self._until, self._less, self._techs = PLANS["stand"], 0, 0, 0, False

    def pad(self, me: Seen, foe: Seen) -> Pad:
        """What it holds this frame, from what stood on the screen the frame before."""
        if self._age >= self._until:
            self._choose(me, foe)
        plan, age = self._plan, self._age
        self._age = age + 1
        ahead = 1 if (0.0 if plan.home else foe.x) > me.x else -1
        stick = ahead * plan.ahead
        if stick:
            stick += -self._less if stick > 0 else self._less
        trigger, buttons = 0, 0
        if self._techs and self._lands_soon(me):
            trigger, buttons = 140, BUTTON_L
        if age >= plan.press:
            return (stick, plan.up, 0, 0, trigger, buttons)
        return (stick, plan.up, ahead * plan.c_ahead, plan.c_up, plan.trigger or trigger,
                plan.buttons | buttons)  # fmt: skip

    def _choose(self, me: Seen, foe: Seen) -> None:
        rng = self._rng
        choices = _CHOICES[self._situation(me, foe)]
        at = rng.random() * choices[-1][0]
        plan = next(plan for limit, plan in choices if at < limit)
        low, high = plan.frames
        self._plan, self._age = plan, 0
        self._until = low + int(rng.random() * (high - low + 1))
        # Sticks are never held alike twice; no plan's stick crosses a threshold by it.
        self._less = int(rng.random() * min(14, max(1, abs(plan.ahead) // 3)))
        self._techs = rng.random() < 0.7

    def _situation(self, me: Seen, foe: Seen) -> str:
        if me.hitstun:
            return "hurt"
        if abs(me.x) > self._edge or me.y < -1.0:
            return "off_stage"
        distance = abs(foe.x - me.x) + 0.5 * abs(foe.y - me.y)
        if me.airborne:
            return "air_near" if distance < 1.5 * NEAR else "air_far"
        return "near" if distance < NEAR else "middle" if distance < FAR else "far"

    def _lands_soon(self, me: Seen) -> bool:
        falls = s.AIR_NEUTRAL <= me.state <= s.AIR_DOWN or me.hitstun > 0
        return falls and 0.0 < me.y < -LANDING_SOON * (me.vy + me.ky)


class Partner:
    """The Ice Climbers' second: does what its leader did `frames` ago, or comes back by itself."""

    def __init__(self, rng: random.Random, edge: float, frames: int = 6) -> None:
        self._bot, self._edge = Bot(rng, edge), edge
        self._held: deque[Pad] = deque([NEUTRAL] * frames, maxlen=frames)

    def pad(self, leader: Pad, me: Seen, foe: Seen) -> Pad:
        """What it holds this frame; `leader` is what its leader holds."""
        oldest = self._held[0]
        self._held.append(leader)
        is_lost = abs(me.x) > self._edge or me.y < -1.0
        return self._bot.pad(me, foe) if is_lost else oldest
