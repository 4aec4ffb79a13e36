"""What a store holds in figures, and what is taken out of it: remove, then vacuum."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import NotFoundError
from schemas.records import TABLES, version_text
from store.catalog import HEX_ID, Catalog
from store.layout import PLAIN, Layout, names_kept, write_atomic
from store.select import live_games
from store.verify.columns import GAMES_MIN
from store.verify.files import GAME_FILE, on_disk
from store.verify.rows import silent_columns

_NAMED_MAX = 3

# --- remove -------------------------------------------------------------------------------------


def remove(
    layout: Layout, game_ids: Sequence[str], reason: str | None, *, catalog: Catalog
) -> list[str]:
    """Take games out of all later snapshots, rebuilt catalogs included; returns those that were in.

    A removed game stays out when its replay is ingested again; its file and rows stay for older
    snapshots until `vacuum`. Raises NotFoundError, with nothing done, for ids that the store has
    not.
    """
    known = _ids(catalog, "games")
    if unknown := sorted(set(game_ids) - known):
        more = f" and {len(unknown) - _NAMED_MAX} more" if len(unknown) > _NAMED_MAX else ""
        message = f"there is no game {', '.join(unknown[:_NAMED_MAX])}{more}"
        raise NotFoundError(message, "nothing was removed")
    removed = _ids(catalog, "removals")
    new = sorted(set(game_ids) - removed)
    at = datetime.now(UTC).replace(tzinfo=None)
    rows = [{"game_id": game_id, "removed_at": at, "reason": reason} for game_id in new]
    # The mark first: a removal without it would come back by a rebuild.
    for row in rows:
        write_atomic(layout.removed_path(str(row["game_id"])), removal_mark(row))
    if rows:
        catalog.commit({"removals": list(rows)})
    return new


def removal_mark(row: Mapping[str, Any]) -> bytes:
    """What stands in a .removed file: the row of `removals`, so that a rebuild has it again."""
    at = row["removed_at"]
    said = {"game_id": row["game_id"], "removed_at": at and at.isoformat(), "reason": row["reason"]}
    return json.dumps(said, ensure_ascii=False).encode()


def _ids(catalog: Catalog, table: str) -> set[str]:
    found = catalog.query(f"select distinct {HEX_ID} as id from lake.{table}")
    return set(found.column(0).to_pylist())


# --- vacuum -------------------------------------------------------------------------------------


@dataclass
class Waste:
    """What `vacuum` deletes: snapshots, game files and tables' files that only they need."""

    snapshots: int = 0
    games: int = 0
    game_files: list[Path] = field(default_factory=list)
    game_bytes: int = 0
    table_files: int = 0
    table_bytes: int = 0
    kept_bytes: int = 0

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to do."""
        return not any(vars(self).values())


def waste(layout: Layout, *, catalog: Catalog) -> Waste:
    """What a vacuum would delete now."""
    removed = _ids(catalog, "removals")
    files = [
        path
        for path, kind in on_disk(layout)
        if kind == "game" and path.name.partition(".")[0] in removed
    ]
    needed = catalog.files_in_use()
    tables = [p for p in layout.tables.rglob("*.parquet") if p.name not in needed]
    return Waste(
        snapshots=len(catalog.snapshots()) - 1,
        games=len(removed & _ids(catalog, "games")),
        game_files=files,
        game_bytes=_disk_bytes(files),
        table_files=len(tables),
        table_bytes=_disk_bytes(tables),
        kept_bytes=_disk_bytes(p for p in _kept(layout).rglob("*") if p.is_file()),
    )


def vacuum(layout: Layout, *, catalog: Catalog) -> Waste:
    """Delete what `waste` names: only the newest snapshot answers afterwards.

    Rows and files of removed games go; their marks and their rows in `removals` and the ledger stay
    (the ledger has places and hashes, no names), so that they never come back by themselves.
    """
    found = waste(layout, catalog=catalog)
    removed = sorted(_ids(catalog, "removals"))
    catalog.remove_rows(removed)  # rows first: a row without its file would be damage
    for path in found.game_files:
        path.unlink(missing_ok=True)
    catalog.compact(files_max=1)
    catalog.expire()
    if _kept(layout).exists():
        shutil.rmtree(_kept(layout))
    return found


def _kept(layout: Layout) -> Path:
    return layout.root / "catalog.old"


# --- stats --------------------------------------------------------------------------------------


def stats(layout: Layout, *, catalog: Catalog | None = None) -> dict[str, Any]:
    """Counts, sizes and suspicious columns of a store's newest snapshot, as JSON types."""
    if catalog is None:
        with Catalog(layout, read_only=True) as opened:
            return stats(layout, catalog=opened)
    snapshot = catalog.snapshot()
    at = {name: catalog.at(name, snapshot) for name in TABLES}
    live = live_games(at["games"], at["removals"], "one")

    def shown(name: str) -> str:
        return f"(select * from {at[name]} semi join ({live}) using (game_id, rev, rewrite))"

    def counted(column: str, source: str, where: str = "true") -> dict[str, int]:
        rows = catalog.query(
            f"select {column}, count(*) as n from {source} where {where}"
            " group by all order by n desc, 1"
        )
        return {
            "unknown" if k is None else str(k): n
            for k, n in zip(*(c.to_pylist() for c in rows.columns), strict=True)
        }

    games, sides = shown("games"), shown("perspectives")
    (totals,) = catalog.query(
        "select count(*) as games, coalesce(sum(n_frames), 0)::bigint as frames,"
        " count(*) filter (repaired) as repaired,"
        " count(*) filter (newer_than_parser) as newer_than_parser,"
        f" coalesce(sum(parquet_bytes), 0)::bigint as game_bytes from {games}"
    ).to_pylist()
    replays = at["replays"]
    return {
        "snapshot": snapshot,
        **totals,
        "hours": round(totals["frames"] / 60 / 3600, 2),
        **_also(catalog, totals["games"], at),
        **_personal(layout, catalog, sides),
        "characters": counted("char", sides),
        "stages": counted("stage", games),
        "versions": {
            version_text(int(k)) if k.isdigit() else k: n
            for k, n in counted("version", games).items()
        },
        "modes": counted("mode", games),
        "end_methods": counted("end_method", games),
        "replays": counted("outcome", replays),
        "refused": counted("rule", replays, "outcome = 'refused'"),
        "repairs": counted(
            "repair",
            "(select unnest(string_split(detail, ', ')) as repair"
            f" from {replays} where outcome = 'repaired')",
        ),
        "disk": _disk(layout),
        "suspicious_columns": [
            f"{f.where}: {f.detail}" for f in silent_columns(catalog, GAMES_MIN)
        ],
    }


