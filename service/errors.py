"""The one shape of every error: {"code", "message", "hint"}, whatever went wrong and where."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from schemas.errors import AuthError, BusyError, MeleeError, NotFoundError, UsageError

_LOG = logging.getLogger("service")
_HEADERS: dict[type[MeleeError], dict[str, str]] = {
    AuthError: {"www-authenticate": "Bearer"},
    BusyError: {"retry-after": "1"},
}
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    412: "precondition_failed",
    416: "range_not_satisfiable",
}


class ErrorBody(BaseModel):
    """Body of every answer from 400 up; `position` only for a query, the offending word's index."""

    code: str
    message: str
    hint: str
    position: int | None = None


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "the request cannot be answered: code says why"},
    "5XX": {"model": ErrorBody, "description": "the service failed, or has too much to do"},
}
"""For the OpenAPI document of every endpoint."""


def error_response(error: MeleeError) -> JSONResponse:
    """The answer that tells of one of our errors."""
    return _response(error.http_status, error.as_dict(), _HEADERS.get(type(error), {}))


def install(app: FastAPI) -> None:
    """Make every way to fail answer in the one shape."""
    app.add_exception_handler(MeleeError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)


def _response(status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> JSONResponse:
    # no-store: 404 and 410 would otherwise be kept by caches.
    return JSONResponse(body, status, {**headers, "cache-control": "no-store"})


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MeleeError)
    if error.http_status >= 500:
        _LOG.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(error)


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(step for step in first["loc"][1:] if isinstance(step, str)) or "body"
    return error_response(
        UsageError(f"{place}: {first['msg']}", "GET /docs shows what is expected")
    )


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and error.detail == "Not Found":
        return error_response(NotFoundError(f"there is nothing at {request.url.path}", "GET /docs"))
    code = _CODES.get(error.status_code, "bad_request")
    body = {"code": code, "message": str(error.detail), "hint": ""}
    return _response(error.status_code, body, error.headers or {})


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # The traceback goes to the log by the server; a body must not show our insides.
    _LOG.error("%s %s: %s", request.method, request.url.path, type(error).__name__)
    body = {"code": "internal", "message": "the service failed", "hint": "its log says where"}
    return _response(500, body, {})
