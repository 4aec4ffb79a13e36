"""Games are parsed anew from where they lay; old locks keep what they named."""

import gzip
import shutil
import zipfile
from pathlib import Path

import pytest

from ingest.synthetic import make_game
from ingest.worker import Options
from ingest.workers import ingest, reparse
from meleewm.cli import main
from schemas.errors import UsageError
from schemas.game import REVISION
from schemas.shard import Request
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.parquet import read_footer
from store.select import from_lock, select
from store.verify import verify
from tests.kills import game_files, tables

OLD = Options(revision=REVISION - 1)
NEW_COUNTS = {"stored": 4, "repaired": 1}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A whole and a damaged replay, one packed alone, two in an archive, and one that is none."""
    out = tmp_path / "replays"
    out.mkdir()
    (out / "a.slp").write_bytes(make_game(1, n_frames=150).slp)
    (out / "cut.slp").write_bytes(make_game(2, n_frames=150).slp[:5_000])
    (out / "b.slp.gz").write_bytes(gzip.compress(make_game(3, n_frames=150).slp))
    (out / "picture.slp").write_bytes(b"\x89PNG")
    with zipfile.ZipFile(out / "two.zip", "w") as archive:
        archive.writestr("c.slp", make_game(4, n_frames=150).slp)
        archive.writestr("d.slp", make_game(5, n_frames=150).slp)
    return out


@pytest.fixture
def store(inputs: Path, tmp_path: Path) -> Path:
    """As an older release would have left it."""
    summary = ingest([inputs], tmp_path / "store", workers=1, options=OLD)
    assert (summary.stored, summary.repaired, summary.files) == (4, 1, 6)
    return tmp_path / "store"


def revisions(layout: Layout) -> list[int]:
    """Of the games that a query sees."""
    return sorted(member.rev for member in select(layout, Request()).members)


@pytest.mark.slow
def test_all_games_get_the_new_revision(inputs: Path, store: Path, tmp_path: Path) -> None:
    layout = open_layout(store)
    before, old_files = select(layout, Request()), game_files(store)
    summary = reparse(store, workers=2)
    assert (summary.stored, summary.repaired, summary.known) == (4, 1, 0)
    assert not summary.refused
    assert not summary.missing
    assert revisions(layout) == [REVISION] * 5
    assert {m.rev for m in from_lock(layout, before.lock()).members} == {REVISION - 1}
    assert select(layout, Request()).dataset_id != before.dataset_id
    # besides the old files there are those of an ingest by this release
    ingest([inputs], tmp_path / "peace", workers=1)
    assert game_files(store) == old_files | game_files(tmp_path / "peace")
    for path in store.glob(f"games/*/*.{REVISION}.parquet"):
        assert read_footer(path)["rev"] == REVISION
    assert [f for f in verify(layout) if f.is_damage or f.kind == "orphan"] == []
    assert reparse(store, workers=1).known == 5
    assert ingest([inputs], store, workers=1).known == 5, "a picture is judged by today's rules"
    rows = tables(store)["replays"]
    assert set(tables(tmp_path / "peace")["replays"]) < set(rows)


@pytest.mark.slow
def test_a_query_chooses_and_what_is_gone_is_named(
    inputs: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = open_layout(store)
    with Catalog(layout) as catalog:
        sql = "select n_frames from lake.games where repaired"
        (frames,) = catalog.query(sql).column(0).to_pylist()
    arguments = ["ingest", "--reparse", "--query", f"n_frames = {frames}", "--store", str(store)]
    assert main([*arguments, "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 files: 0 stored, 1 repaired, 0 known, 0 refused\n")
    assert revisions(layout) == [REVISION - 1] * 4 + [REVISION]

    (inputs / "a.slp").unlink()
    (inputs / "b.slp.gz").write_bytes(gzip.compress(make_game(77, n_frames=150).slp))
    assert main(["ingest", "--reparse", "--store", str(store), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["3 files: 2 stored, 0 repaired, 1 known, 0 refused",
                         "2 games not found again where they lay:"]  # fmt: skip
    assert set(lines[2:4]) == {f"  1 of {inputs / 'a.slp'}", f"  1 of {inputs / 'b.slp.gz'}"}
    assert revisions(layout) == [REVISION - 1] * 2 + [REVISION] * 3


def test_another_place_of_the_same_replay_will_do(inputs: Path, store: Path) -> None:
    shutil.copy(inputs / "a.slp", inputs / "z.slp")
    ingest([inputs / "z.slp"], store, workers=1, options=OLD)
    (inputs / "a.slp").write_bytes(b"something else")
    summary = reparse(store, workers=1)
    assert (summary.stored, summary.repaired, dict(summary.missing)) == (4, 1, {})


def test_replays_that_moved_are_found_where_they_are(
    inputs: Path, store: Path, tmp_path: Path
) -> None:
    inputs.rename(tmp_path / "moved")
    lost = reparse(store, workers=1)
    assert (lost.files, lost.missing.total()) == (0, 5)
    summary = reparse(store, paths=[tmp_path / "moved"], workers=1)
    assert (summary.stored, summary.repaired, summary.missing.total()) == (4, 1, 0)


@pytest.mark.slow
def test_a_missing_file_of_this_revision_is_made_again(inputs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest([inputs], store, workers=1)
    layout, before = open_layout(store), game_files(store)
    same, other = sorted(store.glob("games/*/*.parquet"))[:2]
    same.unlink()
    other.unlink()
    game = other.name.partition(".")[0]
    _say_that_another_pyarrow_wrote(layout, game)
    summary = reparse(store, workers=1)
    assert (summary.stored + summary.repaired, summary.known) == (2, 3)
    assert game_files(store) == before
    assert [f for f in verify(layout) if f.is_damage or f.kind == "orphan"] == []
    with Catalog(layout, read_only=True) as catalog:
        sql = f"select rewrite from lake.games where game_id = '{game}' order by rewrite"
        assert catalog.query(sql).column(0).to_pylist() == [0, 1, 2]


def _say_that_another_pyarrow_wrote(layout: Layout, game: str) -> None:
    """Rows of a second writing of a game file, with other bytes."""
    with Catalog(layout) as catalog:
        rows = {
            name: [
                {**row, "game_id": game, "rewrite": 1}
                for row in catalog.query(
                    f"select * replace (replace(cast(natural_key as varchar), '-', '')"
                    f" as natural_key) from lake.{name} where game_id = '{game}'"
                ).to_pylist()
            ]
            for name in ("games", "perspectives")
        }
        rows["games"][0]["parquet_sha256"] = bytes(32)
        catalog.commit(rows)  # type: ignore[arg-type]


def test_what_cannot_be_meant_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "--store", str(store)]) == 2
    assert main(["ingest", "x", "--query", "char='fox'", "--store", str(store)]) == 2
    assert main(["ingest", "--reparse", "--query", "chr='fox'", "--store", str(store)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "no PATH" in said[0]
    assert "--reparse" in said[1]
    assert "char" in said[2]
    with pytest.raises(UsageError, match="key"):
        reparse(store, workers=1, options=Options(key=b"k" * 32))
