"""Losses equal the original's, terms and gradients, to rounding."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.training.golden import golden, under
from tests.training.windows import Batch
from training.loss import TERMS, Weights, action_changes, compute

VIEWS = ("v22-state-age", "v3")


def golden_batch(name: str) -> tuple[dict[str, Tensor], Batch]:
    arrays = under(golden("losses"), f"{name}.")
    pred = {k.removeprefix("pred."): v for k, v in arrays.items() if k.startswith("pred.")}
    ints, unused = arrays["int_ctx"], torch.empty(0)
    return pred, Batch(unused, ints, unused, arrays["float_tgt"], arrays["int_tgt"])


def golden_weights(name: str) -> Weights:
    return Weights(**{k: float(v) for k, v in under(golden("losses"), f"weights.{name}.").items()})


@pytest.mark.parametrize("batch", ["batch0", "batch1"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_term_is_the_originals(view: str, batch: str) -> None:
    pred, targets = golden_batch(f"{view}.{batch}")
    expected = under(golden("losses"), f"{view}.{batch}.default.")
    total, terms = compute(pred, targets)
    torch.testing.assert_close(total.double(), expected["total_loss"], rtol=1e-5, atol=0)
    assert terms.keys() == set(TERMS)
    for name, term in terms.items():
        torch.testing.assert_close(
            term.double(), expected[f"{name}_loss"], rtol=1e-5, atol=0, msg=name
        )


@pytest.mark.parametrize("batch", ["batch0", "batch1"])
@pytest.mark.parametrize("view", VIEWS)
def test_other_weights_give_the_originals_totals(view: str, batch: str) -> None:
    arrays = golden("losses")
    pred, targets = golden_batch(f"{view}.{batch}")
    for name in ("default", "changed", "later_default"):
        total, _ = compute(pred, targets, golden_weights(name))
        assert float(total) == pytest.approx(
            float(arrays[f"{view}.{batch}.{name}.total_loss"]), rel=1e-5
        )
    for factor in (1, 5):
        total, terms = compute(pred, targets, Weights(action_change=factor))
        expected = under(arrays, f"{view}.{batch}.change_weight{factor}.")
        assert float(total) == pytest.approx(float(expected["total_loss"]), rel=1e-5)
        assert float(terms["action"]) == pytest.approx(float(expected["action_loss"]), rel=1e-5)


@pytest.mark.parametrize("view", VIEWS)
def test_gradients_are_the_originals(view: str) -> None:
    pred, targets = golden_batch(f"{view}.batch1")
    for value in pred.values():
        value.requires_grad_()
    total, _ = compute(pred, targets)
    total.backward()  # type: ignore[no-untyped-call]
    for name, gradient in under(golden("losses"), f"{view}.batch1.grad.").items():
        torch.testing.assert_close(pred[name].grad, gradient, rtol=1e-5, atol=1e-9, msg=name)


def test_the_defaults_are_the_originals() -> None:
    assert golden_weights("default") == Weights()
    assert golden_weights("later_default") == replace(Weights(), binary=1.0)


def test_changes_compare_each_player_with_his_own_last_frame() -> None:
    ints = torch.zeros(2, 3, 17, dtype=torch.int64)
    ints[0, -1, 0], ints[0, -1, 8], ints[0, 0] = 14, 20, 99  # older frames do not matter
    target = torch.zeros(2, 12, dtype=torch.int64)
    target[0, 0], target[0, 6] = 14, 21
    unused = torch.empty(0)
    found = action_changes(Batch(unused, ints, unused, unused, target))
    assert found.tolist() == [[False, True], [False, False]]


def test_motion_beyond_beta_counts_by_its_size() -> None:
    pred, targets = golden_batch("v3.batch0")
    n_core = pred["continuous_delta"].shape[1]
    targets.float_target[:, :n_core] = pred["continuous_delta"].detach() + 0.5
    _, terms = compute(pred, targets, Weights(motion_beta=0.01))
    assert float(terms["continuous"]) == pytest.approx(0.5 - 0.01 / 2)
    _, terms = compute(pred, targets)
    assert float(terms["continuous"]) == pytest.approx(0.25)
