"""The catalog's tables against each other, and their columns that say nothing."""

from collections.abc import Iterator

from schemas.errors import StoreError
from schemas.names import CHARACTERS, ITEMS, PROJECTILES, STAGES
from schemas.records import GAMES, PERSPECTIVES, PLAYERS, TABLES
from store.catalog import HEX_ID, Catalog
from store.verify.findings import Finding

_NAMED_MAX = 20  # games that one contradiction names
_KEY = "game_id, rev"
_FILE_KEY = "game_id, rev, rewrite"


def contradictions(catalog: Catalog) -> Iterator[Finding]:
    """Rows that another table contradicts, game by game."""
    for table, detail, sql in _checks():
        try:
            found = catalog.query(
                f"select distinct {HEX_ID} as game_id, count(*) over () as n from ({sql})"
                f" order by game_id limit {_NAMED_MAX}"
            ).column("game_id")
        except StoreError as error:
            yield Finding("unreadable", f"tables/{table}", error.message)
            return
        for game_id in found.to_pylist():
            yield Finding("rows", table, detail, game_id)


def _checks() -> Iterator[tuple[str, str, str]]:
    """(table, what is wrong, SQL of the game_ids where it is)."""
    for table, key in (("games", _FILE_KEY), ("players", f"{_KEY}, side"),
                       ("perspectives", f"{_FILE_KEY}, side"),
                       ("item_counts", f"{_KEY}, side, type")):  # fmt: skip
        twice = f"select game_id from lake.{table} group by {key} having count(*) > 1"
        yield table, "two rows about one thing", twice
    yield (
        "games",
        "its runs of frames do not add up to n_frames",
        ("select game_id from lake.games where list_sum(stretches) <> n_frames"),
    )
    for table, key in (("players", _KEY), ("perspectives", _FILE_KEY)):
        both = (
            f"(select {key} from lake.{table} group by all"
            " having count(*) = 2 and min(side) = 0 and max(side) = 1)"
        )
        missing = f"select game_id from lake.games anti join {both} using ({key})"
        yield table, "not one row for each of the two sides", missing
    for table, key in (("players", _KEY), ("perspectives", _FILE_KEY), ("item_counts", _KEY)):
        stray = f"select game_id from lake.{table} anti join lake.games using ({key})"
        yield table, "a row without its game", stray
    yield "perspectives", "says something else than games", _unequal("games", _FILE_KEY, "")
    yield (
        "perspectives",
        "says something else than players",
        _unequal("players", f"{_KEY}, side", ""),
    )
    yield (
        "perspectives",
        "says something else of the opponent than players",
        _unequal(
            "(select * replace (cast(1 - side as tinyint) as side) from lake.players)",
            f"{_KEY}, side",
            "opp_",
        ),
    )
    yield from _item_checks()


def _unequal(other: str, key: str, prefix: str) -> str:
    """SQL of the games where `perspectives` and another table differ in a column of both."""
    source = f"lake.{other}" if other in TABLES else other
    fields = TABLES.get(other, PLAYERS)
    mine = {field.name for field in PERSPECTIVES}
    names = [f.name for f in fields if prefix + f.name in mine and f.name not in key.split(", ")]
    differ = " or ".join(f"a.{prefix}{name} is distinct from b.{name}" for name in names)
    joined = " and ".join(f"a.{name} = b.{name}" for name in key.split(", "))
    return f"select a.game_id from lake.perspectives a join {source} b on {joined} where {differ}"


def _item_checks() -> Iterator[tuple[str, str, str]]:
    types = ", ".join(map(str, sorted(PROJECTILES)))
    counts = (
        "(select game_id, rev, side, sum(spawned) as items,"
        f" coalesce(sum(spawned) filter (type in ({types})), 0) as projectiles"
        " from lake.item_counts where side is not null group by all)"
    )
    for name in ("items", "projectiles"):
        yield (
            "item_counts",
            f"do not add up to the player's {name}",
            (
                f"select p.game_id from lake.players p left join {counts} c"
                " using (game_id, rev, side)"
                f" where p.{name} is not null and p.{name} <> coalesce(c.{name}, 0)"
            ),
        )


