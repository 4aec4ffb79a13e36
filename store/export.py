"""A dataset as a folder that needs no service: the same shards, members and manifest.

DIR/shards/00000.tar …, DIR/members.parquet, DIR/dataset.lock, and DIR/manifest.json last: where it
stands, everything stands.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from schemas.errors import StoreError, UsageError
from schemas.shard import Lock, Manifest, Member, shard_name
from store.layout import Layout, write_atomic
from store.select import Selection
from store.shards import FileSpan, VirtualTar

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all)"""


def export(
    layout: Layout, selection: Selection, out: Path, progress: Progress | None = None
) -> Manifest:
    """Write a dataset into a folder; a second call goes on where the first one ended.

    Raises UsageError where the folder holds another dataset, StoreError naming a game file whose
    bytes are not those that the catalog knows.
    """
    _claim(out, selection)
    manifest = selection.manifest()
    done = 0
    for shard, members in zip(manifest.shards, selection.shards, strict=True):
        path = out / "shards" / shard_name(shard.n)
        tar = VirtualTar(layout, members)
        if not _is_whole(path, tar, members):
            _write(path, tar, members)
        done += shard.bytes
        if progress:
            progress(done, manifest.bytes)
    write_atomic(out / "members.parquet", selection.members_parquet())
    write_atomic(out / "manifest.json", manifest.to_json().encode())
    return manifest


def _claim(out: Path, selection: Selection) -> None:
    """Make the folder this dataset's, unless it is something else already."""
    lock = out / "dataset.lock"
    if lock.exists():
        held = Lock.from_json(lock.read_bytes()).dataset_id
        if held != selection.dataset_id:
            raise UsageError(f"{out} holds another dataset ({held})", "name a new folder")
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no dataset", "name a new folder")
    (out / "shards").mkdir(parents=True, exist_ok=True)
    if not lock.exists():
        write_atomic(lock, selection.lock().to_json().encode())


def _is_whole(path: Path, tar: VirtualTar, members: Sequence[Member]) -> bool:
    """Whether a shard from an earlier call is there with every byte right."""
    if not path.exists() or path.stat().st_size != tar.size:
        return False
    with path.open("rb") as file:
        crcs = iter(member.parquet_crc32 for member in members)
        for span in tar.spans():
            if isinstance(span, FileSpan):
                if zlib.crc32(file.read(span.length)) != next(crcs):
                    return False
            elif file.read(len(span)) != span:
                return False
    return True


def _write(path: Path, tar: VirtualTar, members: Sequence[Member]) -> None:
    """One shard, whole or not at all under its name."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        for chunk in _checked(tar, members):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _checked(tar: VirtualTar, members: Sequence[Member]) -> Iterator[bytes]:
    """The tar's bytes; a game file that changed since its commit is not passed on."""
    crcs = iter(members)
    start = 0
    for span in tar.spans():
        length = span.length if isinstance(span, FileSpan) else len(span)
        crc = 0
        for chunk in tar.read(start, start + length):
            crc = zlib.crc32(chunk, crc)
            yield chunk
        start += length
        if isinstance(span, FileSpan) and (member := next(crcs)).parquet_crc32 != crc:
            message = f"game file {member.game_id} is damaged: its checksum is wrong"
            raise StoreError(message, "run meleewm verify")
