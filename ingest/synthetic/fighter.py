"""One fighter's frame: input to action state, action state to velocity, velocity to place.

`STATES` says for each action state which function acts, how long it lasts and what follows.
Plain Python numbers: two fighters branch too much for arrays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.synthetic import states as s
from ingest.synthetic.arena import (
    ATTACKS,
    SHOT_FRAME,
    SHOT_TOTAL,
    SPECIAL_BLOW,
    Attack,
    Body,
    Stage,
    Surface,
)
from ingest.synthetic.bot import NEUTRAL, Pad
from ingest.synthetic.states import BUTTON_A, BUTTON_B, BUTTON_L, BUTTON_X, DEAD_ZONE, FLICK

TRACTION, AIR_ACCELERATION, KNOCKBACK_DECAY = 0.08, 0.06, 0.051
SHIELD_MAX, SHIELD_DECAY, SHIELD_GROWTH = 60.0, 0.28, 0.07
L_CANCEL_FRAMES, TECH_FRAMES, SAFE_AFTER_REBIRTH = 7, 20, 120
LEDGE_LOW, LEDGE_HIGH, LEDGE_REACH, LEDGE_AGAIN = -22.0, -4.0, 9.0, 40
REBIRTH_FROM, REBIRTH_SPEED = 100.0, -1.0
NOBODY = 6


@dataclass(slots=True, eq=False)
class World:
    """What fighters share: the stage as it is this frame, and the counter of actions begun."""

    stage: Stage
    surfaces: list[Surface]
    instances: int = 0
    shots: list["Fighter"] = field(default_factory=list)
    """fighters whose special lets a shot go this frame"""


@dataclass(slots=True, eq=False)
class Fighter:
    """State of one character; what is recorded is named in fight.RECORDED."""

    world: World
    body: Body
    side: int
    port: int
    internal: int
    leader: "Fighter | None" = None
    x: float = 0.0
    y: float = 0.0
    vx: float = 0.0
    vy: float = 0.0
    kx: float = 0.0
    ky: float = 0.0
    direction: float = 1.0
    percent: float = 0.0
    shield: float = SHIELD_MAX
    stocks: int = 4
    state: int = s.ENTRY
    age: int = 0
    ends: int = 0
    """age at which the state is over"""
    airborne: int = 0
    surface: int = 0
    ground: int = 65535
    jumps: int = 2
    fast: int = 0
    hitstun: int = 0
    tumbles: bool = False
    hitlag: int = 0
    was_hit: int = 0
    """1 while its hitlag is that of the one who was hit"""
    safe: int = 0
    """frames of invulnerability left"""
    l_cancel: int = 0
    last_attack: int = 0
    combo: int = 0
    last_hit_by: int = NOBODY
    hit_instance: int = 0
    instance: int = 0
    present: int = 1
    """0 for a follower that is out until its leader returns"""
    ledge_wait: int = 0
    since_trigger: int = 255
    attack: Attack | None = None
    has_hit: bool = False
    spec: "Spec" = None  # type: ignore[assignment]  # set by the first `enter`
    pad: Pad = NEUTRAL
    pressed: int = 0
    flick_x: bool = False
    flick_down: bool = False


def step(f: Fighter, pad: Pad) -> None:
    """One frame of one fighter. Hits are dealt afterwards, by `fight`."""
    before, f.pad = f.pad, pad
    f.pressed = pad[5] & ~before[5]
    f.flick_x = abs(pad[0]) >= FLICK > abs(before[0])
    f.flick_down = pad[1] <= -FLICK < before[1]
    f.since_trigger = 0 if f.pressed & BUTTON_L else f.since_trigger + 1
    f.l_cancel = 0
    if f.hitlag:
        f.hitlag -= 1
        if f.hitlag:
            return
        f.was_hit = 0
    if f.safe:
        f.safe -= 1
    if f.ledge_wait:
        f.ledge_wait -= 1
    if f.shield < SHIELD_MAX:
        f.shield = min(SHIELD_MAX, f.shield + SHIELD_GROWTH)
    f.age += 1
    f.spec.act(f)
    if f.spec.moves:
        (_fly if f.airborne else _slide)(f)
        _check_blast_zones(f)


def enter(f: Fighter, state: int, ends: int | None = None) -> None:
    """Begin an action state, for `ends` frames where the table's number does not hold."""
    spec = STATES.get(state) or (SPECIAL_AIR if f.airborne else SPECIAL_GROUND)
    f.state, f.spec, f.age = state, spec, 0
    f.ends = spec.frames if ends is None else ends
    f.attack = ATTACKS.get(state)
    f.has_hit = False
    world = f.world
    world.instances = world.instances % 65535 + 1
    f.instance = world.instances


