"""Stores of every released format answer for ever as they did: ids, shards byte by byte, SQL."""

import json
from pathlib import Path

import pytest

from schemas.errors import StoreError
from store.layout import FORMAT, open_layout
from store.verify import verify
from tests.golden_store import GOLDEN, said, unpacked

ARCHIVES = sorted(GOLDEN.glob("store_format_*.tar.xz"))


def test_every_released_format_has_its_store() -> None:
    assert [path.name for path in ARCHIVES] == [
        f"store_format_{n}.tar.xz" for n in range(1, FORMAT + 1)
    ]
    assert all(path.stat().st_size < 200_000 for path in ARCHIVES)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_a_store_of_a_released_format_answers_as_ever(archive: Path, tmp_path: Path) -> None:
    layout = unpacked(archive, tmp_path)
    expected = json.loads((GOLDEN / archive.name.replace(".tar.xz", ".json")).read_text("utf-8"))
    assert said(layout) == expected
    assert [f for f in verify(layout) if f.is_damage] == []


def test_a_newer_format_is_refused_in_one_line(tmp_path: Path) -> None:
    layout = unpacked(ARCHIVES[-1], tmp_path)
    marker = json.loads(layout.marker.read_bytes())
    newer = {**marker, "format": FORMAT + 2, "min_reader": FORMAT + 1}
    layout.marker.write_text(json.dumps(newer))
    with pytest.raises(StoreError, match=f"format {FORMAT + 2}.*newer meleewm"):
        open_layout(layout.root)
    # one that older code may still read
    layout.marker.write_text(json.dumps({**newer, "min_reader": FORMAT}))
    assert open_layout(layout.root) == layout
