"""From .slp files to windows: ingest, select, export, stream, pool, all of them the real ones."""

from pathlib import Path

import pytest

from ingest.synthetic import write_games
from ingest.workers import ingest
from schemas.features import view
from schemas.shard import Request, split_names
from store.export import export
from store.layout import open_layout
from store.select import select
from training.pool import Pool, plan
from training.stream import Dataset, ShardStream, open_dataset

AGE = view("v22-state-age")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("from-store")
    paths = write_games(root / "slp", 6, 5, (3, 18))
    summary = ingest(paths, root / "store", workers=1, progress=None)
    assert summary.stored == 6
    layout = open_layout(root / "store")
    selection = select(layout, Request(query="n_frames > 0", games_per_shard=2))
    export(layout, selection, root / "out")
    return root / "out"


def filled(dataset: Dataset, context: int) -> Pool:
    pool = Pool(AGE, context, plan(dataset.members, AGE, context).rows)
    stream = ShardStream(dataset)
    for game in stream.games(AGE):
        pool.add(game.member.game_id, game.table, game.member.sides)
    assert stream.stats.skipped == []
    return pool


def test_the_pool_is_what_the_manifest_promised(exported: Path) -> None:
    dataset = open_dataset(shards=exported)
    planned, pool = plan(dataset.members, AGE, 10), filled(dataset, 10)
    assert dataset.manifest.perspectives == len(pool.games) == planned.perspectives
    assert (pool.n_rows, pool.n_windows) == (planned.rows, planned.windows)
    assert planned.bytes == pool.bytes + 16 * pool.n_windows
    assert not pool.missing
    assert not pool.not_finite
    stages = {int(pool.frames(n).ints[0, -1]) for n in range(len(pool.games))}
    assert 0 not in stages
    assert sum(len(batch) for batch in pool.epoch(512)) == planned.windows


def test_train_and_validation_are_two_pools_of_one_dataset(exported: Path) -> None:
    dataset = open_dataset(shards=exported)
    splits = split_names(
        [m.bucket for m in dataset.members], [m.natural_key for m in dataset.members]
    )
    split = dict(zip([m.game_id for m in dataset.members], splits, strict=True))
    wanted = [game_id for game_id, name in split.items() if name == "train"]
    assert 0 < len(wanted) < len(split)
    stream = ShardStream(dataset, games=wanted)
    assert {game.member.game_id for game in stream.games(AGE)} == set(wanted)
