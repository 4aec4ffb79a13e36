"""Last copies, item slots, stage state: golden values, and the rules read word by word."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.resolve import SLOTS, carry_forward, item_slots, last_copies, randall, stretches
from tests.conftest import SHARED, require

GOLDEN = SHARED / "reference" / "golden" / "items.npz"
CASES = [f"g{n}" for n in range(7)] + ["table", "stress", "duplicate"]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    require(GOLDEN.exists(), f"golden item slots ({Path('shared/reference/golden/items.npz')})")
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def plain_slots(rows: list[list[int]]) -> list[int]:
    """The rules row by row, word by word."""
    taken: dict[int, int] = {}
    free = list(range(SLOTS))[::-1]
    slots = []
    for row in rows:
        for item in list(taken):
            if item not in row:
                free.append(taken.pop(item))
        for item in row:
            if item not in taken and free:
                taken[item] = free.pop()
            slots.append(taken.get(item, -1))
    return slots


@pytest.mark.parametrize("case", CASES)
def test_golden_slots(case: str, golden: dict[str, np.ndarray]) -> None:
    slots = item_slots(golden[f"{case}.ids"], golden[f"{case}.offsets"])
    assert slots.dtype == np.int8
    np.testing.assert_array_equal(slots, golden[f"{case}.slots"])


few_ids = st.lists(st.integers(0, 20), max_size=19)


@given(st.lists(st.tuples(few_ids, st.integers(1, 4)), max_size=40))
def test_slots_follow_the_rules(runs: list[tuple[list[int], int]]) -> None:
    rows = [row for row, times in runs for _ in range(times)]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    ids = np.array([i for row in rows for i in row], np.uint32)
    assert item_slots(ids, offsets).tolist() == plain_slots(rows)


@given(st.lists(st.integers(-123, -100), max_size=60))
@settings(max_examples=200)
def test_last_copies(ids: list[int]) -> None:
    rows = last_copies(np.array(ids, np.int32))
    expected = sorted({frame: row for row, frame in enumerate(ids)}.items())
    kept = list(range(len(ids))) if rows is None else rows.tolist()
    assert [(ids[row], row) for row in kept] == expected


def test_a_game_without_rollbacks_is_not_copied() -> None:
    assert last_copies(np.array([-123, -122, -121], np.int32)) is None


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [([5], [1]), ([-123, -122, -121], [3]), ([0, 1, 4, 5, 6, 9], [2, 3, 1])],
)
def test_stretches(frames: list[int], lengths: list[int]) -> None:
    assert stretches(np.array(frames, np.int32)) == lengths


def test_events_hold_until_the_next_one() -> None:
    rows, heights = np.array([2, 2, 4]), np.array([1.5, 2.5, 9.0], np.float32)
    state = carry_forward(rows, heights, 6, 20.0)
    assert state.dtype == np.float32
    assert state.tolist() == [20, 20, 2.5, 2.5, 9, 9]


def test_no_event_at_all() -> None:
    assert carry_forward(np.array([], int), np.array([], np.uint8), 3, 5).tolist() == [5, 5, 5]


def test_randall_goes_round_without_a_jump() -> None:
    x, y = randall(np.arange(-123, 1078))
    assert (x[0], y[0]) == (x[1200], y[1200])
    assert np.hypot(np.diff(x), np.diff(y)).max() < 1.2
    assert x.min() > -98
    assert x.max() < 98
    edge, height = randall(np.array([416, 1076]))
    np.testing.assert_allclose(edge - 5.95, [89.752640, -101.850006], rtol=1e-6)
    np.testing.assert_allclose(height, [-33.184479, -33.2489], rtol=1e-6)
