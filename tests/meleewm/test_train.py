"""Training by the command: killed and started again, and judged on real replays."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.meleewm.conftest import ROOT, done, run

pytestmark = pytest.mark.slow
QUERY = "n_frames > 0"


def train_command(store: Path, run_dir: Path, steps: int) -> list[str]:
    words = ["train", "--query", QUERY, "--store", store, "--run-dir", run_dir, "--steps", steps]
    words += ["--model", "mlp-tiny", "--batch", 64, "--checkpoint-s", 0, "--val-windows", 256]
    words += ["--rollout-frames", 30, "--validations", 1]
    return [sys.executable, "-m", "meleewm", *map(str, words)]


def wait_for_checkpoint(run_dir: Path, child: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not (run_dir / "last").exists():
        assert child.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() - began < 120
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_killed_run_goes_on_though_the_store_has_grown(store: Path, tmp_path: Path) -> None:
    mine, run_dir = tmp_path / "store", tmp_path / "run"
    shutil.copytree(store, mine)
    command = train_command(mine, run_dir, steps=400)
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
    wait_for_checkpoint(run_dir, child)
    services = children_of(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = json.loads((run_dir / "dataset.lock").read_text())["dataset_id"]

    done("synth", "--games", 3, "--out", tmp_path / "more", "--seed", 77)
    done("ingest", tmp_path / "more", "--store", mine, "--workers", 1)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert json.loads((run_dir / "dataset.lock").read_text())["dataset_id"] == before
    steps = [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "the log goes on from the checkpoint, without a step twice"
    assert json.loads((run_dir / "result.json").read_text())["step"] == 400
    assert not any(map(is_running, services)), "a killed run leaves its service behind"


def test_finished_run_says_so_and_another_configuration_is_refused(
    store: Path, tmp_path: Path
) -> None:
    command = train_command(store, tmp_path / "run", steps=5)
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0
    assert "finished" in second.stderr
    other = subprocess.run([*command, "--lr", "0.5"], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 2
    assert "lr" in other.stderr.splitlines()[-1]


def test_sigterm_saves_and_exits_143(store: Path, tmp_path: Path) -> None:
    command = train_command(store, tmp_path / "run", steps=100_000)
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(tmp_path / "run", child)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 143, said
    assert "saved" in said


@pytest.mark.replays
def test_fox_on_real_replays_beats_persistence(replays: Path, tmp_path: Path) -> None:
    """Issue: validation position MAE at most 0.9 times persistence; baselines stand beside it."""
    store, run_dir = tmp_path / "store", tmp_path / "run"
    done("ingest", replays, "--store", store, "--workers", 2)
    words = ["--query", "char='fox'", "--store", store, "--run-dir", run_dir, "--steps", 120]
    words += ["--validations", 1, "--val-windows", 1024, "--rollout-frames", 30]
    result = run("train", *words, timeout_s=280)
    assert result.returncode == 0, result.stderr
    found = json.loads((run_dir / "result.json").read_text())
    validation = found["validation"]
    assert validation["n_windows"] > 1000
    ours, stays = validation["model"]["position_mae"], validation["persistence"]["position_mae"]
    assert ours <= 0.9 * stays
    report = (run_dir / "report.txt").read_text()
    for words_ in ("validation", "train", "persistence", "const. velocity", "state table"):
        assert words_ in report


def test_url_comes_from_the_environment(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "meleewm", "train", "--query", QUERY]
    command += ["--run-dir", str(tmp_path / "run")]
    environment = {**os.environ, "MELEEWM_URL": "http://127.0.0.1:9"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()[-1:]
    assert line.startswith("error: ")
    assert "127.0.0.1:9" in line
