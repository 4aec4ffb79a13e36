"""What a store holds, in figures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from schemas.records import version_text
from store.catalog import Catalog
from store.layout import PLAIN, Layout, names_kept
from store.select import live_games
from store.verify.columns import GAMES_MIN
from store.verify.rows import silent_columns


def stats(layout: Layout, *, catalog: Catalog | None = None) -> dict[str, Any]:
    """Counts, sizes and suspicious columns of a store's newest snapshot, as JSON types."""
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return stats(layout, catalog=opened)
    snapshot = catalog.snapshot()
    games, sides = catalog.at("games", snapshot), catalog.at("perspectives", snapshot)
    live = live_games(games, catalog.at("removals", snapshot), "one")

    def counted(column: str, source: str) -> dict[str, int]:
        rows = catalog.query(
            f"select {column}, count(*) as n from {source} group by all order by n desc, 1"
        )
        return {str(k): n for k, n in zip(*(c.to_pylist() for c in rows.columns), strict=True)}

    shown = f"(select * from {games} semi join ({live}) using (game_id, rev, rewrite))"
    shown_sides = f"(select * from {sides} semi join ({live}) using (game_id, rev, rewrite))"
    (totals,) = catalog.query(
        "select count(*) as games, coalesce(sum(n_frames), 0)::bigint as frames,"
        f" coalesce(sum(parquet_bytes), 0)::bigint as game_bytes from {shown}"
    ).to_pylist()
    names = names_kept(layout)
    return {
        "snapshot": snapshot,
        **totals,
        "hours": round(totals["frames"] / 60 / 3600, 2),
        "catalog_bytes": _disk_bytes(layout.catalog.parent.glob("catalog.sqlite*"))
        + _disk_bytes(layout.tables.rglob("*.parquet")),
        "names": "plain" if names == PLAIN else f"keyed hashes ({names})",
        "characters": counted("char", shown_sides),
        "stages": counted("stage", shown),
        "versions": {
            version_text(int(k)) if k != "None" else k: n
            for k, n in counted("version", shown).items()
        },
        "replays": counted("outcome", catalog.at("replays", snapshot)),
        "refused": counted(
            "rule", f"(from {catalog.at('replays', snapshot)} where outcome = 'refused')"
        ),
        "suspicious_columns": [
            f"{f.where}: {f.detail}" for f in silent_columns(catalog, GAMES_MIN)
        ],
    }


def _disk_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
