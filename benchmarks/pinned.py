"""Timed runs in processes of their own on given cores: a bare peppi loop, and a whole ingest.

`python -m benchmarks.pinned` is such a process: on stdin come its job and the word to begin.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peppi_py._peppi as peppi


@dataclass(frozen=True)
class Run:
    """What a run took: seconds of CPU (all its processes) and of the clock, from its first call to
    its last. no_start: less an ingest of the smallest replay into a new store just before, that is
    worker start, catalog and one commit; imports of the parent are in none. Peaks of all processes
    added up."""

    cpu: float
    wall: float
    cpu_no_start: float
    wall_no_start: float
    peak_mb: float


def bare(paths: list[Path], cores: int) -> Run:
    """As many bare peppi loops as cores, each over its share of the files."""
    parts = _run([("bare", [n], [str(p) for p in paths[n::cores]]) for n in range(cores)])
    cpu = sum(part["cpu"] for part in parts)
    wall = max(part["end"] for part in parts) - min(part["begin"] for part in parts)
    return Run(cpu, wall, cpu, wall, sum(part["peak_mb"] for part in parts))


def full(paths: list[Path], store: Path, workers: int, first: Path | None = None) -> Run:
    """`ingest.workers.ingest` into a new store, on as many cores as workers, parent included.

    first: the replay that start-up is measured with (default: the smallest of the paths).
    """
    first = first or min(paths, key=lambda path: path.stat().st_size)
    (part,) = _run([("full", list(range(workers)), [str(store), str(first), *map(str, paths)])])
    cpu, wall = part["cpu"], part["end"] - part["begin"]
    start = part["start"]
    less = cpu - start["cpu"], wall - (start["end"] - start["begin"])
    return Run(cpu, wall, *less, part["peak_mb"])


def unpacked(archive: Path, cores: int) -> Run:
    """py7zr alone over a .7z, members dropped as they come, allowed so many cores."""
    (part,) = _run([("unpack", list(range(cores)), [str(archive)])])
    cpu, wall = part["cpu"], part["end"] - part["begin"]
    return Run(cpu, wall, cpu, wall, part["peak_mb"])


def readable(path: Path) -> bool:
    """Whether bare peppi reads a file."""
    # peppi's panics print a stack from Rust, past Python's sys.stderr.
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        peppi.read_slippi(str(path))
    except (OSError, BaseException) as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return False
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return True


def _run(jobs: list[tuple[str, list[int], list[str]]]) -> list[dict[str, Any]]:
    """Start all, let all begin at once when each is ready, and gather what they say."""
    command = [sys.executable, "-m", "benchmarks.pinned"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in jobs
    ]
    for process, job in zip(processes, jobs, strict=True):
        _say(process, json.dumps(job))
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"a timed run ended with exit status {process.wait()}")
    for process in processes:
        _say(process, "go")
    return [json.loads(process.communicate()[0]) for process in processes]


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


# --- inside ---------------------------------------------------------------------------------------


def _child() -> None:
    kind, cores, arguments = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):
        present = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {present[core % len(present)] for core in cores})
    said = {"bare": _bare, "full": _full, "unpack": _unpack}[kind](arguments)
    print(json.dumps(said))


def _bare(paths: list[str]) -> dict[str, Any]:
    _wait()

    def loop() -> None:
        for path in paths:
            peppi.read_slippi(path)

    return _timed(loop) | {"peak_mb": _peak_mb(resource.RUSAGE_SELF)}


def _unpack(arguments: list[str]) -> dict[str, Any]:
    from py7zr import SevenZipFile  # not in the bare loop's process
    from py7zr.io import NullIOFactory

    _wait()

    def work() -> None:
        with Path(arguments[0]).open("rb") as file, SevenZipFile(file) as archive:
            archive.extractall(factory=NullIOFactory())  # type: ignore[no-untyped-call]

    return _timed(work) | {"peak_mb": _peak_mb(resource.RUSAGE_SELF)}


def _full(arguments: list[str]) -> dict[str, Any]:
    from ingest.workers import ingest  # not in the bare loop's process

    store, first, *paths = arguments
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    found = [Path(path) for path in paths]
    smallest = Path(first)
    ingest([smallest], Path(f"{store}-first"), workers=workers)  # imports, and DuckDB's own
    _wait()
    start = _timed(lambda: ingest([smallest], Path(f"{store}-start"), workers=workers))
    whole = _timed(lambda: ingest(found, Path(store), workers=workers))
    peak = _peak_mb(resource.RUSAGE_SELF) + workers * _peak_mb(resource.RUSAGE_CHILDREN)
    return whole | {"start": start, "peak_mb": peak}


def _wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _timed(work: Any) -> dict[str, float]:
    before, begin = _cpu(), time.monotonic()
    work()
    return {"begin": begin, "end": time.monotonic(), "cpu": _cpu() - before}


def _cpu() -> float:
    """CPU of this process and of its children that have ended."""
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, of))


def _peak_mb(who: int) -> float:
    """Most memory of this process, or of the largest of its children."""
    status = Path("/proc/self/status")
    if who == resource.RUSAGE_SELF and status.exists():
        # the kernel counts in ru_maxrss what the starting process had before this one's exec
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1024 if sys.platform == "linux" else 1  # elsewhere bytes
    return resource.getrusage(who).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    _child()
