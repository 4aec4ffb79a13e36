"""Verbs that look after a store: what is in it, whether it is sound, what mends it."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meleewm import console
from meleewm.options import (
    Verbs,
    add_verb,
    anonymize_option,
    key_of,
    store_option,
    workers_option,
)

Run = Callable[[argparse.Namespace], int]


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""

    def verb(name: str, text: str, example: str, run: Run) -> argparse.ArgumentParser:
        parser = add_verb(
            verbs, shared, name, help=text, example=f"meleewm {name} {example}", run=run
        )
        store_option(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        return parser

    verb("snapshots", "list the store's snapshots, oldest first", "--store melee", run_snapshots)
    verb("stats", "what a store holds: games, characters, stages, versions, disk, refusals",
         "--store melee", run_stats)  # fmt: skip
    parser = verb("verify", "check a store against its catalog; name constant and odd columns",
                  "--store melee", run_verify)  # fmt: skip
    _quick_option(parser)
    workers_option(parser)

    parser = verb("repair", "adopt game files without a row; make damaged ones again from replays",
                  "--store melee --from ~/Slippi --from ranked.7z", run_repair)  # fmt: skip
    parser.add_argument(
        "--from", metavar="PATH", dest="sources", type=Path, action="append", default=[],
        help="replays, folder or archive that may hold what is damaged; may be given several times",
    )  # fmt: skip
    anonymize_option(parser)
    _quick_option(parser)
    workers_option(parser)

    parser = verb("rebuild", "make a store's catalog anew from its game files; dataset ids stay",
                  "--store melee", run_rebuild)  # fmt: skip
    parser.add_argument(
        "--force", action="store_true",
        help="also where there is a catalog that can be read: its ledger stays, its snapshots go",
    )  # fmt: skip
    workers_option(parser)

    parser = verb("remove", "take games out of all later snapshots, for good",
                  "9f2c51d0a9e74b7f8c3b7d1e5a6f4c20 --reason 'asked to' --store melee",
                  run_remove)  # fmt: skip
    parser.add_argument("game_ids", metavar="GAME_ID", nargs="*", help="32 hex digits")
    parser.add_argument("--query", metavar="QUERY", help="all games that this query names")
    parser.add_argument("--reason", metavar="TEXT", help="kept with the removal")
    _yes_option(parser, "remove what --query names without being asked")

    parser = verb("vacuum", "delete old snapshots, and files and rows of removed games",
                  "--store melee", run_vacuum)  # fmt: skip
    _yes_option(parser, "delete without being asked")
    verb("compact", "merge the catalog's small files; every snapshot answers as before",
         "--store melee", run_compact)  # fmt: skip


def _quick_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true",
        help="only look whether files are there with their sizes; read none of them",
    )  # fmt: skip


def _yes_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--yes", action="store_true", help=text)


# --- looking ------------------------------------------------------------------------------------


def run_snapshots(args: argparse.Namespace) -> int:
    """List the snapshots."""
    from store.catalog import Catalog
    from store.layout import open_layout

    with Catalog(open_layout(Path(args.store)), read_only=True) as catalog:
        rows = catalog.snapshots()
    if args.json:
        console.out_json(rows)
        return 0
    lines = [[row["snapshot"], f"{row['at']:%Y-%m-%d %H:%M:%S}", _added(row)] for row in rows]
    console.print_table(["snapshot", "at (UTC)", "added"], lines)
    return 0


def _added(row: dict[str, Any]) -> str:
    """'3 games, 6 players'; the first snapshot is that of an empty store."""
    added = ", ".join(f"{n:,} {name}" for name, n in row["added"].items())
    return added or ("empty" if row["snapshot"] == 1 else "no rows (files merged)")


def run_stats(args: argparse.Namespace) -> int:
    """Say what the store holds."""
    from store.layout import open_layout
    from store.upkeep import stats

    found = stats(open_layout(Path(args.store)))
    if args.json:
        console.out_json(found)
        return 0
    sizes = {"game_bytes", "disk"}
    for title, value in found.items():
        said = console.human_bytes if title in sizes else _figure
        if isinstance(value, dict):
            if value:
                console.out(f"\n{title}")
            for name, count in value.items():
                console.out(f"  {name:<28} {said(count):>14}")
        elif isinstance(value, list):
            console.out(f"\n{title}" + ("" if value else ": none"))
            for line in value:
                console.out(f"  {line}")
        else:
            console.out(f"{title:<20} {said(value)}")
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
        advice = f"meleewm repair --store {args.store}"
        console.say(
            f"damage found: {_counted(damaged, 'place')}; {advice} says what can be done"
            if damaged
            else "no damage found"
        )
    return int(damaged > 0)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" + "s" * (n != 1)


# --- mending ------------------------------------------------------------------------------------


def run_repair(args: argparse.Namespace) -> int:
    """Mend what can be mended; exit 1 where damage is left."""
    from ingest.heal import repair
    from ingest.worker import Options
    from store.layout import open_layout

    layout = open_layout(Path(args.store))
    with console.Bar("repair", quiet=args.quiet) as bar:
        healed = repair(
            layout, args.sources, options=Options(key=key_of(args)), quick=args.quick,
            workers=args.workers,
            progress=lambda done, total, what: bar.update(done, total, f"{done} {what}"),
        )  # fmt: skip
    if args.json:
        console.out_json(asdict(healed))
        return int(bool(healed.left))
    for name in ("adopted", "restored", "rewritten", "marked"):
        for where in getattr(healed, name):
            console.out(f"{name}: {where}")
    for where, why in healed.left:
        console.out(f"left: {where}: {why}")
    n = {name: len(value) for name, value in asdict(healed).items() if isinstance(value, list)}
    console.say(
        f"{n['adopted']} adopted, {n['restored']} restored with the same bytes, {n['rewritten']}"
        f" written with other bytes, {n['left']} left; snapshot {healed.snapshot}"
    )
    return int(bool(healed.left))


def run_rebuild(args: argparse.Namespace) -> int:
    """Make the catalog anew; exit 1 where a game file could not be read."""
    from ingest.rebuild import rebuild
    from store.layout import open_layout

    layout = open_layout(Path(args.store))
    with console.Bar("rebuild", quiet=args.quiet) as bar:
        done = rebuild(
            layout, force=args.force, workers=args.workers,
            progress=lambda n, total: bar.update(n, total, f"{n} of {total} games"),
        )  # fmt: skip
    if args.json:
        console.out_json(asdict(done))
        return int(bool(done.left))
    for where, why in done.left:
        console.out(f"left: {where}: {why}")
    console.out(
        f"{_counted(done.games, 'game file')} in the catalog, {done.removed} removed,"
        f" {_counted(done.ledger, 'row')} of the ledger kept; snapshot {done.snapshot}"
    )
    if done.ledger_lost:
        console.say(f"the ledger of sources and refusals is lost ({done.ledger_lost}): "
                    "it comes back with the next ingest")  # fmt: skip
    if done.kept:
        console.say(f"the old catalog is kept in {layout.root / done.kept}; vacuum deletes it")
    return int(bool(done.left))


def run_compact(args: argparse.Namespace) -> int:
    """Merge small files."""
    from store.catalog import Catalog
    from store.layout import open_layout

    with Catalog(open_layout(Path(args.store))) as catalog:
        merged = catalog.compact(files_max=1)
    if args.json:
        console.out_json(merged)
    else:
        console.out(f"merged: {', '.join(merged) or 'nothing to merge'}")
    return 0


# --- taking out ---------------------------------------------------------------------------------


def run_remove(args: argparse.Namespace) -> int:
    """Remove games by id or query."""
    from schemas.errors import UsageError
    from schemas.shard import Request
    from store.catalog import Catalog
    from store.layout import open_layout
    from store.select import select
    from store.upkeep import remove

    if bool(args.game_ids) == (args.query is not None):
        raise UsageError("remove wants game ids or --query, one of both", "meleewm remove --help")
    ids = [text.lower().replace("-", "") for text in args.game_ids]
    layout = open_layout(Path(args.store))
    with Catalog(layout) as catalog:
        if args.query is not None:
            request = Request(query=args.query, recordings="all")
            selection = select(layout, request, catalog=catalog)
            ids = [member.game_id for member in selection.members]
            _ask(f"remove {_counted(len(ids), 'game')} for good?", args.yes or not ids)
        removed = remove(layout, ids, args.reason, catalog=catalog)
        snapshot = catalog.snapshot()
    if args.json:
        console.out_json({"removed": removed, "snapshot": snapshot})
        return 0
    already = f", {len(set(ids)) - len(removed)} were out already" * (len(set(ids)) > len(removed))
    console.out(f"{_counted(len(removed), 'game')} removed{already}; snapshot {snapshot}")
    console.say("older snapshots still show them, and their files stay, until meleewm vacuum")
    return 0


def run_vacuum(args: argparse.Namespace) -> int:
    """Say what would be deleted, ask, delete."""
    from store.catalog import Catalog
    from store.layout import open_layout
    from store.upkeep import vacuum, waste

    layout = open_layout(Path(args.store))
    with Catalog(layout) as catalog:
        found = waste(layout, catalog=catalog)
        told = _told(asdict(found))
        if found.is_none:
            console.say("nothing to vacuum")
        else:
            console.say(f"vacuum deletes {told}; only the newest snapshot answers afterwards")
            _ask("delete it?", args.yes)
            vacuum(layout, catalog=catalog)
    if args.json:
        said = asdict(found) | {"game_files": [path.name for path in found.game_files]}
        console.out_json(said)
    elif not found.is_none:
        console.out(f"deleted {told}")
    return 0


def _told(found: dict[str, Any]) -> str:
    parts = [
        _counted(found["snapshots"], "old snapshot"),
        f"the rows of {_counted(found['games'], 'removed game')}",
        (
            f"{_counted(len(found['game_files']), 'game file')} of removed games"
            f" ({console.human_bytes(found['game_bytes'])})"
        ),
        (
            f"{_counted(found['table_files'], 'old file')} of the catalog"
            f" ({console.human_bytes(found['table_bytes'])})"
        ),
    ]
    if found["kept_bytes"]:
        parts.append(f"catalog.old ({console.human_bytes(found['kept_bytes'])})")
    return ", ".join(parts)


def _ask(question: str, is_agreed: bool) -> None:
    """Go on after a yes; off a terminal only with --yes. Raises UsageError."""
    import sys

    from schemas.errors import UsageError

    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} nobody is there to answer", "--yes says yes")
    console.say(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was done", "answer y to go on")
