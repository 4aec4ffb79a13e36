"""Game files as bytes: the writer's settings and the footer; knows nothing of replays or paths.

One row group, no statistics, no page index, no Arrow schema, encoding and zstd leaf by leaf from
the column table: a third smaller and twice as fast to read as the defaults. Never
BYTE_STREAM_SPLIT on integers: DuckDB 1.5 cannot read it.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StoreError
from schemas.game import FOOTER_KEY, FULL, column_of, leaves, read_columns

# On split bytes level 3 saves 2 %; on all else nothing, and it takes a tenth of the writer's time.
# Level 6 saves 5 % of all bytes and costs 30 % of the speed.
# Dictionaries go without: a whole file reads in 0.8 of the time, at 4 % more bytes (nearly all of
# them in sticks and triggers: indices of columns that change little are as small).
_ZSTD_LEVELS = {"split": 3, "delta": 1, "plain": 1}
_ENCODINGS = {"split": "BYTE_STREAM_SPLIT", "delta": "DELTA_BINARY_PACKED", "plain": "PLAIN"}


def encode_game(table: pa.Table, footer: dict[str, Any]) -> bytes:
    """The bytes of a game file.

    table: one row a frame, top-level columns of schemas.game.FULL in its order; nested leaves that
    the game lacks left out. footer: plain JSON values, kept under the key `meleewm`.
    """
    assert table.column_names == FULL.names, table.column_names
    text = json.dumps(footer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        **_by_leaf(table.schema.remove_metadata()),
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=max(len(table), 1))
        writer.add_key_value_metadata({FOOTER_KEY: text.encode()})
    return bytes(sink.getvalue())


@lru_cache(maxsize=256)
def _by_leaf(schema: pa.Schema) -> dict[str, Any]:
    """The writer's settings that differ from leaf to leaf; many games share a schema.

    schema: without metadata, with which it has no hash.
    """
    by_leaf = {leaf: column_of(leaf).encoding for leaf in leaves(schema)}
    levels = {
        leaf: _ZSTD_LEVELS[encoding]
        for leaf, encoding in by_leaf.items()
        if encoding in _ZSTD_LEVELS
    }
    return {
        "compression": {leaf: "zstd" if leaf in levels else "none" for leaf in by_leaf},
        "compression_level": levels,
        "use_dictionary": [leaf for leaf, encoding in by_leaf.items() if encoding == "dictionary"],
        "column_encoding": {
            leaf: _ENCODINGS[encoding]
            for leaf, encoding in by_leaf.items()
            if encoding != "dictionary"
        },
    }


def read_game(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a game file, or some of its columns ('p0' or 'p0.percent' alike).

    Raises StoreError where the bytes are no parquet file.
    """
    try:
        return read_columns(source if isinstance(source, bytes) else source.read_bytes(), columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(source, error) from error


def read_footer(source: Path | bytes) -> dict[str, Any]:
    """What the game file says about its replay: start, end, metadata, repairs, versions.

    Raises StoreError where the file is damaged or not one of ours.
    """
    with _open(source) as file:
        return _footer(source, file)


def _footer(source: Path | bytes, file: pq.ParquetFile) -> dict[str, Any]:
    metadata = file.metadata.metadata or {}
    try:
        footer = json.loads(metadata[FOOTER_KEY])
    except (KeyError, ValueError) as error:
        raise _damaged(source, error) from error
    if not isinstance(footer, dict):
        raise _damaged(source, TypeError("its footer is no object"))
    return footer


def read_whole(source: Path | bytes) -> tuple[pa.Table, dict[str, Any]]:
    """All of a game file: its table and its footer. Raises StoreError as those two do."""
    with _open(source) as file:
        try:
            table = file.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(source, error) from error
        return table, _footer(source, file)


def anchor_bytes() -> bytes:
    """A game file without rows that has every leaf."""
    return encode_game(FULL.empty_table(), {})


def leaf_set(schema: pa.Schema) -> str:
    """8 hex digits that are equal for files with the same leaves: they scan without a union."""
    return _leaf_set(schema.remove_metadata())


@lru_cache(maxsize=256)
def _leaf_set(schema: pa.Schema) -> str:
    return hashlib.sha256("\n".join(leaves(schema)).encode()).hexdigest()[:8]


def _open(source: Path | bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(source, error) from error


def _damaged(source: Path | bytes, error: Exception) -> StoreError:
    what = "these bytes are" if isinstance(source, bytes) else f"{source} is"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StoreError(f"{what} no whole game file: {reason}", "meleewm verify names damaged files")
