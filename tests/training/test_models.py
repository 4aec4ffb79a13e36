"""Models give the original's numbers under its names, with its number of parameters."""

import dataclasses

import pytest
import torch
from torch import Tensor

from schemas.errors import UnknownNameError, UsageError
from schemas.features import VIEWS, view
from tests.training.golden import golden, under
from tests.training.windows import Batch, random_batch
from training.loss import compute
from training.models import (
    MODELS,
    FrameStackMamba2,
    Mamba2Config,
    MlpConfig,
    WorldModel,
    build,
    head_widths,
)

# view -> parameters of (mlp K=10, d256x2, mamba2-4m, mamba2-10m, mamba2-16m), the original's counts
N_PARAMETERS = {
    "v22": (1_360_722, 1_201_794, 4_275_810, 10_584_178, 15_648_882),
    "v22-state-age": (1_433_602, 1_206_578, 4_282_386, 10_592_546, 15_660_834),
    "v22-projectiles": (1_464_322, 1_208_114, 4_284_690, 10_595_618, 15_665_442),
    "v3": (1_874_516, 1_248_644, 4_345_444, 10_676_596, 15_786_868),
    "v3-projectiles": (1_905_236, 1_250_180, 4_347_748, 10_679_668, 15_791_476),
}
GOLDEN_WINDOWS = [("v22", 4), ("v22-state-age", 4), ("v22-state-age", 12), ("v3", 4), ("v3", 12)]
SMALL = Mamba2Config(16, 2, d_state=8, headdim=8)
D64 = Mamba2Config(64, 2, d_state=64, headdim=64)


@pytest.mark.parametrize("name", N_PARAMETERS)
def test_parameter_counts_are_the_originals(name: str) -> None:
    configs = (
        MODELS["mlp"],
        Mamba2Config(256, 2),
        MODELS["mamba2-4m"],
        MODELS["mamba2-10m"],
        MODELS["mamba2-16m"],
    )
    with torch.device("meta"):
        counts = tuple(config.make(view(name), 10).n_parameters for config in configs)
    assert counts == N_PARAMETERS[name]


def test_names_and_shapes_of_the_4m_model_are_frozen() -> None:
    expected: dict[str, tuple[int, ...]] = {
        "action_embed.weight": (400, 32),
        "jumps_embed.weight": (8, 4),
        "character_embed.weight": (33, 8),
        "stage_embed.weight": (33, 4),
        "l_cancel_embed.weight": (3, 2),
        "hurtbox_embed.weight": (3, 2),
        "ground_embed.weight": (32, 4),
        "last_attack_embed.weight": (64, 8),
        "state_age_embed.weight": (150, 8),
        "frame_proj.weight": (384, 196),
        "frame_proj.bias": (384,),
        "final_norm.weight": (384,),
        "ctrl_proj.weight": (384, 26),
        "ctrl_proj.bias": (384,),
    }
    for layer in range(4):
        expected |= {
            f"layers.{layer}.norm.weight": (384,),
            f"layers.{layer}.mamba.dt_bias": (12,),
            f"layers.{layer}.mamba.A_log": (12,),
            f"layers.{layer}.mamba.D": (12,),
            f"layers.{layer}.mamba.in_proj.weight": (1676, 384),
            f"layers.{layer}.mamba.conv1d.weight": (896, 1, 4),
            f"layers.{layer}.mamba.conv1d.bias": (896,),
            f"layers.{layer}.mamba.norm.weight": (768,),
            f"layers.{layer}.mamba.out_proj.weight": (384, 768),
        }
    widths = {"continuous": 8, "velocity": 10, "dynamics": 6, "binary": 6}
    categories = {"action": 400, "jumps": 8, "l_cancel": 3, "hurtbox": 3, "ground": 32}
    categories["last_attack"] = 64
    for player in ("p0", "p1"):
        widths |= {f"{player}_{name}": n for name, n in categories.items()}
    for name, n in widths.items():
        expected |= {f"{name}_head.weight": (n, 384), f"{name}_head.bias": (n,)}
    with torch.device("meta"):
        model = build("mamba2-4m", view("v22-state-age"), 10)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected


