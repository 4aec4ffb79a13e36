"""Keyed hashes in place of names, connect codes and paths: HMAC-SHA-256 with a secret of the user.

One key, one person, one pseudonym, in every game and field; who has no key can neither undo it nor
try out guesses. What is replaced, and what is not: docs/privacy.md.
"""

import base64
import hmac
import re
import stat
import struct
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ingest.facts import rank_told
from ingest.slp import N_PORTS, START, block_size
from schemas.columns import NEWEST_KNOWN
from schemas.errors import UsageError
from store.layout import PLAIN, Layout, settle_names

KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 4096
_HOW_TO_MAKE = "make one with: (umask 077; head -c 32 /dev/urandom > KEYFILE)"


def read_key(path: Path) -> tuple[bytes, bool]:
    """The secret: every byte of a file; and whether other users of the machine can read it.

    Raises UsageError for a file that cannot be read or that holds no secret.
    """
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX + 1)
            mode = path.stat().st_mode
    except OSError as error:
        message = f"cannot read the key {path}: {(error.strerror or str(error)).lower()}"
        raise UsageError(message, _HOW_TO_MAKE) from error
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        size = f"{len(key)} bytes" if len(key) <= KEY_BYTES_MAX else f"over {KEY_BYTES_MAX} bytes"
        message = f"{path} is no key: {size}, where {KEY_BYTES_MIN} to {KEY_BYTES_MAX} are needed"
        raise UsageError(message, _HOW_TO_MAKE)
    return key, stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def mark_of(key: bytes) -> str:
    """What a store says of the key that was used for it: enough to know the key again."""
    return "hmac-sha256:" + hmac.digest(key, b"meleewm store", "sha256")[:8].hex()


def check(layout: Layout, key: bytes | None) -> None:
    """Refuse to mix names and keyed hashes, or hashes of two keys, in one store.

    The first ingest into an empty store decides. Whoever is about to read replays into a store asks
    here first. Raises UsageError.
    """
    wanted = PLAIN if key is None else mark_of(key)
    kept = settle_names(layout, wanted)
    if kept == wanted:
        return
    where = layout.root
    if kept == PLAIN:
        message = f"{where} was begun without a key, and keeps names as they are"
        raise UsageError(message, "name another --store, and ingest the replays anew")
    if key is None:
        raise UsageError(f"{where} holds keyed hashes instead of names", "--anonymize KEYFILE")
    raise UsageError(
        f"{where} was made with another key", "the same KEYFILE as at its first ingest"
    )


# --- pseudonyms -----------------------------------------------------------------------------------

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PLAIN_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # none that is easily taken for another
_NAME_LENGTH, _UID_LENGTH, _PATH_LENGTH = 12, 28, 16


@lru_cache(maxsize=10_000)
def code(text: str, key: bytes) -> str:
    """Pseudonym of a connect code, for example 7QX0KDB#4.

    Nine characters, as many as the field holds, and one more than any real code has, so that it is
    never mistaken for somebody's. Among 100,000 players two share one with a probability of 0.6 %.
    """
    number = _number(text, "code", key)
    return f"{_spelt(number // 10, _LETTERS, 7)}#{number % 10}" if number else text


def name(text: str, key: bytes) -> str:
    """Pseudonym of a display name, a name tag or a console's name: 12 letters and digits, which
    the shortest field holds. A name that is only a rank stays."""
    return text if rank_told(text) else _word(text, "name", key, _NAME_LENGTH)


def uid(text: str, key: bytes) -> str:
    """Pseudonym of a Slippi user id."""
    return _word(text, "uid", key, _UID_LENGTH)


@lru_cache(maxsize=10_000)
def _word(text: str, kind: str, key: bytes, length: int) -> str:
    number = _number(text, kind, key)
    return _spelt(number, _PLAIN_LETTERS, length) if number else text


def _number(text: str, kind: str, key: bytes) -> int:
    """256 bits of a text, the same for full-width and plain letters; 0 for an empty one."""
    said = unicodedata.normalize("NFKC", text).strip()
    if not said:
        return 0
    told = f"{kind}\0{said}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hmac.digest(key, told, "sha256"), "big") or 1


def _spelt(number: int, letters: str, length: int) -> str:
    spelt = ""
    for _ in range(length):
        number, digit = divmod(number, len(letters))
        spelt += letters[digit]
    return spelt


# --- game files -----------------------------------------------------------------------------------

