"""Ingest: worker processes parse replays and write game files, this process commits their rows.

peppi holds the GIL, panics and may die, so each worker is a process of its own, fed by one thread
here; a worker that dies or hangs costs at most the replay it held. Workers end with their parent.
Results do not depend on the number of workers or on the order of files.
"""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any

from ingest import sources
from ingest.worker import Options, Outcome
from schemas.errors import FailureError, StoreError
from schemas.game import REVISION
from schemas.records import TABLES, TRANSIENT_RULES, Rows
from store.catalog import Catalog
from store.layout import Layout, open_layout

GAMES_PER_COMMIT = 500
COMMIT_INTERVAL_S = 10.0
TASK_SECONDS_MAX = 120.0
ATTEMPTS = 2
"""A replay whose worker died is tried once more: it may not have been the replay's fault."""
STARTS = 3
"""So often in a row a worker may fail to start before the ingest gives up."""
START_SECONDS_MAX = 120.0
DETAIL_CHARS_MAX = 500
PROGRESS_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Progress:
    """How far an ingest is; `files` counts everything that is done with."""

    files: int
    games: int
    known: int
    refused: int
    replay_bytes: int
    seconds: float


@dataclass
class Summary:
    """What an ingest did: files = stored + repaired + known + all refused."""

    files: int = 0
    stored: int = 0
    repaired: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    newer_than_parser: int = 0
    replay_bytes: int = 0
    parquet_bytes: int = 0
    seconds: float = 0.0
    snapshot: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, refusals by rule in a fixed order."""
        return asdict(self) | {"refused": dict(sorted(self.refused.items()))}

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.files += 1
        self.replay_bytes += outcome.replay_bytes
        if outcome.name == "refused":
            assert outcome.rule is not None
            self.refused[outcome.rule] += 1
        else:
            setattr(self, outcome.name, getattr(self, outcome.name) + 1)
        for game in outcome.rows.get("games", []):
            self.newer_than_parser += bool(game["newer_than_parser"])
            self.parquet_bytes += int(str(game["parquet_bytes"]))


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
    is not there, StoreError where the store cannot be written.
    """
    found = sources.items(paths)
    layout = open_layout(store, create=True)
    with Catalog(layout) as catalog:
        run = _Run(layout, catalog, options or Options(), progress)
        run.work_off(found, workers)
        catalog.compact()
        run.summary.snapshot = catalog.snapshot()
    return run.summary


