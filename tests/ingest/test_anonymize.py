"""Stores made with a key: no name of a replay is anywhere in them, and all else is as without."""

import base64
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest import anonymize, slp
from ingest.anonymize import anonymous, check, read_key
from ingest.facts import GameFile, game_rows
from ingest.replay import parse
from ingest.rules import Refusal
from ingest.worker import Options
from ingest.workers import ingest, reparse
from schemas.errors import UsageError
from schemas.game import REVISION
from schemas.shard import Request
from store.catalog import Catalog
from store.layout import PLAIN, names_kept, open_layout
from store.select import select
from store.upkeep import stats
from tests.ingest.people import (
    FIELDS,
    FOLDER,
    JANE,
    JOHN,
    RANKED,
    SECRETS,
    contents,
    found_in,
    replay_of,
)
from tests.kills import game_files, tables
from tests.meleewm.conftest import run

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


REPLAYS = {
    "jane and john.slp": replay_of(1, JANE, JOHN),
    "john and jane.slp": replay_of(2, JOHN, JANE),
    "diamond-master-0123abc.slp": replay_of(3, RANKED, JANE),
    "old Zyxomma.slp": replay_of(4, JANE, JOHN, version=(3, 5)),
    "cut Zyxomma.slp": replay_of(5, JANE, JOHN)[:9_000],
    "bad text.slp": replay_of(6, JANE, JOHN).replace(b"quetzalcoatl", b"quetza\xff\xfeoatl"),
    "Zyxomma says.slp": b"Zyxomma Quill was here",
}
N_STORED = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replays in a folder with a name; the last two stand in a zip, one of them damaged."""
    out = tmp_path_factory.mktemp("replays") / FOLDER
    out.mkdir()
    for name, data in REPLAYS.items():
        (out / name).write_bytes(data)
    with zipfile.ZipFile(out / "of Ferdinand.zip", "w") as archive:
        archive.writestr("Gwendolyn/1 jane and john.slp", REPLAYS["jane and john.slp"])
        archive.writestr("Gwendolyn/2.slp", b"damaged by Ferdinand")
    archived = (out / "of Ferdinand.zip").read_bytes()
    damaged = archived.replace(b"damaged", b"demaged", 1)
    (out / "of Ferdinand.zip").write_bytes(damaged)
    (out / "Ferdinand.zip").write_bytes(b"PK")
    return out


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("plain") / "store"
    ingest([folder], store, workers=2)
    return store


@pytest.fixture(scope="module")
def keyed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store made by the command with a key, and all that the command said."""
    place = tmp_path_factory.mktemp("keyed")
    (place / "key").write_bytes(KEY)
    (place / "key").chmod(0o600)
    words = folder, "--store", place / "store", "--anonymize", place / "key", "--workers", 2
    done = run("ingest", *words, "--debug")
    assert done.returncode == 0, done.stderr
    assert f"{N_STORED - 3} stored, 3 repaired" in done.stdout
    return place / "store", done.stdout + done.stderr


# --- what is in a store ---------------------------------------------------------------------------


def test_no_name_is_left_in_a_store(plain: Path, keyed: tuple[Path, str]) -> None:
    assert found_in(list(contents(plain)), SECRETS) == set(SECRETS)  # else this proves nothing
    store, said = keyed
    haystack = [*contents(store), said.encode()]
    assert len(game_files(store)) == N_STORED
    assert found_in(haystack, SECRETS) == set()
    assert found_in(haystack, [KEY.hex()]) == set()
    assert not any(KEY in data or base64.b64encode(KEY) in data for data in haystack)
    assert not any(str(store).encode() in data for data in contents(store))


NAMES = {"code", "tag", "name", "opp_code", "opp_tag", "opp_name"}
OF_BYTES = {"parquet_bytes", "parquet_sha256", "parquet_crc32"}
OF_PLACE = {"source", "member", "detail", "seen_at"}


