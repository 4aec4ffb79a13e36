"""A store made by the commands themselves, and a way to run a command as a user does."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


def run(
    *words: object, cwd: Path | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """`meleewm WORDS` in a process of its own; never raises."""
    command = [sys.executable, "-m", "meleewm", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd or ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def done(*words: object) -> str:
    """Stdout of a command that must end with 0."""
    result = run(*words)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def replay_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten simulated games."""
    out = tmp_path_factory.mktemp("synth")
    done("synth", "--games", 10, "--out", out, "--seed", 5)
    return out


@pytest.fixture(scope="session")
def store(replay_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The games of `replay_folder`, ingested."""
    out = tmp_path_factory.mktemp("cli") / "store"
    done("ingest", replay_folder, "--store", out, "--workers", 2)
    return out
