"""Dreams equal the original's to rounding, keep to the rules, and freeze no column silently."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import UsageError
from schemas.features import VIEWS, View, view
from schemas.rows import Rows
from tests.training.golden import golden, under
from tests.training.windows import random_batch
from training.models import Mamba2Config, MlpConfig, WorldModel, build, head_widths
from training.rollout import (
    COHERENCE,
    NextFrame,
    dream,
    glide,
    ko_row,
    position_error,
    rollout,
    sides,
    stand,
)

GOLDEN_VIEWS = ("v22", "v22-state-age")
DREAMABLE = [name for name, v in VIEWS.items() if not v.uses_items]
SMALL = Mamba2Config(16, 2, d_state=8, headdim=8)


def small_model(view_name: str) -> WorldModel:
    model = SMALL.make(view(view_name), 10).eval()
    model.load_state_dict(under(golden("models"), f"mamba.{view_name}.small.w."))
    return model


def decoded(v: View, floats: Tensor, ints: Tensor, player: int) -> Tensor:
    """(T, 19) as the golden rollouts have it: game units; NaN where the view has no such float."""
    names = [feature.name for feature in v.floats]
    ids = [feature.name for feature in v.ints]
    columns = []
    for name in golden("rollout")["free.columns"].tolist():
        if name in ids and name != "state_age":
            columns.append(ints[:, player * len(ids) + ids.index(name)].double())
        elif name in names:
            at = names.index(name)
            columns.append(floats[:, player * len(names) + at].double() / v.floats[at].scale)
        else:
            columns.append(torch.full((len(floats),), torch.nan, dtype=torch.float64))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("view_name", GOLDEN_VIEWS)
def test_a_free_dream_of_60_frames_is_the_originals(view_name: str) -> None:
    given, v = under(golden("rollout"), f"free.{view_name}."), view(view_name)
    model = small_model(view_name)
    with torch.no_grad():
        for head in (model.continuous_head, model.velocity_head, model.dynamics_head):
            assert isinstance(head, torch.nn.Linear)
            head.weight.div_(64)
            head.bias.div_(64)
        assert isinstance(model.dynamics_head, torch.nn.Linear)
        model.dynamics_head.bias.fill_(0.5)
    floats, ints = dream(model, given["seed_floats"][None], given["seed_ints"][None])
    for player in (0, 1):
        found = decoded(v, floats[0], ints[0], player)
        torch.testing.assert_close(found, given[f"p{player}"], rtol=1e-3, atol=1e-3, equal_nan=True)


class Scripted(WorldModel):
    """Stands in for a network: call n of the golden script, whatever the frames."""

    def __init__(self, v: View) -> None:
        super().__init__(v, 4, 1)
        self.calls = 0

    def hidden(self, floats: Tensor, ints: Tensor, controls: Tensor) -> Tensor:
        raise AssertionError("the script has no hidden state")

    def forward(self, floats: Tensor, ints: Tensor, controls: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        n = self.calls
        outputs = ("continuous_delta", "velocity_delta", "dynamics_pred", "binary_logits")
        widths = list(head_widths(self.view).items())
        pred = {key: torch.zeros(1, n) for key, (_, n) in zip(outputs, widths[:4], strict=True)}
        pred |= {f"{name}_logits": torch.zeros(1, n) for name, n in widths[4:]}
        pred["dynamics_pred"] = torch.tensor([[0, 1 - 0.1 * n, 0, 0, 1, 0]])
        pred["p0_action_logits"][0, 14 if n < 5 else 20] = 1
        pred["p1_action_logits"][0, 200 + n // 3] = 1
        return pred


@pytest.mark.parametrize("view_name", GOLDEN_VIEWS)
def test_a_knock_out_is_found_and_state_age_counts_and_resets(view_name: str) -> None:
    arrays, v = golden("rollout"), view(view_name)
    seed = under(arrays, f"rc.{view_name}.g0.")
    floats, ints = dream(Scripted(v), seed["floats"][None, :40], seed["ints"][None, :40])
    stop = under(arrays, f"stop.{view_name}.")
    n_frames = int(stop["n_frames"])
    assert ko_row(v, floats) == [n_frames - 1]
    for player in (0, 1):
        found = decoded(v, floats[0, :n_frames], ints[0, :n_frames], player)
        torch.testing.assert_close(found, stop[f"p{player}"], rtol=1e-3, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("view_name", [*GOLDEN_VIEWS, "v3"])
def test_limits_are_the_originals(view_name: str) -> None:
    given = under(golden("rollout"), f"clamp.{view_name}.")
    place = NextFrame(view(view_name))
    assert torch.equal(given["in"].clamp(place._low, place._high), given["out"])


@pytest.mark.parametrize("view_name", [*GOLDEN_VIEWS, "v3"])
def test_frames_under_the_coherence_rules_are_rebuilt_to_the_bit(view_name: str) -> None:
    given, v = under(golden("rollout"), f"rebuild.{view_name}."), view(view_name)
    pred = {k.removeprefix("pred."): x for k, x in given.items() if k.startswith("pred.")}
    for name, n in head_widths(v).items():
        if name.startswith(("p0_", "p1_")):
            pred[f"{name}_logits"] = torch.zeros(6, n)
    for name in ("action", "jumps"):
        for player in (0, 1):
            logits = pred[f"p{player}_{name}_logits"]
            logits.scatter_(1, pred[name][:, player, None], 1.0)
    floats, ints = NextFrame(v, rules=COHERENCE)(
        pred, given["prev_float"], given["prev_int"], given["ctrl"]
    )
    assert torch.equal(floats, given["next_float"])
    assert torch.equal(ints, given["next_int"])


@pytest.mark.parametrize("view_name", GOLDEN_VIEWS)
def test_rollout_coherence_is_the_originals(view_name: str) -> None:
    arrays, v = golden("rollout"), view(view_name)
    parts = [under(arrays, f"rc.{view_name}.{game}.") for game in ("g0", "g1")]
    offset = 18 * 12  # the golden data set begins with 18 games of 12 empty rows
    floats, ints = (torch.cat([part[kind] for part in parts]) for kind in ("floats", "ints"))
    starts = under(arrays, f"rc.{view_name}.")["starts"] - offset
    rows = torch.stack([torch.arange(int(t) - 10, int(t) + 20) for t in starts])
    dreamed, _ = dream(small_model(view_name), floats[rows], ints[rows], rules=COHERENCE)
    for name, guess in (("mamba_small", dreamed), ("persist", stand(floats[rows], 10))):
        expected = under(arrays, f"rc.{view_name}.{name}.per_horizon.")["pos_mae"]
        found = position_error(v, guess, floats[rows], 10)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6, msg=name)
    rc = [float(position_error(v, stand(floats[rows], 10), floats[rows], 10)[:h].mean())
          for h in (5, 10, 20)]  # fmt: skip
    assert rc == pytest.approx([1.0753, 1.9119, 3.2863], abs=1e-4)


@pytest.mark.parametrize("view_name", DREAMABLE)
@pytest.mark.parametrize("model_name", ["mlp-tiny", "tiny"])
def test_every_model_dreams_20_frames_in_every_view(model_name: str, view_name: str) -> None:
    torch.manual_seed(0)
    v = view(view_name)
    batch = random_batch(v, 3, 26)
    model = build(model_name, v, 6).train()
    floats, ints = dream(model, batch.floats, batch.ints)
    assert model.training
    assert torch.equal(floats[:, :6], batch.floats[:, :6])
    controls = list(v.control_columns)
    assert torch.equal(floats[:, :, controls], batch.floats[:, :, controls])
    assert bool(floats.isfinite().all())
    for feature, column in zip((*v.ints, *v.ints, v.stage), range(v.n_int), strict=True):
        assert 0 <= int(ints[..., column].min()) <= int(ints[..., column].max()) < feature.vocab
    given = {*controls, *v.both(v.binary)}  # an untrained head may give one bit for 20 frames
    frozen = [
        column
        for column in range(v.n_float)
        if column not in given and torch.equal(floats[:, 6:, column], floats[:, 5:-1, column])
    ]
    assert not frozen


@pytest.mark.parametrize("view_name", [n for n, v in VIEWS.items() if v.uses_items])
def test_views_with_items_are_refused_by_name(view_name: str) -> None:
    v = view(view_name)
    batch = random_batch(v, 1, 10)
    with pytest.raises(UsageError, match=r"nothing predicts nearest_dx, nearest_dy, n_items"):
        dream(build("mlp-tiny", v, 4), batch.floats, batch.ints)


@pytest.mark.parametrize("glide", [False, True])
def test_recurrent_dreams_begin_as_the_window_does_and_then_remember_more(glide: bool) -> None:
    torch.manual_seed(0)
    v = view("v22-state-age")
    batch = random_batch(v, 2, 16)
    model = build("tiny", v, 6, glide=glide)
    window, recurrent = (
        dream(model, batch.floats, batch.ints, mode=mode)[0] for mode in ("window", "recurrent")
    )
    torch.testing.assert_close(window[:, :7], recurrent[:, :7], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(window[:, 7:], recurrent[:, 7:], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="keeps no state"):
        dream(build("mlp-tiny", v, 6), batch.floats, batch.ints, mode="recurrent")


def test_the_truth_after_the_seed_reaches_a_dream_only_by_its_controllers() -> None:
    torch.manual_seed(0)
    v = view("v22-state-age")
    batch, other = random_batch(v, 1, 16), random_batch(v, 1, 16, seed=9)
    model = build("tiny", v, 6)
    floats, ints = other.floats.clone(), other.ints.clone()
    floats[:, :6], ints[:, :6] = batch.floats[:, :6], batch.ints[:, :6]
    floats[:, :, v.control_columns] = batch.floats[:, :, v.control_columns]
    expected, found = dream(model, batch.floats, batch.ints), dream(model, floats, ints)
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])


def test_ages_count_up_to_the_last_id_and_start_anew() -> None:
    v = view("v22-state-age")
    pred = {"continuous_delta": torch.zeros(2, 8), "velocity_delta": torch.zeros(2, 10),
            "dynamics_pred": torch.zeros(2, 6), "binary_logits": torch.zeros(2, 6)}  # fmt: skip
    pred |= {f"{name}_logits": torch.zeros(2, n) for name, n in list(head_widths(v).items())[4:]}
    pred["p0_action_logits"][:, 14] = 1
    ints = torch.zeros(2, 17, dtype=torch.int64)
    ints[:, 0], ints[:, 7] = torch.tensor([14, 15]), 30
    ints[:, 15] = 149
    _, following = NextFrame(v)(pred, torch.zeros(2, 56), ints, torch.zeros(2, 26))
    assert following[:, 7].tolist() == [31, 0]
    assert following[:, 15].tolist() == [149, 149]


def straight_rows(v: View, n_frames: int = 40) -> Rows:
    """p0 walks right at 2 units a frame, p1 stands on the left."""
    batch = random_batch(v, 1, n_frames)
    floats, ints = batch.floats[0].numpy(), batch.ints[0].numpy().astype(np.int16)
    half = len(v.floats)
    floats[:, 1], floats[:, half + 1] = np.arange(n_frames) * 2 * 0.05, -30 * 0.05
    floats[:, 2] = floats[:, half + 2] = 0
    usable = np.ones(n_frames, np.bool_)
    return Rows(floats, ints, np.arange(-123, n_frames - 123, dtype=np.int32), usable)


def test_a_rollout_holds_truth_and_dream_of_both_sides_in_game_units() -> None:
    torch.manual_seed(0)
    v = view("v22-state-age")
    rows = straight_rows(v)
    found = rollout(build("tiny", v, 6), rows, start=4, n_frames=20)
    assert found.frame.tolist() == list(range(-119, -93))
    assert found.n_seed == 6
    assert found.characters == (rows.ints[4, 2], rows.ints[4, 10])
    assert found.stage == rows.ints[4, -1]
    one, two = found.truth
    np.testing.assert_allclose(one.position_x, np.arange(4, 30) * 2, rtol=1e-5)
    np.testing.assert_allclose(two.position_x, -30, rtol=1e-5)
    assert set(one.direction.tolist()) <= {-1, 1}
    assert one.state.tolist() == rows.ints[4:30, 0].tolist()
    np.testing.assert_array_equal(found.dream[0].position_x[:6], one.position_x[:6])
    assert (found.dream[0].position_x[6:] != one.position_x[6:]).any()
    assert (found.dream[0].position_x[6:] != found.dream[1].position_x[6:]).any()
    assert list(found.controllers[0])[:5] == ["main_x", "main_y", "c_x", "c_y", "shoulder"]
    assert len(found.controllers[1]) == 13
    stick = rows.floats[4:30, v.controller[0]] * 2 - 1
    np.testing.assert_allclose(found.controllers[0]["main_x"], stick, rtol=1e-5)
    assert found.position_error().shape == (20,)


def test_what_is_no_rollout_is_refused() -> None:
    v = view("v22-state-age")
    model, rows = build("mlp-tiny", v, 6), straight_rows(v)
    for start, n_frames in ((30, 5), (-1, 5), (0, 0), (36, None)):
        with pytest.raises(UsageError, match="are no rollout of a game with 40 frames"):
            rollout(model, rows, start=start, n_frames=n_frames)
    rows.usable[20] = False
    with pytest.raises(UsageError, match="hold a frame without its values"):
        rollout(model, rows, n_frames=20)
    assert len(rollout(model, rows, n_frames=10).frame) == 16


def test_baselines_stand_still_and_glide_on() -> None:
    v = view("v22-state-age")
    truth = torch.from_numpy(straight_rows(v, 30).floats)[None]
    assert position_error(v, glide(v, truth, 10), truth, 10).max() < 1e-4
    still = position_error(v, stand(truth, 10), truth, 10)
    torch.testing.assert_close(still, torch.arange(1, 21) * 2 / 4)  # one axis of four
    assert all(a < b for a, b in pairwise(still.tolist()))


def test_sides_decode_what_the_view_scaled() -> None:
    v = view("v22")
    floats, ints = torch.zeros(1, v.n_float), torch.zeros(1, v.n_int, dtype=torch.int64)
    values = {"percent": 42.0, "x": -7.5, "y": 3.25, "shield": 60.0, "stocks": 3.0}
    for i, feature in enumerate(v.floats):
        floats[0, len(v.floats) + i] = values.get(feature.name, 0.0) * feature.scale
    ints[0, len(v.ints)] = 39
    side = sides(v, floats, ints)[1]
    assert (side.state[0], side.direction[0], bool(side.airborne[0])) == (39, -1, True)
    found = (side.percent, side.position_x, side.position_y, side.shield, side.stocks)
    assert [float(x[0]) for x in found] == pytest.approx(list(values.values()), rel=1e-5)


def test_the_mlp_config_dreams_from_a_single_frame() -> None:
    v = view("v22")
    batch = random_batch(v, 2, 5)
    floats, _ = dream(MlpConfig(8, 4).make(v, 1), batch.floats, batch.ints)
    assert floats.shape == batch.floats.shape
