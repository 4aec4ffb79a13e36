"""The settings of a training run: one dataclass, one line each, and the name of the run they make.

Knows no torch and opens no shard, so that `meleewm train --help` stays light.
"""

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from schemas.errors import UsageError, nearest

Role = Literal["identity", "place", "pace"]
"""identity: decides the weights. place: where bytes come from and go to. pace: what is reported and
saved meanwhile. Only the first names the run: the private service of `--store` gets another port at
each start, and the same command must find its run again."""

DEFAULT_STEPS = 2000
"""About two minutes of the default model on two cores."""


def _setting(default: object, help: str, *, role: Role = "identity") -> Any:  # noqa: A002 - argparse's word
    return field(default=default, metadata={"help": help, "role": role})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run can be told. The defaults train a useful model on a two-core laptop."""

    query: str | None = _setting(None, "which games and sides, for example \"char='fox'\"")
    dataset: str | None = _setting(None, "a lock file: exactly these games")
    snapshot: int | None = _setting(None, "the query's snapshot of the store (default: newest)")
    recordings: str = _setting("one", "one | all recordings of a game that several people kept")
    limit: int | None = _setting(None, "at most so many games")
    url: str | None = _setting(None, "address of a service", role="place")
    shards: str | None = _setting(None, "a folder that `meleewm export` wrote", role="place")
    run_dir: str | None = _setting(None, "run folder (default: runs/MODEL-VIEW-HASH)", role="place")

    recipe: str = _setting("glide", "glide: start from constant velocity | original: as published")
    model: str = _setting("mlp", "mlp | mamba2-4m | mamba2-10m | mamba2-16m")
    view: str = _setting("v22-state-age", "features of a frame: v22 | v22-state-age | v3")
    context: int = _setting(10, "frames that the model sees before the one it predicts")
    steps: int | None = _setting(None, f"optimiser steps (default: {DEFAULT_STEPS})")
    epochs: int | None = _setting(None, "whole passes over the training windows, instead of steps")
    batch: int = _setting(512, "windows in a step")
    lr: float = _setting(2e-3, "learning rate at the end of the warm-up")
    warmup: float = _setting(0.05, "share of the steps over which the learning rate rises")
    weight_decay: float = _setting(0.01, "AdamW's decay of matrices; never of biases and SSM terms")
    clip: float = _setting(1.0, "largest norm of a step's gradient")
    seed: int = _setting(0, "seed of initial weights, window order and dropout")

    device: str = _setting("auto", "auto | cpu | cuda | cuda:N", role="place")
    threads: int = _setting(
        0, "CPU threads of torch (default: $OMP_NUM_THREADS, else all, at most 8)", role="place"
    )
    log_every: int = _setting(20, "steps between two lines of log.jsonl", role="pace")
    checkpoint_s: float = _setting(30.0, "seconds between two checkpoints", role="pace")
    keep: int = _setting(3, "checkpoints kept", role="pace")
    validations: int = _setting(5, "validations in a run, evenly spread, the last at its end",
                                role="pace")  # fmt: skip
    val_windows: int = _setting(4096, "windows in a validation but the last", role="pace")
    rollout_frames: int = _setting(240, "frames dreamed for the picture at the end", role="pace")

    def checked(self) -> "TrainConfig":
        """The same settings, after a look at each.

        Raises UsageError, QueryError or UnknownNameError that name what cannot be.
        """
        _check_source(self)
        from schemas.features import view  # pyarrow: not for --help

        view(self.view)
        for name in ("context", "batch", "log_every", "keep", "validations", "val_windows"):
            _at_least(self, name, 1)
        for name in ("weight_decay", "checkpoint_s", "rollout_frames", "threads"):
            _at_least(self, name, 0)
        for name in ("steps", "epochs", "limit"):
            if getattr(self, name) is not None:
                _at_least(self, name, 1)
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", "it must be above 0")
        if self.recipe not in ("glide", "original"):
            raise UsageError(f"recipe is '{self.recipe}'", "glide or original")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup is {self.warmup}", "a share of the steps, 0 to below 1")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs together", "give one of them")
        return self

    def identity(self) -> dict[str, object]:
        """What decides the weights: equal for two commands that mean the same run."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen = {n: v for n, v in named.items() if role_of(n) == "identity"}
        if self.query is not None:  # two spellings of one query are one run
            from schemas.query import canonical, parse

            chosen["query"] = canonical(parse(self.query))
        if self.dataset is not None:  # the lock's content counts, not where it lies
            chosen["dataset"] = hashlib.sha256(_read(self.dataset)).hexdigest()[:16]
        elif self.query is None and self.shards is not None:  # the games, not where they lie
            chosen["dataset"] = _dataset_of(Path(self.shards))
        if self.steps is None and self.epochs is None:
            chosen["steps"] = DEFAULT_STEPS
        return chosen

    @property
    def digest(self) -> str:
        """8 hex digits of the identity."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """The run folder: as told, else one that the same settings find again."""
        return Path(self.run_dir or f"runs/{self.model}-{self.view}-{self.digest}")

    def n_steps(self, n_windows: int) -> int:
        """Optimiser steps of the whole run over `n_windows` training windows."""
        if self.epochs is not None:
            return self.epochs * steps_per_epoch(n_windows, self.batch)
        return self.steps or DEFAULT_STEPS

    def to_dict(self) -> dict[str, object]:
        """All settings, as `from_dict` takes them."""
        return asdict(self)


def steps_per_epoch(n_windows: int, batch: int) -> int:
    """Batches that show every window once; the last one may be shorter."""
    return -(-n_windows // batch)


def role_of(name: str) -> Role:
    """Whether a setting decides the weights, a place, or the pace of reports."""
    role: Role = _FIELDS[name].metadata["role"]
    return role


def from_dict(values: Mapping[str, object]) -> TrainConfig:
    """Settings from a dict or a run's config.json.

    Raises UsageError for an unknown key, with the nearest one, and for a value of another type.
    """
    for name, value in values.items():
        if name not in _FIELDS:
            raise UsageError(f"unknown setting '{name}'", nearest(name, _FIELDS))
        _check_type(name, value)
    return TrainConfig(**values).checked()  # type: ignore[arg-type]  # checked just above


def from_file(path: Path, **changes: object) -> TrainConfig:
    """Settings from a JSON file, for example another run's config.json, with changes over it."""
    try:
        values = json.loads(_read(str(path)))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON", str(error)) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no settings", "a JSON object is expected")
    return from_dict({**values, **changes})


