"""Archives to items: what each member becomes, and archives inside archives, one level deep.

Nothing is opened by a member's name, so hostile names do no harm. What cannot be read becomes an
item with a rule, never an exception, and costs itself alone: all that is readable before and after
it is read. Pictures, notes and the like are passed over and counted, archives never are.
"""

import io
import shutil
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ingest.sources import item, wrapped
from ingest.sources.item import Item, read_file, replay, too_large, unreadable
from ingest.sources.place import DICTIONARY_BYTES_MAX, BombError, Gauge, Place, Room

if TYPE_CHECKING:
    from ingest.sources.seven_zip import Block

NESTED_BYTES_MAX = 8 * 2**30
"""An inner .zip or .7z is copied to a nameless temporary file, since its list stands at its end."""
FREE_BYTES_MIN = 2**30
"""So much of the disk is left free by such a copy."""
_CHUNK = 2**20
_NESTED_TOO_DEEP = "more than one archive deep: unpack the outer one"
_LINK = "a link or device, not a file"
_SPLIT_BYTES = 2**24  # a smaller .zip is read by one thread
_BLOCKS_BYTES = 2**26  # packed bytes of neighbouring blocks that are read by one thread

Part = Callable[[Place], Iterator["Item | Part"]]
"""Reads one piece of one file, in whatever thread it is called; may find more pieces in it."""
Open = Callable[[], IO[bytes]]


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, one that we cannot read among them."""
    return name.lower().endswith(_ENDINGS)


def is_known(name: str) -> bool:
    """Whether a file of this name is looked at in a folder or archive."""
    return name.lower().endswith((*wrapped.ENDINGS, *_ENDINGS))


def parts(path: Path, n_readers: int) -> list[Part] | None:
    """What there is to read in this file, by several threads at once; None for a plain replay."""
    name = path.name.lower()
    if wrapped.is_wrapped(name):
        return [_packed_file]
    if not is_archive(name):
        return None
    if name.endswith(".7z"):
        return [partial(_whole, _seven_zip_parts)]
    if name.endswith(".zip") and _file_bytes(path) > _SPLIT_BYTES:
        return [partial(_whole, partial(_zip, share=(n, n_readers))) for n in range(n_readers)]
    return [partial(_whole, _reader(name))]


def _file_bytes(path: Path) -> int:
    """0 for what is no file, or cannot be asked: its reader says why."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _reader(name: str) -> Callable[..., Iterator[Item]]:
    return next(read for endings, read in _READERS.items() if name.lower().endswith(endings))


def _packed_file(place: Place) -> Iterator[Item]:
    """A file that holds one packed replay."""
    path = place.path
    try:
        place.hold.take(min(path.stat().st_size, item.REPLAY_BYTES_MAX))
        data = read_file(path)
        yield _unwrapped(place, path.name, None, data)
    except Exception as error:  # noqa: BLE001 - unpackers raise all sorts for damage
        yield unreadable(path, None, error)


def _whole(reader: Callable[..., Iterator[Item | Part]], place: Place) -> Iterator[Item | Part]:
    """An archive that is a file."""
    try:
        if not stat.S_ISREG(place.path.stat().st_mode):  # a pipe would be waited for
            raise OSError(None, _LINK)
        with place.path.open("rb") as file:
            yield from reader(file, place, place.path.name)
    except Exception as error:  # noqa: BLE001 - damaged archives raise whatever their readers do
        yield place.refused(None, "bad_archive", error)


# --- members --------------------------------------------------------------------------------------


def _member(place: Place, name: str, size: int, open_member: Open) -> Iterator[Item]:
    """What one member gives. size: what the archive says of its bytes."""
    if name.lower().endswith(wrapped.ENDINGS):
        if size > item.REPLAY_BYTES_MAX:
            yield too_large(place.path, place.member(name))
        else:
            yield _read_member(place, name, size, open_member)
    elif not is_archive(name):
        place.passed.add(name)
    elif place.inner is not None:
        yield place.refused(name, "nested_archive", _NESTED_TOO_DEEP)
    else:
        yield from _nested(place, name, size, open_member)


