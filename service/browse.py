"""Looking around: health, counts, snapshots, and what every column means."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from schemas import names, query
from schemas.columns import GROUPS
from schemas.filters import FILTERS
from schemas.records import TABLES, version_text
from service.auth import authorised
from service.errors import RESPONSES
from service.state import Shared
from store.catalog import Catalog
from store.encode import to_json
from store.select import games_near, live_games

probe = APIRouter(prefix="/v1", tags=["service"], responses=RESPONSES)
router = APIRouter(
    prefix="/v1", tags=["browse"], responses=RESPONSES, dependencies=[Depends(authorised)]
)
Filter = Annotated[
    str | None, Query(alias="query", description="filter", examples=["char='fox' and stage='fd'"])
]
Snapshot = Annotated[int | None, Query(ge=0, description="default: the newest")]
Recordings = Annotated[Literal["one", "all"], Query()]

FACETS = {
    "char": "char",
    "opp_char": "opp_char",
    "stage": "stage",
    "version": "version",
    "month": "strftime(started_at, '%Y-%m')",
    "rank": "rank",
}


@dataclass(frozen=True)
class View:
    """What a listing shows: games and sides that match, as of a snapshot."""

    query: str | None
    snapshot: int
    recordings: str

    def sql(self, catalog: Catalog) -> tuple[str, list[Any]]:
        """Common table expressions `shown` (perspectives) and `live` with their values.

        Raises QueryError.
        """
        where, values = query.to_sql(query.parse(self.query or ""))
        games, removals, sides = (
            catalog.at(name, self.snapshot) for name in ("games", "removals", "perspectives")
        )
        once = catalog.each_game_once(self.snapshot)
        near = games_near(games, "matched", self.recordings, once)
        live = live_games("rows", removals, self.recordings)
        return (
            f"with matched as (select * from {sides} where {where}),"
            f" rows as (select * from {near}), live as ({live}),"
            " shown as (select * from matched semi join live using (game_id, rev, rewrite))"
        ), list(values)


def json_response(value: object) -> Response:
    """A JSON document, by our own encoder."""
    return Response(to_json(value), media_type="application/json")


# --- service and schema --------------------------------------------------------------------------


@probe.get("/health", response_class=Response)
async def health(service: Shared) -> Response:
    """Whether the service answers and its catalog can be read; needs no token."""
    snapshot = await service.in_store(service.catalog.snapshot)
    return json_response({"status": "ok", "version": version("meleewm"), "snapshot": snapshot})


@router.get("/schema", response_class=Response)
async def schema() -> Response:
    """Every table, column and name: types, units, meanings, and what a query may name."""
    return json_response(_SCHEMA)


def _schema() -> dict[str, Any]:
    return {
        "tables": {
            name: [{"name": f.name, "type": f.sql, "meaning": f.meaning} for f in fields]
            for name, fields in TABLES.items()
        },
        "columns": [
            {
                "group": group,
                "name": column.name,
                "type": str(column.type),
                "unit": column.unit,
                "since": ".".join(map(str, column.since)),
                "meaning": column.meaning,
            }
            for group, columns in GROUPS.items()
            for column in columns
        ],
        "filters": [
            {"name": f.name, "kind": f.kind, "aliases": list(f.aliases), "help": f.help}
            for f in FILTERS.values()
        ],
        "characters": names.CHARACTERS,
        "stages": names.STAGES,
        "items": names.ITEMS,
        "attacks": names.ATTACKS,
    }


_SCHEMA = _schema()


@router.get("/snapshots", response_class=Response)
async def snapshots(service: Shared) -> Response:
    """Every commit of the store, oldest first, with what it added."""
    return json_response({"snapshots": await service.in_store(service.catalog.snapshots)})


# --- counts --------------------------------------------------------------------------------------


@router.get("/facets", response_class=Response)
async def facets(
    service: Shared, text: Filter = None, snapshot: Snapshot = None, recordings: Recordings = "one"
) -> Response:
    """How many games and perspectives match, by character, stage, version, month, rank."""
    return json_response(
        await service.in_store(_facets, service.catalog, text, snapshot, recordings)
    )


def _facets(
    catalog: Catalog, text: str | None, snapshot: int | None, recordings: str
) -> dict[str, Any]:
    view = View(text, catalog.check_snapshot(snapshot), recordings)
    head, values = view.sql(catalog)
    counts = "count(*) as perspectives, count(distinct game_id) as games from shown"
    each = [
        f"select '{name}' as facet, cast({sql} as varchar) as value, {counts} group by all"
        for name, sql in FACETS.items()
    ]
    total = f"select '' as facet, '' as value, {counts}"
    listed = catalog.query(
        f"{head} {' union all '.join([total, *each])} order by facet, perspectives desc, value",
        values,
    )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("", *FACETS)}
    for row in listed.to_pylist():
        if row["facet"] == "version" and row["value"] is not None:
            row["value"] = version_text(int(row["value"]))
        found[row.pop("facet")].append(row)
    (whole,) = found.pop("")
    counted = {"games": whole["games"], "perspectives": whole["perspectives"]}
    return {"snapshot": view.snapshot, **counted, "facets": found}
