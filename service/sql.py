"""POST /v1/sql: one SELECT in a guarded process of its own, a bounded number at once."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from service.auth import authorised
from service.errors import RESPONSES
from service.settings import Settings
from service.state import Service, Shared
from store.encode import FORMATS
from store.sql import Limits, run_sql

router = APIRouter(
    prefix="/v1", tags=["sql"], responses=RESPONSES, dependencies=[Depends(authorised)]
)


class SqlBody(BaseModel):
    """A query over the views that GET /v1/schema lists."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(description="one SELECT", max_length=64 * 1024)
    over: str | None = Field(None, description="query that binds the views; null for everything")
    snapshot: Annotated[int, Field(ge=0)] | None = Field(None, description="null for the newest")
    recordings: Literal["one", "all"] = "one"
    format: Literal["json", "csv", "arrow", "parquet"] = "json"


_EXAMPLES: dict[str, Any] = {
    "matchups": {
        "summary": "Games per character and stage",
        "value": {
            "sql": "select char, stage, count(*) as n from perspectives group by all",
            "format": "csv",
        },
    },
    "frames": {
        "summary": "Mean height of Fox in the air, frame by frame",
        "value": {
            "sql": "select avg(position_y) as y from pframes where airborne = 1",
            "over": "char='fox' and stage='fd'",
        },
    },
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the rows; JSON is {columns: [{name, type}], rows: [[...]]}",
        "content": {media_type: {} for media_type, _ in FORMATS.values()},
    }
}


@router.post("/sql", response_class=Response, responses=_CONTENT)
async def run(
    service: Shared, body: Annotated[SqlBody, Body(openapi_examples=_EXAMPLES)]
) -> Response:
    """Answer one SELECT."""
    content = await service.in_sql(_answer, service, body)
    return Response(content, media_type=FORMATS[body.format][0])


def _answer(service: Service, body: SqlBody) -> bytes:
    table = run_sql(
        service.layout,
        body.sql,
        over=body.over,
        snapshot=body.snapshot,
        recordings=body.recordings,
        limits=limits(service.settings),
        catalog=service.catalog,
    )
    return FORMATS[body.format][1](table)


def limits(settings: Settings) -> Limits:
    """What one query may use."""
    return Limits(
        seconds=settings.sql_time_s,
        memory_bytes=settings.sql_memory_bytes,
        rows=settings.sql_rows_max,
        result_bytes=settings.sql_output_bytes_max,
    )
