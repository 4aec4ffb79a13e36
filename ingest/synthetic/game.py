"""From a seed to a replay: the choices of a game, its rollback rows, and the bytes of the file."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ingest import slp
from ingest.slp import Batch
from ingest.synthetic import scene
from ingest.synthetic.arena import FOUNTAIN, POPULARITY, POPULARITY_OF_OTHERS, STAGES
from ingest.synthetic.fight import FIRST_FRAME, Fight, Recording
from ingest.synthetic.scene import Setting
from ingest.synthetic.truth import Array, Table, Truth, tell
from schemas import names
from schemas.errors import UsageError

ROWS_MAX = -FIRST_FRAME + scene.TIMER_S * scene.FRAMES_PER_S
ROLLBACKS_FROM = (3, 0)  # before that no bookend says that a frame was played again
ROLLBACK_SHARE = 0.05
_CHARACTERS = {n: name for n, name in names.CHARACTERS.items() if n <= 25}


@dataclass(frozen=True)
class SyntheticGame:
    """A replay and what is in it. `order` (rows,) is the row of the truth that each row of the file
    shows; without rollbacks it counts up. `wrong` marks rows that a later one corrects."""

    slp: bytes
    truth: Truth
    order: Array
    wrong: Array

    @property
    def last_rows(self) -> Array:
        """(T,) the row of the file that holds the last copy of each frame."""
        last = np.empty(self.truth.n_frames, np.int64)
        last[self.order] = np.arange(len(self.order))  # of equal indices the last one stays
        return last


def make_game(  # noqa: PLR0913 - one keyword a choice, each with its default
    seed: int,
    *,
    version: tuple[int, ...] = (3, 19, 0),
    chars: tuple[str | int, str | int] | None = None,
    stage: str | int | None = None,
    ports: tuple[int, int] | None = None,
    n_frames: int | None = None,
    rollbacks: bool = False,
    recording: int = 0,
    quit: bool = False,  # noqa: A002 - the word players use
    with_end: bool = True,
    with_metadata: bool = True,
) -> SyntheticGame:
    """Simulate a game and write it as Slippi `version` would: same arguments, same bytes.

    chars, stage: names (or external ids), drawn by the seed where None. ports: two of 1 to 4.
    n_frames: the game's timer ends it there, if no side has lost its stocks before.
    recording: 1 is what the other client wrote of the same game: another clock, other rollbacks,
    and what it did not yet know in them is the other side.
    quit: a side leaves halfway (no contest). Raises UsageError for what no such game can be.
    """
    rng = seeded(seed)
    setting = _setting(rng, version, chars, stage, ports)
    if rollbacks:
        if setting.layout < ROLLBACKS_FROM:
            raise UsageError(f"no rollbacks in Slippi {version}", "they exist from 3.0")
        setting = replace(setting, online=True)
    n_rows = ROWS_MAX if n_frames is None else min(ROWS_MAX, n_frames)
    if n_rows < 1:
        raise UsageError(f"no game of {n_frames} frames", "1 or more")
    stage_columns = scene.timeline(setting, rng, n_rows)
    played, method = _play(rng, setting, n_rows, stage_columns, quit=quit)
    truth = tell(rng, setting, _ending(setting, played, method), played, stage_columns)
    shuffle = seeded(f"{seed}/{recording}")
    order, wrong = _rows(shuffle, truth.n_frames, ROLLBACK_SHARE if rollbacks else 0.0)
    data = slp.pack_replay(
        setting.layout,
        _start(truth),
        slp.pack_frames(setting.layout, list(_batches(truth, order, wrong, recording))),
        _end(truth) if with_end else b"",
        _metadata(truth, recording) if with_metadata else None,
    )
    return SyntheticGame(data, truth, order, wrong)


# ---------------------------------------------------------------------------- choices


def seeded(name: int | str) -> random.Random:
    """All randomness comes from here. Only `random` and `getrandbits` are called on it: Python
    promises their sequence for a seed, not that of the rest."""
    return random.Random(name)  # noqa: S311 - it names a game, it guards nothing


def _setting(
    rng: random.Random,
    version: tuple[int, ...],
    chars: tuple[str | int, str | int] | None,
    stage: str | int | None,
    ports: tuple[int, int] | None,
) -> Setting:
    if len(version) not in (2, 3) or not all(0 <= v <= 255 for v in version):
        raise UsageError(f"not a Slippi version: {version}", "for example (3, 19, 0)")
    drawn = _draw_character(rng), _draw_character(rng)
    drawn_stage = sorted(STAGES)[int(rng.random() * len(STAGES))]
    drawn_ports = sorted((1 + int(rng.random() * 4), 1 + int(rng.random() * 4)))
    if drawn_ports[0] == drawn_ports[1]:
        drawn_ports = [1, 2]
    one, two = sorted(ports or drawn_ports)
    if not 1 <= one < two <= 4:
        raise UsageError(f"not two ports: {ports}", "two of 1 to 4")
    first, second = (_character(c) for c in chars or drawn)
    return scene.choose(
        rng,
        version=(version[0], version[1], version[2] if len(version) > 2 else 0),
        stage=_stage(drawn_stage if stage is None else stage),
        characters=(first, second),
        ports=(one - 1, two - 1),
    )


def _draw_character(rng: random.Random) -> int:
    weights = [POPULARITY.get(n, POPULARITY_OF_OTHERS) for n in _CHARACTERS]
    at = rng.random() * sum(weights)
    for number, weight in zip(_CHARACTERS, weights, strict=True):
        at -= weight
        if at < 0:
            return number
    return 2


def _character(asked: str | int) -> int:
    name = names.character(asked) if isinstance(asked, str) else names.character_name(asked)
    for number, known in _CHARACTERS.items():
        if known == name:
            return number
    raise UsageError(f"no simulation of character '{asked}'", "one of the 26 of the game")


def _stage(asked: str | int) -> int:
    name = names.stage(asked) if isinstance(asked, str) else names.stage_name(asked)
    for number in STAGES:
        if names.stage_name(number) == name:
            return number
    raise UsageError(f"no simulation of stage '{asked}'", "one of the six tournament stages")


# ---------------------------------------------------------------------------- the fight


def _play(
    rng: random.Random,
    setting: Setting,
    n_rows: int,
    stage_columns: Table,
    *,
    quit: bool,  # noqa: A002
) -> tuple[Recording, int]:
    """The fight and the method of its end."""
    heights = None
    if setting.stage == FOUNTAIN:
        left, right = stage_columns["fod_platform_left"], stage_columns["fod_platform_right"]
        heights = np.stack([left, right], axis=1).astype(np.float64)
    fight = Fight(rng, setting.stage, setting.characters, setting.ports)
    played = fight.run(n_rows, heights)
    if quit:
        return played.until(
            max(1, int(played.n_frames * (0.4 + 0.5 * rng.random())))
        ), scene.END_NO_CONTEST
    stocks, _ = _standing(played)
    return played, scene.END_TIME if all(stocks) else scene.END_GAME


def _standing(played: Recording) -> tuple[list[int], list[float]]:
    leaders = [raw for _, is_follower, raw in played.fighters if not is_follower]
    return [int(r["stocks"][-1]) for r in leaders], [float(r["percent"][-1]) for r in leaders]


def _ending(setting: Setting, played: Recording, method: int) -> scene.Ending:
    return scene.ending(setting, method, *_standing(played))


# ---------------------------------------------------------------------------- rows and events


def _rows(rng: random.Random, n_frames: int, share: float) -> tuple[Array, Array]:
    """(order, wrong) of a file's rows; a `share` of frames ends in a rollback of 1 to 6 frames.

    In real games ids repeat at once nine times in ten, and step back further ever more rarely.
    """
    order: list[int] = []
    wrong: list[bool] = []
    for row in range(n_frames):
        order.append(row)
        wrong.append(False)
        if rng.random() >= share or row < 6:
            continue
        back = 1 + int(5.999 * rng.random() ** 6)
        # only rows that still stand can turn out wrong: the newest copies of the last frames
        wrong[-back:] = [True] * back
        again = range(row - back + 1, row + 1)
        order.extend(again)
        wrong.extend([False] * back)
    return np.array(order), np.array(wrong, bool)


def _batches(truth: Truth, order: Array, wrong: Array, recording: int) -> Iterator[Batch]:
    """All frame events. A wrong row shows the side that is far away (the second one, in the other
    recording the first) and the items a frame late, as a client that has not heard of them yet."""
    late = order - wrong
    ids = truth.frame["frame"][order]
    rows = np.arange(len(order))
    frame = {name: values[order] for name, values in truth.frame.items()}
    for event in ("start", "end"):
        yield Batch(event, rows, frame)
    remote = truth.sides[1 - recording % 2].port
    for follower, side in truth.characters:
        shown = late if side.port == remote else order
        rows_in = np.flatnonzero(side.present[shown])
        fields = {name: values[shown[rows_in]] for name, values in side.columns.items()}
        fields |= {
            "frame": ids[rows_in],
            "port": np.full(len(rows_in), side.port),
            "follower": np.full(len(rows_in), follower),
        }
        yield Batch("pre", rows_in, fields)
        yield Batch("post", rows_in, fields)
    yield _items(truth, late, ids)
    yield from _stage_events(truth, order, ids)


def _items(truth: Truth, shown: Array, ids: Array) -> Batch:
    first = np.searchsorted(truth.item_row, shown, "left")
    count = np.searchsorted(truth.item_row, shown, "right") - first
    rows = np.repeat(np.arange(len(shown)), count)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    picked = first[rows] + nth
    fields = {name: values[picked] for name, values in truth.items.items()}
    return Batch("item", rows, fields | {"frame": ids[rows]})


# column of schemas.columns.STAGE -> (event, its fixed fields, the field that it fills); a change of
# either column of one event sends the whole event.
_STAGE_EVENTS: tuple[tuple[str, dict[str, int], dict[str, str]], ...] = (
    ("fod_platform", {"platform": 0}, {"height": "fod_platform_right"}),
    ("fod_platform", {"platform": 1}, {"height": "fod_platform_left"}),
    ("dreamland_whispy", {}, {"direction": "whispy_direction"}),
    ("stadium_transformation", {}, {"event": "stadium_event", "type": "stadium_type"}),
)


def _stage_events(truth: Truth, order: Array, ids: Array) -> Iterator[Batch]:
    """Events where the stage changed; a frame that is played again sends them again."""
    for event, fixed, sources in _STAGE_EVENTS:
        if not all(name in truth.stage for name in sources.values()):
            continue
        changed = np.zeros(truth.n_frames, bool)
        for name in sources.values():
            changed[1:] |= truth.stage[name][1:] != truth.stage[name][:-1]
        rows = np.flatnonzero(changed[order])
        fields: Table = {to: truth.stage[name][order[rows]] for to, name in sources.items()}
        fields |= {to: np.full(len(rows), value) for to, value in fixed.items()}
        yield Batch(event, rows, fields | {"frame": ids[rows]})


def _start(truth: Truth) -> bytes:
    setting, timer_s = truth.setting, scene.TIMER_S
    if truth.end.method == scene.END_TIME:
        timer_s = max(1, math.ceil((truth.n_frames + FIRST_FRAME) / scene.FRAMES_PER_S))
    values = scene.start_values(setting, timer_s)
    return slp.pack_block(slp.GAME_START, slp.START, setting.layout, values)


def _end(truth: Truth) -> bytes:
    values = scene.end_values(truth.setting, truth.end)
    return slp.pack_block(slp.GAME_END, slp.END, truth.setting.layout, values)


def _metadata(truth: Truth, recording: int) -> dict[str, object]:
    seen: dict[int, dict[str, int]] = {side.port: {} for side in truth.sides}
    for _, side in truth.characters:
        internal = str(side.columns["character"][0])
        seen[side.port][internal] = int(side.present.sum())
    last_frame = FIRST_FRAME + truth.n_frames - 1
    return scene.metadata(truth.setting, last_frame, list(seen.values()), recording)
