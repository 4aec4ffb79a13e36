"""How every verb speaks: exit codes, the one error line, progress on stderr, results on stdout.

Imports rich only when something is drawn, so that `--help` stays fast.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from schemas.errors import MeleeError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 10.0
"""Where stderr is no terminal, progress is one line in this many seconds."""


class Terminated(BaseException):
    """SIGTERM arrived."""


class SaidError(Exception):
    """A child process has printed the error line; what is left is to end with its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a child ended with exit code {code}")
        self.code = code


def guard(run: Callable[[], int], *, debug: bool) -> int:
    """Run a verb and turn whatever it raises into the exit code that STYLE promises.

    0 done, 1 the work failed, 2 the input was wrong, 130 and 143 after SIGINT and SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = run()
        sys.stdout.flush()
    except MeleeError as error:
        code = _complain(str(error), error.exit_code, debug=debug)
    except SaidError as said:
        code = said.code
    except KeyboardInterrupt as stop:
        line = str(stop) or "interrupted; the same command goes on from here"
        code = _complain(line, 130, debug=debug)
    except Terminated as stop:
        line = str(stop) or "terminated; the same command goes on from here"
        code = _complain(line, 143, debug=debug)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough. Python would complain once more
        # when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        hint = f"install it with: pip install 'meleewm[{extra}]'"
        code = _complain(f"this needs the package {error.name} ({hint})", 2, debug=debug)
    except OSError as error:
        code = _complain(_os_error(error), 1, debug=debug)
    return code


EXTRAS = {
    "duckdb": "store",
    "peppi_py": "ingest",
    "py7zr": "ingest",
    "zstandard": "ingest",
    "fastapi": "service",
    "uvicorn": "service",
    "torch": "training",
    "safetensors": "training",
    "webdataset": "training",
    "matplotlib": "training",
    "modal": "modal",
}
"""The extra of ours that brings a package, for the hint when it is missing."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _os_error(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}".lower() if error.strerror else str(error)


def _complain(line: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201
    return code


def say(text: str) -> None:
    """A line for the human, on stderr; stdout is for results only."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def out(text: str) -> None:
    """A line of the result."""
    print(text)  # noqa: T201


def out_json(value: object) -> None:
    """One JSON document, the result of a verb under --json."""
    print(json.dumps(value, default=str))  # noqa: T201


def print_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: drawn to the terminal's width, or whole where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [list(row) for row in rows]
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 100_000, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(names):
        numeric = all(isinstance(r[i], int | float) for r in rows if r[i] is not None)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=not terminal)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if not terminal:
        # A table that is not looked at is read by a program: no trailing blanks.
        with console.capture() as capture:
            console.print(table)
        out("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))
        return
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


class Bar:
    """Progress of long work: a rich bar on a terminal, a line every ten seconds elsewhere.

    `update(done, total, note)` may be called as often as one likes; `quiet` draws nothing. show:
    how amounts stand in a line.
    """

    def __init__(
        self, title: str, *, quiet: bool = False, show: Callable[[float], str] = "{:g}".format
    ) -> None:
        self.title = title
        self._show = show
        self.quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=None, note="")
        return self

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """Show that `done` of `total` (None: unknown) is behind us."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif not self.quiet and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(f"{self.title}: {self._line(done, total)} {note}".rstrip())

    def say(self, text: str) -> None:
        """A line for the human, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self.quiet:
            say(text)

    def _line(self, done: float, total: float | None) -> str:
        if not total:
            return f"{self._show(done)};"
        spent = time.monotonic() - self._started
        left = human_seconds(spent / done * (total - done)) if done else "?"
        return f"{self._show(done)} of {self._show(total)}, {left} left;"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def human_bytes(n: float) -> str:
    """1536 -> '1.5 kB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def human_seconds(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
