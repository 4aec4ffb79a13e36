"""The loop: it learns, it resumes to the very bits, it stops when told, and says what is wrong."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import (
    EmptySelectionError,
    RunMismatchError,
    TrainingError,
    UnknownNameError,
    UsageError,
)
from tests.training.exports import QUERY, add_games, exported
from training.config import TrainConfig, from_file
from training.evaluate import evaluate_run, load_data
from training.run import open_run
from training.train import Learner, is_validation, schedule, step_seed, train


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight synthetic games of ten seconds."""
    folder = tmp_path_factory.mktemp("shards")
    return exported(add_games(folder / "store", range(8), 600), folder / "export")


@pytest.fixture
def config(shards: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        query=QUERY, shards=str(shards), run_dir=str(tmp_path / "run"), model="mlp-tiny",
        steps=30, batch=64, lr=3e-3, threads=1, device="cpu", val_windows=200,
        rollout_frames=120, log_every=5,
    )  # fmt: skip


def last_weights(path: Path) -> bytes:
    name = (path / "last").read_text().strip()
    return (path / "ckpt" / name / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_learns_and_leaves_all_that_it_promised(config: TrainConfig) -> None:
    said: list[str] = []
    calls: list[tuple[float, float | None]] = []
    saves: list[float] = []
    ended = train(
        replace(config, steps=200),
        say=said.append,
        progress=lambda done, total, _: calls.append((done, total)),
        saved=lambda: saves.append(time.monotonic()),
    )
    assert (ended.exit_code, ended.step, ended.total) == (0, 200, 200)
    losses = [line["loss"] for line in _log(ended.path) if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert ended.result is not None
    ours = ended.result["validation"]["model"]["position_mae"]
    assert ours < 0.9 * ended.result["validation"]["persistence"]["position_mae"]
    assert ended.result["validation"]["state_table"]["change_acc"] is not None
    assert ended.result["train"]["n_windows"] > ended.result["validation"]["n_windows"]
    header = "\n".join(said)
    for word in ("char = 'fox'", "games train", "parameters", "200 steps", "about", "validation:"):
        assert word in header
    done, total = calls[-1]
    assert done == total == 200
    assert saves
    assert json.loads((ended.path / "result.json").read_text()) == ended.result
    assert from_file(ended.path / "config.json").query == QUERY
    _check_rollout(ended.path)


def _check_rollout(path: Path) -> None:
    told = json.loads((path / "rollout.json").read_text())
    assert len(told["frames"]) >= 120
    xs = {
        take: [np.array(told[take][side]["x"]) for side in ("p0", "p1")]
        for take in ("truth", "dream")
    }
    for side in (0, 1):
        assert not np.allclose(xs["dream"][side], xs["truth"][side])
        assert np.ptp(xs["dream"][side]) > 0.1  # persistence would not move
    assert not np.allclose(xs["dream"][0], xs["dream"][1])
    assert (path / "rollout.png").stat().st_size > 10_000
    assert "<canvas" in (path / "rollout.html").read_text()


def _log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


def test_a_finished_run_is_not_begun_again(config: TrainConfig) -> None:
    first = train(config)
    said: list[str] = []
    again = train(config, say=said.append)
    assert again.result == first.result
    assert "is finished" in said[0]


@pytest.mark.slow
def test_eval_judges_the_last_checkpoint_again(config: TrainConfig, shards: Path) -> None:
    ended = train(config)
    (ended.path / "rollout.png").unlink()
    said: list[str] = []
    assert evaluate_run(ended.path, shards=str(shards), say=said.append) == ended.result
    assert (ended.path / "rollout.png").exists()
    assert any("position MAE" in line for line in said)


@pytest.mark.slow
def test_eval_in_the_middle_leaves_the_run_to_go_on(config: TrainConfig) -> None:
    with open_run(config) as run:
        learner = Learner(run.config, data := load_data(run, lambda *_: None))
        learner.learn(data.train.draw(0, 0, config.batch))
        run.save(learner.checkpoint())
    assert evaluate_run(run.path)["step"] == 1
    assert (run.path / "eval.json").exists()
    assert run.records() == []
    assert train(config).step == config.steps


@pytest.mark.slow
def test_a_folder_of_shards_names_the_run_by_its_games(
    config: TrainConfig, shards: Path, tmp_path: Path
) -> None:
    other = exported(add_games(tmp_path / "store", range(8, 12), 600), tmp_path / "other")
    moved = shutil.copytree(shards, tmp_path / "moved")
    ours, theirs = (replace(config, query=None, shards=str(f), steps=2) for f in (shards, other))
    assert ours.digest == replace(ours, shards=str(moved)).digest != theirs.digest
    assert train(ours).step == 2
    assert train(replace(ours, shards=str(moved))).step == 2
    with pytest.raises(RunMismatchError, match="belongs to another run: dataset"):
        train(theirs)


@pytest.mark.parametrize("device", ["warp", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(config: TrainConfig, device: str) -> None:
    with pytest.raises(UsageError, match=f"device '{device}'"):
        train(replace(config, device=device))


CHILD = """
import sys
from training.config import from_file
from training.train import train
sys.exit(train(from_file(sys.argv[1], run_dir=sys.argv[2], checkpoint_s=0)).exit_code)
"""


def child(settings: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(settings), str(run_dir)])


def wait_for_step(run_dir: Path, step: int) -> None:
    """Until a checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done = [int(p.name[5:]) for p in run_dir.glob("ckpt/step-*")]
        if max(done, default=0) >= step:
            return
        time.sleep(0.005)
    pytest.fail(f"no checkpoint of step {step} in two minutes")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp-tiny", "tiny"])
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(
    config: TrainConfig, tmp_path: Path, model: str
) -> None:
    config = replace(config, model=model, steps=120, batch=200)  # over two epochs
    unbroken = train(config)
    settings, broken = tmp_path / "config.json", tmp_path / "broken"
    settings.write_text(json.dumps(config.to_dict()))
    seed = random.randrange(2**32)
    print("seed", seed)
    for step in sorted(random.Random(seed).sample(range(1, 100), 2)):
        with child(settings, broken) as run:
            wait_for_step(broken, step)
            run.send_signal(signal.SIGKILL)
        assert run.returncode == -signal.SIGKILL
    with child(settings, broken) as run:
        assert run.wait() == 0
    assert last_weights(broken) == last_weights(unbroken.path)
    steps = [line["step"] for line in _log(broken) if "loss" in line]
    assert steps == sorted(set(steps))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(
    config: TrainConfig, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    settings, path = tmp_path / "config.json", tmp_path / "stopped"
    settings.write_text(json.dumps(replace(config, steps=100_000).to_dict()))
    with child(settings, path) as run:
        wait_for_step(path, 3)
        run.send_signal(number)
        assert run.wait(timeout=60) == code
    with open_run(replace(config, steps=100_000, run_dir=str(path))) as opened:
        newest = opened.newest()
    assert newest is not None
    assert newest.step >= 3
    assert newest.state["position"] == {"epoch": 0, "step": newest.step}


def test_a_loss_that_is_no_number_names_games_and_checkpoint(config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match=r"at step \d+ .*games of the batch: [0-9a-f]{32}") as e:
        train(replace(config, lr=1e30))
    assert "last good checkpoint: none" in e.value.hint


@pytest.mark.slow
def test_what_cannot_be_trained_on_is_said(
    config: TrainConfig, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="nearest: mlp"):
        train(replace(config, model="mpl"))
    assert not config.folder.exists()
    with pytest.raises(RunMismatchError, match="the shards hold"):
        train(replace(config, query="char='marth'"))
    with pytest.raises(EmptySelectionError, match="no game has 1001 frames in a row"):
        train(replace(config, context=1000, run_dir=str(tmp_path / "long")))
    nothing = exported(add_games(tmp_path / "store", range(1), 60), tmp_path / "none", "char='roy'")
    with pytest.raises(EmptySelectionError, match="no game matches char = 'roy'"):
        train(replace(config, query="char='roy'", shards=str(nothing), run_dir=str(tmp_path / "n")))


@pytest.mark.slow
def test_a_resume_asks_for_the_games_that_the_run_began_with(
    config: TrainConfig, tmp_path: Path
) -> None:
    layout = add_games(tmp_path / "store", range(3), 120)
    old = exported(layout, tmp_path / "old")
    config = replace(config, shards=str(old), run_dir=str(tmp_path / "resumed"))
    with open_run(config) as run:
        began = load_data(run, lambda *_: None).dataset_id
    add_games(tmp_path / "store", range(3, 5), 120)
    grown = exported(layout, tmp_path / "grown")
    other = f"the lock names dataset {began}"
    grown_config = replace(config, shards=str(grown))
    with open_run(grown_config) as run, pytest.raises(RunMismatchError, match=other):
        load_data(run, lambda *_: None)
    with open_run(config) as run:
        assert load_data(run, lambda *_: None).dataset_id == began


@pytest.mark.slow
def test_one_game_trains_without_validation_and_says_so(
    config: TrainConfig, tmp_path: Path
) -> None:
    one = exported(add_games(tmp_path / "store", range(1), 300), tmp_path / "one")
    said: list[str] = []
    ended = train(replace(config, shards=str(one), steps=3), say=said.append)
    assert ended.result is not None
    assert "validation" not in ended.result
    assert any("too few games" in line for line in said)
    assert "(training)" in (ended.path / "rollout.html").read_text()


def test_a_view_with_items_trains_without_a_picture(config: TrainConfig) -> None:
    said: list[str] = []
    ended = train(replace(config, view="v22-projectiles", steps=2), say=said.append)
    assert ended.result is not None
    assert ended.result["files"] == {}
    assert any(line.startswith("no picture: view 'v22-projectiles'") for line in said)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.001
    assert schedule(0, 1, 0.5) == 1


def test_validations_are_spread_and_leave_the_end_to_the_last() -> None:
    assert [s for s in range(1, 101) if is_validation(s, 100, 4)] == [25, 50, 75]
    assert not any(is_validation(s, 100, 1) for s in range(1, 101))


def test_seeds_of_steps_differ() -> None:
    seeds = {step_seed(seed, step) for seed in range(3) for step in range(100)}
    assert len(seeds) == 300


def test_vectors_never_decay(config: TrainConfig) -> None:
    with open_run(replace(config, model="tiny")) as run:
        learner = Learner(run.config, load_data(run, lambda *_: None))
    decaying, others = learner.optimizer.param_groups
    assert decaying["weight_decay"] == config.weight_decay
    assert others["weight_decay"] == 0
    names = {id(p): name for name, p in learner.model.named_parameters()}
    assert not [n for p in decaying["params"] if (n := names[id(p)]).endswith(("bias", "A_log"))]
    assert sum(p.numel() for p in decaying["params"] + others["params"]) == (
        learner.model.n_parameters
    )
