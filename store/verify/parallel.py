"""Many small pieces of work in processes of their own, in bounded memory.

A piece that kills its process (damaged bytes may) costs that piece alone. Processes end with their
parent, however it ends.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 3
"""Pieces a process may lie ahead of what is taken."""
_LOOK_EVERY_S = 1.0


class DiedError(Exception):
    """A piece of work ended its process each time."""


def in_order(
    work: Callable[[T], R], pieces: Iterable[T], workers: int
) -> Iterator[tuple[T, R | DiedError]]:
    """(piece, result) in the pieces' order; an exception of `work` is raised here.

    workers: processes; 0 does the work in this one, where a crash is a crash. `work` and what goes
    in and out of it travel by pickle.
    """
    if not workers:
        for piece in pieces:
            yield piece, work(piece)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = _pool(workers)
    left = iter(pieces)
    try:
        while True:
            while len(waiting) < workers * _AHEAD and (piece := next(left, _END)) is not _END:
                waiting.append((piece, pool.submit(work, piece)))
            if not waiting:
                return
            piece, future = waiting.popleft()
            try:
                yield piece, future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                doubtful = [piece, *(one for one, _ in waiting)]
                waiting.clear()
                yield from _one_by_one(work, doubtful)
                pool = _pool(workers)
    finally:
        _end(pool)


_END: Any = object()


def _one_by_one(work: Callable[[T], R], pieces: list[T]) -> Iterator[tuple[T, R | DiedError]]:
    """Pieces of which one has ended its process: a process that ends now shows which."""
    pool = _pool(1)
    try:
        for piece in pieces:
            try:
                yield piece, pool.submit(work, piece).result()
            except BrokenProcessPool:
                yield piece, DiedError("it ended the process that read it")
                pool = _pool(1)
    finally:
        _end(pool)


def _end(pool: ProcessPoolExecutor) -> None:
    """End the processes now: nobody waits for what they may still be doing."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: a fork would copy open catalogs and the locks of other threads
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
    )


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
