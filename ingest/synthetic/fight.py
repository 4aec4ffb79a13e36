"""A whole fight, frame by frame: bots, fighters, blows, projectiles, and what was recorded."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from ingest.synthetic import states as s
from ingest.synthetic.actions import GUARDING, INTANGIBLE, SPECIALS, STATES
from ingest.synthetic.arena import (
    BODIES,
    CHARGE_SHOT,
    GUNS,
    ICE_CLIMBERS,
    NANA,
    SHADOW_BALL,
    SHOTS,
    SHY_GUY,
    STAGES,
    TURNIP,
    YOSHIS,
    Attack,
    Shot,
)
from ingest.synthetic.bot import NEUTRAL, Bot, Pad, Partner
from ingest.synthetic.fighter import Fighter, World, die, enter, take_off
from ingest.synthetic.motion import step

FIRST_FRAME, FIRST_ACTING_ROW = -123, 84  # players act from frame -39
AFTER_LAST_STOCK = 8  # frames that are still recorded
ITEMS_MAX = 15  # the game sends no more in a frame
BODY_WIDTH, BODY_HEIGHT = 5.0, 14.0
HARDER, FARTHER = 2.5, 1.4
"""Damage and knockback growth over the table's: four stocks last a minute, not two or three."""
TUMBLE = 80.0  # knockback from which a fighter is thrown off its feet

# Column of schemas.columns.PLAYER -> attribute of Fighter; `_` rows feed columns derived later.
RECORDED = {
    "state": "state", "state_age": "age", "position_x": "x", "position_y": "y",
    "direction": "direction", "percent": "percent", "shield": "shield", "stocks": "stocks",
    "last_attack_landed": "last_attack", "combo_count": "combo", "last_hit_by": "last_hit_by",
    "airborne": "airborne", "ground": "ground", "jumps": "jumps", "l_cancel": "l_cancel",
    "velocities_self_x_air": "vx", "velocities_self_y": "vy", "velocities_knockback_x": "kx",
    "velocities_knockback_y": "ky", "hitlag": "hitlag", "misc_as": "hitstun",
    "last_hit_by_instance": "hit_instance", "instance_id": "instance",
    "_fast": "fast", "_was_hit": "was_hit", "_safe": "safe", "_present": "present",
}  # fmt: skip
PAD = ("raw_analog_x", "raw_analog_y", "raw_analog_cstick_x", "raw_analog_cstick_y", "_trigger",
       "buttons_physical")  # fmt: skip
ITEM = ("_row", "type", "state", "direction", "velocity_x", "velocity_y", "position_x",
        "position_y", "damage", "timer", "id", "misc_0", "misc_1", "misc_2", "misc_3", "owner",
        "instance_id")  # fmt: skip

_fighter_row = attrgetter(*RECORDED.values())
_item_row = attrgetter("type", "state", "direction", "vx", "vy", "x", "y", "damage", "timer", "id",
                       "misc_0", "face", "launched", "charge", "owner", "instance")  # fmt: skip


@dataclass(slots=True, eq=False)
class Item:
    """Something in flight, or in a hand (`holder`)."""

    type: int
    id: int
    by: Fighter | None
    direction: float
    x: float
    y: float
    vx: float
    vy: float
    timer: float
    shot: Shot | None
    instance: int
    owner: int
    face: int = 0
    launched: int = 0
    charge: int = 0
    state: int = 0
    damage: int = 0
    misc_0: int = 0


@dataclass(frozen=True)
class Recording:
    """What happened. `fighters` are leaders in port order, each followed by its follower; each is
    (side, is_follower, columns by name, T rows). `items` has a row an item and frame."""

    n_frames: int
    fighters: list[tuple[int, bool, dict[str, npt.NDArray[np.float64]]]]
    items: dict[str, npt.NDArray[np.float64]]

    def until(self, n: int) -> "Recording":
        """The first `n` frames."""
        kept = self.items["_row"] < n
        return Recording(
            n,
            [(side, f, {k: v[:n] for k, v in raw.items()}) for side, f, raw in self.fighters],
            {k: v[kept] for k, v in self.items.items()},
        )


