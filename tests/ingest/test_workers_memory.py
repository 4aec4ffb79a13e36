"""A replay that takes too much memory costs that replay; a long one does not."""

import queue
import struct
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest import sources
from ingest.slp import GAME_END, split
from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import ingest, process
from ingest.workers.feeders import Feeder, Shared
from ingest.workers.known import Known
from store.catalog import Catalog
from store.layout import open_layout

needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="watches workers in /proc")
FRAME_EVENTS = {0x37, 0x38, 0x3A, 0x3B, 0x3C}


def repeated(slp: bytes, times: int) -> bytes:
    """A well-formed replay whose frames are there over and over, as rollbacks without end."""
    (length,) = struct.unpack_from(">I", slp, 11)
    starts = [(code, offset - 1) for code, offset in split(slp).events]
    begin = next(at for code, at in starts if code in FRAME_EVENTS)
    stop = next(at for code, at in starts if code == GAME_END)
    raw = slp[15:begin] + slp[begin:stop] * times + slp[stop : 15 + length]
    return slp[:11] + struct.pack(">I", len(raw)) + raw + slp[15 + length :]


@needs_proc
@pytest.mark.slow
def test_memory_is_bounded_replay_by_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "replays", tmp_path / "store"
    folder.mkdir()
    game = make_game(1, n_frames=1_000).slp
    for name, slp in (
        ("a", game),
        ("b", repeated(game, 100_000_000 // len(game))),
        ("c", make_game(2, n_frames=200).slp),
    ):
        (folder / f"{name}.slp").write_bytes(slp)
    with monkeypatch.context() as patch:
        patch.setattr(process, "MEMORY_BYTES_MAX", 220_000_000)
        summary = ingest([folder], store, workers=1)
    assert (summary.stored, dict(summary.refused)) == (2, {"out_of_memory": 1})
    with Catalog(open_layout(store), read_only=True) as catalog:
        sql = "select source, detail, sha256 from lake.replays where outcome = 'refused'"
        (row,) = catalog.query(sql).to_pylist()
    assert row["source"].endswith("b.slp")
    assert "220 MB" in row["detail"]
    assert row["sha256"] is not None
    assert ingest([folder], store, workers=1).known == 3, "it would take as much again"
    assert ingest([folder], tmp_path / "other", workers=1).stored == 3


def test_results_that_wait_hold_no_replays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.slp", make_game(1, n_frames=200).slp)
    layout = open_layout(tmp_path / "store", create=True)
    results: queue.Queue[Any] = queue.Queue()
    nothing = Known(pa.chunked_array([], pa.binary()))
    feeder = Feeder(
        layout, Options(), Shared(sources.items([tmp_path / "one.zip"]), nothing), results
    )
    feeder.start()
    item, outcome = results.get(timeout=120)
    assert (item.member, item.data, outcome.name) == ("a.slp", None, "stored")
    assert results.get(timeout=120) is None
    feeder.join()
