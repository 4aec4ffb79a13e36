"""Datasets over HTTP: the same bytes as the store and `export`, by curl, GNU tar and webdataset."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.synthetic import write_games
from ingest.workers import ingest
from schemas import shard
from schemas.shard import MEMBERS, Lock, Manifest, members_from
from service.app import create_app
from service.cache import Cache
from service.settings import Settings
from store.export import export
from store.layout import Layout
from store.select import select
from store.shards import VirtualTar
from tests.conftest import require
from tests.service.conftest import N_GAMES, assert_error, running, serving


def ask(client: httpx.Client, **fields: object) -> Manifest:
    """The manifest of a request."""
    response = client.post("/v1/datasets", json=fields)
    assert response.status_code == 200, response.text
    return Manifest.from_json(response.text)


def test_a_manifest_adds_up(client: httpx.Client, layout: Layout) -> None:
    manifest = ask(client, games_per_shard=4)
    assert manifest.games == N_GAMES == sum(one.games for one in manifest.shards)
    assert manifest.perspectives == 2 * N_GAMES
    assert len(manifest.shards) > 3
    expected = select(layout, shard.Request(games_per_shard=4)).manifest(
        f"{client.base_url}/v1/datasets/{manifest.dataset_id}/"
    )
    assert manifest == expected
    again = client.get(f"/v1/datasets/{manifest.dataset_id}")
    assert Manifest.from_json(again.text).shards == manifest.shards


def test_every_shard_equals_the_export(
    client: httpx.Client, layout: Layout, tmp_path: Path
) -> None:
    manifest = ask(client, query="char <> 'sheik'", games_per_shard=5)
    selection = select(layout, manifest.request)
    export(layout, selection, tmp_path / "out")
    for one in manifest.shards:
        got = client.get(one.url)
        assert got.content == (tmp_path / "out" / "shards" / f"{one.n:05d}.tar").read_bytes()
        assert int(got.headers["content-length"]) == one.bytes
        assert got.headers["etag"] == one.etag
        head = client.head(one.url)
        assert head.headers["content-length"] == str(one.bytes)
        assert head.headers["accept-ranges"] == "bytes"
        part = client.get(one.url, headers={"range": "bytes=1000-", "if-range": one.etag})
        assert (part.status_code, part.content) == (206, got.content[1000:])
        assert client.get(one.url, headers={"if-none-match": one.etag}).status_code == 304


def test_members_say_where_every_game_lies(client: httpx.Client, layout: Layout) -> None:
    manifest = ask(client, games_per_shard=5)
    table = pq.read_table(pa.BufferReader(client.get(manifest.members_url).content))
    members = members_from(table.cast(MEMBERS))
    assert len(members) == manifest.games
    for member in members[:3] + members[-3:]:
        span = f"bytes={member.offset}-{member.offset + member.parquet_bytes - 1}"
        got = client.get(manifest.shards[member.shard].url, headers={"range": span})
        assert got.content == layout.game_path(member.game_id, member.rev).read_bytes()


def test_a_lock_names_the_same_dataset(client: httpx.Client) -> None:
    manifest = ask(client, query="char='fox' or opp_char='fox'")
    text = client.get(f"/v1/datasets/{manifest.dataset_id}/lock").text
    assert Lock.from_json(text).dataset_id == manifest.dataset_id
    assert ask(client, lock=json.loads(text)).shards == manifest.shards


def test_a_lock_of_games_that_are_not_here(client: httpx.Client, layout: Layout) -> None:
    lock = select(layout, shard.Request()).lock()
    other = "f" * 32  # the last of any order by id; the order of a lock is checked, so alone
    games = ((other, 1, (0,)),)
    foreign = Lock(lock.request, shard.dataset_id(lock.request, shard.pack(games)), "", games, 1)
    response = client.post("/v1/datasets", json={"lock": json.loads(foreign.to_json())})
    assert other in assert_error(response, 410, "missing_games")["message"]


def test_nothing_matched_is_an_empty_manifest(client: httpx.Client) -> None:
    manifest = ask(client, query="n_frames < 0")
    assert (manifest.games, manifest.shards, manifest.bytes) == (0, (), 0)
    assert client.get("/v1/urls", params={"query": "n_frames < 0"}).text == ""


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"query": "char='fxo'"}, 400, "unknown_name"),
        ({"query": "1=1; drop table games"}, 400, "query"),
        ({"query": "char='fox' and (select 1)"}, 400, "query"),
        ({"query": 7}, 400, "usage"),
        ({"snapshot": 10_000}, 404, "not_found"),
        ({"snapshot": 2**64}, 400, "usage"),
        ({"content": "movies"}, 400, "usage"),
        ({"games_per_shard": 0}, 400, "usage"),
        ({"wrong": 1}, 400, "usage"),
        ({"lock": {}}, 400, "usage"),
        ({"lock": {"format": "meleewm-lock-1"}, "seed": 1}, 400, "usage"),
        ([], 400, "usage"),
    ],
)
def test_requests_that_cannot_be_meant(
    client: httpx.Client, body: Any, status: int, code: str
) -> None:
    error = assert_error(client.post("/v1/datasets", json=body), status, code)
    if "fxo" in str(body):
        assert "fox" in error["hint"]
        assert error["position"] == 5


def test_no_json_is_an_error_of_the_same_shape(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/v1/datasets", content=b'{"query": ', headers=headers)
    assert_error(response, 400, "usage")
    assert_error(client.post("/v1/datasets"), 400, "usage")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/datasets/" + "0" * 32,
        "/v1/datasets/" + "0" * 32 + "/lock",
        "/v1/datasets/" + "0" * 32 + "/members.parquet",
        "/v1/datasets/" + "0" * 32 + "/shards/00000.tar",
        "/v1/datasets/{id}/shards/00099.tar",
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str) -> None:
    path = path.format(id=ask(client).dataset_id)
    assert_error(client.get(path), 404, "not_found")
    if len(path.split("/")) > 4:  # bytes answer HEAD as well
        assert client.head(path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/v1/datasets/..", "/v1/datasets/x", "/v1/datasets/{id}/shards/0.tar"]
)
def test_names_that_cannot_be(client: httpx.Client, path: str) -> None:
    path = path.format(id=ask(client).dataset_id)
    assert client.get(path).status_code in (400, 404, 405)


def test_a_game_file_that_is_gone_is_410(
    client: httpx.Client, layout: Layout, tmp_path: Path
) -> None:
    manifest = ask(client)
    table = pq.read_table(pa.BufferReader(client.get(manifest.members_url).content))
    member = members_from(table)[0]
    path = layout.game_path(member.game_id, member.rev)
    away = path.rename(tmp_path / "away.parquet")
    try:
        gone = assert_error(client.get(manifest.shards[0].url), 410, "missing_games")
        assert member.game_id in gone["message"]
    finally:
        away.rename(path)
    assert client.get(manifest.shards[0].url).status_code == 200


def test_curl_and_gnu_tar_give_the_stores_files(
    client: httpx.Client, layout: Layout, tmp_path: Path
) -> None:
    manifest = ask(client, query="char='fox' or opp_char='fox'")
    require(shutil.which("curl") is not None, "curl is not installed")
    command = "curl -sSf --retry 0 -o shard.tar {} && tar -xf shard.tar"
    for one in manifest.shards:
        subprocess.run(["bash", "-c", command.format(one.url)], cwd=tmp_path, check=True)
    members = select(layout, manifest.request).members
    assert members
    for member in members:
        unpacked = (tmp_path / f"{member.game_id}.parquet").read_bytes()
        assert unpacked == layout.game_path(member.game_id, member.rev).read_bytes()
        sample = json.loads((tmp_path / f"{member.game_id}.json").read_text())
        assert sample["sides"] == list(member.sides)


_TWO_LINES = """
import sys, urllib.request, webdataset as wds
urls = urllib.request.urlopen(sys.argv[1]).read().decode().split()
samples = list(wds.WebDataset(urls, shardshuffle=False))
assert not {name.partition('.')[0] for name in sys.modules} & {'schemas', 'service', 'store'}
print(*(sample['__key__'] for sample in samples if len(sample['parquet']) and sample['json']))
"""


@pytest.mark.slow
def test_webdataset_reads_it_with_nothing_of_ours(client: httpx.Client, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    url = f"{client.base_url}/v1/urls?games_per_shard=6"
    command = [sys.executable, "-W", "ignore", "-c", _TWO_LINES, url]
    ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    ids = [m.game_id for m in select_all(client)]
    assert ran.stdout.split() == ids


def select_all(client: httpx.Client) -> list[shard.Member]:
    """The members of everything, six games a shard."""
    manifest = ask(client, games_per_shard=6)
    table = pq.read_table(pa.BufferReader(client.get(manifest.members_url).content))
    return members_from(table)


def test_many_clients_get_the_same_bytes(client: httpx.Client, layout: Layout) -> None:
    manifest = ask(client, games_per_shard=8)
    selection = select(layout, manifest.request)
    whole = {
        one.url: b"".join(VirtualTar(layout, selection.shard(one.n)).read())
        for one in manifest.shards
    }
    urls = list(whole) * 12
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda url: httpx.get(url).content == whole[url], urls))


@pytest.mark.slow
def test_a_killed_server_is_resumed_by_range(layout: Layout) -> None:
    with serving(layout.root) as (url, process):
        posted = httpx.post(f"{url}/v1/datasets", json={}).text
        one = Manifest.from_json(posted).shards[0]
        port = int(url.rpartition(":")[2])
        with httpx.stream("GET", one.url) as response:
            stream = response.iter_raw(4096)
            begun = b"".join(next(stream) for _ in range(5))
            process.kill()
            process.wait()
    assert 0 < len(begun) < one.bytes
    with serving(layout.root, port=port):
        headers = {"range": f"bytes={len(begun)}-", "if-range": one.etag}
        rest = httpx.get(one.url, headers=headers)  # no POST first: the id outlives the process
    assert rest.status_code == 206
    tar = VirtualTar(layout, select(layout, shard.Request()).shard(0))
    assert begun + rest.content == b"".join(tar.read())


def test_two_servers_answer_alike(client: httpx.Client, store: Path) -> None:
    with running(create_app(Settings(store=store, port=0))) as other:
        ours, theirs = (
            httpx.post(f"{url}/v1/datasets", json={"query": "char='fox'"}).text.replace(
                str(url), ""
            )
            for url in (client.base_url, other)
        )
    assert ours == theirs


@pytest.mark.slow
def test_an_ingest_meanwhile_is_seen_and_disturbs_nothing(tmp_path: Path) -> None:
    paths = write_games(tmp_path / "slp", 6, seed=99, frames=(200, 300))
    ingest(paths[:4], tmp_path / "store", workers=1)
    with running(create_app(Settings(store=tmp_path / "store", port=0))) as url:
        first = Manifest.from_json(httpx.post(f"{url}/v1/datasets", json={}).text)
        before = httpx.get(first.shards[0].url).content
        # Another process, as in life: DuckDB shares one catalog inside a process.
        ingest_in_child = (
            "import sys; from pathlib import Path; from ingest.workers import ingest;"
            "ingest([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), workers=1)"
        )
        command = [sys.executable, "-c", ingest_in_child, str(tmp_path / "store")]
        subprocess.run([*command, *map(str, paths[4:])], check=True)
        assert httpx.get(first.shards[0].url).content == before
        second = Manifest.from_json(httpx.post(f"{url}/v1/datasets", json={}).text)
        assert (first.games, second.games) == (4, 6)
        old = {"snapshot": first.snapshot}
        again = Manifest.from_json(httpx.post(f"{url}/v1/datasets", json=old).text)
        assert again.dataset_id == first.dataset_id


def test_the_cache_is_bounded_by_games(layout: Layout) -> None:
    cache = Cache(layout, games_max=30)
    selections = [select(layout, shard.Request(limit=n)) for n in (9, 10, 11, 12)]
    for selection in selections:
        cache.put(selection)
    kept = [s for s in selections if cache.get(s.dataset_id)]
    assert [len(s.table) for s in kept] == [11, 12]
    large = cache.put(select(layout, shard.Request(seed=5)))
    assert cache.get(large.selection.dataset_id)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["request", "lock"])
def test_the_trainers_stream_reads_it(client: httpx.Client, layout: Layout, how: str) -> None:
    from training.stream import ShardStream, open_dataset

    request = shard.Request(query="char='fox' or opp_char='fox'", games_per_shard=3)
    selection = select(layout, request)
    asked: dict[str, Any] = {"request": request, "lock": selection.lock()}
    dataset = open_dataset(str(client.base_url), **{how: asked[how]})
    assert dataset.manifest.dataset_id == selection.dataset_id
    samples = list(ShardStream(dataset, epoch=0, seed=1))
    files = {m.game_id: layout.game_path(m.game_id, m.rev) for m in selection.members}
    assert {s["__key__"] for s in samples} == set(files)
    assert all(s["parquet"] == files[s["__key__"]].read_bytes() for s in samples)
