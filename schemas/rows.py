"""From a game file's table to the rows of a view: the one place where features meet data.

Opens no file: the caller hands over a table with at least `View.columns`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import PLAYER
from schemas.features import (
    FORMULAS,
    INT_FORMULAS,
    ITEM_LEAVES,
    ITEM_SOURCES,
    Array,
    Feature,
    IntFeature,
    Module,
    View,
)
from schemas.game import FOOTER_KEY, SIDES

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int16]

ITEM_SLOTS = 15
Leaves = Mapping[str, pa.Array]
_TYPES = {c.name: pa.array([], c.type).to_numpy().dtype for c in PLAYER}


@dataclass(frozen=True)
class Rows:
    """One game in one view, T frames, the first player of the row being `side`.

    floats: (T, F) float32, scaled. ints: (T, I) int16. frame: (T,) int32, the console's numbers.
    usable: (T,) bool, false where a value that every version records is null (a cut-off frame);
    no window may contain such a row.
    missing: feature -> player-frames on which its stand-in stands.
    not_finite: feature -> player-frames whose NaN or infinity became 0.
    Both arrays may be transposed views: copy them where order in memory matters.
    """

    floats: Floats
    ints: Ints
    frame: npt.NDArray[np.int32]
    usable: npt.NDArray[np.bool_]
    missing: dict[str, int] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)

    def swapped(self) -> "Rows":
        """The same game seen from the other player."""
        half, ids = self.floats.shape[1] // 2, self.ints.shape[1] // 2
        floats = np.concatenate((self.floats[:, half:], self.floats[:, :half]), axis=1)
        ints = np.concatenate(
            (self.ints[:, ids : 2 * ids], self.ints[:, :ids], self.ints[:, 2 * ids :]), axis=1
        )
        return Rows(floats, ints, self.frame, self.usable, self.missing, self.not_finite)


def game_rows(table: pa.Table, view: View, *, swap: bool = False, stage: int | None = None) -> Rows:
    """Rows of one game in a view: the lower port first, the higher one with `swap`.

    table: T frames of a game file (`View.columns` at least); leaves its version lacks are absent.
    stage: external id; by default the one in the file's footer.
    Never raises for a missing leaf: its stand-in is used and counted in `missing`.
    """
    reader = _Reader(table, view)
    for block, side in enumerate(reversed(SIDES) if swap else SIDES):
        reader.encode(block, side)
    reader.encode_stage(stage_of(table) if stage is None else stage)
    return reader.rows()


def stage_of(table: pa.Table) -> int | None:
    """External stage id from a game file's footer; None where there is no footer."""
    footer = json.loads((table.schema.metadata or {}).get(FOOTER_KEY, b"{}"))
    stage = footer.get("start", {}).get("stage")
    return stage if isinstance(stage, int) else None


class _Reader:
    """Encodes one game column by column; rows come out as the transpose of what is filled here.

    Column-major filling keeps every numpy operation contiguous; the one transposing copy is the
    pool's own write.
    """

    def __init__(self, table: pa.Table, view: View) -> None:
        self.table, self.view, self.n = table, view, table.num_rows
        self.floats = np.empty((view.n_float, self.n), np.float32)
        self.ints = np.empty((view.n_int, self.n), np.int16)
        self.usable = np.ones(self.n, np.bool_)
        self.missing: dict[str, int] = {}
        self.items = _ItemColumns(table) if view.uses_items else None

    def encode(self, block: int, side: str) -> None:
        """Fill one player's block."""
        leaves = _children(self.table.column(side))
        items = self.items.columns(leaves) if self.items else {}
        n_float, n_int = len(self.view.floats), len(self.view.ints)
        with np.errstate(all="ignore"):  # what overflows or is NaN is counted in `rows`
            for at, feature in enumerate(self.view.floats, block * n_float):
                value = self._value(leaves, items, feature)
                self.floats[at] = FORMULAS[feature.how](np, value, feature)
            for at, id_feature in enumerate(self.view.ints, block * n_int):
                value = self._value(leaves, items, id_feature)
                self.ints[at] = INT_FORMULAS[id_feature.how](np, value, id_feature)

    def encode_stage(self, stage: int | None) -> None:
        """Fill the last id column."""
        if stage is None:
            self.missing["stage"] = self.n
        self.ints[-1] = INT_FORMULAS["id"](np, stage or 0, self.view.stage)

    def rows(self) -> Rows:
        """What has been filled, with NaN and infinities replaced by 0 and counted."""
        frame = _flat(self.table.column("frame")).to_numpy()
        not_finite = _mend(self.floats, self.view)
        return Rows(self.floats.T, self.ints.T, frame, self.usable, self.missing, not_finite)

    def _value(
        self, leaves: Leaves, items: Mapping[str, Floats], feature: Feature | IntFeature
    ) -> Array:
        """The raw values (T,), or one stand-in (1,) that broadcasts."""
        if feature.source in items:
            return items[feature.source]
        leaf = leaves.get(feature.source)
        if leaf is None:
            self._count_missing(feature, self.n)
            return np.full(1, feature.stand_in, _TYPES.get(feature.source, np.float32))
        if leaf.null_count:
            self._count_missing(feature, leaf.null_count)
            if feature.since == (0, 1):
                self.usable &= leaf.is_valid().to_numpy(zero_copy_only=False)
            leaf = pc.fill_null(leaf, pa.scalar(feature.stand_in, leaf.type))
        return leaf.to_numpy()

    def _count_missing(self, feature: Feature | IntFeature, frames: int) -> None:
        self.missing[feature.name] = self.missing.get(feature.name, 0) + frames


