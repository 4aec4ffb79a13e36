"""How an endpoint that serves bytes is declared: GET and HEAD, with ranges."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Response

Endpoint = Callable[..., Awaitable[Response]]


def serves_bytes(router: APIRouter, path: str, media_type: str) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint that answers by Service.respond."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "all bytes, with a strong ETag", "content": content},
        206: {"description": "the one range that was asked for", "content": content},
        304: {"description": "the ETag is the one in If-None-Match"},
    }

    def register(endpoint: Endpoint) -> Endpoint:
        router.get(path, response_class=Response, responses=responses)(endpoint)
        # Two methods under one operation would share an id: HEAD stays out of the document.
        router.head(path, include_in_schema=False)(endpoint)
        return endpoint

    return register
