"""Metrics equal the original's on one batch, weigh windows alike, and know the baselines."""

import pytest
import torch

from schemas.features import view
from tests.training.golden import golden, under
from tests.training.test_loss import golden_batch
from tests.training.windows import Batch, random_batch
from training.loss import compute
from training.metrics import (
    Guess,
    Score,
    StateTable,
    constant_velocity,
    decode,
    evaluate,
    persistence,
)
from training.models import build

VIEW = view("v22-state-age")


def moving_batch() -> Batch:
    """Two windows: p0 moves 2 units right a frame, p1 stands; p0's action changes in the first."""
    batch = random_batch(VIEW, 2, 3)
    for value in vars(batch).values():
        value.zero_()
    batch.floats[:, :, 1] = torch.tensor([0.0, 2.0, 4.0]) * 0.05
    batch.float_target[:, 1] = 2 * 0.05
    batch.ints[:, -1, 0], batch.ints[:, -1, 8] = 14, 20
    batch.int_target[:, 0], batch.int_target[:, 6] = torch.tensor([24, 14]), 20
    return batch


@pytest.mark.parametrize("name", ["batch0", "batch1"])
@pytest.mark.parametrize("view_name", ["v22-state-age", "v3"])
def test_one_batch_scores_as_the_original_scored_it(view_name: str, name: str) -> None:
    pred, targets = golden_batch(f"{view_name}.{name}")
    expected = under(golden("losses"), f"{view_name}.{name}.default.")
    score = Score(view(view_name))
    score.add(decode(pred), targets)
    found = score.result()
    same = ("position_mae", "velocity_mae", "damage_mae", "binary_acc")
    for metric in (*same, "p0_action_acc", "p1_action_acc"):
        assert found[metric] == pytest.approx(float(expected[metric]), rel=1e-5), metric
    changes = float(expected["num_action_changes"])
    right = float(expected["p0_action_change_correct"])
    assert found["change_acc_p0"] == pytest.approx(right / changes if changes else None)


def test_windows_count_alike_whatever_their_batch() -> None:
    pred, whole = random_batch(VIEW, 9, 4), random_batch(VIEW, 9, 4, seed=8)
    guess = Guess(
        pred.float_target[:, :8], pred.float_target[:, 8:18], None, pred.int_target[:, :2]
    )
    one, parts = Score(VIEW), Score(VIEW)
    one.add(guess, whole)
    for start, stop in ((0, 7), (7, 9)):
        piece = Guess(
            *(None if part is None else part[start:stop] for part in vars(guess).values())
        )
        parts.add(piece, whole.rows(start, stop))
    assert parts.result() == pytest.approx(one.result())


def test_constant_velocity_is_right_where_persistence_is_off() -> None:
    batch, still, moving = moving_batch(), Score(VIEW), Score(VIEW)
    still.add(persistence(VIEW, batch), batch)
    moving.add(constant_velocity(VIEW, batch), batch)
    found = still.result()
    assert found["position_mae"] == pytest.approx(0.5)  # 2 units on one of four axes
    assert found["action_acc"] == 0.75
    assert found["n_changes"] == 1
    assert (found["change_acc"], found["change_acc_p0"]) == (0.0, 0.0)
    assert moving.result() == {"position_mae": pytest.approx(0, abs=1e-6), "damage_mae": 0.0}


def test_the_table_says_what_followed_most_often() -> None:
    table = StateTable(VIEW)
    table.add(torch.tensor([14, 14, 14, 14, 14]), torch.tensor([14, 14, 14, 24, 25]))
    table.add(torch.tensor([14]), torch.tensor([24]))
    batch = moving_batch()
    assert_actions = table.guess(batch).action, table.guess_change(batch).action
    assert [a.tolist() for a in assert_actions if a is not None] == [
        [[14, 20], [14, 20]],  # staying is the most frequent; 20 was never seen
        [[24, 20], [24, 20]],
    ]


def test_nothing_changed_is_no_accuracy() -> None:
    batch = moving_batch()
    batch.int_target[:, 0] = 14
    score = Score(VIEW)
    score.add(persistence(VIEW, batch), batch)
    found = score.result()
    assert (found["change_acc"], found["n_changes"]) == (None, 0)
    assert found["action_acc"] == 1


def test_evaluation_weighs_batches_by_windows_and_restores_the_mode() -> None:
    torch.manual_seed(1)
    model = build("tiny", VIEW, 4).train()
    whole, table = random_batch(VIEW, 10, 4), StateTable(VIEW)
    found = evaluate(model, [whole.rows(0, 7), whole.rows(7, 10)], table=table)
    assert model.training
    model.eval()
    with torch.no_grad():
        total, terms = compute(model(whole.floats, whole.ints, whole.controls), whole)
    assert found["n_windows"] == 10
    assert found["loss"] == pytest.approx(float(total), rel=1e-5)
    assert found["terms"] == pytest.approx({k: float(v) for k, v in terms.items()}, rel=1e-5)
    baselines = {"persistence", "constant_velocity", "state_table", "state_table_told"}
    assert baselines < found.keys()
    assert "position_mae" not in found["state_table"]


def test_no_windows_are_no_figures() -> None:
    found = evaluate(build("mlp-tiny", VIEW, 1), [])
    assert (found["n_windows"], found["loss"], found["model"]) == (0, None, {})
    assert "constant_velocity" not in found  # one frame has no velocity