def test_all_else_is_as_in_a_plain_store(plain: Path, keyed: tuple[Path, str]) -> None:
    without = (*NAMES, *OF_BYTES, *OF_PLACE)
    assert tables(keyed[0], without=without) == tables(plain, without=without)
    request = Request("char <> 'pichu'")
    datasets = {select(open_layout(store), request).dataset_id for store in (plain, keyed[0])}
    assert len(datasets) == 1, "a dataset is named by its games"


def test_somebody_is_the_same_in_every_game_and_can_be_asked_for(keyed: tuple[Path, str]) -> None:
    store, _ = keyed
    with Catalog(open_layout(store), read_only=True) as catalog:
        players = catalog.query("select distinct name, code, tag, rank from lake.players")
        found = select(open_layout(store), Request(f"code='{anonymize.code(JANE.code, KEY)}'"),
                       catalog=catalog)  # fmt: skip
    expected = {
        (anonymize.name(p.name, KEY), anonymize.code(p.code, KEY), anonymize.name(p.tag, KEY), None)
        for p in (JANE, JOHN)
    } | {("Diamond Player", None, None, "diamond")}
    assert {tuple(row.values()) for row in players.to_pylist()} == expected
    assert len(found.members) == N_STORED


@pytest.mark.slow
def test_one_key_gives_the_same_bytes_and_another_key_others(
    folder: Path, keyed: tuple[Path, str], tmp_path: Path
) -> None:
    store, _ = keyed
    ingest([folder], tmp_path / "same", workers=1, options=Options(key=KEY))
    assert game_files(tmp_path / "same") == game_files(store)
    assert tables(tmp_path / "same") == tables(store)
    ingest(
        [folder / "jane and john.slp"], tmp_path / "other", workers=1, options=Options(key=OTHER)
    )
    of_game = set(game_files(tmp_path / "other"))
    assert of_game < set(game_files(store)), "game ids are of the replay's bytes"
    assert not set(tables(tmp_path / "other")["players"]) & set(tables(store)["players"])
    again = ingest([folder], store, workers=1, options=Options(key=KEY))
    assert (again.stored, again.repaired, again.known) == (0, 0, N_STORED + 2)


def test_stats_say_what_a_store_holds_of_names(plain: Path, keyed: tuple[Path, str]) -> None:
    for store, names in ((plain, "plain"), (keyed[0], f"keyed hashes ({anonymize.mark_of(KEY)})")):
        assert stats(open_layout(store))["names"] == names


@pytest.mark.slow
def test_a_replay_parsed_anew_gets_no_names_either(folder: Path, tmp_path: Path) -> None:
    store, path = tmp_path / "store", folder / "jane and john.slp"
    ingest([path], store, workers=1, options=Options(key=KEY))
    later = Options(key=KEY, revision=REVISION + 1)
    assert reparse(store, paths=[path], workers=1, options=later).stored == 1
    assert len(game_files(store)) == 2
    assert found_in(list(contents(store)), SECRETS) == set()
    with pytest.raises(UsageError, match="--anonymize"):
        reparse(store, paths=[path], workers=1)


def test_the_ledger_names_places_by_pseudonyms(folder: Path, keyed: tuple[Path, str]) -> None:
    with Catalog(open_layout(keyed[0]), read_only=True) as catalog:
        ledger = catalog.query("from lake.replays").to_pylist()
    rows = {(row["source"], row["member"]): row for row in ledger}
    archive = anonymize.place(str(folder / "of Ferdinand.zip"), KEY)
    assert archive.endswith(".zip")
    members = {member: row["rule"] for (source, member), row in rows.items() if source == archive}
    first = anonymize.place("Gwendolyn/1 jane and john.slp", KEY)
    assert members == {first: None, anonymize.place("Gwendolyn/2.slp", KEY): "bad_member"}
    ranked = [source for source, _ in rows if "/diamond-master-" in source]
    assert len(ranked) == 1
    assert {row["detail"] for row in ledger if row["rule"] == "bad_member"} == {"BadZipFile"}


