"""What a conditional or partial GET means (RFC 9110, 13 and 14): a pure decision, no bytes touched.

One range is honoured. Several ranges, and a header that cannot be read, get the whole: both legal,
and nobody who reads shards needs multipart answers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# 32 digits are beyond any file; a longer number makes the header invalid, never a slow int().
_SPEC = re.compile(r"([0-9]{0,32})-([0-9]{0,32})")


@dataclass(frozen=True)
class Answer:
    """How to answer: `status` is 200, 206, 304, 412 or 416; the body is bytes start to stop."""

    status: int
    start: int
    stop: int
    headers: dict[str, str]


class _UnsatisfiableError(Exception):
    """The range is well-formed and lies outside the bytes."""


def decide(method: str, headers: Mapping[str, str], size: int, etag: str) -> Answer:
    """Answer to a GET or HEAD for `size` bytes under a strong `etag` (with its quotes).

    headers: lower-case names; repeated headers joined by ', ' (so two Range lines are two ranges).
    Without a modification time of ours, the date conditions of the RFC never apply; an If-Range
    date therefore never matches and yields the whole.
    """
    base = {"etag": etag, "accept-ranges": "bytes", "cache-control": "no-cache, no-transform"}
    if "if-match" in headers and not _matches(headers["if-match"], etag, weak=False):
        return Answer(412, 0, 0, base)
    if "if-none-match" in headers and _matches(headers["if-none-match"], etag, weak=True):
        return Answer(304, 0, 0, base)
    whole = Answer(200, 0, size, {**base, "content-length": str(size)})
    if method != "GET" or "range" not in headers:
        return whole
    if headers.get("if-range", etag).strip() != etag:
        return whole
    try:
        span = parse(headers["range"], size)
    except _UnsatisfiableError:
        return Answer(416, 0, 0, {**base, "content-range": f"bytes */{size}"})
    if span is None:
        return whole
    start, stop = span
    partial = {
        "content-length": str(stop - start),
        "content-range": f"bytes {start}-{stop - 1}/{size}",
    }
    return Answer(206, start, stop, base | partial)


def parse(text: str, size: int) -> tuple[int, int] | None:
    """Start and stop of the one range that is asked for; None where the whole is to be sent.

    Raises an error of this module for a range that lies outside the bytes (416).
    """
    unit, _, listed = text.partition("=")
    specs = [spec for part in listed.split(",") if (spec := part.strip(" \t"))]
    match = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if unit.strip(" \t").lower() != "bytes" or match is None or match[0] == "-":
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size)
    start, stop = int(first), int(last) + 1 if last else size
    if last and stop <= start:
        return None
    if start >= size:
        raise _UnsatisfiableError
    return start, min(stop, size)


def _suffix(length: int, size: int) -> tuple[int, int] | None:
    if length == 0:
        raise _UnsatisfiableError
    # The last n bytes of nothing are satisfiable, but no Content-Range can say so: send the whole.
    return (max(size - length, 0), size) if size else None


def _matches(text: str, etag: str, *, weak: bool) -> bool:
    if text.strip(" \t") == "*":
        return True
    tags = _TAG.findall(text)
    return etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)
