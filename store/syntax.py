"""Which SQL we run: one SELECT, over the tables that we name, with functions from a list.

Walks the tree that DuckDB's own parser gives, so that nothing passes which it would read otherwise.
What is not on a list is refused: new syntax of a new DuckDB is closed until it is looked at.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from schemas.errors import SqlError, nearest

TEXT_MAX = 64 * 1024  # DuckDB's parser needs 15 s for 100,000 terms

Node = dict[str, Any]

_REFERENCES = {
    "SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE",
    "BASE_TABLE", "JOIN", "SUBQUERY", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "SHOW_REF",
    "COLUMN_DATA", "ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER",
    "DISTINCT_MODIFIER", "ASCENDING", "DESCENDING", "ORDER_DEFAULT",
}  # fmt: skip
_EXPRESSIONS = {
    "COLUMN_REF", "CONSTANT", "FUNCTION", "COMPARISON", "CONJUNCTION", "OPERATOR", "CASE", "CAST",
    "BETWEEN", "STAR", "WINDOW", "SUBQUERY", "LAMBDA", "COLLATE", "POSITIONAL_REFERENCE",
}  # fmt: skip
# Every literal such as 1.5 carries one; UNBOUND_TYPE_INFO would be a type by a name of its own.
_TYPES = {"DECIMAL_TYPE_INFO", "LIST_TYPE_INFO", "ARRAY_TYPE_INFO", "STRUCT_TYPE_INFO"}
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}
# A name of a common table expression is known outside its own SELECT as well, so it must not be
# the name of anything that DuckDB knows without us.
_CTE_NAME = re.compile(r"(?!duckdb_|pragma_|sqlite_|pg_|information_schema)[a-z][a-z0-9_]*")

_FUNCTION_PREFIXES = (
    "list_", "array_", "map_", "struct_", "regexp_", "regr_", "date_", "make_", "stddev_", "var_",
    "covar_", "quantile_", "approx_", "arg_m", "bit_", "bool_", "epoch", "day", "week", "year",
    "to_day", "to_hour", "to_minute", "to_second", "to_week", "to_month", "to_year", "is",
    "string_",
)  # fmt: skip
_FUNCTION_NAMES = """
    abs acos add age any_value apply arbitrary argmax argmin ascii asin atan atan2 avg bin
    cardinality cbrt ceil ceiling century char_length character_length chr coalesce concat
    concat_ws contains corr cos cosh cot count count_if count_star countif cume_dist
    current_date damerau_levenshtein datediff datepart datesub datetrunc decade degrees
    dense_rank divide element_at ends_with entropy equi_width_bins even exp factorial favg fdiv
    filter first first_value flatten floor fmod format fsum gamma gcd generate_series geomean
    geometric_mean greatest group_concat hamming hash hex histogram hour if ifnull ilike_escape
    instr jaccard jaro_similarity jaro_winkler_similarity kahan_sum kurtosis kurtosis_pop lag
    last last_day last_value lcase lcm lead least left len length levenshtein like_escape list
    listagg ln log log10 log2 lower lpad ltrim mad map max max_by md5 mean median microsecond
    millisecond min min_by minute mismatches mod mode month monthname multiply not_ilike_escape
    not_like_escape now nth_value ntile nullif ord percent_rank pi position pow power prefix
    printf product quantile quarter radians random range rank rank_dense reduce repeat replace
    reservoir_quantile reverse right round round_even roundbankers row row_number rpad rtrim
    second sem sign signbit sin sinh skewness split split_part sqrt starts_with stddev str_split
    strftime strip_accents strlen strpos strptime substr substring subtract suffix sum sumkahan
    switch tan tanh time_bucket today translate trim trunc try_strptime typeof ucase unhex
    unicode unnest upper variance wavg weighted_avg xor
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


def check(connection: duckdb.DuckDBPyConnection, sql: str, tables: set[str]) -> None:
    """Raise SqlError, naming what and where, unless `sql` is a SELECT that we run over `tables`."""
    if len(sql) > TEXT_MAX:
        raise SqlError(f"the statement is longer than {TEXT_MAX // 1024} kB")
    row = connection.execute("select json_serialize_sql(?::varchar)", [sql]).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    if tree["error"]:
        raise SqlError(_parser_message(tree))
    if len(tree["statements"]) != 1:
        raise SqlError("one statement at a time", "a SELECT without ';'")
    nodes = list(_nodes(tree["statements"][0]))
    named = {name.lower() for node in nodes for name in _cte_names(node)}
    for node in nodes:
        _check_node(node, tables, named)


def _parser_message(tree: Node) -> str:
    if tree.get("error_type") == "not implemented":
        return "only SELECT statements are run here"
    return str(tree.get("error_message", "")).partition("\n")[0] or "the statement cannot be read"


def _nodes(root: object) -> Iterator[Node]:
    """Every object of a tree, without recursion: its depth is the user's."""
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _cte_names(node: Node) -> list[str]:
    names = [str(entry["key"]) for entry in (node.get("cte_map") or {}).get("map", [])]
    for name in names:
        if not _CTE_NAME.fullmatch(name.lower()):
            raise SqlError(f"'{name}' cannot be the name of a common table expression")
    return names


def _check_node(node: Node, tables: set[str], named: set[str]) -> None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return
    if "class" in node:
        _check_expression(node)
    elif kind not in _REFERENCES | _TYPES:
        raise _refused(kind.lower().replace("_", " "), node)
    elif kind == "BASE_TABLE":
        _check_table(node, tables, named)
    elif kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise _refused(f"function {name}", node["function"])
    elif kind == "SHOW_REF" and not node.get("query"):
        raise _refused("SHOW", node)


def _check_expression(node: Node) -> None:
    kind = node["class"]
    if kind not in _EXPRESSIONS:
        raise _refused(kind.lower(), node)
    if kind not in ("FUNCTION", "WINDOW"):
        return
    name = str(node["function_name"]).lower()
    is_operator = not re.match(r"[a-z_]", name)
    is_known = name in _FUNCTIONS or name in _TABLE_FUNCTIONS or name.startswith(_FUNCTION_PREFIXES)
    is_ours = node.get("schema") in ("", "main") and not node.get(
        "catalog"
    )  # [1] is main.list_value
    if not (is_ours and (is_operator or is_known)):
        raise _refused(f"function {name}", node)


def _check_table(node: Node, tables: set[str], named: set[str]) -> None:
    name = str(node["table_name"])
    if node["catalog_name"] or node["schema_name"] or node.get("at_clause"):
        raise _refused(f"a qualified table ({name})", node)
    if name.lower() not in tables | named:
        hint = nearest(name, tables) or f"tables: {', '.join(sorted(tables))}"
        raise SqlError(f"there is no table '{name}'", hint)


def _refused(what: str, node: Node) -> SqlError:
    at = node.get("query_location")
    where = f" (at character {at + 1})" if isinstance(at, int) and at < TEXT_MAX else ""
    return SqlError(f"{what} is not allowed here{where}")
