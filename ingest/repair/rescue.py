"""From a damaged replay to one that peppi reads, and to what of its answer the file really said.

One routine for all damage: take the events apart by the file's own payload table, keep whole
frames, and lay them out anew as the newest version, which peppi reads. Columns that the file's own
payloads do not hold are then left out of the answer, so that nothing made up is stored. Versions
3.0 to 3.6 go this way, too: nothing is wrong with them, but peppi cannot read them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ingest.container import METADATA_KEY, Container, read_metadata
from ingest.repair.blocks import MendedEnd, MendedStart, mend_end, mend_start
from ingest.repair.frames import Frames, senders, whole_frames
from ingest.rules import START_BYTES_MIN, Refusal, StartBlock, check_start
from ingest.slp import (
    GAME_END,
    GAME_START,
    KINDS,
    MAGIC,
    PAYLOADS,
    Batch,
    Split,
    layout,
    pack_frames,
    payload_sizes,
    replay_pieces,
    split,
)
from schemas.columns import FRAME, ITEM, NEWEST_KNOWN, PLAYER

REPAIRS = {
    "relaid": "laid out anew, because peppi cannot read files of Slippi 3.0 to 3.6, nor payload "
    "sizes or events that are not of the file's version; nothing in it was damaged",
    "unfinished": "the game was still being written, or the recorder died: its length was missing",
    "truncated": "the file is shorter than its header says",
    "wrong_length": "the header's length ends inside an event",
    "container_missing": "a bare stream of events, without the container around it",
    "events_cut": "bytes that are no event: the game ends at the last whole frame before them",
    "frames_dropped": "frames that are not whole were left out",
    "frames_missing": "frame numbers jump before Slippi 2.2, which has no rollbacks",
    "events_dropped": "events of ports where nobody plays were left out",
    "table_zero_size": "the payload table names an event of no bytes",
    "table_no_end": "the payload table does not name game end",
    "player_type": "a player type that there is not: unknown, and playing where frames say so",
    "follower": "a follower of a character that has none",
    "start_code": "language or controller fix of game start out of range: unknown",
    "start_text": "text of game start that cannot be read: empty, or its readable beginning",
    "end_code": "method, placement or quitter of game end out of range: unknown",
    "metadata_missing": "neither metadata nor a closing brace follow the events",
    "brace_missing": "the closing brace after the metadata is missing",
    "metadata_unreadable": "the metadata cannot be read: there is none",
}
"""What may have been done to a replay -> what that means, in the order in which it is told."""

RESCUED_RULES = ("not_a_replay", "truncated", "unfinished", "unreadable", "no_frames")
"""Refusals that are worth an attempt; the others say what the game is, not what is wrong."""

_HEAD = len(MAGIC) + 4
_RELEASED = payload_sizes((0, 1)) | {
    kind.code: layout(event, kind.since).itemsize - 1 for event, kind in KINDS.items()
}


@dataclass(frozen=True)
class Rescued:
    """A replay made whole.

    container: the file's own parts, and `repairs`. replay: what peppi reads instead of it, in
    pieces. lost: sources of the columns that are in `replay` but not in the file. repeated: whole
    frames that are not in it, because a later copy replaced them.
    """

    container: Container
    replay: tuple[bytes | memoryview, ...]
    start: MendedStart
    end: MendedEnd | None
    lost: frozenset[str]
    repeated: int


def rescue(data: bytes, refusal: Refusal) -> Rescued:
    """Make a refused replay whole. Raises Refusal where there is no game of two in it: the given
    one, or that of the rule which the game itself meets."""
    if refusal.rule not in RESCUED_RULES:
        raise refusal
    stream = _stream(data, refusal)
    events = stream.events
    start = mend_start(events.payloads(GAME_START)[0], senders(events))
    check_start(start.players)
    frames = whole_frames(events, start.players.ports)
    if not len(frames.ids):
        raise _nothing(events)
    settled = frames.settled
    start = start.with_followers(_followed(events, settled))
    end = _end(stream, frames)
    metadata, metadata_steps = _metadata(stream)
    steps = {*stream.steps, *start.steps, *metadata_steps, *(end.steps if end else ())}
    steps |= _frame_steps(events, frames, stream)
    # metadata is no reason to be here: peppi never sees it
    steps |= {"relaid"} if _is_relaid(events) or not steps - set(metadata_steps) else set()
    container = Container(
        data,
        events.stop,
        events.sizes,
        StartBlock(start.original),
        metadata,
        tuple(name for name in REPAIRS if name in steps),
    )
    replay = replay_pieces(
        NEWEST_KNOWN,
        bytes([GAME_START]) + start.block,
        pack_frames(NEWEST_KNOWN, _batches(events, settled)),
        bytes([GAME_END]) + end.block if end else b"",
    )
    repeated = len(frames.ids) - len(settled.ids)
    return Rescued(container, replay, start, end, _lost(events.sizes), repeated)


# --- the stream -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stream:
    """events: up to where they can be believed, without game end. end: its payload, or None.
    closed: whether what follows is what follows a whole stream. steps: names of REPAIRS."""

    events: Split
    end: bytes | None
    closed: bool
    steps: set[str]


def _stream(data: bytes, refusal: Refusal) -> _Stream:
    is_bare = not data.startswith(MAGIC)
    if is_bare and not data.startswith(bytes([PAYLOADS])):
        raise refusal
    length = None if is_bare else int.from_bytes(data[len(MAGIC) : _HEAD], "big")
    events, steps = split(data), set()
    if is_bare:
        steps.add("container_missing")
    elif not length:
        steps.add("unfinished")
    elif _HEAD + length > len(data):
        steps.add("truncated")
    elif events.stop < _HEAD + length and "is cut" in events.fault:
        steps.add("wrong_length")
        events = split(data, beyond=True)
    sizes = events.sizes
    if (
        not len(events.codes)
        or events.codes[0] != GAME_START
        or sizes[GAME_START] < START_BYTES_MIN
    ):
        raise refusal
    for code, size in _RELEASED.items():
        if 0 < sizes.get(code, size) < size:
            raise Refusal("unreadable", f"event {code:#04x} of {sizes[code]} bytes, not {size}")
    if GAME_END not in sizes:
        steps.add("table_no_end")
    if not all(sizes.values()):
        steps.add("table_zero_size")
        events = _without_empty(events)
    return _believed(events, steps)


def _without_empty(events: Split) -> Split:
    """Without events that have no bytes, nor a place in the table."""
    sizes = {code: size for code, size in events.sizes.items() if size}
    kept = np.isin(events.codes, list(sizes))
    return replace(events, sizes=sizes, codes=events.codes[kept], offsets=events.offsets[kept])


def _believed(events: Split, steps: set[str]) -> _Stream:
    """Cut a stream where it ceases to be one: at game end, at a second start, at a fault."""
    n_events = len(events.codes)
    ends = np.flatnonzero(events.codes == GAME_END)
    again = np.flatnonzero(np.isin(events.codes, (GAME_START, PAYLOADS)))[1:]
    n_end, n_again = (int(at[0]) if len(at) else n_events for at in (ends, again))
    if n_end < n_again:
        stop = int(events.offsets[n_end]) + events.sizes[GAME_END]
        return _Stream(_first(events, n_end, stop), events.payloads(GAME_END)[0],
                       _closes(events, stop), steps)  # fmt: skip
    if n_again < n_events or "has no size" in events.fault:
        if n_again == n_events and _closes(events, events.stop):
            return _Stream(events, None, closed=True, steps=steps)
        # the event before bytes of no sense may have lost its own end to them
        return _Stream(_first(events, max(1, n_again - 1), events.stop), None, closed=False,
                       steps=steps | {"events_cut"})  # fmt: skip
    closed = _closes(events, events.stop)
    cut_here = not closed and not steps & _ENDED_EARLY
    return _Stream(events, None, closed, steps | {"events_cut"} if cut_here else steps)


def _first(events: Split, n: int, stop: int) -> Split:
    return replace(events, codes=events.codes[:n], offsets=events.offsets[:n], stop=stop)


def _closes(events: Split, stop: int) -> bool:
    """Whether a stream may end here: where its header says so, or in front of what follows one."""
    data = events.data
    length = int.from_bytes(data[len(MAGIC) : _HEAD], "big") if data.startswith(MAGIC) else 0
    tail = data[stop : stop + len(METADATA_KEY)]
    return stop in (len(data), _HEAD + length) or tail[:1] == b"}" or tail == METADATA_KEY


def _nothing(events: Split) -> Refusal:
    codes = [KINDS[event].code for event in ("pre", "post")]
    if not np.isin(events.codes, codes).any():
        return Refusal("no_frames", "the replay has a start, but no frame")
    return Refusal("unreadable", f"not one whole frame; {events.fault or 'the events do not fit'}")


# --- frames ---------------------------------------------------------------------------------------


def _batches(events: Split, frames: Frames) -> Iterator[Batch]:
    """Whole frames' events, and the frame starts and ends that an old version does not have; one
    kind after another, so that only one is in memory."""
    every = np.arange(len(frames.ids))
    for event, kind in KINDS.items():
        if events.sizes.get(kind.code, 0):
            picked = frames.kept & (events.codes == kind.code)
            records = events.records_at(event, picked, NEWEST_KNOWN)
            fields = {name: records[name] for name in records.dtype.names or ()}
            yield Batch(event, frames.row[picked], fields)
        elif event in ("start", "end"):
            yield Batch(event, every, {"frame": frames.ids})


def _followed(events: Split, frames: Frames) -> list[int]:
    """Ports, 1 to 4, that a follower's events come from."""
    stream = np.frombuffer(events.data, np.uint8)
    at = events.offsets[frames.kept & (events.codes == KINDS["pre"].code)]
    return [int(port) + 1 for port in np.unique(stream[at[stream[at + 5] != 0] + 4])]


