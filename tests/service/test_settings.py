"""Where a setting comes from, and which ones are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from service.settings import Settings, is_loopback, variable


def test_flags_win_over_the_environment_and_that_over_defaults() -> None:
    environ = {"MELEEWM_PORT": "9000", "MELEEWM_STORE": "/data/melee", "MELEEWM_STALL_S": "2.5"}
    settings = Settings.resolve({"port": 9001, "host": None}, environ)
    assert (settings.port, settings.store) == (9001, Path("/data/melee"))
    assert (settings.stall_s, settings.host) == (2.5, "127.0.0.1")


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"host": "0.0.0.0"}, {}, "needs a token"),
        ({"host": "melee.example"}, {}, "needs a token"),
        ({"host": "::"}, {}, "needs a token"),
        ({"host": ""}, {}, "needs a token"),
        ({"port": 65_536}, {}, "out of range"),
        ({"port": -1}, {}, "port is -1"),
        ({"sql_processes": 0}, {}, "sql_processes is 0"),
        ({"wrong": 1}, {}, "unknown setting 'wrong'"),
        ({}, {"MELEEWM_PORT": "many"}, "MELEEWM_PORT is not a number: 'many'"),
    ],
)
def test_refused(flags: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings.resolve(flags, environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert Settings.resolve({"host": host}, {}).host == host


def test_a_token_opens_other_addresses_and_is_never_printed() -> None:
    settings = Settings.resolve({"host": "0.0.0.0"}, {"MELEEWM_TOKEN": "hush-hush"})
    assert settings.token == "hush-hush"
    assert "hush" not in repr(settings)


def test_every_setting_says_what_it_is() -> None:
    for row in dataclasses.fields(Settings):
        assert row.metadata["meaning"]
        assert variable(row) == "MELEEWM_" + row.name.upper()
