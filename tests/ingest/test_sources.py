"""Every way in which replays come gives the same bytes; what is passed over is counted."""

import gzip
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
import zstandard

from ingest.sources import Item, archives, item, items, read_file, reading
from meleewm.cli import main
from schemas.errors import UsageError
from tests.ingest.archives import MAKERS, archive_bytes, make_seven_zip, make_zip

REPLAYS = {f"set {n}/Game #{n}.slp": os.urandom(10_000 + n) for n in range(5)}
OTHERS = {"readme.txt": b"x", "set 1/picture.PNG": b"y", "Makefile": b"z", "b.txt": b""}
PLAIN = REPLAYS | OTHERS


def replays_of(found: list[Item]) -> dict[str | None, bytes | None]:
    return {item.member: item.data for item in found if item.rule is None}


def rules_of(found: list[Item]) -> dict[str | None, str]:
    return {item.member: item.rule for item in found if item.rule}


@pytest.mark.parametrize("name", MAKERS)
def test_archives_give_their_replays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path, PLAIN)
    source = items([path])
    found = list(source)
    assert {item.member: item.data for item in found} == REPLAYS
    assert {item.source for item in found} == {str(path)}
    assert not any(item.rule for item in found)
    assert source.passed_over == {".txt": 2, ".png": 1, "without an ending": 1}


@pytest.mark.parametrize("readers", [1, 5])
def test_several_archives_blocks_and_shares_at_once(
    readers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_SPLIT_BYTES", 10_000)
    monkeypatch.setattr(archives, "_BLOCKS_BYTES", 10_000)
    half = {name: data for n, (name, data) in enumerate(PLAIN.items()) if n % 2}
    make_seven_zip(tmp_path / "many.7z", half)
    make_seven_zip(
        tmp_path / "many.7z", {n: d for n, d in PLAIN.items() if n not in half}, mode="a"
    )
    for name, make in MAKERS.items():
        make(tmp_path / name, PLAIN)
    source = items([tmp_path], readers=readers)
    found = list(source)
    assert len(found) == len(REPLAYS) * (len(MAKERS) + 1)
    for path in tmp_path.iterdir():
        assert {i.member: i.data for i in found if i.path == path} == REPLAYS
    assert source.passed_over[".txt"] == 2 * (len(MAKERS) + 1)


@pytest.mark.parametrize("outer", MAKERS)
def test_an_archive_inside_an_archive_is_read(outer: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    deep = archive_bytes("a.zip", REPLAYS, scratch)
    inner = {f"in/{name}": archive_bytes(name, PLAIN | {"deep.7z": deep}, scratch)
             for name in MAKERS}  # fmt: skip
    others = {"no.7z": b"no 7z, but named so", "no.TAR.gz": b"", "old.rar": b"Rar!"}
    path = tmp_path / outer
    MAKERS[outer](path, {"first.slp": b"1"} | inner | others | {"last.slp": b"2"})
    found = list(items([path]))
    expected: dict[str | None, bytes | None] = {"first.slp": b"1", "last.slp": b"2"}
    expected |= {f"{name}/{member}": REPLAYS[member] for name in inner for member in REPLAYS}
    assert replays_of(found) == expected
    rules: dict[str | None, str] = dict.fromkeys(others, "bad_archive")
    rules |= {f"{name}/deep.7z": "nested_archive" for name in inner}
    assert rules_of(found) == rules
    assert len(found) == len(expected) + len(rules)


def test_inner_archives_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = archive_bytes("a.7z", REPLAYS, tmp_path)
    make_zip(tmp_path / "a.zip", {"a.7z": inner})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    source = items([tmp_path / "a.zip"])
    assert next(source).data is not None
    assert list(scratch.iterdir()) == []  # it has no name even now, so not after a SIGKILL either
    source.close()
    monkeypatch.setattr(archives, "NESTED_BYTES_MAX", len(inner) - 1)
    (left,) = items([tmp_path / "a.zip"])
    assert (left.rule, left.member) == ("nested_archive", "a.7z")
    assert left.detail == f"{len(inner)} bytes: unpack the outer one"


def test_seven_zips_inside_seven_zips_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (archives, reading):  # room for one dictionary of 1 MB, not for two
        monkeypatch.setattr(module, "DICTIONARY_BYTES_MAX", 3 * 2**19)
    inner = archive_bytes("a.7z", REPLAYS, tmp_path)
    paths = [tmp_path / f"{n}.7z" for n in range(3)]
    for path in paths:
        make_seven_zip(path, {"a.7z": inner, "last.slp": b"2"})
    found: list[Item] = []
    source = items(paths, readers=3)
    taker = threading.Thread(target=lambda: found.extend(source))
    taker.start()
    taker.join(20)
    source.close()
    assert len(replays_of(found)) == len(REPLAYS) + 1
    assert len(found) == 3 * (len(REPLAYS) + 1)


def test_folders_in_archives_are_no_replays_and_no_archives(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"x.slp/": b"", "y.zip/": b""})
    assert list(items([tmp_path])) == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_reader_that_stops_early_leaves_nothing_running(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROOM_BYTES", 25_000)  # they wait for room
    MAKERS[name](tmp_path / name, REPLAYS)
    before = set(threading.enumerate())
    some = items([tmp_path] * 4)
    next(some)
    del some
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_closing_lets_those_go_who_wait(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"a.slp": b"x"})
    source = items([tmp_path])
    got: list[int] = []
    takers = [threading.Thread(target=lambda: got.append(len(list(source)))) for _ in range(3)]
    for taker in takers:
        taker.start()
    source.close()
    for taker in takers:
        taker.join(10)
        assert not taker.is_alive()
    assert next(source, None) is None
    assert sum(got) <= 1


def test_folders_all_the_way_down_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/z.slp", "b/a/x.SLP", "a.slp", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    make_zip(tmp_path / "c.zip", PLAIN)
    found = list(items([tmp_path]))
    plain = [item.path.relative_to(tmp_path).as_posix() for item in found if item.data is None]
    assert plain == ["a.slp", "b/z.slp", "b/a/x.SLP"]
    assert {item.member for item in found if item.data is not None} == set(REPLAYS)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "deep" / "a.slp").write_bytes(b"x")
    (outside / "b.slp").write_bytes(b"x")
    (inside / "c.slp").symlink_to(outside / "b.slp")
    (inside / "one").symlink_to(outside)
    (inside / "two").symlink_to(outside)
    (outside / "up").symlink_to(inside)
    (inside / "self").symlink_to("self")
    source = items([inside])
    found = {str(item.path.relative_to(inside)): item for item in source}
    assert {name for name, item in found.items() if item.rule is None} == {
        "c.slp", "deep/a.slp", "one/b.slp"
    }  # fmt: skip
    left = {name: (item.rule, item.detail) for name, item in found.items() if item.rule}
    assert left == {
        "one/up": ("bad_folder", "a link back to a folder above it"),
        "two": ("bad_folder", "a link to a folder that another link has led to"),
    }
    assert source.passed_over == {"without an ending": 1}  # `self` leads nowhere


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.slp").write_bytes(b"x")
    found = {item.path.name: item.rule for item in items([tmp_path])}
    (tmp_path / "closed").chmod(0o700)
    assert found == {"a.slp": None, "closed": "bad_folder"}


