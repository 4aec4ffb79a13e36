"""Damaged games made again from their replays: the same bytes, or the same values."""

import shutil
import zipfile
from pathlib import Path

import pytest

from ingest.facts import game_rows
from ingest.heal import repair
from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import ingest
from schemas.errors import UsageError
from schemas.shard import Lock, Request
from store import parquet
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.select import from_lock, select
from store.shards import VirtualTar
from store.sql import run_sql
from store.upkeep import remove
from store.verify import verify

N = 4


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heal")
    for n in range(N):
        (folder / f"{n}.slp").write_bytes(make_game(seed=n, n_frames=80).slp)
    return folder


@pytest.fixture(scope="module")
def ingested(replays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("healed") / "melee"
    ingest([replays], root, workers=1)
    return root


@pytest.fixture
def layout(ingested: Path, tmp_path: Path) -> Layout:
    shutil.copytree(ingested, tmp_path / "melee")
    return open_layout(tmp_path / "melee")


def _files(layout: Layout) -> list[Path]:
    return sorted(layout.games.glob("*/*.parquet"))


def _zipped(replays: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("notes.txt", "nothing")
        for path in sorted(replays.glob("*.slp")):
            archive.write(path, f"some/folder/{path.name}")
    return out


def test_the_same_bytes_are_put_back_from_an_archive(
    layout: Layout, replays: Path, tmp_path: Path
) -> None:
    cut, gone, *_ = _files(layout)
    whole = {path: path.read_bytes() for path in (cut, gone)}
    cut.write_bytes(whole[cut][:99])
    gone.unlink()
    layout.anchor.unlink()
    named = repair(layout)
    assert {layout.root / where for where, _ in named.left} == set(whole)
    assert layout.anchor.exists()
    archive = _zipped(replays, tmp_path / "some.zip")
    healed = repair(layout, [archive], quick=True)
    assert {layout.root / where for where in healed.restored} == set(whole)
    assert (healed.left, healed.rewritten) == ([], [])
    assert {path: path.read_bytes() for path in whole} == whole


def test_other_bytes_keep_dataset_ids_and_bring_new_tags(
    layout: Layout, replays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog(layout, read_only=True) as catalog:
        before = select(layout, Request(), catalog=catalog)
    lock = Lock.from_json(before.lock().to_json())
    frames = run_sql(layout, "select sum(p0.percent) as n from frames").to_pylist()
    spoilt = _files(layout)[1]
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"\0")
    # as another version of pyarrow may: other bytes, the same values
    monkeypatch.setattr(parquet, "_ZSTD_LEVELS", dict.fromkeys(parquet._ZSTD_LEVELS, 9))
    parquet._by_leaf.cache_clear()
    monkeypatch.setattr("ingest.heal.in_order", _here)
    healed = repair(layout, [replays])
    parquet._by_leaf.cache_clear()
    assert healed.rewritten == [str(spoilt.relative_to(layout.root))]
    with Catalog(layout, read_only=True) as catalog:
        again = [
            select(layout, Request(), catalog=catalog),
            select(layout, Request(snapshot=before.snapshot), catalog=catalog),
            from_lock(layout, lock, catalog=catalog),
        ]
        assert [f for f in verify(layout, catalog=catalog) if f.is_damage] == []
    for selection in again:
        assert selection.dataset_id == before.dataset_id
        tar = VirtualTar(layout, selection.members)
        assert tar.etag != VirtualTar(layout, before.members).etag
        assert len(b"".join(tar.read())) == tar.size
    assert run_sql(layout, "select sum(p0.percent) as n from frames").to_pylist() == frames
    rows = run_sql(layout, "select rewrite, count(*) as n from games group by 1 order by 1")
    assert rows.to_pylist() == [{"rewrite": 0, "n": N - 1}, {"rewrite": 1, "n": 1}]


def _here(work, pieces, _workers):  # type: ignore[no-untyped-def]
    """The work in this process, where the writer is changed."""
    for piece in pieces:
        yield piece, work(piece)


def test_other_values_are_never_put_back(
    layout: Layout, replays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _files(layout)[0]
    path.unlink()

    def wrong(table, footer, file):  # type: ignore[no-untyped-def]
        rows = game_rows(table, footer, file)
        (game,) = rows["games"]
        return {**rows, "games": [{**game, "last_frame": 7}]}

    monkeypatch.setattr("ingest.worker.game_rows", wrong)
    monkeypatch.setattr("ingest.heal.in_order", _here)
    healed = repair(layout, [replays])
    ((where, why),) = healed.left
    assert where == str(path.relative_to(layout.root))
    assert "last_frame" in why
    assert not path.exists()


def test_orphans_are_adopted_and_what_is_none_is_left(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        before = select(layout, Request(), catalog=catalog)
        removed = remove(layout, [before.members[0].game_id], None, catalog=catalog)
    layout.removed_path(removed[0]).unlink()
    adopted, wrong = _files(layout)[1], layout.games / "aa" / f"{'a' * 32}.2.parquet"
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(b"PAR1")
    # as if the ingest had been killed before its commit
    with Catalog(layout) as catalog:
        catalog.remove_rows([adopted.name[:32]])
    healed = repair(layout, workers=1)
    assert healed.adopted == [str(adopted.relative_to(layout.root))]
    assert [where for where, _ in healed.left] == [str(wrong.relative_to(layout.root))]
    assert healed.marked == [str(layout.removed_path(removed[0]).relative_to(layout.root))]
    with Catalog(layout, read_only=True) as catalog:
        after = select(layout, Request(), catalog=catalog)
    assert {m.game_id for m in after.members} == {m.game_id for m in before.members} - {*removed}


def test_a_store_made_with_a_key_wants_that_key(replays: Path, tmp_path: Path) -> None:
    key = b"0123456789abcdef"
    ingest([replays], tmp_path / "melee", workers=1, options=Options(key=key))
    layout = Layout(tmp_path / "melee")
    path = _files(layout)[0]
    whole = path.read_bytes()
    path.unlink()
    for wrong in (None, b"fedcba9876543210"):
        with pytest.raises(UsageError):
            repair(layout, [replays], options=Options(key=wrong))
    repair(layout, [replays], options=Options(key=key))
    assert path.read_bytes() == whole


def test_tables_that_contradict_each_other_are_left_and_named(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        catalog.query("delete from lake.players where side = 1")
    left = repair(layout, quick=True).left
    assert {where for where, _ in left} == {"players"}
    assert all("rebuild --force" in why for _, why in left)
