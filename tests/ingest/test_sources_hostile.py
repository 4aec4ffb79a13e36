"""Damaged and hostile archives cost a named item for what is lost, and nothing else."""

import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import py7zr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.rules import RULES
from ingest.sources import Item, items, place, seven_zip
from tests.ingest.archives import (
    MAKERS,
    Files,
    archive_bytes,
    make_seven_zip,
    make_zip,
    tar_bytes,
)
from tests.ingest.test_sources import REPLAYS, replays_of, rules_of

NAMES = list(REPLAYS)


def central(data: bytes, n: int) -> int:
    """Where the n-th entry of a .zip's list begins."""
    at = data.index(b"PK\x01\x02")
    for _ in range(n):
        at = data.index(b"PK\x01\x02", at + 4)
    return at


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flipped(data: bytes, at: int) -> bytes:
    return patched(data, at, bytes([data[at] ^ 0xFF]))


def read(path: Path, data: bytes) -> list[Item]:
    path.write_bytes(data)
    return list(items([path]))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_cut_archive_costs_its_rest(name: str, share: float, tmp_path: Path) -> None:
    data = archive_bytes(name, REPLAYS, tmp_path)
    found = read(tmp_path / name, data[: int(len(data) * share)])
    assert found[-1].rule in {"bad_archive", "bad_member"}
    assert found[-1].detail
    good = replays_of(found)
    assert all(REPLAYS[str(member)] == data for member, data in good.items())
    if name == "a.zip":
        assert len(good) == int(5 * share)


def test_a_tar_that_ends_between_two_members_is_cut_off(tmp_path: Path) -> None:
    data = tar_bytes(REPLAYS)
    found = read(tmp_path / "a.tar", data[: data.index(NAMES[3].encode())])
    assert list(replays_of(found)) == NAMES[:3]
    assert found[-1].detail == "TarError: cut off after 3 members: no mark of its end"


def test_a_tar_with_a_damaged_header_is_read_up_to_it(tmp_path: Path) -> None:
    data = tar_bytes(REPLAYS)
    found = read(tmp_path / "a.tar", flipped(data, data.index(NAMES[2].encode())))
    assert list(replays_of(found)) == NAMES[:2]
    assert found[-1].detail == "TarError: damaged after 2 members: the rest is not read"


def test_a_tar_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**34
    head = info.tobuf(tarfile.GNU_FORMAT)
    found = read(tmp_path / "a.tar", tar_bytes({"a.slp": b"x"})[:1024] + head + bytes(10_000))
    assert list(replays_of(found)) == ["a.slp"]
    assert found[-1].detail == f"TarError: a header of {2**34} bytes"


def test_a_damaged_member_of_a_zip_costs_itself(tmp_path: Path) -> None:
    data = archive_bytes("a.zip", REPLAYS, tmp_path)
    found = read(tmp_path / "a.zip", flipped(data, 15_000))
    assert rules_of(found) == {NAMES[1]: "bad_member"}
    assert replays_of(found) == {n: d for n, d in REPLAYS.items() if n != NAMES[1]}


def test_what_members_of_a_zip_say_of_themselves_need_not_be_true(tmp_path: Path) -> None:
    data = archive_bytes("a.zip", REPLAYS, tmp_path)
    data = patched(data, central(data, 0) + 24, struct.pack("<I", 5))  # unpacked size
    data = patched(data, central(data, 1) + 24, struct.pack("<I", 2**32 - 2))
    data = patched(data, central(data, 2) + 8, b"\x01")  # encrypted
    data = patched(data, central(data, 3) + 42, struct.pack("<I", 2**31))  # where it is
    found = read(tmp_path / "a.zip", data)
    assert rules_of(found) == dict(
        zip(NAMES, ["bad_member", "too_large", "bad_member", "bad_member"], strict=False)
    )
    assert replays_of(found) == {NAMES[4]: REPLAYS[NAMES[4]]}
    assert {i.member: i.detail for i in found}[NAMES[2]] == "ZipError: encrypted"


def test_a_zip_with_a_damaged_list_is_read_up_to_there(tmp_path: Path) -> None:
    data = archive_bytes("a.zip", REPLAYS, tmp_path)
    found = read(tmp_path / "a.zip", flipped(data, central(data, 3)))
    assert list(replays_of(found)) == NAMES[:3]
    assert rules_of(found) == {None: "bad_archive"}


def test_bytes_before_a_zip_and_after_it_do_no_harm(tmp_path: Path) -> None:
    data = archive_bytes("a.zip", REPLAYS, tmp_path)
    assert replays_of(read(tmp_path / "a.zip", b"#!/bin/sh\n" + data + b"\0" * 100)) == REPLAYS


def test_a_zip_of_more_than_4_gigabytes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 5_000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in REPLAYS.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert b"PK\x06\x06" in (tmp_path / "a.zip").read_bytes()
    assert replays_of(list(items([tmp_path]))) == REPLAYS


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    names = ["../../outside.slp", "/etc/passwd.slp", "ü.slp", "ö.slp", "x" * 60_000 + ".slp"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "game")
    data = (tmp_path / "a.zip").read_bytes()
    data = data.replace("ü.slp".encode(), b"\xfc\xff.slp")  # still said to be UTF-8
    data = data.replace(b"../../outside", b"..\0..\x1boutside")
    found = read(tmp_path / "a.zip", data)
    names = [str(i.member) for i in found]
    assert names[:4] == ["..�..�outside.slp", "/etc/passwd.slp", "��.slp", "ö.slp"]
    assert len(names[4]) == 1000
    assert names[4].endswith("xx.slp")
    assert not any(i.rule for i in found)


