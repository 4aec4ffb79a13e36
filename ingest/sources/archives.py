"""Folders and archives to replays, one item each, in a fixed order.

Nothing is unpacked to disk and nothing is opened by a member's name, so hostile names do no harm; a
member is read up to a limit. What cannot be read becomes an item with a rule, never an exception;
pictures, notes and the like are passed over, archives never are.
"""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from ingest.sources import item, wrapped
from ingest.sources.item import Item, line, printable, read_file, replay, unreadable
from schemas.errors import UsageError


def items(paths: Sequence[Path]) -> Iterator[Item]:
    """Every replay of these files, folders (all the way down) and archives.

    Raises UsageError, before anything is read, for a path that is not there.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {path}")
    return (item for path in files(paths) for item in _read(path))


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """The replay files and archives behind these paths; of a folder those with a known ending."""
    for path in paths:
        if not path.is_dir():
            yield path
        for folder, folders, names in os.walk(path):
            folders.sort()
            known = (name for name in sorted(names) if name.lower().endswith(_KNOWN))
            yield from (Path(folder, name) for name in known)


def _read(path: Path) -> Iterator[Item]:
    """The replays in one file. A plain one is left to the worker, which reads it."""
    name = path.name.lower()
    if wrapped.is_wrapped(name):
        yield _file(path, name)
        return
    reader = next((read for endings, read in _ARCHIVES if name.endswith(endings)), None)
    if reader is None:
        yield Item(path)
        return
    try:
        yield from reader(path)
    except Exception as error:  # noqa: BLE001 - damaged archives raise whatever their readers do
        yield Item(path, rule="bad_archive", detail=line(error))


def _file(path: Path, name: str) -> Item:
    """Read a file that holds one packed replay."""
    try:
        data = read_file(path)
        if len(data) <= item.REPLAY_BYTES_MAX:
            data = wrapped.unwrap(name, data)
    except Exception as error:  # noqa: BLE001 - see _read
        return unreadable(path, None, error)
    return replay(path, None, data)


def _member(path: Path, member: str | None, name: str, open_member: Callable[[], Any]) -> Item:
    """Read one member, with every way in which that can go wrong."""
    try:
        with open_member() as file:
            data = file.read(item.REPLAY_BYTES_MAX + 1)
        if wrapped.is_wrapped(name) and len(data) <= item.REPLAY_BYTES_MAX:
            data = wrapped.unwrap(name, data)
    except Exception as error:  # noqa: BLE001 - see _read
        return unreadable(path, member, error)
    return replay(path, member, data)


def _is_replay(name: str) -> bool:
    return name.lower().endswith(wrapped.ENDINGS)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ARCHIVE_ENDINGS)


def _nested(path: Path, name: str) -> Item:
    detail = "an archive inside an archive is not opened; unpack the outer one"
    return Item(path, printable(name), rule="nested_archive", detail=detail)


# --- archives -------------------------------------------------------------------------------------


def _zip(path: Path) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if _is_replay(entry.filename) and not entry.is_dir():
                yield _member(
                    path, printable(entry.filename), entry.filename, partial(archive.open, entry)
                )
            elif _is_archive(entry.filename) and not entry.is_dir():
                yield _nested(path, entry.filename)


def _tar(path: Path) -> Iterator[Item]:
    with path.open("rb") as file, tarfile.open(fileobj=_unpacked(path, file), mode="r|") as archive:
        for entry in archive:
            if _is_replay(entry.name) and not entry.isdir():
                yield _tar_member(path, archive, entry)
            elif _is_archive(entry.name) and not entry.isdir():
                yield _nested(path, entry.name)


def _tar_member(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Item:
    if not entry.isreg():
        detail = "a link or device, not a file"
        return Item(path, printable(entry.name), rule="bad_member", detail=detail)
    return _member(path, printable(entry.name), entry.name, lambda: archive.extractfile(entry))


def _unpacked(path: Path, file: IO[bytes]) -> Any:
    """The tar inside its compression, as a stream."""
    name = path.name.lower()
    if name.endswith((".gz", ".tgz")):
        return gzip.GzipFile(fileobj=file)
    if name.endswith((".xz", ".txz")):
        return lzma.LZMAFile(file)
    if name.endswith((".zst", ".tzst")):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file


def _seven_zip(path: Path) -> Iterator[Item]:
    from ingest.sources import seven_zip  # py7zr takes 0.2 s to import, and workers need none

    yield from (_nested(path, name) for name in seven_zip.names(path) if _is_archive(name))
    for name, data in seven_zip.members(path, _is_replay, item.REPLAY_BYTES_MAX + 1):
        yield _member(path, printable(name), name, partial(io.BytesIO, data))


def _unknown(path: Path) -> Iterator[Item]:
    yield Item(path, rule="bad_archive", detail="this kind of archive is not read; unpack it")


_ARCHIVES: tuple[tuple[tuple[str, ...], Callable[[Path], Iterator[Item]]], ...] = (
    ((".zip",), _zip),
    ((".7z",), _seven_zip),
    ((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst"), _tar),
    ((".rar", ".tar.bz2", ".tbz2"), _unknown),
)
_ARCHIVE_ENDINGS = tuple(ending for endings, _ in _ARCHIVES for ending in endings)
_KNOWN = (*wrapped.ENDINGS, *_ARCHIVE_ENDINGS)
