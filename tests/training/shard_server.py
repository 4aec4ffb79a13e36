"""A small dataset, and a real HTTP server that serves it and fails on request."""

import json
import socket
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.shard import (
    BLOCK,
    FilePart,
    Manifest,
    Member,
    Request,
    Shard,
    dataset_id,
    member_json,
    members_table,
    order_keys,
    pack,
    sample_bytes,
    shard_bytes,
    shard_etag,
    shard_name,
    shard_numbers,
    shard_parts,
)
from tests.training.games import frame_numbers, random_game

FRAMES = 30


@dataclass(frozen=True)
class Small:
    """A dataset in memory: manifest with relative addresses, members, shards, games' bytes."""

    manifest: Manifest
    members: tuple[Member, ...]
    games: dict[str, bytes]
    tars: dict[int, bytes]

    def write(self, folder: Path) -> Path:
        """Lay it out as `meleewm export` does."""
        (folder / "shards").mkdir(parents=True)
        (folder / "manifest.json").write_text(self.manifest.to_json())
        (folder / "members.parquet").write_bytes(members_bytes(self.members))
        for n, tar in self.tars.items():
            (folder / "shards" / shard_name(n)).write_bytes(tar)
        return folder


def members_bytes(members: Sequence[Member]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(members_table(members), sink)
    return bytes(sink.getvalue())


def game_bytes(seed: int, frames: int = FRAMES) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(random_game(frame_numbers([frames]), seed), sink)
    return bytes(sink.getvalue())


@cache
def small(n_games: int, games_per_shard: int) -> Small:
    """A dataset of random games."""
    games = {sha256(b"%d" % i).hexdigest()[:32]: game_bytes(i) for i in range(n_games)}
    return dataset_of(games, games_per_shard)


def dataset_of(games: dict[str, bytes], games_per_shard: int) -> Small:
    """A dataset of these bytes, whatever they are, laid out by schemas.shard."""
    request = Request(query="char='fox'", games_per_shard=games_per_shard)
    n_games = len(games)
    keys = order_keys(request.seed, list(games))
    ordered = sorted(zip(keys.tolist(), games, strict=True))
    numbers = shard_numbers(keys[keys.argsort()], games_per_shard).tolist()
    members, ends = [], defaultdict[int, int](int)
    for n, (_, game_id) in zip(numbers, ordered, strict=True):
        member = placed(game_id, games[game_id], n, ends[n])
        ends[n] += sample_bytes(member.parquet_bytes, member.json_bytes)
        members.append(member)
    tars = {n: tar([m for m in members if m.shard == n], games) for n in sorted(ends)}
    shards = tuple(shard_of(n, [m for m in members if m.shard == n]) for n in tars)
    manifest = Manifest(
        dataset_id(request, pack(m.listed for m in members)), 1, request, "char = 'fox'",
        n_games, 2 * n_games, n_games * FRAMES, sum(s.bytes for s in shards), shards,
        "members.parquet",
    )  # fmt: skip
    return Small(manifest, tuple(members), games, tars)


def placed(game_id: str, data: bytes, shard: int, at: int) -> Member:
    member = Member(
        game_id, 1, (0, 1), game_id, 0, FRAMES, (FRAMES,), len(data), zlib.crc32(data),
        sha256(data).digest(), "00000000", 3_018_000, shard, at + BLOCK, 0,
    )  # fmt: skip
    return replace(member, json_bytes=len(member_json(member)))


def shard_of(n: int, members: list[Member]) -> Shard:
    return Shard(
        n, f"shards/{shard_name(n)}", shard_bytes(members), len(members),
        len(members) * FRAMES, shard_etag(members),
    )  # fmt: skip


def tar(members: list[Member], games: dict[str, bytes]) -> bytes:
    return b"".join(
        games[part.game_id] if isinstance(part, FilePart) else part for part in shard_parts(members)
    )


# --- server -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    kind: cut (orderly close), reset (RST), stall (silence), drip (a byte now and then), flip (a
    wrong byte at `at`), status, ignore_range, other_etag, redirect. at: byte of the whole body
    before which it happens.
    """

    kind: str
    at: int = 0
    status: int = 503
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Server(ThreadingHTTPServer):
    """Bodies by path; faults by path, one for each request until they are used up."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.bodies: dict[str, tuple[bytes, str]] = {}
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is part of these tests."""

    def serve(self, data: Small) -> None:
        """Answer for a dataset as the service does."""
        manifest = replace(
            data.manifest,
            members_url=f"{self.url}/v1/members.parquet",
            shards=tuple(replace(s, url=f"{self.url}/{s.url}") for s in data.manifest.shards),
        )
        self.bodies["/v1/datasets"] = manifest.to_json().encode(), '"m"'
        self.bodies["/v1/members.parquet"] = members_bytes(data.members), '"p"'
        for shard in data.manifest.shards:
            self.bodies[f"/{shard.url}"] = data.tars[shard.n], shard.etag


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self) -> None:
        self.answer(b"")

    def answer(self, sent: bytes) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers), sent))
        faults = self.server.faults[self.path]
        fault = faults.pop(0) if faults else Fault("none")
        if fault.kind == "status":
            self.head(fault.status, len(fault.body), fault.headers)
            self.wfile.write(fault.body)
        elif self.path not in self.server.bodies:
            self.head(404, 0, {})
        else:
            self.serve_body(*self.server.bodies[self.path], fault)

    def serve_body(self, body: bytes, etag: str, fault: Fault) -> None:
        asked, start = self.headers.get("Range"), 0
        if fault.kind == "other_etag":
            etag = '"other"'
        if asked and self.headers.get("If-Range") == etag and fault.kind != "ignore_range":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.head(206 if start else 200, len(body) - start, headers)
        if fault.kind == "flip":
            wrong = bytes([body[fault.at] ^ 0xFF])
            body = body[: fault.at] + wrong + body[fault.at + 1 :]
        if fault.kind in ("cut", "reset", "stall", "drip"):
            self.wfile.write(body[start : fault.at])
            self.wfile.flush()
            getattr(self, fault.kind)(body[fault.at :])
            self.close_connection = True
        else:
            self.wfile.write(body[start:])

    def head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self, rest: bytes) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def reset(self, rest: bytes) -> None:
        time.sleep(0.05)  # else the kernel may drop what was sent before the reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def stall(self, rest: bytes) -> None:
        self.server.stopped.wait(20)

    def drip(self, rest: bytes) -> None:
        for at in range(len(rest)):
            if self.server.stopped.wait(0.05):
                return
            self.wfile.write(rest[at : at + 1])
            self.wfile.flush()


@contextmanager
def running(data: Small | None = None, port: int = 0) -> Iterator[Server]:
    """A server, on a free port unless told."""
    server = Server(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        if data is not None:
            server.serve(data)
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def error_body(code: str, message: str, hint: str = "", **more: object) -> bytes:
    return json.dumps({"code": code, "message": message, "hint": hint, **more}).encode()
