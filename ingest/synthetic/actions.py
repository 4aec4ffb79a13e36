"""What each action state does with a frame of input, and the table of all states.

`STATES` says for a state which function acts, how long it lasts and what follows it.
"""

from ingest.synthetic import states as s
from ingest.synthetic.arena import ATTACKS, SHOT_FRAME, SHOT_TOTAL, SPECIAL_BLOW
from ingest.synthetic.bot import NEUTRAL
from ingest.synthetic.fighter import (
    Fighter,
    Spec,
    enter,
    leave_ground,
    revive,
    stand_on,
)
from ingest.synthetic.states import BUTTON_A, BUTTON_B, BUTTON_L, BUTTON_X, DEAD_ZONE, FLICK

TRACTION, AIR_ACCELERATION = 0.08, 0.06
SHIELD_DECAY, SHIELD_AFTER_BREAK = 0.35, 30.0
SAFE_AFTER_REBIRTH = 120


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
        leave_ground(f, s.PASS)
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
    leave_ground(f, s.JUMP_B if f.pad[0] * f.direction < -DEAD_ZONE else s.JUMP_F)
    f.vy = f.body.jump * (1.0 if f.pad[5] & BUTTON_X else 0.6)
    f.vx = 0.8 * f.vx + 0.3 * f.body.drift * f.pad[0] / s.STICK_MAX


def _guard(f: Fighter) -> None:
    f.shield -= SHIELD_DECAY
    x, y = f.pad[0], f.pad[1]
    if f.shield <= 0.0:
        f.shield = SHIELD_AFTER_BREAK
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
        stand_on(f, 0)
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


# ---------------------------------------------------------------------------- the table


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
    s.FALL_SPECIAL: Spec(_steer, may_hang=True),
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
SPECIALS = Spec(_special_ground, SHOT_TOTAL, holds_on=True), Spec(_air_lag, SHOT_TOTAL, s.FALL)
"""neutral specials of all characters, on the ground and in the air"""

INTANGIBLE = frozenset(
    [*range(11), s.REBIRTH, s.REBIRTH_WAIT, s.ROLL_FORWARD, s.ROLL_BACK, s.SPOT_DODGE, s.AIR_DODGE,
     s.PASSIVE, s.DOWN_STAND, s.CLIFF_CATCH, s.CLIFF_CLIMB, s.ENTRY, s.ENTRY_START, s.ENTRY_END]
)  # fmt: skip
"""states in which nothing hits"""
GUARDING = frozenset([s.GUARD_ON, s.GUARD, s.GUARD_HIT])
