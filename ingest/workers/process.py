"""One worker process and the pipe to it; knows nothing of queues and ledgers."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any

from ingest import sources
from ingest.worker import Options, Outcome
from ingest.workers.known import Claim
from schemas.errors import FailureError, StoreError
from store.layout import Layout

TASK_SECONDS_MAX = 120.0
START_SECONDS_MAX = 120.0
MEMORY_BYTES_MAX = 2**30
"""Of one worker. Measured: 0.09 GB at its start, 0.18 after real replays (4 MB and less), 0.42 with
one of 128 MB, 0.9 to 1.4 while one of 128 MB is rescued."""
WATCH_INTERVAL_S = 0.05


class Worker:
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
        except (EOFError, OSError, TimeoutError, MemoryError) as error:
            raise FailureError(f"a worker process did not start: {self.kill()}") from error

    def handle(self, item: sources.Item, claim: Claim) -> Outcome:
        """Have one replay read; blocks. Raises EOFError or OSError when the process dies.

        TimeoutError when it does not answer, MemoryError when it takes more than MEMORY_BYTES_MAX;
        StoreError when it cannot write.
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
        deadline = time.monotonic() + seconds_max
        while not self._pipe.poll(WATCH_INTERVAL_S):
            if time.monotonic() > deadline:
                raise TimeoutError
            if self._resident_bytes() > MEMORY_BYTES_MAX:
                raise MemoryError
        return self._pipe.recv()

    def _resident_bytes(self) -> int:
        """What the process holds in memory; 0 where the system does not tell."""
        # No rlimit: allocators reserve a gigabyte of addresses that they never touch, and Rust
        # aborts where it gets none, which looks like any other crash.
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

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
