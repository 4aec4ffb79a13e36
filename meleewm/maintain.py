"""Verbs that look after a store: snapshots, stats, verify."""

import argparse
from dataclasses import asdict
from pathlib import Path

from meleewm import console
from meleewm.options import Verbs, add_verb, store_option, workers_option


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    for name, text, run in (
        ("snapshots", "list the store's snapshots, oldest first", run_snapshots),
        ("stats", "what a store holds: games, characters, stages, versions, refusals", run_stats),
        ("verify", "check a store against its catalog; name constant columns", run_verify),
    ):
        parser = add_verb(
            verbs, shared, name, help=text, example=f"meleewm {name} --store melee", run=run
        )
        store_option(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--quick", action="store_true",
        help="only look whether files are there with their sizes; read none of them",
    )  # fmt: skip
    workers_option(parser)


def run_snapshots(args: argparse.Namespace) -> int:
    """List the snapshots."""
    from store.catalog import Catalog
    from store.layout import open_layout

    with Catalog(open_layout(Path(args.store)), read_only=True) as catalog:
        rows = catalog.snapshots()
    if args.json:
        console.out_json(rows)
    else:
        console.print_table(list(rows[0]) if rows else [], (list(row.values()) for row in rows))
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """Say what the store holds."""
    from store.layout import open_layout
    from store.upkeep import stats

    found = stats(open_layout(Path(args.store)))
    if args.json:
        console.out_json(found)
        return 0
    for title, value in found.items():
        if isinstance(value, dict):
            console.out(f"\n{title}")
            for name, count in value.items():
                console.out(f"  {name:<28} {_figure(count):>14}")
        else:
            console.out(f"{title:<30} {_figure(value):>14}")
    return 0


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def run_verify(args: argparse.Namespace) -> int:
    """Check the store; exit 1 where something is damaged."""
    from store.layout import open_layout
    from store.verify import verify

    layout = open_layout(Path(args.store))
    with console.Bar("verify", quiet=args.quiet) as bar:
        findings = verify(
            layout, quick=args.quick, workers=args.workers,
            progress=lambda done, total: bar.update(done, total, f"{done} of {total} games"),
        )  # fmt: skip
    damaged = sum(f.is_damage for f in findings)
    if args.json:
        console.out_json([asdict(f) | {"is_damage": f.is_damage} for f in findings])
    else:
        for finding in findings:
            game = f" (game {finding.game_id})" if finding.game_id else ""
            console.out(f"{finding.kind}: {finding.where}: {finding.detail}{game}")
        console.say(
            f"{damaged} things are damaged: meleewm repair --store {args.store} tells what to do"
            if damaged
            else "no damage found"
        )
    return int(damaged > 0)