def _read_member(place: Place, name: str, size: int, open_member: Open) -> Item:
    member = place.member(name)
    place.hold.take(size)
    try:
        with open_member() as file:
            data = file.read(item.REPLAY_BYTES_MAX + 1)
        if wrapped.is_wrapped(name):
            return _unwrapped(place, name, member, data)
    except Exception as error:  # noqa: BLE001 - see _whole
        return unreadable(place.path, member, error)
    return replay(place.path, member, data)


def _unwrapped(place: Place, name: str, member: str | None, data: bytes) -> Item:
    """A replay out of its own packing; room is taken for what it says it will be."""
    if len(data) > item.REPLAY_BYTES_MAX:
        return too_large(place.path, member)
    for size in (wrapped.size_hint(name, data), item.REPLAY_BYTES_MAX):
        place.hold.take(len(data) + size)
        unpacked = wrapped.unwrap(name, data, size)
        if len(unpacked) <= size:
            break
    return replay(place.path, member, unpacked)


def _nested(place: Place, name: str, size: int, open_member: Open) -> Iterator[Item]:
    """The replays of an archive inside an archive."""
    inside = place.inside(name)
    reader = _reader(name)
    if reader is _unknown:
        yield from _unknown(None, inside, name)
        return
    try:
        with open_member() as file:
            if reader is _tar:
                yield from _tar(file, inside, name, size)
                return
            with tempfile.TemporaryFile() as copy:
                _spool(file, copy, size, place.room.check)
                yield from reader(copy, inside, name)
    except _NoRoomError as error:
        yield place.refused(name, "nested_archive", str(error))
    except Exception as error:  # noqa: BLE001 - see _whole
        yield inside.refused(None, "bad_archive", error)


class _NoRoomError(Exception):
    """An inner archive is larger than what is copied."""


def _spool(file: IO[bytes], copy: IO[bytes], size: int, check: Callable[[], None]) -> None:
    """Copy an inner archive to where it can be read from its end."""
    free = shutil.disk_usage(tempfile.gettempdir()).free - FREE_BYTES_MIN
    limit = min(NESTED_BYTES_MAX, free)
    copied = 0
    while size <= limit and (chunk := file.read(_CHUNK)):
        check()
        copied += len(chunk)
        if copied > limit:
            break
        copy.write(chunk)
    if max(size, copied) > limit:
        raise _NoRoomError(f"{max(size, copied)} bytes: unpack the outer one")
    copy.seek(0)


# --- kinds ----------------------------------------------------------------------------------------


def _zip(
    file: IO[bytes], place: Place, _name: str, share: tuple[int, int] = (0, 1)
) -> Iterator[Item]:
    """Every n-th member, so that n threads may read one archive."""
    from ingest.sources import zips

    first, step = share
    gauge = Gauge(file.seek(0, 2))
    try:
        for n, member in enumerate(zips.members(file)):
            place.room.check()
            if n % step != first or member.is_folder:
                continue
            if member.size <= item.REPLAY_BYTES_MAX or is_archive(member.name):
                gauge.add(member.size)
            if is_known(member.name) and member.is_link:
                yield place.refused(member.name, "bad_member", _LINK)
                continue
            open_member = partial(zips.open_member, file, member)
            yield from _member(place, member.name, member.size, open_member)
    except (zips.ZipError, BombError) as error:
        if first == 0 or isinstance(error, BombError):
            yield place.refused(None, "bad_archive", error)


def _tar(file: IO[bytes], place: Place, name: str, size: int | None = None) -> Iterator[Item]:
    from ingest.sources import tars

    gauge = Gauge(file.seek(0, 2) if size is None else size)
    if size is None:
        file.seek(0)
    for entry, open_member in tars.members(file, name, place.room.check, gauge):
        if entry.isdir():
            continue
        if is_known(entry.name) and not entry.isreg():
            yield place.refused(entry.name, "bad_member", _LINK)
            continue
        yield from _member(place, entry.name, entry.size, open_member)


