"""Views give the original's numbers to the bit, and say what they made up."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas import features
from schemas.columns import PLAYER
from schemas.errors import UnknownNameError
from schemas.features import FORMULAS, INT_FORMULAS, VIEWS, View, view
from schemas.game import FULL, leaves
from schemas.rows import game_rows, nearest_item, stage_of
from tests.golden_games import N_GAMES, game_table, golden, rows_of

SIZES = {  # floats, ints, float targets: reference/origin.md 2.1 to 2.4
    "v22": (58, 15, 30),
    "v22-state-age": (56, 17, 30),
    "v22-projectiles": (62, 17, 30),
    "v3": (138, 17, 112),
    "v3-projectiles": (144, 17, 112),
}


TYPES: dict[str, np.dtype[Any]] = {c.name: pa.array([], c.type).to_numpy().dtype for c in PLAYER}


def features_type(source: str) -> np.dtype[Any]:
    return TYPES.get(source, np.dtype(np.float32))


def same_bits(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("game", range(N_GAMES))
def test_golden_rows(name: str, game: int) -> None:
    found = game_rows(game_table(game), view(name))
    rows = rows_of(game)
    assert same_bits(found.floats, golden()[f"{name}.floats.archive"][rows])
    assert same_bits(found.ints, golden()[f"{name}.ints"][rows])
    assert same_bits(found.frame, golden()["row.frame"][rows])
    assert found.usable.all()
    assert not found.not_finite


@pytest.mark.parametrize("name", VIEWS)
def test_swap_puts_the_higher_port_first(name: str) -> None:
    table = game_table(3)
    plain, swapped = game_rows(table, view(name)), game_rows(table, view(name), swap=True)
    assert same_bits(plain.swapped().floats, swapped.floats)
    assert same_bits(plain.swapped().ints, swapped.ints)
    assert not same_bits(plain.floats, swapped.floats)
    assert same_bits(swapped.swapped().floats, plain.floats)


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_sizes_and_groups(name: str, sizes: tuple[int, int, int]) -> None:
    of = view(name)
    assert (of.n_float, of.n_int, of.n_float_target) == sizes
    assert (of.n_control, of.n_int_target) == (26, 12)
    assert of.core == (0, 1, 2, 3)
    assert of.velocity == (4, 5, 6, 7, 8)
    assert [of.floats[i].name for i in of.controller[:5]] == [
        "main_x", "main_y", "c_x", "c_y", "shoulder",
    ]  # fmt: skip
    assert [of.floats[i].name for i in of.dynamics[:3]] == ["hitlag", "stocks", "combo_count"]


def test_target_ints_of_state_age_are_the_originals() -> None:
    # reference/origin.md 2.11, row 28
    columns = view("v22-state-age").target_int_columns
    assert columns == (0, 1, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14)


# reference/origin.md 2.11: raw value -> encoded, printed as doubles
WORKED = [
    ("percent", 37, 0.3700000047683716),
    ("percent", 142, 1.4199999570846558),
    ("x", 12.5, 0.625),
    ("x", 85.5656967, 4.278285026550293),
    ("y", 0.0001, 4.999999873689376e-06),
    ("y", -42.25, -2.112499952316284),
    ("shield", 47.36, 0.47360000014305115),
    ("shield", 0.28, 0.00279999990016222),
    ("speed_air_x", 1.5, 0.07500000298023224),
    ("speed_air_x", -0.83, -0.04149999842047691),
    ("speed_y", -2.8, -0.14000000059604645),
    ("speed_y", 4.1, 0.20499999821186066),
    ("speed_ground_x", 2.2, 0.11000000685453415),
    ("speed_attack_x", -3.75, -0.1875),
    ("speed_attack_y", 2.5, 0.125),
    ("state_age", 7.0, 0.07000000029802322),
    ("state_age", 149.6, 1.496000051498413),
    ("hitlag", 12, 1.2000000476837158),
    ("stocks", 3, 0.75),
    ("combo_count", 3, 0.30000001192092896),
    ("combo_count", 9, 0.8999999761581421),
    ("combo_count", 255, 25.5),
    ("hitstun", 33, 0.6599999666213989),
    ("hitstun", 500, 4.0),
    ("hitstun", -3, 0.0),
    ("hitstun", 1e-12, 4.0),
    ("main_x", 1.0, 1.0),
    ("main_x", -0.7, 0.15000000596046448),
    ("main_x", 0, 0.5),
    ("flag_0_2", 0x04, 1.0),
    ("flag_4_6", 0xC0, 1.0),
    ("flag_4_5", 0xC0, 0.0),
]
WORKED_IDS = [
    ("state_age", -1, 0), ("state_age", 7.0, 7), ("state_age", 149.6, 149),
    ("state_age", float("nan"), 0), ("state_age", float("inf"), 149),
    ("ground", 65535, 0), ("ground", 3, 4), ("ground", 39, 31),
    ("last_attack_landed", 99, 63), ("action", 399, 399), ("action", 400, 399),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "encoded"), WORKED)
def test_worked_floats(name: str, raw: float, encoded: float) -> None:
    every = (*VIEWS["v22"].floats, *VIEWS["v3"].floats)
    feature = next(f for f in every if f.name == name)
    value = np.array([raw], features_type(feature.source))
    found = np.asarray(FORMULAS[feature.how](np, value, feature)).astype(np.float32)
    assert float(found[0]) == encoded


@pytest.mark.parametrize(("name", "raw", "encoded"), WORKED_IDS)
def test_worked_ids(name: str, raw: float, encoded: int) -> None:
    feature = next(f for f in VIEWS["v3"].ints if f.name == name)
    value = np.array([raw], features_type(feature.source))
    assert int(INT_FORMULAS[feature.how](np, value, feature)[0]) == encoded


@pytest.mark.parametrize(("stage", "encoded"), [(31, 31), (32, 32), (60, 32), (-1, 0)])
def test_worked_stages(stage: int, encoded: int) -> None:
    rows = game_rows(game_table(0), VIEWS["v22"], stage=stage)
    assert set(rows.ints[:, -1]) == {encoded}


def test_nearest_item_ties_go_to_the_lowest_slot() -> None:
    exists = np.zeros((15, 1), np.bool_)
    x, y = np.zeros((15, 1), np.float32), np.zeros((15, 1), np.float32)
    own = np.array([85.5656967], np.float32), np.array([-42.25], np.float32)
    for slot, (dx, dy) in {2: (-3, -4), 7: (3, 4)}.items():
        exists[slot], x[slot], y[slot] = True, own[0] + np.float32(dx), own[1] + np.float32(dy)
    dx, dy, count = nearest_item(np, exists, (x, y), own)
    assert float(np.float32(dx[0]) * np.float32(0.05)) == pytest.approx(-0.15)
    assert (dy[0], count[0]) == (-4, 2)


def test_formulas_give_the_same_bits_with_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    for feature in {f.name: f for of in VIEWS.values() for f in of.floats}.values():
        kind = features_type(feature.source)
        value = rng.integers(0, 256, 500).astype(kind)
        ours = np.asarray(FORMULAS[feature.how](np, value, feature)).astype(np.float32)
        other = FORMULAS[feature.how](torch, torch.from_numpy(value), feature)
        assert same_bits(ours, other.to(torch.float32).numpy()), feature.name
    for id_feature in VIEWS["v3"].ints:
        value = rng.integers(0, 256, 500).astype(features_type(id_feature.source))
        ours = INT_FORMULAS[id_feature.how](np, value, id_feature).astype(np.int16)
        other = INT_FORMULAS[id_feature.how](torch, torch.from_numpy(value), id_feature)
        assert same_bits(ours, other.to(torch.int16).numpy()), id_feature.name


def test_missing_leaves_are_stood_in_for_and_counted() -> None:
    old = next(g for g in range(N_GAMES) if golden()["game.version"][g] == "2.0.1")
    table = game_table(old)
    rows = game_rows(table, VIEWS["v22"])
    both = 2 * table.num_rows
    assert rows.missing == dict.fromkeys(
        ["speed_air_x", "speed_y", "speed_ground_x", "speed_attack_x", "speed_attack_y", "hitlag",
         "invulnerable", "hurtbox_state"], both)  # fmt: skip


def test_a_bare_first_version_gets_the_documented_stand_ins() -> None:
    player = pa.StructArray.from_arrays([pa.array([5.0, 6.0], pa.float32())], names=["percent"])
    table = pa.table({"frame": pa.array([0, 1], pa.int32()), "p0": player, "p1": player})
    of = VIEWS["v22"]
    rows = game_rows(table, of)
    at = {feature.name: i for i, feature in enumerate(of.floats)}
    assert rows.floats[0, at["shield"]] == np.float32(60) * np.float32(0.01)
    assert rows.floats[0, at["stocks"]] == 1.0
    assert rows.floats[0, at["on_ground"]] == 1.0
    assert rows.ints[0, [i.name for i in of.ints].index("ground")] == 0
    assert rows.missing["stage"] == 2
    assert rows.missing["x"] == 4


def test_a_null_in_what_every_version_records_makes_the_row_unusable() -> None:
    table = game_table(0)
    player = table.column("p1").chunk(0)
    cut = pa.StructArray.from_arrays(
        [player.field(i) for i in range(player.type.num_fields)],
        names=[f.name for f in player.type],
        mask=pa.array([False] * (table.num_rows - 1) + [True]),
    )
    at = table.column_names.index("p1")
    rows = game_rows(table.set_column(at, "p1", cut), VIEWS["v22-projectiles"])
    assert rows.usable[:-1].all()
    assert not rows.usable[-1]
    assert rows.missing["percent"] == 1


def test_nan_and_infinity_become_zero_and_are_counted() -> None:
    table = game_table(0)
    player = table.column("p0").chunk(0)
    values = {f.name: player.field(i) for i, f in enumerate(player.type)}
    percent = values["percent"].to_numpy().copy()
    percent[:3] = [np.nan, np.inf, 1.0]
    values["percent"] = pa.array(percent, pa.float32(), from_pandas=False)
    broken = pa.StructArray.from_arrays(list(values.values()), list(values))
    rows = game_rows(table.set_column(table.column_names.index("p0"), "p0", broken), VIEWS["v22"])
    assert rows.not_finite == {"percent": 2}
    assert rows.floats[:3, 0].tolist() == [0, 0, np.float32(0.01)]


def test_columns_are_leaves_of_game_files() -> None:
    known = set(leaves(FULL))
    for of in VIEWS.values():
        assert known.issuperset(of.columns)
    assert not VIEWS["v22"].uses_items


def test_reading_only_the_views_columns_gives_the_same_rows() -> None:
    for name, of in VIEWS.items():
        table = game_table(4)
        kept = {leaf.split(".")[0] for leaf in of.columns}
        rows = game_rows(table.select([c for c in table.column_names if c in kept]), of)
        assert same_bits(rows.floats, game_rows(table, of).floats), name


def test_hashes_follow_content_and_order() -> None:
    assert len({of.hash for of in VIEWS.values()}) == len(VIEWS)
    of = VIEWS["v22"]
    other = replace(of.floats[0], scale=0.02)
    assert View("x", of.floats, of.ints).hash == of.hash
    assert View("v22", (other, *of.floats[1:]), of.ints).hash != of.hash
    assert View("v22", of.floats[::-1], of.ints).hash != of.hash


def test_a_new_view_is_one_entry() -> None:
    small = View("small", features.VIEWS["v22"].floats[:4], features.VIEWS["v22"].ints[:1])
    rows = game_rows(game_table(0), small)
    assert rows.floats.shape[1] == 8
    assert rows.ints.shape[1] == 3
    assert small.n_float_target == 8


def test_unknown_views_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="v22-state-age"):
        view("v22-state-ag")


def test_stage_comes_from_the_footer_and_may_be_absent() -> None:
    table = game_table(0)
    assert stage_of(table) == golden()["game.stage"][0]
    assert stage_of(table.replace_schema_metadata(None)) is None
    assert stage_of(table.replace_schema_metadata({"meleewm": json.dumps({"start": {}})})) is None


def test_names_are_unique_in_a_view() -> None:
    for of in VIEWS.values():
        assert len({f.name for f in of.floats}) == len(of.floats)
        assert len({f.name for f in of.ints}) == len(of.ints)
