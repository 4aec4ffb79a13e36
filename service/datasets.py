"""Datasets: from a request or a lock to a manifest, its members and its shards."""

import dataclasses
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from schemas import shard
from schemas.errors import UsageError
from schemas.shard import Lock, Manifest
from service.auth import authorised
from service.cache import Held
from service.errors import RESPONSES
from service.routes import serves_bytes
from service.state import Service, Shared
from store.select import from_lock, load, save, select

router = APIRouter(
    prefix="/v1", tags=["datasets"], responses=RESPONSES, dependencies=[Depends(authorised)]
)
PARQUET = "application/vnd.apache.parquet"
DatasetId = Annotated[str, Path(description="32 hex digits", pattern="^[0-9a-f]{32}$")]


# --- work of the store's threads ----------------------------------------------------------------


def find(service: Service, dataset_id: str) -> Held:
    """A dataset by its id. Raises NotFoundError, MissingGamesError."""
    held = service.datasets.get(dataset_id)
    if held is None:
        held = service.datasets.put(load(service.layout, dataset_id, catalog=service.catalog))
    return held


def make(service: Service, asked: shard.Request | Lock) -> Held:
    """The dataset of a request or lock, kept so that its id answers from now on."""
    if isinstance(asked, Lock):
        selection = from_lock(service.layout, asked, catalog=service.catalog)
    else:
        selection = select(service.layout, asked, catalog=service.catalog)
    save(service.layout, selection)
    return service.datasets.put(selection)


def _located(held: Held, base: str) -> Manifest:
    """The manifest with absolute URLs."""
    at = f"{base}/v1/datasets/{held.selection.dataset_id}/"
    head = held.manifest
    shards = tuple(dataclasses.replace(one, url=at + one.url) for one in head.shards)
    return dataclasses.replace(head, shards=shards, members_url=at + head.members_url)


# --- endpoints -----------------------------------------------------------------------------------


class DatasetQuery(BaseModel):
    """A request for a dataset."""

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(None, description="filter; null for everything")
    snapshot: int | None = Field(None, description="null for the newest")
    content: Literal["games"] = "games"
    split: Literal["all", "train", "val", "test"] = "all"
    games_per_shard: int = shard.GAMES_PER_SHARD
    seed: int = 0
    limit: int | None = Field(None, description="at most that many games, chosen by the seed")
    recordings: Literal["one", "all"] = "one"

    def request(self) -> shard.Request:
        """The request. Raises UsageError."""
        return shard.Request.from_dict(self.model_dump(exclude={"lock"}))


class DatasetBody(DatasetQuery):
    """A request for a dataset, or a lock file that names one exactly."""

    lock: dict[str, Any] | None = Field(None, description="a lock file; it stands alone")

    def asked(self) -> "shard.Request | Lock":
        """What is asked for. Raises UsageError."""
        if self.lock is None:
            return self.request()
        if others := sorted(self.model_fields_set - {"lock"}):
            raise UsageError(f"a lock stands alone, '{others[0]}' beside it has no meaning")
        return Lock.from_json(json.dumps(self.lock))


_EXAMPLES: dict[str, Any] = {
    "fox": {"summary": "Every game of Fox, from Fox's side", "value": {"query": "char='fox'"}},
    "matchup": {
        "summary": "A hundred games of one matchup, as of snapshot 3",
        "value": {
            "query": "char='fox' and opp_char in ('marth','sheik') and stage='fd'",
            "snapshot": 3,
            "limit": 100,
        },
    },
}
_MANIFEST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "counts, shards with URL, size and ETag",
        "content": {"application/json": {}},
    }
}
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "shard URLs, one a line", "content": {"text/plain": {}}}
}


@router.post("/datasets", response_class=Response, responses=_MANIFEST)
async def create(
    request: Request,
    service: Shared,
    body: Annotated[DatasetBody, Body(openapi_examples=_EXAMPLES)],
) -> Response:
    """Turn a query into a dataset; the same games give the same id, in any store."""
    return await service.in_store(_manifest, service, body, service.base_url(request))


def _manifest(service: Service, asked: DatasetBody | str, base: str) -> Response:
    held = find(service, asked) if isinstance(asked, str) else make(service, asked.asked())
    return Response(_located(held, base).to_json(), media_type="application/json")


@router.get("/datasets/{dataset_id}", response_class=Response, responses=_MANIFEST)
async def manifest(request: Request, service: Shared, dataset_id: DatasetId) -> Response:
    """The manifest of a dataset that was asked for before, by whomever."""
    return await service.in_store(_manifest, service, dataset_id, service.base_url(request))


@serves_bytes(router, "/datasets/{dataset_id}/members.parquet", PARQUET)
async def members(request: Request, service: Shared, dataset_id: DatasetId) -> Response:
    """One row a game in dataset order: sides, lengths, shard, offset, size, checksums."""
    source = await service.in_store(lambda: find(service, dataset_id).members)
    return service.respond(request, source, PARQUET)


@serves_bytes(router, "/datasets/{dataset_id}/lock", "application/json")
async def lock(request: Request, service: Shared, dataset_id: DatasetId) -> Response:
    """The dataset as a lock file for git."""
    source = await service.in_store(lambda: find(service, dataset_id).lock)
    return service.respond(request, source, "application/json")


@serves_bytes(router, "/datasets/{dataset_id}/shards/{n}.tar", "application/x-tar")
async def one_shard(
    request: Request,
    service: Shared,
    dataset_id: DatasetId,
    n: Annotated[str, Path(description="number of the shard", pattern="^[0-9]{5,9}$")],
) -> Response:
    """One shard as a tar of `<game_id>.parquet` and `<game_id>.json`."""
    source = await service.in_store(lambda: find(service, dataset_id).tar(int(n)))
    return service.respond(request, source, "application/x-tar")


@router.get("/urls", response_class=PlainTextResponse, responses=_LINES)
async def urls(
    request: Request,
    service: Shared,
    asked: Annotated[DatasetQuery, Query()],
) -> Response:
    """Shard URLs of a query, one a line: what `wds.WebDataset` takes."""
    held = await service.in_store(lambda: make(service, asked.request()))
    shards = _located(held, service.base_url(request)).shards
    return PlainTextResponse("".join(f"{one.url}\n" for one in shards))
