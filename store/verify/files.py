"""One game file against its row, and the disk against the catalog's list of files."""

import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import StoreError
from schemas.game import FULL, SIDES
from schemas.records import version_number
from store.layout import Layout
from store.parquet import leaf_set, read_whole
from store.verify.columns import Columns
from store.verify.findings import Finding

Row = Mapping[str, Any]

FILE_COLUMNS = (
    "rev, n_frames, first_frame, last_frame, stretches, version, stage_id, leaf_set,"
    " parquet_bytes, parquet_sha256, parquet_crc32"
)
"""What `check_file` compares a game file with, beside its game_id (32 hex digits)."""
GAME_FILE = re.compile(r"([0-9a-f]{32})\.(\d+)\.parquet")
REMOVED_FILE = re.compile(r"([0-9a-f]{32})\.removed")
_SYNC_PART = re.compile(r"\..*\.[0-9a-f]{8}\.part")


def check_size(layout: Layout, row: Row) -> Iterator[Finding]:
    """Whether a game file is there with the size that it was written with."""
    path = layout.game_path(row["game_id"], row["rev"])
    where = str(path.relative_to(layout.root))
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        yield Finding("missing", where, "the catalog has it, the disk has not", row["game_id"])
        return
    if size != row["parquet_bytes"]:
        detail = f"{size} bytes instead of {row['parquet_bytes']}"
        yield Finding("size", where, detail, row["game_id"])


def check_file(layout: Layout, row: Row, seen: Columns | None = None) -> Iterator[Finding]:
    """What is wrong with a game file, most telling first; a sound one is counted in `seen`."""
    path = layout.game_path(row["game_id"], row["rev"])
    where, game_id = str(path.relative_to(layout.root)), row["game_id"]
    wrong = list(check_size(layout, row))
    if wrong:
        yield from wrong
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        yield Finding("unreadable", where, error.strerror or str(error), game_id)
        return
    sha256, crc32 = hashlib.sha256(data).digest(), zlib.crc32(data)
    if sha256 != row["parquet_sha256"] or crc32 != row["parquet_crc32"]:
        yield Finding("checksum", where, "its bytes are not those that were written", game_id)
        return
    try:
        table, footer = read_whole(data)
    except StoreError as error:
        yield Finding("unreadable", where, error.message, game_id)
        return
    wrong = [Finding("schema", where, detail, game_id) for detail in _unlike(table, footer, row)]
    yield from wrong
    if seen is not None and not wrong:
        seen.add_game(game_id, table, row["version"], row["stage_id"])


def _unlike(table: pa.Table, footer: Mapping[str, Any], row: Row) -> Iterator[str]:
    """In what a game file is not as its row says."""
    if table.column_names != FULL.names:
        yield f"top-level columns {table.column_names}"
        return
    if leaf_set(table.schema) != row["leaf_set"]:
        yield f"its leaves are not those of set {row['leaf_set']}"
    yield from _unlike_footer(footer, row)
    frames = table.column("frame").to_numpy()
    if len(frames) != row["n_frames"]:
        yield f"{len(frames)} frames instead of {row['n_frames']}"
    elif len(frames):
        steps = np.diff(frames.astype(np.int64))  # damaged replays have frames 2**32 apart
        if (steps < 1).any():
            yield "its frame numbers do not grow"
        ends = [int(frames[0]), int(frames[-1])]
        if ends != [row["first_frame"], row["last_frame"]]:
            yield f"frames {ends[0]} to {ends[1]}, not {row['first_frame']} to {row['last_frame']}"
        if _stretches(steps) != row["stretches"]:
            yield "its runs of consecutive frames are not those of its row"
    for side in SIDES:
        ports = {
            port
            for chunk in table.column(side).chunks
            for port in chunk.drop_null().field("port").unique().to_pylist()
        }
        if len(ports) > 1:
            yield f"{side} is on several ports: {sorted(ports)}"


def _unlike_footer(footer: Mapping[str, Any], row: Row) -> Iterator[str]:
    try:
        start = footer["start"]
        told = footer["rev"], version_number(*start["slippi"]["version"]), start["stage"]
    except (KeyError, TypeError) as error:
        yield f"its footer is not whole: {error!r}"
        return
    for name, value in zip(("rev", "version", "stage_id"), told, strict=True):
        if value != row[name]:
            yield f"its footer says {name} {value}, its row {row[name]}"


def _stretches(steps: npt.NDArray[Any]) -> list[int]:
    ends = np.append(np.flatnonzero(steps != 1), len(steps))
    return [int(n) for n in np.diff(ends, prepend=-1)]


def on_disk(layout: Layout) -> Iterator[tuple[Path, str]]:
    """(path, kind) of every file among the game files: game, removed, part, stranger; sorted."""
    for folder, folders, names in os.walk(layout.games):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _kind(layout, path)


def _kind(layout: Layout, path: Path) -> str:
    if _SYNC_PART.fullmatch(path.name):
        return "part"
    for kind, pattern in (("game", GAME_FILE), ("removed", REMOVED_FILE)):
        found = pattern.fullmatch(path.name)
        if found and path.parent == layout.games / found[1][:2]:
            return kind
    return "stranger"
