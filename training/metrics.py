"""One-step metrics in game units, for a model and for the guesses that it must beat.

Means are over windows, whatever the batches they came in. A guess is scored only on what it says.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from schemas.features import View
from training.loss import TERMS, Weights, Windows, action_changes, actions, compute
from training.models import WorldModel

Result = dict[str, float | int | None]
"""Metric -> mean over all windows; None where no window had a say."""


@dataclass(frozen=True)
class Guess:
    """What somebody says about the next frame of B windows.

    core (B, 8) and velocity (B, 10): changes to the last frame, in the view's scale, as the float
    target has them. binary (B, 6 or 86) bool. action (B, 2).
    """

    core: Tensor | None = None
    velocity: Tensor | None = None
    binary: Tensor | None = None
    action: Tensor | None = None


def decode(pred: Mapping[str, Tensor]) -> Guess:
    """A model's output, with the most likely action and the likelier side of each bit."""
    return Guess(
        core=pred["continuous_delta"],
        velocity=pred["velocity_delta"],
        binary=pred["binary_logits"] > 0,
        action=torch.stack([pred[f"p{p}_action_logits"].argmax(1) for p in (0, 1)], dim=1),
    )


def persistence(view: View, batch: Windows) -> Guess:
    """The next frame is the last one."""
    last = batch.floats[:, -1]
    return Guess(
        core=last.new_zeros(len(last), 2 * len(view.core)),
        velocity=last.new_zeros(len(last), 2 * len(view.velocity)),
        binary=last[:, view.both(view.binary)] > 0.5,
        action=actions(batch)[0],
    )


def constant_velocity(view: View, batch: Windows) -> Guess:
    """Both players move on as they did between the last two frames; it guesses positions alone."""
    before, last = batch.floats[:, -2], batch.floats[:, -1]
    moved = (last - before)[:, view.both(view.core)]
    core = torch.zeros_like(moved)
    columns = core_columns(view, "x", "y")
    core[:, columns] = moved[:, columns]
    return Guess(core=core)


class StateTable:
    """How often each action state followed each, over both players of the training windows."""

    def __init__(self, view: View) -> None:
        n_states = view.ints[0].vocab
        self.counts = torch.zeros(n_states, n_states, dtype=torch.int64)

    def add(self, last: Tensor, following: Tensor) -> None:
        """Count pairs of states, one frame apart; two tensors of one shape."""
        n_states = len(self.counts)
        pairs = (last * n_states + following).flatten().cpu()
        self.counts += torch.bincount(pairs, minlength=n_states**2).view(n_states, n_states)

    def guess(self, batch: Windows) -> Guess:
        """The state that most often followed, staying included; a state never seen stays."""
        return self._most_frequent(self.counts, batch)

    def guess_change(self, batch: Windows) -> Guess:
        """The most frequent *other* state: the guess of one who is told that it changes now.

        Only its change_acc means anything, and no honest table reaches it: it knows the moment.
        """
        others = self.counts.clone().fill_diagonal_(0)
        return self._most_frequent(others, batch)

    def _most_frequent(self, counts: Tensor, batch: Windows) -> Guess:
        seen = counts.sum(1) > 0
        best = torch.where(seen, counts.argmax(1), torch.arange(len(counts)))
        last = actions(batch)[0]
        return Guess(action=best.to(last.device)[last])


