"""The application's outside: one shape of error, tokens, limits, and the server's process."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from schemas.errors import StoreError, UsageError
from service.app import create_app, serve
from service.settings import Settings
from tests.service.conftest import assert_error, open_files, running, serving


@pytest.fixture
def app(empty_store: Path) -> FastAPI:
    """An application over an empty store, with routes that fail."""
    app = create_app(Settings(store=empty_store, port=0, request_bytes_max=1000, requests_max=4))
    release = threading.Event()

    @app.get("/fail/{how}")
    def fail(how: str) -> None:
        if how == "bug":
            raise ZeroDivisionError("/secret/path")
        if how == "wait":
            release.wait(20)
        raise StoreError("the store is damaged", "meleewm verify")

    app.state.release = release
    return app


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with running(app) as url:
        yield url


def test_health(url: str) -> None:
    response = httpx.get(url + "/v1/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"


def test_errors_have_one_shape(url: str) -> None:
    assert_error(httpx.get(url + "/v1/nothing"), 404, "not_found")
    assert_error(httpx.get(url + "/v1/health/"), 404, "not_found")
    refused = httpx.post(url + "/v1/health")
    assert_error(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"
    assert assert_error(httpx.get(url + "/fail/store"), 500, "store")["hint"] == "meleewm verify"
    bug = assert_error(httpx.get(url + "/fail/bug"), 500, "internal")
    assert "secret" not in json.dumps(bug)


def test_bodies_are_capped(url: str) -> None:
    too_long = b"x" * 1001
    assert_error(httpx.post(url + "/v1/health", content=too_long), 413, "limit")
    assert_error(httpx.post(url + "/v1/health", content=iter([too_long])), 413, "limit")
    assert_error(httpx.post(url + "/v1/health", content=b"x" * 1000), 405, "method_not_allowed")


def test_requests_at_once_are_capped(url: str, app: FastAPI) -> None:
    waiting = [threading.Thread(target=httpx.get, args=[url + "/fail/wait"]) for _ in range(4)]
    for thread in waiting:
        thread.start()
    time.sleep(0.5)
    busy = httpx.get(url + "/v1/health")
    assert_error(busy, 503, "busy")
    assert busy.headers["retry-after"] == "1"
    app.state.release.set()
    for thread in waiting:
        thread.join()
    assert httpx.get(url + "/v1/health").status_code == 200


def test_only_local_names_are_served_without_a_token(url: str) -> None:
    rebound = httpx.get(url + "/v1/schema", headers={"host": "evil.example"})
    assert_error(rebound, 401, "unauthorized")


def test_a_token_is_asked_for(empty_store: Path) -> None:
    with running(create_app(Settings(store=empty_store, port=0, token="right"))) as url:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}):
            refused = httpx.get(url + "/v1/schema", headers=headers)
            assert_error(refused, 401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer right"}
        assert httpx.get(url + "/v1/schema", headers=right).status_code == 200
        assert httpx.get(url + "/v1/health").status_code == 200  # probes carry no token


def test_no_store_no_service(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        create_app(Settings(store=tmp_path / "none"))


def test_a_taken_port_is_named(empty_store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(Settings(store=empty_store, port=port))


def test_threads_end_with_the_application(empty_store: Path) -> None:
    before, files = threading.active_count(), open_files()
    with running(create_app(Settings(store=empty_store, port=0))) as url:
        httpx.get(url + "/v1/health")
        httpx.get(url + "/v1/schema")
    assert threading.active_count() <= before, threading.enumerate()
    assert open_files() <= files


@pytest.mark.slow
def test_sigterm_ends_the_process(empty_store: Path) -> None:
    with serving(empty_store) as (url, process):
        assert httpx.get(url + "/v1/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.slow
def test_a_killed_parent_takes_the_service_with_it(empty_store: Path) -> None:
    parent = f"""
from pathlib import Path
from tests.service.conftest import serving
with serving(Path({str(empty_store)!r})) as (url, process):
    print(process.pid, flush=True)
    process.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        grandchild = Path(f"/proc/{child.stdout.readline().strip()}")
        assert grandchild.exists()
        child.kill()
    deadline = time.monotonic() + 10
    while grandchild.exists() and "zombie" not in (grandchild / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
