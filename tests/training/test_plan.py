"""Memory is planned to the byte before it is taken."""

from pathlib import Path

import pytest

from schemas.errors import LimitError
from schemas.features import view
from schemas.shard import Member
from tests.training.games import frame_numbers, random_game
from training.plan import memory_free, plan
from training.pool import Pool

AGE = view("v22-state-age")


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