def test_a_file_that_the_system_will_not_look_at_costs_itself(tmp_path: Path) -> None:
    for name in ("a.zip", "b.slp"):
        (tmp_path / name).symlink_to("x" * 300)  # longer than any name may be
    (tmp_path / "c.slp").write_bytes(b"x")
    rules = {item.path.name: item.rule for item in items([tmp_path])}
    assert rules == {"a.zip": "bad_archive", "b.slp": None, "c.slp": None}
    assert main(["ingest", str(tmp_path), "--store", str(tmp_path / "store"), "--quiet"]) == 0


def test_a_replay_packed_by_zstd_that_is_cut_is_not_taken_for_whole(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    packed = zstandard.compress(data)
    (tmp_path / "a.slp.zst").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.slp.zst").write_bytes(packed + zstandard.compress(b"more"))
    found = {item.path.name: item for item in items([tmp_path])}
    assert found["b.slp.zst"].data == data + b"more"
    cut = found["a.slp.zst"]
    assert (cut.rule, cut.detail) == ("bad_file", "EOFError: the packed replay ends early")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.slp", "b.slpz", "c.zip", "d.7z"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="not a file"):
        read_file(tmp_path / "a.slp")
    rules = {item.path.name: item.rule for item in items([tmp_path])}
    assert rules == {"a.slp": None, "b.slpz": "bad_file", "c.zip": "bad_archive",
                     "d.7z": "bad_archive"}  # fmt: skip


def test_gzipped_replays(tmp_path: Path) -> None:
    two = gzip.compress(b"game ") + gzip.compress(b"on")  # the last one's size is all it says
    (tmp_path / "a.slp.gz").write_bytes(two)
    (tmp_path / "b.slp.gz").write_bytes(b"no gzip")
    make_zip(tmp_path / "c.zip", {"d.slp.gz": gzip.compress(b"other"), "e.slp.gz": two[:-9]})
    found = {(i.path.name, i.member): (i.data, i.rule) for i in items([tmp_path])}
    assert found == {
        ("a.slp.gz", None): (b"game on", None),
        ("b.slp.gz", None): (None, "bad_file"),
        ("c.zip", "d.slp.gz"): (b"other", None),
        ("c.zip", "e.slp.gz"): (None, "bad_member"),
    }


def test_too_large_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item, "REPLAY_BYTES_MAX", 10_002)
    for name, make in MAKERS.items():
        make(tmp_path / name, REPLAYS)
        found = list(items([tmp_path / name]))
        assert [item.rule for item in found] == [None, None, None, "too_large", "too_large"], name
    (tmp_path / "a.slp.gz").write_bytes(gzip.compress(bytes(10_003)))
    (found_gz,) = items([tmp_path / "a.slp.gz"])
    assert found_gz.rule == "too_large"


def test_any_named_file_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    assert list(items([tmp_path / "picture.png"])) == [Item(tmp_path / "picture.png")]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        items([tmp_path / "nowhere"])
