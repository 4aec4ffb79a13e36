"""Every way in which replays come gives the same bytes; what cannot be read is named."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest
import zstandard

from ingest.sources import Item, item, items
from schemas.errors import UsageError

REPLAYS = {f"set {n}/Game #{n}.slp": os.urandom(10_000 + n) for n in range(5)}
OTHERS = {"readme.txt": b"x", "set 1/picture.png": b"y"}
NESTED = {"set 1/more.7z": b"no 7z, but named so", "all.TAR.gz": b"", "old.rar": b"Rar!"}
Files = dict[str, bytes]
PLAIN: Files = REPLAYS | OTHERS


def make_zip(path: Path, members: Files = PLAIN) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def make_seven_zip(path: Path, members: Files = PLAIN) -> None:
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writef(io.BytesIO(data), name)


def tar_bytes(members: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_tar(path: Path, members: Files = PLAIN) -> None:
    path.write_bytes(tar_bytes(members))


def make_tar_gz(path: Path, members: Files = PLAIN) -> None:
    path.write_bytes(gzip.compress(tar_bytes(members)))


def make_tar_zst(path: Path, members: Files = PLAIN) -> None:
    path.write_bytes(zstandard.compress(tar_bytes(members)))


def make_tar_xz(path: Path, members: Files = PLAIN) -> None:
    with (
        tarfile.open(path, "w:xz") as archive,
        tarfile.open(fileobj=io.BytesIO(tar_bytes(members))) as t,
    ):
        for info in t:
            archive.addfile(info, t.extractfile(info))


MAKERS: dict[str, Callable[..., None]] = {
    "a.zip": make_zip,
    "a.7z": make_seven_zip,
    "a.tar": make_tar,
    "a.tar.gz": make_tar_gz,
    "a.tar.xz": make_tar_xz,
    "a.TAR.ZST": make_tar_zst,
}


@pytest.mark.parametrize("name", MAKERS)
def test_archives_give_their_replays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path)
    found = list(items([path]))
    assert {item.member: item.data for item in found} == REPLAYS
    assert {item.source for item in found} == {str(path)}
    assert not any(item.rule for item in found)


@pytest.mark.parametrize("name", MAKERS)
def test_archives_in_archives_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path, PLAIN | NESTED)
    found = list(items([path]))
    assert {item.member: item.data for item in found if item.rule is None} == REPLAYS
    left = {item.member: item.rule for item in found if item.rule}
    assert left == dict.fromkeys(NESTED, "nested_archive")
    assert len(found) == len(REPLAYS) + len(NESTED)


def test_an_archive_that_no_reader_knows_is_named(tmp_path: Path) -> None:
    (tmp_path / "season.rar").write_bytes(b"Rar!")
    (found,) = items([tmp_path])
    assert (found.rule, found.member) == ("bad_archive", None)
    assert found.detail == "this kind of archive is not read; unpack it"


def test_folders_in_archives_are_no_replays_and_no_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("x.slp")
        archive.mkdir("y.zip")
    assert list(items([tmp_path])) == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_cut_archive_costs_its_rest(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = list(items([path]))
    assert found[-1].rule in {"bad_archive", "bad_member"}
    assert found[-1].detail
    good = [item for item in found if item.rule is None]
    assert all(REPLAYS[str(item.member)] == item.data for item in good)


@pytest.mark.parametrize("name", MAKERS)
def test_a_reader_that_stops_early_leaves_nothing_running(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path)
    some = items([path])
    next(some)
    del some


def test_a_flipped_bit_in_a_seven_zip_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.7z"
    make_seven_zip(path)
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    found = list(items([path]))
    assert found[-1].rule == "bad_archive"
    assert all(REPLAYS[str(item.member)] == item.data for item in found[:-1])


def test_folders_all_the_way_down_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/z.slp", "b/a/x.SLP", "a.slp", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    make_zip(tmp_path / "c.zip")
    found = list(items([tmp_path]))
    plain = [item.path.relative_to(tmp_path).as_posix() for item in found if item.data is None]
    assert plain == ["a.slp", "b/z.slp", "b/a/x.SLP"]
    assert [item.member for item in found if item.data is not None] == list(REPLAYS)


def test_gzipped_replays(tmp_path: Path) -> None:
    (tmp_path / "a.slp.gz").write_bytes(gzip.compress(b"game"))
    (tmp_path / "b.slp.gz").write_bytes(b"no gzip")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("d.slp.gz", gzip.compress(b"other"))
    first, second, third = items([tmp_path])
    assert (first.data, second.rule, third.data) == (b"game", "bad_file", b"other")


def test_too_large_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item, "REPLAY_BYTES_MAX", 10_002)
    for name, make in MAKERS.items():
        make(tmp_path / name)
        found = list(items([tmp_path / name]))
        assert [item.rule for item in found] == [None, None, None, "too_large", "too_large"], name


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../outside.slp", b"x")
        archive.writestr("/etc/passwd.slp", b"y")
    info = tarfile.TarInfo("link.slp")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo(os.fsdecode(b"bad\xff.slp")))
    found = list(items([tmp_path]))
    assert [(i.member, i.rule) for i in found] == [
        ("../../outside.slp", None),
        ("/etc/passwd.slp", None),
        ("link.slp", "bad_member"),
        ("bad�.slp", None),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.tar"]


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # the flag in the central directory, which zipfile trusts
    (tmp_path / "a.zip").write_bytes(data)
    found = list(items([tmp_path]))
    assert found[0].rule == "bad_member"
    assert [item.rule for item in found[1:]] == [None] * 4


def test_any_named_file_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    assert list(items([tmp_path / "picture.png"])) == [Item(tmp_path / "picture.png")]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        items([tmp_path / "nowhere"])
