"""The golden games of reference/golden/encodings.npz as game-file tables."""

import json
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.columns import ITEM, PLAYER
from schemas.game import FOOTER_KEY
from tests.conftest import SHARED, require

PATH = SHARED / "reference" / "golden" / "encodings.npz"
N_GAMES = 16


@cache
def golden() -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of the file; skips the test where the file is not there."""
    require(PATH.exists(), "golden numbers: ../shared/reference/golden/encodings.npz")
    with np.load(PATH) as arrays:
        return dict(arrays)


def rows_of(game: int) -> np.ndarray[Any, Any]:
    """Row numbers of one game in the golden arrays."""
    return np.flatnonzero(golden()["row.game"] == game)


def game_table(game: int) -> pa.Table:
    """A golden game as ingest would store it: only the leaves its version has, stage in the footer.

    Rows come in short runs of consecutive frames.
    """
    arrays, rows = golden(), rows_of(game)
    columns = {
        "frame": pa.array(arrays["row.frame"][rows]),
        "p0": _player("p0", game, rows),
        "p1": _player("p1", game, rows),
        "items": _items(game, rows),
    }
    footer = {"start": {"stage": int(arrays["game.stage"][game])}}
    return pa.table(columns).replace_schema_metadata({FOOTER_KEY: json.dumps(footer)})


def _player(side: str, game: int, rows: np.ndarray[Any, Any]) -> pa.StructArray:
    arrays = golden()
    leaves = {}
    for column in PLAYER:
        raw = arrays.get(f"raw.{side}.{column.source}")
        if raw is not None and arrays[f"have.{column.source}"][game]:
            # misc_as is kept as its bits, since its NaNs carry meaning
            values = raw[rows].view(np.float32) if column.name == "misc_as" else raw[rows]
            leaves[column.name] = pa.array(values, column.type)
    return pa.StructArray.from_arrays(list(leaves.values()), list(leaves))


def _items(game: int, rows: np.ndarray[Any, Any]) -> pa.ListArray:
    arrays = golden()
    exists = arrays["src.items.exists"][rows] > 0
    offsets = np.concatenate(([0], exists.sum(1).cumsum())).astype(np.int32)
    if not arrays["have.items"][game]:
        empty = pa.struct([])
        return pa.ListArray.from_arrays(pa.array(offsets * 0), pa.array([], empty))
    slots = np.broadcast_to(np.arange(15), exists.shape)[exists]
    types = {c.name: c.type for c in ITEM}
    leaves = {
        "slot": pa.array(slots, types["slot"]),
        "position_x": pa.array(arrays["src.items.x"][rows][exists]),
        "position_y": pa.array(arrays["src.items.y"][rows][exists]),
    }
    items = pa.StructArray.from_arrays(list(leaves.values()), list(leaves))
    return pa.ListArray.from_arrays(pa.array(offsets), items)
