"""What a figure was measured on, and how it is printed."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from ingest.synthetic import write_games

UNPACKED = Path(__file__).parent.parent / ".cache" / "replays"


def header(*packages: str) -> None:
    """Machine and versions, above the figures."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in packages))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process for one call: other load on the machine counts less in it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def row(
    name: str, value: str, baseline: str = "", ratio: float | None = None, digits: int = 2
) -> None:
    """One figure: its value, the baseline of the same run, and the ratio of the two."""
    print(
        f"{name:<46} {value:>18} {baseline:>18} {'' if ratio is None else f'{ratio:8.{digits}f}'}"
    )


def median(values: Sequence[float]) -> float:
    """Middle value."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def replays(folder: Path | None, scratch: Path) -> Path:
    """The replays to measure on: those given, else the unpacked real ones, else simulated ones."""
    if folder is not None:
        return folder
    if UNPACKED.is_dir():
        return UNPACKED
    write_games(scratch / "replays", 40, seed=1)
    return scratch / "replays"
