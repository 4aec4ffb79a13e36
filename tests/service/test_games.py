"""Games page by page, one by one, and as files."""

import base64
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest

from store.layout import Layout
from store.parquet import read_game
from tests.service.conftest import N_GAMES, assert_error


def pages(client: httpx.Client, **params: Any) -> list[list[dict[str, Any]]]:
    """All pages of a listing."""
    found = []
    while True:
        page = client.get("/v1/games", params=params).raise_for_status().json()
        found.append(page["games"])
        if page["next"] is None:
            return found
        params["after"] = page["next"]


@pytest.mark.parametrize("order", ["date", "-date", "frames", "-frames", "game_id", "-game_id"])
def test_pages_hold_every_game_once_and_in_order(client: httpx.Client, order: str) -> None:
    found = pages(client, order=order, limit=7)
    assert [len(page) for page in found] == [7, 7, 7, 3]
    games = [game for page in found for game in page]
    assert len({game["game_id"] for game in games}) == N_GAMES
    fact = {"date": "started_at", "frames": "n_frames", "game_id": "game_id"}[order.strip("-")]
    values = [(game[fact] or "", game["game_id"]) for game in games]
    assert values == sorted(values, reverse=order.startswith("-"))


def test_a_filter_and_what_a_game_says(client: httpx.Client) -> None:
    (games,) = pages(client, query="char='fox'")
    assert games
    for game in games:
        assert "fox" in [player["char"] for player in game["players"]]
        assert [player["side"] for player in game["players"]] == [0, 1]
    alone = client.get(f"/v1/games/{games[0]['game_id']}").json()
    assert alone == games[0]


def test_the_file_of_a_game(client: httpx.Client, layout: Layout) -> None:
    game = client.get("/v1/games", params={"limit": 1}).json()["games"][0]
    path = layout.game_path(game["game_id"], game["rev"])
    got = client.get(game["parquet_url"])
    assert got.content == path.read_bytes()
    assert got.headers["etag"] == f'"{game["parquet_sha256"][:32]}"'
    assert len(read_game(got.content)) == game["n_frames"]
    tail = client.get(game["parquet_url"], headers={"range": "bytes=-4"})
    assert (tail.status_code, tail.content) == (206, b"PAR1")
    assert client.head(game["parquet_url"]).headers["content-length"] == str(path.stat().st_size)
    assert pa.types.is_struct(read_game(got.content).schema.field("p0").type)


def _after(snapshot: int, key: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([snapshot, key, "0" * 32]).encode()).decode()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/games/" + "0" * 32, 404, "not_found"),
        ("/v1/games/" + "0" * 32 + ".parquet", 404, "not_found"),
        ("/v1/games/xyz", 400, "usage"),
        ("/v1/games/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("/v1/games?query=char%3D'fxo'", 400, "unknown_name"),
        ("/v1/games?order=winner", 400, "usage"),
        ("/v1/games?limit=0", 400, "usage"),
        ("/v1/games?after=abc", 400, "usage"),
        ("/v1/games?after=WzEsMl0=", 400, "usage"),
        ("/v1/games?snapshot=99999", 404, "not_found"),
        ("/v1/games?snapshot=-1", 400, "usage"),
        ("/v1/games?snapshot=0", 404, "not_found"),
        (f"/v1/games?after={_after(10**60, 1)}", 404, "not_found"),
        (f"/v1/games?after={_after(2, 10**60)}", 400, "usage"),
        ("/v1/games?what=1", 400, "usage"),
    ],
)
def test_errors(client: httpx.Client, path: str, status: int, code: str) -> None:
    assert_error(client.get(path), status, code)
