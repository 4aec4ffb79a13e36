"""The verb that trains. Its flags are the fields of TrainConfig; it finds the shards' source."""

import argparse
import dataclasses
import os
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meleewm import console
from meleewm.options import Verbs, add_verb
from meleewm.serve import child_service
from schemas.errors import UsageError
from training.config import TrainConfig, from_dict, from_file

METAVARS = {"dataset": "FILE", "shards": "DIR", "run_dir": "DIR", "checkpoint_s": "SECONDS"}


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    parser = add_verb(
        verbs, shared, "train",
        help="train a world model on a query; the same command goes on where it stopped",
        example="meleewm train --query \"char='fox'\" --store melee --steps 2000",
        run=run_train,
    )  # fmt: skip
    add_store_option(parser)
    parser.add_argument(
        "--config", metavar="FILE", type=Path,
        help="settings from a JSON file (a run's own config.json); flags given here win",
    )  # fmt: skip
    for field in dataclasses.fields(TrainConfig):
        text = field.metadata["help"]
        if field.default is not None and "(default" not in text:
            text += f" (default: {field.default})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            metavar=METAVARS.get(field.name, field.name.rpartition("_")[2].upper()),
            type=_plain_type(field.type),
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
        )


def _plain_type(kind: Any) -> Any:
    """`int` for `int | None`: what argparse makes of the text."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next(k for k in kinds if k is not type(None))


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """`--store` of a verb that streams: it starts a private service."""
    parser.add_argument(
        "--store", metavar="DIR",
        help="a store's folder, served to this run alone (default: $MELEEWM_STORE, else ./melee, "
        "unless --url, --shards or $MELEEWM_URL names a source)",
    )  # fmt: skip


@contextmanager
def source(args: argparse.Namespace, url: str | None, shards: str | None) -> Iterator[str | None]:
    """The URL to stream from: given, $MELEEWM_URL, or that of a private service; None for shards.

    Raises UsageError where two sources are named.
    """
    named = [n for n, v in (("store", args.store), ("url", url), ("shards", shards)) if v]
    if len(named) > 1:
        raise UsageError(f"--{named[0]} and --{named[1]} together", "give one source of games")
    if shards:
        yield None
    elif address := url or (None if args.store else os.environ.get("MELEEWM_URL")):
        yield address
    else:
        with child_service(Path(args.store or os.environ.get("MELEEWM_STORE", "melee"))) as found:
            yield found


def run_train(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    config = from_file(args.config, **given) if args.config else from_dict(given)
    with source(args, config.url, config.shards) as url:
        from training.train import train

        config = dataclasses.replace(config, url=url)
        with console.Bar("training", quiet=args.quiet) as bar:
            return train(config, say=bar.say, progress=bar.update).exit_code
