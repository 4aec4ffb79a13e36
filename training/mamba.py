"""Mamba-2 in plain torch: the dual form in one chunk for training, a recurrent step for rollouts.

It knows nothing of games. Names and shapes of its weights are those of mamba_ssm.Mamba2
(ngroups=1, rmsnorm, no projection bias), so weights can be exchanged both ways.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Init = Literal["canonical", "original"]

K_MAX = 128  # longest context of the dual form: its cost grows with K², its fp32 error with K
NORM_EPS = 1e-5
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # canonical step sizes, log-uniform
A_MAX = 16.0  # canonical decay rates are uniform in [1, A_MAX]


@dataclass
class State:
    """What one layer remembers between frames; `Mamba2.step` changes it in place.

    conv: (B, W-1, E+2N) inputs of the convolution, oldest first, before bias and activation.
    ssm: (B, H, P, N), never narrower than float32.
    """

    conv: Tensor
    ssm: Tensor


def wide(x: Tensor) -> Tensor:
    """float32 unless already float64: decays and norms do not survive 8 bits of mantissa."""
    return x if x.dtype == torch.float64 else x.float()


def dual(x: Tensor, dt: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The scan h_t = exp(log_decay_t) h_(t-1) + dt_t x_t ⊗ b_t, y_t = h_t c_t, as one product.

    x (B, K, H, P); dt, log_decay (B, K, H); b (B, K, N); c (B, Q, N): the reads of the last Q
    frames. Returns y (B, Q, H, P).
    """
    n_frames, n_reads = b.shape[1], c.shape[1]
    total = log_decay.transpose(1, 2).cumsum(-1)  # (B, H, K)
    gap = total[..., n_frames - n_reads :, None] - total[..., None, :]  # (B, H, Q, K)
    future = torch.ones(n_reads, n_frames, dtype=torch.bool, device=x.device)
    future = future.triu(n_frames - n_reads + 1)
    # Masked before exp: above the diagonal the gap is positive, exp may overflow, and a mask
    # afterwards would turn inf * 0 into NaN gradients.
    weight = gap.masked_fill(future, -math.inf).exp() * dt.transpose(1, 2).unsqueeze(-2)
    mixing = (weight * (c @ b.mT).unsqueeze(1)).to(x.dtype)
    return (mixing @ x.transpose(1, 2)).transpose(1, 2)


