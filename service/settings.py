"""Every setting of the service, one row each: default, meaning, and a variable MELEEWM_<NAME>."""

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import UsageError

T = TypeVar("T")
_STORE = Path("melee")


def _row(default: T, meaning: str, *, secret: bool = False) -> T:
    row: T = dataclasses.field(default=default, metadata={"meaning": meaning}, repr=not secret)
    return row


@dataclass(frozen=True)
class Settings:
    """What a service runs with. Sizes in bytes, times in seconds.

    Raises UsageError for a value out of range, and off loopback without a token.
    """

    store: Path = _row(_STORE, "folder of the store")  # noqa: RUF009 - a row of the table
    host: str = _row("127.0.0.1", "address to listen on; off loopback a token is needed")
    port: int = _row(8000, "port to listen on; 0 picks a free one")
    token: str = _row("", "bearer token that requests must carry; empty asks for none", secret=True)
    public_url: str = _row("", "address in manifests where a proxy hides ours")
    store_threads: int = _row(4, "threads that select, read tables and encode")
    stream_threads: int = _row(8, "threads that read and send shards and files")
    requests_max: int = _row(256, "requests at once; one more gets 503")
    request_bytes_max: int = _row(16 << 20, "longest request body: a lock of 500,000 games")
    cached_games_max: int = _row(600_000, "games in the selections that are kept in memory")
    page_games_max: int = _row(1000, "games on one page of /v1/games")
    sql_processes: int = _row(2, "SQL queries at once")
    sql_waiting_max: int = _row(32, "SQL queries that wait; one more gets 503")
    sql_time_s: float = _row(30.0, "longest time of a SQL query")
    sql_memory_bytes: int = _row(1 << 30, "memory of a SQL query")
    sql_rows_max: int = _row(1_000_000, "rows that a SQL query may return")
    sql_output_bytes_max: int = _row(256 << 20, "bytes that a SQL query may return")
    stall_s: float = _row(60.0, "how long a client may take nothing of a stream")
    drain_s: float = _row(20.0, "how long streams may go on after SIGTERM")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < (0 if field.name == "port" else 1):
                raise UsageError(f"setting {field.name} is {value}", "it must be positive")
        if self.port > 65_535:
            raise UsageError(f"port {self.port} is out of range", "0 to 65535")
        if not self.token and not is_loopback(self.host):
            message = f"listening on {self.host} needs a token"
            raise UsageError(message, "set MELEEWM_TOKEN, or --host 127.0.0.1")

    @classmethod
    def resolve(
        cls, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None
    ) -> "Settings":
        """Settings from flags (None: not given), then from the environment, then the defaults.

        Raises UsageError for a variable that cannot be read and for an unusable value.
        """
        environ = os.environ if environ is None else environ
        rows = dataclasses.fields(cls)
        chosen: dict[str, Any] = {
            row.name: _parsed(row, environ[name])
            for row in rows
            if (name := variable(row)) in environ
        }
        chosen |= {name: value for name, value in flags.items() if value is not None}
        if unknown := sorted(set(chosen) - {row.name for row in rows}):
            raise UsageError(f"unknown setting '{unknown[0]}'")
        return cls(**chosen)


def variable(row: "dataclasses.Field[Any]") -> str:
    """The environment's name of a setting."""
    return f"MELEEWM_{row.name.upper()}"


def _parsed(row: "dataclasses.Field[Any]", text: str) -> object:
    kinds = {str: str, int: int, float: float}
    try:
        return kinds.get(type(row.default), Path)(text)
    except ValueError:
        raise UsageError(f"{variable(row)} is not a number: '{text}'") from None


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address, or name one, by that name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
