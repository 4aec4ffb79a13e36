"""Walks folders: which files there are replays or archives, and what of a folder cannot be read."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ingest.sources.archives import is_known
from ingest.sources.item import Item, line

Node = tuple[int, int]
"""Device and inode: the same for one folder by whatever name."""


def walk(paths: Sequence[Path], passed: Callable[[str], None]) -> Iterator[Path | Item]:
    """The replay files and archives behind these paths, in a fixed order.

    A path that is no folder comes as it is. Of a folder, all the way down, those with a known
    ending; `passed` is told the others. A link to a folder is followed once; one that leads
    back, or to what another link has led to already, is an item that says so, as is a folder that
    cannot be read.
    """
    for path in paths:
        if path.is_dir():
            yield from _walk(path, passed)
        else:
            yield path


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files alone."""
    return (found for found in walk(paths, lambda _: None) if isinstance(found, Path))


def _walk(root: Path, passed: Callable[[str], None]) -> Iterator[Path | Item]:
    by_link: set[Node] = set()
    stack: list[tuple[Path, tuple[Node, ...]]] = [(root, ())]
    while stack:
        folder, above = stack.pop()
        try:
            above = (*above, _node(folder))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield Item(folder, rule="bad_folder", detail=line(error))
            continue
        below = []
        for entry in entries:
            path = Path(entry.path)
            if not _is_folder(entry):
                if is_known(entry.name):
                    yield path
                else:
                    passed(entry.path)
            elif not entry.is_symlink():
                below.append((path, above))
            elif (node := _node(path)) in above or node in by_link:
                detail = "a link back to a folder above it" if node in above else _TWICE
                yield Item(path, rule="bad_folder", detail=detail)
            else:
                by_link.add(node)
                below.append((path, above))
        stack.extend(reversed(below))


_TWICE = "a link to a folder that another link has led to"


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link around in a circle
        return False


def _node(path: Path) -> Node:
    status = path.stat()
    return status.st_dev, status.st_ino
