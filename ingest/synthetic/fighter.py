"""One fighter and the changes that happen to it as a whole: begin an action, leave or find ground,
die, come back. What its actions do stands in `actions`, how it moves in `motion`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.synthetic import states as s
from ingest.synthetic.arena import ATTACKS, Attack, Body, Stage, Surface
from ingest.synthetic.bot import NEUTRAL, Pad

SHIELD_MAX = 60.0
REBIRTH_FROM, REBIRTH_SPEED = 100.0, -1.0
NOBODY = 6


class Spec(NamedTuple):
    """What an action state does; it lasts `frames` and is followed by `next`."""

    act: Callable[["Fighter"], None]
    frames: int = 0
    next: int = s.WAIT
    moves: bool = True
    holds_on: bool = False
    """stops at the edge of the ground instead of falling off"""
    may_hang: bool = False
    """can catch the ledge"""


@dataclass(slots=True, eq=False)
class World:
    """What fighters share: the stage as it is this frame, and the counter of actions begun."""

    stage: Stage
    surfaces: list[Surface]
    states: Mapping[int, Spec]
    specials: tuple[Spec, Spec]
    """what all states above the common ones do, on the ground and in the air"""
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
    spec: Spec = field(init=False)
    """set by `enter`, with which a fighter begins"""
    pad: Pad = NEUTRAL
    pressed: int = 0
    flick_x: bool = False
    flick_down: bool = False


def enter(f: Fighter, state: int, ends: int | None = None) -> None:
    """Begin an action state, for `ends` frames where the table's number does not hold."""
    world = f.world
    spec = world.states.get(state) or world.specials[f.airborne]
    f.state, f.spec, f.age = state, spec, 0
    f.ends = spec.frames if ends is None else ends
    f.attack = ATTACKS.get(state)
    f.has_hit = False
    world.instances = world.instances % 65535 + 1
    f.instance = world.instances


def take_off(f: Fighter) -> None:
    """From the ground into the air, which costs a jump."""
    f.jumps -= 1 - f.airborne
    f.airborne = 1


def leave_ground(f: Fighter, state: int) -> None:
    """Go into the air with a new action."""
    take_off(f)
    f.vy = 0.0
    enter(f, state)


def stand_on(f: Fighter, surface: int) -> None:
    """Be on a surface, by its index, with all jumps."""
    under = f.world.surfaces[surface]
    f.y, f.vy, f.ky = under.y, 0.0, 0.0
    f.surface, f.ground = surface, under.ground
    f.airborne, f.fast, f.jumps = 0, 0, f.body.jumps


def die(f: Fighter, state: int) -> None:
    """Lose a stock; the fighter stays where it left until it is revived."""
    f.vx = f.vy = f.kx = f.ky = 0.0
    f.hitstun, f.hitlag, f.was_hit, f.fast = 0, 0, 0, 0
    enter(f, state)
    f.instance = 0
    if f.leader is None:
        f.stocks -= 1


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
