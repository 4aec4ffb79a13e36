"""Known replays are not read again, and what was refused is, once there is a reason to."""

from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import ingest, known
from ingest.workers.known import Known
from schemas.game import REVISION
from store.catalog import Catalog
from store.layout import open_layout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole replay, its copy, a damaged one, and a picture."""
    out = tmp_path / "replays"
    out.mkdir()
    whole = make_game(1, n_frames=200).slp
    (out / "a.slp").write_bytes(whole)
    (out / "b.slp").write_bytes(whole)
    (out / "cut.slp").write_bytes(make_game(2, n_frames=200).slp[:5_000])
    (out / "picture.slp").write_bytes(b"\x89PNG")
    return out


def ledger(store: Path, columns: str = "outcome, rule, rev") -> list[tuple[object, ...]]:
    sql = f"select source, {columns} from lake.replays order by all"
    with Catalog(open_layout(store), read_only=True) as catalog:
        rows = catalog.query(sql).to_pylist()
    return [(Path(str(source)).name, *rest) for source, *rest in (row.values() for row in rows)]


def test_each_place_is_named_once(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest([folder], store, workers=1)
    expected = ledger(store)
    assert [row[:2] for row in expected] == [
        ("a.slp", "stored"), ("b.slp", "known"), ("cut.slp", "repaired"), ("picture.slp", "refused")
    ]  # fmt: skip
    assert ingest([folder], store, workers=2).known == 4
    assert ledger(store) == expected
    (folder / "c.slp").write_bytes((folder / "cut.slp").read_bytes())
    assert ingest([folder], store, workers=2).known == 5
    assert ledger(store) == sorted([*expected, ("c.slp", "known", None, REVISION)])


def test_of_copies_in_two_workers_one_is_stored(tmp_path: Path) -> None:
    slp = make_game(1, n_frames=2_000).slp
    paths = [tmp_path / f"{n}.slp" for n in range(4)]
    for path in paths:
        path.write_bytes(slp)
    summary = ingest(paths, tmp_path / "store", workers=2)
    assert (summary.files, summary.stored, summary.known) == (4, 1, 3)


def test_a_declined_repair_is_made_by_an_ingest_that_repairs(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    declined = Options(repair=False)
    assert ingest([folder], store, workers=1, options=declined).refused["needs_repair"] == 1
    assert ingest([folder], store, workers=1, options=declined).known == 4
    assert len(ledger(store)) == 4
    again = ingest([folder], store, workers=1)
    assert (again.repaired, again.known) == (1, 3)
    rows = [row for row in ledger(store) if row[0] == "cut.slp"]
    assert {row[1] for row in rows} == {"refused", "repaired"}
    assert ingest([folder], store, workers=1, options=declined).known == 4
    assert len(ledger(store)) == 5


def test_rules_of_another_revision_judge_only_refusals_anew(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    old = Options(revision=REVISION - 1)
    ingest([folder], store, workers=1, options=old)
    assert {row[3] for row in ledger(store)} == {REVISION - 1}
    summary = ingest([folder], store, workers=1)
    assert (summary.known, dict(summary.refused)) == (3, {"not_a_replay": 1})
    names = [row[0] for row in ledger(store) if row[3] == REVISION]
    assert names == ["picture.slp"]


def test_a_set_of_replays_holds_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_RECENT_MAX", 8)
    rng = Random(1)
    # ids that share their first half too
    ids = [rng.choice([b"a" * 8, rng.randbytes(8)]) + rng.randbytes(8) for _ in range(100)]
    first = pa.chunked_array([pa.array(ids[:30]), pa.array(ids[:60])[30:]], pa.binary())
    have = Known(first)
    assert not any(have.claim(one + bytes(16)) for one in ids[:60])
    assert all(have.claim(one + bytes(16)) for one in ids[60:])
    assert all(have.is_open(one + bytes(16)) for one in ids[60:])
    assert not any(have.claim(one + bytes(16)) for one in ids)
    have.settle(ids[99])
    assert not have.is_open(ids[99])
    assert have.claim(b"a" * 32)
    assert Known(pa.chunked_array([], pa.binary())).claim(ids[0])
