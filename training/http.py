"""Our HTTP client: bounded retries, resume within a body, and errors as the service means them.

Built on http.client. Follows no redirect to another host, speaks http and https only, and sends its
token to the one origin it was given for. Knows nothing of shards. One thread at a time.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urljoin, urlsplit

from schemas.errors import MeleeError, StreamError, UsageError

CHUNK_BYTES = 1 << 20
BODY_BYTES_MAX = 1 << 30
"""Longest body that is held whole: members.parquet of 10 million games is half of it."""
ERROR_BYTES_MAX = 64 << 10
REDIRECTS_MAX = 3
RETRY_AFTER_S_MAX = 60.0
RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_PRINTABLE = re.compile(r"[!-~]+")
PROGRESS_BYTES = 1 << 20
"""A transfer that moved this far has earned new attempts; less would let a server that breaks after
each byte keep us for ever."""
STALL_BYTES = 64 << 10
"""A server that sends less than this in `timeout_s` has stalled, though it never falls silent."""


@dataclass(frozen=True)
class Retry:
    """How long to go on asking: `attempts` in a row, waits doubling from first_s to most_s, each
    drawn between half and the whole of it, so that many clients do not return together."""

    attempts: int = 6
    first_s: float = 0.25
    most_s: float = 10.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        most = min(self.first_s * float(2 ** (failures - 1)), self.most_s)
        return most * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret


@dataclass
class Traffic:
    """What went over the wire so far."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0