def _also(catalog: Catalog, shown: int, at: Mapping[str, str]) -> dict[str, Any]:
    """Games that a query does not see, and why."""
    (row,) = catalog.query(
        f"select (select count(distinct game_id) from {at['removals']}) as removed,"
        f" (select count(distinct game_id) from {at['games']} where game_id not in"
        f"   (select game_id from {at['removals']})) as kept"
    ).to_pylist()
    return {"other_recordings": row["kept"] - shown, "removed": row["removed"]}


def _personal(layout: Layout, catalog: Catalog, sides: str) -> dict[str, Any]:
    """Whether names are as they were, and how many connect codes and names there are."""
    names = names_kept(layout)
    (row,) = catalog.query(
        f"select count(distinct code) as connect_codes, count(distinct name) as display_names"
        f" from {sides}"
    ).to_pylist()
    return {"names": "plain" if names == PLAIN else f"keyed hashes ({names})", **row}


def _disk(layout: Layout) -> dict[str, int]:
    """Bytes by what they are; game files include those that only older snapshots show."""
    sizes = {"game_files": 0, "catalog.sqlite": 0}
    for path, _ in on_disk(layout):
        if GAME_FILE.fullmatch(path.name):
            sizes["game_files"] += path.stat().st_size
    sizes["catalog.sqlite"] = _disk_bytes(layout.catalog.parent.glob("catalog.sqlite*"))
    for name in TABLES:
        sizes[f"tables/{name}"] = _disk_bytes((layout.tables / "main" / name).rglob("*.parquet"))
    sizes["datasets"] = _disk_bytes(layout.datasets.glob("*"))
    if _kept(layout).exists():
        sizes["catalog.old"] = _disk_bytes(p for p in _kept(layout).rglob("*") if p.is_file())
    return sizes


def _disk_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
