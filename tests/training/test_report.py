"""What a run leaves to look at, and its words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.scenes import make_scene
from training.report import count, duration, picture, table, write_rollout


@pytest.mark.parametrize("stage_id", [2, 14])
def test_the_picture_is_a_png_of_a_legible_size(stage_id: int) -> None:
    content = picture(make_scene(stage_id))
    assert content.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 1200 < width < 2000
    assert 500 < height < 1600


def test_a_short_scene_without_curves_is_drawn_too() -> None:
    assert picture(replace(make_scene(n_frames=5), curves=())).startswith(b"\x89PNG")


def test_three_files_are_written(tmp_path: Path) -> None:
    paths = write_rollout(tmp_path, make_scene())
    assert {path.name for path in paths.values()} == {path.name for path in tmp_path.iterdir()}
    assert len(json.loads((tmp_path / "rollout.json").read_text())["frames"]) == 120


def test_tables_align() -> None:
    text = table(["", "val", "train"], [["position MAE", 0.25, 0.125], ["change_acc", None, 3]])
    assert text.splitlines() == [
        "                val  train",
        "position MAE  0.250  0.125",
        "change_acc        -      3",
    ]


def test_numbers_are_said_as_people_say_them() -> None:
    assert [count(n) for n in (812, 9_999, 12_345, 1_433_602, 2.5e9)] == [
        "812", "9,999", "12.3 k", "1.43 M", "2.5 G",
    ]  # fmt: skip
    assert [duration(s) for s in (95, 720, 12_240)] == ["95 s", "12 min", "3.4 h"]