# --- names that nobody knows --------------------------------------------------------------------

_KNOWN = (
    ("games", "stage", set(STAGES.values())),
    ("players", "char", set(CHARACTERS.values())),
    ("item_counts", "item", set(ITEMS.values())),
)


def unknown_names(catalog: Catalog) -> Iterator[Finding]:
    """Ids of stages, characters and items that have no name: a mod, or damage on the way here."""
    for table, column, known in _KNOWN:
        rows = catalog.query(
            f"select {column} as name, count(distinct game_id) as n,"
            f" arg_min({HEX_ID}, game_id) as game_id from lake.{table} group by 1 order by 1"
        ).to_pylist()
        for row in rows:
            if row["name"] not in known:
                detail = f"'{row['name']}' has no name, in {row['n']} game{'s' * (row['n'] > 1)}"
                yield Finding("bounds", f"{table}.{column}", detail, row["game_id"])


# --- columns that say nothing -------------------------------------------------------------------

_SINCE = {
    "is_pal": 1005, "mode": 3007, "items": 3006, "projectiles": 3006, "match_id": 3014,
    "game_number": 3014, "tiebreaker": 3014, "placement": 3013, "is_frozen_stadium": 3018,
    "ucf_dash_back": 1000, "ucf_shield_drop": 1000,
}  # fmt: skip
"""Slippi version (major * 1000 + minor) before which a catalog column is null by nature."""
_MAY_STAND_STILL = {
    "rev", "rewrite", "repaired", "newer_than_parser", "is_teams", "is_pal", "is_frozen_stadium",
    "type", "cpu_level", "tag", "rank", "lras_side", "tiebreaker", "first_frame", "stocks_left",
    "ucf_dash_back", "ucf_shield_drop", "rollback_rows", "leaf_set", "port", "version", "mode",
    "end_method", "winner_by", "platform",
}  # fmt: skip
"""Columns with one value, or none, in many a sound store: all humans, all from one client, no tags,
no quits, nothing repaired."""


_LOOKED_AT = {
    "games": _MAY_STAND_STILL,
    "players": _MAY_STAND_STILL,
    # the rest of it stands in the two above
    "perspectives": {field.name for field in (*GAMES, *PLAYERS)},
    "item_counts": {"rev"},
}


def silent_columns(catalog: Catalog, games_min: int) -> Iterator[Finding]:
    """Catalog columns that are null, or one value, in all games of a version (games_min at least).

    Columns that may stand still by nature, or that the version does not record, are passed over.
    """
    for table, may in _LOOKED_AT.items():
        names = [field.name for field in TABLES[table] if _own(field.name) not in may]
        each = ", ".join(f"count({n}) as {n}_n, min({n}) = max({n}) as {n}_c" for n in names)
        rows = catalog.query(
            f"select version // 1000 as slippi, count(distinct game_id) as games, {each}"
            f" from {_with_version(table)} group by 1 having games >= {games_min} order by 1"
        ).to_pylist()
        for name in names:
            recorded = [row for row in rows if row["slippi"] >= _SINCE.get(_own(name), 0)]
            if empty := [row for row in recorded if not row[f"{name}_n"]]:
                yield Finding("all_null", f"{table}.{name}", f"null in {_listed(empty)}")
            if still := [row for row in recorded if row[f"{name}_c"]]:
                yield Finding("constant", f"{table}.{name}", f"one value in {_listed(still)}")


def _own(name: str) -> str:
    return name.removeprefix("opp_")


def _with_version(table: str) -> str:
    if any(field.name == "version" for field in TABLES[table]):
        return f"lake.{table}"
    versions = "select game_id, rev, version from lake.games where rewrite = 0"
    return f"lake.{table} join ({versions}) using (game_id, rev)"


def _listed(rows: list[dict[str, int]]) -> str:
    versions = [f"{r['slippi'] // 1000}.{r['slippi'] % 1000} ({r['games']})" for r in rows]
    return f"all {sum(r['games'] for r in rows)} games of Slippi {', '.join(versions)}"
