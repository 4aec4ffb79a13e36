"""One replay to read, or one thing that cannot be read, with the rule that says why."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path

REPLAY_BYTES_MAX = 128 * 2**20
"""No replay has more: an hour of Slippi 3.19 is 75 MB."""
NAME_CHARS_MAX = 1000
"""Of a member's name in the ledger; a .zip may give one 65,535 bytes, a .tar any number."""
_NO_TEXT = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
"""Bytes that were no UTF-8 come as lone surrogates; line breaks and escapes forge what is shown."""


@dataclass(frozen=True)
class Item:
    """One replay to read: its uncompressed bytes, or a plain file (data is None).

    source, member: what the ledger calls it. rule, detail: set where it cannot be read.
    """

    path: Path
    member: str | None = None
    data: bytes | None = None
    rule: str | None = None
    detail: str | None = None

    @property
    def source(self) -> str:
        """Absolute path of the file or archive, as text that any table can hold."""
        return printable(str(self.path.absolute()))


def read_file(path: Path) -> bytes:
    """A plain replay file's bytes, one more than the limit at most. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise OSError(None, "a device, pipe or folder, not a file")
    with path.open("rb") as file:
        return file.read(REPLAY_BYTES_MAX + 1)


def replay(path: Path, member: str | None, data: bytes) -> Item:
    """The item of these bytes, or of their being too many."""
    if len(data) > REPLAY_BYTES_MAX:
        return too_large(path, member)
    return Item(path, member, data)


def too_large(path: Path, member: str | None) -> Item:
    """What stands for a replay whose bytes are not even read."""
    return Item(path, member, rule="too_large", detail=f"more than {REPLAY_BYTES_MAX} bytes")


def unreadable(path: Path, member: str | None, error: BaseException) -> Item:
    """What stands for a file or member whose reader raised this."""
    return Item(
        path, member, rule="bad_file" if member is None else "bad_member", detail=line(error)
    )


def printable(name: str) -> str:
    """A name as text that every table and terminal can hold, bounded in length."""
    text = _NO_TEXT.sub("�", name)
    if len(name) <= NAME_CHARS_MAX:
        return text
    half = NAME_CHARS_MAX // 2
    return f"{text[: half - 1]}…{text[-half:]}"


def line(error: BaseException) -> str:
    """An error of some library in one line, without the path that errors of the system carry."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).partition("\n")[0]
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)