# ---------------------------------------------------------------------------- on the ground


def _brake(f: Fighter) -> None:
    f.vx = max(0.0, f.vx - TRACTION) if f.vx > 0 else min(0.0, f.vx + TRACTION)


def _starts_action(f: Fighter) -> bool:
    """Shield, attack, special or jump, if the controller asks for one."""
    _, _, c_x, c_y, trigger, _ = f.pad
    if trigger > 40:
        enter(f, s.GUARD_ON)
    elif f.pressed & BUTTON_A or c_x or c_y:
        enter(f, _ground_attack(f))
    elif f.pressed & BUTTON_B:
        _special(f)
    elif f.pressed & BUTTON_X:
        enter(f, s.KNEE_BEND, f.body.squat)
    else:
        return False
    return True


def _ground_attack(f: Fighter) -> int:
    x, y, c_x, c_y, _, _ = f.pad
    if c_x:
        f.direction = 1.0 if c_x > 0 else -1.0
        return s.SIDE_SMASH
    if c_y:
        return s.UP_SMASH if c_y > 0 else s.DOWN_SMASH
    if f.state in (s.DASH, s.RUN):
        return s.DASH_ATTACK
    if abs(x) >= DEAD_ZONE:
        f.direction = 1.0 if x > 0 else -1.0
        return s.SIDE_TILT
    return s.JAB if abs(y) < DEAD_ZONE else s.UP_TILT if y > 0 else s.DOWN_TILT


def _special(f: Fighter) -> None:
    enter(f, f.body.special[f.airborne])
    f.ends = SHOT_TOTAL if f.body.shot else SPECIAL_BLOW.total
    f.attack = None if f.body.shot else SPECIAL_BLOW


def _stand(f: Fighter) -> None:
    if _starts_action(f):
        return
    x, y = f.pad[0], f.pad[1]
    if y <= -FLICK:
        _duck(f)
    elif abs(x) < DEAD_ZONE:
        _keep(f, s.WAIT)
        _brake(f)
    elif x * f.direction < 0:
        f.direction = -f.direction
        enter(f, s.TURN)
        _brake(f)
    elif f.flick_x:
        enter(f, s.DASH)
        f.vx = 0.9 * f.body.run * f.direction
    else:
        _keep(f, s.WALK_SLOW if abs(x) < 40 else s.WALK_MIDDLE if abs(x) < FLICK else s.WALK_FAST)
        _approach(f, f.body.walk * x / s.STICK_MAX, 0.1)


def _keep(f: Fighter, state: int) -> None:
    if f.state != state:
        enter(f, state)


def _approach(f: Fighter, target: float, most: float) -> None:
    """Change the own x velocity towards `target` by at most `most`."""
    f.vx = min(target, f.vx + most) if f.vx < target else max(target, f.vx - most)


def _duck(f: Fighter) -> None:
    if f.surface and f.flick_down:
        _leave_ground(f, s.PASS)
        f.y -= 0.5
    elif f.state not in (s.SQUAT, s.SQUAT_WAIT):
        enter(f, s.SQUAT)
    _brake(f)


def _crouch(f: Fighter) -> None:
    if _starts_action(f):
        return
    if f.pad[1] > -FLICK:
        enter(f, s.SQUAT_RV)
    elif f.state == s.SQUAT and f.age >= f.ends:
        enter(f, s.SQUAT_WAIT)
    _brake(f)


def _turn(f: Fighter) -> None:
    if _starts_action(f):
        return
    if f.age <= 2 and f.pad[0] * f.direction >= FLICK:
        enter(f, s.DASH)
        f.vx = 0.9 * f.body.run * f.direction
    else:
        _lag(f)


