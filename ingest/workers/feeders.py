"""Threads that hand items to worker processes, one process each, and pass on what came of them."""

import queue
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ingest import sources
from ingest.worker import Options, Outcome
from ingest.workers import process
from ingest.workers.known import Claim, Known
from ingest.workers.process import Worker
from schemas.errors import FailureError
from store.layout import Layout

ATTEMPTS = 2
"""A replay whose worker died is tried once more: it may not have been the replay's fault."""
STARTS = 3
"""So often in a row a worker may fail to start before the ingest gives up."""


class Shared:
    """What all feeders draw from: the items in turn, and which replays are known."""

    def __init__(self, found: sources.Items, known: Known) -> None:
        self._items = found
        self._stopped = False
        self.known = known

    def next(self) -> sources.Item | None:
        """The next item to be looked at; waits for those who read archives."""
        while (item := self._take()) is not None and not self.known.looks_at(item):
            pass
        return item

    def _take(self) -> sources.Item | None:
        return None if self._stopped else next(self._items, None)

    def stop(self) -> None:
        """No more items: feeders finish what they hold, archives are let go."""
        self._stopped = True
        self._items.close()


class Feeder(threading.Thread):
    """A thread that owns one worker process at a time and hands it item after item."""

    def __init__(
        self, layout: Layout, options: Options, shared: Shared, results: "queue.Queue[Any]"
    ) -> None:
        super().__init__(daemon=True)
        self._layout = layout
        self._options = options
        self._shared = shared
        self._results = results
        self._worker: Worker | None = None

    def run(self) -> None:
        """Work until the items end; the last word is None."""
        try:
            while (item := self._shared.next()) is not None:
                outcome = self._outcome(item)
                # without its bytes: 500 results may wait while another ingest holds the catalog
                item = replace(item, data=None)
                self._results.put((item, outcome))
        except BaseException as error:  # noqa: BLE001 - raised again by the collecting thread
            self._results.put(error)
        finally:
            if self._worker:
                self._worker.stop()
            self._results.put(None)

    def _outcome(self, item: sources.Item) -> Outcome:
        if item.rule:
            return Outcome("refused", rule=item.rule, detail=item.detail)
        claim = Claim(self._shared.known)
        for _ in range(ATTEMPTS):
            self._worker = self._worker or self._start_worker()
            try:
                return self._worker.handle(item, claim)
            except TimeoutError:
                self._end_worker()
                return claim.refused("hung", f"no result after {process.TASK_SECONDS_MAX:g} s")
            except MemoryError:
                self._end_worker()
                bound = f"{process.MEMORY_BYTES_MAX / 1e6:.0f} MB"
                return claim.refused("out_of_memory", f"the worker process took more than {bound}")
            except (EOFError, OSError):
                died = self._end_worker()
        return claim.refused("crashed", died)

    def _start_worker(self) -> Worker:
        for _ in range(STARTS - 1):
            with suppress(FailureError):
                return Worker(self._layout, self._options)
        return Worker(self._layout, self._options)

    def _end_worker(self) -> str:
        assert self._worker is not None
        said = self._worker.kill()
        self._worker = None
        return said
