"""Batches for the tests of models, losses and metrics, without a game behind them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.features import View


@dataclass
class Batch:
    """The tensors of a training.pool.Batch that models, losses and metrics read."""

    floats: Tensor
    ints: Tensor
    controls: Tensor
    float_target: Tensor
    int_target: Tensor

    def rows(self, start: int, stop: int) -> "Batch":
        """Some of the windows."""
        return Batch(**{name: value[start:stop] for name, value in vars(self).items()})


def random_ids(view: View, *shape: int, generator: torch.Generator) -> Tensor:
    """(*shape, I) valid ids of a view."""
    vocab = [feature.vocab for feature in (*view.ints, *view.ints, view.stage)]
    return torch.stack([torch.randint(n, shape, generator=generator) for n in vocab], dim=-1)


def random_batch(view: View, n_rows: int, context: int, *, seed: int = 3) -> Batch:
    """Windows of noise, with targets in range."""
    generator = torch.Generator().manual_seed(seed)
    n_motion, n_binary = len(view.delta_columns), 2 * len(view.binary)
    target = torch.randn(n_rows, view.n_float_target, generator=generator)
    bits = target[:, n_motion : n_motion + n_binary]
    target[:, n_motion : n_motion + n_binary] = (bits > 0).float()
    return Batch(
        floats=torch.randn(n_rows, context, view.n_float, generator=generator),
        ints=random_ids(view, n_rows, context, generator=generator),
        controls=torch.rand(n_rows, view.n_control, generator=generator),
        float_target=target,
        int_target=random_ids(view, n_rows, generator=generator)[:, view.target_int_columns],
    )
