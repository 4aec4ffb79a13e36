"""Where things lie in a store folder, and how a file gets there whole; knows no contents."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from schemas.errors import StoreError, UsageError
from schemas.game import REVISION
from store.parquet import anchor_bytes, read_footer

FORMAT = 1
"""Format of stores that this code makes, and the newest one that it reads."""
_MARKER = "store.json"
PLAIN = "plain"
"""What a store says of its names where nothing took their place."""
_PART = ".part"


@dataclass(frozen=True)
class Layout:
    """Paths of one store; see `open_layout`."""

    root: Path

    @property
    def marker(self) -> Path:
        """`store.json`: the format, the oldest format of code that may read it, and what became of
        names (see `names_kept`)."""
        return self.root / _MARKER

    @property
    def games(self) -> Path:
        """Game files, in folders by the first two digits of the game id."""
        return self.root / "games"

    @property
    def catalog(self) -> Path:
        """DuckLake's metadata."""
        return self.root / "catalog.sqlite"

    @property
    def tables(self) -> Path:
        """DuckLake's data files."""
        return self.root / "tables"

    @property
    def datasets(self) -> Path:
        """What each dataset id stands for."""
        return self.root / "datasets"

    @property
    def anchor(self) -> Path:
        """A game file without rows that has every leaf: types for scans over unlike files."""
        return self.root / f"anchor.{REVISION}.parquet"

    def game_path(self, game_id: str, rev: int = REVISION) -> Path:
        """Path of a game file; game_id: 32 hex digits."""
        return self.games / game_id[:2] / f"{game_id}.{rev}.parquet"

    def removed_path(self, game_id: str) -> Path:
        """Path of the mark that keeps a removed game out of a rebuilt catalog."""
        return self.games / game_id[:2] / f"{game_id}.removed"


def open_layout(root: Path, *, create: bool = False) -> Layout:
    """Check that a folder is a store of a format that we read; `create` makes a new one.

    Raises UsageError where there is none (or something else), StoreError for another format.
    """
    layout = Layout(root)
    if not layout.marker.exists():
        if not create:
            hint = f"meleewm ingest PATH --store {root} makes one"
            raise UsageError(f"there is no store at {root}", hint)
        _create(layout)
    _check_format(layout)
    if not layout.anchor.exists():  # the store was made by an older revision
        with suppress(OSError):  # one on a read-only disk still answers without frames
            write_atomic(layout.anchor, anchor_bytes())
    return layout


def catalog_identity(layout: Layout) -> tuple[int, int]:
    """Of the catalog's file: another one after a rebuild. Raises StoreError where it is gone."""
    try:
        stat = layout.catalog.stat()
    except FileNotFoundError:
        hint = f"meleewm rebuild --store {layout.root} makes it anew from the game files"
        raise StoreError(f"{layout.catalog} is gone", hint) from None
    return stat.st_dev, stat.st_ino


def names_kept(layout: Layout) -> str:
    """How a store keeps names and connect codes: PLAIN, or the mark of the key that replaced them.

    It stands in `store.json`; where it does not (an older store, or an empty one), in the game
    files' footers under `names`.
    """
    return str(_read_marker(layout).get("names") or _found_names(layout) or PLAIN)


def settle_names(layout: Layout, names: str) -> str:
    """The same, settled as `names` where nothing was stored yet: the first ingest decides."""
    with _alone_in(layout.root):
        marker = _read_marker(layout)
        if "names" not in marker:
            marker["names"] = _found_names(layout) or names
            write_atomic(layout.marker, json.dumps(marker).encode())
        return str(marker["names"])


def _found_names(layout: Layout) -> str | None:
    """What the first whole game file says of its names; None for an empty store."""
    for path in layout.games.glob("*/*.parquet"):
        with suppress(StoreError):
            return str(read_footer(path).get("names", PLAIN))
    return PLAIN if layout.catalog.exists() else None  # a ledger without games


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either there, whole and durable, or not there at all."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    part, file = _open_part(path)
    with file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _open_part(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside `path`, locked as long as its writer lives (see `sweep_parts`)."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
        file = part.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():  # else a sweep came between the two
            return part, file
        file.close()


def sweep_parts(layout: Layout) -> int:
    """Remove what killed writers left half written; returns how many. Living ones hold a lock."""
    swept = 0
    for folder in (layout.root, layout.datasets, *layout.games.glob("*/")):
        for part in [Path(entry) for entry in os.scandir(folder) if entry.name.endswith(_PART)]:
            with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                swept += 1
    return swept


def _create(layout: Layout) -> None:
    """Make an empty store; of several processes that want to, the first does."""
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        with _alone_in(layout.root):
            if not layout.marker.exists():
                _fill(layout)
    except OSError as error:
        raise UsageError(f"cannot make a store at {layout.root}: {error.strerror}") from error


def _fill(layout: Layout) -> None:
    """What an empty store is made of; the marker comes last."""
    parts = (layout.marker, layout.anchor, layout.games, layout.tables, layout.datasets)
    ours = {path.name for path in parts}
    names = sorted(path.name for path in layout.root.iterdir())
    strangers = [name for name in names if name not in ours and not name.endswith(_PART)]
    if strangers:
        message = f"{layout.root} is no store, and not empty: {strangers[0]} is in it"
        raise UsageError(message, "name a new folder")
    for folder in (layout.games, layout.tables, layout.datasets):
        folder.mkdir(exist_ok=True)
    write_atomic(layout.anchor, anchor_bytes())
    write_atomic(layout.marker, json.dumps({"format": FORMAT, "min_reader": FORMAT}).encode())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; the folder itself is the lock, so that no file is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_marker(layout: Layout) -> dict[str, Any]:
    try:
        marker = json.loads(layout.marker.read_bytes())
        int(marker["min_reader"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{layout.marker} cannot be read: {error}") from error
    assert isinstance(marker, dict)
    return marker


def _check_format(layout: Layout) -> None:
    marker = _read_marker(layout)
    if int(marker["min_reader"]) > FORMAT:
        message = f"{layout.root} is a store of format {marker.get('format')}, we read {FORMAT}"
        raise StoreError(message, "use a newer meleewm")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "lustre", "gpfs", "beegfs", "fuse.sshfs"}


def refuse_network(folder: Path) -> None:
    """Raise StoreError for a network file system.

    SQLite's write-ahead log needs memory that all its processes share.
    """
    table = Path("/proc/self/mounts")
    if not table.exists():
        return
    target = folder.absolute().resolve()
    mounts = [line.split()[1:3] for line in table.read_text("utf-8", "replace").splitlines()]
    around = [(len(at), kind) for at, kind in mounts if target.is_relative_to(_unescaped(at))]
    kind = max(around, default=(0, ""))[1]
    if kind in _NETWORK:
        message = f"{folder} is on a network file system ({kind})"
        raise StoreError(message, "a store's catalog needs a local disk")


def _unescaped(mount: str) -> str:
    return mount.replace("\\040", " ")
