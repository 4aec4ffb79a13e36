"""The dual form equals the sequential scan, the step equals both, and the names are mamba_ssm's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.mamba import K_MAX, Init, Mamba2

# One block at d_model 384, as mamba_ssm.Mamba2 and transformers' Mamba2Mixer name and shape it.
STATE_DICT = {
    "dt_bias": (12,),
    "A_log": (12,),
    "D": (12,),
    "in_proj.weight": (1676, 384),
    "conv1d.weight": (896, 1, 4),
    "conv1d.bias": (896,),
    "norm.weight": (768,),
    "out_proj.weight": (384, 768),
}


INITS: tuple[Init, ...] = ("canonical", "original")


def block(init: Init = "canonical") -> Mamba2:
    torch.manual_seed(7)
    return Mamba2(16, d_state=8, headdim=8, init=init).double()


def sequential(layer: Mamba2, u: Tensor) -> Tensor:
    """The definition, frame by frame, with nothing shared with the code under test but weights."""
    z, xbc, dt = layer.in_proj(u).split_with_sizes([32, 48, 4], -1)
    xbc = functional.silu(
        functional.conv1d(
            functional.pad(xbc.mT, (3, 0)),
            layer.conv1d.weight,
            layer.conv1d.bias,
            groups=48,
        ).mT
    )
    x, b, c = xbc.split_with_sizes([32, 8, 8], -1)
    x = x.reshape(*x.shape[:-1], 4, 8)
    dt = functional.softplus(dt + layer.dt_bias)
    h = torch.zeros(len(u), 4, 8, 8, dtype=u.dtype)
    rows = []
    for t in range(u.shape[1]):
        decay = torch.exp(-dt[:, t] * layer.A_log.exp())
        h = h * decay[..., None, None] + torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x[:, t], b[:, t])
        rows.append(torch.einsum("bhpn,bn->bhp", h, c[:, t]) + layer.D[:, None] * x[:, t])
    y = torch.stack(rows, dim=1).flatten(-2) * functional.silu(z)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5) * layer.norm.weight
    out: Tensor = layer.out_proj(y)
    return out


def gradients(layer: Mamba2, run: Callable[[Mamba2, Tensor], Tensor], u: Tensor) -> list[Tensor]:
    u = u.clone().requires_grad_()
    out = run(layer, u)
    loss = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
    return list(torch.autograd.grad(loss, [u, *layer.parameters()]))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("n_frames", [1, 3, 10, 60, K_MAX])
def test_dual_form_is_the_sequential_scan(n_frames: int, init: Init) -> None:
    layer = block(init)
    u = torch.randn(3, n_frames, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(u), sequential(layer, u), rtol=1e-12, atol=1e-12)
    ours, theirs = (gradients(layer, run, u) for run in (Mamba2.__call__, sequential))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("n_frames", [10, 60, K_MAX])
def test_steps_equal_the_parallel_form(n_frames: int) -> None:
    layer = block()
    u = torch.randn(2, n_frames, 16, dtype=torch.float64)
    state = layer.new_state(2)
    steps = torch.stack([layer.step(u[:, t], state) for t in range(n_frames)], dim=1)
    torch.testing.assert_close(steps, layer(u), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_last", [1, 4, 10])
def test_the_last_frames_alone_are_the_same(n_last: int) -> None:
    layer = block()
    u = torch.randn(2, 10, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(u, n_last=n_last), layer(u)[:, -n_last:])


def test_extreme_decays_keep_outputs_and_gradients_finite() -> None:
    layer = block().float()
    with torch.no_grad():
        layer.A_log.fill_(8.0)  # exp(8) * dt per frame: every gap above the diagonal overflows
        layer.dt_bias.fill_(4.0)
    found = gradients(layer, Mamba2.__call__, torch.randn(2, K_MAX, 16))
    assert all(bool(g.isfinite().all()) for g in found)


def test_half_precision_stays_near() -> None:
    layer = block().float()
    u = torch.randn(2, 60, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(u)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(u), rtol=0.1, atol=0.05)


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    assert {k: tuple(v.shape) for k, v in Mamba2(384).state_dict().items()} == STATE_DICT


def half_life(layer: Mamba2) -> Tensor:
    rate = functional.softplus(layer.dt_bias) * layer.A_log.exp()
    return torch.log(torch.tensor(2.0)) / rate


def test_canonical_init_remembers_and_the_original_forgets() -> None:
    torch.manual_seed(0)
    lives = {i: torch.cat([half_life(Mamba2(384, init=i)) for _ in range(20)]) for i in INITS}
    assert 7 < lives["canonical"].median() < 14  # measured: 10 frames
    assert lives["original"].median() < 0.3  # measured: 0.17 frames
    dt = functional.softplus(Mamba2(384).dt_bias)
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 1e-1 * 1.001


def test_more_than_one_chunk_is_refused() -> None:
    with pytest.raises(AssertionError, match="more than one chunk"):
        block()(torch.zeros(1, K_MAX + 1, 16, dtype=torch.float64))