def test_what_an_error_quotes_is_left_out() -> None:
    row = {"source": "a", "member": None, "rule": "crashed", "detail": "SIGABRT: 'Jane': no"}
    assert anonymize.ledger_row(row, KEY)["detail"] == "SIGABRT"
    assert anonymize.ledger_row(row | {"rule": "not_a_replay"}, KEY)["detail"] is None
    assert anonymize.ledger_row(row | {"detail": None}, KEY)["detail"] is None


def test_the_start_block_says_what_was_read_of_it() -> None:
    footer = anonymous(parse(replay_of(1, JANE, RANKED)).footer, KEY)
    block = base64.b64decode(footer["start_bytes"])
    assert len(block) == slp.payload_sizes((3, 19))[slp.GAME_START]
    for port, player in enumerate(footer["start"]["players"]):
        told = {"name_tag": player["name_tag"]}
        told |= {f"netplay_{field}": text for field, text in player["netplay"].items()}
        for name, text in told.items():
            at = FIELDS[name].offset - 1 + FIELDS[name].stride * port
            size = int(FIELDS[name].format.removesuffix("s"))
            assert block[at : at + size] == text.encode().ljust(size, b"\0"), (port, name)


def test_metadata_keeps_what_slippi_writes_and_no_other_text() -> None:
    footer = parse(replay_of(1, JANE, JOHN)).footer
    strange = {"startAt": "at Jane's", "playedOn": "dolphin", "a": ["Jane", 1, None, {"b": "Jane"}]}
    metadata = anonymous(footer | {"metadata": strange}, KEY)["metadata"]
    jane = anonymize.name("Jane", KEY)
    a, b = anonymize.name("a", KEY), anonymize.name("b", KEY)
    expected = [jane, 1, None, {b: jane}]
    assert metadata == {
        "startAt": anonymize.name("at Jane's", KEY), "playedOn": "dolphin", a: expected
    }  # fmt: skip
    empty: tuple[Any, ...] = (None, {})
    for nothing in empty:
        assert anonymous(footer | {"metadata": nothing}, KEY)["metadata"] == nothing


def test_what_a_newer_slippi_says_at_the_start_is_not_kept() -> None:
    footer = parse(replay_of(1, JANE, JOHN)).footer
    longer = base64.b64decode(footer["start_bytes"]) + JANE.name.encode()
    block = anonymous(footer | {"start_bytes": base64.b64encode(longer)}, KEY)["start_bytes"]
    assert base64.b64decode(block)[-len(JANE.name) :] == bytes(len(JANE.name))
    assert len(base64.b64decode(block)) == len(longer)


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


def test_who_has_the_key_can_ask_for_a_pseudonym(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    done = run("pseudonym", tmp_path / "key", "ＦＯＸ＃１２３", "Fox")
    expected = [anonymize.code("FOX#123", KEY), anonymize.name("Fox", KEY)]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


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
        (plain, KEY, "keeps names as they are"),
        (keyed, OTHER, "another key"),
        (keyed, None, "holds keyed hashes"),
    ):
        with pytest.raises(UsageError, match=message):
            check(layout, key)
    check(plain, None)
    check(keyed, KEY)
    keyed.marker.write_text('{"format": 1, "min_reader": 1}')
    check(keyed, OTHER)  # still empty: nothing has been decided by what it holds


def test_a_store_that_lost_its_mark_is_known_by_its_games(
    plain: Path, keyed: tuple[Path, str], tmp_path: Path
) -> None:
    for store, key, wrong in ((plain, None, KEY), (keyed[0], KEY, None)):
        layout = open_layout(tmp_path / store.parent.name, create=True)
        game = next(store.glob("games/*/*.parquet"))
        (layout.games / game.parent.name).mkdir()
        (layout.games / game.parent.name / game.name).write_bytes(game.read_bytes())
        assert names_kept(layout) == names_kept(open_layout(store))
        with pytest.raises(UsageError):
            check(layout, wrong)
        check(layout, key)


