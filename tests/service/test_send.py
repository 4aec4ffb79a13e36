"""Slices through a real uvicorn: sendfile and its fallback send the same bytes and hold nothing."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.errors import StoreError
from service import send
from service.app import create_app
from service.parts import Part, Slice, Source
from service.settings import Settings
from tests.service.conftest import open_files, running


class ChunksProtocol(send.SendfileProtocol):
    """Ours, as if under TLS."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.scheme = "https"


PROTOCOLS = {
    "sendfile": send.SendfileProtocol,
    "chunks": ChunksProtocol,
    "plain": HttpToolsProtocol,
}


def parts_of(folder: Path, sizes: list[int], seed: int = 0) -> tuple[list[Part], bytes]:
    """Memory and files in turn, and all their bytes."""
    folder.mkdir(exist_ok=True)
    rng, parts, whole = random.Random(seed), list[Part](), b""
    for n, size in enumerate(sizes):
        data = rng.randbytes(size)
        whole += data
        path = folder / f"{n}.bin"
        path.write_bytes(data)
        parts.append(data if n % 2 == 0 else (path, size))
    return parts, whole


@given(
    sizes=st.lists(st.integers(0, 40), max_size=8),
    start=st.integers(0, 300),
    length=st.integers(0, 300),
)
def test_a_slice_is_a_slice(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], start: int, length: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "slices"
    parts, whole = parts_of(folder, sizes)
    assert b"".join(Slice(parts, start, start + length).chunks()) == whole[start : start + length]


def test_chunks_have_one_size(tmp_path: Path) -> None:
    parts, whole = parts_of(tmp_path, [3 << 20, 700, (1 << 20) + 1, 5])
    found = list(Slice(parts, 10, len(whole)).chunks())
    assert b"".join(found) == whole[10:]
    assert {len(chunk) for chunk in found[:-1]} == {1 << 20}


def test_a_file_of_another_size_is_an_error(tmp_path: Path) -> None:
    parts, whole = parts_of(tmp_path, [10, 20])
    (tmp_path / "1.bin").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"1\.bin has 5 bytes, not 20"):
        list(Slice(parts, 0, len(whole)).chunks())
    (tmp_path / "1.bin").unlink()
    with pytest.raises(StoreError, match="No such file"):
        list(Slice(parts, 0, len(whole)).chunks())


class Serving:
    """A service with one more route, /bytes, whose bytes are known."""

    def __init__(self, url: str, whole: bytes, folder: Path) -> None:
        self.url, self.whole, self.folder = url, whole, folder

    def socket(
        self, request: str = "GET /bytes HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ) -> socket.socket:
        """A connection on which a request was sent and nothing was read."""
        address = urlsplit(self.url)
        assert address.hostname
        assert address.port
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect((address.hostname, address.port))
        client.sendall(request.encode())
        return client


@pytest.fixture(params=PROTOCOLS)
def serving_bytes(
    request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path
) -> Iterator[Serving]:
    # A loaded machine lets a client wait for seconds: only what stalls on purpose is cut early.
    stall_s = 1.0 if "stall" in request.node.name else 60.0
    parts, whole = parts_of(tmp_path / "parts", [512, 3_000_000, 700, 12_345_678, 1024, 1, 1024])
    source = Source(parts, len(whole), '"tag"')
    app = create_app(Settings(store=empty_store, port=0, stall_s=stall_s, stream_threads=2))

    @app.api_route("/bytes", methods=["GET", "HEAD"])
    async def whole_bytes(request: Request) -> Response:
        response: Response = app.state.service.respond(request, source, "application/x-tar")
        return response

    with running(app, http=PROTOCOLS[request.param]) as url:
        yield Serving(url, whole, tmp_path / "parts")


def test_whole_range_and_head(serving_bytes: Serving) -> None:
    whole, url = serving_bytes.whole, serving_bytes.url + "/bytes"
    with httpx.Client() as client:  # one connection: a body too long or short would break the next
        got = client.get(url)
        assert (got.status_code, got.content == whole) == (200, True)
        assert got.headers["content-length"] == str(len(whole))
        assert got.headers["etag"] == '"tag"'
        assert got.headers["content-type"] == "application/x-tar"
        head = client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole))
        rng = random.Random(1)
        for _ in range(40):
            start = rng.randrange(len(whole))
            stop = rng.randrange(start, len(whole)) + 1
            got = client.get(url, headers={"range": f"bytes={start}-{stop - 1}"})
            assert (got.status_code, got.content == whole[start:stop]) == (206, True)
        assert client.get(url, headers={"if-none-match": '"tag"'}).status_code == 304
        for headers, code in (
            ({"if-match": '"other"'}, "precondition_failed"),
            ({"range": f"bytes={len(whole)}-"}, "range_not_satisfiable"),
        ):
            refused = client.get(url, headers=headers)
            assert set(refused.json()) == {"code", "message", "hint"}
            assert refused.json()["code"] == code
        assert refused.headers["content-range"] == f"bytes */{len(whole)}"
        assert client.get(url).content == whole


