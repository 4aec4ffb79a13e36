"""Fixtures that give real things: real replays where they are, a store, a running service."""

import os
import subprocess
from pathlib import Path

import pytest

# Two test processes on two cores: torch with a thread a core would spend its time at barriers.
# Before anything imports torch; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def require(present: bool, reason: str) -> None:
    """Skip where something optional is missing; in CI a missing thing is a failure."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have this: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def replays() -> Path:
    """Folder of the real replays, unpacked once into .cache/replays."""
    if folder := os.environ.get("REPLAYS"):
        return Path(folder)
    unpack = SHARED / "replays" / "unpack"
    missing = "no real replays: ../shared/replays is missing and REPLAYS is not set"
    if not SHARED.exists():
        pytest.skip(missing)
    require(unpack.exists(), missing)
    out = ROOT / ".cache" / "replays"
    subprocess.run(["python3", str(unpack), str(out)], check=True, capture_output=True)
    return out
