"""Hypothesis strategies that several tests share."""

from typing import Any

from hypothesis import strategies as st

from ingest.synthetic.arena import BODIES, STAGES
from schemas.shard import Member

_TEXTS = {
    "char": ["'fox'", "'marth'", "'sheik'"],
    "opp_char": ["'fox'", "'marth'", "'sheik'"],
    "stage": ["'final_destination'", "'battlefield'"],
    "code": ["'FOX#1'", "'A''B'", "''"],
    "month": ["'2023-04'", "'2024-12'"],
    # whole seconds: shorter ones mean more than one instant, which SQL does not know
    "date": ["'2023-04-01 00:00:00'", "'2024-12-31 23:59:59'", "'2023-04-01 00:00:01'"],
    "n_frames": ["0", "3600", "3600.5", "-1", "123456789012345678"],
    "seconds": ["0.1", "60", "60.25", ".5"],
    "percent_dealt": ["0.1", "100", "0.30000001"],
    "projectiles": ["0", "10"],
    "won": ["true", "false"],
    "is_pal": ["true", "false"],
}
QUERY_COLUMNS = tuple(_TEXTS)
_UNORDERED = ("char", "opp_char", "stage", "won", "is_pal")
_FLIPPED = {"=": "=", "<>": "!=", "!=": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


@st.composite
def _tests(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from(QUERY_COLUMNS))
    value = st.sampled_from(_TEXTS[column])
    ops = ["=", "<>", "!="] if column in _UNORDERED else list(_FLIPPED)
    op = draw(st.sampled_from(ops))
    forms = [
        f"{column} {op} {draw(value)}",
        f"{draw(value)}{_FLIPPED[op]}{column.upper()}",
        f"{column} in ({', '.join(draw(st.lists(value, min_size=1, max_size=4)))})",
        f"{column} NOT IN ({draw(value)})",
        f"{column} is null",
        f"{column} is not null",
    ]
    if column not in _UNORDERED:
        forms.append(f"{column} between {draw(value)} and {draw(value)}")
        forms.append(f"{column} not between {draw(value)} and {draw(value)}")
    if column in ("char", "code"):
        patterns = {"char": ["'%o%'", "'f__'", "'%'"], "code": ["'%O%'", "'FOX#_'", "''"]}
        pattern = draw(st.sampled_from(patterns[column]))
        forms.append(f"{column} like {pattern}")
    if column in ("won", "is_pal"):
        forms.append(column)
    if column in ("char", "opp_char"):
        forms.append(f"opp_char {draw(st.sampled_from(['=', '<>']))} char")
    if column in ("n_frames", "seconds"):
        forms.append(f"seconds {op} projectiles")
    return draw(st.sampled_from(forms))


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, st.sampled_from([" and ", " or ", " AND "]), inner)
    return st.one_of(
        pair.map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"not ({text})"),
        inner.map(lambda text: f"({text}) and ({text})"),
    )


def queries() -> st.SearchStrategy[str]:
    """Queries that are SQL conditions as well: no aliases, every column in QUERY_COLUMNS."""
    leaf = st.one_of(_tests(), st.sampled_from(["true", "false"]))
    return st.recursive(leaf, _grown, max_leaves=8)


@st.composite
def members(draw: st.DrawFn) -> Member:
    """A member whose parquet is small; its place in a shard is not filled in."""
    n_frames = draw(st.integers(1, 30_000))
    cut = draw(st.integers(0, n_frames - 1))
    return Member(
        game_id=draw(st.binary(min_size=16, max_size=16)).hex(),
        rev=draw(st.integers(1, 9)),
        sides=draw(st.sampled_from([(0,), (1,), (0, 1)])),
        natural_key=draw(st.binary(min_size=16, max_size=16)).hex(),
        bucket=draw(st.integers(0, 65_535)),
        n_frames=n_frames,
        stretches=(n_frames - cut, cut) if cut else (n_frames,),
        parquet_bytes=draw(st.integers(1, 3000)),
        parquet_crc32=draw(st.integers(0, 2**32 - 1)),
        parquet_sha256=draw(st.binary(min_size=32, max_size=32)),
        leaf_set="01234567",
        version=3_014_000,
    )


# Each version in which a payload grew or an event appeared (reference: the wiki's SPEC).
GROWTH = ((0, 1), (0, 2), (1, 0), (1, 2), (1, 3), (1, 4), (1, 5), (2, 0), (2, 1), (2, 2), (3, 0),
          (3, 2), (3, 5), (3, 6), (3, 7), (3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13),
          (3, 14), (3, 15), (3, 16), (3, 17), (3, 18), (3, 19))  # fmt: skip
PEPPI_CANNOT = ((3, 0), (3, 7))
"""peppi panics over the empty bookend of these versions, the second one excluded"""


def peppi_reads(version: tuple[int, ...]) -> bool:
    """Whether peppi can read files of this Slippi version."""
    first, after = PEPPI_CANNOT
    return not first <= tuple(version[:2]) < after


versions = st.sampled_from(GROWTH)
peppi_versions = versions.filter(peppi_reads)


@st.composite
def game_parameters(draw: st.DrawFn, version: st.SearchStrategy[Any] = versions) -> dict[str, Any]:
    """Keyword arguments of make_game for a short game, `seed` among them."""
    chosen = draw(version)
    return {
        "seed": draw(st.integers(0, 2**32)),
        "version": chosen,
        "chars": draw(st.tuples(st.sampled_from(sorted(BODIES)), st.sampled_from(sorted(BODIES)))),
        "stage": draw(st.sampled_from(sorted(STAGES))),
        "ports": draw(st.lists(st.integers(1, 4), min_size=2, max_size=2, unique=True).map(tuple)),
        "n_frames": draw(st.integers(1, 400)),
        "rollbacks": chosen >= (3, 0) and draw(st.booleans()),
        "recording": draw(st.integers(0, 1)),
        "quit": draw(st.booleans()),
        "with_end": draw(st.booleans()),
        "with_metadata": draw(st.booleans()),
    }