def test_pipelined_requests_are_answered_in_order(serving_bytes: Serving) -> None:
    ask = "GET /bytes HTTP/1.1\r\nHost: localhost\r\nRange: bytes={}\r\n{}\r\n"
    text = ask.format("100-4000000", "") + ask.format("0-9", "Connection: close\r\n")
    with serving_bytes.socket(text) as client, client.makefile("rb") as stream:
        received = stream.read()
    first, _, rest = received.partition(b"\r\n\r\n")
    assert b"content-range: bytes 100-4000000/" in first
    assert rest[:3_999_901] == serving_bytes.whole[100:4_000_001]
    assert rest[3_999_901:].endswith(b"\r\n\r\n" + serving_bytes.whole[:10])


def test_many_streams_at_once(serving_bytes: Serving) -> None:
    def fetch(n: int) -> bool:
        start = n * 100_000
        headers = {"range": f"bytes={start}-"}
        return httpx.get(serving_bytes.url + "/bytes", headers=headers).content == whole[start:]

    whole = serving_bytes.whole
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(fetch, range(32)))


@pytest.mark.parametrize("serving_bytes", ["sendfile", "chunks"], indirect=True)
def test_clients_that_leave_or_stall_hold_nothing(serving_bytes: Serving) -> None:
    httpx.get(serving_bytes.url + "/bytes")
    time.sleep(0.1)
    before, threads = open_files(), threading.active_count()
    leavers = [serving_bytes.socket() for _ in range(8)]
    stallers = [serving_bytes.socket() for _ in range(8)]
    time.sleep(0.2)
    assert open_files() > before + 16  # client and server ends, and the streams' own
    # Slow clients keep no thread from the others.
    assert httpx.get(serving_bytes.url + "/bytes").content == serving_bytes.whole
    for client in leavers:
        client.close()
    deadline = time.monotonic() + 10
    while open_files() > before + len(stallers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files() <= before + len(stallers)  # our ends alone: theirs were cut off
    for client in stallers:
        client.close()
    assert threading.active_count() <= threads + 2  # the pool of two may have grown


def test_a_damaged_file_cuts_the_stream_and_not_the_service(serving_bytes: Serving) -> None:
    path = serving_bytes.folder / "3.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(serving_bytes.url + "/bytes")
    path.write_bytes(data)
    assert httpx.get(serving_bytes.url + "/bytes").content == serving_bytes.whole


def test_uvicorn_still_calls_our_hook(
    serving_bytes: Serving, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("bursts were used")

    monkeypatch.setattr(send, "bursts", refuse)
    if request.node.callspec.params["serving_bytes"] == "sendfile":
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(serving_bytes.url + "/bytes")
    else:
        assert httpx.get(serving_bytes.url + "/bytes").content == serving_bytes.whole
