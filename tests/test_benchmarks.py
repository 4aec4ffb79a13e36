"""The benchmark of the store runs, small."""

from pathlib import Path

import pytest

from benchmarks import store


@pytest.mark.slow
def test_store_prints_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--games", "60", "--many", "0", "--files", "2", "--rounds", "1"]
    store.main([*sizes, "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    for figure in ("commits and merges", "catalog on disk", "filtered selection", "matchup",
                   "snapshots", "dataset over everything", "of one leaf set",
                   "of mixed leaf sets"):  # fmt: skip
        assert figure in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        "catalog-60-0.02", "games-2-alike", "games-2-mixed",
    }  # fmt: skip