_Pseudonym = Callable[[str, bytes], str]
_FIELDS = {field.name: field for field in START}
_NAMES_OF_START: dict[str, tuple[_Pseudonym, str]] = {
    "name_tag": (name, "cp932"),
    "netplay_name": (name, "cp932"),
    "netplay_code": (code, "cp932"),
    "netplay_suid": (uid, "utf-8"),
}
"""Field of game start -> its pseudonym, and how its bytes are read."""
_NAMES_OF_PLAYER: dict[str, _Pseudonym] = {"name": name, "code": code, "suid": uid}
_KNOWN_BYTES = block_size(START, NEWEST_KNOWN)
_KEYS_KEPT = {"startAt", "lastFrame", "playedOn", "consoleNick", "players", "characters", "names",
              "netplay", "code"}  # fmt: skip


def anonymous(footer: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """A game file's footer with pseudonyms, in the raw start block and in what was read of it.

    `names` in it says by which key.
    """
    start = footer["start"]
    block = _start_block(base64.b64decode(footer["start_bytes"]), key)
    return {
        **footer,
        "start_bytes": base64.b64encode(block).decode(),
        "start": {**start, "players": [_player(player, key) for player in start["players"]]},
        "metadata": _metadata(footer["metadata"], key),
        "names": mark_of(key),
    }


def _start_block(payload: bytes, key: bytes) -> bytes:
    """Whole fields are replaced: old names stand behind the end of shorter ones. What a newer
    Slippi than we know adds may be names, too, and becomes zeros."""
    block = bytearray(payload[:_KNOWN_BYTES].ljust(len(payload), b"\0"))
    for field_name, (pseudonym, encoding) in _NAMES_OF_START.items():
        field = _FIELDS[field_name]
        size = struct.calcsize(field.format)
        for port in range(N_PORTS):
            at = field.offset - 1 + field.stride * port
            whole = bytes(block[at : at + size])
            told = whole.partition(b"\0")[0] if len(whole) == size else b""
            text = told.decode(encoding, "backslashreplace")
            replaced = pseudonym(text, key)
            # one that stays (empty, a rank) keeps its bytes
            kept = told if replaced == text else replaced.encode()
            block[at : at + size] = kept.ljust(len(whole), b"\0")
    return bytes(block)


def _player(player: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    said = dict(player)
    if said.get("name_tag"):
        said["name_tag"] = name(said["name_tag"], key)
    if said.get("netplay"):
        said["netplay"] = {
            field: _NAMES_OF_PLAYER[field](text, key) if text else text
            for field, text in said["netplay"].items()
        }
    return said


def _metadata(value: Any, key: bytes, of: str = "") -> Any:
    """All text but the time and the platform; keys that Slippi does not write, too.

    of: the key that the value stands under.
    """
    if isinstance(value, dict):
        return {_metadata_key(k, key): _metadata(v, key, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_metadata(v, key, of) for v in value]
    if not isinstance(value, str) or of == "playedOn" or (of == "startAt" and _is_time(value)):
        return value
    return code(value, key) if of == "code" else name(value, key)


def _metadata_key(text: str, key: bytes) -> str:
    return text if text in _KEYS_KEPT or re.fullmatch("[0-9]{1,3}", text) else name(text, key)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


# --- ledger ---------------------------------------------------------------------------------------

_PART = re.compile(r"[^/\\]+")
_RANK = "(?:bronze|silver|gold|platinum|diamond|master|grandmaster)"
_ENDINGS = r"(?:\.(?:slpz?|zip|7z|rar|tar|t[gx]z|tzst|tbz2|gz|xz|zst|bz2)){0,3}"
_STEM = re.compile(f"({_RANK}-{_RANK}-)?(.*?)({_ENDINGS})", re.IGNORECASE | re.DOTALL)


def ledger_row(row: Mapping[str, object], key: bytes) -> dict[str, object]:
    """A row of the ledger with its paths replaced part by part, and no detail that quotes."""
    return {
        **row,
        "source": place(str(row["source"]), key),
        "member": None if row["member"] is None else place(str(row["member"]), key),
        "detail": _detail(row["rule"], row["detail"]),
    }


def place(path: str, key: bytes) -> str:
    """A path of pseudonyms; the ending and a pair of ranks, as dumps put it in front, stay."""
    return _PART.sub(lambda part: _path_part(part[0], key), path)


def _path_part(part: str, key: bytes) -> str:
    found = _STEM.fullmatch(part)
    assert found
    ranks, stem, ending = found[1] or "", found[2], found[3]
    return ranks + _word(stem, "path", key, _PATH_LENGTH) + ending


def _detail(rule: object, detail: object) -> str | None:
    """What quotes the input stands behind a colon in every detail; not_a_replay is a quote."""
    if detail is None or rule == "not_a_replay":
        return None
    return str(detail).partition(":")[0]
