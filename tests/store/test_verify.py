"""verify names each kind of damage, and columns that say nothing."""

import json
from pathlib import Path

import pytest

from store.catalog import Catalog
from store.layout import Layout
from store.verify import stats, verify
from tests.store.makers import make_game, make_store

GAMES = [make_game(n, version=(3, 14) if n % 2 else (2, 0)) for n in range(6)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_store(tmp_path / "melee", [GAMES])


def _damage(layout: Layout) -> list[tuple[str, str]]:
    return [(f.kind, f.where.partition(".")[0]) for f in verify(layout) if f.is_damage]


def test_sound_store(layout: Layout) -> None:
    seen: list[tuple[int, int]] = []
    findings = verify(layout, progress=lambda *step: seen.append(step))
    assert [f for f in findings if f.is_damage] == []
    assert seen == [(n, 6) for n in range(1, 7)]


def test_damage_is_named(layout: Layout) -> None:
    flipped, cut, gone = (layout.game_path(game.game_id) for game in GAMES[:3])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-10])
    gone.unlink()
    assert sorted(_damage(layout)) == sorted(
        [
            ("checksum", GAMES[0].game_id),
            ("size", GAMES[1].game_id),
            ("missing", GAMES[2].game_id),
        ]
    )


def test_a_file_without_a_row_is_named_and_no_damage(layout: Layout) -> None:
    orphan = layout.games / "ff" / f"{'f' * 32}.1.parquet"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"PAR1")
    assert orphan.name in {f.where for f in verify(layout) if f.kind == "orphan"}
    assert _damage(layout) == []


def test_a_row_that_does_not_fit_its_file(tmp_path: Path) -> None:
    game = make_game(1)
    row = {**game.rows["games"][0], "n_frames": 7}
    layout = make_store(tmp_path / "melee", [])
    with Catalog(layout) as catalog:
        catalog.commit({**game.rows, "games": [row]})
    path = layout.game_path(game.game_id)
    path.parent.mkdir()
    path.write_bytes(game.parquet)
    ((kind, where),) = _damage(layout)
    assert (kind, where) == ("schema", game.game_id)


def test_constant_and_empty_columns_are_named(layout: Layout) -> None:
    found = {(f.kind, f.where) for f in verify(layout)}
    assert ("constant", "game files: items.type") in found
    assert ("all_null", "games.match_id") in found
    assert ("constant", "item_counts.type") in found
    named = {where for _, where in found}
    assert "game files: p0.percent" not in named
    assert "game files: frame" not in named
    assert "games.stage" not in named


def test_stats(layout: Layout) -> None:
    with Catalog(layout) as catalog:
        removal = {"game_id": GAMES[0].game_id, "removed_at": None, "reason": "asked"}
        refused = {
            **GAMES[0].rows["replays"][0],
            "source": "x",
            "outcome": "refused",
            "rule": "solo",
        }
        catalog.commit({"removals": [removal], "replays": [refused]})
    found = stats(layout)
    assert json.loads(json.dumps(found)) == found
    assert found["games"] == 5
    assert found["frames"] == 200
    assert sum(found["characters"].values()) == 10
    assert found["versions"] == {"3.14.0": 3, "2.0.0": 2}
    assert found["replays"] == {"stored": 6, "refused": 1}
    assert found["refused"] == {"solo": 1}
    assert found["game_bytes"] == sum(len(game.parquet) for game in GAMES[1:])
    assert any("match_id" in text for text in found["suspicious_columns"])


def test_empty_store(tmp_path: Path) -> None:
    layout = make_store(tmp_path / "melee", [])
    assert verify(layout) == []
    assert stats(layout)["games"] == 0
