"""A run's folder: its settings, its lock, its log and its checkpoints, safe against a kill.

    RUN/config.json      settings          RUN/log.jsonl     one line a log step
    RUN/dataset.lock     the very games    RUN/result.json   the last validation, once done
    RUN/env.json         each start        RUN/run.lock      held while a process writes here
    RUN/ckpt/step-N/     model.safetensors optimizer.safetensors state.json
    RUN/last             name of the newest complete checkpoint

A checkpoint becomes visible by one rename, after its bytes are on the disk; state.json holds the
size and SHA-256 of its neighbours, so that a damaged one is passed over for the one before.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from schemas.errors import NotFoundError, RunMismatchError, TrainingError, UsageError
from schemas.shard import Lock
from training.config import TrainConfig, differences, from_file

STATE_FORMAT = 1
THREADS_MAX = 8
"""More threads than this lose time on models of this size."""
HEARTBEAT_S = 120.0
"""A lock written from another machine counts as held for so long after its last sign of life."""
_TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")
_PACKAGES = ("meleewm", "torch", "numpy", "pyarrow", "safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a run: everything that the next step depends on.

    step: optimiser steps done. state: JSON values beside it (data position, view hash, ...).
    """

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Run:
    """An open run folder; made by `open_run` (to write) or `read_run` (to look)."""

    def __init__(self, path: Path, config: TrainConfig, lock: IO[str] | None) -> None:
        self.path = path
        self.config = config
        self.warnings: list[str] = []
        self._lock = lock

    @property
    def dataset_lock(self) -> Path:
        """The lock of the games that the run was begun with; a resume reads exactly these."""
        return self.path / "dataset.lock"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint so that a kill at any moment leaves the one before or this one.

        Raises TrainingError where the disk refuses; what was there stays.
        """
        target = self.path / "ckpt" / f"step-{checkpoint.step}"
        temporary = target.with_name(f".tmp-{target.name}")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_checkpoint(temporary, checkpoint)
            shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
            temporary.rename(target)
            _sync_folder(target.parent)
            write_atomic(self.path / "last", f"{target.name}\n".encode())
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise TrainingError(f"cannot write {target}", error.strerror or str(error)) from error
        saved = _checkpoints(self.path)
        # A later one is damaged, or the run would have gone on from it; it must not count as kept.
        later = [folder for folder in saved if int(folder.name[5:]) > checkpoint.step]
        for old in (*later, *saved[len(later) + self.config.keep :]):
            shutil.rmtree(old, ignore_errors=True)
        return target

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint, None before the first; damaged ones are warned of."""
        for folder in _checkpoints(self.path):
            try:
                return _read_checkpoint(folder)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self.warnings.append(f"{folder} is damaged and left aside: {error}")
        return None

    def log(self, **record: object) -> None:
        """Append one line to log.jsonl, and show that the run is alive."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._lock is not None:
            os.utime(self._lock.fileno())

    def rewind_log(self, step: int) -> None:
        """Drop the lines that a killed process wrote after its last checkpoint at `step`."""
        kept = [line for line in self.records() if int(line.get("step", 0)) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(self.path / "log.jsonl", text.encode())

    def records(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; one that a kill cut short is left out."""
        path = self.path / "log.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [record for line in lines if (record := _parsed(line)) is not None]

    def write_json(self, name: str, value: object) -> Path:
        """Write one JSON document of the run, at once or not at all."""
        path = self.path / name
        write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())
        return path

    def read_json(self, name: str) -> Any | None:
        """One JSON document of the run, None where it is missing or cut."""
        path = self.path / name
        return _parsed(path.read_text("utf-8")) if path.exists() else None


@contextmanager
def open_run(config: TrainConfig) -> Iterator[Run]:
    """Make the run folder of these settings, or open it again; held by one process at a time.

    Raises RunMismatchError if it belongs to other settings (with the differing keys), UsageError
    if another process writes there or if it holds something else.
    """
    path = config.folder
    if path.exists() and not (path / "config.json").exists() and _foreign(path):
        raise UsageError(f"{path} is no run folder and not empty", "give another --run-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "run.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}", error.strerror or "") from error
    with lock:
        _hold(path, lock)
        try:
            yield _settle(Run(path, config, lock))
        finally:
            _replace_text(lock, "")


def read_run(path: Path) -> Run:
    """Open a run folder to look at it; NotFoundError where there is none."""
    if not (path / "config.json").exists():
        raise NotFoundError(f"{path} is no run folder", "it has no config.json")
    return Run(path, from_file(path / "config.json", run_dir=str(path)), None)


