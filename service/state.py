"""What all requests of one service share: settings, store, threads. Routes get it by type."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from schemas.errors import BusyError
from service.cache import Cache
from service.parts import Slice, Source
from service.ranges import Answer, decide
from service.send import Sender
from service.settings import Settings
from store.catalog import Catalog
from store.layout import open_layout

P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """Shared by the requests of one application; `close` gives back what it holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = open_layout(settings.store)
        self._store_pool = ThreadPoolExecutor(settings.store_threads, "store")
        self._stream_pool = ThreadPoolExecutor(settings.stream_threads, "stream")
        self._sql_pool = ThreadPoolExecutor(settings.sql_processes, "sql")
        self._sql_waiting = 0
        self.sender = Sender(self._stream_pool, settings.stall_s)
        # Opening takes 0.3 s; an open one sees what other processes commit.
        self.catalog = Catalog(self.layout, read_only=True)
        self.datasets = Cache(self.layout, settings.cached_games_max)

    async def in_store(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work of the store in one of its threads, never on the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_pool, lambda: work(*args, **kwargs))

    async def in_sql(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query, or wait for one to end. Raises BusyError where too many wait."""
        if self._sql_waiting >= self.settings.sql_processes + self.settings.sql_waiting_max:
            raise BusyError("too many SQL queries are waiting", "ask again in a moment")
        self._sql_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._sql_pool, lambda: work(*args, **kwargs))
        finally:
            self._sql_waiting -= 1

    def base_url(self, request: Request) -> str:
        """What the addresses in our answers start with."""
        return (self.settings.public_url or str(request.base_url)).rstrip("/")

    def respond(self, request: Request, source: Source, media_type: str) -> Response:
        """Answer a GET or HEAD of a source, with conditions and a range by RFC 9110."""
        # Repeated headers are one list (RFC 9110, 5.3).
        names = {name: ", ".join(request.headers.getlist(name)) for name in request.headers}
        answer = decide(request.method, names, source.size, source.etag)
        if answer.status in (412, 416):
            what = "the ETag is another one" if answer.status == 412 else "no byte is in that range"
            raise HTTPException(answer.status, what, answer.headers)
        return _Stream(self.sender, source, answer, media_type)

    def close(self) -> None:
        """End the threads, dropping what was not begun, and close the catalog."""
        for pool in (self._store_pool, self._stream_pool, self._sql_pool):
            pool.shutdown(wait=True, cancel_futures=True)
        self.catalog.close()


class _Stream(Response):
    """A response whose body leaves through a Sender."""

    def __init__(self, sender: Sender, source: Source, answer: Answer, media_type: str) -> None:
        headers = (
            answer.headers
            if answer.status == 304
            else {**answer.headers, "content-type": media_type}
        )
        self.status_code, self.background = answer.status, None
        self.init_headers(headers)
        self._sender, self._slice = sender, Slice(source.parts, answer.start, answer.stop)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        if scope["method"] == "HEAD" or not len(self._slice):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._sender.send(self._slice, scope, send)


async def _service(request: Request) -> Service:  # a plain function would take a thread each time
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(_service)]
