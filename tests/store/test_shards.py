"""Virtual tars: whole, in slices, through tar readers, and with damaged game files."""

import io
import json
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import StoreError
from schemas.shard import Member, Request, padded
from store.layout import Layout
from store.select import select
from store.shards import FileSpan, VirtualTar
from tests.store.makers import make_game, make_store

GAMES = [make_game(n, n_frames=10 + n) for n in range(12)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_store(tmp_path_factory.mktemp("shards") / "melee", [GAMES])


@pytest.fixture(scope="module")
def members(layout: Layout) -> list[Member]:
    return select(layout, Request()).shard(0)


def _whole(tar: VirtualTar) -> bytes:
    return b"".join(tar.read())


def test_tarfile_and_gnu_tar_read_it(layout: Layout, members: list[Member], tmp_path: Path) -> None:
    raw = _whole(VirtualTar(layout, members))
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
        assert len(archive.getnames()) == 24
    (tmp_path / "shard.tar").write_bytes(raw)
    subprocess.run(["tar", "-xf", "shard.tar"], cwd=tmp_path, check=True)
    for game in GAMES:
        assert (tmp_path / f"{game.game_id}.parquet").read_bytes() == game.parquet
        sample = json.loads((tmp_path / f"{game.game_id}.json").read_text())
        assert sample["sides"] == [0, 1]
        assert sample["slippi_version"] == "3.14.0"


def test_members_say_where_everything_lies(layout: Layout, members: list[Member]) -> None:
    tar = VirtualTar(layout, members)
    raw = _whole(tar)
    assert len(raw) == tar.size
    for member in members:
        end = member.offset + member.parquet_bytes
        assert zlib.crc32(raw[member.offset : end]) == member.parquet_crc32
        start = member.offset + padded(member.parquet_bytes) + 512
        text = raw[start : start + member.json_bytes]
        assert json.loads(text)["game_id"] == member.game_id


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_range_is_a_slice_of_the_whole(
    layout: Layout, members: list[Member], data: st.DataObject
) -> None:
    tar = VirtualTar(layout, members)
    start = data.draw(st.integers(0, tar.size + 5))
    stop = data.draw(st.one_of(st.none(), st.integers(0, tar.size + 5)))
    assert b"".join(tar.read(start, stop)) == _whole(tar)[start:stop]


def test_spans_cover_a_range(layout: Layout, members: list[Member]) -> None:
    tar = VirtualTar(layout, members)
    spans = list(tar.spans(100, tar.size - 100))
    lengths = [span.length if isinstance(span, FileSpan) else len(span) for span in spans]
    assert sum(lengths) == tar.size - 200
    assert sum(isinstance(span, FileSpan) for span in spans) == 12


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer"])
def test_damaged_game_files_are_named(tmp_path: Path, damage: str) -> None:
    game = make_game(1)
    layout = make_store(tmp_path / "melee", [[game]])
    path = layout.game_path(game.game_id)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(game.parquet[:-1] if damage == "shorter" else game.parquet + b"x")
    tar = VirtualTar(layout, select(layout, Request()).shard(0))
    with pytest.raises(StoreError, match=game.game_id):
        _whole(tar)
