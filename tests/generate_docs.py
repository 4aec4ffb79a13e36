"""Write docs/data.md and docs/cli.md from the tables in code: `python -m tests.generate_docs`.

tests/test_tidy.py fails when a page differs from what this module makes.
"""

import argparse
import os
from pathlib import Path

from ingest.repair import REPAIRS
from ingest.rules import RULES
from ingest.sources.archives import FORMS
from schemas.columns import GROUPS, Column
from schemas.filters import FILTERS
from schemas.records import TABLES

ROOT = Path(__file__).resolve().parent.parent

GLOSSARY = {
    "replay": "one .slp file: what a Slippi client or console recorded of one game",
    "game": "one two-player game; a stored replay. Two recordings of one game are two games with "
    "one natural_key, of which queries see one unless asked for all",
    "side": "0 or 1: the two players of a game, lower port first; p0 and p1 in game files",
    "perspective": "a game seen from one side: own columns plain, the other's with opp_",
    "port": "console port, 1 to 4",
    "frame": "the console's frame number; the first is -123, players act from -39, 60 a second",
    "row": "an index from 0 in a table; never the same as a frame",
    "state": "action state: what a character is doing; above 340 it depends on the character",
    "follower": "the second climber (Nana) of Ice Climbers",
    "item": "anything that is not a fighter: projectiles, guns in the hand, Shy Guys, effects",
    "projectile": "an item that a fighter sends out and that moves on its own (a list of types)",
    "slot": "0 to 14: where an item stays for its whole life",
    "stretch": "a run of consecutive frames; a game without missing frames has one",
    "snapshot": "the store as it was after one commit; every snapshot answers until vacuum",
    "revision": "rules by which a replay became a game file; the newest at a snapshot wins",
    "ledger": "the table replays: every file ever seen, and what became of it",
    "dataset": "an ordered list of games and sides, named by dataset_id",
    "lock": "a dataset written to a file, to be committed to git",
    "shard": "a tar of game files, made as it is sent",
    "view": "a list of features: what a model sees of a game",
    "window": "K consecutive frames of context and the frame after them, the target",
    "dream": "frames that a model made from its own frames and the true controllers",
}


def data_page() -> str:
    """docs/data.md: the glossary, then every column."""
    parts = [
        "# Data",
        "",
        "Generated from `schemas/`; `make docs` writes it anew.",
        "",
        "## Glossary",
        "",
    ]
    parts += [f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items()]
    parts += [
        "",
        "## Game files",
        "",
        "One parquet a game, one row a frame: frame columns, the structs `p0` and `p1` (each",
        "with a nullable `follower` of the same fields where there is one), the struct `stage`,",
        "and the list `items`. A column that the replay's Slippi version does not record is",
        "absent or null.",
    ]
    titles = {"frame": "Frame", "player": "Player (`p0.…`, `p1.…`)", "item": "Item (`items`)",
              "stage": "Stage (`stage.…`)"}  # fmt: skip
    for group, columns in GROUPS.items():
        parts += ["", f"### {titles[group]}", "", *_column_rows(columns)]
    parts += ["", "## Catalog tables"]
    for table, fields in TABLES.items():
        parts += ["", f"### {table}", "", "| column | type | meaning |", "| --- | --- | --- |"]
        parts += [f"| {f.name} | {f.sql} | {f.meaning} |" for f in fields]
    parts += ["", "## What a query may name", "", "| name | meaning |", "| --- | --- |"]
    parts += [f"| {f.name} | {f.help} |" for f in FILTERS.values()]
    parts += ["", "## What is read", "",
              "Files by their endings, whatever case; folders all the way down, a link to a folder",
              "once. In archives the same forms, and archives one level deep (an inner .zip or .7z",
              "is copied to a nameless temporary file while it is read). Game ids are of the",
              "unpacked .slp, so a replay is the same game however it came. Whatever else lies",
              "there is passed over and counted by ending; a file named on the command line is",
              "read as a replay whatever its name.", "",
              "| endings | read as |", "| --- | --- |"]  # fmt: skip
    parts += [f"| {' '.join(endings)} | {meaning} |" for endings, meaning in FORMS.items()]
    parts += ["", "## Refusals", "", "A replay that becomes no game has one of these as `rule` in",
              "the ledger.", "", "| rule | what it refuses |", "| --- | --- |"]  # fmt: skip
    parts += [f"| {rule} | {meaning} |" for rule, meaning in RULES.items()]
    parts += ["", "## Repairs", "", "A replay that peppi or its own header cannot account for is",
              "rescued where two players and whole frames are in it, and marked: `games.repaired`",
              "is true, `repairs` in the game file's footer names each step. `meleewm ingest",
              "--no-repair` refuses them instead (rule needs_repair). Columns that the file's own",
              "Slippi version does not record are absent as ever; `start_bytes` in the footer are",
              "the file's own bytes.", "", "| repair | meaning |", "| --- | --- |"]  # fmt: skip
    parts += [f"| {name} | {meaning} |" for name, meaning in REPAIRS.items()]
    return "\n".join(parts) + "\n"


def _column_rows(columns: tuple[Column, ...]) -> list[str]:
    rows = ["| column | type | unit | since | meaning |", "| --- | --- | --- | --- | --- |"]
    for c in columns:
        since = ".".join(map(str, c.since))
        rows.append(f"| {c.name} | {c.type} | {c.unit} | {since} | {c.meaning} |")
    return rows


def cli_page() -> str:
    """docs/cli.md: the help of every verb, 80 columns wide."""
    from meleewm.cli import build

    os.environ["COLUMNS"] = "80"
    parser = build()
    parts = ["# The command", "", "Generated from `--help`; `make docs` writes it anew.", ""]
    parts += ["## meleewm", "", "```text", parser.format_help().rstrip(), "```"]
    for name, verb in verbs(parser).items():
        parts += ["", f"## meleewm {name}", "", "```text", verb.format_help().rstrip(), "```"]
    return "\n".join(parts) + "\n"


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The verbs of the root command, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the root command has no verbs")


PAGES = {"data.md": data_page, "cli.md": cli_page}


if __name__ == "__main__":
    for page, make in PAGES.items():
        (ROOT / "docs" / page).write_text(make(), encoding="utf-8")