def _dash(f: Fighter) -> None:
    if _starts_action(f):
        return
    ahead = f.pad[0] * f.direction
    if ahead <= -FLICK:
        f.direction = -f.direction
        enter(f, s.TURN)
    elif f.age >= f.ends or f.state == s.RUN:
        if ahead >= FLICK:
            _keep(f, s.RUN)
            _approach(f, f.body.run * f.direction, 0.1)
        else:
            enter(f, s.RUN_BRAKE)


def _lag(f: Fighter) -> None:
    """Wait for the end of the state, and slow down."""
    if f.age >= f.ends:
        enter(f, f.spec.next)
    _brake(f)


def _knee_bend(f: Fighter) -> None:
    if f.age < f.ends:
        _brake(f)
        return
    f.jumps -= 1
    _leave_ground(f, s.JUMP_B if f.pad[0] * f.direction < -DEAD_ZONE else s.JUMP_F)
    f.vy = f.body.jump * (1.0 if f.pad[5] & BUTTON_X else 0.6)
    f.vx = 0.8 * f.vx + 0.3 * f.body.drift * f.pad[0] / s.STICK_MAX


def _guard(f: Fighter) -> None:
    f.shield -= SHIELD_DECAY + SHIELD_GROWTH
    x, y = f.pad[0], f.pad[1]
    if f.shield <= 0.0:
        f.shield = 30.0
        enter(f, s.SHIELD_BROKEN)
    elif f.pressed & BUTTON_X:
        enter(f, s.KNEE_BEND, f.body.squat)
    elif abs(x) >= FLICK:
        ahead = x * f.direction > 0
        enter(f, s.ROLL_FORWARD if ahead else s.ROLL_BACK)
        f.vx = 1.6 if x > 0 else -1.6
    elif y <= -FLICK:
        enter(f, s.SPOT_DODGE)
    elif f.pad[4] <= 40:
        enter(f, s.GUARD_OFF)
    elif f.state == s.GUARD_ON and f.age >= f.ends:
        enter(f, s.GUARD)
    _brake(f)


def _roll(f: Fighter) -> None:
    if f.age >= f.ends:
        f.vx = 0.0
        enter(f, s.WAIT)


def _special_ground(f: Fighter) -> None:
    if f.body.shot and f.age == SHOT_FRAME:
        f.world.shots.append(f)
    _lag(f)


# ---------------------------------------------------------------------------- in the air


def _leave_ground(f: Fighter, state: int) -> None:
    f.airborne = 1
    f.vy = 0.0
    enter(f, state)


def _air(f: Fighter) -> None:
    """A state that any aerial action may end."""
    x, y, c_x, c_y, trigger, _ = f.pad
    if f.pressed & BUTTON_A or c_x or c_y:
        enter(f, _air_attack(f))
    elif f.pressed & BUTTON_B:
        _special(f)
    elif f.pressed & BUTTON_X and f.jumps:
        f.jumps -= 1
        f.fast = 0
        enter(f, s.JUMP_AERIAL_B if x * f.direction < -DEAD_ZONE else s.JUMP_AERIAL_F)
        f.vy = 0.9 * f.body.jump
        f.vx = f.body.drift * x / s.STICK_MAX
    elif f.pressed & BUTTON_L and trigger > 40:
        enter(f, s.AIR_DODGE)
        f.vx, f.vy = 2.0 * x / s.STICK_MAX, 2.0 * y / s.STICK_MAX
    else:
        if f.age >= f.ends and f.state != f.spec.next:
            enter(f, f.spec.next)
        _steer(f)


def _air_attack(f: Fighter) -> int:
    _, y, c_x, c_y, _, _ = f.pad
    if c_x:
        return s.AIR_FORWARD if c_x * f.direction > 0 else s.AIR_BACK
    if c_y:
        return s.AIR_UP if c_y > 0 else s.AIR_DOWN
    return s.AIR_NEUTRAL if abs(y) < DEAD_ZONE else s.AIR_UP if y > 0 else s.AIR_DOWN


