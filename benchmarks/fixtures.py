"""Large stores for benchmarks, made once and kept in FOLDER: a catalog of rows alone, and stores of
game files copied under new ids from some hundred simulated ones.

A kept store is known by the code that shapes it; another schema or generator makes it anew.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks import catalog_rows
from ingest.facts import GameFile, game_rows
from ingest.replay import parse
from ingest.synthetic import make_game
from schemas.game import REVISION
from schemas.records import TABLES, Rows
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.parquet import encode_game

FOLDER = Path(__file__).parent.parent / ".cache" / "bench"
SOURCES = 96
"""Simulated game files that all others are copies of."""
ALIKE, FIGHTS = (3, 16, 0), 3
"""Slippi version of games with one leaf set; fights of a game file: one alone is a third as long as
a real game."""
_OLD = ((0, 1, 0), (1, 7, 1), (2, 0, 1), (3, 0, 0), (3, 7, 0))
_NEW = ((3, 9, 0), (3, 12, 0), (3, 14, 0), (3, 16, 0), (3, 18, 0), (3, 19, 0))
_CHARS = ("fox", "falco", "marth", "captain_falcon", "sheik", "jigglypuff", "peach", "samus")
_BUILT = "built.json"


@dataclass(frozen=True)
class Built:
    """What making a store took, in seconds of this process and of the clock.

    commits: into the catalog. merges: of its small files. plain: the same Arrow rows into tables in
    memory. frames: of all games with a file.
    """

    games: int
    commits_cpu: float = 0.0
    commits_wall: float = 0.0
    merges_cpu: float = 0.0
    merges_wall: float = 0.0
    frames: int = 0
    load: float = 0.0


@dataclass(frozen=True)
class Source:
    """A game file and its rows."""

    parquet: bytes
    rows: Rows
    frames: int
    leaf_set: str


def catalog_store(
    games: int, *, twice: float = 0.02, folder: Path = FOLDER
) -> tuple[Layout, Built]:
    """A catalog of that many games, committed batch by batch as an ingest does; no game files."""

    def fill(layout: Layout) -> Built:
        return _committed(layout, catalog_rows.batches(games, twice=twice))

    return _kept(folder / f"catalog-{games}-{twice:g}", fill)


def game_store(games: int, *, alike: bool, folder: Path = FOLDER) -> tuple[Layout, Built]:
    """A store of that many game files, of one leaf set or of Slippi 0.1 to 3.19."""

    def fill(layout: Layout) -> Built:
        kinds = [ALIKE] if alike else [*_OLD, *_NEW, *_NEW, *_NEW]
        wanted = [(n, kinds[n % len(kinds)]) for n in range(min(SOURCES // 2, games))]
        found = list(_made(wanted))
        if alike:
            (common, _), *_ = Counter(source.leaf_set for source in found).most_common(1)
            found = [source for source in found if source.leaf_set == common]
        return _committed(layout, _copies(layout, found, games))

    return _kept(folder / f"games-{games}-{'alike' if alike else 'mixed'}", fill)


# --- keeping --------------------------------------------------------------------------------------


def _kept(folder: Path, fill: Callable[[Layout], Built]) -> tuple[Layout, Built]:
    """The store in a folder, filled first where it is not there or another code made it."""
    record = folder / _BUILT
    shape = _shape()
    if record.exists():
        said = json.loads(record.read_text())
        if said.pop("shape") == shape:
            return open_layout(folder / "store"), Built(**said)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    layout = open_layout(folder / "store", create=True)
    built = fill(layout)
    record.write_text(json.dumps({"shape": shape, **asdict(built)}))
    return layout, built


def _shape() -> str:
    """Equal for equal rows and files: a hash over what makes them."""
    digest = hashlib.sha256(repr((REVISION, TABLES)).encode())
    for module in (__file__, catalog_rows.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:16]


def _committed(layout: Layout, batches: Iterable[Rows]) -> Built:
    cpu, wall, merges, games, frames = 0.0, 0.0, (0.0, 0.0), 0, 0
    load = os.getloadavg()[0]
    with Catalog(layout) as catalog:
        for rows in batches:
            games += len(rows["games"])
            frames += sum(int(str(row["n_frames"])) for row in rows["games"])
            spent = _spent(lambda rows=rows: catalog.commit(rows))  # type: ignore[misc]
            cpu, wall = cpu + spent[0], wall + spent[1]
        merges = _spent(catalog.compact)
    return Built(games, cpu, wall, *merges, frames, load)


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


# --- game files -----------------------------------------------------------------------------------


def _made(wanted: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[Source]:
    if len(wanted) < 8:
        yield from map(_source, wanted)
        return
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        yield from pool.map(_source, wanted, chunksize=2)


def _source(wanted: tuple[int, tuple[int, ...]]) -> Source:
    """One game file: some simulated fights of two characters in a row."""
    n, version = wanted
    chars = (_CHARS[n % len(_CHARS)], _CHARS[n // 2 % len(_CHARS)])
    if n % 11 == 5 and version != ALIKE:
        chars = ("ice_climbers", chars[1])
    games = [
        parse(make_game(100 * n + fight, version=version, chars=chars, stage="battlefield").slp)
        for fight in range(FIGHTS)
    ]
    first = games[0].table
    alike = [g.table for g in games if g.table.schema.equals(first.schema)]
    table = pa.concat_tables(alike).combine_chunks()
    at = table.column_names.index("frame")
    frames = pa.array(range(-123, len(table) - 123), first["frame"].type)
    table = table.set_column(at, table.schema.field(at), frames)
    parquet = encode_game(table, games[0].footer)
    digest = hashlib.sha256(parquet)
    file = GameFile(digest.hexdigest()[:32], len(parquet), digest.digest(), zlib.crc32(parquet))
    rows = game_rows(table, games[0].footer, file)
    return Source(parquet, rows, len(table), str(rows["games"][0]["leaf_set"]))


def _copies(layout: Layout, sources: list[Source], games: int) -> Iterator[Rows]:
    """Write the files, some hundred a batch, and yield their rows."""
    batch: Rows = {}
    for n in range(games):
        source = sources[n % len(sources)]
        new = {"game_id": catalog_rows.game_id(1, n), "natural_key": catalog_rows.game_id(2, n)}
        path = layout.game_path(new["game_id"])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.parquet)
        for name, rows in source.rows.items():
            changed: list[Any] = [
                {key: new.get(key, value) for key, value in row.items()} for row in rows
            ]
            batch.setdefault(name, []).extend(changed)
        if n % catalog_rows.BATCH == catalog_rows.BATCH - 1 or n == games - 1:
            yield batch
            batch = {}


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder beside the kept stores, on the same disk."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=FOLDER)
