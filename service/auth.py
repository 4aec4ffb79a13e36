"""Who may ask: one dependency on every route of /v1 that shows data."""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schemas.errors import AuthError
from service.settings import is_loopback
from service.state import Shared

_BEARER = HTTPBearer(auto_error=False, description="MELEEWM_TOKEN of the service")


async def authorised(
    request: Request,
    service: Shared,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> None:
    """Let a request pass that carries the token, or any local one where no token is set.

    Raises AuthError.
    """
    token = service.settings.token
    if not token:
        # A web page in a local browser can reach loopback by a name of its own (DNS rebinding).
        if not is_loopback(request.url.hostname or ""):
            raise AuthError("without a token only localhost is served", "set MELEEWM_TOKEN")
        return
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise AuthError("no token, or a wrong one", "send 'Authorization: Bearer TOKEN'")