class BrokenError(Exception):
    """A request that may succeed when it is made again; never leaves this module.

    meant: what to raise in the end, where the service said it. wait_s: how long it asked to wait.
    """

    def __init__(self, message: str, meant: MeleeError | None = None, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.meant, self.wait_s = meant, wait_s


@dataclass
class Client:
    """Requests to one service. `sleep` is called between attempts."""

    base_url: str
    token: str | None = field(default=None, repr=False)
    retry: Retry = field(default_factory=Retry)
    sleep: Callable[[float], None] = time.sleep
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._origin = origin(_split(self.base_url))
        self._connection: HTTPConnection | None = None
        self._at: tuple[str, str, int] | None = None
        self._last: HTTPResponse | None = None
        if self.token is not None and not _PRINTABLE.fullmatch(self.token):
            raise UsageError("the token has characters that no token has", "see $MELEEWM_TOKEN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; the next request opens another one."""
        if self._last is not None:  # may hold the socket, where the server closes after each answer
            self._last.close()
        if self._connection is not None:
            self._connection.close()
        self._connection = self._at = self._last = None

    def get(self, url: str) -> bytes:
        """A whole body. `url` may be relative to the base.

        Raises the service's own error, StreamError when all attempts failed.
        """
        return self._whole("GET", url, None)

    def post_json(self, url: str, document: object) -> bytes:
        """The answer to a JSON document; asked again like a GET, so only for what may be repeated.

        Raises the service's own error, StreamError when all attempts failed.
        """
        return self._whole("POST", url, json.dumps(document).encode())

    def open(self, url: str, *, size: int, etag: str, start: int = 0) -> "Transfer":
        """A body of known size and strong ETag, read from `start` on; asks for nothing yet."""
        return Transfer(self, urljoin(self.base_url, url), size=size, etag=etag, start=start)

    # --- one request --------------------------------------------------------------------------

    def _whole(self, method: str, url: str, body: bytes | None) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        target = urljoin(self.base_url, url)

        failures = 0
        while True:
            try:
                return self._body(target, self.request(method, target, headers, body))
            except BrokenError as broken:
                failures += 1
                self.pause(broken, failures)

    def _body(self, url: str, response: HTTPResponse) -> bytes:
        with _broken_as(url):
            data = response.read(BODY_BYTES_MAX + 1)
        self.traffic.bytes += len(data)
        if len(data) > BODY_BYTES_MAX:
            self.close()
            raise StreamError(f"{url}: the body is longer than {BODY_BYTES_MAX:,} bytes")
        # http.client says nothing of a body that ends early when it is read by size.
        if str(len(data)) != response.headers.get("Content-Length", str(len(data))):
            raise BrokenError(f"{url} ends after {len(data)} bytes")
        return data

    def pause(self, broken: BrokenError, failures: int) -> None:
        """Wait before the next attempt. Raises StreamError when there is none."""
        self.close()
        if failures >= self.retry.attempts:
            raise broken.meant or StreamError(f"{broken} ({failures} attempts)") from broken
        self.traffic.retries += 1
        self.sleep(max(self.retry.wait_s(failures), broken.wait_s))

    def request(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> HTTPResponse:
        """One attempt: the response with its body unread.

        Raises BrokenError where another attempt may help, else the service's error.
        """
        for _ in range(REDIRECTS_MAX + 1):
            response = self._send(method, url, headers, body)
            if response.status in (200, 206):
                return response
            if response.status not in (301, 302, 307, 308):
                raise self._error(url, response)
            url = self._redirected(url, response)
        raise StreamError(f"{url}: more than {REDIRECTS_MAX} redirects")

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> HTTPResponse:
        parts = _split(url)
        sent = {"Accept-Encoding": "identity", "User-Agent": "meleewm", **headers}
        if self.token and origin(parts) == self._origin:
            sent["Authorization"] = f"Bearer {self.token}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.traffic.requests += 1
        with _broken_as(url):
            connection = self._connect(parts)
            connection.request(method, path, body=body, headers=sent)
            self._last = connection.getresponse()
        return self._last

    def _connect(self, parts: SplitResult) -> HTTPConnection:
        """The kept connection, if it goes there and its last body was read to the end."""
        at = origin(parts)
        idle = self._last is None or self._last.isclosed()
        if self._connection is not None and self._at == at and idle:
            return self._connection
        self.close()
        kind = HTTPSConnection if at[0] == "https" else HTTPConnection
        self._connection, self._at = kind(at[1], at[2], timeout=self.retry.timeout_s), at
        return self._connection

    def _redirected(self, url: str, response: HTTPResponse) -> str:
        target = urljoin(url, response.headers.get("Location", ""))
        self.close()
        if origin(_split(target)) != origin(_split(url)):
            raise StreamError(f"{url} redirects to another host", "give the address it ends at")
        return target

    def _error(self, url: str, response: HTTPResponse) -> Exception:
        with _broken_as(url):
            text = response.read(ERROR_BYTES_MAX)
        self.close()
        meant = _meant(url, response.status, text)
        if response.status not in RETRIED:
            return meant
        # Retry-After may be a date too: then our own waits do.
        asked = response.headers.get("Retry-After", "")
        wait_s = min(float(asked), RETRY_AFTER_S_MAX) if asked.isdecimal() else 0.0
        return BrokenError(f"{url} answers {response.status}", meant, wait_s)


class Transfer:
    """A body that is read exactly, whatever happens to its connections.

    Never trusts a stream's end: `size` says when it is over. What breaks off or stalls goes on at
    the byte where it stopped, by Range and If-Range, and only while the ETag is the same.
    """

    def __init__(self, client: Client, url: str, *, size: int, etag: str, start: int = 0) -> None:
        self.client, self.url, self.size, self.etag = client, url, size, etag
        self.position = start
        self._response: HTTPResponse | None = None
        self._failures = 0
        self._earned = start
        self._watch = _Watch(client.retry.timeout_s)

    def read(self, n: int) -> bytearray:
        """The next n bytes, all of them.

        Raises StreamError when all attempts failed or the body is another one.
        """
        if self.position + n > self.size:
            raise StreamError(f"{self.url}: {n} bytes asked for at {self.position} of {self.size}")
        data = bytearray()
        while len(data) < n:
            try:
                data += self._piece(n - len(data))
            except BrokenError as broken:
                self._response = None
                self._failures += 1
                self.client.pause(broken, self._failures)
        return data

    def seek(self, position: int) -> None:
        """Go on at another byte: by reading on where it is near, else with a new request."""
        ahead = position - self.position
        if 0 <= ahead <= CHUNK_BYTES:
            self.read(ahead)
        else:
            self.close()
            self.position = self._earned = position

    def close(self) -> None:
        """Give the connection up; reading on would open another one."""
        self.client.close()
        self._response = None

    def _piece(self, most: int) -> bytes:
        if self._response is None:
            self._response = self._opened()
            self._watch.start()
        with _broken_as(self.url), self._watch:
            piece = self._response.read1(min(most, CHUNK_BYTES))
            self._watch.bytes += len(piece)
        if not piece:
            raise BrokenError(f"{self.url} ends at byte {self.position} of {self.size}")
        self.position += len(piece)
        self.client.traffic.bytes += len(piece)
        if self.position >= self._earned + PROGRESS_BYTES:
            self._failures, self._earned = 0, self.position
        if self.position == self.size:
            self._finish(self._response)
        return piece

    def _finish(self, response: HTTPResponse) -> None:
        """Let http.client see the body's end, so that the connection can be used again."""
        self._response = None
        try:
            response.read(1)
        except (OSError, HTTPException):
            self.client.close()

    def _opened(self) -> HTTPResponse:
        headers = {}
        if self.position:
            headers = {"Range": f"bytes={self.position}-", "If-Range": self.etag}
        response = self.client.request("GET", self.url, headers)
        self._check(response)
        if response.status == 200 and self.position:
            self._discard(response)
        return response

    def _check(self, response: HTTPResponse) -> None:
        tag, length = response.headers.get("ETag"), response.headers.get("Content-Length")
        if response.status == 206:
            expected = f"bytes {self.position}-{self.size - 1}/{self.size}"
            same = response.headers.get("Content-Range") == expected
        else:
            same = length is None or length == str(self.size)
        if not same or tag != self.etag:
            self.client.close()
            raise StreamError(
                f"{self.url} is not what the manifest names: ETag {tag} for {self.etag}, "
                f"{length} bytes of {self.size}",
                "ask the service for the dataset again",
            )

    def _discard(self, response: HTTPResponse) -> None:
        """Read up to the position: a server may ignore a Range."""
        left = self.position
        while left:
            with _broken_as(self.url):
                piece = response.read1(min(left, CHUNK_BYTES))
            if not piece:
                raise BrokenError(f"{self.url} ends before byte {self.position}")
            left -= len(piece)
            self.client.traffic.bytes += len(piece)


class _Watch:
    """Tells a stalled transfer from a slow one: a socket's time-out sees only total silence.

    As a context it times the wait for bytes; the time that the reader takes for itself is its own.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.start()

    def start(self) -> None:
        """Begin a new period."""
        self.waited_s, self.bytes = 0.0, 0

    def __enter__(self) -> None:
        if self.waited_s >= self.period_s:
            few = self.bytes < STALL_BYTES
            self.start()
            if few:
                raise TimeoutError(f"fewer than {STALL_BYTES:,} bytes in {self.period_s:g} s")
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.waited_s += time.monotonic() - self._since


class _broken_as:  # noqa: N801 - reads as a statement
    """Turns whatever a socket may raise into BrokenError."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError | HTTPException):
            reason = str(error) or type(error).__name__
            raise BrokenError(f"{self.url}: {reason}") from error


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """(scheme, host, port) of an address."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not _PRINTABLE.fullmatch(url):
        raise UsageError(f"not an address: '{url}'", "http://HOST:PORT or https://HOST")
    if "@" in parts.netloc:  # not printed: it may hold a password
        raise UsageError("an address with a name or password in it", "give the token by itself")
    return parts


def _meant(url: str, status: int, text: bytes) -> MeleeError:
    """The error that the service sent, as the class it comes from."""
    try:
        document = json.loads(text)
        kind, message = _by_code()[document["code"]], str(document["message"])
        error = kind(message, str(document.get("hint", "")))
        if isinstance(position := document.get("position"), int):
            error.__dict__["position"] = position
    except (ValueError, KeyError, TypeError, RecursionError):
        return StreamError(f"{url} answers {status}, and not as a meleewm service does")
    return error


def _by_code() -> dict[str, type[MeleeError]]:
    return {kind.code: kind for kind in _tree(MeleeError)}


def _tree(kind: type[MeleeError]) -> Iterator[type[MeleeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
