"""The Modal apps without an account: they import, and `.local()` runs the true bodies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.synthetic import write_games
from schemas.errors import UsageError
from tests.training.exports import QUERY, add_games, exported


def run(code: str, *arguments: str) -> str:
    """Standard output of a fresh Python; its warnings do not matter, its errors do."""
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_both_apps_import_without_an_account() -> None:
    run("import training.modal_app, ingest.modal_app")


LOCAL = """
import json, sys
from training.modal_app import train_run
print(json.dumps(train_run.local(json.loads(sys.argv[1]))))
"""


@pytest.mark.slow
def test_the_training_body_runs_here(tmp_path: Path) -> None:
    shards = exported(add_games(tmp_path / "store", range(3), 200), tmp_path / "shards")
    settings = {"query": QUERY, "shards": str(shards), "run_dir": str(tmp_path / "run"),
                "model": "mlp-tiny", "steps": 3, "batch": 32, "rollout_frames": 30, "threads": 1,
                "device": "cpu"}  # fmt: skip
    *said, last = run(LOCAL, json.dumps(settings)).splitlines()
    assert json.loads(last)["step"] == 3
    assert any("3 steps" in line for line in said)
    assert (tmp_path / "run" / "result.json").exists()


INGEST = """
import json, sys
from ingest.modal_app import ingest_paths
print(json.dumps(ingest_paths.local([sys.argv[1]], sys.argv[2], 1)))
"""


@pytest.mark.slow
def test_the_ingesting_body_runs_here(tmp_path: Path) -> None:
    write_games(tmp_path / "replays", 2, seed=5)
    told = json.loads(run(INGEST, str(tmp_path / "replays"), str(tmp_path / "store")))
    assert (told["files"], told["stored"]) == (2, 2)


def test_gpu_names_are_checked_before_modal_is_asked() -> None:
    from training.modal_app import checked_gpu

    assert [checked_gpu(name) for name in ("H100", "A100-80GB:2")] == ["H100", "A100-80GB:2"]
    for wrong in ("H1000", "H100:9", ""):
        with pytest.raises(UsageError, match="Modal has no GPU"):
            checked_gpu(wrong)
