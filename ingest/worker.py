"""The body of a worker process: from a replay's bytes to a game file on disk and its rows.

Imports neither the catalog nor archives: a worker starts quickly and stays small.
"""

import ctypes
import hashlib
import os
import signal
import sys
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest import sources
from ingest.anonymize import anonymous
from ingest.facts import GameFile, game_rows
from ingest.replay import parse
from ingest.rules import Refusal
from schemas.errors import StoreError
from schemas.game import REVISION
from schemas.records import Rows
from store.layout import Layout, write_atomic
from store.parquet import encode_game


@dataclass(frozen=True)
class Options:
    """What an ingest may be told about how replays become games; handed to every worker.

    repair: rescue damaged replays. key: secret that takes the place of names and connect codes.
    revision: what game files and ledger say of the rules that made them; another than ours is for
    tests.
    """

    repair: bool = True
    key: bytes | None = field(default=None, repr=False)  # no traceback shows it
    revision: int = REVISION


@dataclass(frozen=True)
class Outcome:
    """What became of one file: stored, repaired, known or refused, and the rows that it brings."""

    name: str
    sha256: bytes | None = None
    replay_bytes: int = 0
    rule: str | None = None
    detail: str | None = None
    rows: Rows = field(default_factory=dict)


_LARGE_BYTES = 16 * 2**20
"""Ten times a usual replay: what reading it took goes back to the system."""


def serve(pipe_number: str, parent: str, root: str) -> None:
    """The body of a worker process: one replay after another until None comes or the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with(int(parent))
    pipe: Connection[Any, Any] = Connection(int(pipe_number))
    pipe.send("ready")
    layout = Layout(Path(root))
    # EOFError and OSError: the parent is gone, and nobody is left to be told
    with suppress(EOFError, OSError):
        while (task := pipe.recv()) is not None:
            outcome = _handle(layout, pipe, *task)
            pipe.send(outcome)
            if isinstance(outcome, Outcome) and outcome.replay_bytes > _LARGE_BYTES:
                del task  # its bytes
                pa.default_memory_pool().release_unused()


def _handle(
    layout: Layout,
    pipe: "Connection[Any, Any]",
    options: Options,
    path: Path,
    data: bytes | None,
) -> Outcome | StoreError:
    if data is None:
        try:
            data = sources.read_file(path)
        except OSError as error:
            return Outcome("refused", rule="bad_file", detail=str(error.strerror))
        if len(data) > sources.REPLAY_BYTES_MAX:
            detail = f"more than {sources.REPLAY_BYTES_MAX} bytes"
            return Outcome("refused", rule="too_large", detail=detail)
    sha256 = hashlib.sha256(data).digest()
    pipe.send((sha256, len(data)))
    if not pipe.recv():
        return Outcome("known", sha256, len(data))
    return process(layout, data, sha256, options)


@dataclass(frozen=True)
class Made:
    """A game file's bytes, the rows that it brings, what was done to a damaged replay."""

    parquet: bytes
    rows: Rows
    repairs: tuple[str, ...]


def make(data: bytes, game_id: str, options: Options) -> Made:
    """One replay's bytes to a game file's. Raises Refusal, and whatever hostile bytes may raise."""
    game = parse(data, repair=options.repair)
    footer = game.footer | {"rev": options.revision}
    footer = anonymous(footer, options.key) if options.key else footer
    encoded = encode_game(game.table, footer)
    file = GameFile(game_id, len(encoded), hashlib.sha256(encoded).digest(), zlib.crc32(encoded))
    return Made(encoded, game_rows(game.table, footer, file), tuple(game.footer["repairs"]))


def process(layout: Layout, data: bytes, sha256: bytes, options: Options) -> Outcome | StoreError:
    """One replay's bytes to a game file and its rows. Any error of reading becomes a refusal."""
    game_id = sha256.hex()[:32]
    try:
        made = make(data, game_id, options)
    except Refusal as refusal:
        return Outcome("refused", sha256, len(data), refusal.rule, refusal.detail)
    except Exception as error:  # noqa: BLE001 - hostile bytes; one replay costs one replay
        detail = f"{type(error).__name__}: {error}"
        return Outcome("refused", sha256, len(data), "crashed", detail)
    path = layout.game_path(game_id, options.revision)
    try:
        write_atomic(path, made.parquet)
    except OSError as error:
        return StoreError(f"cannot write {path}: {error.strerror}")
    name = "repaired" if made.repairs else "stored"
    return Outcome(name, sha256, len(data), detail=", ".join(made.repairs) or None, rows=made.rows)


_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Be killed when the parent ends, however that happens. Elsewhere the pipe's end must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