def environment(config: TrainConfig) -> dict[str, object]:
    """What a start ran on: versions, machine, git revision where there is one."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": config.threads,
        "device": config.device,
        "url": config.url,
        "git": _git_revision(),
        **{name: _version(name) for name in _PACKAGES},
    }


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a kill, sees the old or the new one, never a part."""
    temporary = path.with_name(f".tmp-{path.name}")
    _write_synced(temporary, content)
    temporary.replace(path)
    _sync_folder(path.parent)


def _write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    contents = {
        "model.safetensors": safetensors.torch.save(dict(checkpoint.model)),
        "optimizer.safetensors": safetensors.torch.save(dict(checkpoint.optimizer)),
    }
    for name, content in contents.items():
        _write_synced(folder / name, content)
    state = {
        **checkpoint.state,
        "format": STATE_FORMAT,
        "step": checkpoint.step,
        "files": {name: _fingerprint(content) for name, content in contents.items()},
    }
    _write_synced(folder / "state.json", (json.dumps(state, indent=1) + "\n").encode())
    _sync_folder(folder)


def _read_checkpoint(folder: Path) -> Checkpoint:
    state = json.loads((folder / "state.json").read_bytes())
    found = state.get("format") if isinstance(state, dict) else None
    if found != STATE_FORMAT:
        raise ValueError(f"state.json has format {found}, not {STATE_FORMAT}")
    contents = {name: (folder / name).read_bytes() for name in _TENSOR_FILES}
    for name, content in contents.items():
        if _fingerprint(content) != state["files"][name]:
            raise ValueError(f"{name} is not what state.json says")
    model, optimizer = (safetensors.torch.load(contents[name]) for name in _TENSOR_FILES)
    return Checkpoint(int(state["step"]), model, optimizer, state)


def _fingerprint(content: bytes) -> dict[str, object]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _checkpoints(path: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [p for p in (path / "ckpt").glob("step-*") if p.name[5:].isdecimal()]
    return sorted(found, key=lambda p: int(p.name[5:]), reverse=True)


def threads_here() -> int:
    """CPU threads for a new run: $OMP_NUM_THREADS where it is set, else one a core, at most 8."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else min(os.cpu_count() or 1, THREADS_MAX)


def _settle(run: Run) -> Run:
    """Bind the folder to its settings at the first start, compare them at a later one."""
    config = run.config
    stored = from_file(run.path / "config.json") if (run.path / "config.json").exists() else None
    if stored is not None:
        _refuse_other(run, stored)
    if config.dataset is not None:
        write_atomic(run.dataset_lock, Path(config.dataset).read_bytes())
    # Sums over threads round differently: a resume keeps the number that the run began with.
    began_with = stored.threads if stored else threads_here()
    run.config = replace(config, threads=config.threads or began_with)
    if run.config.threads != began_with and stored is not None:
        run.warnings.append(
            f"{run.config.threads} threads instead of {began_with}: the weights will differ in "
            "their last bits from those of an unbroken run"
        )
    # The address is of this start, not of the run: a private service's port is dead at the next.
    run.write_json("config.json", run.config.to_dict() | {"url": None})
    starts = run.read_json("env.json") or []
    run.write_json("env.json", [*starts, environment(run.config)])
    return run


def _refuse_other(run: Run, stored: TrainConfig) -> None:
    if stored.dataset is not None:  # the copy in the folder: the file given then may have changed
        stored = replace(stored, dataset=str(run.dataset_lock))
    if stored.dataset is None and stored.query is None:  # the folder of then may be gone
        stored = replace(stored, shards=run.config.shards)
    old = stored.identity()
    if stored.dataset is None and stored.query is None and run.dataset_lock.exists():
        old["dataset"] = Lock.from_json(run.dataset_lock.read_bytes()).dataset_id
    if changed := differences(old, run.config):
        raise RunMismatchError(
            f"{run.path} belongs to another run: {', '.join(changed)}", "give another --run-dir"
        )


def _hold(path: Path, lock: IO[str]) -> None:
    """Take the folder's lock; the kernel frees it when its process dies, however it dies."""
    lock.seek(0)
    holder = _parsed(lock.read()) or {}
    age = time.time() - os.fstat(lock.fileno()).st_mtime
    foreign = holder.get("host") not in (None, socket.gethostname()) and age < HEARTBEAT_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        foreign = True
    if foreign:
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        raise UsageError(f"{who} is writing {path}", "wait for it, stop it, or use another folder")
    _replace_text(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))


def _replace_text(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _foreign(path: Path) -> bool:
    ours = {"run.lock", "dataset.lock", ".tmp-config.json", ".tmp-dataset.lock"}
    return any(entry.name not in ours for entry in path.iterdir())


def _parsed(text: str) -> Any | None:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # an installed wheel, or no git


def _git_revision() -> str | None:
    revision = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no") if revision else None
    return f"{revision} with changes" if changed else revision
