"""Dreams: a model fed its own frames, with the true controllers, and the truth beside it.

`dream` works on encoded rows of many starts at once; `rollout` gives one start in game units.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import UsageError
from schemas.features import View
from schemas.rows import Rows
from training.models import FrameStackMamba2, WorldModel, head_widths

Mode = Literal["window", "recurrent"]
"""window: each frame from the last K alone, as in training. recurrent: from a state that has seen
every frame since the start; faster, but a model trained on windows never met such states."""

# Game units that no frame leaves: a prediction far outside would only feed the next error.
LIMITS = {
    "percent": (0.0, 999.0),
    "x": (-300.0, 300.0),
    "y": (-200.0, 300.0),
    "shield": (0.0, 60.0),
    "hitlag": (0.0, 50.0),
    "stocks": (0.0, 4.0),
    "combo_count": (0.0, 50.0),
}
KO_STOCKS = 0.5
"""A player with fewer stocks than this has none left."""

Predict = Callable[[int, Tensor], dict[str, Tensor]]
Array = NDArray[Any]


@dataclass(frozen=True)
class Rules:
    """How a frame is put together from a prediction.

    within_limits: keep values within LIMITS. all_ids: take l_cancel, hurtbox, ground and last
    attack from their heads and let state_age count; otherwise these five stay as the seed had them.
    """

    within_limits: bool = True
    all_ids: bool = True


PLAY = Rules()
COHERENCE = Rules(within_limits=False, all_ids=False)
"""The rules of the original's rollout coherence (RC@H), to compare with its figures."""


class NextFrame:
    """Puts frame t+1 together from frame t, a prediction, and the true controllers of t+1.

    Raises UsageError for a view with columns that no rule of ours can bring forward.
    """

    def __init__(
        self, view: View, *, rules: Rules = PLAY, device: torch.device | str = "cpu"
    ) -> None:
        check_dreamable(view)
        self._rules = rules

        def columns(numbers: tuple[int, ...]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.int64, device=device)

        ids = tuple(feature.name for feature in view.ints)
        self._deltas, self._values = columns(view.delta_columns), columns(view.value_columns)
        self._controls = columns(view.control_columns)
        self._actions = columns((0, len(ids)))
        floats = tuple(feature.name for feature in view.floats)
        self._ages = columns(_both(floats, "state_age"))
        self._age_step = view.floats[floats.index("state_age")].scale if self._ages.numel() else 0.0
        self._id_ages = columns(_both(ids, "state_age"))
        self._id_age_max = view.ints[ids.index("state_age")].vocab - 1 if "state_age" in ids else 0
        heads = [f"{name}_logits" for name in head_widths(view) if name.startswith(("p0_", "p1_"))]
        self._ids_of_heads = dict(zip(heads, view.target_int_columns, strict=True))
        bounds = [
            [bound * f.scale for bound in LIMITS.get(f.name, (-math.inf, math.inf))]
            for f in view.floats
        ]
        self._low, self._high = torch.tensor(bounds + bounds, device=device).T

    def __call__(
        self, pred: dict[str, Tensor], floats: Tensor, ints: Tensor, controls: Tensor
    ) -> tuple[Tensor, Tensor]:
        """floats (B, F), ints (B, I) of frame t, controls (B, C) of t+1 -> both of t+1.

        What nobody predicts (character, stage) stays.
        """
        changes = torch.cat([pred["continuous_delta"], pred["velocity_delta"]], dim=1)
        values = torch.cat([(pred["binary_logits"] > 0).float(), pred["dynamics_pred"]], dim=1)
        next_floats, next_ints = floats.clone(), self._ids(pred, ints)
        next_floats[:, self._deltas] += changes
        next_floats[:, self._values] = values
        next_floats[:, self._controls] = controls
        if self._rules.all_ids:
            same = next_ints[:, self._actions] == ints[:, self._actions]
            next_floats[:, self._ages] = _aged(floats[:, self._ages], same, self._age_step)
            ages = _aged(ints[:, self._id_ages], same, 1)
            next_ints[:, self._id_ages] = ages.clamp(max=self._id_age_max)
        if self._rules.within_limits:
            next_floats = next_floats.clamp(self._low, self._high)
        return next_floats, next_ints

    def _ids(self, pred: dict[str, Tensor], ints: Tensor) -> Tensor:
        """The most likely ids; without `all_ids` only actions and jumps."""
        following = ints.clone()
        for head, column in self._ids_of_heads.items():
            if self._rules.all_ids or head.endswith(("_action_logits", "_jumps_logits")):
                following[:, column] = pred[head].argmax(1)
        return following


