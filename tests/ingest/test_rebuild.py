"""A catalog made anew from game files says what the old one said."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest import rebuild as module
from ingest.rebuild import file_rows, rebuild
from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import ingest
from schemas.errors import UsageError
from schemas.game import REVISION
from schemas.records import TABLES
from schemas.shard import Request
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.select import select
from store.upkeep import remove
from store.verify import verify

VERSIONS = ((0, 1, 0), (2, 0, 1), (3, 4, 0), (3, 14, 0), (3, 19, 0))


def _replays(folder: Path) -> Path:
    """Old and new versions, one that needs repair (3.4), one cut short, a follower, a recording."""
    folder.mkdir()
    for n, version in enumerate(VERSIONS):
        (folder / f"{n}.slp").write_bytes(make_game(seed=n, version=version, n_frames=60).slp)
    climbers = make_game(seed=9, version=(3, 16, 0), chars=("ice_climbers", "fox"), n_frames=60)
    (folder / "ics.slp").write_bytes(climbers.slp)
    (folder / "cut.slp").write_bytes(climbers.slp[: len(climbers.slp) * 3 // 4])
    pair = [make_game(seed=7, n_frames=60, recording=n, rollbacks=True).slp for n in (0, 1)]
    for n, replay in enumerate(pair):
        (folder / f"pair{n}.slp").write_bytes(replay)
    (folder / "picture.slp").write_bytes(b"no replay")
    return folder


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rebuild")
    replays = _replays(root / "slp")
    ingest([replays], root / "melee", workers=1)
    # some games in an older revision too, with the same values
    ingest([replays / "0.slp", replays / "ics.slp"], root / "older", workers=1,
           options=Options(revision=REVISION - 1))  # fmt: skip
    older, layout = Layout(root / "older"), Layout(root / "melee")
    rows: dict[str, Any] = {}
    with Catalog(older, read_only=True) as catalog:
        for name in ("games", "players", "perspectives", "item_counts"):
            rows[name] = _plain(catalog, name)
    for path in older.games.glob("*/*.parquet"):
        shutil.copyfile(path, layout.games / path.parent.name / path.name)
    with Catalog(layout) as catalog:
        catalog.commit(rows)
        newest = select(layout, Request(), catalog=catalog).members
        remove(layout, [newest[0].game_id], "asked to", catalog=catalog)
    return root / "melee"


@pytest.fixture(scope="module")
def rows(ingested: Path) -> dict[str, Any]:
    return _all(Layout(ingested))


@pytest.fixture
def before(rows: dict[str, Any]) -> dict[str, Any]:
    return dict(rows)


@pytest.fixture
def layout(ingested: Path, tmp_path: Path) -> Layout:
    shutil.copytree(ingested, tmp_path / "melee")
    return open_layout(tmp_path / "melee")


def _plain(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    """A table's rows with ids as hex, in a fixed order."""
    rows: list[dict[str, Any]] = catalog.query(f"from lake.{name}").to_pylist()
    ids = [field.name for field in TABLES[name] if field.sql == "UUID"]
    rows = [{**row, **{c: row[c] and row[c].replace("-", "") for c in ids}} for row in rows]
    return sorted(rows, key=repr)


def _all(layout: Layout) -> dict[str, Any]:
    """Every row of every table, and the datasets of some requests."""
    with Catalog(layout, read_only=True) as catalog:
        said: dict[str, Any] = {name: _plain(catalog, name) for name in TABLES}
        for request in (Request(), Request(recordings="all"), Request("version < '3.5'")):
            selection = select(layout, request, catalog=catalog)
            said[str(request)] = selection.dataset_id, selection.lock().games
            said[f"{request} etags"] = [shard.etag for shard in selection.manifest().shards]
    return said


def _lose_catalog(layout: Layout) -> None:
    for path in layout.root.glob("catalog.sqlite*"):
        path.unlink()
    shutil.rmtree(layout.tables)


def test_a_lost_catalog_comes_back_but_for_the_ledger(
    layout: Layout, before: dict[str, Any]
) -> None:
    assert {row["rev"] for row in before["games"]} == {REVISION - 1, REVISION}
    assert any(row["repaired"] for row in before["games"])
    _lose_catalog(layout)
    done = rebuild(layout, workers=1)
    assert (done.games, done.removed, done.left) == (len(before["games"]), 1, [])
    assert done.ledger_lost
    after = _all(layout)
    assert before.pop("replays")
    assert after.pop("replays") == []
    assert after == before
    assert [f for f in verify(layout) if f.is_damage] == []


