"""One frame of a fighter: input, action, velocity, place, and where it then stands or is lost."""

import math

from ingest.synthetic import states as s
from ingest.synthetic.arena import ATTACKS
from ingest.synthetic.bot import Pad
from ingest.synthetic.fighter import (
    SHIELD_MAX,
    Fighter,
    die,
    enter,
    leave_ground,
    stand_on,
    take_off,
)
from ingest.synthetic.states import BUTTON_L, FLICK

KNOCKBACK_DECAY, KNOCKBACK_TRACTION = 0.051, 0.08
SHIELD_GROWTH = 0.07
L_CANCEL_FRAMES, TECH_FRAMES = 7, 20
LEDGE_LOW, LEDGE_HIGH, LEDGE_REACH, LEDGE_AGAIN = -22.0, -4.0, 9.0, 40


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


def _decay_knockback(f: Fighter) -> None:
    speed = math.sqrt(f.kx * f.kx + f.ky * f.ky)
    keep = max(0.0, 1.0 - KNOCKBACK_DECAY / speed)
    f.kx *= keep
    f.ky *= keep


def _slide(f: Fighter) -> None:
    if f.kx:
        f.kx = (
            max(0.0, f.kx - KNOCKBACK_TRACTION) if f.kx > 0 else min(0.0, f.kx + KNOCKBACK_TRACTION)
        )
    f.x += f.vx + f.kx
    under = f.world.surfaces[f.surface]
    f.y = under.y
    if under.left <= f.x <= under.right:
        return
    if f.spec.holds_on and not f.kx:
        f.x = min(max(f.x, under.left), under.right)
        f.vx = 0.0
    elif f.hitstun:
        take_off(f)
    else:
        leave_ground(f, s.FALL)


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


def _land(f: Fighter, surface: int) -> None:
    stand_on(f, surface)
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
