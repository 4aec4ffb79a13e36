"""The root command: the verbs of the sibling modules, and `meleewm-train` as a second name of one.

Each verb imports what it needs when it runs, so that `--help` imports nothing heavy.
"""

import sys
from collections.abc import Sequence

from meleewm import console, data, evaluate, maintain, query, serve, train
from meleewm.options import Parser, VerbsHelp, common

GROUPS = (data, maintain, query, serve, train, evaluate)


def build() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="meleewm",
        description="Melee replays in, datasets by query, world models out.",
        epilog="example: meleewm ingest ~/Slippi && meleewm-train --query \"char='fox'\"",
        allow_abbrev=False,
        formatter_class=VerbsHelp,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    shared = common()
    for group in GROUPS:
        group.add(verbs, shared)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = build()
    args, rest = parser.parse_known_args(argv)
    if rest:
        # The verb's own parser knows the nearest option; the root knows none of them.
        args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return console.guard(lambda: int(args.run(args)), debug=args.debug)


def main_train(argv: Sequence[str] | None = None) -> int:
    """`meleewm-train ...` is `meleewm train ...`."""
    return main(["train", *(sys.argv[1:] if argv is None else argv)])
