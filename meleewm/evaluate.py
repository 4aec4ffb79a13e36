"""The verb that judges a run."""

import argparse
from pathlib import Path

from meleewm import console
from meleewm.options import Verbs, add_verb
from meleewm.train import add_store_option, source


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    parser = add_verb(
        verbs, shared, "eval",
        help="judge a run's last checkpoint: validation metrics, a rollout beside the truth",
        example="meleewm eval runs/mlp-v22-state-age-1a2b3c4d --store melee",
        run=run_eval,
    )  # fmt: skip
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run's folder")
    add_store_option(parser)
    parser.add_argument("--url", help="address of a service")
    parser.add_argument("--shards", metavar="DIR", help="a folder that `meleewm export` wrote")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def run_eval(args: argparse.Namespace) -> int:
    """Judge the last checkpoint again, and write its report."""
    from training.evaluate import evaluate_run
    from training.run import read_run

    run = read_run(args.run_dir)  # a misspelt folder must not start a service first
    elsewhere = args.store or args.url or args.shards
    shards = args.shards if elsewhere else run.config.shards
    with source(args, args.url, shards) as url, console.Bar("eval", quiet=args.quiet) as bar:
        result = evaluate_run(
            args.run_dir, url=url, shards=shards, say=bar.say, progress=bar.update
        )
    if args.json:
        console.out_json(result)
    return 0
