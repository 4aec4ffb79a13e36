"""Run folders: whose they are, what a kill leaves, and what a resume finds."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from schemas.errors import NotFoundError, RunMismatchError, TrainingError, UsageError
from training.config import TrainConfig
from training.run import Checkpoint, open_run, read_run


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(query="char='fox'", run_dir=str(tmp_path / "run"), keep=2)


def checkpoint(step: int, size: int = 4) -> Checkpoint:
    filled = torch.full((size,), float(step))
    return Checkpoint(step, {"w": filled}, {"exp_avg.w": filled}, {"epoch": 0})


def test_checkpoints_come_back_newest_first_and_old_ones_go(config: TrainConfig) -> None:
    with open_run(config) as run:
        assert run.newest() is None
        for step in (9, 10, 100):
            run.save(checkpoint(step))
        newest = run.newest()
        assert newest is not None
        assert (newest.step, newest.state["epoch"]) == (100, 0)
        assert torch.equal(newest.model["w"], torch.full((4,), 100.0))
        assert sorted(p.name for p in (run.path / "ckpt").iterdir()) == ["step-10", "step-100"]
        assert (run.path / "last").read_text() == "step-100\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
        lambda folder: (folder / "optimizer.safetensors").unlink(),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text('{"format": 99}'),
        lambda folder: (folder / "state.json").write_text("[]"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(config, damage) -> None:  # type: ignore[no-untyped-def]
    with open_run(config) as run:
        run.save(checkpoint(1))
        damage(run.save(checkpoint(2)))
        newest = run.newest()
        assert newest is not None
        assert newest.step == 1
        assert "step-2 is damaged" in run.warnings[0]
        run.save(checkpoint(2))
        assert run.newest().step == 2  # type: ignore[union-attr]


WRITER = """
import sys
from tests.training.test_run import checkpoint
from training.config import TrainConfig
from training.run import open_run
with open_run(TrainConfig(query="char='fox'", run_dir=sys.argv[1], keep=2)) as run:
    newest = run.newest()
    step = newest.step if newest else 0
    print("ready", flush=True)
    while True:
        step += 1
        run.save(checkpoint(step, 100_000))
        run.log(step=step)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(config: TrainConfig) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    pause = random.Random(seed)
    reached = 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(config.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(0.1 + pause.random() / 5)
            child.send_signal(signal.SIGKILL)
        with open_run(config) as run:  # the dead process holds nothing
            newest = run.newest()
            assert newest is not None
            assert newest.step >= reached
            reached = newest.step
            assert torch.equal(newest.model["w"], torch.full((100_000,), float(reached)))
            run.rewind_log(reached)
            steps = [record["step"] for record in run.records()]
            assert steps == sorted(set(steps))


def test_refuses_the_folder_of_other_settings(config: TrainConfig) -> None:
    with open_run(config):
        pass
    with pytest.raises(RunMismatchError, match=r"batch 512 -> 8, lr 0\.002 -> 0\.1"):
        open_run(replace(config, lr=0.1, batch=8)).__enter__()
    with open_run(replace(config, url="http://127.0.0.1:9", checkpoint_s=1)) as run:
        starts = run.read_json("env.json")
        assert isinstance(starts, list)
        assert len(starts) == 2


def test_a_lock_file_is_copied_and_compared_by_content(config: TrainConfig, tmp_path: Path) -> None:
    lock = tmp_path / "fox.lock"
    lock.write_text("one")
    locked = replace(config, query=None, dataset=str(lock))
    with open_run(locked) as run:
        assert run.dataset_lock.read_text() == "one"
    lock.write_text("two")
    with pytest.raises(RunMismatchError, match="dataset"):
        open_run(locked).__enter__()


def test_one_process_at_a_time(config: TrainConfig) -> None:
    writing = f"process {os.getpid()} .* is writing"
    with open_run(config) as run, pytest.raises(UsageError, match=writing):
        open_run(config).__enter__()
    other_host = json.dumps({"pid": 7, "host": socket.gethostname() + "-other"})
    (run.path / "run.lock").write_text(other_host)
    with pytest.raises(UsageError, match=r"process 7 on .*-other is writing"):
        open_run(config).__enter__()
    os.utime(run.path / "run.lock", (1, 1))  # no sign of life since 1970
    with open_run(config):
        pass


def test_refuses_folders_that_are_something_else(config: TrainConfig) -> None:
    config.folder.mkdir()
    (config.folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no run folder and not empty"):
        open_run(config).__enter__()
    with pytest.raises(NotFoundError, match="is no run folder"):
        read_run(config.folder)


def test_threads_stay_as_the_run_began(config: TrainConfig) -> None:
    with open_run(replace(config, threads=3)) as run:
        assert run.warnings == []
    with open_run(config) as run:
        assert run.config.threads == 3
    with open_run(replace(config, threads=1)) as run:
        assert "1 threads instead of 3" in run.warnings[0]


def test_a_log_is_rewound_to_the_checkpoint(config: TrainConfig) -> None:
    with open_run(config) as run:
        for step in (1, 2, 3):
            run.log(step=step)
        with (run.path / "log.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        run.rewind_log(2)
        assert run.records() == [{"step": 1}, {"step": 2}]


def test_a_disk_that_refuses_is_said_and_what_was_there_stays(config: TrainConfig) -> None:
    with open_run(config) as run:
        run.save(checkpoint(1))
        (run.path / "ckpt" / ".tmp-step-2").write_text("a file where the folder should be")
        with pytest.raises(TrainingError, match=r"cannot write .*step-2"):
            run.save(checkpoint(2))
        assert run.newest().step == 1  # type: ignore[union-attr]


def test_a_damaged_later_checkpoint_does_not_crowd_out_new_ones(config: TrainConfig) -> None:
    with open_run(replace(config, keep=1)) as run:
        (run.save(checkpoint(100)) / "state.json").write_text("{")
        assert run.newest() is None
        run.save(checkpoint(30))
        newest = run.newest()
        assert newest is not None
        assert newest.step == 30


def test_an_address_belongs_to_a_start_and_not_to_the_run(config: TrainConfig) -> None:
    with open_run(replace(config, url="http://127.0.0.1:1")) as run:
        assert run.config.url == "http://127.0.0.1:1"
    assert read_run(run.path).config.url is None
    (start,) = run.read_json("env.json") or []
    assert start["url"] == "http://127.0.0.1:1"


def test_reading_a_run_takes_no_lock(config: TrainConfig) -> None:
    with open_run(config):
        assert read_run(config.folder).config.query == config.query
