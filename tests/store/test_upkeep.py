"""Games taken out, and what vacuum leaves; figures of a store."""

import json
from pathlib import Path

import pytest

from schemas.errors import MissingGamesError, NotFoundError, StoreError
from schemas.records import TABLES
from schemas.shard import Request
from store.catalog import Catalog
from store.layout import Layout
from store.select import from_lock, select
from store.sql import run_sql
from store.upkeep import remove, stats, vacuum, waste
from store.verify import verify
from tests.store.makers import make_game, make_store, write_files

GAMES = [make_game(n) for n in range(6)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_store(tmp_path / "melee", [GAMES[:3], GAMES[3:]])


def _count(catalog: Catalog, table: str, game_id: str) -> int:
    sql = f"select count(*) from lake.{table} where game_id = cast(? as uuid)"
    return int(catalog.query(sql, [game_id]).column(0)[0].as_py())


def test_removed_games_answer_to_the_past_until_vacuum(layout: Layout) -> None:
    out = GAMES[1]
    with Catalog(layout) as catalog:
        before = select(layout, Request(), catalog=catalog)
        assert remove(layout, [out.game_id], "asked to", catalog=catalog) == [out.game_id]
        assert remove(layout, [out.game_id], "twice", catalog=catalog) == []
        mark = json.loads(layout.removed_path(out.game_id).read_bytes())
        assert (mark["game_id"], mark["reason"]) == (out.game_id, "asked to")
        after = select(layout, Request(), catalog=catalog)
        assert {m.game_id for m in after.members} == {g.game_id for g in GAMES} - {out.game_id}
        assert from_lock(layout, before.lock(), catalog=catalog).members == before.members
        past = select(layout, Request(snapshot=before.snapshot), catalog=catalog)
        assert past.members == before.members

        told = waste(layout, catalog=catalog)
        assert (told.games, [path.name for path in told.game_files]) == (
            1, [layout.game_path(out.game_id).name],
        )  # fmt: skip
        assert told.game_bytes == len(out.parquet)
        assert vacuum(layout, catalog=catalog) == told
        assert waste(layout, catalog=catalog).is_none
        for table in ("games", "players", "perspectives", "item_counts"):
            assert _count(catalog, table, out.game_id) == 0, table
            assert len(catalog.files(table, catalog.snapshot())) == 1
        assert not layout.game_path(out.game_id).exists()
        with pytest.raises(NotFoundError, match="vacuumed"):
            select(layout, Request(snapshot=before.snapshot), catalog=catalog)
        with pytest.raises(MissingGamesError, match=out.game_id):
            from_lock(layout, before.lock(), catalog=catalog)
        again = select(layout, Request(), catalog=catalog)
        assert again.dataset_id == after.dataset_id
        assert [f for f in verify(layout, catalog=catalog) if f.is_damage] == []
        n = run_sql(layout, "select count(distinct game_id) as n from frames", catalog=catalog)
        assert n.to_pylist() == [{"n": len(GAMES) - 1}]
        # of the disk nothing is left that no table needs
        on_disk = {str(path) for path in layout.tables.absolute().rglob("*.parquet")}
        named = {f for t in TABLES for f in catalog.files(t, catalog.snapshot())}
        assert on_disk == named


def test_unknown_games_are_named_and_nothing_is_removed(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        newest = catalog.snapshot()
        with pytest.raises(NotFoundError, match="nothing was removed"):
            remove(layout, [GAMES[0].game_id, "0" * 32], None, catalog=catalog)
        assert catalog.snapshot() == newest
    assert not layout.removed_path(GAMES[0].game_id).exists()


def test_a_writer_goes_on_beside_a_vacuum(layout: Layout) -> None:
    with Catalog(layout) as writer, Catalog(layout) as other:
        writer.commit(make_game(10).rows)
        other.commit(make_game(11).rows)
        remove(layout, [GAMES[1].game_id], None, catalog=other)
        vacuum(layout, catalog=other)
        for number in (12, 11):
            writer.commit(make_game(number).rows)
        # one that was taken out comes back as a row at most, never into sight
        writer.commit(GAMES[1].rows)
        write_files(layout, [make_game(n) for n in (10, 11, 12)])
        shown = {m.game_id for m in select(layout, Request(), catalog=writer).members}
    expected = {make_game(n).game_id for n in (0, 2, 3, 4, 5, 10, 11, 12)}
    assert shown == expected


def test_stats_add_up(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        remove(layout, [GAMES[0].game_id], None, catalog=catalog)
        ledger = GAMES[0].rows["replays"][0]
        repaired = {**ledger, "source": "y", "outcome": "repaired", "detail": "relaid, events_cut"}
        refused = {**ledger, "source": "x", "outcome": "refused", "rule": "solo"}
        catalog.commit({"replays": [refused, repaired], "games": make_game(20, natural=2).rows[
            "games"]})  # fmt: skip
    found = stats(layout)
    assert json.loads(json.dumps(found)) == found
    assert (found["games"], found["removed"], found["other_recordings"]) == (5, 1, 1)
    assert found["repairs"] == {"relaid": 1, "events_cut": 1}
    assert found["replays"] == {"stored": 6, "refused": 1, "repaired": 1}
    assert found["modes"] == {"unknown": 5}
    assert found["disk"]["game_files"] == sum(len(game.parquet) for game in GAMES)
    on_disk = sum(path.stat().st_size for path in layout.tables.rglob("*.parquet"))
    assert sum(n for name, n in found["disk"].items() if name.startswith("tables/")) == on_disk


def test_a_vacuum_that_was_killed_is_finished_by_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    whole = Catalog._retried

    def killed(self: Catalog, work):  # type: ignore[no-untyped-def]
        steps.append(work)
        if len(steps) > 1:  # rows are deleted, but the files that hold them not yet written anew
            raise KeyboardInterrupt
        return whole(self, work)

    with Catalog(layout) as catalog:
        remove(layout, [GAMES[0].game_id], None, catalog=catalog)
    with Catalog(layout) as catalog, monkeypatch.context() as patched:
        patched.setattr(Catalog, "_retried", killed)
        with pytest.raises(KeyboardInterrupt):
            vacuum(layout, catalog=catalog)
    with pytest.raises(StoreError, match="vacuum again"):
        run_sql(layout, "select 1 from games")
    with Catalog(layout) as catalog:
        vacuum(layout, catalog=catalog)
        assert waste(layout, catalog=catalog).is_none
    (row,) = run_sql(layout, "select count(*) as n from games").to_pylist()
    assert row["n"] == len(GAMES) - 1


def test_vacuum_deletes_what_killed_commits_left_in_the_tables(layout: Layout) -> None:
    sound = next(layout.tables.rglob("*.parquet"))
    left = sound.with_name("ducklake-019d0000-0000-7000-8000-000000000000.parquet")
    left.write_bytes(sound.read_bytes())
    with Catalog(layout) as catalog:
        assert waste(layout, catalog=catalog).table_files == 1
        vacuum(layout, catalog=catalog)
        assert not left.exists()
        assert waste(layout, catalog=catalog).is_none
        assert select(layout, Request(), catalog=catalog).manifest().games == len(GAMES)


def test_a_flipped_byte_in_a_table_is_an_error_of_the_store(layout: Layout) -> None:
    path = next((layout.tables / "main" / "games").glob("*.parquet"))
    sound = path.read_bytes()
    spoilt = 0
    for at in range(len(sound) - 12, 0, -max(1, len(sound) // 12)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        with Catalog(layout, read_only=True) as catalog:
            try:
                catalog.query("from lake.games")
            except StoreError:  # and nothing else
                spoilt += 1
    assert spoilt
