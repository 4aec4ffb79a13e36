"""Commits that are whole and once only, snapshots that stay, many processes at once."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import NotFoundError, StoreError
from schemas.game import REVISION
from schemas.records import TABLES, Rows
from store import layout as layout_module
from store.catalog import SNAPSHOT_COLUMN, Catalog
from store.layout import Layout, open_layout
from tests.store.makers import make_game, rows_of, write_files

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return open_layout(tmp_path / "melee", create=True)


def _count(catalog: Catalog, table: str = "games") -> int:
    return int(catalog.query(f"select count(*) from lake.{table}").column(0)[0].as_py())


def test_rows_come_back_typed(layout: Layout) -> None:
    game = make_game(1)
    with Catalog(layout) as catalog:
        catalog.commit(game.rows)
        for name, fields in TABLES.items():
            table = catalog.query(f"select * from lake.{name}")
            assert table.column_names == [f.name for f in fields]
            assert len(table) == len(game.rows.get(name, []))
        row = catalog.query("select * from lake.games").to_pylist()[0]
    expected = game.rows["games"][0]
    assert row["game_id"].replace("-", "") == game.game_id
    for name in ("started_at", "stretches", "parquet_sha256", "is_pal", "version"):
        assert row[name] == expected[name]


def test_known_rows_are_dropped(layout: Layout) -> None:
    games = [make_game(n) for n in range(4)]
    with Catalog(layout) as catalog:
        first = catalog.commit(rows_of(games[:2]))
        assert catalog.commit(rows_of(games[:2])) == first
        assert catalog.commit(rows_of([*games, games[3]])) == first + 1
        assert [_count(catalog, name) for name in TABLES] == [4, 8, 8, 4, 4, 0]
        assert catalog.snapshots()[-1]["added"]["games"] == 2


def test_a_new_revision_is_a_new_row(layout: Layout) -> None:
    rows = make_game(1).rows
    later: Rows = {
        name: [{**row, "rev": REVISION + 1} for row in batch] for name, batch in rows.items()
    }
    with Catalog(layout) as catalog:
        catalog.commit(rows)
        catalog.commit(later)
        assert _count(catalog) == 2


def test_ledger_keeps_each_place_of_a_replay(layout: Layout) -> None:
    row = make_game(1).rows["replays"][0]
    unread = {**row, "sha256": None, "replay_id": None, "source": "broken.7z", "outcome": "refused"}
    with Catalog(layout) as catalog:
        catalog.commit({"replays": [row, unread]})
        catalog.commit({"replays": [unread, row, {**row, "source": "copy.slp"}]})
        assert _count(catalog, "replays") == 3


def test_a_copy_of_a_known_replay_is_named_once_a_place(layout: Layout) -> None:
    row = make_game(1).rows["replays"][0]
    known = {**row, "outcome": "known"}
    with Catalog(layout) as catalog:
        catalog.commit({"replays": [row]})
        catalog.commit({"replays": [known, {**known, "source": "copy.slp"}]})
        catalog.commit({"replays": [{**known, "source": "copy.slp", "rev": REVISION + 1}]})
        assert _count(catalog, "replays") == 2
        catalog.commit({"replays": [{**row, "rev": REVISION + 1}]})
        assert _count(catalog, "replays") == 3


def test_which_replays_are_known(layout: Layout) -> None:
    row = make_game(1).rows["replays"][0]

    def of(first: int, outcome: str, rule: str | None, rev: int) -> dict[str, object]:
        sha256 = bytes([first]) * 32
        said = {"outcome": outcome, "rule": rule, "rev": rev, "source": str(first)}
        return {**row, **said, "sha256": sha256, "replay_id": sha256[:16].hex()}

    with Catalog(layout) as catalog:
        game = make_game(3)  # a game without a row of the ledger: adopted, or the catalog made anew
        catalog.commit({name: rows for name, rows in game.rows.items() if name != "replays"})
        rows: list[Mapping[str, object]] = [
            of(1, "stored", None, 1),
            of(2, "repaired", None, REVISION),
            of(3, "refused", "no_frames", REVISION),
            of(4, "refused", "needs_repair", REVISION),
            of(5, "refused", "no_frames", 1),
            of(6, "refused", "crashed", REVISION),
            of(7, "known", None, REVISION),  # the worker with the other copy was killed
            {**of(8, "refused", "bad_archive", REVISION), "sha256": None, "replay_id": None},
        ]
        catalog.commit({"replays": rows})
        known = set(catalog.known_replays().to_pylist())
        declined = set(catalog.known_replays(repair=False).to_pylist())
        before = set(catalog.known_replays(revision=1).to_pylist())
    stored = bytes.fromhex(str(game.rows["games"][0]["game_id"]))
    assert known == {stored, *(bytes([n]) * 16 for n in (1, 2, 3))}
    assert declined == known | {bytes([4]) * 16}
    assert before == {stored, *(bytes([n]) * 16 for n in (1, 2, 5))}


def test_old_snapshots_answer_after_compaction(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        made = [catalog.commit(make_game(n).rows) for n in range(6)]

        def answers() -> list[list[str]]:
            text = "select cast(game_id as varchar) as id from {} order by id"
            return [
                catalog.query(text.format(catalog.at("games", s))).column("id").to_pylist()
                for s in made
            ]

        before = answers()
        assert [len(ids) for ids in before] == list(range(1, 7))
        assert catalog.compact() == []
        assert "games" in catalog.compact(files_max=4)
        assert answers() == before
        assert catalog.compact(files_max=4) == []
        # The listed file of an old snapshot holds later rows too: its column says which.
        files = catalog.files("games", made[4])
        assert len(files) == 1
        text = f"select count(*) as n from read_parquet(?) where {SNAPSHOT_COLUMN} <= ?"
        assert catalog.query(text, [files, made[4]]).to_pylist() == [{"n": 5}]


def test_readers_see_commits_of_others(layout: Layout) -> None:
    with Catalog(layout, read_only=True) as reader, Catalog(layout) as writer:
        before = reader.snapshot()
        after = writer.commit(make_game(1).rows)
        assert reader.snapshot() == after > before
        assert _count(reader) == 1
        with pytest.raises(StoreError, match="read-only"):
            reader.commit(make_game(2).rows)


def test_unknown_snapshot(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        assert catalog.check_snapshot(None) == catalog.snapshot()
        for snapshot in (99, 0, -1, 10**60):  # 0: DuckLake's own, before there are tables
            with pytest.raises(NotFoundError, match=f"no snapshot {snapshot} "):
                catalog.check_snapshot(snapshot)
        for listed in catalog.snapshots():
            catalog.query(f"from {catalog.at('games', listed['snapshot'])}")


def test_a_damaged_file_is_one_line_without_its_place(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        catalog.commit(make_game(1).rows)
        (path,) = map(Path, catalog.files("games", catalog.snapshot()))
    for content in (path.read_bytes()[:100], b""):
        path.write_bytes(content)
        with (
            Catalog(layout, read_only=True) as catalog,
            pytest.raises(StoreError, match=path.name) as caught,
        ):
            catalog.query("select stage from lake.games")
        assert "\n" not in str(caught.value)
        assert str(layout.root.parent) not in str(caught.value)


def test_games_without_a_catalog_are_not_an_empty_store(layout: Layout) -> None:
    write_files(layout, [make_game(1)])
    for read_only in (True, False):  # an ingest would begin a catalog without them
        with pytest.raises(StoreError, match=r"is gone.*meleewm rebuild"):
            Catalog(layout, read_only=read_only)
    assert not layout.catalog.exists()


def test_store_can_move(layout: Layout, tmp_path: Path) -> None:
    with Catalog(layout) as catalog:
        catalog.commit(make_game(1).rows)
    layout.root.rename(tmp_path / "moved")
    moved = Layout(tmp_path / "moved")
    with Catalog(moved, read_only=True) as catalog:
        assert _count(catalog) == 1
        assert all(str(tmp_path / "moved") in f for f in catalog.files("games", 2))


def test_damaged_catalog_is_named(layout: Layout) -> None:
    layout.catalog.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"catalog\.sqlite cannot be opened"):
        Catalog(layout)


def test_network_file_system_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    monkeypatch.setattr(layout_module, "_NETWORK", kinds)
    with pytest.raises(StoreError, match="network file system"):
        Catalog(layout)


def test_works_without_a_home(layout: Layout, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from store.catalog import Catalog; from store.layout import *;"
        f"c = Catalog(Layout(Path({str(layout.root)!r}))); print(c.snapshot())"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr
    assert not (tmp_path / "nowhere").exists()


def _commit_many(root: Path, start: int, batches: int) -> None:
    with Catalog(Layout(root)) as catalog:
        for batch in range(batches):
            # Every second game is committed by all writers.
            numbers = [start + 2 * batch, 1_000_001 + 2 * batch]
            catalog.commit(rows_of(make_game(n, n_frames=3) for n in numbers))


@pytest.mark.slow
def test_writers_and_a_reader_at_once(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_commit_many, args=(layout.root, 1000 * n, 8)) for n in range(3)
    ]
    for writer in writers:
        writer.start()
    with Catalog(layout, read_only=True) as reader:
        while any(writer.is_alive() for writer in writers):
            (counts,) = reader.query(
                "select (select count(*) from lake.games) as games,"
                " (select count(*) from lake.players) as players"
            ).to_pylist()
            assert counts["players"] == 2 * counts["games"]
            time.sleep(0.05)
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        assert _count(reader) == 3 * 8 + 8
        assert _count(reader, "players") == 2 * (3 * 8 + 8)


@pytest.mark.slow
def test_kill_during_commit_leaves_whole_commits(layout: Layout) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    context = multiprocessing.get_context("spawn")
    with Catalog(layout) as catalog:
        catalog.commit(make_game(0).rows)
        for number in range(4):
            writer = context.Process(target=_commit_many, args=(layout.root, 5000 * number, 400))
            writer.start()
            before = _count(catalog)
            while _count(catalog) == before:  # its start-up takes longer than its commits
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.4))
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            counts = {name: _count(catalog, name) for name in TABLES}
            games = counts["games"]
            assert counts == {
                "games": games, "players": 2 * games, "perspectives": 2 * games,
                "item_counts": games, "replays": games, "removals": 0,
            }  # fmt: skip
            unique = catalog.query("select count(distinct game_id) as n from lake.games")
            assert unique == pa.table({"n": [games]})
        # The next writer does the killed one's work again: nothing twice, nothing lost.
        _commit_many(layout.root, 0, 3)
        unique = catalog.query("select count(*) = count(distinct game_id) as ok from lake.games")
        assert unique.to_pylist() == [{"ok": True}]


def test_a_rewrite_is_a_row_of_its_own(layout: Layout) -> None:
    rows = make_game(1).rows
    again: Rows = {
        name: [{**row, "rewrite": 1} for row in rows[name]] for name in ("games", "perspectives")
    }
    with Catalog(layout) as catalog:
        catalog.commit(rows)
        later = catalog.commit(again)
        assert catalog.commit(again) == later, "known by its number"
        assert [_count(catalog, name) for name in ("games", "players", "perspectives")] == [2, 2, 4]


def test_an_older_catalog_is_refused_in_one_line(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        catalog.query("alter table lake.games drop column rewrite")
    with pytest.raises(StoreError, match=r"without games\.rewrite \(meleewm rebuild"):
        Catalog(layout, read_only=True)


def test_ctrl_c_in_a_query_is_ctrl_c(layout: Layout) -> None:
    main_thread = threading.get_ident()
    with Catalog(layout) as catalog:
        timer = threading.Timer(0.3, signal.pthread_kill, [main_thread, signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            catalog.query("select sum(hash(a.range)) from range(4000000) a, range(4000000)")
        timer.join()
        assert catalog.snapshot() == 1
