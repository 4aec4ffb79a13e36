"""Folders of shards as `meleewm export` writes them, of synthetic games: real files to train on."""

import hashlib
import zlib
from pathlib import Path

from ingest.facts import GameFile, game_rows
from ingest.replay import parse
from ingest.synthetic import make_game
from schemas.records import Rows
from schemas.shard import Request
from store.catalog import Catalog
from store.export import export
from store.layout import Layout, open_layout, write_atomic
from store.parquet import encode_game
from store.select import select

QUERY = "char='fox'"


def add_games(root: Path, seeds: range, n_frames: int) -> Layout:
    """Put synthetic games of fox against falco into a store, which is made where it is missing."""
    layout = open_layout(root, create=not root.exists())
    with Catalog(layout):  # before the first game file: a store with files alone has lost its own
        pass
    rows: Rows = {}
    for seed in seeds:
        replay = make_game(seed, chars=("fox", "falco"), stage="fd", n_frames=n_frames).slp
        game = parse(replay)
        content = encode_game(game.table, game.footer)
        game_id = hashlib.sha256(replay).hexdigest()[:32]
        path = layout.game_path(game_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        sha256 = hashlib.sha256(content).digest()
        file = GameFile(game_id, len(content), sha256, zlib.crc32(content))
        for table, found in game_rows(game.table, game.footer, file).items():
            rows.setdefault(table, []).extend(found)
    with Catalog(layout) as catalog:
        catalog.commit(rows)
    return layout


def exported(layout: Layout, out: Path, query: str = QUERY) -> Path:
    """The dataset of a query as a folder of tars with its manifest."""
    export(layout, select(layout, Request(query=query)), out)
    return out