def _frame_steps(events: Split, frames: Frames, stream: _Stream) -> set[str]:
    steps = set()
    if frames.holes or (frames.rest and not stream.steps & _ENDED_EARLY):
        steps.add("frames_dropped")
    if frames.strays:
        steps.add("events_dropped")
    has_starts = KINDS["start"].code in events.sizes
    if not has_starts and (np.diff(frames.ids) != 1).any():
        steps.add("frames_missing")
    return steps


_ENDED_EARLY = {"unfinished", "truncated", "container_missing", "events_cut", "wrong_length"}
"""These say already that the last frame may be lost."""


def _is_relaid(events: Split) -> bool:
    version = events.version
    expected = payload_sizes(min(version, NEWEST_KNOWN)) if version >= (0, 1) else {}
    short = any(
        events.sizes.get(code, 0) < size for code, size in expected.items() if code != GAME_END
    )
    early = any(kind.since > version and events.sizes.get(kind.code) for kind in KINDS.values())
    return is_peppis_gap(version) or short or early


def is_peppis_gap(version: tuple[int, int]) -> bool:
    """Whether peppi panics on every file of a version: its bookend has no field there."""
    return KINDS["end"].since <= version < (3, 7)


def _lost(sizes: dict[int, int]) -> frozenset[str]:
    """Sources of the events and columns that payloads of these sizes do not hold."""
    lost = {event for event, kind in KINDS.items() if kind.code not in sizes}
    layouts = {event: layout(event, NEWEST_KNOWN).fields for event in KINDS}
    for column in (*FRAME, *PLAYER, *ITEM):
        if column.event not in KINDS:
            continue
        fields = layouts[column.event]
        assert fields is not None
        part, offset = fields[column.name][:2]
        if offset + part.itemsize > 1 + sizes.get(KINDS[column.event].code, 0):
            lost.add(column.source)
    return frozenset(lost)


# --- end and metadata -----------------------------------------------------------------------------


def _end(stream: _Stream, frames: Frames) -> MendedEnd | None:
    """Game end, unless it is bytes of something else that look like one."""
    if stream.end is None or not (stream.closed or frames.complete):
        return None
    return mend_end(stream.end)


def _metadata(stream: _Stream) -> tuple[dict[str, object] | None, tuple[str, ...]]:
    """Metadata, from where the header says, or from where the events end."""
    data = stream.events.data
    length = int.from_bytes(data[len(MAGIC) : _HEAD], "big") if data.startswith(MAGIC) else 0
    for stop in (_HEAD + length, stream.events.stop):
        if stop > _HEAD and data.startswith(METADATA_KEY, stop):
            return read_metadata(data, stop)
    ends_bare = stream.closed and stream.events.stop == len(data)
    return None, ("metadata_missing",) if ends_bare and not stream.steps & _ENDED_EARLY else ()
