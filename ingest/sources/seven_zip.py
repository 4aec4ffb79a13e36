"""Members of a .7z in one pass: py7zr pushes them, and the callers of `members` pull."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

from py7zr import SevenZipFile
from py7zr.io import Py7zIO, WriterFactory

Member = tuple[str, bytes]


def names(path: Path) -> list[str]:
    """Names of all members that are files. Raises whatever py7zr does for a damaged archive."""
    with path.open("rb") as file, SevenZipFile(file) as archive:
        return [member.filename for member in archive.list() if not member.is_directory]


def members(path: Path, wanted: Callable[[str], bool], bytes_max: int) -> Iterator[Member]:
    """Names and bytes (cut at `bytes_max`) of the members whose names are wanted.

    In one pass over the archive, whose blocks can only be read from their start. py7zr calls us for
    each member, so it runs in a thread of its own, two members ahead at most. Raises whatever py7zr
    does for an archive that is damaged, after the members that were whole.
    """
    queue: Queue[Member | Exception | None] = Queue(2)
    stop = threading.Event()

    def run() -> None:
        collector = _Collector(queue, stop, bytes_max)
        try:
            # a file handed over, not a path: else py7zr reads blocks in parallel, all in memory
            with path.open("rb") as file, SevenZipFile(file) as archive:
                names = [name for name in archive.namelist() if wanted(name)]
                if names:
                    archive.extract(targets=names, factory=collector)
            collector.emit()
        except Exception as error:  # noqa: BLE001 - raised again in the reading thread
            queue.put(error)
        queue.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (member := queue.get()) is not None:
            if isinstance(member, Exception):
                raise member
            yield member
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room in the queue
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)


class _Collector(WriterFactory):
    """Takes members as py7zr decompresses them; one is handed on when the next begins.

    Not earlier, because py7zr checks a member's CRC after closing it.
    """

    def __init__(
        self, queue: "Queue[Member | Exception | None]", stop: threading.Event, bytes_max: int
    ) -> None:
        self._queue = queue
        self._stop = stop
        self._bytes_max = bytes_max
        self._open: tuple[str, _Buffer] | None = None

    def create(self, filename: str) -> Py7zIO:
        self.emit()
        if self._stop.is_set():
            raise InterruptedError("nobody reads on")
        buffer = _Buffer(self._bytes_max)
        self._open = filename, buffer
        return buffer

    def emit(self) -> None:
        """Hand on the member that is complete."""
        if self._open is not None and not self._stop.is_set():
            name, buffer = self._open
            self._queue.put((name, bytes(buffer.data)))
        self._open = None


class _Buffer(Py7zIO):
    """Keeps a member's bytes up to a limit."""

    def __init__(self, bytes_max: int) -> None:
        self.data = bytearray()
        self._bytes_max = bytes_max

    def write(self, s: bytes | bytearray) -> int:
        self.data += s[: self._bytes_max - len(self.data)]
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return bytes(self.data[:size])

    def seek(self, offset: int, whence: int = 0) -> int:  # noqa: ARG002 - py7zr's interface
        return offset

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return len(self.data)
