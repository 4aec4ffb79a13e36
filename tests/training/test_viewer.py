"""The page and the JSON of a scene: complete, self-contained, and alive in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.stages import STAGES
from tests.conftest import require
from tests.training.scenes import make_scene
from training.viewer import document, page


def test_the_document_holds_both_sides_of_all_takes() -> None:
    scene = make_scene(n_frames=120)
    told = json.loads(json.dumps(document(scene), allow_nan=False))
    assert told["stage"] == "battlefield"
    assert told["characters"] == ["fox", "falco"]
    assert told["frames"] == list(range(300, 420))
    for take in scene.takes:
        for side, track in enumerate(take.sides):
            assert len(told[take.name][f"p{side}"]["x"]) == 120
            np.testing.assert_allclose(told[take.name][f"p{side}"]["y"], track.y, atol=5e-4)
    assert list(told["errors"]) == ["dream", "persistence"]


def test_numbers_that_are_not_finite_become_null() -> None:
    scene = make_scene()
    scene.takes[1].sides[0].x[3] = np.nan
    told = document(scene)
    assert told["dream"]["p0"]["x"][3] is None  # type: ignore[index]
    assert "NaN" not in page(scene)


def test_the_page_asks_for_nothing_and_holds_no_way_out_of_its_data() -> None:
    hostile = replace(make_scene(), facts={"view": "</script><script>alert(1)</script>"})
    text = page(hostile)
    assert text.count("</script>") == 2
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=|https?:|url\(|@import|fetch\(", text)


@pytest.mark.parametrize("stage_id", [*STAGES, 14])
def test_the_view_holds_all_that_moves(stage_id: int) -> None:
    scene = make_scene(stage_id)
    left, right, bottom, top = scene.view_box()
    for take in scene.takes:
        for track in take.sides:
            assert left < track.x.min() < track.x.max() < right
            assert bottom < track.y.min() < track.y.max() < top


def test_a_dream_that_flies_off_widens_the_view_by_little() -> None:
    scene = make_scene(31)
    scene.takes[1].sides[1].x[:] -= 500
    scene.takes[1].sides[1].y[:] += 500
    calm, wild = make_scene(31).view_box(), scene.view_box()
    changes = [w - c for w, c in zip(wild, calm, strict=True)]
    assert changes == pytest.approx([-30, 0, 0, 30], abs=2)


@pytest.mark.slow
def test_a_browser_draws_the_frame_that_the_address_names(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    require(browser is not None, "chromium (apt-get install chromium)")
    (tmp_path / "page.html").write_text(page(make_scene()))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    told = subprocess.run(
        [str(browser), *flags, "--dump-dom", f"file://{tmp_path}/page.html#frame=335"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert 'data-frame="335"' in told
    assert "data-error" not in told
    assert "Fox against Falco on Battlefield" in told
    assert "12%" in told  # the HUD of row 35: 35 / 3 percent
    assert "damage fly n" in told
