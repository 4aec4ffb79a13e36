"""Where replays come from: files, folders, archives. One work item a replay, in a fixed order.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from schemas.errors import UsageError

REPLAY_BYTES_MAX = 128 * 2**20
"""No replay has more: an hour of Slippi 3.19 is 75 MB."""
_REPLAYS = (".slp", ".slp.gz")


@dataclass(frozen=True)
class Item:
    """One replay to read: bytes out of an archive, or a file (data is None).

    source, member: what the ledger calls it. rule, detail: set where it cannot be read.
    """

    path: Path
    member: str | None = None
    data: bytes | None = None
    rule: str | None = None
    detail: str | None = None

    @property
    def source(self) -> str:
        """Absolute path of the file or archive, as text that any table can hold."""
        return _printable(str(self.path.absolute()))


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


def read_file(path: Path) -> bytes:
    """A replay file's bytes, one more than the limit at most. Raises OSError."""
    with path.open("rb") as file:
        return file.read(REPLAY_BYTES_MAX + 1)


def _read(path: Path) -> Iterator[Item]:
    """The replays in one file. A plain one is left to the worker, which reads it."""
    name = path.name.lower()
    if name.endswith(".slp.gz"):
        yield _member(path, None, partial(gzip.open, path))
        return
    reader = next((read for endings, read in _ARCHIVES if name.endswith(endings)), None)
    if reader is None:
        yield Item(path)
        return
    try:
        yield from reader(path)
    except Exception as error:  # noqa: BLE001 - damaged archives raise whatever their readers do
        yield Item(path, rule="bad_archive", detail=_line(error))


def _member(path: Path, name: str | None, open_member: Callable[[], Any]) -> Item:
    """Read one member, with every way in which that can go wrong."""
    member = None if name is None else _printable(name)
    try:
        with open_member() as file:
            data = file.read(REPLAY_BYTES_MAX + 1)
            if name is not None and name.lower().endswith(".gz"):
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(REPLAY_BYTES_MAX + 1)
    except Exception as error:  # noqa: BLE001 - see _read
        rule = "bad_file" if member is None else "bad_member"
        return Item(path, member, rule=rule, detail=_line(error))
    return _sized(path, member, data)


def _sized(path: Path, member: str | None, data: bytes) -> Item:
    if len(data) > REPLAY_BYTES_MAX:
        detail = f"more than {REPLAY_BYTES_MAX} bytes"
        return Item(path, member, rule="too_large", detail=detail)
    return Item(path, member, data)


def _is_replay(name: str) -> bool:
    return name.lower().endswith(_REPLAYS)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ARCHIVE_ENDINGS)


def _nested(path: Path, name: str) -> Item:
    detail = "an archive inside an archive is not opened; unpack the outer one"
    return Item(path, _printable(name), rule="nested_archive", detail=detail)


def _printable(name: str) -> str:
    """Names are bytes to the system: what is no UTF-8 becomes a replacement sign."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "�")


def _line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return _printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


# --- archives -------------------------------------------------------------------------------------


def _zip(path: Path) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if _is_replay(entry.filename) and not entry.is_dir():
                yield _member(path, entry.filename, partial(archive.open, entry))
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
        return Item(path, _printable(entry.name), rule="bad_member", detail=detail)
    return _member(path, entry.name, lambda: archive.extractfile(entry))


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
    from ingest import seven_zip  # py7zr takes 0.2 s to import, and workers need none

    yield from (_nested(path, name) for name in seven_zip.names(path) if _is_archive(name))
    for name, data in seven_zip.members(path, _is_replay, REPLAY_BYTES_MAX + 1):
        yield _member(path, name, partial(io.BytesIO, data))


def _unknown(path: Path) -> Iterator[Item]:
    yield Item(path, rule="bad_archive", detail="this kind of archive is not read; unpack it")


_ARCHIVES: tuple[tuple[tuple[str, ...], Callable[[Path], Iterator[Item]]], ...] = (
    ((".zip",), _zip),
    ((".7z",), _seven_zip),
    ((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst"), _tar),
    ((".rar", ".tar.bz2", ".tbz2"), _unknown),
)
_ARCHIVE_ENDINGS = tuple(ending for endings, _ in _ARCHIVES for ending in endings)
_KNOWN = (*_REPLAYS, *_ARCHIVE_ENDINGS)
