"""Games one by one: listed page by page, described, and their files."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import NotFoundError, UsageError
from schemas.records import version_text
from service.auth import authorised
from service.browse import Snapshot, View, json_response
from service.datasets import PARQUET
from service.errors import RESPONSES
from service.parts import Source
from service.routes import serves_bytes
from service.state import Service, Shared
from store.catalog import HEX_ID, Catalog

router = APIRouter(
    prefix="/v1", tags=["games"], responses=RESPONSES, dependencies=[Depends(authorised)]
)
GameId = Annotated[str, Path(description="32 hex digits", pattern="^[0-9a-f]{32}$")]
ORDERS = {
    "date": "coalesce(epoch_us(started_at), 0)",
    "frames": "n_frames",
    "game_id": "0",
}
"""Order of games -> whole number to sort by; game_id decides between equals."""


class PageQuery(BaseModel):
    """Which games, in which order."""

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(None, description="filter", examples=["char='fox' and stage='fd'"])
    order: Literal["date", "-date", "frames", "-frames", "game_id", "-game_id"] = "-date"
    after: str | None = Field(None, description="`next` of the page before", max_length=200)
    limit: int = Field(100, ge=1, description="games on a page; the service has a maximum")
    snapshot: Snapshot = None
    recordings: Literal["one", "all"] = "one"


@router.get("/games", response_class=Response)
async def games(
    request: Request, service: Shared, asked: Annotated[PageQuery, Query()]
) -> Response:
    """Games that match on either side, page by page; all pages are of one snapshot."""
    place = _Place.read(asked.after) if asked.after else None
    limit = min(asked.limit, service.settings.page_games_max)
    base = service.base_url(request)

    def page() -> dict[str, Any]:
        at = place.snapshot if place else asked.snapshot
        view = View(asked.query, service.catalog.check_snapshot(at), asked.recordings)
        return _page(service.catalog, view, _Sorting(asked.order, place, limit), base)

    return json_response(await service.in_store(page))


@dataclass(frozen=True)
class _Place:
    """Where a page ends."""

    snapshot: int
    key: int
    game_id: str

    def text(self) -> str:
        """The place as a client hands it back."""
        packed = json.dumps([self.snapshot, self.key, self.game_id]).encode()
        return base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def read(cls, text: str) -> "_Place":
        """Raises UsageError."""
        try:
            snapshot, key, game_id = json.loads(base64.urlsafe_b64decode(text))
            int(key).to_bytes(8, signed=True)  # OverflowError: no page ends there
            return cls(int(snapshot), int(key), bytes.fromhex(game_id).hex())
        except (ValueError, TypeError, binascii.Error, RecursionError, OverflowError):
            raise UsageError("`after` is not the `next` of a page") from None


@dataclass(frozen=True)
class _Sorting:
    order: str
    after: _Place | None
    limit: int

    def sql(self) -> tuple[str, list[Any]]:
        """The end of a SELECT from `listed`, one row more than the page has."""
        way, sign = ("desc", "<") if self.order.startswith("-") else ("asc", ">")
        where, values = "", list[Any]()
        if self.after is not None:
            where = f"where (key, game_id) {sign} (?, ?)"
            values = [self.after.key, self.after.game_id]
        tail = f"{where} order by key {way}, game_id {way} limit {self.limit + 1}"
        return f"select * from listed {tail}", values


def _page(catalog: Catalog, view: View, sorting: _Sorting, base: str) -> dict[str, Any]:
    head, values = view.sql(catalog)
    key = ORDERS[sorting.order.removeprefix("-")]
    tail, more = sorting.sql()
    found = catalog.query(
        f"{head}, listed as (select * replace ({HEX_ID} as game_id), {key} as key"
        f" from {catalog.at('games', view.snapshot)} semi join shown using (game_id, rev, rewrite))"
        f" {tail}",
        [*values, *more],
    )
    rows = found.slice(0, sorting.limit)
    listed = _with_players(catalog, rows, view.snapshot, base)
    last = None
    if len(found) > sorting.limit:
        end = rows.slice(len(rows) - 1).to_pylist()[0]
        last = _Place(view.snapshot, end["key"], end["game_id"]).text()
    return {"snapshot": view.snapshot, "games": listed, "next": last}


def _with_players(
    catalog: Catalog, games: pa.Table, snapshot: int, base: str
) -> list[dict[str, Any]]:
    """Games as JSON objects, each with its two players and the address of its file."""
    wanted = games.select(["game_id", "rev"])
    players = catalog.query(
        f"select * replace ({HEX_ID} as game_id) from {catalog.at('players', snapshot)}"
        " semi join (select cast(game_id as uuid) as game_id, rev from wanted) using (game_id, rev)"
        " order by side",
        wanted=wanted,
    ).to_pylist()
    sides: dict[str, list[dict[str, Any]]] = {}
    for player in players:
        player.pop("rev")
        sides.setdefault(player.pop("game_id"), []).append(player)
    listed = []
    for game in games.drop_columns(["key"]).to_pylist():
        game_id = game["game_id"]
        game["natural_key"] = str(game["natural_key"]).replace("-", "")
        game["version"] = version_text(game["version"])
        game["players"] = sides.get(game_id, [])
        game["parquet_url"] = f"{base}/v1/games/{game_id}.parquet"
        listed.append(game)
    return listed


@serves_bytes(router, "/games/{game_id}.parquet", PARQUET)
async def game_file(request: Request, service: Shared, game_id: GameId) -> Response:
    """A game file: one row a frame, everything that the replay holds."""
    source = await service.in_store(_game_file, service, game_id)
    return service.respond(request, source, PARQUET)


def _game_file(service: Service, game_id: str) -> Source:
    found = _game(service.catalog, game_id, service.catalog.snapshot())
    game = found.select(["rev", "parquet_bytes", "parquet_sha256"]).to_pylist()[0]
    path, size = service.layout.game_path(game_id, game["rev"]), game["parquet_bytes"]
    if not path.exists():
        raise NotFoundError(f"the file of game {game_id} is not there", "meleewm verify")
    return Source([(path, size)], size, f'"{game["parquet_sha256"].hex()[:32]}"')


@router.get("/games/{game_id}", response_class=Response)
async def game(
    request: Request, service: Shared, game_id: GameId, snapshot: Snapshot = None
) -> Response:
    """All that the catalog knows of a game."""

    def describe() -> dict[str, Any]:
        at = service.catalog.check_snapshot(snapshot)
        found = _game(service.catalog, game_id, at)
        return _with_players(service.catalog, found, at, service.base_url(request))[0]

    return json_response(await service.in_store(describe))


def _game(catalog: Catalog, game_id: str, snapshot: int) -> pa.Table:
    """The newest revision of a game as of a snapshot, one row. Raises NotFoundError."""
    found = catalog.query(
        f"select * replace ({HEX_ID} as game_id), 0 as key from {catalog.at('games', snapshot)}"
        " where game_id = cast(? as uuid) and game_id not in"
        f" (select game_id from {catalog.at('removals', snapshot)})"
        " order by rev desc, rewrite desc limit 1",
        [game_id],
    )
    if not len(found):
        raise NotFoundError(f"there is no game {game_id}", "GET /v1/games lists them")
    return found