class Score:
    """Sums of one guesser's hits and errors, on the device where the guesses are."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._sums: dict[str, Tensor] = {}

    def add(self, guess: Guess, batch: Windows) -> None:
        """Score the guesses for one batch."""
        n_core, n_velocity = 2 * len(self._view.core), 2 * len(self._view.velocity)
        core, velocity, rest = batch.float_target.tensor_split([n_core, n_core + n_velocity], dim=1)
        if guess.core is not None:
            off = (guess.core - core).abs()
            moved, hurt = (off[:, core_columns(self._view, *n)] for n in (("x", "y"), ("percent",)))
            self._count("position_mae", moved / _scale(self._view, "x"))
            self._count("damage_mae", hurt / _scale(self._view, "percent"))
        if guess.velocity is not None:
            off = (guess.velocity - velocity).abs()
            self._count("velocity_mae", off / _scale(self._view, "speed_y"))
        if guess.binary is not None:
            self._count("binary_acc", guess.binary == (rest[:, : guess.binary.shape[1]] > 0.5))
        if guess.action is not None:
            self._add_actions(guess.action, batch)

    def result(self) -> Result:
        """Means over all windows so far, and the number of changed player-frames among them."""
        found: Result = {}
        for name, pair in self._sums.items():
            total, count = pair.tolist()
            found[name] = total / count if count else None
        if "change_acc" in self._sums:
            found["n_changes"] = int(self._sums["change_acc"][1])
        return found

    def _add_actions(self, action: Tensor, batch: Windows) -> None:
        right = action == actions(batch)[1]
        changed = action_changes(batch)
        self._count("action_acc", right)
        self._count("p0_action_acc", right[:, 0])
        self._count("p1_action_acc", right[:, 1])
        self._count("change_acc", right, among=changed)
        self._count("change_acc_p0", right[:, 0], among=changed[:, 0])  # the original's change_acc

    def _count(self, name: str, values: Tensor, *, among: Tensor | None = None) -> None:
        # Masked sums kept as tensors: an index or a number would make a GPU wait at each batch.
        among = torch.ones_like(values, dtype=torch.bool) if among is None else among
        pair = torch.stack([(values * among).sum(dtype=torch.float64), among.sum().double()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair


def evaluate(
    model: WorldModel,
    batches: Iterable[Windows],
    *,
    table: StateTable | None = None,
    weights: Weights | None = None,
) -> dict[str, Any]:
    """Loss and metrics of a model over all batches, and of the baselines on the same windows.

    batches: on the model's device. table: filled from *training* windows; without it the two
    table baselines are left out.
    Returns {"n_windows", "loss", "terms": {...}, "model": {...}, "persistence": {...},
    "constant_velocity": {...}, "state_table": {...}, "state_table_told": {...}}, where the last one
    is told which frames change (`StateTable.guess_change`).
    """
    guessers = _baselines(model, table)
    scores = {name: Score(model.view) for name in ("model", *guessers)}
    losses: list[Tensor] = []
    n_windows, was_training = 0, model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            pred = model(batch.floats, batch.ints, batch.controls)
            losses.append(_losses(pred, batch, weights))
            n_windows += len(batch.floats)
            scores["model"].add(decode(pred), batch)
            for name, guess in guessers.items():
                scores[name].add(guess(batch), batch)
    model.train(was_training)
    means = (
        torch.stack(losses).sum(0).div(n_windows).tolist() if losses else [None] * (1 + len(TERMS))
    )
    return {
        "n_windows": n_windows,
        "loss": means[0],
        "terms": dict(zip(TERMS, means[1:], strict=True)),
        **{name: score.result() for name, score in scores.items()},
    }


def core_columns(view: View, *names: str) -> list[int]:
    """Columns of these core features among the core changes of both players."""
    core = [view.floats[i].name for i in view.core]
    return [player * len(core) + core.index(name) for player in (0, 1) for name in names]


def _scale(view: View, name: str) -> float:
    return next(feature.scale for feature in view.floats if feature.name == name)


def _baselines(
    model: WorldModel, table: StateTable | None
) -> dict[str, Callable[[Windows], Guess]]:
    guessers: dict[str, Callable[[Windows], Guess]] = {
        "persistence": partial(persistence, model.view)
    }
    if model.context > 1:
        guessers["constant_velocity"] = partial(constant_velocity, model.view)
    if table is not None:
        guessers |= {"state_table": table.guess, "state_table_told": table.guess_change}
    return guessers


def _losses(pred: Mapping[str, Tensor], batch: Windows, weights: Weights | None) -> Tensor:
    """(1 + terms) float64: the total and each term, times the batch's windows."""
    total, terms = compute(pred, batch, weights)
    return torch.stack([total, *(terms[name] for name in TERMS)]).double() * len(batch.floats)
