"""Windows: the original's to the bit, each once an epoch, none across a game or a missing frame."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.replay import parse
from schemas.errors import EmptySelectionError, LimitError, UsageError
from schemas.features import VIEWS, view
from schemas.rows import Rows, game_rows
from schemas.shard import Member
from store.parquet import encode_game
from tests.golden_games import N_GAMES, game_table, golden
from tests.training.games import frame_numbers, random_game
from training.pool import BUFFERS, Batch, Pool, memory_free, plan, runs_of
from training.stream import decode

AGE = view("v22-state-age")
GAMES = st.lists(
    st.tuples(st.lists(st.integers(1, 12), max_size=4), st.sampled_from([(0,), (1,), (0, 1)])),
    min_size=1,
    max_size=4,
)


def pool_of(games: list[tuple[list[int], tuple[int, ...]]], context: int, rows: int = 0) -> Pool:
    pool = Pool(AGE, context, rows)
    for number, (runs, sides) in enumerate(games):
        pool.add(f"{number:032x}", random_game(frame_numbers(runs), number), sides)
    return pool


def expected_windows(pool: Pool) -> list[tuple[int, int]]:
    """(game, target frame) of every window, by the rule: K frames just before exist."""
    found = []
    for number in range(len(pool.games)):
        frames = set(pool.frames(number).frame.tolist())
        found += [
            (number, frame)
            for frame in sorted(frames)
            if all(frame - back in frames for back in range(1, pool.context + 1))
        ]
    return found


def named(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.game.tolist(), batch.target_frame.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(GAMES, st.integers(1, 6), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_each_window_once_an_epoch(
    games: list[tuple[list[int], tuple[int, ...]]], context: int, size: int, seed: int, epoch: int
) -> None:
    pool = pool_of(games, context)
    drawn = [window for b in pool.epoch(size, seed=seed, epoch=epoch) for window in named(b)]
    assert sorted(drawn) == expected_windows(pool)
    assert len(drawn) == pool.n_windows
    assert pool.steps(size) == -(-pool.n_windows // size)


@settings(deadline=None, max_examples=40)
@given(GAMES, st.integers(1, 6))
def test_windows_are_consecutive_rows_of_their_game(
    games: list[tuple[list[int], tuple[int, ...]]], context: int
) -> None:
    pool = pool_of(games, context)
    for batch in pool.epoch(5):
        for at, (game, target) in enumerate(named(batch)):
            rows = pool.frames(game)
            row = rows.frame.tolist().index(target)
            assert rows.frame[row - context : row].tolist() == list(range(target - context, target))
            assert np.array_equal(batch.floats[at], rows.floats[row - context : row])
            assert np.array_equal(batch.ints[at], rows.ints[row - context : row])


@pytest.mark.parametrize("name", VIEWS)
def test_golden_windows(name: str) -> None:
    arrays = golden()
    of, context = view(name), 1
    # The golden rows come in short runs: with a context of one frame every golden target that has
    # a row before it is a window; controls and targets depend on these two rows alone.
    pool = Pool(of, context)
    for game in range(N_GAMES):
        pool.add(f"{game:032x}", game_table(game), (0,))
    at = {
        (int(game), int(frame)): number
        for number, (game, frame) in enumerate(
            zip(arrays["win.game"], arrays["win.frame"], strict=True)
        )
    }
    ids = arrays[f"win.{'v22-state-age' if of.n_int == 17 else 'v22'}.int_tgt"]
    seen = 0
    for batch in pool.epoch(64):
        for i, window in enumerate(named(batch)):
            if (number := at.get(window)) is None:
                continue
            seen += 1
            assert same(batch.controls[i], arrays[f"win.{name}.next_ctrl"][number])
            assert same(batch.float_target[i], arrays[f"win.{name}.float_tgt"][number])
            assert batch.int_target[i].tolist() == ids[number].tolist()
    assert seen == len(at) == 272


def same(found: torch.Tensor, expected: np.ndarray[Any, Any]) -> bool:
    return bool(found.numpy().tobytes() == expected.tobytes())


def test_controls_of_a_frame_belong_to_the_target_of_that_frame() -> None:
    """A game in which the state simply is what the stick of the same frame says."""
    frames = frame_numbers([40])
    table = random_game(frames, 5)
    stick = np.random.default_rng(1).uniform(-1, 1, len(frames)).astype(np.float32)
    player = {
        f.name: table.column("p0").chunk(0).field(i)
        for i, f in enumerate(table.schema.field("p0").type)
    }
    player |= {"joystick_x": pa.array(stick), "position_x": pa.array(np.cumsum(stick))}
    moved = pa.StructArray.from_arrays(list(player.values()), list(player))
    pool = Pool(AGE, 3)
    pool.add("00" * 16, table.set_column(1, "p0", moved), (0,))
    x = [f.name for f in AGE.floats].index("x")
    for batch in pool.epoch(7):
        tilt = (batch.controls[:, 0] - 0.5) * 2
        assert torch.allclose(batch.float_target[:, x], tilt * 0.05, atol=1e-5)


def test_the_selected_side_comes_first() -> None:
    table = random_game(frame_numbers([20]), 1)
    pool = Pool(AGE, 4)
    pool.add("aa" * 16, table, (1,))
    pool.add("bb" * 16, table, (0, 1))
    assert [(g.game_id[:2], g.side) for g in pool.games] == [("aa", 1), ("bb", 0), ("bb", 1)]
    plain, swapped = game_rows(table, AGE), game_rows(table, AGE, swap=True)
    for number, rows in enumerate((swapped, plain, swapped)):
        assert np.array_equal(pool.frames(number).floats, rows.floats)
        assert np.array_equal(pool.frames(number).ints, rows.ints)


def test_a_cut_off_row_is_in_no_window() -> None:
    table = random_game(frame_numbers([20]), 1)
    player = table.column("p1").chunk(0)
    mask = pa.array([at == 8 for at in range(20)])
    cut = pa.StructArray.from_arrays(
        [player.field(i) for i in range(player.type.num_fields)],
        [f.name for f in player.type],
        mask=mask,
    )
    pool = Pool(AGE, 4)
    pool.add("aa" * 16, table.set_column(2, "p1", cut), (0,))
    assert pool.games[0].runs == ((0, 8), (9, 20))
    assert (pool.n_windows, pool.unusable) == (4 + 7, 1)
    assert pool.missing["percent"] == 1
    assert pool.frames(0).usable.tolist() == [at != 8 for at in range(20)]


def test_batches_are_a_function_of_seed_and_step() -> None:
    games = [([30, 9], (0, 1)), ([25], (1,))]
    first, again = pool_of(games, 5), pool_of(games, 5, rows=200)
    assert first.fingerprint == again.fingerprint
    steps = first.steps(8)
    for step in (0, 1, steps - 1, steps, 3 * steps + 2):
        left, right = first.draw(3, step, 8), again.draw(3, step, 8)
        assert all(
            torch.equal(a, b)
            for a, b in zip(vars(left).values(), vars(right).values(), strict=True)
        )
    epochs = (
        [named(b) for b in first.epoch(100, seed=3, epoch=0)],
        [named(b) for b in first.epoch(100, seed=3, epoch=1)],
    )
    assert epochs[0] != epochs[1]
    assert pool_of(games[:1], 5).fingerprint != first.fingerprint
    assert pool_of(games, 6).fingerprint != first.fingerprint


def test_a_batch_outlives_three_more() -> None:
    pool = pool_of([([60], (0,))], 3)
    kept = pool.draw(0, 0, 4)
    copy = kept.floats.clone()
    for step in range(1, BUFFERS):
        pool.draw(0, step, 4)
        assert torch.equal(kept.floats, copy)


def test_growing_keeps_what_was_there() -> None:
    games = [([30], (0,)), ([40], (1,)), ([50], (0, 1))]
    grown, planned = pool_of(games, 4), pool_of(games, 4, rows=170)
    assert planned.bytes == 170 * (4 * 56 + 2 * 17 + 4)
    everything = torch.arange(grown.n_windows)
    left, right = grown.batch(everything), planned.batch(everything)
    assert torch.equal(left.floats, right.floats)
    assert left.floats.is_contiguous()


def test_adding_after_drawing_is_seen() -> None:
    pool = pool_of([([30], (0,))], 4)
    before = sum(len(b) for b in pool.epoch(7))
    pool.add("ff" * 16, random_game(frame_numbers([20]), 9), (0,))
    assert sum(len(b) for b in pool.epoch(7)) == before + 16


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(EmptySelectionError, match="6 frames in a row"):
        pool_of([([5], (0,))], 5).draw(0, 0, 8)
    assert list(Pool(AGE, 5).epoch(8)) == []


def test_wrong_use_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Pool(AGE, 0)
    with pytest.raises(UsageError, match="sides"):
        Pool(AGE, 3).add("aa" * 16, random_game([0, 1], 0), (2,))


def test_shapes_and_types() -> None:
    batch = pool_of([([30], (0,))], 4).draw(0, 0, 6)
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in vars(batch).items()}
    assert kinds == {
        "floats": ((6, 4, 56), torch.float32),
        "ints": ((6, 4, 17), torch.int64),
        "controls": ((6, 26), torch.float32),
        "float_target": ((6, 30), torch.float32),
        "int_target": ((6, 12), torch.int64),
        "game": ((6,), torch.int32),
        "target_frame": ((6,), torch.int32),
    }
    assert len(batch.to("cpu")) == 6


def test_runs_of() -> None:
    frame = np.array([1, 2, 3, 5, 6, 8], np.int32)
    usable = np.array([True, True, True, False, True, True])
    assert runs_of(frame, usable) == [(0, 3), (4, 5), (5, 6)]
    assert runs_of(frame[:0], usable[:0]) == []


def test_rows_come_without_a_copy() -> None:
    pool = pool_of([([30], (0,))], 4)
    rows = pool.frames(0)
    assert isinstance(rows, Rows)
    assert rows.floats.base is not None


# --- plan ---


def member(number: int, runs: tuple[int, ...], sides: tuple[int, ...]) -> Member:
    return Member(
        f"{number:032x}", 1, sides, "0" * 32, 0, sum(runs), runs, 0, 0, b"", "", 3_018_000
    )


MEMBERS = [member(0, (30, 5, 20), (0, 1)), member(1, (12,), (1,)), member(2, (3,), (0,))]


def test_the_plan_is_what_the_pool_becomes() -> None:
    planned = plan(MEMBERS, AGE, 10)
    pool = Pool(AGE, 10, planned.rows)
    for number, one in enumerate(MEMBERS):
        pool.add(one.game_id, random_game(frame_numbers(one.stretches), number), one.sides)
    assert (planned.games, planned.perspectives) == (3, 4)
    assert (planned.rows, planned.windows) == (pool.n_rows, pool.n_windows)
    assert planned.bytes == pool.bytes + 16 * pool.n_windows


def test_too_large_a_pool_names_what_would_fit() -> None:
    planned = plan(MEMBERS, AGE, 10)
    assert planned.require(10 * planned.bytes) is planned
    with pytest.raises(LimitError, match=r"3 games .*--limit 1 would fit"):
        planned.require(planned.bytes // 2)
    with pytest.raises(LimitError, match="no game would fit"):
        planned.require(0)


def test_free_memory_is_the_least_of_machine_and_container(tmp_path: Path) -> None:
    assert memory_free(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    assert memory_free(tmp_path) == 1_024_000
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("400000\n")
    (group / "memory.max").write_text("max\n")
    assert memory_free(tmp_path) == 1_024_000
    (group / "memory.max").write_text("500000\n")
    assert memory_free(tmp_path) == 100_000


def test_this_machine_has_memory() -> None:
    free = memory_free()
    assert free is None or free > 0


# --- real replays -------------------------------------------------------------------------------


@pytest.mark.replays
@pytest.mark.slow
def test_golden_replays_from_file_to_window(replays: Path) -> None:
    """The original's contexts, controls and targets from .slp files, through our own game files."""
    arrays = golden()
    by_sha = {hashlib.sha256(f.read_bytes()).hexdigest(): f for f in replays.rglob("*.slp")}
    for game in range(N_GAMES):
        parsed = parse(by_sha[str(arrays["game.sha256"][game])])
        stored = encode_game(parsed.table, parsed.footer)
        short, long = Pool(AGE, 10), Pool(AGE, 60)
        for pool in (short, long):
            pool.add("00" * 16, decode(stored, AGE.columns), (0,))
        assert short.n_windows == arrays["game.n_windows_k10_d0"][game]
        assert long.n_windows == arrays["game.n_windows_k60_d0"][game]
        context = short.batch(torch.tensor([int(arrays["ctx.index"][game]) - 10]))
        assert same(context.floats[0], arrays["ctx.v22-state-age.float_ctx"][game])
        assert context.ints[0].tolist() == arrays["ctx.v22-state-age.int_ctx"][game].tolist()
        numbers = np.flatnonzero(arrays["win.game"] == game)
        batch = short.batch(torch.from_numpy(arrays["win.index"][numbers].astype(np.int64)) - 10)
        assert same(batch.controls, arrays["win.v22-state-age.next_ctrl"][numbers])
        assert same(batch.float_target, arrays["win.v22-state-age.float_tgt"][numbers])
        assert batch.int_target.tolist() == arrays["win.v22-state-age.int_tgt"][numbers].tolist()
        assert batch.target_frame.tolist() == arrays["win.frame"][numbers].tolist()


@pytest.mark.replays
@pytest.mark.slow
@pytest.mark.parametrize("name", VIEWS)
def test_golden_replays_in_every_view(replays: Path, name: str) -> None:
    arrays, of = golden(), view(name)
    by_sha = {hashlib.sha256(f.read_bytes()).hexdigest(): f for f in replays.rglob("*.slp")}
    for game in range(N_GAMES):
        parsed = parse(by_sha[str(arrays["game.sha256"][game])])
        table = decode(encode_game(parsed.table, parsed.footer), of.columns)
        rows, kept = game_rows(table, of), arrays["row.game"] == game
        index = arrays["row.index"][kept]
        assert same(
            torch.from_numpy(rows.floats[index].copy()), arrays[f"{name}.floats.archive"][kept]
        )
        assert np.array_equal(rows.ints[index], arrays[f"{name}.ints"][kept])
        assert not rows.not_finite