class Fight:
    """Two sides on a stage. Every choice comes from `rng`; `random()` alone is used of it, whose
    sequence Python promises to keep."""

    def __init__(
        self, rng: random.Random, stage: int, characters: Sequence[int], ports: Sequence[int]
    ) -> None:
        self.rng, self.stage = rng, stage
        self.world = World(STAGES[stage], list(STAGES[stage].surfaces), STATES, SPECIALS)
        self.fighters = self._cast(characters, ports)
        self.leaders = [f for f in self.fighters if f.leader is None]
        edge = self.world.surfaces[0].right
        self.bots = [Bot(rng, edge) for _ in self.leaders]
        self.partners = {f.side: (f, Partner(rng, edge)) for f in self.fighters if f.leader}
        self.items: list[Item] = []
        self.n_items = 0

    def _cast(self, characters: Sequence[int], ports: Sequence[int]) -> list[Fighter]:
        cast: list[Fighter] = []
        for side, (character, port) in enumerate(zip(characters, ports, strict=True)):
            body = BODIES[character]
            leader = Fighter(self.world, body, side, port, body.internal)
            cast.append(leader)
            if character == ICE_CLIMBERS:
                cast.append(Fighter(self.world, body, side, port, NANA, leader))
        edge = self.world.surfaces[0].right
        for f in cast:
            f.direction = 1.0 if f.side == 0 else -1.0
            f.x = -f.direction * (0.6 * edge + (8.0 if f.leader else 0.0))
            f.ground, f.jumps = self.world.surfaces[0].ground, f.body.jumps
            enter(f, s.ENTRY)
            f.age = -1  # the first step is the first frame
        return cast

    def run(self, n_rows: int, heights: npt.NDArray[np.float64] | None = None) -> Recording:
        """Play until a side has no stock left, `n_rows` frames at most.

        heights: (n_rows, 2) of the stage's left and right platform, where they move.
        """
        rows = [array("d") for _ in self.fighters]
        items = array("d")
        levels = [] if heights is None else heights.tolist()
        left, row = AFTER_LAST_STOCK, 0
        while row < n_rows and left:
            if levels:
                self._move_platforms(*levels[row])
            pads = self._pads(row)
            self._step(pads, row)
            for f, pad, to in zip(self.fighters, pads, rows, strict=True):
                to.extend(_fighter_row(f))
                to.extend(pad)
            for item in self.items:
                items.append(row)
                items.extend(_item_row(item))
            left -= any(not f.stocks for f in self.leaders)
            row += 1
        fighters = [
            (f.side, f.leader is not None, _columns(to, (*RECORDED, *PAD)))
            for f, to in zip(self.fighters, rows, strict=True)
        ]
        return Recording(row, fighters, _columns(items, ITEM))

    def _move_platforms(self, left: float, right: float) -> None:
        surfaces = self.world.surfaces
        surfaces[1] = surfaces[1]._replace(y=left)
        surfaces[2] = surfaces[2]._replace(y=right)

    def _pads(self, row: int) -> list[Pad]:
        if row < FIRST_ACTING_ROW:
            return [NEUTRAL] * len(self.fighters)
        one, two = self.leaders
        pads = []
        for bot, me, foe in zip(self.bots, (one, two), (two, one), strict=True):
            pads.append(bot.pad(me, foe))
            if me.side in self.partners:
                second, partner = self.partners[me.side]
                pads.append(partner.pad(pads[-1], second, foe))
        return pads

    def _step(self, pads: list[Pad], row: int) -> None:
        for f, pad in zip(self.fighters, pads, strict=True):
            step(f, pad)
            if f.leader is not None:
                f.stocks = f.leader.stocks
                if f.leader.instance == 0 and f.instance:
                    die(f, s.DEAD_DOWN)
        for f in self.fighters:
            attack = f.attack
            if attack and not f.has_hit and attack.first <= f.age <= attack.last and not f.hitlag:
                self._blow(f, attack)
        self._move_items()
        self._spawn_items(row)

    # ------------------------------------------------------------------------ blows

    def _blow(self, by: Fighter, attack: Attack) -> None:
        middle = by.x + 0.5 * attack.reach * by.direction
        reach = 0.5 * abs(attack.reach) + BODY_WIDTH
        for target in self.fighters:
            if (
                target.side != by.side
                and abs(target.x - middle) < reach
                and by.y + attack.low < target.y + BODY_HEIGHT
                and target.y < by.y + attack.high
                and strike(by, target, attack, 1.0 if middle >= by.x else -1.0)
            ):
                by.has_hit = True
                by.hitlag = target.hitlag

    # ------------------------------------------------------------------------ items

    def _move_items(self) -> None:
        if self.items:
            self.items = [item for item in self.items if self._moves_on(item)]

    def _moves_on(self, item: Item) -> bool:
        """Move an item by a frame; False when that was its last."""
        item.timer -= 1.0
        by, shot = item.by, item.shot
        if shot is None:
            return self._is_held(item)
        item.vy -= shot.gravity
        item.x += item.vx
        item.y += item.vy
        floor = self.world.surfaces[0]
        if item.y <= 0.0 and item.vy < 0.0 and abs(item.x) < floor.right:
            item.y, item.vy = 0.0, shot.bounce
            if not shot.bounce:
                return False
        left, right, top, bottom = self.world.stage.blast
        if item.timer <= 0.0 or not (left < item.x < right and bottom < item.y < top):
            return False
        return by is None or not self._hits(item, by, shot)

    def _is_held(self, item: Item) -> bool:
        by = item.by
        if by is None:  # a Shy Guy floats by
            item.x += item.vx
            return item.timer > 0.0
        item.x, item.y, item.direction = by.x + 6.0 * by.direction, by.y + 7.0, by.direction
        return by.instance == item.instance and item.timer > 0.0

    def _hits(self, item: Item, by: Fighter, shot: Shot) -> bool:
        reach = BODY_WIDTH + 0.5 * abs(item.vx)
        for target in self.fighters:
            if (
                target.side != by.side
                and abs(target.x - item.x) < reach
                and target.y <= item.y < target.y + BODY_HEIGHT
            ):
                blow = SHOT_BLOW._replace(damage=shot.damage + item.charge)
                away = 1.0 if item.vx >= 0 else -1.0
                if strike(by, target, blow, away, stuns=shot.stun, instance=item.instance):
                    return True
        return False

    def _spawn_items(self, row: int) -> None:
        for f in self.world.shots:
            self._shoot(f)
        self.world.shots.clear()
        for f in self.fighters:
            if f.age == 0 and f.state >= s.SPECIALS and f.body.shot in GUNS:
                self._add(GUNS[f.body.shot], f, f.x, f.y, vx=0.0, vy=0.0, timer=99.0)
        if self.stage == YOSHIS and row % 600 == 500:
            self._add(SHY_GUY, None, 120.0, 30.0 + 10 * self.rng.random(), vx=-0.6, vy=0, timer=400)

    def _shoot(self, f: Fighter) -> None:
        shot = SHOTS[f.body.shot]
        item = self._add(
            f.body.shot,
            f,
            f.x + 6.0 * f.direction,
            f.y + shot.height,
            vx=shot.speed * f.direction,
            vy=shot.lift,
            timer=float(shot.life),
        )
        if item is None:
            return
        item.shot = shot
        if item.type == TURNIP:
            item.face = int(self.rng.random() * 8)
        if item.type in (CHARGE_SHOT, SHADOW_BALL):
            item.launched, item.charge = 1, int(self.rng.random() * 8)

    def _add(
        self,
        kind: int,
        by: Fighter | None,
        x: float,
        y: float,
        *,
        vx: float,
        vy: float,
        timer: float,
    ) -> Item | None:
        if len(self.items) >= ITEMS_MAX:
            return None
        direction = by.direction if by else -1.0
        instance, owner = (by.instance, by.port) if by else (0, -1)
        item = Item(kind, self.n_items, by, direction, x, y, vx, vy, timer, None, instance, owner)
        self.n_items += 1
        self.items.append(item)
        return item


