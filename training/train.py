"""The training loop: from settings to a run folder with weights, figures and a picture.

A step depends on (settings, seed, step) and the weights before it, on nothing else: a run that was
killed goes on from its last checkpoint to the very weights of an unbroken one.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from schemas.errors import TrainingError
from schemas.features import view
from training import loss
from training.config import TrainConfig
from training.evaluate import RECIPES, Data, build_model, device_of, finish, load_data, validate
from training.models import WorldModel
from training.pool import Batch
from training.report import duration, lines
from training.run import Checkpoint, Run, open_run

GAMES_NAMED = 8
"""Games that an error about a batch names."""


def _nothing(*_: object) -> None:
    """For who does not listen."""


@dataclass(frozen=True)
class Hooks:
    """Who listens to a run."""

    say: Callable[[str], None]
    progress: Callable[[float, float | None, str], None]
    saved: Callable[[], None]


@dataclass(frozen=True)
class RunResult:
    """How a run ended. exit_code: 0 done; 130 or 143 stopped by a signal, after saving.

    result: the last validation (the content of result.json), None where a signal came before it.
    """

    path: Path
    step: int
    total: int
    exit_code: int
    result: dict[str, Any] | None = None


def train(
    config: TrainConfig,
    *,
    say: Callable[[str], None] = _nothing,
    progress: Callable[[float, float | None, str], None] = _nothing,
    saved: Callable[[], None] = _nothing,
) -> RunResult:
    """Train to the end, or on from where the run folder stands; SIGINT and SIGTERM save and stop.

    say: takes lines for people. progress(done, total, note): for a bar. saved: called when a
    checkpoint lies whole on the disk.
    Raises a UserError for settings, games or a folder that cannot be used, TrainingError for a
    loss that is no number.
    """
    hooks = Hooks(say, progress, saved)
    config = config.checked()
    with torch.device("meta"):  # a model that cannot be built must not cost a download first
        build_model(config, view(config.view))
    with open_run(config) as run:
        if done := run.read_json("result.json"):
            hooks.say(f"{run.path} is finished; its report is there")
            return RunResult(run.path, done["step"], done["step"], 0, done)
        torch.set_num_threads(run.config.threads)
        data = load_data(run, hooks.progress)
        learner = Learner(run.config, data)
        learner.restore(run)
        for line in (*run.warnings, *_header(run, data, learner)):
            hooks.say(line)
        with stop_signal() as stop:
            _fit(run, data, learner, hooks, stop)
        if learner.step < learner.total:
            hooks.say(f"stopped and saved at step {learner.step} of {learner.total}: {run.path}")
            return RunResult(run.path, learner.step, learner.total, 128 + stop.number)
        result = finish(run, data, learner.model, step=learner.step, say=hooks.say)
        return RunResult(run.path, learner.step, learner.total, 0, result)


class Learner:
    """Model, optimiser and schedule; `step` counts the optimiser steps done."""

    def __init__(self, config: TrainConfig, data: Data) -> None:
        self.config = config
        self.device = device_of(config)
        self.model = build_model(config, data.view).to(self.device)
        self.weights = RECIPES[config.recipe][1]
        self.optimizer = _optimizer(self.model, config)
        self.total = config.n_steps(data.train.n_windows)
        self.per_epoch = data.train.steps(config.batch)
        self.step = 0
        self.facts = {"dataset_id": data.dataset_id, "view": data.view.name,
                      "view_hash": data.view.hash, "model": config.model,
                      "context": config.context, "windows": data.train.fingerprint}  # fmt: skip

    @property
    def epoch(self) -> int:
        """Whole passes over the training windows that are done."""
        return self.step // self.per_epoch

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; its loss, gradient norm and unweighted terms, still on the device.

        Raises TrainingError, before the weights are touched, where a number is none.
        """
        torch.manual_seed(step_seed(self.config.seed, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * schedule(self.step, self.total, self.config.warmup)
        total, terms = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not torch.isfinite(total.detach() + norm):
            raise TrainingError(f"loss {total.item()}, gradient {norm.item()} at step {self.step}")
        self.optimizer.step()
        self.step += 1
        return {"loss": total.detach(), "grad_norm": norm, **terms}

    def rehearse(self, batch: Batch) -> float:
        """Seconds of a step; computes gradients and drops them."""
        self._backward(batch)  # the first pass allocates
        start = time.perf_counter()
        self._backward(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def checkpoint(self) -> Checkpoint:
        """All that the next step depends on."""
        position = {"epoch": self.epoch, "step": self.step % self.per_epoch}
        state = {**self.facts, "position": position, "batch": self.config.batch}
        moments = {
            f"{key}/{name}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return Checkpoint(self.step, self.model.state_dict(), moments, state)

    def restore(self, run: Run) -> None:
        """Take up the newest checkpoint, if there is one, and drop what was logged after it."""
        checkpoint = run.newest()
        run.rewind_log(checkpoint.step if checkpoint else -1)
        if checkpoint is None:
            return
        for key, value in self.facts.items():
            if checkpoint.state.get(key) != value:
                found = checkpoint.state.get(key)
                raise TrainingError(f"{run.path} was trained with {key} {found}, not {value}")
        self.model.load_state_dict(dict(checkpoint.model))
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key.partition("/")[0]: value.to(self.device)
                for key, value in checkpoint.optimizer.items()
                if key.partition("/")[2] == name
            }
        self.step = checkpoint.step

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        pred = self.model(batch.floats, batch.ints, batch.controls)
        total, terms = loss.compute(pred, batch, self.weights)
        total.backward()  # type: ignore[no-untyped-call]
        return total, terms


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: up to 1 over the warm-up, then half a cosine down to 0."""
    rising = int(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


def step_seed(seed: int, step: int) -> int:
    """Seed of the dropout of one step: a resumed run draws what an unbroken one draws."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])


@dataclass
class StopSignal:
    """The signal that asked to stop, 0 for none."""

    number: int = 0


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Turn SIGINT and SIGTERM into a wish to stop at the next step; a second one kills at once."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # handlers belong to the main thread; whoever runs us elsewhere stops us
        return
    before = {int(n): signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fit(run: Run, data: Data, learner: Learner, hooks: Hooks, stop: StopSignal) -> None:
    """Steps to the end or to the stop; the last one is always saved."""
    meter = Meter(learner)
    saved_at, saved_step = time.monotonic(), learner.step
    while learner.step < learner.total and not stop.number:
        with meter.waiting():
            batch = data.train.draw(run.config.seed, learner.step, run.config.batch)
            batch = batch.to(learner.device)
        meter.add(_learn(learner, data, batch, run))
        if learner.step % run.config.log_every == 0 or learner.step == learner.total:
            facts = meter.read()
            run.log(step=learner.step, epoch=learner.step / learner.per_epoch, **facts)
            note = f"loss {facts['loss']:.3f}, {facts['windows_s']:,.0f} windows/s"
            hooks.progress(learner.step, learner.total, note)
        if is_validation(learner.step, learner.total, run.config.validations):
            _validate(run, data, learner, hooks)
        if time.monotonic() - saved_at >= run.config.checkpoint_s:
            _save(run, learner, hooks)
            saved_at, saved_step = time.monotonic(), learner.step
    if saved_step != learner.step:
        _save(run, learner, hooks)


def _learn(learner: Learner, data: Data, batch: Batch, run: Run) -> dict[str, Tensor]:
    try:
        return learner.learn(batch)
    except TrainingError as error:
        games = [data.train.games[n].game_id for n in torch.unique(batch.game).tolist()]
        named = ", ".join(games[:GAMES_NAMED])
        more = f" and {len(games) - GAMES_NAMED} more" if len(games) > GAMES_NAMED else ""
        newest = run.newest()
        last = f"step {newest.step}" if newest else "none"
        hint = f"games of the batch: {named}{more}; last good checkpoint: {last}"
        raise TrainingError(error.message, hint) from None


def _save(run: Run, learner: Learner, hooks: Hooks) -> None:
    run.save(learner.checkpoint())
    hooks.saved()


def is_validation(step: int, total: int, times: int) -> bool:
    """`times` validations evenly spread; the one at the end belongs to `finish`."""
    return step < total and step * times // total > (step - 1) * times // total


def _validate(run: Run, data: Data, learner: Learner, hooks: Hooks) -> None:
    found = validate(learner.model, data, run.config, n_windows=run.config.val_windows)
    run.log(step=learner.step, **found)
    for split in ("validation", "train"):
        if split in found:
            ours, still = (found[split][who]["position_mae"] for who in ("model", "persistence"))
            words = f"position MAE {ours:.3f} (persistence {still:.3f})"
            hooks.say(f"step {learner.step}: {split} loss {found[split]['loss']:.3f}, {words}")


def _header(run: Run, data: Data, learner: Learner) -> list[str]:
    """What is about to happen, in words: games, windows, model, memory, time."""
    config = run.config
    seconds = learner.rehearse(data.train.draw(config.seed, learner.step, config.batch))
    left = learner.total - learner.step
    epochs = learner.total / learner.per_epoch
    start = f", {learner.step} of them done" if learner.step else ""
    words = data.words() | {
        "model": f"{config.model}, {learner.model.n_parameters:,} parameters; view "
        f"{data.view.name}, {config.context} frames of context, recipe {config.recipe}",
        "training": f"{learner.total:,} steps{start} of {config.batch} windows "
        f"({epochs:.2g} epochs), about {duration(left * seconds)} on {learner.device} with "
        f"{config.threads} threads",
        "folder": str(run.path),
    }
    return lines(words)


def _optimizer(model: WorldModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and the SSM's A, D and dt are 1-D and never decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


class Meter:
    """Means of what the steps since the last reading gave, and where the time went."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._windows = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, values: dict[str, Tensor]) -> None:
        """Take in one step; sums stay on the device, so that a GPU need not wait."""
        self._sums = {k: self._sums[k] + v if self._steps else v for k, v in values.items()}
        self._steps += 1

    def read(self) -> dict[str, float]:
        """The means, learning rate, windows a second, share of waiting; and begin anew."""
        seconds = time.perf_counter() - self._since
        facts = {name: value.item() / self._steps for name, value in self._sums.items()}
        facts["lr"] = self._learner.optimizer.param_groups[0]["lr"]
        facts["windows_s"] = self._steps * self._learner.config.batch / seconds
        facts["wait_pct"] = 100 * self._waited / seconds
        self.__init__(self._learner)  # type: ignore[misc]
        return facts
