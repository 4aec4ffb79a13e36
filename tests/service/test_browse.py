"""Health, schema, snapshots and counts; and that the OpenAPI document names them all."""

import httpx

from schemas.filters import FILTERS
from schemas.records import TABLES
from tests.service.conftest import N_GAMES, assert_error


def test_health(client: httpx.Client) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"


def test_schema_tells_what_everything_means(client: httpx.Client) -> None:
    schema = client.get("/v1/schema").json()
    assert set(schema["tables"]) == set(TABLES)
    assert [row["name"] for row in schema["filters"]] == list(FILTERS)
    percent = next(c for c in schema["columns"] if c["name"] == "percent")
    assert (percent["group"], percent["unit"], percent["since"]) == ("player", "percent", "0.1")
    assert schema["characters"]["2"] == "fox"


def test_snapshots(client: httpx.Client) -> None:
    listed = client.get("/v1/snapshots").json()["snapshots"]
    numbers = [one["snapshot"] for one in listed]
    assert numbers == sorted(numbers)
    assert sum(one["added"].get("games", 0) for one in listed) == N_GAMES


def test_facets_count_what_a_listing_shows(client: httpx.Client) -> None:
    counted = client.get("/v1/facets").json()
    assert (counted["games"], counted["perspectives"]) == (N_GAMES, 2 * N_GAMES)
    assert set(counted["facets"]) == {"char", "opp_char", "stage", "version", "month", "rank"}
    for rows in counted["facets"].values():
        assert sum(row["perspectives"] for row in rows) == 2 * N_GAMES
    (version,) = counted["facets"]["version"]
    assert version["value"] == "3.19.0"
    char = counted["facets"]["char"][0]
    one = client.get("/v1/facets", params={"query": f"char='{char['value']}'"}).json()
    assert one["perspectives"] == char["perspectives"]
    assert one["games"] == char["games"]
    manifest = client.post("/v1/datasets", json={"query": f"char='{char['value']}'"}).json()
    assert manifest["games"] == char["games"]


def test_errors(client: httpx.Client) -> None:
    assert_error(client.get("/v1/facets?query=cahr='fox'"), 400, "unknown_name")
    assert_error(client.get("/v1/facets?snapshot=12345"), 404, "not_found")
    assert_error(client.get("/v1/facets?recordings=some"), 400, "usage")


def test_the_document_has_every_endpoint_and_our_errors(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    paths = set(document["paths"])
    assert {
        "/v1/health", "/v1/datasets", "/v1/datasets/{dataset_id}", "/v1/urls", "/v1/sql",
        "/v1/datasets/{dataset_id}/members.parquet", "/v1/datasets/{dataset_id}/lock",
        "/v1/datasets/{dataset_id}/shards/{n}.tar", "/v1/games", "/v1/games/{game_id}",
        "/v1/games/{game_id}.parquet", "/v1/schema", "/v1/snapshots", "/v1/facets",
    } == paths  # fmt: skip
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"4XX", "5XX"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"], path
    examples = document["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]
    assert "fox" in examples["application/json"]["examples"]
