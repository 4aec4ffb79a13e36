"""A store folder is found, made once, refused where it is another's, and its files come whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import StoreError, UsageError
from store.layout import FORMAT, open_layout, sweep_parts, write_atomic
from store.parquet import read_game


def test_made_once_then_opened(tmp_path: Path) -> None:
    made = open_layout(tmp_path / "deep" / "store", create=True)
    assert open_layout(tmp_path / "deep" / "store") == made
    assert open_layout(tmp_path / "deep" / "store", create=True) == made
    assert json.loads(made.marker.read_text()) == {"format": FORMAT, "min_reader": FORMAT}
    assert len(read_game(made.anchor)) == 0


def test_game_files_stand_by_their_first_digits(tmp_path: Path) -> None:
    layout = open_layout(tmp_path, create=True)
    path = layout.game_path("ab" + 30 * "0", 3)
    assert path.relative_to(tmp_path) == Path("games/ab") / f"ab{30 * '0'}.3.parquet"


def test_no_store_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store"):
        open_layout(tmp_path / "nowhere")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        open_layout(tmp_path, create=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_half_made_store_is_finished(tmp_path: Path) -> None:
    (tmp_path / "games").mkdir()
    (tmp_path / ".anchor.1.parquet.ab.part").write_bytes(b"")
    assert open_layout(tmp_path, create=True).marker.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"min_reader": "x"}', '{"min_reader": 99}'])
def test_another_format_is_refused(text: str, tmp_path: Path) -> None:
    open_layout(tmp_path, create=True).marker.write_text(text)
    with pytest.raises(StoreError):
        open_layout(tmp_path)


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, bytes(4_000_000))
    code = (
        "import sys; from pathlib import Path; from store.layout import write_atomic\n"
        "while True: write_atomic(Path(sys.argv[1]), bytes(4_000_000))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    stop = time.monotonic() + 30
    while not list(tmp_path.glob(".*.part")) and time.monotonic() < stop:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert path.stat().st_size == 4_000_000


def test_only_what_dead_writers_left_is_swept(tmp_path: Path) -> None:
    """A writer goes on, file after file, while its half-written ones are looked at all the time."""
    layout = open_layout(tmp_path, create=True)
    left = layout.game_path("ab" + 30 * "0").with_name(".left.parquet.12.part")
    left.parent.mkdir()
    left.write_bytes(b"half")
    code = (
        "import sys; from pathlib import Path; from store.layout import write_atomic\n"
        "for n in range(300): write_atomic(Path(sys.argv[1], str(n)), bytes(100_000))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(left.parent)])
    swept = 0
    while child.poll() is None:
        swept += sweep_parts(layout)
    assert child.returncode == 0
    assert swept >= 1  # more where a file was seen before its writer had locked it: made again
    assert {path.name for path in left.parent.iterdir()} == {str(n) for n in range(300)}
