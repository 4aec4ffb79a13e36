"""One replay in, one table of schemas.game.FULL's form out: the only module that calls peppi.

peppi's reader is private and returns a raw Arrow struct; tests/ingest/test_replay.py is its
contract. It panics with a BaseException, holds the GIL and may die: call `parse` in a worker
process (ingest/workers.py). No loop over frames here.
"""

import base64
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from peppi_py import _peppi

from ingest.container import Container, open_container
from ingest.repair import Rescued, rescue
from ingest.repair.rescue import is_peppis_gap
from ingest.resolve import (
    RANDALL_STAGE,
    STAGE_EVENTS,
    Ints,
    StageEvent,
    carry_forward,
    item_slots,
    last_copies,
    randall,
)
from ingest.rules import PLAYER_TYPES, Refusal, check_start
from ingest.slp import KINDS, split
from schemas.columns import FRAME, ITEM, PLAYER, STAGE, Column
from schemas.game import FULL, REVISION, SIDES

PARSER = "peppi-py 0.8.6"


@dataclass(frozen=True)
class ParsedGame:
    """A replay as it is stored: frames, and what the game file's footer says beside them. The
    footer is everything that the replay says outside its frames: facts and `rebuild` read it."""

    table: pa.Table
    footer: dict[str, Any]


def parse(source: Path | bytes, *, repair: bool = True) -> ParsedGame:
    """Read one .slp: last copy of each frame, items with slots, stage state carried forward.

    A damaged replay is rescued (footer `repairs` says how: ingest.repair.REPAIRS). Raises Refusal
    with the rule that keeps it from becoming a game, needs_repair where `repair` is off; OSError
    for a path that cannot be read. A panic of peppi's becomes a Refusal, too.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        game = _parse_as_it_is(data)
    except Refusal as refusal:
        game = _parse_rescued(rescue(data, refusal))
    repairs = game.footer["repairs"]
    if repairs and not repair:
        raise Refusal("needs_repair", f"declined: {', '.join(repairs)}")
    return game


def _parse_as_it_is(data: bytes) -> ParsedGame:
    """An undamaged replay, as peppi reads it. Raises Refusal."""
    container = open_container(data)
    start = container.start
    if is_peppis_gap(start.version):
        raise Refusal("unreadable", f"Slippi {'.'.join(map(str, start.version))}: peppi panics")
    if not set(start.types) <= set(PLAYER_TYPES):
        raise Refusal("unreadable", f"player types {list(start.types)}")
    check_start(start)
    game = _read_with_peppi(container.plain)
    frames = _placed(_frames(game, start.ports), container)
    about = {key: value for key, value in game.start.items() if key != "bytes"}
    return _game(container, start.ports, frames, about, game.end)


def _parse_rescued(rescued: Rescued) -> ParsedGame:
    """A replay made whole: without what peppi says of columns that the file does not hold."""
    ports = rescued.start.players.ports
    game = _read_with_peppi(rescued.replay)
    frames = _without(_frames(game, ports), rescued.lost)
    about = {key: value for key, value in game.start.items() if key != "bytes"}
    end = rescued.end.told(game.end) if rescued.end else None
    game = _game(rescued.container, ports, frames, rescued.start.told(about), end)
    game.footer["rollback_rows"] += rescued.repeated
    return game


def _frames(game: Any, ports: tuple[int, ...]) -> pa.StructArray:
    """peppi's frames, of exactly these ports. Raises Refusal."""
    if game.frames is None or len(game.frames) == 0:
        raise Refusal("no_frames", "the replay has a start, but no frame")
    named = [f"P{port}" for port in ports]
    found = [field.name for field in game.frames.type.field("ports").type]
    if found != named:
        raise Refusal("unreadable", f"players on {named}, but frames of {found}")
    for port in game.frames.field("ports").flatten():
        if port.type.get_field_index("follower") >= 0:
            _check_follower(port.field("leader"), port.field("follower"))
    return game.frames


