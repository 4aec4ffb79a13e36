"""The catalog's tables, one row per column: type and meaning. SQL, docs and Arrow follow from them.

Own side plain, the other side `opp_...`; side 0/1 is p0/p1 (lower port first), port is 1 to 4.
Ids are UUIDs in the catalog and 32 hex digits outside; a null says that the replay does not tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Field:
    """One catalog column; `sql` is DuckDB's type name."""

    name: str
    sql: str
    meaning: str


ARROW_TYPES: dict[str, pa.DataType] = {
    "UUID": pa.string(),  # DuckDB casts 32 hex digits; Arrow has no portable UUID
    "VARCHAR": pa.string(),
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "USMALLINT": pa.uint16(),
    "INTEGER": pa.int32(),
    "UINTEGER": pa.uint32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "BLOB": pa.binary(),
    "TIMESTAMP": pa.timestamp("us"),
    "INTEGER[]": pa.list_(pa.int32()),
}

_IDENTITY = (
    Field("game_id", "UUID", "first 128 bits of the SHA-256 of the uncompressed .slp"),
    Field("rev", "INTEGER", "revision of schema and parser rules that made the game file"),
    Field("rewrite", "INTEGER", "0; one more each time `repair` wrote the file with other bytes"),
    Field("natural_key", "UUID", "equal for both recordings of one game"),
    Field("bucket", "USMALLINT", "16 bits of the natural key's hash: decides train, val or test"),
)

_ABOUT_GAME = (
    Field("stage", "VARCHAR", "stage, for example final_destination"),
    Field("version", "INTEGER", "Slippi version as major * 1000000 + minor * 1000 + build"),
    Field("n_frames", "INTEGER", "distinct frames, the countdown included"),
    Field("seconds", "FLOAT", "n_frames / 60"),
    Field("started_at", "TIMESTAMP", "UTC, from the replay's metadata"),
    Field("mode", "VARCHAR", "ranked, unranked, direct or teams, from the match id; online; local"),
    Field("end_method", "VARCHAR", "game, time, no_contest, resolved, unresolved"),
    Field("winner_by", "VARCHAR", "how the winner was found: stocks, quit, percent, placement"),
    Field("platform", "VARCHAR", "dolphin, nintendont, network ..."),
    Field("is_pal", "BOOLEAN", "PAL version of the game"),
    Field("is_frozen_stadium", "BOOLEAN", "Stadium does not change; null where not known"),
    Field("is_teams", "BOOLEAN", "the teams flag is on"),
    Field("repaired", "BOOLEAN", "the replay was damaged and mended on the way in"),
    Field("newer_than_parser", "BOOLEAN", "newer Slippi than we know: its new fields are not kept"),
    Field("rollback_rows", "INTEGER", "frame starts dropped because a later copy replaced them"),
    Field("parquet_bytes", "BIGINT", "size of the game file"),
)

GAMES = (
    *_IDENTITY,
    *_ABOUT_GAME,
    Field("stage_id", "USMALLINT", "external stage id"),
    Field("winner_side", "TINYINT", "0 or 1"),
    Field("lras_side", "TINYINT", "who quit by L+R+A+Start"),
    Field("match_id", "VARCHAR", "Slippi's match id"),
    Field("game_number", "INTEGER", "game within the match, from 1"),
    Field("tiebreaker", "INTEGER", "tiebreaker number, 0 for none"),
    Field("random_seed", "UINTEGER", "seed in the start block"),
    Field("first_frame", "INTEGER", "number of the first frame"),
    Field("last_frame", "INTEGER", "number of the last frame"),
    Field("stretches", "INTEGER[]", "lengths of the runs of consecutive frames"),
    Field("replay_bytes", "BIGINT", "size of the uncompressed .slp"),
    Field("parquet_sha256", "BLOB", "SHA-256 of the game file"),
    Field("parquet_crc32", "UINTEGER", "CRC-32 of the game file"),
    Field("leaf_set", "VARCHAR", "8 hex digits that are equal for files with the same leaves"),
)

