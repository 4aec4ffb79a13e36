"""The training loss: one term a head, with the original's definitions and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

CATEGORIES = ("action", "jumps", "l_cancel", "hurtbox", "ground", "last_attack")
"""Categorical heads of one player, in the order of the id target."""


class Windows(Protocol):
    """What losses and metrics read of a batch; training.pool.Batch is one.

    floats (B, K, F), ints (B, K, I): the context. float_target (B, 30 or 112): changes of core and
    velocity, then binary and dynamics, each for both players. int_target (B, 12): ids by player.
    """

    @property
    def floats(self) -> Tensor: ...
    @property
    def ints(self) -> Tensor: ...
    @property
    def controls(self) -> Tensor: ...
    @property
    def float_target(self) -> Tensor: ...
    @property
    def int_target(self) -> Tensor: ...


@dataclass(frozen=True)
class Weights:
    """Factor of each term; the defaults are the original's.

    action_change: factor of a window's action term where its action changes (the mean is not
    normalised by it). motion_beta: 0 judges changes of core and velocity by their square; above it,
    by their size beyond this many units of the view's scale. Squares of small movements are next
    to nothing beside a cross entropy, and the few big ones outweigh all others.
    """

    continuous: float = 1.0
    velocity: float = 0.5
    dynamics: float = 0.5
    binary: float = 0.5
    action: float = 2.0
    jumps: float = 0.5
    l_cancel: float = 0.3
    hurtbox: float = 0.3
    ground: float = 0.3
    last_attack: float = 0.3
    action_change: float = 1.0
    motion_beta: float = 0.0


_NO_TERMS = ("action_change", "motion_beta")
TERMS = tuple(field.name for field in fields(Weights) if field.name not in _NO_TERMS)


def compute(
    pred: Mapping[str, Tensor], batch: Windows, weights: Weights | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all terms (a scalar), and each term unweighted and detached.

    pred: a model's output. Every term is a mean over the windows of the batch.
    """
    weights = weights or Weights()
    terms = _float_terms(pred, batch.float_target, weights.motion_beta) | _category_terms(
        pred, batch, weights
    )
    total = torch.stack([getattr(weights, name) * terms[name] for name in TERMS]).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def action_changes(batch: Windows) -> Tensor:
    """(B, 2) bool: whether a player's target action differs from that of the last context frame."""
    last, target = actions(batch)
    return last != target


def actions(batch: Windows) -> tuple[Tensor, Tensor]:
    """(B, 2) actions of the last context frame and of the target frame."""
    ids_of_player = (batch.ints.shape[-1] - 1) // 2
    return batch.ints[:, -1, [0, ids_of_player]], batch.int_target[:, [0, len(CATEGORIES)]]


def _float_terms(
    pred: Mapping[str, Tensor], float_target: Tensor, motion_beta: float
) -> dict[str, Tensor]:
    heads = [
        pred[n] for n in ("continuous_delta", "velocity_delta", "binary_logits", "dynamics_pred")
    ]
    widths = [head.shape[1] for head in heads]
    core, velocity, binary, dynamics = float_target.split_with_sizes(widths, 1)
    return {
        "continuous": _motion(heads[0], core, motion_beta),
        "velocity": _motion(heads[1], velocity, motion_beta),
        "binary": functional.binary_cross_entropy_with_logits(heads[2], binary),
        "dynamics": functional.mse_loss(heads[3], dynamics),
    }


def _motion(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    if beta:
        return functional.smooth_l1_loss(pred, target, beta=beta)
    return functional.mse_loss(pred, target)


def _category_terms(
    pred: Mapping[str, Tensor], batch: Windows, weights: Weights
) -> dict[str, Tensor]:
    """Cross entropies, each the mean of both players'."""
    terms = {}
    for column, name in enumerate(CATEGORIES):
        both = [
            functional.cross_entropy(
                pred[f"p{player}_{name}_logits"],
                batch.int_target[:, player * len(CATEGORIES) + column],
                reduction="none",
            )
            for player in (0, 1)
        ]
        each = torch.stack(both, dim=1)  # (B, 2)
        if name == "action" and weights.action_change != 1:
            each = each * torch.where(action_changes(batch), weights.action_change, 1.0)
        terms[name] = each.mean()
    return terms