def check_golden(config: MlpConfig | Mamba2Config, name: str, view_name: str, k: int) -> WorldModel:
    """Load the original's weights as they are and compare all 16 heads."""
    arrays = golden("models")
    suffix = f".k{k}" if isinstance(config, MlpConfig) else ""
    model = config.make(view(view_name), k).eval()
    model.load_state_dict(under(arrays, f"{name}{suffix}.w."))
    given = under(arrays, f"in.{view_name}.k{k}.in.")
    with torch.no_grad():
        found = model(given["float_ctx"], given["int_ctx"], given["next_ctrl"])
    expected = under(arrays, f"{name}.k{k}.out.")
    assert found.keys() == expected.keys()
    for head, value in expected.items():
        torch.testing.assert_close(found[head], value, rtol=0, atol=1e-5, msg=head)
    return model


@pytest.mark.parametrize(("view_name", "k"), GOLDEN_WINDOWS)
def test_mlp_gives_the_originals_numbers(view_name: str, k: int) -> None:
    check_golden(MlpConfig(hidden=12, trunk=8), f"mlp.{view_name}", view_name, k)


@pytest.mark.parametrize(("view_name", "k"), [*GOLDEN_WINDOWS, ("v3-projectiles", 4)])
def test_mamba_gives_the_originals_numbers(view_name: str, k: int) -> None:
    check_golden(SMALL, f"mamba.{view_name}.small", view_name, k)


@pytest.mark.parametrize("k", [4, 12])
def test_mamba_with_the_real_state_and_head_widths(k: int) -> None:
    check_golden(D64, "mamba.v22-state-age.d64", "v22-state-age", k)


def test_hidden_layers_and_double_precision_equal_the_originals() -> None:
    arrays, v = golden("models"), view("v22-state-age")
    name = "mamba.v22-state-age.small"
    model = SMALL.make(v, 12).eval().double()
    model.load_state_dict(under(arrays, f"{name}.w."))
    seen: dict[str, Tensor] = {}
    for part in ("frame_proj", "layers.0.mamba", "layers.1.mamba", "final_norm"):
        model.get_submodule(part).register_forward_hook(
            lambda _, __, out, part=part: seen.update({part: out})
        )
    given = under(arrays, "in.v22-state-age.k12.in.")
    with torch.no_grad():
        found = model(given["float_ctx"].double(), given["int_ctx"], given["next_ctrl"].double())
    for part, value in under(arrays, f"{name}.k12.hidden.").items():
        expected = value if seen[part].shape == value.shape else value[:, -1:]  # the last layer
        torch.testing.assert_close(seen[part].float(), expected, rtol=0, atol=1e-5, msg=part)
    for head, value in under(arrays, f"{name}.k12.float64.").items():
        torch.testing.assert_close(found[head], value, rtol=0, atol=1e-12, msg=head)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("model_name", ["mlp-tiny", "tiny"])
def test_every_model_learns_in_every_view(model_name: str, name: str) -> None:
    torch.manual_seed(0)
    v = view(name)
    batch = random_batch(v, 16, 6)
    model = build(model_name, v, 6, dropout=0.0)
    pred = model(batch.floats, batch.ints, batch.controls)
    assert [out.shape[1] for out in pred.values()] == list(head_widths(v).values())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before, _ = compute(pred, batch)
    before.backward()  # type: ignore[no-untyped-call]
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused
    optimizer.step()
    with torch.no_grad():
        after, _ = compute(model(batch.floats, batch.ints, batch.controls), batch)
    assert after < before


