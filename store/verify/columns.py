"""What each column of many game files has held: its range by Slippi version, and odd values.

A column that never changes is a bug that nobody sees in a training loss: it is named, unless it may
stand still by nature (`MAY_STAND_STILL`, other stages, versions that do not record it).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import Column
from schemas.game import column_of
from store.verify.bounds import BOUNDS, MAY_STAND_STILL, ONLY_ON_STAGE
from store.verify.findings import Finding

GAMES_MIN = 10
"""Fewer games of a version are constant in many ways."""
VALUES_MIN = 5_000
"""So many values at least: half a game, or the items of some games."""
_NAMED_MAX = 3  # odd games that a finding names

Number = float | int


@dataclass
class Range:
    """Games that have a leaf, values in them, the smallest and the largest one."""

    games: int = 0
    values: int = 0
    low: Number | None = None
    high: Number | None = None

    def add(self, other: "Range") -> None:
        """Count another one in."""
        self.games += other.games
        self.values += other.values
        if other.low is not None and other.high is not None:
            self.low = other.low if self.low is None else min(self.low, other.low)
            self.high = other.high if self.high is None else max(self.high, other.high)


@dataclass
class Odd:
    """Games with values out of a leaf's bounds: how many, the first ids, the worst value."""

    games: int = 0
    first: list[str] = field(default_factory=list)
    worst: Number = 0

    def add(self, other: "Odd") -> None:
        """Count another one in."""
        self.games += other.games
        self.first = [*self.first, *other.first][:_NAMED_MAX]
        # NaN is the worst of all: no comparison with it holds
        if not abs(other.worst) <= abs(self.worst):
            self.worst = other.worst


class Columns:
    """The ranges of all leaves by version (major * 1000 + minor), and what was odd."""

    def __init__(self) -> None:
        self.ranges: dict[tuple[str, int], Range] = defaultdict(Range)
        self.odd: dict[str, Odd] = defaultdict(Odd)

    def add_game(self, game_id: str, table: pa.Table, version: int, stage: int | None) -> None:
        """Count one game in. version: as the catalog has it; stage: external id."""
        columns = zip(table.column_names, table.columns, strict=True)
        for leaf, column in _leaves("", columns):
            row, bounds = _about(leaf)
            if row.since[0] * 1000 + row.since[1] > version // 1000:
                continue  # a top-level column is in every file
            if stage is not None and ONLY_ON_STAGE.get(row.name, stage) != stage:
                continue
            found, odd = _measured(column, bounds)
            self.ranges[leaf, version // 1000].add(found)
            if odd is not None:
                self.odd[leaf].add(Odd(1, [game_id], odd))

    def add(self, other: "Columns") -> None:
        """Count in what another process has seen."""
        for key, found in other.ranges.items():
            self.ranges[key].add(found)
        for leaf, odd in other.odd.items():
            self.odd[leaf].add(odd)

    def findings(self, games_min: int, values_min: int) -> Iterator[Finding]:
        """Columns that say nothing in a version, then values out of bounds."""
        still: dict[tuple[str, str], list[tuple[int, Range]]] = defaultdict(list)
        for (leaf, version), found in sorted(self.ranges.items()):
            if found.games < games_min or _about(leaf)[0].name in MAY_STAND_STILL:
                continue
            if found.low is None:
                still["all_null", leaf].append((version, found))
            elif found.low == found.high and found.values >= values_min:
                still["constant", leaf].append((version, found))
        for (kind, leaf), versions in still.items():
            yield Finding(kind, leaf, _of_versions(kind, versions))
        for leaf, odd in sorted(self.odd.items()):
            low, high = BOUNDS[column_of(leaf)]
            more = f" and {odd.games - len(odd.first)} more" if odd.games > len(odd.first) else ""
            yield Finding(
                "bounds",
                leaf,
                f"outside {low:g} to {high:g} in {odd.games} game{'s' * (odd.games > 1)}"
                f" (the worst: {odd.worst:g}): {', '.join(odd.first)}{more}",
                odd.first[0] if odd.games == 1 else None,
            )


def _of_versions(kind: str, versions: list[tuple[int, Range]]) -> str:
    """'always 0 in 40 games: Slippi 3.14 (30), 3.16 (10)'."""
    games = sum(found.games for _, found in versions)
    listed = ", ".join(f"{v // 1000}.{v % 1000} ({found.games})" for v, found in versions)
    values = sorted({found.low for _, found in versions if found.low is not None})
    what = "null" if kind == "all_null" else f"always {' or '.join(f'{v:g}' for v in values)}"
    return f"{what} in all {games} games of Slippi {listed}"


@cache
def _about(leaf: str) -> tuple[Column, tuple[float, float] | None]:
    row = column_of(leaf)
    return row, BOUNDS.get(row)


def _measured(
    column: pa.ChunkedArray, bounds: tuple[float, float] | None
) -> tuple[Range, Number | None]:
    """A column's range without NaN, and its worst value out of bounds."""
    values: npt.NDArray[Any] = column.drop_null().to_numpy()
    if not len(values):
        return Range(1), None
    low, high = values.min(), values.max()  # NaN where one is among them
    odd = None
    if bounds is not None and not (bounds[0] <= low and high <= bounds[1]):
        odd = high.item() if low >= bounds[0] else low.item()
    if np.isnan(low):
        numbers = values[~np.isnan(values)]
        if not len(numbers):
            return Range(1), odd
        low, high = numbers.min(), numbers.max()
    return Range(1, len(values), low.item(), high.item()), odd


def _leaves(
    prefix: str, columns: Iterable[tuple[str, pa.ChunkedArray]]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(leaf name as in parquet, values) of every leaf; lists are flattened."""
    for name, column in columns:
        if pa.types.is_list(column.type):
            inner = [("list.element", pc.list_flatten(column))]
            yield from _leaves(f"{prefix}{name}.", inner)
        elif pa.types.is_struct(column.type):
            fields = zip((f.name for f in column.type), column.flatten(), strict=True)
            yield from _leaves(f"{prefix}{name}.", fields)
        else:
            yield prefix + name, column
