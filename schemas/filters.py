"""What a query may name: one row per column of the query language.

The parser, its errors, the SQL, the service's listing and docs/query.md follow from FILTERS; a new
row works everywhere. Rows name columns of `perspectives`; this module knows no grammar.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from schemas import names
from schemas.errors import QueryError, UnknownNameError, nearest
from schemas.records import version_number, version_text

KindName = Literal["name", "text", "integer", "number", "version", "date", "bool", "id"]
Value = str | int | Decimal | bool | datetime
Resolver = Callable[[str, int], str]
"""(what the user typed, its position) -> the stored name; raises UnknownNameError."""


@dataclass(frozen=True)
class Constant:
    """A value as it stands in the query: `text` without quotes, where it starts."""

    form: Literal["text", "number", "bool"]
    text: str
    position: int


@dataclass(frozen=True)
class Kind:
    """One type of column: how a literal is read and printed, and whether `<` makes sense.

    `group`: kinds of one group may be compared column to column. `end`: for kinds whose literal can
    mean a stretch ('2023-04-01' is a day), the first value after it, or None.
    """

    forms: tuple[str, ...]
    read: Callable[[str, int], Value]
    show: Callable[[Value], str]
    example: str
    is_ordered: bool
    group: str
    end: Callable[[str, int], Value | None] = lambda _text, _position: None


@dataclass(frozen=True)
class Filter:
    """One name of the query language.

    sql: column of `perspectives`, or an expression over its columns.
    resolve: turns what players type into the stored name; None keeps the text.
    spelling: how the catalog spells free text; for values and for patterns of `like`.
    """

    name: str
    sql: str
    kind: KindName
    help: str
    resolve: Resolver | None = None
    aliases: tuple[str, ...] = field(default=())
    spelling: Callable[[str], str] = str


def quoted(text: str) -> str:
    """A text literal of the query language (and of SQL)."""
    return "'" + text.replace("'", "''") + "'"


def _number(text: str, position: int) -> Value:
    # 10.5 is a fine bound for a whole number: DuckDB compares it as a decimal, and so do we.
    if text.count(".") > 1:
        raise QueryError(f"'{text}' is no number", "for example 1.5", position=position)
    value = Decimal(text)
    # DuckDB compares decimals of up to 18 digits exactly, whatever the column's type.
    if sum(map(str.isdigit, text)) > 18:
        raise QueryError(f"'{text}' has too many digits", "at most 18", position=position)
    return int(value) if value == value.to_integral_value() else value.normalize()


def _show_number(value: Value) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _version(text: str, position: int) -> Value:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", text):
        raise QueryError(f"'{text}' is no version", "for example '3.14'", position=position)
    major, minor, build, *_ = (*map(int, text.split(".")), 0, 0)
    return version_number(major, minor, build)


_DATE_PARTS = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?)?)?)?")


def _date(text: str, position: int) -> Value:
    """A UTC instant: missing parts are the first ones of the year, month, day or minute."""
    match = _DATE_PARTS.fullmatch(text)
    try:
        year, month, day, hour, minute, second = match.groups() if match else ("0",) * 6
        return datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0),
            int(second or 0),
        )  # fmt: skip
    except ValueError:
        hint = "for example '2023-04-01' or '2023-04-01 18:30'"
        raise QueryError(f"'{text}' is no date", hint, position=position) from None


def _end_of_date(text: str, position: int) -> Value | None:
    """The instant after the year, month, day or minute that a date names; None for a second."""
    match = _DATE_PARTS.fullmatch(text)
    first = _date(text, position)
    assert match
    assert isinstance(first, datetime)
    _, month, day, minute, second = match.group(1, 2, 3, 5, 6)
    if second:
        return None
    try:
        if day:
            return first + (timedelta(minutes=1) if minute else timedelta(days=1))
        following = first.year * 12 + first.month + (0 if month else 11)
        return datetime(following // 12, following % 12 + 1, 1)
    except (ValueError, OverflowError):
        raise QueryError(f"'{text}' is too late a date", "up to 9998", position=position) from None


def _id(text: str, position: int) -> Value:
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain):
        raise QueryError(f"'{text}' is no game id", "32 hex digits", position=position)
    return plain


KINDS: dict[KindName, Kind] = {
    "name": Kind(("text",), lambda t, _: t, lambda v: quoted(str(v)), "'fox'", False, "text"),
    "text": Kind(("text",), lambda t, _: t, lambda v: quoted(str(v)), "'abc'", True, "text"),
    "integer": Kind(("number",), _number, _show_number, "10", True, "number"),
    "number": Kind(("number",), _number, _show_number, "1.5", True, "number"),
    "version": Kind(
        ("text", "number"), _version, lambda v: quoted(version_text(int(str(v)))), "'3.14'", True,
        "version",
    ),
    "date": Kind(("text",), _date, lambda v: quoted(str(v)), "'2023-04-01'", True, "date",
                 _end_of_date),
    "bool": Kind(("bool",), lambda t, _: t == "true", lambda v: str(v).lower(), "true", False,
                 "bool"),
    "id": Kind(("text",), _id, lambda v: quoted(str(v)), "'0123…'", False, "id"),
}  # fmt: skip


def choice(what: str, *known: str) -> Resolver:
    """A resolver for a column with few possible values."""

    def resolve(text: str, position: int) -> str:
        name = names.slug(text)
        if name in known:
            return name
        hint = nearest(name, known) or f"one of: {', '.join(known)}"
        raise UnknownNameError(f"unknown {what} '{text}'", hint, position=position)

    return resolve


def _tag(text: str) -> str:
    """The console writes full-width letters and signs; the catalog has plain ones."""
    return unicodedata.normalize("NFKC", text)


def _code(text: str) -> str:
    return _tag(text).upper()


def _month(text: str, position: int) -> str:
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        return text
    raise QueryError(f"'{text}' is no month", "for example '2023-04'", position=position)


_PLAYER_TYPE = choice("player type", "human", "cpu", "demo")
_RANK = choice("rank", "bronze", "silver", "gold", "platinum", "diamond", "master", "grandmaster")

_SIDE = (
    Filter("char", "char", "name", "character", names.character, ("character",)),
    Filter("code", "code", "text", "connect code: 'FOX#123', in any case", spelling=_code),
    Filter("tag", "tag", "text", "name tag", spelling=_tag),
    Filter("name", "name", "text", "display name, as the replay has it"),
    Filter("rank", "rank", "text", "rank, in dumps that carry it", _RANK),
    Filter("type", "type", "name", "human, cpu or demo", _PLAYER_TYPE),
    Filter("cpu_level", "cpu_level", "integer", "level of a CPU; null for humans"),
    Filter("costume", "costume", "integer", "costume index"),
    Filter("stocks_left", "stocks_left", "integer", "stocks at the end"),
    Filter("stocks_lost", "stocks_lost", "integer", "stocks lost"),
    Filter("percent_left", "percent_left", "number", "percent at the end"),
    Filter("percent_dealt", "percent_dealt", "number", "percent dealt in all"),
    Filter("items", "items", "integer", "items spawned; null before Slippi 3.6"),
    Filter("projectiles", "projectiles", "integer", "lasers, needles, turnips … spawned"),
)


def _opponents(row: Filter) -> Filter:
    aliases = ("opponent", "opp") if row.name == "char" else ()
    name = f"opp_{row.name}"
    text = f"the other side's {row.help}"
    return Filter(name, name, row.kind, text, row.resolve, aliases, row.spelling)


_GAME = (
    Filter("stage", "stage", "name", "stage", names.stage),
    Filter("version", "version", "version", "Slippi version: '3.10' > '3.9'"),
    Filter("n_frames", "n_frames", "integer", "length in frames, countdown included", None,
           ("frames",)),
    Filter("seconds", "seconds", "number", "length in seconds"),
    Filter("date", "started_at", "date", "start of the game, UTC; '2023-04-01' is the whole day",
           None, ("started_at",)),
    Filter("month", "strftime(started_at, '%Y-%m')", "text", "month of the game, UTC", _month),
    Filter("mode", "mode", "name", "ranked, unranked, direct, teams, online or local",
           choice("mode", "ranked", "unranked", "direct", "teams", "online", "local")),
    Filter("won", "won", "bool", "this side won; null where unknown"),
    Filter("winner_by", "winner_by", "name", "how the winner was found",
           choice("way to win", "stocks", "quit", "percent", "placement")),
    Filter("end_method", "end_method", "name", "how the game ended",
           choice("end method", "game", "time", "no_contest", "resolved", "unresolved")),
    Filter("stocks_taken", "stocks_taken", "integer", "stocks that the other side lost"),
    Filter("side", "side", "integer", "0 for the lower port, 1 for the other"),
    Filter("port", "port", "integer", "console port, 1 to 4"),
    Filter("platform", "platform", "text", "dolphin, nintendont, network …"),
    Filter("is_pal", "is_pal", "bool", "PAL version of the game"),
    Filter("is_teams", "is_teams", "bool", "the teams flag is on"),
    Filter("is_frozen_stadium", "is_frozen_stadium", "bool", "Stadium stands still"),
    Filter("repaired", "repaired", "bool", "mended on the way in"),
    Filter("newer_than_parser", "newer_than_parser", "bool", "newer Slippi than we know"),
    Filter("rollback_rows", "rollback_rows", "integer", "rows dropped as rolled back"),
    Filter("parquet_bytes", "parquet_bytes", "integer", "size of the game file"),
    Filter("bucket", "bucket", "integer", "0 to 65535, decides train, val or test"),
    Filter("game_id", "game_id", "id", "one game: 32 hex digits"),
    Filter("natural_key", "natural_key", "id", "equal for both recordings of one game"),
)  # fmt: skip

FILTERS: dict[str, Filter] = {
    row.name: row for row in (*_SIDE, *(_opponents(row) for row in _SIDE), *_GAME)
}


def find(word: str, position: int) -> Filter:
    """The row that a word of a query means, by name or alias.

    Raises UnknownNameError with the nearest name.
    """
    known = {alias: row for row in FILTERS.values() for alias in row.aliases} | FILTERS
    if row := known.get(word.lower()):
        return row
    hint = nearest(word, known) or "for example char='fox'"
    raise UnknownNameError(f"unknown column '{word}'", hint, position=position)


@dataclass(frozen=True)
class Meaning:
    """What a constant means in a column: one value, or all from `first` to before `end`."""

    first: Value
    end: Value | None = None


def read(row: Filter, constant: Constant) -> Meaning:
    """The stored value that a constant means in this column: 'fd' -> 'final_destination'.

    Raises QueryError for a constant of another type, UnknownNameError for a name nobody knows.
    """
    kind = KINDS[row.kind]
    if constant.form not in kind.forms:
        hint = f"for example {row.name} = {kind.example}"
        message = f"{row.name} cannot be compared with '{constant.text}'"
        raise QueryError(message, hint, position=constant.position)
    at = constant.position
    text = row.resolve(constant.text, at) if row.resolve else row.spelling(constant.text)
    return Meaning(kind.read(text, at), kind.end(text, at))


def pattern(row: Filter, text: str) -> str:
    """A pattern of `like`, spelled as the column is; names are lower case."""
    return text.lower() if row.kind == "name" else row.spelling(text)


def show(row: Filter, value: Value) -> str:
    """A stored value as the query language writes it: 3014000 -> `'3.14.0'`."""
    return KINDS[row.kind].show(value)
