"""What the verbs' command lines have in common: the parser, shared options, argument types."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from meleewm import console

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


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)
