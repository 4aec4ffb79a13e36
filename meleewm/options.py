"""What the verbs' command lines have in common: the parser, shared options, argument types."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from meleewm import console
from schemas.errors import UsageError

Verbs = Any
"""argparse's own type of `add_subparsers()` is private."""


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line, with the nearest option, and exits 2."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit 2."""
        console.say(f"error: {self._said(message)} (see {self.prog} --help)")
        sys.exit(2)

    def _said(self, message: str) -> str:
        """argparse's message with the nearest option or verb instead of a list of all."""
        if found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            known = [option for action in self._actions for option in action.option_strings]
            return message + self._nearest(found[1], known)
        if found := re.match(r"argument VERB: invalid choice: '(.*?)'", message):
            verbs = [name for action in self._actions for name in action.choices or ()]
            return f"unknown verb '{found[1]}'" + self._nearest(found[1], verbs)
        return message

    @staticmethod
    def _nearest(word: str, known: list[str]) -> str:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        return f"; nearest: {near[0]}" if near else ""


class VerbsHelp(argparse.HelpFormatter):
    """The list of verbs with each one's help beside it.

    argparse forgets that verbs are indented, and puts the help of long ones on a line of its own.
    """

    def add_argument(self, action: argparse.Action) -> None:
        """Measure an argument's column."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


def common() -> argparse.ArgumentParser:
    """Options that every verb takes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--quiet", action="store_true", help="no progress, only results and errors")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_verb(
    verbs: Verbs,
    shared: argparse.ArgumentParser,
    name: str,
    *,
    help: str,  # noqa: A002 -- argparse's own word
    example: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """A verb's parser: its help ends with an example, and `args.run` runs it."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example: {example}",
        parents=[shared],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def store_option(parser: argparse.ArgumentParser) -> None:
    """`--store`, the same for every verb that opens one."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        default=os.environ.get("MELEEWM_STORE", "melee"),
        help="the store's folder (default: $MELEEWM_STORE, else ./melee)",
    )


def anonymize_option(parser: argparse.ArgumentParser) -> None:
    """`--anonymize`, for every verb that reads replays into a store; see `key_of`."""
    parser.add_argument(
        "--anonymize",
        metavar="KEYFILE",
        type=Path,
        help="store keyed hashes of names, connect codes and paths in their place; the secret "
        "comes from: (umask 077; head -c 32 /dev/urandom > KEYFILE)",
    )


def key_of(args: argparse.Namespace) -> bytes | None:
    """The secret of `--anonymize`; says so where others can read it."""
    if args.anonymize is None:
        return None
    from ingest.anonymize import read_key

    key, is_open = read_key(args.anonymize)
    if args.anonymize.resolve().is_relative_to(Path(args.store).resolve()):
        message = f"the key {args.anonymize} lies inside the store {args.store}"
        raise UsageError(message, "whoever gets the store must not get the key")
    if is_open:
        hint = f"chmod 600 {args.anonymize}"
        console.say(f"warning: other users can read the key {args.anonymize} ({hint})")
    return key


def workers_option(parser: argparse.ArgumentParser) -> None:
    """`--workers`, for verbs that share work among processes."""
    parser.add_argument(
        "--workers", metavar="N", type=positive, default=os.cpu_count() or 1,
        help="worker processes (default: one a core)",
    )  # fmt: skip


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)
