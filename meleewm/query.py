"""Verbs that ask: sql, select, lock, export."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meleewm import console
from meleewm.options import Verbs, add_verb, positive, store_option
from schemas.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from store.select import Selection

FORMATS = ("table", "csv", "json", "parquet")
QUERY_HELP = "a filter, for example \"char='fox' and stage in ('fd','bf') and projectiles > 0\""


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    parser = add_verb(
        verbs, shared, "sql",
        help="run one SELECT over games, players, perspectives, frames, pframes, items, replays",
        example='meleewm sql "select char, count(*) from perspectives group by 1" --store melee',
        run=run_sql,
    )  # fmt: skip
    parser.add_argument("sql", metavar="SQL", help="one SELECT statement")
    store_option(parser)
    parser.add_argument("--over", metavar="QUERY", help=f"only these games and sides: {QUERY_HELP}")
    _snapshot_option(parser)
    _recordings_option(parser)
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")

    parser = add_verb(
        verbs, shared, "select",
        help="list the games and sides that a query names",
        example="meleewm select \"char='fox' and stage='fd'\" --count",
        run=run_select,
    )  # fmt: skip
    _query_argument(parser)
    _snapshot_option(parser)
    _recordings_option(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--count", action="store_true", help="only how many")
    form.add_argument("--json", action="store_true", help="one JSON document")

    parser = add_verb(
        verbs, shared, "lock",
        help="print a query's dataset as a lock file, to commit to git and train on anywhere",
        example="meleewm lock \"char='fox'\" > fox.lock",
        run=run_lock,
    )  # fmt: skip
    _query_argument(parser)
    _snapshot_option(parser)
    _recordings_option(parser)

    parser = add_verb(
        verbs, shared, "export",
        help="write a query's dataset as tar shards and a manifest",
        example="meleewm export \"char='fox'\" --out fox-shards",
        run=run_export,
    )  # fmt: skip
    _query_argument(parser)
    _snapshot_option(parser)
    _recordings_option(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument("--games-per-shard", metavar="N", type=positive, help="default: 200")
    parser.add_argument("--json", action="store_true", help="print the manifest")


def _query_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help=QUERY_HELP)
    store_option(parser)


def _snapshot_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--snapshot", metavar="N", type=int, help="state of the store (default: the newest)"
    )


def _recordings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recordings", choices=("one", "all"), default="one",
        help="of a game that both clients recorded, one recording or all (default: one)",
    )  # fmt: skip


def run_sql(args: argparse.Namespace) -> int:
    """Print the result of one statement."""
    from store.layout import open_layout
    from store.sql import run_sql as ask

    if args.format == "parquet" and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal", "redirect it: ... > result.parquet")
    layout = open_layout(Path(args.store))
    table = ask(
        layout, args.sql, over=args.over, snapshot=args.snapshot, recordings=args.recordings
    )
    write_table(table, args.format)
    return 0


def write_table(table: "pa.Table", form: str) -> None:
    """A result on stdout: a table to look at, csv, one JSON array, or parquet bytes."""
    from store.encode import FORMATS, objects

    if form == "table":
        console.print_table(table.column_names, (row.values() for row in table.to_pylist()))
    elif form == "json":
        console.out_json(objects(table))
    else:
        sys.stdout.buffer.write(FORMATS[form][1](table))


def _select(args: argparse.Namespace, **request: object) -> "Selection":
    from schemas.shard import Request
    from store.layout import open_layout
    from store.select import select

    asked = {"query": args.query, "snapshot": args.snapshot, "recordings": args.recordings}
    wanted = Request(**(asked | request))
    return select(open_layout(Path(args.store)), wanted)


def run_select(args: argparse.Namespace) -> int:
    """Print the games and sides of a query."""
    selection = _select(args)
    members = selection.members
    counts = {
        "dataset_id": selection.dataset_id,
        "snapshot": selection.snapshot,
        "query": selection.query,
        "games": len(members),
        "perspectives": sum(len(m.sides) for m in members),
        "frames": sum(m.n_frames for m in members),
        "bytes": sum(m.parquet_bytes for m in members),
    }
    if args.json:
        rows = [{"game_id": m.game_id, "sides": m.sides, "frames": m.n_frames} for m in members]
        console.out_json({**counts, "members": rows})
    elif args.count:
        console.print_table(list(counts), [list(counts.values())])
    else:
        lines = ([m.game_id, "+".join(f"p{s}" for s in m.sides), m.n_frames] for m in members)
        console.print_table(["game_id", "sides", "frames"], lines)
        console.say(f"{counts['games']} games, {counts['perspectives']} perspectives, "
                    f"{counts['frames']:,} frames; dataset {selection.dataset_id}")  # fmt: skip
    return 0


def run_lock(args: argparse.Namespace) -> int:
    """Print the lock file of a query."""
    selection = _select(args)
    sys.stdout.write(selection.lock().to_json())
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a query's shards into a folder."""
    from store.export import export
    from store.layout import open_layout

    shape = {"games_per_shard": args.games_per_shard} if args.games_per_shard else {}
    selection = _select(args, **shape)
    with console.Bar("exporting", quiet=args.quiet) as bar:
        manifest = export(open_layout(Path(args.store)), selection, args.out, bar.update)
    if args.json:
        sys.stdout.write(manifest.to_json() + "\n")
    else:
        console.say(f"{manifest.games} games in {len(manifest.shards)} shards, "
                    f"{console.human_bytes(manifest.bytes)}, in {args.out}")  # fmt: skip
    return 0
