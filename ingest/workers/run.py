"""An ingest as a whole: items go to the workers, what comes back is committed in batches."""

import queue
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest import anonymize, sources
from ingest.worker import Options, Outcome
from ingest.workers.feeders import Feeder, Shared
from ingest.workers.known import Known
from ingest.workers.summary import Progress, Summary
from schemas.records import TABLES, TRANSIENT_RULES, Rows
from store.catalog import Catalog
from store.layout import Layout, open_layout, sweep_parts

GAMES_PER_COMMIT = 1_000
COMMIT_INTERVAL_S = 10.0
DETAIL_CHARS_MAX = 500
PROGRESS_INTERVAL_S = 0.2
_Result = tuple[sources.Item, Outcome]


def ingest(
    paths: Sequence[Path],
    store: Path,
    *,
    workers: int,
    options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Bring every replay of these files, folders and archives into a store, made if need be.

    A second run stores nothing; one that was interrupted goes on. Interrupted by Ctrl-C, what is
    ready is committed before KeyboardInterrupt goes on its way. Raises UsageError for a path that
    is not there or a key that is not the store's, StoreError where the store cannot be written.
    """
    found = sources.items(paths)
    return _ingest(found, store, workers, options or Options(), progress)


def watch(
    folders: Sequence[Path],
    store: Path,
    *,
    rescue_after_s: float,
    workers: int,
    options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Bring the replays of these folders into a store as they are finished, until Ctrl-C.

    One that has been left alone for `rescue_after_s` is taken as it is. Raises as `ingest` does.
    """
    found = sources.watch(folders, rescue_after_s=rescue_after_s)
    return _ingest(found, store, workers, options or Options(), progress, compact=True)


def _ingest(
    found: sources.Items,
    store: Path,
    workers: int,
    options: Options,
    progress: Callable[[Progress], None] | None,
    *,
    compact: bool = False,
) -> Summary:
    """compact: also after an interruption, where that is the usual end."""
    layout = open_layout(store, create=True)
    anonymize.check(layout, options.key)
    sweep_parts(layout)
    with Catalog(layout) as catalog:
        ids = catalog.known_replays(repair=options.repair, revision=options.revision)
        run = Run(layout, catalog, options, Known(ids), progress)
        try:
            run.work_off(found, workers)
        except BaseException as stop:
            if compact and not isinstance(stop, Exception):
                catalog.compact()
            raise
        catalog.compact()
        run.summary.snapshot = catalog.snapshot()
    return run.summary


class Run:
    """One ingest in this process: counts outcomes and commits them in batches."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        options: Options,
        known: Known,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.summary = Summary()
        self._options = options
        self._known = known
        self._copies: dict[bytes, list[_Result]] = {}
        self._layout = layout
        self._catalog = catalog
        self._progress = progress
        self._batch: Rows = {}
        self._began = self._committed = time.monotonic()
        self._reported = 0.0
        self._running = 0

    def work_off(self, found: sources.Items, workers: int) -> None:
        """Feed all items to the workers and take in what comes back."""
        shared = Shared(found, self._known)
        results: queue.Queue[_Result | BaseException | None] = queue.Queue(GAMES_PER_COMMIT)
        feeders = [
            Feeder(self._layout, self._options, shared, results) for _ in range(max(1, workers))
        ]
        for feeder in feeders:
            feeder.start()
        try:
            self._running = len(feeders)
            self._collect(results)
        finally:
            shared.stop()
            self._collect(results, drain=True)
            self.summary.passed_over = found.passed_over
            self._commit()
            self._report(at_once=True)

    def _collect(self, results: "queue.Queue[Any]", *, drain: bool = False) -> None:
        """Take results until every feeder has said its last word, or until one has failed."""
        while self._running:
            try:
                result = results.get(timeout=1.0)
            except queue.Empty:
                result = ()
            if result is None:
                self._running -= 1
            elif isinstance(result, BaseException):
                if not drain:
                    raise result
            elif result:
                self._take(*result)
            self._commit_if_due()
            self._report()

    def leave(self, games: int) -> None:
        """Count games that need no reading."""
        self.summary.files += games
        self.summary.known += games

    def _take(self, item: sources.Item, outcome: Outcome) -> None:
        """Count an outcome in. A copy waits for what becomes of its replay, and shares that."""
        sha256 = outcome.sha256
        if not self._known.counts_known and (outcome.name == "known" or not sha256):
            return
        if outcome.name == "known" and sha256 and self._known.is_open(sha256):
            self._copies.setdefault(sha256, []).append((item, outcome))
            return
        self._count(item, self._known.ready(outcome))
        if sha256 is None or outcome.name == "known":
            return
        self._known.settle(sha256)
        for copy, met in self._copies.pop(sha256, []):
            # one that may not have been at fault is tried again, wherever it lies
            self._count(copy, outcome if outcome.rule in TRANSIENT_RULES else met)

    def _count(self, item: sources.Item, outcome: Outcome) -> None:
        self.summary.add(outcome)
        for table, rows in outcome.rows.items():
            self._batch.setdefault(table, []).extend(rows)
        self._batch.setdefault("replays", []).append(self._ledger_row(item, outcome))

    def _commit_if_due(self) -> None:
        waited = time.monotonic() - self._committed
        if len(self._batch.get("replays", [])) >= GAMES_PER_COMMIT or waited > COMMIT_INTERVAL_S:
            self._commit()

    def _commit(self) -> None:
        if self._batch:
            self._catalog.commit(self._batch)
        self._batch = {}
        self._committed = time.monotonic()

    def _report(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        self.summary.seconds = now - self._began
        if self._progress and (at_once or now - self._reported > PROGRESS_INTERVAL_S):
            self._reported = now
            self._progress(self.summary.progress())

    def _ledger_row(self, item: sources.Item, outcome: Outcome) -> dict[str, object]:
        """Where a replay was met, and what became of it."""
        row: dict[str, object] = {
            "replay_id": outcome.sha256.hex()[:32] if outcome.sha256 else None,
            "sha256": outcome.sha256,
            "source": item.source,
            "member": item.member,
            "replay_bytes": outcome.replay_bytes if outcome.sha256 else None,
            "outcome": outcome.name,
            "rule": outcome.rule,
            # one line: peppi's panics come with line breaks and runs of blanks
            "detail": outcome.detail and " ".join(outcome.detail.split())[:DETAIL_CHARS_MAX],
            "rev": self._options.revision,
            "seen_at": datetime.now(UTC).replace(tzinfo=None),
        }
        assert list(row) == [column.name for column in TABLES["replays"]]
        return anonymize.ledger_row(row, self._options.key) if self._options.key else row
