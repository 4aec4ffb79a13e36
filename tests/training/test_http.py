"""The client gets every byte or says why not, against a server that breaks in every way."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import AuthError, NotFoundError, QueryError, StreamError, UsageError
from tests.training.shard_server import Fault, Server, error_body, running
from training.http import PROGRESS_BYTES, Client, Retry, Transfer

BODY = bytes(range(256)) * 400
QUICK = Retry(attempts=4, first_s=0.001, most_s=0.002, timeout_s=0.3)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        server.bodies["/body"] = BODY, '"tag"'
        yield server


CLIENTS: list[Client] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def client(server: Server, **more: object) -> Client:
    CLIENTS.append(Client(server.url, retry=QUICK, **more))  # type: ignore[arg-type]
    return CLIENTS[-1]


def transfer(server: Server, of: Client | None = None) -> Transfer:
    return (of or client(server)).open("/body", size=len(BODY), etag='"tag"')


BREAKS = ["cut", "reset", "stall"]


@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("at", [0, 1, 50_000, len(BODY) - 1])
def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, kind: str, at: int) -> None:
    server.faults["/body"] = [Fault(kind, at)]
    reader = transfer(server)
    assert bytes(reader.read(len(BODY))) == BODY
    assert reader.client.traffic.retries == 1
    asked = [headers.get("Range") for _, _, headers, _ in server.seen]
    if kind != "reset":  # a reset may take bytes with it that were already sent
        assert asked == [None, f"bytes={at}-" if at else None]


def test_several_breaks_in_one_transfer(server: Server) -> None:
    server.faults["/body"] = [Fault("cut", 10), Fault("status"), Fault("cut", 60_000)]
    assert bytes(transfer(server).read(len(BODY))) == BODY


def test_a_dripping_server_has_stalled(server: Server) -> None:
    server.faults["/body"] = [Fault("drip", 100)]
    reader = transfer(server)
    assert bytes(reader.read(len(BODY))) == BODY
    assert reader.client.traffic.retries == 1


def test_a_server_that_ignores_ranges_is_read_again_from_its_start(server: Server) -> None:
    server.faults["/body"] = [Fault("cut", 30_000), Fault("ignore_range")]
    assert bytes(transfer(server).read(len(BODY))) == BODY


def test_another_etag_is_another_body(server: Server) -> None:
    server.faults["/body"] = [Fault("cut", 30_000), Fault("other_etag")]
    with pytest.raises(StreamError, match="is not what the manifest names"):
        transfer(server).read(len(BODY))
    server.faults["/body"] = [Fault("other_etag")]
    with pytest.raises(StreamError, match="is not what the manifest names"):
        transfer(server).read(10)


def test_another_size_is_another_body(server: Server) -> None:
    with pytest.raises(StreamError, match="is not what the manifest names"):
        client(server).open("/body", size=len(BODY) - 1, etag='"tag"').read(10)


def test_attempts_are_bounded(server: Server) -> None:
    server.faults["/body"] = [Fault("cut", 10)] * 100
    waits: list[float] = []
    reader = transfer(server, client(server, sleep=waits.append))
    with pytest.raises(StreamError, match="4 attempts"):
        reader.read(len(BODY))
    assert len(waits) == 3
    assert all(0.0005 <= wait <= 0.002 for wait in waits)


def test_progress_earns_new_attempts() -> None:
    body = bytes(5 * PROGRESS_BYTES)
    with running() as server:
        server.bodies["/body"] = body, '"tag"'
        ends = [PROGRESS_BYTES * n // 2 for n in range(1, 10)]
        server.faults["/body"] = [Fault("cut", end) for end in ends]
        reader = client(server).open("/body", size=len(body), etag='"tag"')
        assert bytes(reader.read(len(body))) == body
        assert reader.client.traffic.retries == len(ends)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, len(BODY) - 1), max_size=6), st.sampled_from([0, 777, 101_000]))
def test_any_seek_reads_what_stands_there(places: list[int], first: int) -> None:
    with running() as server:
        server.bodies["/body"] = BODY, '"tag"'
        reader = client(server).open("/body", size=len(BODY), etag='"tag"', start=first)
        for place in places:
            reader.seek(place)
            n = min(1000, len(BODY) - place)
            assert bytes(reader.read(n)) == BODY[place : place + n]
        reader.close()


def test_reading_beyond_the_end_is_refused(server: Server) -> None:
    with pytest.raises(StreamError, match="asked for"):
        transfer(server).read(len(BODY) + 1)


def test_a_connection_is_kept_for_the_next_request(server: Server) -> None:
    ours = client(server)
    for _ in range(3):
        assert ours.get("/body") == BODY
        kept = ours._connection
        assert bytes(transfer(server, ours).read(len(BODY))) == BODY
        assert ours._connection is kept
    ours.close()


ONCE = [
    Fault("cut", 10),
    Fault("reset", 10),
    Fault("status"),
    Fault("status", status=429, headers={"Retry-After": "0"}),
]


@pytest.mark.parametrize("fault", ONCE)
def test_whole_bodies_are_asked_for_again(server: Server, fault: Fault) -> None:
    server.faults["/body"] = [fault]
    ours = client(server)
    assert ours.get("/body") == BODY
    server.faults["/body"] = [fault]
    assert ours.post_json("/body", {"a": 1}) == BODY
    assert ours.traffic.retries == 2
    assert server.seen[-1][3] == b'{"a": 1}'


def test_the_services_wish_to_wait_is_heard(server: Server) -> None:
    waits: list[float] = []
    server.faults["/body"] = [
        Fault("status", headers={"Retry-After": "7"}),
        Fault("status", headers={"Retry-After": "86400"}),
        Fault("status", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    ]
    client(server, sleep=waits.append).get("/body")
    assert waits[:2] == [7.0, 60.0]
    assert waits[2] < 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", NotFoundError),
        (400, "query", QueryError),
        (401, "unauthorized", AuthError),
    ],
)
def test_errors_of_the_service_come_as_what_they_are(
    server: Server, status: int, code: str, kind: type[Exception]
) -> None:
    body = error_body(code, "no such thing", "try another", position=3)
    server.faults["/body"] = [Fault("status", status=status, body=body)]
    with pytest.raises(kind, match=r"no such thing \(try another\)") as caught:
        client(server).get("/body")
    assert getattr(caught.value, "position", 3) == 3
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"code": "nothing of ours"}', b"[" * 9999]
)
def test_answers_of_strangers_are_errors_too(server: Server, body: bytes) -> None:
    server.faults["/body"] = [Fault("status", status=418, body=body)]
    with pytest.raises(StreamError, match="answers 418"):
        client(server).get("/body")


def test_the_last_answer_of_a_busy_service_is_told(server: Server) -> None:
    busy = Fault("status", body=error_body("busy", "the queue is full"))
    server.faults["/body"] = [busy] * 9
    with pytest.raises(Exception, match="the queue is full"):
        client(server).get("/body")
    assert len(server.seen) == 4


def test_nobody_listens() -> None:
    with running() as server:
        gone = server.url
    with pytest.raises(StreamError, match="4 attempts"):
        Client(gone, retry=QUICK).get("/")


def test_redirects_stay_at_home(server: Server) -> None:
    server.faults["/old"] = [Fault("status", status=307, headers={"Location": "/body"})]
    assert client(server).get("/old") == BODY
    away = Fault("status", status=302, headers={"Location": "http://example.org/body"})
    server.faults["/old"] = [away]
    with pytest.raises(StreamError, match="redirects to another host"):
        client(server).get("/old")
    server.faults["/old"] = [Fault("status", status=302, headers={"Location": "file:///etc"})]
    with pytest.raises(UsageError, match="not an address"):
        client(server).get("/old")
    server.faults["/old"] = [Fault("status", status=302, headers={"Location": "/old"})] * 9
    with pytest.raises(StreamError, match="more than 3 redirects"):
        client(server).get("/old")


def test_the_token_goes_to_its_origin_only(server: Server) -> None:
    with running() as other:
        other.bodies["/body"] = b"x", '"x"'
        ours = client(server, token="secret")
        assert ours.get(f"{other.url}/body") == b"x"
        assert "Authorization" not in other.seen[0][2]
        ours.get("/body")
        assert server.seen[0][2]["Authorization"] == "Bearer secret"
        ours.close()


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/", "host:80", "http://", "http://host:99999", "http://ho st/", "http://é/"],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        Client(url)


def test_secrets_are_not_printed() -> None:
    with pytest.raises(UsageError) as caught:
        Client("http://me:pass@host/")
    assert "pass@" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        Client("http://host", token="se cret\n")
    assert "cret" not in str(caught.value)
    assert "hidden" not in repr(Client("http://host", token="hidden"))
