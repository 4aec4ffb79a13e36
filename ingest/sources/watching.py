"""Watches folders: which files are ready to be read, while a Slippi client writes into them.

By looking again and again, not by the system's notices, which network folders do not give.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.sources.folders import walk
from ingest.sources.item import Item

LOOK_EVERY_S = 1.0
LOOK_SHARE_MAX = 0.05
"""Of a core: with very many files there is more time between two looks."""
SETTLED_S = 2.0
"""So long a replay that says it is whole must have been left alone."""
COPIED_S = 30.0
"""So long any other file must have been: an archive does not say that it is still being copied."""
_HEAD_BYTES = 15  # of a .slp: 11 that are always the same, and the length of the event stream

Signature = tuple[int, int, int]
"""Inode, size and time of the last change: other ones make a file a new one."""


@dataclass
class _Seen:
    """What was found at the last look, since when, and whether it was handed on so."""

    signature: Signature
    since: float
    taken: bool = False


def ready(
    folders: Sequence[Path],
    passed: Callable[[str], None],
    wait: Callable[[float], None],
    rescue_after_s: float,
) -> Iterator[Path | Item]:
    """Files of these folders as they become ready, for ever; `wait` ends it by an exception.

    A .slp is ready when its header has the event stream's length, which the client writes when the
    game has ended, and so many bytes are there; one that has been left alone for `rescue_after_s`
    is ready as it is. That it could be parsed says nothing: a game in progress can. Other files are
    ready when nothing has changed them for COPIED_S. A file that changes is ready once more.
    """
    seen: dict[Path, _Seen] = {}
    told: set[str] = set()
    while True:
        began = time.monotonic()
        there = set()
        for found in walk(folders, lambda name: _once(told, name, passed)):
            if found in folders and not isinstance(found, Item) and not found.is_dir():
                found = Item(found, rule="bad_folder", detail="it is not there any more")
            if isinstance(found, Item):
                if f"{found.path}: {found.detail}" not in told:
                    told.add(f"{found.path}: {found.detail}")
                    yield found
                continue
            there.add(found)
            if _is_ready(found, seen, rescue_after_s):
                yield found
        for gone in set(seen) - there:
            del seen[gone]
        wait(max(LOOK_EVERY_S, (time.monotonic() - began) / LOOK_SHARE_MAX))


def _once(told: set[str], name: str, passed: Callable[[str], None]) -> None:
    if name not in told:
        told.add(name)
        passed(name)


def _is_ready(path: Path, seen: dict[Path, _Seen], rescue_after_s: float) -> bool:
    try:
        status = path.stat()
    except OSError:  # gone between two calls, or a link to nothing
        return False
    signature = status.st_ino, status.st_size, status.st_mtime_ns
    last = seen.get(path)
    if last is None or last.signature != signature:
        # files that have lain there need no second look; those from the future do
        age = max(0.0, time.time() - status.st_mtime)
        last = seen[path] = _Seen(signature, time.monotonic() - age)
    left_alone = time.monotonic() - last.since
    if last.taken or left_alone < SETTLED_S:
        return False
    if path.name.lower().endswith(".slp"):
        last.taken = left_alone >= rescue_after_s or _is_finished(path, status.st_size)
    else:
        last.taken = left_alone >= COPIED_S
    return last.taken


def _is_finished(path: Path, size: int) -> bool:
    """Whether the client has written the stream's length, and all of the stream."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        head = os.read(descriptor, _HEAD_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    length = int.from_bytes(head[11:], "big")
    return len(head) == _HEAD_BYTES and 0 < length <= size - _HEAD_BYTES