def _mend(columns: Floats, view: View) -> dict[str, int]:
    with np.errstate(all="ignore"):
        if np.isfinite(columns.sum()):  # NaN and infinity survive a sum
            return {}
    found: dict[str, int] = {}
    for at, feature in enumerate((*view.floats, *view.floats)):
        bad = ~np.isfinite(columns[at])
        if count := int(bad.sum()):
            found[feature.name] = found.get(feature.name, 0) + count
            columns[at][bad] = 0
    return found


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _children(column: pa.ChunkedArray) -> dict[str, pa.Array]:
    struct = _flat(column)
    names = [child.name for child in struct.type]
    # flatten() carries the struct's own nulls into its children, field() does not.
    fields = struct.flatten() if struct.null_count else map(struct.field, range(len(names)))
    return dict(zip(names, fields, strict=True))


# --- items ------------------------------------------------------------------------------------


class _ItemColumns:
    """The nearest item of a player and the number of items, for the frames that have any."""

    def __init__(self, table: pa.Table) -> None:
        lists = _flat(table.column("items")) if "items" in table.column_names else None
        self.n = table.num_rows
        leaves: set[str] = set() if lists is None else {f.name for f in lists.type.value_type}
        self.present = leaves.issuperset(ITEM_LEAVES)
        if self.present:
            self._spread(lists)

    def _spread(self, lists: pa.ListArray) -> None:
        """Put the item rows into (slots, frames with items) arrays; overflowed items have none."""
        items = lists.flatten()
        slot, x, y = (pc.fill_null(items.field(leaf), -1).to_numpy() for leaf in ITEM_LEAVES)
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        seen = (slot >= 0) & (slot < ITEM_SLOTS)
        frame_of_item = np.repeat(np.arange(self.n), counts)[seen]
        self.frames, at = np.unique(frame_of_item, return_inverse=True)
        shape = (int(slot[seen].max(initial=-1)) + 1, len(self.frames))
        self.exists = np.zeros(shape, np.bool_)
        self.x, self.y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        where = (slot[seen], at)
        self.exists[where], self.x[where], self.y[where] = True, x[seen], y[seen]

    def columns(self, leaves: Leaves) -> dict[str, Floats]:
        """(T,) float32 of every item source, for the player with these leaves; 0 without items.

        Empty where the version records no items, so that they count as missing.
        """
        if not self.present:
            return {}
        out = {source: np.zeros(self.n, np.float32) for source in ITEM_SOURCES}
        if len(self.frames) and {"position_x", "position_y"} <= leaves.keys():
            own = [leaves[f"position_{axis}"].to_numpy(zero_copy_only=False) for axis in "xy"]
            x, y = (position[self.frames] for position in own)
            found = nearest_item(np, self.exists, (self.x, self.y), (x, y))
            for source, value in zip(ITEM_SOURCES, found, strict=True):
                out[source][self.frames] = value
        return out


def nearest_item(
    xp: Module, exists: Array, items: tuple[Array, Array], own: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Offset to the nearest item and the number of items.

    exists, items: (slots, T); own: the player's x and y, (T,). The lowest slot wins a tie; items
    farther than a million units do not count. Any item counts, one's own and the stage's too.
    """
    best = xp.full(own[0].shape, 1e6, dtype=xp.float32)
    best_x, best_y = xp.zeros_like(best), xp.zeros_like(best)
    for slot in range(len(exists)):
        dx, dy = items[0][slot] - own[0], items[1][slot] - own[1]
        distance = xp.sqrt(dx * dx + dy * dy)
        closer = exists[slot] & (distance < best)
        best = xp.where(closer, distance, best)
        best_x, best_y = xp.where(closer, dx, best_x), xp.where(closer, dy, best_y)
    return best_x, best_y, exists.sum(0)