class _Run:
    """One ingest in this process: counts outcomes and commits them in batches."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        options: Options,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.summary = Summary()
        self._options = options
        self._layout = layout
        self._catalog = catalog
        self._progress = progress
        self._batch: Rows = {}
        self._began = self._committed = time.monotonic()
        self._reported = 0.0
        self._running = 0

    def work_off(self, found: Iterator[sources.Item], workers: int) -> None:
        """Feed all items to the workers and take in what comes back."""
        shared = _Shared(found, _Known(self._catalog))
        results: queue.Queue[tuple[sources.Item, Outcome] | BaseException | None]
        results = queue.Queue(GAMES_PER_COMMIT)
        feeders = [
            _Feeder(self._layout, self._options, shared, results) for _ in range(max(1, workers))
        ]
        for feeder in feeders:
            feeder.start()
        try:
            self._running = len(feeders)
            self._collect(results)
        finally:
            shared.stop()
            self._collect(results, drain=True)
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

    def _take(self, item: sources.Item, outcome: Outcome) -> None:
        self.summary.add(outcome)
        for table, rows in outcome.rows.items():
            self._batch.setdefault(table, []).extend(rows)
        self._batch.setdefault("replays", []).append(_ledger_row(item, outcome))

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
            done = self.summary
            games, refused = done.stored + done.repaired, sum(done.refused.values())
            self._progress(
                Progress(done.files, games, done.known, refused, done.replay_bytes, done.seconds)
            )


def _ledger_row(item: sources.Item, outcome: Outcome) -> dict[str, object]:
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
        "rev": REVISION,
        "seen_at": datetime.now(UTC).replace(tzinfo=None),
    }
    assert list(row) == [column.name for column in TABLES["replays"]]
    return row


# --- feeding --------------------------------------------------------------------------------------


class _Shared:
    """What all feeders draw from: the items in turn, and which replays are known."""

    def __init__(self, found: Iterator[sources.Item], known: "_Known") -> None:
        self._items = found
        self._lock = threading.Lock()
        self._stopped = False
        self.known = known

    def next(self) -> sources.Item | None:
        """The next item; reading on in an archive happens here, in one feeder at a time."""
        with self._lock:
            return None if self._stopped else next(self._items, None)

    def stop(self) -> None:
        """No more items: feeders finish what they hold."""
        self._stopped = True


class _Known:
    """Replays that need no parsing: those of the ledger, and those taken up in this run."""

    def __init__(self, catalog: Catalog) -> None:
        sql = (
            f"select sha256 from lake.replays where rev = {REVISION} and sha256 is not null"
            f" and coalesce(rule, '') not in {TRANSIENT_RULES}"
        )
        self._seen: set[bytes] = set(catalog.query(sql).column(0).to_pylist())
        self._lock = threading.Lock()

    def claim(self, sha256: bytes) -> bool:
        """Whether this replay is new; of several copies the first asker gets it."""
        with self._lock:
            is_new = sha256 not in self._seen
            self._seen.add(sha256)
            return is_new


class _Feeder(threading.Thread):
    """A thread that owns one worker process at a time and hands it item after item."""

    def __init__(
        self, layout: Layout, options: Options, shared: _Shared, results: "queue.Queue[Any]"
    ) -> None:
        super().__init__(daemon=True)
        self._layout = layout
        self._options = options
        self._shared = shared
        self._results = results
        self._worker: _Worker | None = None

    def run(self) -> None:
        """Work until the items end; the last word is None."""
        try:
            while (item := self._shared.next()) is not None:
                self._results.put((item, self._outcome(item)))
        except BaseException as error:  # noqa: BLE001 - raised again by the collecting thread
            self._results.put(error)
        finally:
            if self._worker:
                self._worker.stop()
            self._results.put(None)

    def _outcome(self, item: sources.Item) -> Outcome:
        if item.rule:
            return Outcome("refused", rule=item.rule, detail=item.detail)
        claim = _Claim(self._shared.known)
        died = ""
        for _ in range(ATTEMPTS):
            self._worker = self._worker or self._start_worker()
            try:
                return self._worker.handle(item, claim)
            except TimeoutError:
                self._end_worker()
                detail = f"no result after {TASK_SECONDS_MAX:g} s"
                return Outcome("refused", claim.sha256, claim.size, "hung", detail)
            except (EOFError, OSError):
                died = self._end_worker()
        return Outcome("refused", claim.sha256, claim.size, "crashed", died)

    def _start_worker(self) -> "_Worker":
        for _ in range(STARTS - 1):
            with suppress(FailureError):
                return _Worker(self._layout, self._options)
        return _Worker(self._layout, self._options)

    def _end_worker(self) -> str:
        assert self._worker is not None
        said = self._worker.kill()
        self._worker = None
        return said


class _Claim:
    """One item's claim on its replay: made once, although two workers may ask."""

    def __init__(self, known: _Known) -> None:
        self._known = known
        self._granted: bool | None = None
        self.sha256: bytes | None = None
        self.size = 0

    def grant(self, sha256: bytes, size: int) -> bool:
        """Whether to go on with these bytes."""
        if self._granted is None or sha256 != self.sha256:
            self._granted = self._known.claim(sha256)
        self.sha256, self.size = sha256, size
        return self._granted


class _Worker:
    """A worker process and the pipe to it.

    A plain child process, not multiprocessing's: that would run the caller's main module again.
    """

    def __init__(self, layout: Layout, options: Options) -> None:
        self._options = options
        self._pipe, theirs = Pipe()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives with the process
        code = "import sys; from ingest.worker import serve; serve(*sys.argv[1:])"
        arguments = [str(theirs.fileno()), str(os.getpid()), str(layout.root.absolute())]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
        )
        theirs.close()
        try:
            self._receive(START_SECONDS_MAX)
        except (EOFError, OSError, TimeoutError) as error:
            raise FailureError(f"a worker process did not start: {self.kill()}") from error

    def handle(self, item: sources.Item, claim: _Claim) -> Outcome:
        """Have one replay read; blocks. Raises EOFError or OSError when the process dies.

        TimeoutError when it does not answer; StoreError when it cannot write.
        """
        # with each task, not among the arguments of the process: all users can read those
        self._pipe.send((self._options, item.path, item.data))
        reply = self._receive(TASK_SECONDS_MAX)
        if isinstance(reply, tuple):
            self._pipe.send(claim.grant(*reply))
            reply = self._receive(TASK_SECONDS_MAX)
        if isinstance(reply, StoreError):
            raise reply
        assert isinstance(reply, Outcome), reply
        return reply

    def _receive(self, seconds_max: float) -> Any:
        if not self._pipe.poll(seconds_max):
            raise TimeoutError
        return self._pipe.recv()

    def stop(self) -> None:
        """Let the process end by itself."""
        with suppress(OSError):
            self._pipe.send(None)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(TASK_SECONDS_MAX)
        self.kill()

    def kill(self) -> str:
        """End the process at once, and say how it had ended or what it wrote last."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)  # one that has died on its own keeps its own exit status
        self._process.kill()
        status = self._process.wait()
        self._pipe.close()
        self._stderr.seek(0)
        written = self._stderr.read()[-500:].decode("utf-8", "replace").strip()
        self._stderr.close()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the worker process ended by {how}" + (f": {written}" if written else "")
