"""The application and its server process; the endpoints live in modules by resource."""

import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import FastAPI

from schemas.errors import UsageError
from service import browse, datasets, errors, games, sql
from service.gate import Gate
from service.send import SendfileProtocol
from service.settings import Settings
from service.state import Service

_PARENT_POLL_S = 0.5


def create_app(settings: Settings) -> FastAPI:
    """The service over one store as an ASGI application.

    Raises UsageError where there is no store, StoreError for one of another format.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Melee World Model data service",
        version=version("meleewm"),
        description="Replays as datasets: any query is tar shards, tables or an answer.",
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect loses the headers of many clients
    )
    app.state.service = service
    app.add_middleware(Gate, settings=settings)
    errors.install(app)
    for router in (
        browse.probe,
        datasets.router,
        games.router,
        sql.router,
        browse.router,
    ):
        app.include_router(router)
    return app


def serve(settings: Settings, *, announce: bool = False, exit_with_parent: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; streams then have `drain_s` to end.

    One line with the URL goes to stderr; announce: {"url": ...} as one line of JSON to stdout
    instead, once connections are accepted. exit_with_parent: end when the starting process ends,
    however it does.
    Raises UsageError where the address cannot be listened on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a stream holds three
    with listen(settings) as listener:
        app = create_app(settings)
        url = _address(listener, settings.host)
        server = _Server(uvicorn_config(app, settings), url, announce=announce)
        if exit_with_parent:
            _follow_parent(server)
        server.run([listener])


def uvicorn_config(app: FastAPI, settings: Settings, **changes: Any) -> uvicorn.Config:
    """How uvicorn runs the application; changes: for tests of other ways."""
    config: dict[str, Any] = {
        "http": SendfileProtocol,
        "ws": "none",
        "loop": "asyncio",  # uvloop showed no gain with sendfile
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": max(int(settings.drain_s), 1),
    }
    return uvicorn.Config(app, **{**config, **changes})


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str, *, announce: bool) -> None:
        super().__init__(config)
        self._url, self._announce = url, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._announce:
            sys.stdout.write(json.dumps({"url": self._url}) + "\n")
            sys.stdout.flush()
        else:
            sys.stderr.write(f"serving at {self._url}\n")


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of the settings. Raises UsageError where that cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise UsageError(message, "--port 0 picks a free one") from error
    return listener


def _address(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _follow_parent(server: uvicorn.Server) -> None:
    """End when our parent is another one than now: then the one that started us is gone.

    Asked for twice a second: Linux's death signal comes when the parent's thread ends, and the end
    of stdin means nothing where stdin was inherited.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