SHOT_BLOW = Attack(18, 0, 0, 0, 0.0, 60, 10, 40, 0.0, 0.0, 0.0)


def strike(
    by: Fighter,
    target: Fighter,
    blow: Attack,
    away: float,
    *,
    stuns: bool = True,
    instance: int | None = None,
) -> bool:
    """Hit `target`, or its shield; False where nothing can hit it.

    away: the direction in which it flies. instance: of the action, where it is not `by`'s own.
    """
    if target.safe or target.state in INTANGIBLE or not target.present:
        return False
    if target.state in GUARDING:
        _hit_shield(target, blow, away)
        return True
    by.combo = by.combo + 1 if target.hitstun else 1
    by.last_attack = blow.id
    target.last_hit_by = by.port
    target.hit_instance = by.instance if instance is None else instance
    target.percent = min(999.0, target.percent + HARDER * blow.damage)
    if stuns:
        target.hitlag, target.was_hit = int(blow.damage / 3 + 3), 1
        _launch(target, blow, away)
    return True


def _hit_shield(target: Fighter, blow: Attack, away: float) -> None:
    target.shield = max(0.0, target.shield - blow.damage)
    target.hitlag, target.was_hit = int(blow.damage / 3 + 3), 1
    enter(target, s.GUARD_HIT, int((blow.damage + 4.45) / 2.235))
    target.vx = 0.09 * blow.damage * away


def _launch(target: Fighter, blow: Attack, away: float) -> None:
    """Melee's knockback formula; what is hit hard enough leaves the ground."""
    percent, damage = target.percent, blow.damage
    force = (percent / 10 + percent * damage / 20) * 200 / (target.body.weight + 100) * 1.4 + 18
    force = force * FARTHER * blow.growth / 100 + blow.base
    across, up = blow.aim
    target.vx = target.vy = 0.0
    target.fast = 0
    target.kx, target.ky = 0.03 * force * across * away, 0.03 * force * up
    target.hitstun = max(1, int(0.4 * force))
    target.direction = -away
    target.tumbles = force >= TUMBLE
    if target.tumbles:
        take_off(target)
        high = s.DAMAGE_FLY_TOP if blow.angle >= 80 else s.DAMAGE_FLY_HIGH + (blow.damage < 12)
        enter(target, high)
        return
    level = min(2, int(force / 30))
    if target.airborne:
        enter(target, s.DAMAGE_AIR + level)
    else:
        target.ky = 0.0
        enter(target, (s.DAMAGE_LOW if blow.high < 10 else s.DAMAGE_HIGH) + level)


def _columns(flat: "array[float]", names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    table = np.frombuffer(flat, np.float64) if len(flat) else np.zeros(0)
    return dict(zip(names, table.reshape(-1, len(names)).T, strict=True))
