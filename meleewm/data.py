"""Verbs that put replays in: ingest, synth; and pseudonym, for stores made with a key."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meleewm import console
from meleewm.options import Verbs, add_verb, anonymize_option, key_of, positive, store_option
from schemas.errors import UsageError

if TYPE_CHECKING:
    from ingest.worker import Options
    from ingest.workers import Progress

MISSING_NAMED_MAX = 20
"""Sources of games not found again that are named one by one."""


RESCUE_AFTER_MIN = 15
"""Unless --rescue-after says another time."""


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    parser = add_verb(
        verbs, shared, "ingest",
        help="read replays (files, folders, archives) into a store",
        example="meleewm ingest ~/Slippi ranked.zip --store melee --workers 2",
        run=run_ingest,
    )  # fmt: skip
    parser.add_argument("paths", metavar="PATH", nargs="*", help=".slp file, folder or archive")
    store_option(parser)
    parser.add_argument(
        "--reparse", action="store_true",
        help="read games of the store anew, from where they lay (or from PATH), where their game"
        " file is of an older revision or gone",
    )  # fmt: skip
    parser.add_argument(
        "--watch", action="store_true",
        help="keep running, and take the replays of folders as games end; Ctrl-C ends it",
    )  # fmt: skip
    parser.add_argument(
        "--rescue-after", metavar="MIN", type=positive,
        help="with --watch: rescue a game that nobody has written on for so many minutes"
        " (default: 15)",
    )  # fmt: skip
    parser.add_argument("--query", metavar="Q", help="with --reparse: which games (default: all)")
    parser.add_argument(
        "--workers", metavar="N", type=positive, default=os.cpu_count() or 1,
        help="worker processes (default: one a core)",
    )  # fmt: skip
    parser.add_argument(
        "--no-repair", action="store_true",
        help="refuse damaged replays (rule needs_repair) instead of rescuing what is whole in them",
    )  # fmt: skip
    anonymize_option(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    parser = add_verb(
        verbs, shared, "synth",
        help="write replays of simulated games: valid .slp files of nobody",
        example="meleewm synth --games 40 --out replays --seed 1",
        run=run_synth,
    )  # fmt: skip
    parser.add_argument("--games", metavar="N", type=positive, required=True, help="how many")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for them")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="seed (default: 0)")
    parser.add_argument(
        "--recordings", metavar="N", type=int, choices=(1, 2), default=1,
        help="2: each game as both clients recorded it, in two files (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--slippi-version", metavar="V", default="3.19.0",
        help="Slippi version that they are written as, 0.1 to 3.19 (default: 3.19.0)",
    )  # fmt: skip

    parser = add_verb(
        verbs, shared, "pseudonym",
        help="say what a connect code or name is called in a store made with --anonymize",
        example="meleewm pseudonym KEYFILE 'FOX#123'",
        run=run_pseudonym,
    )  # fmt: skip
    parser.add_argument("key", metavar="KEYFILE", type=Path, help="the store's key")
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="connect code (it has a #), display name or tag (default: one a line of stdin)",
    )  # fmt: skip


def run_synth(args: argparse.Namespace) -> int:
    """Write simulated replays."""
    from ingest.synthetic import write_games

    version = parse_version(args.slippi_version)
    with console.Bar("simulating", quiet=args.quiet) as bar:
        paths = write_games(
            args.out, args.games, args.seed, version,
            recordings=args.recordings, progress=bar.update,
        )  # fmt: skip
    console.say(f"{len(paths)} replays of simulated games in {args.out}")
    return 0


def parse_version(text: str) -> tuple[int, int, int]:
    """'3.19' or '3.19.0' -> (3, 19, 0). Raises UsageError for anything else."""
    words = text.split(".")
    if not 2 <= len(words) <= 3 or not all(w.isdecimal() and len(w) < 4 for w in words):
        raise UsageError(f"'{text}' is no Slippi version", "for example 3.19.0")
    major, minor, build = (*map(int, words), 0)[:3]
    return major, minor, build


def run_pseudonym(args: argparse.Namespace) -> int:
    """One line for each name: its pseudonym."""
    from ingest.anonymize import code, name, read_key

    key, _ = read_key(args.key)
    for text in args.names or map(str.rstrip, sys.stdin):
        console.out((code if "#" in text or "＃" in text else name)(text, key))
    return 0


def run_ingest(args: argparse.Namespace) -> int:
    """Bring replays into a store and say what became of each file."""
    from ingest.sources import files
    from ingest.worker import Options
    from ingest.workers import ingest, reparse

    _check_ingest(args)
    options = Options(repair=not args.no_repair, key=key_of(args))
    store, paths = Path(args.store), [Path(path) for path in args.paths]
    if args.watch:
        return _watch(args, paths, store, options)
    found = list(files(paths))
    # How many bytes of replays an archive holds is known only when it has been read.
    plain = bool(found) and all(path.suffix == ".slp" for path in found)
    total = sum(map(_file_bytes, found)) if plain else None
    last: list[Progress] = []
    with console.Bar("ingest", quiet=args.quiet, show=console.human_bytes) as bar:

        def show(now: "Progress") -> None:
            last[:] = [now]
            bar.update(now.replay_bytes, total, _note(now))

        how: dict[str, Any] = {"workers": args.workers, "options": options, "progress": show}
        try:
            summary = (
                reparse(store, args.query, paths=paths, **how)
                if args.reparse
                else ingest(paths, store, **how)
            )
        except (KeyboardInterrupt, console.Terminated) as stop:
            raise type(stop)(_left_off(stop, last)) from None
    if args.json:
        console.out_json(summary.as_dict())
        return 0
    for line in summary_lines(summary.as_dict()):
        console.out(line)
    return 0


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone, or not ours to look at: the ingest says so
        return 0


def _watch(args: argparse.Namespace, paths: list[Path], store: Path, options: "Options") -> int:
    """Take in games as they end. Ends by an interruption only, after saying what it did."""
    from ingest.workers import watch

    note = "nothing yet"
    with console.Bar("watch", quiet=args.quiet) as bar:

        def show(now: "Progress") -> None:
            nonlocal note
            before, note = note, _counts(now)
            if note != before or sys.stderr.isatty():
                bar.update(now.files, None, note)

        bar.say(f"watching {', '.join(map(str, paths))}; Ctrl-C ends it")
        try:
            minutes = args.rescue_after or RESCUE_AFTER_MIN
            watch(paths, store, rescue_after_s=60 * minutes, workers=args.workers,
                  options=options, progress=show)  # fmt: skip
        finally:
            bar.say(note)
    return 0


def _note(now: "Progress") -> str:
    rate = console.human_bytes(now.replay_bytes / max(now.seconds, 1e-3))
    return f"{rate}/s, {now.files} files: {_counts(now)}"


def _counts(now: "Progress") -> str:
    refused = ", ".join(f"{n} {rule}" for rule, n in sorted(now.refused.items()))
    return f"{now.games} games, {now.known} known, {sum(now.refused.values())} refused" + (
        f" ({refused})" if refused else ""
    )


def _left_off(stop: BaseException, last: "list[Progress]") -> str:
    """What is committed is all that was counted: the ingest has said its last word."""
    done = f"{last[0].files} files are done with, {last[0].games} games stored" if last else ""
    word = "interrupted" if isinstance(stop, KeyboardInterrupt) else "terminated"
    return f"{word}{done and ': '}{done}; the same command goes on from here"


def _check_ingest(args: argparse.Namespace) -> None:
    if args.query is not None and not args.reparse:
        raise UsageError("--query chooses among games of the store", "add --reparse")
    if args.rescue_after is not None and not args.watch:
        raise UsageError("--rescue-after says how long a watch waits", "add --watch")
    if args.watch and args.json:
        raise UsageError("--watch has no end, so no summary for --json", "leave out one")
    if args.watch and args.reparse:
        raise UsageError("--watch waits for new games, --reparse reads known ones", "leave out one")
    if not args.reparse and not args.paths:
        raise UsageError("no PATH to read replays from", "name a file, folder or archive")


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """An ingest in words; the counts add up to the number of files."""
    refused: dict[str, int] = summary["refused"]
    rate = console.human_bytes(summary["replay_bytes"] / max(summary["seconds"], 1e-3))
    counts = ", ".join(f"{summary[name]} {name}" for name in ("stored", "repaired", "known"))
    lines = [f"{summary['files']} files: {counts}, {sum(refused.values())} refused"]
    lines += [f"  refused, {rule}: {count}" for rule, count in sorted(refused.items())]
    if passed := summary["passed_over"]:
        lines.append("passed over: " + ", ".join(f"{n} {end}" for end, n in sorted(passed.items())))
    if missing := summary["missing"]:
        lines.append(f"{sum(missing.values())} games not found again where they lay:")
        named = sorted(missing.items(), key=lambda place: (-place[1], place[0]))
        lines += [f"  {count} of {source}" for source, count in named[:MISSING_NAMED_MAX]]
        if rest := named[MISSING_NAMED_MAX:]:
            lines.append(f"  {sum(n for _, n in rest)} of {len(rest)} more sources (--json: all)")
    if not summary["stored"] + summary["repaired"]:
        lines.append("nothing new was stored")
    else:
        ratio = summary["parquet_bytes"] / max(summary["replay_bytes"], 1)
        size = console.human_bytes(summary["parquet_bytes"])
        lines.append(f"game files: {size}, {ratio:.3f} of the replays' bytes read")
    if summary["newer_than_parser"]:
        lines.append(f"{summary['newer_than_parser']} are of a newer Slippi: new fields not kept")
    lines.append(f"{console.human_seconds(summary['seconds'])}, {rate}/s; "
                 f"snapshot {summary['snapshot']}")  # fmt: skip
    return lines