def test_of_many_that_start_a_store_at_once_one_decides(tmp_path: Path) -> None:
    for n in range(10):
        begin, ended = threading.Barrier(6), []

        def start(key: bytes | None, store: Path = tmp_path / f"{n}") -> None:
            begin.wait()  # noqa: B023 - joined before the next one is made
            layout = open_layout(store, create=True)
            try:
                check(layout, key)
                ended.append((key, ""))  # noqa: B023
            except UsageError as error:
                ended.append((key, str(error)))  # noqa: B023

        threads = [threading.Thread(target=start, args=(k,)) for k in (None, KEY, OTHER) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ended) == 6
        assert len({key for key, refused in ended if not refused}) == 1
        assert sum(not refused for _, refused in ended) == 2


def test_a_refused_key_stores_nothing(folder: Path, plain: Path, tmp_path: Path) -> None:
    before = game_files(plain), tables(plain, without=())
    (tmp_path / "key").write_bytes(KEY)
    done = run("ingest", folder, "--store", plain, "--anonymize", tmp_path / "key")
    assert (done.returncode, done.stdout) == (2, "")
    assert "chmod 600" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert (game_files(plain), tables(plain, without=())) == before
    inside = tmp_path / "store" / "key"
    inside.parent.mkdir()
    inside.write_bytes(KEY)
    done = run("ingest", folder, "--store", inside.parent, "--anonymize", inside)
    assert done.returncode == 2
    assert "lies inside the store" in done.stderr


# --- real replays ---------------------------------------------------------------------------------


def texts_of(value: Any) -> Iterator[str]:
    """Every text inside nested values; ranks and keys are no names."""
    if isinstance(value, str) and not re.fullmatch("[A-Z][a-z]+ Player", value):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


def names_of(footer: dict[str, Any]) -> set[str]:
    """Every name of a replay; only compared in memory, never shown."""
    metadata = footer["metadata"] or {}
    told = [[p.get("name_tag"), p.get("netplay")] for p in footer["start"]["players"]]
    named = [player.get("names") for player in metadata.get("players", {}).values()]
    # one of few letters is anywhere by chance
    return {n for n in texts_of([told, named, metadata.get("consoleNick")]) if len(n) > 5}


@pytest.mark.slow
@pytest.mark.replays
def test_no_name_of_real_replays_is_left_and_all_facts_are(replays: Path) -> None:
    games = names_seen = 0
    codes: dict[str, set[str]] = {}
    file = GameFile("0" * 32, 0, b"", 0)
    for path in sorted(replays.rglob("*.slp")):
        try:
            game = parse(path)
        except Refusal:
            continue
        games += 1
        footer = anonymous(game.footer, KEY)
        rows, told = (game_rows(game.table, f, file) for f in (footer, game.footer))
        haystack = [base64.b64decode(footer.pop("start_bytes"))]
        haystack += [text.encode() for text in texts_of([footer, rows])]
        names = names_of(game.footer)
        names_seen += len(names)
        leaks = len(found_in(haystack, sorted(names)))
        assert leaks == 0
        assert without_names(rows) == without_names(told)
        for kept, was in zip(rows["players"], told["players"], strict=True):
            for field in ("code", "tag", "name"):
                assert (kept[field] is None) == (was[field] is None)
            if was["code"]:
                codes.setdefault(str(was["code"]), set()).add(str(kept["code"]))
    assert games > 130
    assert names_seen > 200
    assert len(codes) > 50
    assert all(len(pseudonyms) == 1 for pseudonyms in codes.values()), "one person, one code"
    assert len(set().union(*codes.values())) == len(codes)


def without_names(rows: dict[str, Any]) -> dict[str, Any]:
    return {
        table: [{k: v for k, v in row.items() if k not in NAMES} for row in found]
        for table, found in rows.items()
    }
