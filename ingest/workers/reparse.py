"""Games of a store read anew, from where the ledger says that their replays lie.

A game file of a new revision comes beside the old one: old locks keep theirs, and a query sees the
newer. Files and archives are read as in any ingest, but only for the games that are wanted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from ingest import anonymize, sources
from ingest.worker import Options, Outcome
from ingest.workers.known import Known
from ingest.workers.run import Run
from ingest.workers.summary import Progress, Summary
from schemas.errors import UsageError
from schemas.records import Rows
from schemas.shard import Request
from store.catalog import HEX_ID, Catalog
from store.layout import Layout, open_layout, sweep_parts
from store.select import select

NOWHERE = "nowhere: the ledger has no row about it"
"""Stands for the source of a game that was adopted, or whose catalog was made anew."""
Place = tuple[str, str | None]
"""Source and member."""


def reparse(
    store: Path,
    query: str | None = None,
    *,
    paths: Sequence[Path] = (),
    workers: int,
    options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Parse the games of a store (those of a query, all recordings) into the present revision.

    paths: where to look for their replays, in place of what the ledger says. A game that is there
    already, its file too, is left and counts as known; `missing` of the summary counts the games of
    which no source was found with the same bytes. Raises UsageError, QueryError, StoreError.
    """
    options = options or Options()
    if options.key and not paths:
        message = "the ledger of a store made with a key does not tell where replays lay"
        raise UsageError(message, "name the files, folders or archives to look in")
    named = sources.items(paths) if paths else None
    layout = open_layout(store)
    anonymize.check(layout, options.key)
    sweep_parts(layout)
    with Catalog(layout) as catalog:
        games = select(layout, Request(query=query, recordings="all"), catalog=catalog).table
        wanted = _wanted(layout, catalog, games, options.revision)
        places = _places(catalog, wanted.ids)
        run = Run(layout, catalog, options, wanted, progress)
        run.leave(len(games) - len(wanted.ids))
        if named:
            run.work_off(named, workers)
        for files in _rounds(wanted, {} if named else places):
            run.work_off(sources.items(files), workers)
        first = {game: name for game, ((name, _), *_) in places.items()}
        run.summary.missing = Counter(first.get(game.hex(), NOWHERE) for game in wanted.left())
        catalog.compact()
        run.summary.snapshot = catalog.snapshot()
    return run.summary


@dataclass(frozen=True)
class _Written:
    """What the catalog says of a file that is not on disk."""

    sha256: bytes
    rewrite: int


class Wanted(Known):
    """Replays to be read, in place of those that need not be."""

    counts_known = False

    def __init__(self, ids: Iterable[bytes], lost: dict[str, _Written]) -> None:
        """lost: by game id, those of the present revision whose files are missing."""
        super().__init__(pa.chunked_array([], pa.binary()))
        self.ids = frozenset(ids)
        self._lost = lost
        self._settled: set[bytes] = set()
        self._looked_for: frozenset[Place] | None = None

    def look_for(self, places: Iterable[Place]) -> None:
        """From now on take what lies at these places alone; at first it is anything."""
        self._looked_for = frozenset(places)

    def looks_at(self, item: sources.Item) -> bool:
        """Whether an item is to be read."""
        places = self._looked_for
        return not item.rule and (places is None or (item.source, item.member) in places)

    def claim(self, sha256: bytes) -> bool:
        """Whether this replay is wanted still."""
        return sha256[:16] in self.ids and super().claim(sha256)

    def settle(self, sha256: bytes) -> None:
        """It is known now what became of a replay."""
        super().settle(sha256)
        self._settled.add(sha256[:16])

    def left(self) -> frozenset[bytes]:
        """The replays that were not found so far."""
        return self.ids - self._settled

    def ready(self, outcome: Outcome) -> Outcome:
        """An outcome with the rows that its commit needs.

        Where the catalog names other bytes (another pyarrow wrote them), the file that is there now
        gets rows of its own.
        """
        game = next(iter(outcome.rows.get("games", [])), None)
        had = self._lost.get(str(game["game_id"])) if game else None
        if game is None or had is None or game["parquet_sha256"] == had.sha256:
            return outcome
        rows: Rows = {
            name: [{**row, "rewrite": had.rewrite + 1} if "rewrite" in row else row for row in rows]
            for name, rows in outcome.rows.items()
        }
        return replace(outcome, rows=rows)


def _wanted(layout: Layout, catalog: Catalog, games: pa.Table, revision: int) -> Wanted:
    """The selected games whose newest file is of an older revision, or missing."""
    listed = list(
        zip(games.column("game_id").to_pylist(), games.column("rev").to_pylist(), strict=True)
    )
    older = [game for game, rev in listed if rev < revision]
    lost = [
        game for game, rev in listed if rev == revision and not layout.game_path(game, rev).exists()
    ]
    found = catalog.query(
        f"select {HEX_ID} as id, parquet_sha256 as sha256, rewrite from lake.games"
        f" where rev = {int(revision)} and {HEX_ID} in (select id from lost) order by rewrite",
        lost=pa.table({"id": pa.array(lost, pa.string())}),
    )
    written = {row["id"]: _Written(row["sha256"], row["rewrite"]) for row in found.to_pylist()}
    return Wanted(map(bytes.fromhex, [*older, *lost]), written)


def _places(catalog: Catalog, ids: Iterable[bytes]) -> dict[str, list[Place]]:
    """Where each game's replay was met, those first where most of the others lie."""
    found = catalog.query(
        "select distinct replace(cast(replay_id as varchar), '-', '') as id, source, member"
        " from lake.replays where outcome in ('stored', 'repaired', 'known')"
        " and replay_id in (select cast(id as uuid) from wanted) order by all",
        wanted=pa.table({"id": pa.array([game.hex() for game in ids], pa.string())}),
    ).to_pylist()
    games_in = Counter(row["source"] for row in found)
    places: dict[str, list[Place]] = {}
    for row in sorted(found, key=lambda row: -games_in[row["source"]]):
        places.setdefault(row["id"], []).append((row["source"], row["member"]))
    return places


def _rounds(wanted: Wanted, places: dict[str, list[Place]]) -> Iterable[list[Path]]:
    """The files to read: first one place of each game, then another of those not found there."""
    there = {source for of_game in places.values() for source, _ in of_game}
    there = {source for source in there if Path(source).is_file()}
    untried = {
        game: [place for place in of_game if place[0] in there] for game, of_game in places.items()
    }
    while True:
        tried = [untried[g.hex()].pop(0) for g in wanted.left() if untried.get(g.hex())]
        if not tried:
            return
        wanted.look_for(tried)
        yield sorted({Path(source) for source, _ in tried})