_SIDE = (
    Field("char", "VARCHAR", "character chosen, for example fox or ice_climbers"),
    Field("code", "VARCHAR", "connect code, normalised: FOX#123"),
    Field("tag", "VARCHAR", "name tag, normalised"),
    Field("name", "VARCHAR", "display name"),
    Field("rank", "VARCHAR", "rank, where the display name of an anonymised dump carries it"),
    Field("type", "VARCHAR", "human, cpu or demo"),
    Field("cpu_level", "TINYINT", "null for humans"),
    Field("costume", "TINYINT", "costume index"),
    Field("stocks_left", "TINYINT", "stocks at the last frame"),
    Field("stocks_lost", "TINYINT", "stocks lost during the game"),
    Field("percent_left", "FLOAT", "percent at the last frame"),
    Field("percent_dealt", "FLOAT", "sum of the other side's percent increases"),
    Field("items", "INTEGER", "items spawned that this side owned first; null before 3.6"),
    Field("projectiles", "INTEGER", "those that are projectiles; null before 3.6"),
)

PLAYERS = (
    Field("game_id", "UUID", "game"),
    Field("rev", "INTEGER", "revision"),
    Field("side", "TINYINT", "0 or 1: lower port first"),
    Field("port", "TINYINT", "console port, 1 to 4"),
    *_SIDE,
    Field("ucf_dash_back", "VARCHAR", "ucf, arduino or null"),
    Field("ucf_shield_drop", "VARCHAR", "ucf, arduino or null"),
    Field("placement", "TINYINT", "0 first; worthless after a quit"),
)

PERSPECTIVES = (
    *_IDENTITY,
    Field("side", "TINYINT", "0 or 1: lower port first"),
    Field("port", "TINYINT", "console port, 1 to 4"),
    *_SIDE,
    *(Field(f"opp_{f.name}", f.sql, f"the other side's {f.name}") for f in _SIDE),
    *_ABOUT_GAME,
    Field("won", "BOOLEAN", "this side won; null where unknown"),
    Field("stocks_taken", "TINYINT", "stocks that the other side lost"),
)

ITEM_COUNTS = (
    Field("game_id", "UUID", "game"),
    Field("rev", "INTEGER", "revision"),
    Field("side", "TINYINT", "first owner's side; null for nobody or unknown"),
    Field("type", "USMALLINT", "item type"),
    Field("item", "VARCHAR", "item name"),
    Field("spawned", "INTEGER", "items of this type"),
    Field("frames", "INTEGER", "frames on which they were there, summed"),
)

REPLAYS = (
    Field("replay_id", "UUID", "game id of the bytes; null where they could not be read"),
    Field("sha256", "BLOB", "SHA-256 of the uncompressed bytes"),
    Field("source", "VARCHAR", "file or archive"),
    Field("member", "VARCHAR", "name inside the archive"),
    Field("replay_bytes", "BIGINT", "size of the uncompressed bytes"),
    Field("outcome", "VARCHAR", "stored, known, repaired, refused"),
    Field("rule", "VARCHAR", "name of the rule that refused it"),
    Field("detail", "VARCHAR", "what exactly was wrong; of a repaired replay, what was mended"),
    Field("rev", "INTEGER", "revision of the rules"),
    Field("seen_at", "TIMESTAMP", "UTC"),
)

REMOVALS = (
    Field("game_id", "UUID", "game taken out"),
    Field("removed_at", "TIMESTAMP", "UTC"),
    Field("reason", "VARCHAR", "why"),
)

TABLES: dict[str, tuple[Field, ...]] = {
    "games": GAMES,
    "players": PLAYERS,
    "perspectives": PERSPECTIVES,
    "item_counts": ITEM_COUNTS,
    "replays": REPLAYS,
    "removals": REMOVALS,
}

SORTED_BY = {
    "games": ("game_id",),
    "players": ("game_id", "side"),
    "perspectives": ("char", "opp_char", "stage"),
    "item_counts": ("game_id",),
    "replays": ("replay_id",),
}
"""How DuckLake lays out compacted files of a table."""

TRANSIENT_RULES = ("crashed", "hung")
"""Refusals that may not have been the replay's fault: it is tried again at the next ingest."""

NEEDS_REPAIR = "needs_repair"
"""Refusal by an ingest that was told not to repair: to one that repairs it is none."""

Rows = dict[str, list[Mapping[str, object]]]
"""Rows of one commit: table name -> rows, each with exactly the table's columns."""


def arrow_schema(fields: Sequence[Field]) -> pa.Schema:
    """Arrow schema of a table's rows on their way into the catalog (UUIDs as hex strings)."""
    return pa.schema([pa.field(f.name, ARROW_TYPES[f.sql]) for f in fields])


def version_number(major: int, minor: int, build: int = 0) -> int:
    """A Slippi version as one sortable integer: 3.10 sorts after 3.9."""
    return major * 1_000_000 + minor * 1_000 + build


def version_text(number: int) -> str:
    """The printed form of a sortable version: 3018000 -> '3.18.0'."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
