"""What a recorded game settled on: last copies of frames, item slots, stage state. Pure arrays.

T frames, R recorded rows (rollbacks repeat frames), N item rows in CSR form (offsets of T + 1).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SLOTS = 15
"""Slots for items, as many as the game can have at once."""

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]


def last_copies(ids: Ints) -> npt.NDArray[np.int64] | None:
    """Rows (T,) that hold the last copy of each frame, frames ascending; None if all R rows do.

    Rollbacks record a frame anew each time the game takes it back; the last copy is what happened.
    """
    if (np.diff(ids.astype(np.int64)) > 0).all():
        return None
    _, from_behind = np.unique(ids[::-1], return_index=True)
    return np.asarray(len(ids) - 1 - from_behind, np.int64)


def stretches(frames: Ints) -> list[int]:
    """Lengths of the runs of consecutive frames, in order."""
    breaks = np.flatnonzero(np.diff(frames.astype(np.int64)) != 1) + 1
    return [int(n) for n in np.diff([0, *breaks, len(frames)])]


# --- items ----------------------------------------------------------------------------------------


def item_slots(ids: Ints, offsets: Ints) -> npt.NDArray[np.int8]:
    """A slot for each item row that stays the same for the item's life; -1 where all are taken.

    On each frame first the slots of ids that are gone become free, in the order in which they were
    taken; then new ids take the slot freed last. Equal to the original's assigner, overflow
    included: golden values in the tests.
    """
    if len(ids) == 0:
        return np.zeros(0, np.int8)
    starts = _changed_rows(ids, offsets)
    slots = np.empty(len(ids), np.int8)
    taken: dict[int, int] = {}
    free = list(range(SLOTS))[::-1]
    for start in starts.tolist():
        begin, stop = int(offsets[start]), int(offsets[start + 1])
        row = ids[begin:stop].tolist()
        _free_gone(taken, free, set(row))
        for position, item in enumerate(row, begin):
            if item not in taken and free:
                taken[item] = free.pop()
            slots[position] = taken.get(item, -1)
    return _repeat_rows(slots, offsets, starts)


def _free_gone(taken: dict[int, int], free: list[int], present: set[int]) -> None:
    gone = [item for item in taken if item not in present]
    free.extend(taken.pop(item) for item in gone)


def _changed_rows(ids: Ints, offsets: Ints) -> Ints:
    """Rows whose list of ids differs from the row before, and the first one.

    On all others every item keeps its slot: nothing is freed, and an item that found no slot finds
    none again. So the loop above runs over the few moments when items come and go.
    """
    lengths = np.diff(offsets)
    changed = np.ones(len(lengths), bool)
    changed[1:] = lengths[1:] != lengths[:-1]
    row = np.repeat(np.arange(len(lengths)), lengths)
    twin = np.arange(len(ids)) - lengths[row]  # same place in the row before, if that is as long
    differs = ~changed[row] & (ids != ids[twin])
    changed[row[differs]] = True
    return np.flatnonzero(changed)


def _repeat_rows(slots: npt.NDArray[np.int8], offsets: Ints, starts: Ints) -> npt.NDArray[np.int8]:
    """Give the rows between two starts the slots of the earlier one."""
    rows = np.arange(len(offsets) - 1)
    leader = starts[np.searchsorted(starts, rows, side="right") - 1]
    shift = np.repeat(offsets[:-1] - offsets[leader], np.diff(offsets))
    return slots[np.arange(len(slots)) - shift]


# --- stage ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageEvent:
    """How one stage column follows from events that come only on change.

    platform: 0 right, 1 left; None where events do not name one.
    """

    stage: int
    before_first: float
    platform: int | None = None


STAGE_EVENTS = {
    # Start heights: vladfi1/slippi-ai:slippi_db; the first events of real games agree.
    "fod_platform_left": StageEvent(stage=2, before_first=20.0, platform=1),
    "fod_platform_right": StageEvent(stage=2, before_first=28.0, platform=0),
    "whispy_direction": StageEvent(stage=28, before_first=0),
    "stadium_event": StageEvent(stage=3, before_first=0),
    "stadium_type": StageEvent(stage=3, before_first=5),
}
"""stage column -> its rule"""


def carry_forward(
    rows: Ints, values: npt.NDArray[np.generic], n_frames: int, before_first: float
) -> npt.NDArray[np.generic]:
    """State of each frame (T,) from events: rows of the events, ascending, and their values."""
    latest = np.zeros(n_frames, np.int64)
    latest[rows] = np.arange(1, len(rows) + 1)  # of several events on one frame the last one stays
    latest = np.maximum.accumulate(latest)
    with_start = np.concatenate([np.array([before_first], values.dtype), values])
    return np.asarray(with_start[latest])


RANDALL_STAGE = 8
_RANDALL_LOOP = 1200
_RANDALL_WIDTH = 11.9


def randall(frames: Ints) -> tuple[Floats, Floats]:
    """Centre x and height y (T,) of Yoshi's Story's cloud: a loop of 1,200 frames."""
    phase = frames.astype(np.int64) % _RANDALL_LOOP
    return _RANDALL_X[phase], _RANDALL_Y[phase]


def _randall_loop() -> tuple[Floats, Floats]:
    """The loop leg by leg, as left edges and heights. Source: libmelee:melee/stages.py."""

    def line(first: float, step: float, n: int) -> list[float]:
        return [first + step * i for i in range(n)]

    speed, fall = 0.35484, 0.354839325
    below = -33.2489
    start = -101.850006
    legs = (
        (line(start + speed * 125, speed, 416), [below] * 416),
        (
            [89.752640, 90.078781, 90.404922, 90.731071, 90.924553, 91.064377, 91.204193,
             91.344017],
            [-33.184479, -33.044704, -32.904930, -32.765152, -32.492607, -32.166355, -31.840103,
             -31.513851],
        ),
        ([91.35] * 45, line(-31.160233, fall, 45)),
        (
            [91.337135, 91.197365, 91.057587, 90.917810, 90.710365, 90.369179, 90.027992,
             89.686807],
            [-15.194888, -14.868743, -14.542601, -14.216456, -13.967143, -13.869664, -13.772183,
             -13.674699],
        ),
        (line(101.235443 - _RANDALL_WIDTH, -speed, 539), [-13.64989] * 539),
        (
            [-101.919677, -102.245819, -102.571960, -102.898102, -103.147614, -103.306305,
             -103.464996],
            [-13.679761, -13.819535, -13.959306, -14.099090, -14.320136, -14.637515, -14.954894],
        ),
        ([-103.6] * 46, line(-15.277869, -fall, 46)),
        (
            [-103.554932, -103.396255, -103.237564, -103.078873, -102.774399, -102.466263,
             -102.158142],
            [-31.590042, -31.907413, -32.224785, -32.542156, -32.721680, -32.897751, -33.073826],
        ),
        (line(start, speed, 124), [below] * 124),
    )  # fmt: skip
    left = np.concatenate([x for x, _ in legs])
    height = np.concatenate([y for _, y in legs])
    assert left.shape == height.shape == (_RANDALL_LOOP,)
    return (left + _RANDALL_WIDTH / 2).astype(np.float32), height.astype(np.float32)


_RANDALL_X, _RANDALL_Y = _randall_loop()