def check_dreamable(view: View) -> None:
    """UsageError where frames of a view hold what neither a head nor a rule brings forward.

    Items are such: their columns would freeze at the seed, and every later frame would be wrong.
    """
    left = [f.name for f in view.floats if f.group == "context" and f.name != "state_age"]
    if left:
        raise UsageError(
            f"view '{view.name}' cannot be dreamed: nothing predicts {', '.join(left)}",
            "use a view without items, for example v22-state-age",
        )


def dream(
    model: WorldModel,
    floats: Tensor,
    ints: Tensor,
    *,
    mode: Mode = "window",
    rules: Rules = PLAY,
) -> tuple[Tensor, Tensor]:
    """Let a model go on from the first K frames of B stretches of true rows.

    floats (B, T, F), ints (B, T, I) int64, on the model's device; of the frames from K on, only the
    controllers are read. Returns both with those frames dreamed, greedily. A dream goes on past a
    knock-out: `ko_row` finds it.
    Raises UsageError for a view that cannot be dreamed, or a model without a recurrent mode.
    """
    next_frame = NextFrame(model.view, rules=rules, device=floats.device)
    floats, ints = floats.clone(), ints.clone()
    start = _recurrent if mode == "recurrent" else _window
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        predict = start(model, floats, ints)
        for t in range(model.context, floats.shape[1]):
            controls = floats[:, t, model.view.control_columns]
            pred = predict(t, controls)
            frame = next_frame(pred, floats[:, t - 1], ints[:, t - 1], controls)
            floats[:, t], ints[:, t] = frame
    model.train(was_training)
    return floats, ints


def stand(floats: Tensor, n_seed: int) -> Tensor:
    """Persistence as a dream: the last frame of the seed for ever."""
    frozen = floats.clone()
    frozen[:, n_seed:] = floats[:, n_seed - 1 : n_seed]
    return frozen


def glide(view: View, floats: Tensor, n_seed: int) -> Tensor:
    """Constant velocity as a dream: positions go on as between the last two frames of the seed."""
    moved = stand(floats, n_seed)
    columns = _position_columns(view)
    step = (floats[:, n_seed - 1] - floats[:, n_seed - 2])[:, columns]
    horizon = torch.arange(1, floats.shape[1] - n_seed + 1, device=floats.device)
    moved[:, n_seed:, columns] += horizon[:, None] * step[:, None]
    return moved


def position_error(view: View, dreamed: Tensor, truth: Tensor, n_seed: int) -> Tensor:
    """(T - n_seed,) game units per axis: mean over starts, players, x and y at each horizon.

    The mean of its first H values under the rules COHERENCE is the original's RC@H.
    """
    columns = _position_columns(view)
    off = (dreamed - truth)[:, n_seed:, columns].abs().mean(dim=(0, 2))
    return off / view.floats[columns[0]].scale


def ko_row(view: View, floats: Tensor) -> list[int | None]:
    """First of T rows, for each of (B, T, F), in which a player has no stock left."""
    columns = _both(tuple(f.name for f in view.floats), "stocks")
    gone = floats[:, :, columns] / view.floats[columns[0]].scale < KO_STOCKS
    rows = [row.any(1).nonzero() for row in gone]
    return [int(row[0]) if len(row) else None for row in rows]


@dataclass(frozen=True)
class Side:
    """One player over T frames; every array is (T,), in game units.

    state: action state id. direction: -1 left, 1 right. A dream's stocks and percent are what the
    model predicts, not whole numbers.
    """

    position_x: Array
    position_y: Array
    percent: Array
    stocks: Array
    state: Array
    direction: Array
    shield: Array
    airborne: Array


@dataclass(frozen=True)
class Rollout:
    """Truth and dream over the same T frames; the first n_seed of both are the truth.

    frame: (T,) console numbers. characters: internal ids. controllers: by side, feature -> (T,)
    with sticks from -1 to 1; both truth and dream were played with them. ko_row: first row in which
    the dream has a player without stocks, None if there is none.
    """

    frame: Array
    n_seed: int
    mode: Mode
    stage: int
    characters: tuple[int, int]
    truth: tuple[Side, Side]
    dream: tuple[Side, Side]
    controllers: tuple[dict[str, Array], dict[str, Array]]
    ko_row: int | None

    def position_error(self) -> Array:
        """(T - n_seed,) game units per axis, mean over both players' x and y."""
        off = [
            np.abs(getattr(dreamed, axis) - getattr(true, axis))[self.n_seed :]
            for dreamed, true in zip(self.dream, self.truth, strict=True)
            for axis in ("position_x", "position_y")
        ]
        mean: Array = np.mean(off, axis=0)
        return mean


