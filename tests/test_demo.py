"""`make demo`, small: every step runs, and what it shows is a dream and not a copy."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo of twelve simulated games and 150 steps."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "meleewm.demo", "--no-replays", "--out", str(out)]
    done = subprocess.run(
        [*command, "--games", "12", "--steps", "150"],
        cwd=ROOT,
        env={**os.environ, "MPLCONFIGDIR": str(out)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "Look at" in done.stderr
    assert "rollout.html" in done.stderr
    return out


@pytest.fixture(scope="module")
def rollout(demo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo / "run" / "rollout.json").read_text())
    return found


def positions(take: dict[str, Any], side: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([take[side]["x"], take[side]["y"]], dtype=float)


@pytest.mark.slow
def test_rollout_is_long_enough_and_of_a_validation_game(rollout: dict[str, Any]) -> None:
    assert len(rollout["frames"]) >= 120
    assert "validation" in rollout["facts"]["game"]
    for take in ("truth", "dream"):
        for side in ("p0", "p1"):
            assert positions(rollout[take], side).shape == (2, len(rollout["frames"]))
            assert np.isfinite(positions(rollout[take], side)).all()


@pytest.mark.slow
def test_dream_is_neither_truth_nor_persistence_nor_one_side_twice(rollout: dict[str, Any]) -> None:
    dream = {side: positions(rollout["dream"], side) for side in ("p0", "p1")}
    for side, path in dream.items():
        assert np.abs(path - positions(rollout["truth"], side)).max() > 0.01
        assert np.abs(path - path[:, :1]).max() > 0.01, "the dream stands still"
    assert np.abs(dream["p0"] - dream["p1"]).max() > 0.01


@pytest.mark.slow
def test_picture_and_page_are_whole(demo: Path) -> None:
    run = demo / "run"
    assert (run / "rollout.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "rollout.html").read_text("utf-8")
    for outside in ("http://", "https://", "src=", "@import"):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")