def _steer(f: Fighter) -> None:
    x = f.pad[0]
    if abs(x) >= DEAD_ZONE:
        _approach(f, f.body.drift * x / s.STICK_MAX, AIR_ACCELERATION)
    else:
        _approach(f, 0.0, 0.02)
    if f.flick_down and f.vy < 0.0:
        f.fast = 1


def _air_lag(f: Fighter) -> None:
    if f.state >= s.SPECIALS and f.body.shot and f.age == SHOT_FRAME:
        f.world.shots.append(f)
    if f.age >= f.ends:
        enter(f, f.spec.next)
    _steer(f)


def _hurt(f: Fighter) -> None:
    f.hitstun -= 1
    if f.hitstun > 0:
        return
    f.hitstun = 0
    if not f.airborne:
        enter(f, s.WAIT)
    else:
        enter(f, s.DAMAGE_FALL if f.tumbles else s.FALL)


def _cliff(f: Fighter) -> None:
    if f.state == s.CLIFF_CATCH:
        if f.age >= f.ends:
            enter(f, s.CLIFF_WAIT)
    elif f.age >= f.ends or f.pad[0] * f.direction > DEAD_ZONE or f.pad[1] > DEAD_ZONE:
        enter(f, s.CLIFF_CLIMB)


def _climb(f: Fighter) -> None:
    if f.age >= f.ends:
        f.x = f.direction * (6.0 - f.world.surfaces[0].right)
        _stand_on(f, 0)
        enter(f, s.WAIT)


# ---------------------------------------------------------------------------- out of the game


def _dead(f: Fighter) -> None:
    if f.leader is not None:
        if f.age >= f.ends:
            f.present = 0
        if f.leader.state == s.REBIRTH and f.leader.age == 0:
            revive(f)
    elif f.age >= f.ends and f.stocks:
        revive(f)


def revive(f: Fighter) -> None:
    """Bring a fighter back above the stage, as new."""
    f.present = 1
    f.x = (-15.0 if f.side == 0 else 15.0) + (8.0 if f.leader else 0.0)
    f.y = REBIRTH_FROM
    f.direction = 1.0 if f.x < 0 else -1.0
    f.percent, f.shield, f.combo = 0.0, SHIELD_MAX, 0
    f.last_hit_by, f.last_attack, f.hit_instance = NOBODY, 0, 0
    f.airborne, f.vy = 1, REBIRTH_SPEED
    enter(f, s.REBIRTH)


def _rebirth(f: Fighter) -> None:
    f.y += f.vy
    if f.age >= f.ends:
        f.vy = 0.0
        enter(f, s.REBIRTH_WAIT)


def _rebirth_wait(f: Fighter) -> None:
    if f.age >= f.ends or (f.age > 4 and f.pad != NEUTRAL):
        f.safe = SAFE_AFTER_REBIRTH
        f.jumps = f.body.jumps - 1
        enter(f, s.FALL)


def _entry(f: Fighter) -> None:
    if f.age >= f.ends:
        enter(f, f.spec.next)


def die(f: Fighter, state: int) -> None:
    """Lose a stock; the fighter stays where it left until it is revived."""
    f.vx = f.vy = f.kx = f.ky = 0.0
    f.hitstun, f.hitlag, f.was_hit, f.fast = 0, 0, 0, 0
    enter(f, state)
    f.instance = 0
    if f.leader is None:
        f.stocks -= 1


# ---------------------------------------------------------------------------- motion


def _decay_knockback(f: Fighter) -> None:
    speed = math.sqrt(f.kx * f.kx + f.ky * f.ky)
    keep = max(0.0, 1.0 - KNOCKBACK_DECAY / speed)
    f.kx *= keep
    f.ky *= keep


def _slide(f: Fighter) -> None:
    if f.kx:
        f.kx = max(0.0, f.kx - TRACTION) if f.kx > 0 else min(0.0, f.kx + TRACTION)
    f.x += f.vx + f.kx
    under = f.world.surfaces[f.surface]
    f.y = under.y
    if under.left <= f.x <= under.right:
        return
    if f.spec.holds_on and not f.kx:
        f.x = min(max(f.x, under.left), under.right)
        f.vx = 0.0
    elif f.hitstun:
        f.airborne = 1
    else:
        f.jumps -= 1
        _leave_ground(f, s.FALL)


