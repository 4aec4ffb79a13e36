"""Arrow tables and rows as what travels: JSON, CSV, Arrow IPC or parquet."""

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from schemas.errors import SqlError


def plain(value: Any) -> Any:
    """A Python value as JSON types: ids and bytes in hex, times in ISO form, NaN as text."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, UUID | bytes):
        return value.hex if isinstance(value, UUID) else value.hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, Decimal) else repr(value)


def to_json(value: Any) -> bytes:
    """A JSON document of any value that `plain` knows."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).encode()


def _json(table: pa.Table) -> bytes:
    columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return to_json({"columns": columns, "rows": list(rows)})


def objects(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as JSON objects. A table of `store.sql` has no two columns of one name."""
    return [plain(row) for row in table.to_pylist()]


def _csv(table: pa.Table) -> bytes:
    """CSV; what is no text, number or time becomes JSON text in its cell."""
    columns = [column if _fits_csv(column.type) else _as_text(column) for column in table.columns]
    sink = pa.BufferOutputStream()
    pc.write_csv(pa.table(columns, names=table.column_names), sink)
    return bytes(sink.getvalue())


def _fits_csv(dtype: pa.DataType) -> bool:
    types = pa.types
    fits = (
        types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_temporal,
        types.is_null,
    )  # fmt: skip
    return any(fit(dtype) for fit in fits) and not types.is_interval(dtype)


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    texts = [None if v is None else _cell(plain(v)) for v in column.to_pylist()]
    return pa.array(texts, pa.string())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        reason = str(error).partition("\n")[0]
        raise SqlError(
            f"parquet cannot hold this: {reason}", "cast it, or ask for arrow"
        ) from error
    return bytes(sink.getvalue())


# Format of an answer -> its media type, and what makes it.
FORMATS: dict[str, tuple[str, Callable[[pa.Table], bytes]]] = {
    "json": ("application/json", _json),
    "csv": ("text/csv; charset=utf-8", _csv),
    "arrow": ("application/vnd.apache.arrow.stream", _arrow),
    "parquet": ("application/vnd.apache.parquet", _parquet),
}
