"""Game start and game end as peppi takes them, and the corrections to what it then says of them.

peppi refuses a replay for one code or one byte of text that it does not know. Such a field is made
harmless for peppi, and unknown in its answer; the file's own bytes stay in the footer.
"""

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ingest.rules import EMPTY_PORT, PLAYER_TYPES, StartBlock
from ingest.slp import END, N_PORTS, START, Field, block_size
from schemas.columns import NEWEST_KNOWN

_START_BYTES = block_size(START, NEWEST_KNOWN)
_END_BYTES = block_size(END, NEWEST_KNOWN)
_FIELDS = {field.name: field for field in START}
_ICE_CLIMBERS = 14

# key of peppi's answer -> the last of the fields that it is made of
_KEYS = {"is_pal": "is_pal", "is_frozen_ps": "is_frozen_ps", "scene": "scene_major",
         "language": "language", "match": "match_tiebreaker"}  # fmt: skip
_KEYS_OF_PLAYER = {"ucf": "shield_drop", "name_tag": "name_tag", "netplay": "netplay_code"}
_UCF_MAX = 2
_LANGUAGE_MAX = 1


@dataclass(frozen=True)
class MendedStart:
    """A game start for peppi.

    block: payload in the newest layout. original: the file's own. untyped: ports whose player type
    is none. characters: port -> its character where peppi was told another one. steps: names of
    REPAIRS.
    """

    block: bytes
    original: bytes
    untyped: frozenset[int]
    characters: dict[int, int]
    language_known: bool
    steps: tuple[str, ...]

    @property
    def players(self) -> StartBlock:
        """The block that rules judge."""
        return StartBlock(self.block[: len(self.original)])

    def with_followers(self, ports: list[int]) -> "MendedStart":
        """The same with followers on these ports: for peppi only Ice Climbers have one."""
        block, characters = bytearray(self.block), {}
        for port in ports:
            at = _place("character", port - 1)
            if block[at] != _ICE_CLIMBERS:
                characters[port] = block[at]
                block[at] = _ICE_CLIMBERS
        steps = (*self.steps, "follower") if characters else self.steps
        return replace(self, block=bytes(block), characters=characters, steps=steps)

    def told(self, said: dict[str, Any]) -> dict[str, Any]:
        """What peppi said of the mended start, as it is true of the file's own."""
        start = {key: value for key, value in said.items() if self._has(_KEYS.get(key))}
        start["slippi"] = {"version": list(self.original[:3])}
        if "language" in start and not self.language_known:
            start["language"] = None
        start["players"] = [self._player(dict(player)) for player in said["players"]]
        return start

    def _player(self, said: dict[str, Any]) -> dict[str, Any]:
        port = int(said["port"].removeprefix("P"))
        player = {key: value for key, value in said.items() if self._has(_KEYS_OF_PLAYER.get(key))}
        if "netplay" in player and not self._has("netplay_suid"):
            player["netplay"] = {k: v for k, v in player["netplay"].items() if k != "suid"}
        if port in self.untyped:
            player["type"] = None
        if port in self.characters:
            player["character"] = self.characters[port]
        return player

    def _has(self, field: str | None) -> bool:
        return field is None or _stop(_FIELDS[field]) <= len(self.original)


def mend_start(payload: bytes, sending: tuple[int, ...]) -> MendedStart:
    """Make a start block harmless. sending: ports 1 to 4 that frames come from."""
    block = bytearray(payload[:_START_BYTES].ljust(_START_BYTES, b"\0"))
    block[:2] = bytes(NEWEST_KNOWN)
    types = StartBlock(payload).types
    untyped = frozenset(port for port, kind in enumerate(types, 1) if kind not in PLAYER_TYPES)
    for port in untyped:
        _put(block, "type", port - 1, 0 if port in sending else EMPTY_PORT)
    language_known = block[_place("language")] <= _LANGUAGE_MAX
    if not language_known:
        _put(block, "language", 0, 0)
    codes = _mend_controller_fixes(block) or not language_known
    steps = [
        ("player_type", bool(untyped)),
        ("start_code", codes),
        ("start_text", _mend_text(block)),
    ]
    taken = tuple(name for name, was_taken in steps if was_taken)
    return MendedStart(bytes(block), payload, untyped, {}, language_known, taken)


