"""A slice of parts into a connection: `os.sendfile` where uvicorn lends us its socket, else chunks.

However a stream ends, the file and the descriptor that it held are closed.
"""

import asyncio
import os
import socket
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.parts import Slice, shrunk

T = TypeVar("T")
BURST = 4 << 20  # bytes that a stream may send before the others have their turn
CYCLE = "meleewm.cycle"


class SendfileProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, which lends each response its connection.

    uvicorn (0.54, pinned) does not promise this hook nor the cycle's `expected_content_length`:
    without them bodies go by chunks, and a test fails.
    """

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.scope["extensions"] = {CYCLE: cycle}
        super()._start_asgi_task(cycle, app)


@dataclass(frozen=True)
class Sender:
    """How bodies leave: by which threads, and how long a client may take nothing."""

    pool: Executor
    stall_s: float

    async def send(self, body: Slice, scope: Scope, send: Send) -> None:
        """Send the body of a response whose start was sent. Raises StoreError (see Slice)."""
        cycle = scope.get("extensions", {}).get(CYCLE)
        try:
            # Under TLS the bytes must pass through the transport.
            if scope["scheme"] == "http" and hasattr(cycle, "expected_content_length"):
                await self._by_sendfile(body, cycle)
                cycle.expected_content_length = 0
            else:
                await self._by_chunks(body, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ConnectionError, TimeoutError):
            if cycle is not None:
                cycle.transport.abort()
            await asyncio.sleep(0)  # the protocol hears of it: no complaint about a short response

    async def _by_sendfile(self, body: Slice, cycle: Any) -> None:
        await asyncio.wait_for(_flushed(cycle), self.stall_s)
        # A duplicate: asyncio lets nobody wait for a descriptor that belongs to a transport.
        lent = cycle.transport.get_extra_info("socket")
        with lent.dup() as out, closing(bursts(body, out)) as sending:
            while (went_on := await self._step(sending)) is not None:
                if not went_on:
                    await asyncio.wait_for(_writable(out), self.stall_s)
                if cycle.disconnected:
                    raise ConnectionAbortedError

    async def _by_chunks(self, body: Slice, send: Send) -> None:
        with closing(body.chunks()) as reading:
            while chunk := await self._step(reading):
                message = {"type": "http.response.body", "body": chunk, "more_body": True}
                await asyncio.wait_for(send(message), self.stall_s)

    async def _step(self, generator: Generator[T, None, None]) -> T | None:
        """The next item, made in a pool thread; None at the end."""
        future = asyncio.get_running_loop().run_in_executor(self.pool, next, generator, None)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])  # a generator that runs cannot be closed, nor its file
            raise


def bursts(body: Slice, out: socket.socket) -> Generator[bool, None, None]:
    """Send without waiting; yields True after a burst, False when `out` is full."""
    left, room = len(body), BURST
    for source, at, end in body.segments():
        while at < end:
            n = min(end - at, room)
            try:
                if isinstance(source, bytes):
                    # MSG_MORE: a header leaves in one packet with the file that follows it.
                    more = socket.MSG_MORE if left > n else 0
                    sent = out.send(memoryview(source)[at : at + n], more)
                elif not (sent := os.sendfile(out.fileno(), source, at, n)):
                    raise shrunk()
            except BlockingIOError:
                yield False
                continue
            at, left, room = at + sent, left - sent, room - sent
            if not room:
                yield True
                room = BURST


async def _flushed(cycle: Any) -> None:
    """Wait until what the transport holds (the response's head) is in the socket."""
    cycle.transport.set_write_buffer_limits(high=0)  # pauses the protocol while anything is held
    try:
        await cycle.flow.drain()
    finally:
        cycle.transport.set_write_buffer_limits()


async def _writable(out: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(out, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(out)
