"""What comes before any route: a cap on requests at once, and on the length of their bodies."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import BusyError, LimitError, MeleeError
from service.errors import error_response
from service.settings import Settings


class Gate:
    """ASGI middleware. Reads a body whole (the routes would) but never more than the cap."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._running >= self._settings.requests_max:
            busy = BusyError("too many requests at once", "ask again in a moment")
            await error_response(busy)(scope, receive, send)
            return
        self._running += 1
        try:
            await self._enter(scope, receive, send)
        finally:
            self._running -= 1

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except (MeleeError, TimeoutError) as error:
            late = LimitError("the request body did not come in time")
            response = error_response(error if isinstance(error, MeleeError) else late)
            response.headers["connection"] = "close"  # the rest of the body is never read
            await response(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client left in the middle of it."""
        most = self._settings.request_bytes_max
        too_long = LimitError(f"the request body is longer than {most} bytes")
        if int(Request(scope).headers.get("content-length", "0")) > most:
            raise too_long
        body = bytearray()
        async with asyncio.timeout(self._settings.stall_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message["body"]
                if len(body) > most:
                    raise too_long
                if not message["more_body"]:
                    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
