"""The Arrow schema of a game file, built from the column table; its leaf names, and reading it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.columns import FRAME, ITEM, PLAYER, STAGE, Column

SIDES = ("p0", "p1")
FOOTER_KEY = b"meleewm"
REVISION = 2
"""Raised by hand when schema or parser rules change stored values; the same in every store."""


def struct_type(columns: Iterable[Column], extra: Iterable[pa.Field] = ()) -> pa.DataType:
    """A struct of these columns, all nullable."""
    return pa.struct([pa.field(c.name, c.type) for c in columns] + list(extra))


PLAYER_TYPE = struct_type(PLAYER, [pa.field("follower", struct_type(PLAYER))])
ITEMS_TYPE = pa.list_(struct_type(ITEM))
STAGE_TYPE = struct_type(STAGE)

FULL = pa.schema(
    [pa.field(c.name, c.type) for c in FRAME]
    + [pa.field(side, PLAYER_TYPE) for side in SIDES]
    + [pa.field("stage", STAGE_TYPE), pa.field("items", ITEMS_TYPE)]
)
"""Every leaf of every version. A file has every top-level column; it leaves out nested leaves that
its version (or its characters: `follower`) cannot fill."""


def leaves(schema: pa.Schema) -> list[str]:
    """Dotted leaf names in file order, as parquet has them: `items.list.element.id`."""
    found: list[str] = []

    def walk(prefix: str, dtype: pa.DataType) -> None:
        if pa.types.is_struct(dtype):
            for field in dtype:
                walk(f"{prefix}.{field.name}", field.type)
        elif pa.types.is_list(dtype):
            walk(f"{prefix}.list.element", dtype.value_type)
        else:
            found.append(prefix)

    for field in schema:
        walk(field.name, field.type)
    return found


def read_columns(parquet: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A game file's rows, or some of its columns ('p0' or 'p0.percent' alike) in file order.

    Leaves that the game lacks are left out. Raises pa.ArrowException or OSError for other bytes.
    """
    # pq.ParquetFile indexes all prefixes of all leaves first: a ninth of the time of reading all,
    # a seventh of that of a view. One read of the whole file beats one a leaf by a tenth.
    reader = pq.ParquetReader()
    reader.open(pa.BufferReader(parquet))
    chosen = None
    if columns is not None:
        chosen = _chosen(tuple(map(".".join, reader.column_paths)), tuple(columns))
    return reader.read_all(column_indices=chosen, use_threads=False)


@lru_cache(maxsize=256)
def _chosen(paths: tuple[str, ...], columns: tuple[str, ...]) -> list[int]:
    """Which leaves are, or lie within, one of these columns; many games share their leaves."""
    within = tuple(f"{column}." for column in columns)
    return [
        number for number, path in enumerate(paths) if path in columns or path.startswith(within)
    ]


def column_of(leaf: str) -> Column:
    """The table row behind a leaf name.

    Raises KeyError for a name that no row stands for.
    """
    head, *rest = leaf.split(".")
    group = {"p0": PLAYER, "p1": PLAYER, "items": ITEM, "stage": STAGE}.get(head, FRAME)
    name = rest[-1] if rest else head
    for column in group:
        if column.name == name:
            return column
    raise KeyError(leaf)