class Mamba2(nn.Module):
    """One Mamba-2 block: widths E = 2 * d_model, H = E / P heads of width P, N states, W taps."""

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        headdim: int = 64,
        d_conv: int = 4,
        init: Init = "canonical",
    ) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.headdim, self.d_conv = (
            2 * d_model,
            d_state,
            headdim,
            d_conv,
        )
        self.n_heads, rest = divmod(self.d_inner, headdim)
        assert rest == 0, f"2 * {d_model} is no multiple of the head width {headdim}"
        self.d_mixed = self.d_inner + 2 * d_state  # x, B and C go through the convolution together
        self.in_proj = nn.Linear(d_model, self.d_inner + self.d_mixed + self.n_heads, bias=False)
        # Holds the weights under their usual names; `_conv` computes with them.
        self.conv1d = nn.Conv1d(self.d_mixed, self.d_mixed, d_conv, groups=self.d_mixed)
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.A_log = nn.Parameter(torch.empty(self.n_heads))
        self.D = nn.Parameter(torch.ones(self.n_heads))
        self.norm = nn.RMSNorm(self.d_inner, eps=NORM_EPS)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.reset_decays(init)

    @torch.no_grad()
    def reset_decays(self, init: Init) -> None:
        """Draw step sizes and decay rates.

        canonical: half of the heads remember for over 10 frames at the start. original: the median
        head forgets half within 0.17 frames; kept for comparison.
        """
        if init == "original":
            self.dt_bias.uniform_(-1.0, 1.0)
            self.A_log.copy_(torch.arange(1, self.n_heads + 1).log())
            return
        dt = torch.empty_like(self.dt_bias).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        dt.clamp_(min=DT_FLOOR)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log.uniform_(1.0, A_MAX).log_()

    def forward(self, u: Tensor, *, n_last: int | None = None) -> Tensor:
        """u (B, K, d_model), K <= K_MAX, from an empty state -> (B, K, d_model).

        n_last: give only the last n frames, (B, n, d_model); saves gate, norm and output of others.
        """
        n_frames = u.shape[1]
        assert n_frames <= K_MAX, f"{n_frames} frames are more than one chunk of {K_MAX}"
        first = 0 if n_last is None else n_frames - n_last
        gate, mixed = self.in_proj.weight.split_with_sizes(
            [self.d_inner, self.d_mixed + self.n_heads]
        )
        z = functional.linear(u[:, first:], gate)
        xbc, dt = functional.linear(u, mixed).split_with_sizes([self.d_mixed, self.n_heads], -1)
        x, b, c = self._split(self._conv(xbc))
        dt, log_decay = self._decay(dt)
        y = dual(x, dt, log_decay, b, c[:, first:]) + self.D.to(x.dtype)[:, None] * x[:, first:]
        return self._out(y, z)

    def new_state(self, n_rows: int) -> State:
        """The empty state for n_rows independent sequences."""
        weight = self.in_proj.weight
        return State(
            conv=weight.new_zeros(n_rows, self.d_conv - 1, self.d_mixed),
            ssm=wide(weight).new_zeros(n_rows, self.n_heads, self.headdim, self.d_state),
        )

    @torch.no_grad()
    def step(self, u: Tensor, state: State) -> Tensor:
        """One more frame u (B, d_model) -> (B, d_model); equals `forward` from a common start."""
        widths = [self.d_inner, self.d_mixed, self.n_heads]
        z, xbc, dt = self.in_proj(u).split_with_sizes(widths, -1)
        recent = torch.cat([state.conv, xbc.unsqueeze(1)], dim=1)  # (B, W, E+2N)
        state.conv = recent[:, 1:]
        taps, bias = self._taps(recent.dtype)
        x, b, c = self._split(functional.silu((recent * taps).sum(1) + bias))
        dt, log_decay = self._decay(dt)
        # In place: a rollout is bound by reading and writing this state.
        state.ssm.mul_(log_decay.exp()[..., None, None])
        state.ssm.addcmul_((dt.unsqueeze(-1) * x).unsqueeze(-1), wide(b)[:, None, None, :])
        y = (state.ssm @ wide(c)[:, None, :, None]).squeeze(-1) + self.D[:, None] * x
        return self._out(y, z)

    def _taps(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights (W, E+2N) and bias (E+2N) of the convolution, in the activations' precision."""
        bias = self.conv1d.bias
        assert bias is not None
        return self.conv1d.weight.squeeze(1).T.to(dtype), bias.to(dtype)

    def _conv(self, xbc: Tensor) -> Tensor:
        """Causal depthwise convolution and SiLU; W shifted multiply-adds beat nn.Conv1d on CPU."""
        taps, mixed = self._taps(xbc.dtype)
        padded = functional.pad(xbc, (0, 0, self.d_conv - 1, 0))
        for tap in range(self.d_conv):
            mixed = torch.addcmul(mixed, padded[:, tap : tap + xbc.shape[1]], taps[tap])
        return functional.silu(mixed)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, b, c = mixed.split_with_sizes([self.d_inner, self.d_state, self.d_state], -1)
        return x.view(*x.shape[:-1], self.n_heads, self.headdim), b, c

    def _decay(self, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Step size and log-decay (<= 0) of each head, wide."""
        dt = functional.softplus(wide(dt) + wide(self.dt_bias))
        return dt, -dt * wide(self.A_log).exp()

    def _out(self, y: Tensor, z: Tensor) -> Tensor:
        """Gate first, norm second: the other order loads the same weights and is silently wrong."""
        gated, scale = wide(y.flatten(-2)) * functional.silu(wide(z)), wide(self.norm.weight)
        out: Tensor = self.out_proj(functional.rms_norm(gated, scale.shape, scale, NORM_EPS))
        return out