def _seven_zip(file: IO[bytes], place: Place, _name: str) -> Iterator[Item]:
    from ingest.sources import seven_zip  # py7zr takes 0.2 s to import, and workers need none

    blocks, empty = seven_zip.read_list(file)
    yield from _empty(place, empty)
    yield from _blocks(blocks, len(blocks), file, place, _name)


def _seven_zip_parts(file: IO[bytes], place: Place, _name: str) -> Iterator[Item | Part]:
    """The same for an archive that is a file: its blocks are read by several threads."""
    from ingest.sources import seven_zip

    blocks, empty = seven_zip.read_list(file)
    n_blocks = len(blocks)
    yield from _empty(place, empty)
    while blocks:
        n, size = 0, 0
        while n < len(blocks) and (not n or size + blocks[n].packed <= _BLOCKS_BYTES):
            size += blocks[n].packed
            n += 1
        yield partial(_whole, partial(_blocks, blocks[:n], n_blocks))
        blocks = blocks[n:]


def _empty(place: Place, names: list[str]) -> Iterator[Item]:
    for name in names:
        yield from _member(place, name, 0, io.BytesIO)


def _blocks(
    blocks: "list[Block]", n_blocks: int, file: IO[bytes], place: Place, _name: str
) -> Iterator[Item]:
    for block in blocks:
        known = [is_known(member.name) for member in block.members]
        for member, kept in zip(block.members, known, strict=True):
            if not kept:
                place.passed.add(member.name)
        if any(known):
            yield from _block(block, n_blocks, file, place)


def _block(block: "Block", n_blocks: int, file: IO[bytes], place: Place) -> Iterator[Item]:
    """One block. Damage costs its rest: one item at the member where it begins says how much."""
    from ingest.sources import seven_zip

    rest = deque(member.name for member in block.members if is_known(member.name))
    memory = 0
    try:
        Gauge(block.packed).add(sum(member.size for member in block.members))
        needed = seven_zip.dictionary_bytes(block)
        if any(member.name.lower().endswith(".7z") for member in block.members):
            # To wait for another dictionary while holding one is for ever, where two do so.
            needed = DICTIONARY_BYTES_MAX
        place.dictionaries.take(needed)
        memory = needed
        inside = replace(place, dictionaries=Room(DICTIONARY_BYTES_MAX))
        for member, open_member in seven_zip.members(file, block, place.room.check):
            if not is_known(member.name):
                continue
            if member.is_link:
                yield place.refused(member.name, "bad_member", _LINK)
            else:
                yield from _member(inside, member.name, member.size, open_member)
            rest.popleft()
            if not rest:
                return  # what comes after is not unpacked
    except Exception as error:  # noqa: BLE001 - see _whole
        where = f"{len(rest)} files from here on, in block {block.number} of {n_blocks}"
        yield place.refused(rest[0], "bad_archive", f"{where}: {item.line(error)}")
    finally:
        place.dictionaries.give(memory)


def _unknown(_file: IO[bytes] | None, place: Place, _name: str) -> Iterator[Item]:
    yield place.refused(None, "bad_archive", "this kind of archive is not read; unpack it")


_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_READERS: dict[tuple[str, ...], Callable[..., Iterator[Item]]] = {
    (".zip",): _zip,
    (".7z",): _seven_zip,
    _TARS: _tar,
    (".rar",): _unknown,
}
_ENDINGS = tuple(ending for endings in _READERS for ending in endings)
FORMS: dict[tuple[str, ...], str] = {
    wrapped.ENDINGS: "one replay, plain or packed by itself (.slpz: AlexanderHarrison/slpz)",
    (".zip",): "archive; large ones are read by several threads, cut ones as far as they go",
    (".7z",): "archive, solid ones in one pass, several blocks by several threads; dictionaries up"
    f" to {DICTIONARY_BYTES_MAX // 2**20} MB",
    _TARS: "archive, read in one pass",
    (".rar",): "named in the ledger and left",
}
"""Endings of what is looked at in folders and archives, what becomes of it: for docs/data.md."""
