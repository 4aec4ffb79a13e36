"""Real servers on free ports: in a thread of the test, or as a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ingest.synthetic import write_games
from ingest.workers import ingest
from service.app import create_app, listen, uvicorn_config
from service.settings import Settings
from store.layout import Layout, open_layout


@contextmanager
def running(app: FastAPI, **config: object) -> Iterator[str]:
    """The URL of an application that a thread of this process serves."""
    settings: Settings = app.state.service.settings
    with listen(settings) as listener:
        server = uvicorn.Server(uvicorn_config(app, settings, **config))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


_SERVE = """
import json, sys
from pathlib import Path
from service.app import serve
from service.settings import Settings
flags = json.loads(sys.argv[1])
settings = Settings.resolve({**flags, "store": Path(flags["store"])})
serve(settings, announce=True, exit_with_parent=True)
"""


@contextmanager
def serving(
    store: Path, port: int = 0, **settings: object
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A service in a process of its own, which ends with this one."""
    flags = json.dumps({"store": str(store), "port": port, **settings})
    command = [sys.executable, "-c", _SERVE, flags]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout
            yield json.loads(child.stdout.readline())["url"], child
        finally:
            child.terminate()


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    assert set(body) - {"position"} == {"code", "message", "hint"}
    assert body["code"] == code
    assert "\n" not in body["message"]
    return body


def open_files(pid: int | None = None) -> int:
    """Descriptors that a process holds."""
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))


N_GAMES = 24


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of synthetic games, ingested in two batches."""
    folder = tmp_path_factory.mktemp("service")
    paths = write_games(folder / "slp", N_GAMES, seed=7, frames=(300, 600))
    for batch in (paths[:16], paths[16:]):
        summary = ingest(batch, folder / "store", workers=1)
        assert summary.stored == len(batch), summary
    return folder / "store"


@pytest.fixture(scope="session")
def layout(store: Path) -> Layout:
    """The same store, for its own functions."""
    return open_layout(store)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[httpx.Client]:
    """A client of a service over the synthetic games."""
    settings = Settings(store=store, port=0, sql_time_s=5.0)
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    """A store without games."""
    return open_layout(tmp_path / "store", create=True).root
