"""Where things lie in a store folder, and how a file gets there whole; knows no contents."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import StoreError, UsageError
from schemas.game import REVISION
from store.parquet import anchor_bytes

FORMAT = 1
"""Format of stores that this code makes, and the newest one that it reads."""
_MARKER = "store.json"


@dataclass(frozen=True)
class Layout:
    """Paths of one store; see `open_layout`."""

    root: Path

    @property
    def marker(self) -> Path:
        """`store.json`: the format, and the oldest format of code that may read it."""
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
    return layout


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either there, whole and durable, or not there at all."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _create(layout: Layout) -> None:
    """Make an empty store; several processes may do so at once, so the marker comes last."""
    parts = (layout.marker, layout.anchor, layout.games, layout.tables, layout.datasets)
    ours = {path.name for path in parts}
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in layout.root.iterdir())
        strangers = [name for name in names if name not in ours and not name.endswith(".part")]
        if strangers:
            message = f"{layout.root} is no store, and not empty: {strangers[0]} is in it"
            raise UsageError(message, "name a new folder")
        for folder in (layout.games, layout.tables, layout.datasets):
            folder.mkdir(exist_ok=True)
        write_atomic(layout.anchor, anchor_bytes())
        write_atomic(layout.marker, json.dumps({"format": FORMAT, "min_reader": FORMAT}).encode())
    except OSError as error:
        raise UsageError(f"cannot make a store at {layout.root}: {error.strerror}") from error


def _check_format(layout: Layout) -> None:
    try:
        marker = json.loads(layout.marker.read_bytes())
        min_reader = int(marker["min_reader"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{layout.marker} cannot be read: {error}") from error
    if min_reader > FORMAT:
        message = f"{layout.root} is a store of format {marker.get('format')}, we read {FORMAT}"
        raise StoreError(message, "use a newer meleewm")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