def test_hostile_members_of_a_tar(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "b.tar", "w") as tar:
        for name, kind in (("link.slp", tarfile.SYMTYPE), ("hard.slpz", tarfile.LNKTYPE),
                           ("pipe.zip", tarfile.FIFOTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("../up.slp", os.fsdecode(b"bad\xff.slp"), "twice.slp", "twice.slp"):
            tar.addfile(tarfile.TarInfo(name))
    found = list(items([tmp_path]))
    assert rules_of(found) == dict.fromkeys(("link.slp", "hard.slpz", "pipe.zip"), "bad_member")
    assert [i.member for i in found if not i.rule] == [
        "../up.slp", "bad�.slp", "twice.slp", "twice.slp"
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_link_in_a_zip_is_named(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.slp")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert rules_of(list(items([tmp_path]))) == {"link.slp": "bad_member"}


def test_damage_in_one_block_of_a_seven_zip_costs_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.7z"
    first, second = (dict(list(REPLAYS.items())[a:b]) for a, b in ((0, 3), (3, 5)))
    make_seven_zip(path, {"note.txt": b"x"} | first)
    make_seven_zip(path, second, mode="a")
    whole = path.read_bytes()
    assert replays_of(list(items([path]))) == REPLAYS
    found = read(path, flipped(whole, 15_000))
    good = replays_of(found)
    assert set(good) >= {NAMES[0], NAMES[3], NAMES[4]}
    assert NAMES[1] not in good
    assert rules_of(found)[NAMES[1]] == "bad_member"
    assert all(REPLAYS[str(name)] == data for name, data in good.items())
    found = read(path, patched(whole, 32, b"\xff" * 12_000))
    assert replays_of(found) == second
    (lost,) = (i for i in found if i.rule == "bad_archive")
    assert lost.member == NAMES[0]
    assert str(lost.detail).startswith("3 files from here on, in block 1 of 2: ")


def test_links_and_empty_files_in_a_seven_zip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.slp").write_bytes(b"")
    (tmp_path / "in" / "link.slp").symlink_to("empty.slp")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writeall(tmp_path / "in", "in")
    found = list(items([tmp_path / "a.7z"]))
    assert rules_of(found) == {"in/link.slp": "bad_member"}
    assert replays_of(found) == {"in/empty.slp": b""}


@pytest.mark.parametrize("header", [False, True])
def test_an_encrypted_seven_zip_is_one_item(header: bool, tmp_path: Path) -> None:
    make_seven_zip(tmp_path / "a.7z", REPLAYS, password="x", header_encryption=header)
    (found,) = items([tmp_path])
    assert found.rule == "bad_archive"
    assert "Password" in str(found.detail)
    assert found.member == (None if header else NAMES[0])


def test_a_dictionary_that_would_take_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_seven_zip(tmp_path / "a.7z", REPLAYS)
    monkeypatch.setattr(seven_zip, "DICTIONARY_BYTES_MAX", 2**20 - 1)
    (found,) = items([tmp_path])
    assert "a dictionary of 1 MB" in str(found.detail)


BOMB = {f"{n}.slp": bytes(2_000_000) for n in range(5)} | {"skipped.bin": bytes(2_000_000)}


@pytest.mark.parametrize("name", MAKERS)
def test_bombs_are_left(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "BOMB_BYTES", 7_000_000)
    MAKERS[name](tmp_path / name, BOMB)
    found = list(items([tmp_path]))
    left = rules_of(found)
    if name == "a.tar":  # not packed, so no bomb
        assert left == {}
        return
    assert found[-1].rule == "bad_archive"
    assert "250 times" in str(found[-1].detail)
    assert len(replays_of(found)) <= 3


def test_archives_that_announce_millions_of_members(tmp_path: Path) -> None:
    def number(n: int) -> bytes:
        return b"\xf0" + struct.pack("<I", n)

    body = b"\x01\x05" + number(8_000_000) + b"\x00" * 9_000_000 + b"\x00"
    start = struct.pack("<QQI", 0, len(body), zlib.crc32(body))
    data = b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + body
    (found,) = read(tmp_path / "a.7z", data)
    assert "exceeds limit" in str(found.detail)


SMALL: Files = {"a.slp": b"game one" * 9, "b.txt": b"x", "c.zip": b"PK", "d.slp.gz": b"\x1f\x8b"}


@pytest.mark.parametrize("name", MAKERS)
def test_no_bytes_do_more_than_be_refused(name: str, tmp_path: Path) -> None:
    data = archive_bytes(name, SMALL, tmp_path)
    path = tmp_path / name

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=30), st.booleans())
    def mutate(at: int, noise: bytes, cut: bool) -> None:
        whole = patched(data, at, noise) if not cut else data[:at] + noise
        for found in read(path, whole):
            assert found.rule is None or found.rule in RULES

    mutate()


def test_a_zip_of_nothing_and_what_is_none(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {})
    assert list(items([tmp_path])) == []
    for data in (b"", b"PK", b"x" * 100_000):
        assert [i.rule for i in read(tmp_path / "a.zip", data)] == ["bad_archive"]
