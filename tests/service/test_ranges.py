"""Conditional and partial requests by RFC 9110: a table of cases, and slices of random bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ranges import Answer, decide

TAG = '"abc"'
WHOLE = bytes(range(100))


def ask(method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return decide(method, named, len(WHOLE), TAG)


@pytest.mark.parametrize(
    ("text", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=10-", 206, 10, 100),
        ("bytes=-10", 206, 90, 100),
        ("bytes=-1000", 206, 0, 100),
        ("bytes=90-1000", 206, 90, 100),
        ("BYTES=1-2", 206, 1, 3),
        ("bytes= 1-2 ,", 206, 1, 3),  # empty list elements are to be read over (RFC 9110, 5.6.1)
        ("bytes=0-00000000000000000000005", 206, 0, 6),
        ("bytes=100-", 416, 0, 0),
        ("bytes=100-200", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=0-1,3-4", 200, 0, 100),
        ("bytes=5-4", 200, 0, 100),
        ("bytes=-", 200, 0, 100),
        ("bytes=", 200, 0, 100),
        ("bytes", 200, 0, 100),
        ("", 200, 0, 100),
        ("items=0-1", 200, 0, 100),
        ("bytes=0x1-2", 200, 0, 100),
        ("bytes=+1-2", 200, 0, 100),
        ("bytes=1--2", 200, 0, 100),
        ("bytes=١-٢", 200, 0, 100),
        ("bytes=" + "9" * 5000 + "-", 200, 0, 100),
    ],
)
def test_range_header(text: str, status: int, start: int, stop: int) -> None:
    answer = ask(range=text)
    assert (answer.status, answer.start, answer.stop) == (status, start, stop)
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/100"
    if status == 416:
        assert answer.headers["content-range"] == "bytes */100"
    else:
        assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": TAG}, 200),
        ({"if_match": '"x", "abc"'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"x"'}, 412),
        ({"if_match": 'W/"abc"'}, 412),  # strong comparison
        ({"if_match": "abc"}, 412),
        ({"if_none_match": TAG}, 304),
        ({"if_none_match": 'W/"abc"'}, 304),  # weak comparison
        ({"if_none_match": '"x",W/"abc"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": "abc"}, 200),
        ({"if_match": '"x"', "if_none_match": TAG}, 412),  # If-Match comes first
        ({"if_none_match": TAG, "range": "bytes=0-1"}, 304),  # and Range last
        ({"if_match": TAG, "range": "bytes=0-1"}, 206),
        ({"range": "bytes=0-1", "if_range": TAG}, 206),
        ({"range": "bytes=0-1", "if_range": 'W/"abc"'}, 200),
        ({"range": "bytes=0-1", "if_range": '"x"'}, 200),
        ({"range": "bytes=0-1", "if_range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200),
        ({"range": "bytes=200-", "if_range": TAG}, 416),
        ({"range": "bytes=200-", "if_range": '"x"'}, 200),
        ({"if_range": TAG}, 200),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    answer = ask(**headers)
    assert answer.status == status
    assert answer.headers["etag"] == TAG
    assert (answer.status == 200) == (answer.stop == 100)


def test_head_ignores_range_and_obeys_conditions() -> None:
    answer = ask("HEAD", range="bytes=0-1")
    assert (answer.status, answer.headers["content-length"]) == (200, "100")
    assert ask("HEAD", if_none_match=TAG).status == 304
    assert ask("HEAD", if_match='"x"').status == 412


def test_nothing_to_slice() -> None:
    assert decide("GET", {"range": "bytes=0-"}, 0, TAG).status == 416
    answer = decide("GET", {"range": "bytes=-5"}, 0, TAG)
    assert (answer.status, answer.headers["content-length"]) == (200, "0")


@given(size=st.integers(0, 200), first=st.integers(0, 250), extra=st.integers(0, 250))
def test_a_range_is_a_slice_of_the_whole(size: int, first: int, extra: int) -> None:
    whole = WHOLE * 2
    whole = whole[:size]
    for text, expected in (
        (f"bytes={first}-{first + extra}", whole[first : first + extra + 1]),
        (f"bytes={first}-", whole[first:]),
        (f"bytes=-{extra}", whole[max(size - extra, 0) :] if extra else b""),
    ):
        answer = decide("GET", {"range": text}, size, TAG)
        assert answer.status in ({206, 200} if expected else {416, 200})
        assert whole[answer.start : answer.stop] == expected
        if answer.status == 206:
            assert answer.headers["content-range"].endswith(f"/{size}")


@given(st.text(max_size=40))
def test_any_header_is_answered(text: str) -> None:
    for name in ("range", "if-range", "if-match", "if-none-match"):
        headers = {"range": "bytes=0-1", name: text}
        answer = decide("GET", headers, 100, TAG)
        assert answer.status in {200, 206, 304, 412, 416}
        assert 0 <= answer.start <= answer.stop <= 100