def rollout(
    model: WorldModel,
    rows: Rows,
    *,
    start: int = 0,
    n_frames: int | None = None,
    mode: Mode = "window",
) -> Rollout:
    """Dream n_frames (default: to the end) after K seed frames from row `start` of one game.

    Raises UsageError where the game has not so many frames from there, or a cut-off one among them.
    """
    view, context = model.view, model.context
    stop = len(rows.frame) if n_frames is None else start + context + n_frames
    if not 0 <= start < start + context < stop <= len(rows.frame):
        raise UsageError(
            f"rows {start} to {stop} are no rollout of a game with {len(rows.frame)} frames",
            f"{context} seed frames and at least one more are needed",
        )
    if not rows.usable[start:stop].all():
        raise UsageError(f"rows {start} to {stop} of the game hold a frame without its values")
    device = next(model.parameters()).device
    floats = torch.from_numpy(np.ascontiguousarray(rows.floats[start:stop])).to(device)[None]
    ints = torch.from_numpy(rows.ints[start:stop].astype(np.int64)).to(device)[None]
    dreamed = dream(model, floats, ints, mode=mode)
    characters = [int(ints[0, 0, c]) for c in _both(_id_names(view), "character")]
    return Rollout(
        frame=rows.frame[start:stop],
        n_seed=context,
        mode=mode,
        stage=int(ints[0, 0, -1]),
        characters=(characters[0], characters[1]),
        truth=sides(view, floats[0], ints[0]),
        dream=sides(view, dreamed[0][0], dreamed[1][0]),
        controllers=(_controller(view, floats[0], 0), _controller(view, floats[0], 1)),
        ko_row=ko_row(view, dreamed[0])[0],
    )


def sides(view: View, floats: Tensor, ints: Tensor) -> tuple[Side, Side]:
    """Both players of (T, F), (T, I) encoded rows, in game units."""
    return _side(view, floats, ints, 0), _side(view, floats, ints, 1)


def _side(view: View, floats: Tensor, ints: Tensor, player: int) -> Side:
    def value(name: str) -> Array:
        return _column(view, floats, player, name)

    return Side(
        position_x=value("x"),
        position_y=value("y"),
        percent=value("percent"),
        stocks=value("stocks"),
        state=ints[:, player * len(view.ints) + _id_names(view).index("action")].cpu().numpy(),
        direction=np.where(value("facing") > 0.5, 1, -1).astype(np.float32),
        shield=value("shield"),
        airborne=value("on_ground") < 0.5,
    )


def _controller(view: View, floats: Tensor, player: int) -> dict[str, Array]:
    found = {}
    for feature in (view.floats[i] for i in view.controller):
        value = _column(view, floats, player, feature.name)
        found[feature.name] = 2 * value - 1 if feature.how == "stick" else value
    return found


def _column(view: View, floats: Tensor, player: int, name: str) -> Array:
    """(T,) game units of one feature of one player."""
    at = next(i for i, feature in enumerate(view.floats) if feature.name == name)
    column = floats[:, player * len(view.floats) + at] / view.floats[at].scale
    values: Array = column.cpu().numpy()
    return values


def _window(model: WorldModel, floats: Tensor, ints: Tensor) -> Predict:
    """Predict frame t from the K frames before it."""
    return lambda t, controls: model(
        floats[:, t - model.context : t], ints[:, t - model.context : t], controls
    )


def _recurrent(model: WorldModel, floats: Tensor, ints: Tensor) -> Predict:
    """Predict frame t from a state that takes in each frame once."""
    if not isinstance(model, FrameStackMamba2):
        raise UsageError("this model keeps no state between frames", "dream in window mode")
    states = model.start(len(floats))
    taken = 0

    def predict(t: int, controls: Tensor) -> dict[str, Tensor]:
        nonlocal taken
        while taken < t:
            before = floats[:, taken - 1] if taken else None
            row = floats[:, taken], ints[:, taken]
            pred = model.step(*row, controls, states, before=before)
            taken += 1
        return pred

    return predict


def _aged(age: Tensor, same: Tensor, step: float) -> Tensor:
    """Ages (B, 0 or 2) one frame later: on by a step in the same action, 0 in another."""
    return (age + step) * same if age.numel() else age


def _position_columns(view: View) -> tuple[int, ...]:
    names = tuple(feature.name for feature in view.floats)
    return view.both((names.index("x"), names.index("y")))


def _id_names(view: View) -> tuple[str, ...]:
    return tuple(feature.name for feature in view.ints)


def _both(names: tuple[str, ...], name: str) -> tuple[int, ...]:
    """Row columns of a feature for both players; none where the view has it not."""
    at = [i for i, known in enumerate(names) if known == name]
    return tuple(player * len(names) + i for player in (0, 1) for i in at)
