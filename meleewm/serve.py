"""The verb that serves a store over HTTP, and how other verbs start it as a child."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meleewm import console
from meleewm.options import Verbs, add_verb, store_option
from schemas.errors import FailureError


def add(verbs: Verbs, shared: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    parser = add_verb(
        verbs, shared, "serve",
        help="serve a store over HTTP: datasets, shards, SQL",
        example="meleewm serve --store melee --port 8000",
        run=run_serve,
    )  # fmt: skip
    store_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for a free one (8000)")
    parser.add_argument(
        "--announce", action="store_true", help='print {"url": ...} on stdout once it is up'
    )
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="end when the process that started it ends"
    )


def run_serve(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; that is its normal end."""
    from service.app import serve
    from service.settings import Settings

    flags = {"store": Path(args.store), "host": args.host, "port": args.port}
    settings = Settings.resolve(flags)
    try:
        serve(settings, announce=args.announce, exit_with_parent=args.exit_with_parent)
    except KeyboardInterrupt:
        return 130
    except console.Terminated:
        return 143
    return 0


@contextmanager
def child_service(store: Path) -> Iterator[str]:
    """A private `meleewm serve` on a free port of loopback.

    Gives its URL; it ends with the block, or with this process however that ends.
    Raises SaidError where it does not start: it has printed the error line, its exit code is ours.
    """
    command = ["serve", "--store", str(store), "--port", "0", "--announce", "--exit-with-parent"]
    # A session of its own: Ctrl-C is for the verb, which may still need the service to end well.
    with subprocess.Popen(
        [sys.executable, "-m", "meleewm", *command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                code = child.wait()
                if code > 0:
                    raise console.SaidError(code)
                words = f"`meleewm {shlex.join(command)}`"
                raise FailureError(f"{words} did not start (ended by signal {-code})")
            yield str(json.loads(line)["url"])
        finally:
            child.terminate()