def _fly(f: Fighter) -> None:
    body = f.body
    if f.state != s.AIR_DODGE or f.age > 20:
        f.vy = -body.fast_fall if f.fast else max(f.vy - body.gravity, -body.fall)
    if f.kx or f.ky:
        _decay_knockback(f)
    above = f.y
    rise = f.vy + f.ky
    f.x += f.vx + f.kx
    f.y += rise
    if rise <= 0.0:
        for n, surface in enumerate(f.world.surfaces):
            # 0.2: a platform that rises may pass the feet in between
            if f.y <= surface.y <= above + 0.2 and surface.left <= f.x <= surface.right:
                if n and f.pad[1] <= -FLICK and not f.hitstun:
                    continue
                f.y = surface.y
                _land(f, n)
                return
    if f.y < 0.0:
        _meet_wall(f)


def _meet_wall(f: Fighter) -> None:
    stage = f.world.stage
    edge = f.world.surfaces[0].right
    if abs(f.x) < edge:
        f.x = edge if f.x > 0 else -edge
    reach = abs(f.x) - edge
    if (
        f.spec.may_hang
        and f.vy < 0.0
        and not f.ledge_wait
        and reach < LEDGE_REACH
        and LEDGE_LOW < f.y < LEDGE_HIGH
    ):
        f.direction = -1.0 if f.x > 0 else 1.0
        f.x = -f.direction * stage.hang
        f.y = LEDGE_LOW
        f.vx = f.vy = f.kx = f.ky = 0.0
        f.fast, f.jumps, f.ledge_wait = 0, f.body.jumps, LEDGE_AGAIN
        enter(f, s.CLIFF_CATCH)


def _stand_on(f: Fighter, surface: int) -> None:
    under = f.world.surfaces[surface]
    f.y, f.vy, f.ky = under.y, 0.0, 0.0
    f.surface, f.ground = surface, under.ground
    f.airborne, f.fast, f.jumps = 0, 0, f.body.jumps


