"""Small made-up games: catalog rows and game files that agree, without a replay or a parser."""

import hashlib
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa

from schemas.columns import FRAME, ITEM, PLAYER, STAGE, Column
from schemas.game import FULL, REVISION, struct_type
from schemas.names import stage_name
from schemas.records import TABLES, Rows
from store.catalog import Catalog
from store.layout import Layout, open_layout, write_atomic
from store.parquet import encode_game, leaf_set

CHARS = ("fox", "marth", "sheik")
Row = dict[str, object]


@dataclass(frozen=True)
class Game:
    """One game: its row of each table, and the bytes of its file."""

    game_id: str
    rows: Rows
    parquet: bytes


def frames_table(seed: int, n_frames: int, version: tuple[int, int]) -> pa.Table:
    """A game's table with the leaves that the version has; values follow from the seed."""
    draw = random.Random(seed)
    frames = range(-123, n_frames - 123)

    def numbers(dtype: pa.DataType) -> pa.Array:
        return pa.array([draw.randrange(100) for _ in frames]).cast(dtype)

    def struct(columns: Iterable[Column], **known: pa.Array) -> pa.Array:
        kept = [c for c in columns if c.since <= version]
        arrays = [known[c.name] if c.name in known else numbers(c.type) for c in kept]
        return pa.StructArray.from_arrays(arrays, names=[c.name for c in kept])

    columns = {c.name: numbers(c.type) for c in FRAME}
    columns |= {c.name: pa.nulls(n_frames, c.type) for c in FRAME if c.since > version}
    columns["frame"] = pa.array(frames, pa.int32())
    for side in (0, 1):
        port = pa.array([side + 1] * n_frames, pa.uint8())
        columns[f"p{side}"] = struct(PLAYER[:1] + PLAYER[2:], port=port)
    columns["stage"] = struct(STAGE)
    leaves = [c for c in ITEM if c.since <= version] or [ITEM[0]]
    item = {c.name: 1 for c in leaves}
    lists = [[item | {"slot": n % 15}] if n % 3 == 0 else [] for n in range(n_frames)]
    if version < (3, 0):
        columns["items"] = pa.nulls(n_frames, pa.list_(struct_type(leaves)))
    else:
        columns["items"] = pa.array(lists, pa.list_(struct_type(leaves)))
    return pa.table({name: columns[name] for name in FULL.names})


def make_game(
    number: int,
    *,
    natural: int | None = None,
    chars: tuple[str, str] | None = None,
    n_frames: int = 40,
    version: tuple[int, int] = (3, 14),
) -> Game:
    """A game made from its number; `natural`: number of the game that it is a recording of."""
    draw = random.Random(number)
    game_id = hashlib.sha256(b"game %d" % number).hexdigest()[:32]
    key = hashlib.sha256(b"key %d" % (number if natural is None else natural)).digest()
    table = frames_table(number, n_frames, version)
    chosen = chars or (draw.choice(CHARS), draw.choice(CHARS))
    stage_id = draw.choice((32, 31))
    start = {"slippi": {"version": [*version, 0]}, "stage": stage_id}
    parquet = encode_game(table, {"rev": REVISION, "start": start})
    identity: Row = {
        "game_id": game_id, "rev": REVISION, "rewrite": 0, "natural_key": key[:16].hex(),
        "bucket": int.from_bytes(key[:2], "big"),
    }  # fmt: skip
    about: Row = {
        "stage": stage_name(stage_id), "version": version[0] * 10**6 + version[1] * 1000,
        "n_frames": n_frames, "seconds": n_frames / 60, "repaired": False,
        "started_at": datetime(2023, 1, 1) + timedelta(days=number), "is_pal": None,
        "parquet_bytes": len(parquet),
    }  # fmt: skip
    file: Row = {
        "stretches": [n_frames], "stage_id": stage_id,
        "parquet_sha256": hashlib.sha256(parquet).digest(),
        "parquet_crc32": zlib.crc32(parquet), "leaf_set": leaf_set(table.schema),
        "first_frame": -123, "last_frame": n_frames - 124,
    }  # fmt: skip
    sides: list[Row] = [
        {"char": name, "code": f"{name.upper()}#{side}", "stocks_lost": side, "items": 3 - 3 * side,
         "side": side, "port": side + 1}
        for side, name in enumerate(chosen)
    ]  # fmt: skip
    opponents: list[Row] = [{f"opp_{k}": v for k, v in sides[1 - n].items()} for n in (0, 1)]
    counts: Row = {"side": 0, "type": 54, "item": "fox_laser", "spawned": 3, "frames": 9}
    replay: Row = {
        "replay_id": game_id, "sha256": bytes.fromhex(game_id) * 2, "source": f"{number}.slp",
        "outcome": "stored", "rev": REVISION,
    }  # fmt: skip
    given: dict[str, list[Row]] = {
        "games": [identity | about | file],
        "players": [identity | sides[n] for n in (0, 1)],
        "perspectives": [
            identity | about | sides[n] | opponents[n] | {"won": n == 0} for n in (0, 1)
        ],
        "item_counts": [identity | counts],
        "replays": [replay],
    }
    rows: Rows = {
        name: [{f.name: row.get(f.name) for f in TABLES[name]} for row in batch]
        for name, batch in given.items()
    }
    return Game(game_id, rows, parquet)


def rows_of(games: Iterable[Game]) -> Rows:
    """The rows of several games as one commit."""
    rows: Rows = {}
    for game in games:
        for name, batch in game.rows.items():
            rows.setdefault(name, []).extend(batch)
    return rows


def write_files(layout: Layout, games: Iterable[Game]) -> None:
    """Put the game files where they belong."""
    for game in games:
        write_atomic(layout.game_path(game.game_id), game.parquet)


def make_store(root: Path, batches: Iterable[list[Game]]) -> Layout:
    """A store with one commit per batch."""
    layout = open_layout(root, create=True)
    with Catalog(layout) as catalog:
        for games in batches:
            write_files(layout, games)
            catalog.commit(rows_of(games))
    return layout
