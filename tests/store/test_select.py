"""Selections: what matches, which recording, in which order, under which name."""

import io
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import MissingGamesError, NotFoundError, QueryError
from schemas.game import REVISION
from schemas.records import TABLES, Rows
from schemas.shard import Lock, Request, members_from, split_names
from store.catalog import HEX_ID, Catalog
from store.layout import Layout
from store.select import Selection, from_lock, load, save, select
from store.sql import run_sql
from tests.store.makers import Game, make_game, make_store, rows_of

GAMES = [make_game(n, n_frames=20 + n) for n in range(30)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_store(tmp_path_factory.mktemp("select") / "melee", [GAMES[:20], GAMES[20:]])


@cache
def _catalog(layout: Layout) -> Catalog:
    return Catalog(layout, read_only=True)


def _select(layout: Layout, request: Request) -> Selection:
    return select(layout, request, catalog=_catalog(layout))  # opening one takes 0.3 s


def _ids(selection: Selection) -> list[str]:
    return [member.game_id for member in selection.members]


def _expected(games: list[Game], **wanted: object) -> dict[str, tuple[int, ...]]:
    """game id -> sides whose perspective has these values."""
    found: dict[str, tuple[int, ...]] = {}
    for game in games:
        rows = game.rows["perspectives"]
        sides = tuple(n for n in (0, 1) if all(rows[n][k] == v for k, v in wanted.items()))
        if sides:
            found[game.game_id] = sides
    return found


def test_sides_follow_the_perspectives(layout: Layout) -> None:
    selection = _select(layout, Request("char='fox' and stage='bf'"))
    expected = _expected(GAMES, char="fox", stage="battlefield")
    assert {m.game_id: m.sides for m in selection.members} == expected
    assert (0, 1) in expected.values()
    assert selection.query == "char = 'fox' and stage = 'battlefield'"


def test_members_tell_what_the_games_are(layout: Layout) -> None:
    selection = _select(layout, Request(games_per_shard=5))
    assert len(selection.members) == 30
    by_id = {game.game_id: game for game in GAMES}
    for member in selection.members:
        game = by_id[member.game_id].rows["games"][0]
        for name in ("natural_key", "bucket", "n_frames", "parquet_bytes", "parquet_crc32",
                     "parquet_sha256", "leaf_set", "version"):  # fmt: skip
            assert getattr(member, name) == game[name], name
        assert list(member.stretches) == game["stretches"]
    assert members_from(pq.read_table(io.BytesIO(selection.members_parquet()))) == selection.members


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_order_of_ingest_does_not_matter(layout: Layout, tmp_path: Path, batches: int) -> None:
    games = GAMES[::-1]
    random.Random(batches).shuffle(games)
    parts = [games[n::batches] for n in range(batches)]
    other = make_store(tmp_path / "elsewhere", parts)
    for request in (Request(), Request("char='fox'", games_per_shard=4, seed=9, limit=7)):
        ours, theirs = _select(layout, request), _select(other, request)
        assert theirs.dataset_id == ours.dataset_id
        assert theirs.members == ours.members
        tags = [[s.etag for s in one.manifest().shards] for one in (ours, theirs)]
        assert tags[0] == tags[1]


def test_query_text_and_snapshot_do_not_name_a_dataset(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        newest = catalog.snapshot()
    requests = [Request("char='fox'"), Request("'FOX' = character", snapshot=newest)]
    assert len({_select(layout, request).dataset_id for request in requests}) == 1
    seeds = {_select(layout, Request("char='fox'", seed=seed)).dataset_id for seed in range(3)}
    assert len(seeds) == 3


def test_nothing_matches(layout: Layout) -> None:
    selection = _select(layout, Request("char='ganon'"))
    assert selection.members == []
    assert selection.manifest().shards == ()
    assert Lock.from_json(selection.lock().to_json()).games == ()
    assert from_lock(layout, selection.lock()).members == []


def test_opens_its_own_catalog(layout: Layout) -> None:
    assert select(layout, Request()).members == _select(layout, Request()).members


def test_errors(layout: Layout) -> None:
    with pytest.raises(QueryError):
        _select(layout, Request("char='fxo'"))
    with pytest.raises(NotFoundError, match="snapshot 9999"):
        _select(layout, Request(snapshot=9999))


def test_shards_are_cut_and_counted(layout: Layout) -> None:
    selection = _select(layout, Request(games_per_shard=4))
    manifest = selection.manifest("http://host/v1/")
    assert [s.n for s in manifest.shards] == list(range(len(manifest.shards)))
    assert len(manifest.shards) > 3
    assert sum(s.games for s in manifest.shards) == manifest.games == 30
    assert manifest.perspectives == 60
    assert manifest.frames == sum(game.rows["games"][0]["n_frames"] for game in GAMES)  # type: ignore[misc]
    assert manifest.shards[2].url == "http://host/v1/shards/00002.tar"
    assert [m for shard in selection.shards for m in shard] == selection.members
    with pytest.raises(NotFoundError, match="no shard"):
        selection.shard(len(manifest.shards))


def test_split_and_limit(layout: Layout) -> None:
    whole = _select(layout, Request())
    names = split_names([m.bucket for m in whole.members], [m.natural_key for m in whole.members])
    for split in ("train", "val", "test"):
        part = _select(layout, Request(split=split))
        assert _ids(part) == [i for i, n in zip(_ids(whole), names, strict=True) if n == split]
    small = _select(layout, Request(limit=8, games_per_shard=2))
    assert len(small.members) == 8
    assert len(small.shards) > 2
    assert set(_ids(small)) < set(_ids(_select(layout, Request(limit=20))))
    assert _select(layout, Request(limit=1000)).dataset_id == whole.dataset_id


def test_two_recordings_are_one_game(tmp_path: Path) -> None:
    first, second = make_game(100), make_game(101, natural=100)
    shown = min(first.game_id, second.game_id)
    for name, order in {"a": [first, second], "b": [second, first]}.items():
        layout = make_store(tmp_path / name, [[game] for game in order])
        assert _ids(_select(layout, Request())) == [shown]
        assert set(_ids(_select(layout, Request(recordings="all")))) == {
            first.game_id, second.game_id,
        }  # fmt: skip
        # The choice does not depend on the query: the other recording does not step in.
        hidden = max(first.game_id, second.game_id)
        assert _ids(_select(layout, Request(f"game_id = '{hidden}'"))) == []


def test_removal_and_old_snapshots(tmp_path: Path) -> None:
    first, second, third = make_game(100), make_game(101, natural=100), make_game(102)
    low, high = sorted([first.game_id, second.game_id])
    layout = make_store(tmp_path / "melee", [[first, second], [third]])
    with Catalog(layout) as catalog:
        before = catalog.snapshot()
        old = select(layout, Request(), catalog=catalog)
        removal = {"game_id": low, "removed_at": None, "reason": "asked"}
        catalog.commit({"removals": [removal]})
        assert set(_ids(select(layout, Request(), catalog=catalog))) == {high, third.game_id}
        again = select(layout, Request(snapshot=before), catalog=catalog)
        assert again.dataset_id == old.dataset_id
        assert select(layout, Request(snapshot=1), catalog=catalog).members == []
        # An old lock answers as long as the file is there, and names the game afterwards.
        assert from_lock(layout, old.lock(), catalog=catalog).members == old.members
        layout.game_path(low).unlink()
        with pytest.raises(MissingGamesError, match=low):
            from_lock(layout, old.lock(), catalog=catalog)


def test_newest_revision_is_shown_and_old_locks_keep_theirs(tmp_path: Path) -> None:
    game = make_game(7)
    layout = make_store(tmp_path / "melee", [[game]])
    old = _select(layout, Request())
    later: Rows = {
        name: [
            {**row, "rev": REVISION + 4, **({"n_frames": 99} if "n_frames" in row else {})}
            for row in rows
        ]
        for name, rows in game.rows.items()
    }
    with Catalog(layout) as catalog:
        catalog.commit(later)
    new = _select(layout, Request())
    assert [(m.rev, m.n_frames) for m in new.members] == [(REVISION + 4, 99)]
    assert new.dataset_id != old.dataset_id
    assert from_lock(layout, old.lock()).members == old.members


def test_a_revision_may_change_which_recordings_belong_together(tmp_path: Path) -> None:
    first, second, third = (make_game(n) for n in (1, 2, 3))
    # The newer rules find that the first game is a recording of the second, not of the third.
    older: Rows = {
        name: [{**row, "natural_key": third.rows["games"][0]["natural_key"]}
               if "natural_key" in row else row for row in rows]
        for name, rows in first.rows.items()
    }  # fmt: skip
    newer: Rows = {
        name: [{**row, "rev": REVISION + 1, "natural_key": second.rows["games"][0]["natural_key"]}
               if "natural_key" in row else {**row, "rev": REVISION + 1} for row in rows]
        for name, rows in first.rows.items()
    }  # fmt: skip
    layout = make_store(tmp_path / "melee", [[second, third]])
    with Catalog(layout) as catalog:
        catalog.commit(older)
        shown = {min(first.game_id, third.game_id), second.game_id}
        assert set(_ids(select(layout, Request(), catalog=catalog))) == shown
        catalog.commit(newer)
        shown = {min(first.game_id, second.game_id), third.game_id}
        assert set(_ids(select(layout, Request(), catalog=catalog))) == shown
        every = select(layout, Request(recordings="all"), catalog=catalog)
        assert len(every.members) == 3
        # A query that only the older rules' row fits does not bring that row back.
        key = third.rows["games"][0]["natural_key"]
        text = f"game_id = '{first.game_id}' and natural_key = '{key}'"
        assert _ids(select(layout, Request(text, recordings="all"), catalog=catalog)) == []


def _shown(rows: list[dict[str, Any]], removed: set[str], recordings: str) -> set[Any]:
    """The (game_id, rev, rewrite) that count, in plain words."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["rev"], row["rewrite"])):
        if row["game_id"] not in removed:
            newest[row["game_id"]] = row
    first: dict[str, str] = {}
    for game_id in sorted(newest, reverse=True):
        first[newest[game_id]["natural_key"]] = game_id
    return {
        (game_id, row["rev"], row["rewrite"])
        for game_id, row in newest.items()
        if recordings == "all" or first[row["natural_key"]] == game_id
    }


def _drawn(draw: random.Random, revisions: int) -> Rows:
    """Rows of one of few games, whose recordings and revisions get in each other's way."""
    game = make_game(draw.randrange(6), n_frames=1)
    changed: dict[str, object] = {
        "rev": draw.randrange(1, 1 + revisions),
        "rewrite": draw.randrange(revisions),
    }
    changed["natural_key"] = make_game(draw.randrange(4)).rows["games"][0]["natural_key"]
    return {
        name: [{key: changed.get(key, value) for key, value in row.items()} for row in rows]
        for name, rows in game.rows.items()
        if name in ("games", "perspectives")
    }


@pytest.mark.parametrize("revisions", [1, 3])
def test_what_counts_is_what_plain_words_say(tmp_path: Path, revisions: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    layout, removed = make_store(tmp_path / "melee", []), set[str]()
    with Catalog(layout) as catalog:
        for step in range(6):
            for _ in range(3):
                catalog.commit(_drawn(draw, revisions))
            if step % 3 == 1:
                out = make_game(draw.randrange(6)).game_id
                removed.add(out)
                catalog.commit({"removals": [{"game_id": out, "removed_at": None, "reason": ""}]})
            if step % 3 == 2:
                catalog.compact(files_max=2)
            games = catalog.query(f"select * replace ({HEX_ID} as game_id) from lake.games")
            sides = catalog.query(f"select * replace ({HEX_ID} as game_id) from lake.perspectives")
            for recordings in ("one", "all"):
                shown = _shown(games.to_pylist(), removed, recordings)
                for text, wanted in (("", ("fox", "marth", "sheik")), ("char='fox'", ("fox",))):
                    expected = {
                        (row["game_id"], row["rev"], row["side"])
                        for row in sides.to_pylist()
                        if row["char"] in wanted
                        and (row["game_id"], row["rev"], row["rewrite"]) in shown
                    }
                    found = select(layout, Request(text, recordings=recordings), catalog=catalog)
                    assert expected == {
                        (m.game_id, m.rev, side) for m in found.members for side in m.sides
                    }


def test_old_snapshots_name_the_same_dataset_after_compaction(tmp_path: Path) -> None:
    layout = make_store(tmp_path / "melee", [])
    with Catalog(layout) as catalog:
        snapshots = [catalog.commit(rows_of([game])) for game in GAMES[:6]]
        names = [select(layout, Request(snapshot=s), catalog=catalog).dataset_id for s in snapshots]
        assert catalog.compact(files_max=2)
        again = [select(layout, Request(snapshot=s), catalog=catalog).dataset_id for s in snapshots]
    assert again == names
    assert len(set(names)) == 6


def test_lock_answers_from_any_store_with_the_games(layout: Layout, tmp_path: Path) -> None:
    selection = _select(layout, Request("char='fox'", games_per_shard=3))
    lock = Lock.from_json(selection.lock().to_json())
    assert from_lock(layout, lock).members == selection.members
    needed = {m.game_id for m in selection.members}
    games = [game for game in GAMES if game.game_id in needed]
    other = make_store(tmp_path / "other", [games])
    assert from_lock(other, lock).members == selection.members
    poorer = make_store(tmp_path / "poorer", [games[1:]])
    with pytest.raises(MissingGamesError, match=f"1 of the dataset's games: {games[0].game_id}"):
        from_lock(poorer, lock)


def test_saved_datasets_answer_by_id(layout: Layout) -> None:
    selection = _select(layout, Request("char='marth'"))
    with pytest.raises(NotFoundError):
        load(layout, selection.dataset_id)
    save(layout, selection)
    save(layout, selection)
    loaded = load(layout, selection.dataset_id)
    assert loaded.members == selection.members
    assert loaded.request == replace(selection.request, snapshot=selection.snapshot)
    for name in ("", "0" * 32, "../../etc/passwd", "x" * 500):
        with pytest.raises(NotFoundError):
            load(layout, name)


def test_a_file_written_again_keeps_ids_and_gets_new_tags(tmp_path: Path) -> None:
    games = GAMES[:4]
    layout = make_store(tmp_path / "melee", [games])
    healed = games[2]
    text = f"game_id = '{healed.game_id}' or char = '{healed.rows['perspectives'][0]['char']}'"
    with Catalog(layout) as catalog:
        before = select(layout, Request(text), catalog=catalog)
        file = {"rewrite": 1, "parquet_bytes": 7, "parquet_crc32": 8, "parquet_sha256": b"9" * 32}
        tables = ("games", "perspectives")
        columns = {name: {f.name for f in TABLES[name]} & set(file) for name in tables}
        catalog.commit(
            {
                name: [{**row, **{c: file[c] for c in columns[name]}} for row in healed.rows[name]]
                for name in tables
            }
        )
        requests = [Request(text), Request(text, snapshot=before.snapshot)]
        after = [select(layout, request, catalog=catalog) for request in requests]
        after.append(from_lock(layout, before.lock(), catalog=catalog))
        for selection in after:
            assert selection.dataset_id == before.dataset_id
            sizes = {m.game_id: m.parquet_bytes for m in selection.members}
            assert sizes[healed.game_id] == 7
            assert [s.etag for s in selection.manifest().shards] != [
                s.etag for s in before.manifest().shards
            ]
        for over in (None, text):
            table = run_sql(
                layout,
                "select game_id, rewrite, parquet_bytes, (select count(*) from pframes) as n,"
                " (select count(*) from perspectives) as sides from games",
                over=over, catalog=catalog,
            )  # fmt: skip
            rows = {row["game_id"]: row for row in table.to_pylist()}
            assert len(rows) == len(table)
            assert (rows[healed.game_id]["rewrite"], rows[healed.game_id]["parquet_bytes"]) == (
                1,
                7,
            )
            shown = [g for g in games if g.game_id in rows]
            if over is None:
                frames = [g.rows["games"][0]["n_frames"] for g in shown]
                assert rows[healed.game_id]["n"] == 2 * sum(frames)  # type: ignore[arg-type]
                assert rows[healed.game_id]["sides"] == 2 * len(shown)
