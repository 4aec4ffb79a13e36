"""A watched folder gives its replays when their games have ended, and not before."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.sources import Item, watch, watching
from ingest.synthetic import make_game
from meleewm.cli import main
from schemas.errors import UsageError
from store.catalog import Catalog
from store.layout import open_layout
from tests.ingest.archives import make_zip

Step = Callable[[], object]


class EndOfStepsError(Exception):
    """The script of a test is over."""


def watched(root: Path, steps: list[Step], passed: list[str] | None = None) -> list[list[str]]:
    """What is handed on at the first look, and at the one after each step, by path below root."""
    looks: list[list[str]] = [[]]
    script = iter(steps)

    def wait(_seconds: float) -> None:
        step = next(script, None)
        if step is None:
            raise EndOfStepsError
        step()
        looks.append([])

    found = watching.ready([root], ([] if passed is None else passed).append, wait, 600)
    with suppress(EndOfStepsError):
        for item in found:
            path = item.path if isinstance(item, Item) else item
            looks[-1].append(str(path.relative_to(root)))
        raise AssertionError("the watch ended by itself")
    return looks


def age(path: Path, seconds: float) -> None:
    """Let a file have been left alone for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture(scope="module")
def slp() -> bytes:
    return make_game(5, n_frames=300).slp


def written(path: Path, data: bytes, seconds: float) -> Step:
    """A step: the file holds this, and was left alone for so long."""

    def write() -> None:
        path.write_bytes(data)
        age(path, seconds)

    return write


def test_a_game_is_taken_when_the_client_has_ended_it(tmp_path: Path, slp: bytes) -> None:
    path = tmp_path / "a.slp"
    open_header = slp[:11] + bytes(4) + slp[15:]
    metadata = slp.index(b"U\x08metadata")
    looks = watched(
        tmp_path,
        [
            written(path, open_header[:5_000], 10),  # in play, the client flushes now and then
            written(path, open_header[:9_000], 10),
            written(path, open_header[:metadata], 10),  # game end written: peppi would read it
            written(path, open_header, 10),
            written(path, slp[: metadata - 1], 10),  # its length, but not all of it
            written(path, slp, 0.5),  # just now
            lambda: age(path, 10),
            lambda: None,
            lambda: None,
        ],
    )
    assert looks == [[], [], [], [], [], [], [], ["a.slp"], [], []]


def test_a_game_left_in_the_middle_is_taken_at_last(tmp_path: Path, slp: bytes) -> None:
    path = tmp_path / "a.slp"
    part = slp[:11] + bytes(4) + slp[15:5_000]
    looks = watched(
        tmp_path,
        [written(path, part, 599 - 5), lambda: age(path, 601), lambda: None, written(path, slp, 9)],
    )
    assert looks == [[], [], ["a.slp"], [], ["a.slp"]]


def test_what_lies_there_is_taken_at_the_first_look(tmp_path: Path, slp: bytes) -> None:
    (tmp_path / "2026-01").mkdir()
    for name in ("a.slp", "2026-01/b.SLP"):
        written(tmp_path / name, slp, 100)()
    (tmp_path / "empty.slp").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    passed: list[str] = []
    looks = watched(tmp_path, [lambda: None, lambda: None], passed)
    assert looks == [["a.slp", "loop", "2026-01/b.SLP"], [], []]
    assert passed == [str(tmp_path / "notes.txt")]


def test_new_folders_and_new_names(tmp_path: Path, slp: bytes) -> None:
    new = tmp_path / "2026-02" / "a.slp"
    looks = watched(
        tmp_path,
        [
            new.parent.mkdir,
            written(new, slp, 60),
            lambda: new.rename(tmp_path / "b.slp"),
            lambda: (tmp_path / "b.slp").unlink(),
            lambda: (tmp_path / "lost.slp").symlink_to("nowhere"),
        ],
    )
    assert looks == [[], [], ["2026-02/a.slp"], ["b.slp"], [], []]


def test_archives_are_taken_when_nobody_copies_them_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.slp": b"x"})
    looks = watched(tmp_path, [lambda: age(path, 20), lambda: age(path, 40), lambda: None])
    assert looks == [[], [], ["a.zip"], []]


def test_a_file_from_the_future_waits_for_a_second_look(
    tmp_path: Path, slp: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.slp"
    written(path, slp, -3600)()
    monkeypatch.setattr(watching, "SETTLED_S", 0.05)
    assert watched(tmp_path, [lambda: time.sleep(0.1)]) == [[], ["a.slp"]]


def test_only_folders_are_watched(tmp_path: Path) -> None:
    (tmp_path / "a.slp").write_bytes(b"x")
    for path in (tmp_path / "a.slp", tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="is no folder"):
            watch([path], rescue_after_s=60)


def rows(store: Path) -> list[tuple[str, str]]:
    """Name and outcome of every file in the ledger."""
    try:
        with Catalog(open_layout(store), read_only=True) as catalog:
            found = catalog.query("select source, outcome from lake.replays order by source")
    except Exception:
        return []
    return [(Path(row["source"]).name, row["outcome"]) for row in found.to_pylist()]


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    (tmp_path / "Slippi").mkdir()
    command = [sys.executable, "-m", "meleewm", "ingest", str(tmp_path / "Slippi"), "--watch",
               "--workers", "1", "--store", str(tmp_path / "store")]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_command_stores_games_as_they_end(
    tmp_path: Path, slp: bytes, watcher: "subprocess.Popen[str]"
) -> None:
    live = tmp_path / "Slippi" / "live.slp"
    with live.open("wb") as file:  # as the client does: the header last
        file.write(slp[:11] + bytes(4))
        for at in range(15, len(slp), 10_000):
            file.write(slp[at : at + 10_000])
            file.flush()
        written(tmp_path / "Slippi" / "old.slp", make_game(6, n_frames=200).slp, 60)()
        deadline = time.monotonic() + 120
        while not rows(tmp_path / "store") and time.monotonic() < deadline:
            time.sleep(0.5)
        assert rows(tmp_path / "store") == [("old.slp", "stored")]
        file.seek(11)
        file.write(slp[11:15])
    while len(rows(tmp_path / "store")) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert rows(tmp_path / "store") == [("live.slp", "stored"), ("old.slp", "stored")]
    watcher.send_signal(signal.SIGINT)
    out, said = watcher.communicate(timeout=60)
    assert watcher.returncode == 130
    assert out == ""
    assert said.splitlines()[0].startswith("watching ")
    assert said.splitlines()[-2:] == [
        "2 games, 0 known, 0 refused",
        "error: interrupted; the same command goes on from here",
    ]


def test_a_watched_folder_that_goes_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "Slippi"
    folder.mkdir()
    with watch([folder], rescue_after_s=1) as found:
        threading.Timer(1.0, folder.rmdir).start()
        item = next(found)
    assert (item.path, item.rule) == (folder, "bad_folder")
    assert item.detail == "it is not there any more"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--watch", "--json"], "leave out one"),
        (["--watch", "--reparse"], "leave out one"),
        (["--rescue-after", "3"], "add --watch"),
    ],
)
def test_flags_without_effect_are_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main(["ingest", str(tmp_path), "--store", str(store), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not store.exists()