def _mend_controller_fixes(block: bytearray) -> bool:
    mended = False
    for port in range(N_PORTS):
        for name in ("dash_back", "shield_drop"):
            (fix,) = struct.unpack_from(">I", block, _place(name, port))
            if fix > _UCF_MAX:
                _put(block, name, port, 0)
                mended = True
    return mended


def _shift_jis(text: bytes) -> bool:
    """Whether peppi can read it. Python's codec knows four bytes more than the standard."""
    try:
        return not any("\uf8f0" <= letter <= "\uf8f3" for letter in text.decode("cp932"))
    except UnicodeDecodeError:
        return False


def _utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_TEXTS: tuple[tuple[str, Callable[[bytes], bool], bool], ...] = (
    ("name_tag", _shift_jis, True),
    ("netplay_name", _shift_jis, True),
    # a piece of these would be somebody else's, or another game's
    ("netplay_code", _shift_jis, False),
    ("netplay_suid", _utf8, False),
    ("match_id", _utf8, False),
)
"""Text of game start: field, whether bytes are readable, whether a readable beginning is kept."""


def _mend_text(block: bytearray) -> bool:
    mended = False
    for name, readable, keep in _TEXTS:
        field = _FIELDS[name]
        size = struct.calcsize(field.format)
        for port in range(N_PORTS if field.stride else 1):
            at = _place(name, port)
            text = bytes(block[at : at + size]).partition(b"\0")[0]
            if readable(text):
                continue
            kept = len(text) if keep else 0
            while not readable(text[:kept]):
                kept -= 1
            block[at : at + size] = text[:kept].ljust(size, b"\0")
            mended = True
    return mended


def _stop(field: Field) -> int:
    """Payload bytes that a block must have to hold a field, of all ports."""
    ports = N_PORTS if field.stride else 1
    return field.offset + field.stride * (ports - 1) + struct.calcsize(field.format) - 1


def _place(name: str, port: int = 0) -> int:
    """Where a field stands in the payload."""
    field = _FIELDS[name]
    return field.offset - 1 + field.stride * port


def _put(block: bytearray, name: str, port: int, value: int) -> None:
    struct.pack_into(f">{_FIELDS[name].format}", block, _place(name, port), value)


# --- game end -------------------------------------------------------------------------------------

_METHODS = {0, 1, 2, 3, 7}
_ANY_METHOD = 3
_NOBODY = 255


@dataclass(frozen=True)
class MendedEnd:
    """A game end for peppi in the newest layout, and the file's own payload."""

    block: bytes
    original: bytes
    steps: tuple[str, ...]

    def told(self, said: dict[str, Any]) -> dict[str, Any]:
        """What peppi said of the mended end, as it is true of the file's own."""
        end = said | {"bytes": base64.b64encode(self.original).decode()}
        if self.original[0] not in _METHODS:
            end["method"] = None
        if len(self.original) < 2:
            end.pop("lras_initiator", None)
        if len(self.original) < _END_BYTES:
            end.pop("players", None)
        return end


def mend_end(payload: bytes) -> MendedEnd:
    """Make a game end harmless; codes out of range become unknown."""
    block = bytearray(payload[:_END_BYTES].ljust(_END_BYTES, bytes([_NOBODY])))
    codes = bytes(block)
    if block[0] not in _METHODS:
        block[0] = _ANY_METHOD
    for at in range(1, _END_BYTES):
        if block[at] >= N_PORTS:
            block[at] = _NOBODY
    if len(payload) < _END_BYTES:
        block[2:] = bytes([_NOBODY]) * (_END_BYTES - 2)
    return MendedEnd(bytes(block), payload, ("end_code",) if bytes(block) != codes else ())