def _land(f: Fighter, surface: int) -> None:
    _stand_on(f, surface)
    if f.hitstun or f.state == s.DAMAGE_FALL:
        f.hitstun = 0
        if not f.tumbles:
            enter(f, s.LANDING)
        elif f.since_trigger < TECH_FRAMES:
            enter(f, s.PASSIVE)
        else:
            enter(f, s.DOWN_BOUND)
        f.tumbles = False
    elif s.AIR_NEUTRAL <= f.state <= s.AIR_DOWN:
        f.l_cancel = 1 if f.since_trigger < L_CANCEL_FRAMES else 2
        lag = ATTACKS[f.state].lag
        enter(f, f.state + 5, lag // 2 if f.l_cancel == 1 else lag)
    elif f.state in (s.AIR_DODGE, s.FALL_SPECIAL):
        enter(f, s.LANDING_FALL_SPECIAL)
    else:
        enter(f, s.LANDING)


def _check_blast_zones(f: Fighter) -> None:
    left, right, top, bottom = f.world.stage.blast
    if f.y < bottom:
        die(f, s.DEAD_DOWN)
    elif f.x < left:
        die(f, s.DEAD_LEFT)
    elif f.x > right:
        die(f, s.DEAD_RIGHT)
    elif f.y > top and f.ky > 0.0:
        die(f, s.DEAD_UP)


# ---------------------------------------------------------------------------- the table


class Spec(NamedTuple):
    """What an action state does; it lasts `frames` and is followed by `next`."""

    act: Callable[[Fighter], None]
    frames: int = 0
    next: int = s.WAIT
    moves: bool = True
    holds_on: bool = False
    """stops at the edge of the ground instead of falling off"""
    may_hang: bool = False
    """can catch the ledge"""


def _of(states: range | tuple[int, ...], spec: Spec) -> dict[int, Spec]:
    return dict.fromkeys(states, spec)


STATES: dict[int, Spec] = {
    **_of(range(11), Spec(_dead, 60, moves=False)),
    s.REBIRTH: Spec(_rebirth, 60, moves=False),
    s.REBIRTH_WAIT: Spec(_rebirth_wait, 120, moves=False),
    **_of(range(s.WAIT, s.WALK_FAST + 1), Spec(_stand)),
    s.TURN: Spec(_turn, 11),
    s.DASH: Spec(_dash, 12),
    s.RUN: Spec(_dash),
    s.RUN_BRAKE: Spec(_lag, 16, holds_on=True),
    s.KNEE_BEND: Spec(_knee_bend),
    **_of(range(s.JUMP_F, s.JUMP_AERIAL_B + 1), Spec(_air, 38, s.FALL, may_hang=True)),
    **_of((s.FALL, s.DAMAGE_FALL), Spec(_air, 0, s.FALL, may_hang=True)),
    s.PASS: Spec(_air, 30, s.FALL, may_hang=True),
    s.FALL_SPECIAL: Spec(_air_lag, 9999, s.FALL, may_hang=True),
    s.SQUAT: Spec(_crouch, 8),
    s.SQUAT_WAIT: Spec(_crouch),
    s.SQUAT_RV: Spec(_lag, 10),
    s.LANDING: Spec(_lag, 4, holds_on=True),
    s.LANDING_FALL_SPECIAL: Spec(_lag, 10, holds_on=True),
    **{
        state: Spec(_lag, attack.total, holds_on=True)
        for state, attack in ATTACKS.items()
        if state < s.AIR_NEUTRAL
    },
    **{
        state: Spec(_air_lag, attack.total, s.FALL)
        for state, attack in ATTACKS.items()
        if state >= s.AIR_NEUTRAL
    },
    **_of(range(s.LANDING_AIR_NEUTRAL, s.LANDING_AIR_DOWN + 1), Spec(_lag, holds_on=True)),
    **_of(range(s.DAMAGE_HIGH, 92), Spec(_hurt)),
    s.GUARD_ON: Spec(_guard, 8, holds_on=True),
    s.GUARD: Spec(_guard, holds_on=True),
    s.GUARD_OFF: Spec(_lag, 15, holds_on=True),
    s.GUARD_HIT: Spec(_lag, 0, s.GUARD, holds_on=True),
    s.DOWN_BOUND: Spec(_lag, 26, s.DOWN_WAIT, holds_on=True),
    s.DOWN_WAIT: Spec(_lag, 10, s.DOWN_STAND, holds_on=True),
    s.DOWN_STAND: Spec(_lag, 30, holds_on=True),
    s.PASSIVE: Spec(_lag, 26, holds_on=True),
    s.SHIELD_BROKEN: Spec(_lag, 120, holds_on=True),
    s.ROLL_FORWARD: Spec(_roll, 28, holds_on=True),
    s.ROLL_BACK: Spec(_roll, 28, holds_on=True),
    s.SPOT_DODGE: Spec(_lag, 22, holds_on=True),
    s.AIR_DODGE: Spec(_air_lag, 49, s.FALL_SPECIAL),
    s.CLIFF_CATCH: Spec(_cliff, 8, moves=False),
    s.CLIFF_WAIT: Spec(_cliff, 40, moves=False),
    s.CLIFF_CLIMB: Spec(_climb, 33, moves=False),
    s.ENTRY: Spec(_entry, 20, s.ENTRY_START, moves=False),
    s.ENTRY_START: Spec(_entry, 40, s.ENTRY_END, moves=False),
    s.ENTRY_END: Spec(_entry, 24, s.WAIT, moves=False),
}
SPECIAL_GROUND = Spec(_special_ground, SHOT_TOTAL, holds_on=True)
SPECIAL_AIR = Spec(_air_lag, SHOT_TOTAL, s.FALL)

INTANGIBLE = frozenset(
    [*range(11), s.REBIRTH, s.REBIRTH_WAIT, s.ROLL_FORWARD, s.ROLL_BACK, s.SPOT_DODGE, s.AIR_DODGE,
     s.PASSIVE, s.DOWN_STAND, s.CLIFF_CATCH, s.CLIFF_CLIMB, s.ENTRY, s.ENTRY_START, s.ENTRY_END]
)  # fmt: skip
"""states in which nothing hits"""
GUARDING = frozenset([s.GUARD_ON, s.GUARD, s.GUARD_HIT])
