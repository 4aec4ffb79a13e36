"""Stage geometry: complete for the tournament stages, and consistent with itself."""

import pytest

from schemas.names import STAGES as STAGE_NAMES
from schemas.names import TOURNAMENT_STAGES
from schemas.stages import STAGES, Stage, stage_geometry


def test_every_tournament_stage_is_there_under_its_name() -> None:
    assert sorted(STAGES) == sorted(TOURNAMENT_STAGES)
    assert all(stage.name == STAGE_NAMES[number] for number, stage in STAGES.items())
    assert stage_geometry(14) is None


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_ground_lies_inside_the_blast_zones(stage: Stage) -> None:
    left, right, top, bottom = stage.blast
    for x, y in (*stage.floor, *stage.body):
        assert left < x < right
        assert bottom < y < top
    for platform in stage.platforms:
        assert -stage.edge * 1.1 < platform.left < platform.right < stage.edge * 1.1
        assert 0 < platform.y < top
    assert stage.floor[0][0] == -stage.edge


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_floors_run_from_left_to_right(stage: Stage) -> None:
    xs = [x for x, _ in stage.floor]
    assert xs == sorted(xs)
