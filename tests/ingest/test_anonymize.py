"""Stores made with a key: no name of a replay is anywhere in them, and all else is as without."""

import re
from pathlib import Path

import pytest

from ingest import anonymize
from ingest.anonymize import check, read_key
from schemas.errors import UsageError
from store.layout import PLAIN, names_kept, open_layout

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


# --- pseudonyms -----------------------------------------------------------------------------------


def test_a_pseudonym_is_of_key_kind_and_text() -> None:
    assert anonymize.code("FOX#123", KEY) == anonymize.code("ＦＯＸ＃１２３", KEY)
    assert (
        anonymize.name("Fox", KEY) == anonymize.name("Ｆｏｘ　", KEY) != anonymize.name("fox", KEY)
    )
    assert anonymize.code("FOX#123", KEY) != anonymize.code("FOX#123", OTHER)
    assert anonymize.name("FOX#123", KEY) != anonymize.uid("FOX#123", KEY)[:12]


def test_pseudonyms_fit_their_fields_and_are_no_real_codes() -> None:
    codes = {anonymize.code(f"A#{n}", KEY) for n in range(2_000)}
    assert len(codes) == 2_000
    assert all(re.fullmatch("[A-Z0-9]{7}#[0-9]", code) for code in codes)
    assert all(re.fullmatch("[0-9a-z]{12}", anonymize.name(f"{n}", KEY)) for n in range(50))
    assert re.fullmatch("[0-9a-z]{28}", anonymize.uid("a", KEY))


def test_what_names_nobody_stays() -> None:
    for text in ("", " ", "　"):
        for pseudonym in (anonymize.code, anonymize.name, anonymize.uid):
            assert pseudonym(text, KEY) == text
    assert anonymize.name("Diamond Player", KEY) == "Diamond Player"
    assert anonymize.name("Diamond Players", KEY) != "Diamond Players"


def test_a_path_keeps_its_form_endings_and_ranks() -> None:
    path = anonymize.place("/users/jane/Jane v. Fox.slp.gz", KEY)
    assert re.fullmatch("(/[0-9a-z]{16}){3}[.]slp[.]gz", path)
    assert path.startswith(anonymize.place("/users/jane", KEY))
    ranked = anonymize.place("dump.7z/diamond-master-0123abc.slp", KEY)
    assert re.fullmatch(r"[0-9a-z]{16}\.7z/diamond-master-[0-9a-z]{16}\.slp", ranked)
    assert "jane" not in anonymize.place("a.jane/b.jane.smith", KEY)


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_read_whole_and_others_reading_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    for mode, is_open in ((0o600, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        assert read_key(path) == (KEY + b"\n", is_open)


@pytest.mark.parametrize("content", [b"", b"15 bytes of key", bytes(5_000)])
def test_what_is_no_key_is_refused_with_a_way_to_make_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    for path in (tmp_path / "key", tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="/dev/urandom"):
            read_key(path)


def test_the_first_ingest_decides_for_a_store(tmp_path: Path) -> None:
    plain, keyed = (open_layout(tmp_path / name, create=True) for name in ("plain", "keyed"))
    check(plain, None)
    check(keyed, KEY)
    assert (names_kept(plain), names_kept(keyed)) == (PLAIN, anonymize.mark_of(KEY))
    for layout, key, message in (
        (plain, KEY, "holds names as they are"),
        (keyed, OTHER, "another key"),
        (keyed, None, "holds keyed hashes"),
    ):
        with pytest.raises(UsageError, match=message):
            check(layout, key)
    check(plain, None)
    check(keyed, KEY)
    assert KEY.hex() not in keyed.marker.read_text("utf-8")
