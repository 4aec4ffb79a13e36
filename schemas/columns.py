"""Every column of a game file, one table row each: the only place that knows what a replay holds.

The Arrow schema, the parquet encodings, the layout of the .slp events (the rows of one event stand
in wire order, and payloads only ever grew), docs/data.md and the comparison with raw peppi follow
from this table. Facts: project-slippi/slippi-wiki:SPEC.md; encodings: measured on real games.

A new field of a new Slippi version is one more row at the end of its event.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Group = Literal["frame", "player", "item", "stage"]
Encoding = Literal["plain", "dictionary", "split", "delta"]

I8, I32 = pa.int8(), pa.int32()
U8, U16, U32 = pa.uint8(), pa.uint16(), pa.uint32()
F32 = pa.float32()


@dataclass(frozen=True)
class Column:
    """One stored leaf.

    name: its name inside its group (`percent` of a player, `type` of an item).
    source: where peppi keeps it, as a path (`post.percent`); empty for what we compute.
    since: first Slippi version (major, minor) that records it; older games have no such leaf.
    encoding: what won on real games, in bytes and in time. 'split' is BYTE_STREAM_SPLIT; values of
    a 'dictionary' are few or come in runs, and go uncompressed.
    """

    name: str
    source: str
    type: pa.DataType
    since: tuple[int, int]
    encoding: Encoding
    unit: str
    meaning: str

    @property
    def event(self) -> str:
        """The event that carries it: start, end, pre, post, item ('' for computed ones)."""
        return self.source.partition(".")[0]


FRAME = (
    Column("frame", "id", I32, (0, 1), "delta", "frame",
           "number of the frame; the first is -123, players act from -39, the timer runs from 0"),
    Column("random_seed", "start.random_seed", U32, (2, 2), "delta", "",
           "the game's random seed at the start of the frame"),
    Column("scene_frame_counter", "start.scene_frame_counter", U32, (3, 10), "delta", "frame",
           "frames since the scene began; jumps when the game was paused"),
    Column("latest_finalized_frame", "end.latest_finalized_frame", I32, (3, 7), "delta", "frame",
           "newest frame that a rollback can no longer change"),
)  # fmt: skip

PLAYER = (
    Column("port", "", U8, (0, 1), "dictionary", "port", "console port, 1 to 4"),
    # pre-frame: what the controller said, and the state before it took effect
    Column("random_seed", "pre.random_seed", U32, (0, 1), "plain", "",
           "seed as this character saw it where that differs from the frame's, else null"),
    Column("pre_state", "pre.state", U16, (0, 1), "plain", "state",
           "action state before this frame's input"),
    Column("pre_position_x", "pre.position.x", F32, (0, 1), "split", "unit",
           "x before the frame"),
    Column("pre_position_y", "pre.position.y", F32, (0, 1), "split", "unit",
           "y before the frame"),
    Column("pre_direction", "pre.direction", F32, (0, 1), "dictionary", "-1 or 1",
           "facing before the frame"),
    Column("joystick_x", "pre.joystick.x", F32, (0, 1), "dictionary", "-1 to 1",
           "main stick as the game uses it"),
    Column("joystick_y", "pre.joystick.y", F32, (0, 1), "dictionary", "-1 to 1",
           "main stick as the game uses it"),
    Column("cstick_x", "pre.cstick.x", F32, (0, 1), "dictionary", "-1 to 1",
           "c-stick as the game uses it"),
    Column("cstick_y", "pre.cstick.y", F32, (0, 1), "dictionary", "-1 to 1",
           "c-stick as the game uses it"),
    Column("triggers", "pre.triggers", F32, (0, 1), "dictionary", "0 to 1",
           "analog trigger as the game uses it"),
    Column("buttons", "pre.buttons", U32, (0, 1), "plain", "bits",
           "buttons as the game uses them; stick directions above bit 15"),
    Column("buttons_physical", "pre.buttons_physical", U16, (0, 1), "dictionary", "bits",
           "buttons held: 1 left, 2 right, 4 down, 8 up, 16 Z, 32 R, 64 L, 256 A, 512 B, 1024 X, "
           "2048 Y, 4096 Start"),
    Column("triggers_physical_l", "pre.triggers_physical.l", F32, (0, 1), "dictionary", "0 to 1",
           "left analog trigger"),
    Column("triggers_physical_r", "pre.triggers_physical.r", F32, (0, 1), "dictionary", "0 to 1",
           "right analog trigger"),
    Column("raw_analog_x", "pre.raw_analog_x", I8, (1, 2), "delta", "raw",
           "main stick as the controller sent it"),
    Column("pre_percent", "pre.percent", F32, (1, 4), "dictionary", "percent",
           "damage before the frame"),
    Column("raw_analog_y", "pre.raw_analog_y", I8, (3, 15), "dictionary", "raw",
           "main stick as the controller sent it"),
    Column("raw_analog_cstick_x", "pre.raw_analog_cstick_x", I8, (3, 17), "dictionary", "raw",
           "c-stick as the controller sent it"),
    Column("raw_analog_cstick_y", "pre.raw_analog_cstick_y", I8, (3, 17), "dictionary", "raw",
           "c-stick as the controller sent it"),
    # post-frame: what the input of the same frame has already caused
    Column("character", "post.character", U8, (0, 1), "dictionary", "internal id",
           "character now; changes only between Zelda and Sheik"),
    Column("state", "post.state", U16, (0, 1), "plain", "state",
           "action state; above 340 the meaning depends on the character"),
    Column("position_x", "post.position.x", F32, (0, 1), "split", "unit",
           "x after the frame; the stage's centre is 0"),
    Column("position_y", "post.position.y", F32, (0, 1), "split", "unit",
           "y after the frame"),
    Column("direction", "post.direction", F32, (0, 1), "dictionary", "-1 or 1",
           "facing: -1 left, 1 right"),
    Column("percent", "post.percent", F32, (0, 1), "dictionary", "percent", "damage, 0 to 999"),
    Column("shield", "post.shield", F32, (0, 1), "split", "0 to 60", "size of the shield"),
    Column("last_attack_landed", "post.last_attack_landed", U8, (0, 1), "dictionary", "attack id",
           "last attack of this character that hit"),
    Column("combo_count", "post.combo_count", U8, (0, 1), "dictionary", "hits",
           "as the game counts"),
    Column("last_hit_by", "post.last_hit_by", U8, (0, 1), "dictionary", "port - 1",
           "who hit this character last: 0 to 3, 6 for nobody"),
    Column("stocks", "post.stocks", U8, (0, 1), "dictionary", "stocks",
           "stocks left, this one included"),
    Column("state_age", "post.state_age", F32, (0, 2), "plain", "frame",
           "frames in this state; fractions and negative values occur"),
    Column("state_flags_0", "post.state_flags.0", U8, (2, 0), "dictionary", "bits",
           "0x02 absorbs, 0x08 reflect keeps owner, 0x10 reflects"),
    Column("state_flags_1", "post.state_flags.1", U8, (2, 0), "dictionary", "bits",
           "0x04 intangible by sub-action, 0x08 fast fall, 0x10 defender in hitlag, 0x20 hitlag"),
    Column("state_flags_2", "post.state_flags.2", U8, (2, 0), "dictionary", "bits",
           "0x04 holds another character, 0x80 shield"),
    Column("state_flags_3", "post.state_flags.3", U8, (2, 0), "dictionary", "bits",
           "0x02 hitstun, 0x04 detection box touches shield, 0x20 power shield"),
    Column("state_flags_4", "post.state_flags.4", U8, (2, 0), "dictionary", "bits",
           "0x02 cloaked, 0x08 follower, 0x10 inactive, 0x40 dead, 0x80 off screen"),
    Column("misc_as", "post.misc_as", F32, (2, 0), "plain", "frame",
           "hitstun left, only while state_flags_3 & 0x02; else other uses of the same bytes"),
    Column("airborne", "post.airborne", U8, (2, 0), "dictionary", "0 or 1", "0 on the ground"),
    Column("ground", "post.ground", U16, (2, 0), "dictionary", "ground id",
           "last ground touched; 65535 for none yet"),
    Column("jumps", "post.jumps", U8, (2, 0), "dictionary", "jumps", "jumps left"),
    Column("l_cancel", "post.l_cancel", U8, (2, 0), "dictionary", "",
           "0 none, 1 success, 2 failure; set on the frame of landing only"),
    Column("hurtbox_state", "post.hurtbox_state", U8, (2, 1), "dictionary", "",
           "0 vulnerable, 1 invulnerable, 2 intangible"),
    Column("velocities_self_x_air", "post.velocities.self_x_air", F32, (3, 5), "split",
           "unit/frame", "own x velocity in the air"),
    Column("velocities_self_y", "post.velocities.self_y", F32, (3, 5), "plain",
           "unit/frame", "own y velocity"),
    Column("velocities_knockback_x", "post.velocities.knockback_x", F32, (3, 5), "split",
           "unit/frame", "x velocity from knockback"),
    Column("velocities_knockback_y", "post.velocities.knockback_y", F32, (3, 5), "split",
           "unit/frame", "y velocity from knockback"),
    Column("velocities_self_x_ground", "post.velocities.self_x_ground", F32, (3, 5), "plain",
           "unit/frame", "own x velocity on the ground"),
    Column("hitlag", "post.hitlag", F32, (3, 8), "dictionary", "frame", "hitlag left"),
    Column("animation_index", "post.animation_index", U32, (3, 11), "plain", "", "animation"),
    Column("last_hit_by_instance", "post.last_hit_by_instance", U16, (3, 16), "dictionary", "",
           "instance_id of what hit this character last"),
    Column("instance_id", "post.instance_id", U16, (3, 16), "delta", "",
           "serial number of the action state, over all characters; 0 while dead"),
)  # fmt: skip

ITEM = (
    Column("slot", "", I8, (3, 0), "dictionary", "slot",
           "stable slot 0 to 14 for the item's life; -1 where all are taken"),
    Column("type", "item.type", U16, (3, 0), "dictionary", "item id", "kind of item"),
    Column("state", "item.state", U8, (3, 0), "dictionary", "", "the item's own state"),
    Column("direction", "item.direction", F32, (3, 0), "dictionary", "-1 or 1", "facing"),
    Column("velocity_x", "item.velocity.x", F32, (3, 0), "plain", "unit/frame", "x velocity"),
    Column("velocity_y", "item.velocity.y", F32, (3, 0), "plain", "unit/frame", "y velocity"),
    Column("position_x", "item.position.x", F32, (3, 0), "split", "unit", "x"),
    Column("position_y", "item.position.y", F32, (3, 0), "plain", "unit", "y"),
    Column("damage", "item.damage", U16, (3, 0), "dictionary", "percent",
           "damage the item has taken"),
    Column("timer", "item.timer", F32, (3, 0), "split", "frame", "time left; can go negative"),
    Column("id", "item.id", U32, (3, 0), "plain", "", "spawn number within the game"),
    Column("misc_0", "item.misc.0", U8, (3, 2), "dictionary", "",
           "Samus missile: 0 homing, 1 super"),
    Column("misc_1", "item.misc.1", U8, (3, 2), "dictionary", "", "turnip face"),
    Column("misc_2", "item.misc.2", U8, (3, 2), "dictionary", "", "charge shot launched"),
    Column("misc_3", "item.misc.3", U8, (3, 2), "dictionary", "", "charge power"),
    Column("owner", "item.owner", I8, (3, 6), "dictionary", "port - 1", "owner; -1 for nobody"),
    Column("instance_id", "item.instance_id", U16, (3, 16), "plain", "", "instance of the item"),
)  # fmt: skip

# What is true on the frame, not only when it changed: events are carried forward after rollbacks
# are resolved. Null on other stages, and where the version does not say.
STAGE = (
    Column("fod_platform_left", "fod_platform.height", F32, (3, 18), "split", "unit",
           "height of Fountain's left platform"),
    Column("fod_platform_right", "fod_platform.height", F32, (3, 18), "split", "unit",
           "height of Fountain's right platform"),
    Column("whispy_direction", "dreamland_whispy.direction", U8, (3, 18), "dictionary", "",
           "Dream Land's wind: 0 none, 1 left, 2 right"),
    Column("stadium_event", "stadium_transformation.event", U16, (3, 18), "dictionary", "",
           "phase of Stadium's change, 0 done"),
    Column("stadium_type", "stadium_transformation.type", U16, (3, 18), "dictionary", "",
           "Stadium's form: 3 fire, 4 grass, 5 normal, 6 rock, 9 water"),
    Column("randall_x", "", F32, (0, 1), "split", "unit",
           "centre of Yoshi's Story's cloud, computed from the frame number"),
    Column("randall_y", "", F32, (0, 1), "split", "unit",
           "height of the cloud"),
)  # fmt: skip

GROUPS: dict[Group, tuple[Column, ...]] = {
    "frame": FRAME,
    "player": PLAYER,
    "item": ITEM,
    "stage": STAGE,
}
"""All columns. A game file holds `frame` at the top, `player` inside p0, p1 (and their nullable
`follower`), `item` inside the list `items`, `stage` inside the struct `stage`."""

NEWEST_KNOWN = (3, 19)
"""Newest Slippi version whose payload sizes this table knows."""


def wire(event: str, version: tuple[int, int], columns: tuple[Column, ...]) -> list[Column]:
    """The columns of one event in wire order, as a file of `version` carries them."""
    return [c for c in columns if c.event == event and c.since <= version]
