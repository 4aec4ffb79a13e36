"""Verbs that look after a store: snapshots, stats, verify."""

import argparse
from dataclasses import asdict
from pathlib import Path

from meleewm import console
from meleewm.options import Verbs, add_verb, store_option


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
    from store.verify import stats

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

    findings = verify(open_layout(Path(args.store)))
    damaged = any(f.is_damage for f in findings)
    if args.json:
        console.out_json([asdict(f) for f in findings])
    else:
        for finding in findings:
            console.out(f"{finding.kind}: {finding.where}: {finding.detail}")
        console.say("damage found" if damaged else "no damage found")
    return int(damaged)
