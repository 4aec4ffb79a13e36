"""A dataset in a folder: byte-equal to what is served, resumable, never half."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.errors import StoreError, UsageError
from schemas.shard import Lock, Manifest, Request, members_from
from store.export import export
from store.layout import Layout
from store.select import Selection, from_lock, select
from store.shards import VirtualTar
from tests.store.makers import make_game, make_store

GAMES = [make_game(n, n_frames=5 + n) for n in range(16)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_store(tmp_path / "melee", [GAMES])


@pytest.fixture
def selection(layout: Layout) -> Selection:
    return select(layout, Request(games_per_shard=4))


def test_folder_equals_the_service(layout: Layout, selection: Selection, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    manifest = export(layout, selection, out, lambda *step: seen.append(step))
    assert Manifest.from_json((out / "manifest.json").read_text()) == manifest
    assert members_from(pq.read_table(out / "members.parquet")) == selection.members
    lock = Lock.from_json((out / "dataset.lock").read_text())
    assert from_lock(layout, lock).members == selection.members
    for shard, members in zip(manifest.shards, selection.shards, strict=True):
        raw = (out / shard.url).read_bytes()
        assert raw == b"".join(VirtualTar(layout, members).read())
        assert len(raw) == shard.bytes
    assert seen[-1] == (manifest.bytes, manifest.bytes)
    assert len(seen) == len(manifest.shards) > 2


def test_goes_on_where_it_ended(layout: Layout, selection: Selection, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = export(layout, selection, out)
    paths = [out / shard.url for shard in manifest.shards]
    right = [path.read_bytes() for path in paths]
    kept = paths[0].stat().st_ino
    paths[1].unlink()
    paths[2].write_bytes(right[2][:2000] + b"?" + right[2][2001:])
    (out / "manifest.json").unlink()
    export(layout, selection, out)
    assert [path.read_bytes() for path in paths] == right
    assert paths[0].stat().st_ino == kept
    assert (out / "manifest.json").exists()


def test_other_folders_are_left_alone(layout: Layout, selection: Selection, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(layout, selection, out)
    with pytest.raises(UsageError, match="another dataset"):
        export(layout, select(layout, Request("char='fox'")), out)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(layout, selection, other)
    assert [path.name for path in other.iterdir()] == ["cat.jpg"]


def test_damaged_game_is_not_passed_on(
    layout: Layout, selection: Selection, tmp_path: Path
) -> None:
    game = GAMES[3]
    path = layout.game_path(game.game_id)
    path.write_bytes(game.parquet[:500] + bytes([game.parquet[500] ^ 1]) + game.parquet[501:])
    out = tmp_path / "out"
    with pytest.raises(StoreError, match=game.game_id):
        export(layout, selection, out)
    assert not (out / "manifest.json").exists()
    path.write_bytes(game.parquet)
    export(layout, selection, out)
    assert not list(out.rglob("*.part"))


def test_empty_dataset(layout: Layout, tmp_path: Path) -> None:
    manifest = export(layout, select(layout, Request("char='ganon'")), tmp_path / "out")
    assert manifest.games == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["shards"] == []