def differences(old: Mapping[str, object], new: TrainConfig) -> list[str]:
    """`lr 0.001 -> 0.01` for each setting in which a run's stored identity differs from `new`."""
    wanted = new.identity()
    return [
        f"{name} {old.get(name)!r} -> {wanted.get(name)!r}"
        for name in sorted(wanted.keys() | old.keys())
        if old.get(name) != wanted.get(name)
    ]


_FIELDS = {f.name: f for f in fields(TrainConfig)}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or "") from error


def _dataset_of(shards: Path) -> str:
    from schemas.shard import Manifest

    return Manifest.from_json(_read(str(shards / "manifest.json"))).dataset_id


def _check_source(config: TrainConfig) -> None:
    if config.query is not None and config.dataset is not None:
        raise UsageError("query and dataset together", "a lock file names its games already")
    if config.query is None and config.dataset is None and config.shards is None:
        raise UsageError("no games chosen", "give --query \"char='fox'\" or --dataset x.lock")
    for name, default in (("snapshot", None), ("limit", None), ("recordings", "one")):
        if getattr(config, name) != default and (config.dataset or config.shards):
            source = "dataset" if config.dataset else "shards"
            raise UsageError(f"{name} and {source} together", f"{source} names its games already")
    if config.query is not None:
        from schemas.query import parse

        parse(config.query)
    if config.url is not None and config.shards is not None:
        raise UsageError("url and shards together", "give one of them")
    if config.recordings not in ("one", "all"):
        raise UsageError(f"recordings is '{config.recordings}'", "one or all")


def _at_least(config: TrainConfig, name: str, least: int) -> None:
    if getattr(config, name) < least:
        raise UsageError(f"{name} is {getattr(config, name)}", f"it must be at least {least}")


def _check_type(name: str, value: object) -> None:
    kind = _FIELDS[name].type
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in kinds and type(value) is int:
        return
    if type(value) not in kinds:  # not isinstance: True is no number of steps
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UsageError(f"{name} is {value!r}", f"{names} is expected")