def _check_follower(leader: pa.StructArray, follower: pa.StructArray) -> None:
    """A player's column is null where its leader sends nothing, and so would hide the follower."""
    if leader.null_count and pc.any(pc.and_(follower.is_valid(), leader.is_null())).as_py():
        raise Refusal("unreadable", "a follower's events without those of its leader")


def _game(
    container: Container, ports: tuple[int, ...], whole: pa.StructArray, start: Any, end: Any
) -> ParsedGame:
    rows = last_copies(whole.field("id").to_numpy())
    frames = whole if rows is None else whole.take(pa.array(rows))
    table = _table(frames, ports, container.start.stage)
    footer = {
        "rev": REVISION,
        "parser": PARSER,
        "replay_bytes": len(container.data),
        "start_bytes": base64.b64encode(container.start.payload).decode(),
        "start": start,
        "end": end,
        "metadata": container.metadata,
        "rollback_rows": len(whole) - len(frames),
        "repairs": list(container.repairs),
        "newer_than_parser": container.newer_than_parser,
    }
    return ParsedGame(table, footer)


# --- peppi ----------------------------------------------------------------------------------------


def _read_with_peppi(pieces: tuple[bytes | memoryview, ...]) -> Any:
    with _as_file(pieces) as path:
        try:
            return _peppi.read_slippi(path, skip_frames=False)
        except OSError as error:
            raise Refusal("unreadable", f"peppi: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # it derives from BaseException
                raise
            raise Refusal("unreadable", f"peppi panicked: {error}") from error


@contextmanager
def _as_file(pieces: tuple[bytes | memoryview, ...]) -> Iterator[str]:
    """A path under which these bytes can be read: in memory where the system can, never by name."""
    if hasattr(os, "memfd_create"):
        with _memory_lock:
            handle = _memory_file(os.getpid())
            size = os.pwritev(handle, pieces, 0)
            assert size == sum(map(len, pieces))
            os.ftruncate(handle, size)
            yield f"/proc/self/fd/{handle}"
    else:
        with tempfile.NamedTemporaryFile(suffix=".slp") as named:
            named.writelines(pieces)
            named.flush()
            yield named.name


_memory_lock = threading.Lock()


@cache
def _memory_file(_process: int) -> int:
    """One file in memory a process, written over by each replay: its pages stay, which is worth a
    tenth of peppi's time. It is gone with the process."""
    return os.memfd_create("replay")


# --- characters that are out ----------------------------------------------------------------------


def _placed(frames: pa.StructArray, container: Container) -> pa.StructArray:
    """peppi's frames with each character's rows where they were recorded.

    Before Slippi 2.2 no event begins a frame, and peppi closes the gap where a character is out (a
    lost Nana): later rows move up, and the nulls stand at the end. Raises Refusal where the events
    are not those that peppi has read.
    """
    ports = frames.field("ports")
    out = any(character.null_count for port in ports.flatten() for character in port.flatten())
    if not out or tuple(container.start.payload[:2]) >= KINDS["start"].since:
        return frames
    events = split(container.data)
    pre, post = events.records("pre"), events.records("post")
    starts = np.diff(pre["frame"], prepend=np.iinfo(np.int32).min) != 0
    if not np.array_equal(pre["frame"][starts], frames.field("id").to_numpy()):
        raise Refusal("unreadable", "a character is out, and the frames it was on cannot be told")
    row = np.cumsum(starts) - 1
    placed = {}
    for field, port in zip(ports.type, ports.flatten(), strict=True):
        characters = {}
        for role, rows in zip(field.type, port.flatten(), strict=True):
            sent, got = (_sent_by(event, field.name, role.name) for event in (pre, post))
            if not np.array_equal(pre["frame"][sent], post["frame"][got]):
                raise Refusal("unreadable", "a character is out, and half of a frame of it is lost")
            characters[role.name] = _spread(rows, row[sent])
        placed[field.name] = _struct(characters)
    columns = dict(zip((field.name for field in frames.type), frames.flatten(), strict=True))
    return _struct(columns | {"ports": _struct(placed)})


def _sent_by(events: npt.NDArray[np.void], port: str, role: str) -> npt.NDArray[np.bool_]:
    """Which events are one character's, named as peppi does: P1 to P4, leader or follower."""
    own = events["port"] == int(port.removeprefix("P")) - 1
    return np.asarray(own & (events["follower"] == (role == "follower")))


def _spread(character: pa.StructArray, rows: Ints) -> pa.StructArray:
    """A character's closed-up events at these rows of the game; null on all others."""
    if len(rows) != len(character) - character.null_count or (np.diff(rows) <= 0).any():
        raise Refusal("unreadable", "a character is out, and not all of its events were read")
    source = np.full(len(character), -1)
    source[rows] = np.arange(len(rows))
    return character.take(pa.array(source, mask=source < 0))


# --- columns that a rescued file does not hold ----------------------------------------------------


def _without(frames: pa.StructArray, lost: frozenset[str]) -> pa.StructArray:
    """peppi's frames without the leaves of these sources; an event that loses all is gone."""
    columns = {}
    for field, array in zip(frames.type, frames.flatten(), strict=True):
        if field.name == "ports":
            ports = {
                port.name: _struct(
                    {
                        role.name: _pruned(rows, "", lost)
                        for role, rows in zip(port.type, of_port.flatten(), strict=True)
                    }
                )
                for port, of_port in zip(field.type, array.flatten(), strict=True)
            }
            columns["ports"] = _struct(ports)
        elif (kept := _pruned(array, field.name, lost)) is not None:
            columns[field.name] = kept
    return _struct(columns)


def _pruned(array: pa.Array, source: str, lost: frozenset[str]) -> pa.Array | None:
    """An array without the lost leaves below `source`; None if it loses all, or is one itself."""
    if source in lost:
        return None
    if pa.types.is_list(array.type):
        offsets = array.offsets.to_numpy()
        rows = _pruned(array.flatten(), source, lost)
        return None if rows is None else pa.ListArray.from_arrays(offsets - offsets[0], rows)
    if not pa.types.is_struct(array.type):
        return array
    below = f"{source}." if source else ""
    columns = {
        field.name: kept
        for field, part in zip(array.type, array.flatten(), strict=True)
        if (kept := _pruned(part, f"{below}{field.name}", lost)) is not None
    }
    return _struct(columns, array) if columns else None


# --- table ----------------------------------------------------------------------------------------


def _table(frames: pa.StructArray, ports: tuple[int, ...], stage: int) -> pa.Table:
    """The game file's columns; a nested leaf is there if peppi has it, a top-level one always."""
    top = {column.name: _column(frames, column) for column in FRAME}
    parts: dict[str, pa.Array | None] = {**top, "stage": _stage(frames, stage)}
    parts["items"] = _items(frames)
    for side, port in zip(SIDES, ports, strict=True):
        parts[side] = _player(frames.field("ports").field(f"P{port}"), port, top["random_seed"])
    arrays = [_or_nulls(parts[field.name], field, len(frames)) for field in FULL]
    fields = [_field(name, array) for name, array in zip(FULL.names, arrays, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _field(name: str, array: pa.Array) -> pa.Field:
    """Nullable only where a null is: definition levels vanish, and peppi's own flags are wrong."""
    return pa.field(name, array.type, nullable=array.null_count > 0)


def _or_nulls(array: pa.Array | None, field: pa.Field, n: int) -> pa.Array:
    """A top-level column that the version lacks, as nulls; of a list's leaves one is enough."""
    if array is not None:
        return array
    if not pa.types.is_list(field.type):
        return pa.nulls(n, field.type)
    return pa.nulls(n, pa.list_(pa.struct([field.type.value_type.field(0)])))


def _struct(columns: dict[str, pa.Array], of: pa.StructArray | None = None) -> pa.StructArray:
    """A struct of these columns, null where `of` is."""
    mask = of.is_null() if of is not None and of.null_count else None
    fields = [_field(name, array) for name, array in columns.items()]
    return pa.StructArray.from_arrays(list(columns.values()), fields=fields, mask=mask)


def _column(source: pa.StructArray, column: Column, skip: int = 0) -> pa.Array | None:
    """The leaf of peppi's struct that a column names; None where this version has no such leaf.

    skip: leading parts of the column's path that `source` is already inside of.
    """
    array = source
    for name in column.source.split(".")[skip:]:
        index = array.type.get_field_index(name)
        if index < 0:
            return None
        # a parent's nulls reach its children only through flatten
        array = array.flatten()[index] if array.null_count else array.field(index)
    return array if array.type == column.type else array.cast(column.type)


def _columns(source: pa.StructArray, group: tuple[Column, ...], skip: int) -> dict[str, pa.Array]:
    found = ((c.name, _column(source, c, skip)) for c in group if c.source)
    return {name: array for name, array in found if array is not None}


def _player(port: pa.StructArray, number: int, frame_seed: pa.Array | None) -> pa.StructArray:
    """One side: its character, and the follower of Ice Climbers where there is one."""
    columns = _character(port.field("leader"), number, frame_seed)
    if port.type.get_field_index("follower") >= 0:
        follower = port.field("follower")
        nana = _character(follower, number, frame_seed)
        columns["follower"] = _struct(nana, follower)
    return _struct(columns, port.field("leader"))


def _character(
    character: pa.StructArray, port: int, frame_seed: pa.Array | None
) -> dict[str, pa.Array]:
    columns = _columns(character, PLAYER, skip=0)
    if frame_seed is not None:
        columns["random_seed"] = _where_different(columns["random_seed"], frame_seed)
        if columns["random_seed"].null_count == len(character):
            del columns["random_seed"]
    numbers = pa.array(np.full(len(character), port, np.uint8))
    return {"port": numbers, **columns}


def _where_different(seed: pa.Array, frame_seed: pa.Array) -> pa.Array:
    """Nearly every game draws a random number between frame start and a character now and then, on
    3 % of its frames: whole copies would cost a tenth of the game file, the differing rows do not.
    """
    return pc.if_else(pc.equal(seed, frame_seed), pa.scalar(None, seed.type), seed)


def _items(frames: pa.StructArray) -> pa.ListArray | None:
    """The items of each frame, in the replay's order, each with its slot."""
    if frames.type.get_field_index("item") < 0:
        return None
    lists = frames.field("item")
    items = lists.flatten()
    offsets = lists.offsets.to_numpy()
    columns = _columns(items, ITEM, skip=1)
    slots = item_slots(columns["id"].to_numpy(), offsets - offsets[0])
    struct = _struct({"slot": pa.array(slots), **columns})
    element = pa.field("element", struct.type, nullable=False)
    shifted = pa.array(offsets - offsets[0])
    return pa.ListArray.from_arrays(shifted, struct, type=pa.list_(element))


def _stage(frames: pa.StructArray, stage: int) -> pa.StructArray:
    """The stage's state on every frame; other stages' leaves are null."""
    columns = {}
    for column in STAGE:
        name, _, leaf = column.source.partition(".")
        if not column.source:
            columns[column.name] = pa.nulls(len(frames), column.type)
        elif frames.type.get_field_index(name) >= 0:
            rule = STAGE_EVENTS[column.name]
            columns[column.name] = (
                _stage_state(frames.field(name), leaf, rule)
                if rule.stage == stage
                else pa.nulls(len(frames), column.type)
            )
    if stage == RANDALL_STAGE:
        x, y = randall(frames.field("id").to_numpy())
        columns |= {"randall_x": pa.array(x), "randall_y": pa.array(y)}
    return _struct(columns)


def _stage_state(lists: pa.ListArray, leaf: str, rule: StageEvent) -> pa.Array:
    events = lists.flatten()
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    values = events.field(leaf).to_numpy()
    if rule.platform is not None:
        own = events.field("platform").to_numpy() == rule.platform
        rows, values = rows[own], values[own]
    return pa.array(carry_forward(rows, values, len(lists), rule.before_first))
