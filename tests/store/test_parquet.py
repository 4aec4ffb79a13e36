"""A game file gives back what was put in, in every encoding, and DuckDB reads it too."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import StoreError
from schemas.game import FULL, column_of, leaves
from store.parquet import anchor_bytes, encode_game, leaf_set, read_footer, read_game


def values(dtype: pa.DataType, n: int) -> pa.Array:
    """Rows of any type of a game: numbers that differ, lists of 0 to 3."""
    if pa.types.is_struct(dtype):
        return pa.StructArray.from_arrays([values(f.type, n) for f in dtype], fields=list(dtype))
    if pa.types.is_list(dtype):
        lengths = [i % 4 for i in range(n)]
        offsets = [sum(lengths[:i]) for i in range(n + 1)]
        return pa.ListArray.from_arrays(offsets, values(dtype.value_type, offsets[-1]), type=dtype)
    return pa.array([i * 7 % 120 for i in range(n)]).cast(dtype)


def full_game(n: int = 50) -> pa.Table:
    return pa.table([values(field.type, n) for field in FULL], schema=FULL)


def test_round_trip_with_footer() -> None:
    footer = {"start": {"stage": 31, "name": "ＦＯＸ＃１"}, "repairs": []}
    game = full_game()
    data = encode_game(game, footer)
    assert read_game(data).equals(game)
    assert read_footer(data) == footer


def test_nulls_and_missing_leaves_survive() -> None:
    small = pa.struct([("percent", pa.float32()), ("stocks", pa.uint8())])
    rows = [{"percent": 1.5, "stocks": 4}, None, {"percent": None, "stocks": 3}]
    columns = {field.name: pa.nulls(3, field.type) for field in FULL}
    columns["p0"] = pa.array(rows, small)
    data = encode_game(pa.table(columns), {})
    assert read_game(data, ["p0"])["p0"].to_pylist() == rows
    assert read_game(data, ["p0.stocks"])["p0"].to_pylist()[0] == {"stocks": 4}


def test_written_as_the_column_table_says() -> None:
    metadata = pq.read_metadata(pa.BufferReader(encode_game(full_game(), {})))
    assert metadata.num_row_groups == 1
    assert b"ARROW:schema" not in metadata.metadata
    group = metadata.row_group(0)
    by_leaf = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert list(by_leaf) == leaves(FULL)
    names = {"split": "BYTE_STREAM_SPLIT", "delta": "DELTA_BINARY_PACKED",
             "dictionary": "RLE_DICTIONARY", "plain": "PLAIN"}  # fmt: skip
    for leaf, chunk in by_leaf.items():
        encoding = column_of(leaf).encoding
        assert names[encoding] in chunk.encodings
        assert chunk.compression == ("UNCOMPRESSED" if encoding == "dictionary" else "ZSTD")
        assert not chunk.is_stats_set
        if encoding == "plain":
            assert "RLE_DICTIONARY" not in chunk.encodings


def test_duckdb_reads_every_encoding(tmp_path: Path) -> None:
    path = tmp_path / "game.parquet"
    path.write_bytes(encode_game(full_game(), {}))
    read = duckdb.sql(f"select * from '{path}'").to_arrow_table()
    assert read.to_pylist() == full_game().to_pylist()


def test_anchor_has_every_leaf_and_no_row() -> None:
    table = read_game(anchor_bytes())
    assert len(table) == 0
    assert leaves(table.schema) == leaves(FULL)


def test_leaf_set_is_of_leaves_alone() -> None:
    assert leaf_set(FULL) == leaf_set(read_game(encode_game(full_game(3), {})).schema)
    assert leaf_set(FULL) != leaf_set(FULL.remove(0))
    assert len(leaf_set(FULL)) == 8


@pytest.mark.parametrize("cut", [0, 3, 500, -4])
def test_damage_is_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "game.parquet"
    path.write_bytes(encode_game(full_game(), {})[:cut])
    for read in (read_game, read_footer):
        with pytest.raises(StoreError, match="no whole game file"):
            read(path)


def test_a_strange_parquet_has_no_footer_of_ours() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    with pytest.raises(StoreError, match="no whole game file"):
        read_footer(sink.getvalue().to_pybytes())
