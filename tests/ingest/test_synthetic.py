"""Synthetic replays: peppi reads them, and every simulated value comes back exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from peppi_py._peppi import read_slippi

from ingest.synthetic import Side, SyntheticGame, make_game
from schemas import columns
from tests.strategies import GROWTH, peppi_reads

PEPPI_VERSIONS = [v for v in GROWTH if peppi_reads(v)]


def read(folder: Path, game: SyntheticGame) -> Any:
    path = folder / "game.slp"
    path.write_bytes(game.slp)
    return read_slippi(str(path))


def leaf(array: pa.StructArray, path: str) -> pa.Array:
    for name in path.split("."):
        array = array.field(name)
    return array


def assert_same(found: pa.Array, expected: np.ndarray[Any, Any], what: str) -> None:
    assert found.null_count == 0, what
    np.testing.assert_array_equal(found.to_numpy(zero_copy_only=False), expected, what, strict=True)


def assert_columns(
    found: pa.StructArray, expected: Mapping[str, Any], group: tuple[columns.Column, ...]
) -> None:
    for column in group:
        if column.name in expected:
            assert_same(leaf(found, column.source), expected[column.name], column.name)


def assert_side(frames: pa.StructArray, side: Side, who: str, shown: Any) -> None:
    found = frames.field("ports").field(f"P{side.port + 1}").field(who)
    present = side.present[shown]
    assert found.is_valid().to_numpy(zero_copy_only=False).tolist() == present.tolist()
    kept = found.filter(pa.array(present))
    expected = {name: values[shown][present] for name, values in side.columns.items()}
    assert_columns(kept, expected, columns.PLAYER)


def assert_items(frames: pa.StructArray, game: SyntheticGame) -> None:
    truth = game.truth
    lists = frames.field("item")
    for column in columns.ITEM:
        if column.name not in truth.items:
            continue
        values = leaf(lists.values, column.source.removeprefix("item.")).to_numpy()
        starts = lists.offsets.to_numpy()
        for row, at in zip(game.last_rows, range(truth.n_frames), strict=True):
            expected = truth.items[column.name][truth.item_row == at]
            found = values[starts[row] : starts[row + 1]]
            np.testing.assert_array_equal(found, expected, f"{column.name} {at}", strict=True)


@pytest.mark.parametrize("version", PEPPI_VERSIONS, ids=str)
def test_values_come_back(tmp_path: Path, version: tuple[int, int]) -> None:
    game = make_game(1, version=version, chars=("ice_climbers", "fox"), n_frames=1200)
    frames = read(tmp_path, game).frames
    assert len(frames) == game.truth.n_frames
    assert_columns(frames, game.truth.frame, columns.FRAME)
    for follower, side in game.truth.characters:
        assert_side(frames, side, ("leader", "follower")[follower], slice(None))
    if version >= (3, 0):
        assert_items(frames, game)