@pytest.mark.parametrize(
    ("name", "config"),
    [("mlp.v22-state-age.k4", MlpConfig(12, 8, dropout=0.0)),
     ("mamba.v22-state-age.small.k4", dataclasses.replace(SMALL, dropout=0.0))],
)  # fmt: skip
def test_four_optimiser_steps_are_the_originals(
    name: str, config: MlpConfig | Mamba2Config
) -> None:
    """From the original's weights: loss and gradient norm of each step, and the weights after."""
    expected = under(golden("trainer"), f"step.{name}.")
    model = config.make(view("v22-state-age"), 4).train()
    weights = name if isinstance(config, MlpConfig) else name.removesuffix(".k4")
    model.load_state_dict(under(golden("models"), f"{weights}.w."))
    given = under(golden("models"), "in.v22-state-age.k4.in.")
    targets = under(golden("losses"), "v22-state-age.batch1.")
    batch = Batch(
        given["float_ctx"], given["int_ctx"], given["next_ctrl"],
        targets["float_tgt"][:3], targets["int_tgt"][:3],
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)
    for step in range(4):
        optimizer.zero_grad()
        loss, _ = compute(model(batch.floats, batch.ints, batch.controls), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert loss.item() == pytest.approx(float(expected["loss"][step]), rel=1e-4)
        norm_expected = float(expected["grad_norm_before_clip"][step])
        assert norm.item() == pytest.approx(norm_expected, rel=1e-4)
    for key, value in model.state_dict().items():
        if f"after.{key}" in expected:
            torch.testing.assert_close(
                value, expected[f"after.{key}"], rtol=1e-4, atol=1e-4, msg=key
            )


def test_steps_from_an_empty_state_equal_the_window() -> None:
    v = view("v22-state-age")
    torch.manual_seed(0)
    model = build("tiny", v, 10).eval()
    assert isinstance(model, FrameStackMamba2)
    batch = random_batch(v, 3, 10)
    floats, ints, controls = batch.floats, batch.ints, batch.controls
    states = model.start(3)
    for t in range(10):
        stepped = model.step(floats[:, t], ints[:, t], controls, states)
    with torch.no_grad():
        window = model(floats, ints, controls)
    for head, value in window.items():
        torch.testing.assert_close(stepped[head], value, rtol=1e-4, atol=1e-5, msg=head)


def test_half_precision_gives_float32_heads_near_the_others() -> None:
    v = view("v22-state-age")
    torch.manual_seed(0)
    for name in ("mlp-tiny", "tiny"):
        model = build(name, v, 10).eval()
        batch = random_batch(v, 4, 10)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(batch.floats, batch.ints, batch.controls)
        with torch.no_grad():
            full = model(batch.floats, batch.ints, batch.controls)
        for head, value in full.items():
            assert half[head].dtype == torch.float32
            torch.testing.assert_close(half[head], value, rtol=0.1, atol=0.1, msg=head)


def test_settings_change_the_model_and_unknown_ones_are_named() -> None:
    v = view("v22")
    assert isinstance(build("tiny", v, 10, init="original", dropout=0.0), FrameStackMamba2)
    with pytest.raises(UsageError, match=r"no setting 'droput'.*nearest: dropout"):
        build("tiny", v, 10, droput=0.0)
    with pytest.raises(UnknownNameError, match=r"unknown model 'mamba-4m'.*nearest: mamba2-4m"):
        build("mamba-4m", v, 10)
    with pytest.raises(UsageError, match=r"129 frames is too long.*at most 128"):
        build("tiny", v, 129)
    with pytest.raises(UsageError, match="0 frames is too short"):
        build("mlp-tiny", v, 0)


@pytest.mark.parametrize("name", ["mlp-tiny", "tiny"])
def test_a_gliding_model_begins_at_constant_velocity_and_speaks_in_game_units(name: str) -> None:
    batch = random_batch(view("v3"), 3, 4)
    torch.manual_seed(0)
    model = build(name, view("v3"), 4, glide=True).eval()
    moved = batch.floats[:, -1] - batch.floats[:, -2]
    block = len(view("v3").floats)  # x and y are columns 1 and 2 of a player's block
    expected = torch.zeros(3, 8)
    expected[:, [1, 2, 5, 6]] = moved[:, [1, 2, block + 1, block + 2]]
    pred = model(batch.floats, batch.ints, batch.controls)
    torch.testing.assert_close(pred["continuous_delta"], expected)
    assert not pred["velocity_delta"].any()
    for head, one in (("continuous", "core"), ("velocity", "velocity")):
        torch.nn.init.ones_(model.get_submodule(f"{head}_head").bias)  # type: ignore[arg-type]
        scales = [view("v3").floats[i].scale for i in getattr(view("v3"), one)]
        change = model(batch.floats, batch.ints, batch.controls)[f"{head}_delta"]
        unit = (change - pred[f"{head}_delta"])[0]
        torch.testing.assert_close(unit, torch.tensor(scales * 2), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="shows no movement"):
        build(name, view("v3"), 1, glide=True)


def test_steps_of_a_gliding_model_equal_the_window() -> None:
    batch = random_batch(view("v22"), 3, 4)
    torch.manual_seed(0)
    model = build("tiny", view("v22"), 4, glide=True).eval()
    assert isinstance(model, FrameStackMamba2)
    states = model.start(3)
    for t in range(4):
        before = batch.floats[:, t - 1] if t else None
        frame = batch.floats[:, t], batch.ints[:, t]
        pred = model.step(*frame, batch.controls, states, before=before)
    expected = model(batch.floats, batch.ints, batch.controls)["continuous_delta"]
    torch.testing.assert_close(pred["continuous_delta"], expected, rtol=1e-4, atol=1e-5)