def test_force_keeps_the_ledger_and_the_old_catalog(layout: Layout, before: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--force"):
        rebuild(layout, workers=0)
    done = rebuild(layout, force=True, workers=0)
    assert done.ledger == len(before["replays"])
    assert done.kept
    assert (layout.root / done.kept / "catalog.sqlite").exists()
    assert _all(layout) == before


def test_an_older_catalog_is_read_as_far_as_it_goes(layout: Layout, before: dict[str, Any]) -> None:
    with Catalog(layout) as catalog:
        catalog.query("alter table lake.games drop column rewrite")
        catalog.query("alter table lake.replays drop column detail")
    done = rebuild(layout, workers=0)
    assert done.ledger_lost is None
    after = _all(layout)
    assert [{**row, "detail": None} for row in before.pop("replays")] == after.pop("replays")
    assert after == before


def test_an_interrupted_rebuild_goes_on(
    layout: Layout, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_catalog(layout)
    monkeypatch.setattr(module, "GAMES_PER_COMMIT", 1)
    read = []

    def stop(done: int, total: int) -> None:
        read.append(total)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(layout, workers=0, progress=stop)
    assert not layout.catalog.exists()
    steps: list[int] = []
    rebuild(layout, workers=0, progress=lambda done, total: steps.append(done))
    assert steps[0] > 1, "what was committed is not read again"
    assert _all(layout)["games"] == before["games"]
    assert not (layout.root / "rebuilding").exists()


def test_files_that_are_no_games_are_left_and_named(layout: Layout, before: dict[str, Any]) -> None:
    sound = sorted(layout.games.glob("*/*.parquet"))[0]
    wrong = {
        layout.games / "aa" / f"{'a' * 32}.{REVISION}.parquet": b"PAR1 and then nothing",
        layout.games / "bb" / f"{'b' * 32}.99.parquet": sound.read_bytes(),
        layout.games / "cc" / f"{'c' * 32}.{REVISION}.parquet": layout.anchor.read_bytes(),
    }
    for path, data in wrong.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    done = rebuild(layout, force=True, workers=0)
    assert {layout.root / where for where, _ in done.left} == set(wrong)
    assert _all(layout) == before


def test_force_keeps_every_verdict_about_one_place(layout: Layout) -> None:
    """A replay that crashed, then wanted repair, then was repaired, has three rows."""
    with Catalog(layout) as catalog:
        (row, *_) = _plain(catalog, "replays")
        verdicts = [("refused", "crashed"), ("refused", "needs_repair"), ("repaired", None)]
        for outcome, rule in verdicts:
            said = {**row, "source": "one.slp", "outcome": outcome, "rule": rule}
            catalog.commit({"replays": [said]})
        before = _plain(catalog, "replays")
    rebuild(layout, force=True, workers=0)
    with Catalog(layout, read_only=True) as catalog:
        assert _plain(catalog, "replays") == before


def test_what_others_commit_during_a_rebuild_is_in_it(ingested: Path, layout: Layout) -> None:
    more = [ingested.parent / "more.slp"]
    more[0].write_bytes(make_game(seed=77, n_frames=60).slp)
    steps: list[int] = []

    def meanwhile(done: int, _: int) -> None:
        if not steps:
            ingest(more, layout.root, workers=1)
        steps.append(done)

    with Catalog(layout) as writer:
        n = len(_plain(writer, "games"))
        # its file is written and its rows are committed afterwards, as those of an ingest may be
        late = file_rows(sorted(layout.games.glob("*/*.parquet"))[0], "plain")
        rebuild(layout, force=True, workers=0, progress=meanwhile)
        writer.commit(late)
        games = _plain(writer, "games")
        assert len(games) == n + 1 == len({(row["game_id"], row["rev"]) for row in games})
        assert any(row["source"].endswith("more.slp") for row in _plain(writer, "replays"))
    assert [f for f in verify(layout) if f.is_damage or f.kind == "orphan"] == []


@pytest.mark.parametrize("step", [2, 4])
def test_a_rebuild_killed_as_it_swaps_the_catalogs_loses_nothing(
    layout: Layout, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    moved: list[Path] = []
    replace = Path.replace

    def killed(path: Path, to: Path) -> Path:
        if not path.name.endswith(".part"):
            moved.append(path)
            if len(moved) == step:
                raise KeyboardInterrupt
        return replace(path, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            rebuild(layout, force=True, workers=0)
    rebuild(layout, force=True, workers=0)
    assert _all(layout) == before
