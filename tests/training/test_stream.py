"""Every game arrives whole or is named, whatever the wire does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import (
    AuthError,
    NotFoundError,
    QueryError,
    RunMismatchError,
    StreamError,
    UsageError,
)
from schemas.features import view
from schemas.shard import BLOCK, Lock, Request
from tests.training.shard_server import (
    FRAMES,
    Fault,
    Server,
    Small,
    dataset_of,
    error_body,
    game_bytes,
    members_bytes,
    running,
    small,
)
from training.http import Retry
from training.pool import Pool
from training.stream import Dataset, FolderSource, ShardStream, open_dataset

AGE = view("v22-state-age")
QUICK = Retry(attempts=4, first_s=0.001, most_s=0.002, timeout_s=0.3)


@pytest.fixture
def data() -> Small:
    return small(24, 6)


@pytest.fixture
def server(data: Small) -> Iterator[Server]:
    with running(data) as server:
        yield server


def opened(server: Server) -> Dataset:
    return open_dataset(server.url, request=Request(query="char='fox'"), retry=QUICK)


def whole(stream: ShardStream, data: Small) -> bool:
    """Whether a pass gives every game once, to the byte."""
    found = {sample["__key__"]: sample["parquet"] for sample in stream}
    return found == data.games and stream.stats.samples == len(data.games)


def test_all_games_over_http(server: Server, data: Small) -> None:
    dataset = opened(server)
    assert len(dataset.manifest.shards) > 2
    assert json.loads(server.seen[0][3])["query"] == "char='fox'"
    stream = ShardStream(dataset)
    assert whole(stream, data)
    traffic = stream.stats.traffic
    assert (traffic.retries, stream.stats.skipped, stream.stats.mended) == (0, [], 0)
    assert traffic.bytes >= data.manifest.bytes - 1024 * len(data.tars)


def test_samples_are_webdatasets(server: Server, data: Small) -> None:
    sample = next(iter(ShardStream(opened(server))))
    assert set(sample) == {"__key__", "__url__", "parquet", "json"}
    assert sample["__url__"].startswith(server.url)
    assert json.loads(sample["json"])["n_frames"] == FRAMES


def test_a_folder_gives_the_same(data: Small, tmp_path: Path, server: Server) -> None:
    data.write(tmp_path / "out")
    folder = ShardStream(open_dataset(shards=tmp_path / "out"), seed=3)
    assert whole(folder, data)
    keys = [sample["__key__"] for sample in folder]
    assert keys == [sample["__key__"] for sample in ShardStream(opened(server), seed=3)]


def test_order_is_keyed_and_shards_are_read_front_to_back(server: Server, data: Small) -> None:
    dataset = opened(server)

    def keys(seed: int, epoch: int) -> list[str]:
        return [s["__key__"] for s in ShardStream(dataset, seed=seed, epoch=epoch)]

    first = keys(0, 0)
    assert first == keys(0, 0)
    assert len({tuple(keys(0, epoch)) for epoch in range(4)}) > 1
    assert keys(1, 0) != first or keys(2, 0) != first
    shard_of = {m.game_id: m.shard for m in data.members}
    order = [shard_of[key] for key in first]
    assert sorted(order, key=order.index) == order
    in_tar = {n: [m.game_id for m in data.members if m.shard == n] for n in data.tars}
    for n, ids in in_tar.items():
        assert [key for key in first if shard_of[key] == n] == ids


def test_parts_share_the_shards(server: Server, data: Small) -> None:
    dataset = opened(server)
    parts = [[s["__key__"] for s in ShardStream(dataset, part=(i, 3))] for i in range(3)]
    assert sorted(key for part in parts for key in part) == sorted(data.games)


def test_only_some_games(server: Server, data: Small) -> None:
    wanted = [m.game_id for m in data.members][::5]
    stream = ShardStream(opened(server), games=wanted)
    assert sorted(s["__key__"] for s in stream) == sorted(wanted)
    with pytest.raises(UsageError, match="not in this dataset"):
        ShardStream(opened(server), games=["ff" * 16])


# --- what breaks --------------------------------------------------------------------------------


def middle(data: Small, place: str) -> tuple[str, int]:
    """(path, byte) inside the second game of the first shard that has one."""
    member = next(
        b for a, b in zip(data.members, data.members[1:], strict=False) if a.shard == b.shard
    )
    at = {
        "between members": member.offset - BLOCK,
        "in a header": member.offset - BLOCK + 100,
        "in a body": member.offset + 1000,
        "after json, in the padding": member.offset - BLOCK - 3,
        "before json": member.offset + member.parquet_bytes,
    }[place]
    return f"/{data.manifest.shards[member.shard].url}", at


PLACES = [
    "between members", "in a header", "in a body", "after json, in the padding", "before json"
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["cut", "reset", "stall"])
def test_nothing_is_lost_where_a_retry_can_mend_it(
    server: Server, data: Small, kind: str, place: str
) -> None:
    path, at = middle(data, place)
    server.faults[path] = [Fault(kind, at), Fault("status"), Fault(kind, at + 700)]
    stream = ShardStream(opened(server))
    assert whole(stream, data)
    assert stream.stats.traffic.retries >= 2
    assert stream.stats.skipped == []


def test_a_byte_that_flips_on_the_wire_is_read_again(server: Server, data: Small) -> None:
    path, at = middle(data, "in a body")
    server.faults[path] = [Fault("flip", at)]
    stream = ShardStream(opened(server))
    assert whole(stream, data)
    assert stream.stats.mended == 1


@pytest.mark.parametrize("place", ["in a header", "in a body"])
def test_a_byte_that_is_wrong_at_rest_costs_one_game(
    server: Server, data: Small, place: str
) -> None:
    path, at = middle(data, place)
    body, etag = server.bodies[path]
    server.bodies[path] = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], etag
    stream = ShardStream(opened(server))  # 5 % of 24 games may be lost
    found = {s["__key__"] for s in stream}
    (lost,) = stream.stats.skipped
    assert found == set(data.games) - {lost.game_id}
    assert "not those the manifest names" in lost.reason
    with pytest.raises(StreamError, match=f"1 games could not be read, 0 may: {lost.game_id}"):
        list(ShardStream(opened(server), skipped_max=0))


def test_a_shard_that_stays_broken_is_named_game_by_game(server: Server, data: Small) -> None:
    path, at = middle(data, "in a body")
    server.faults[path] = [Fault("cut", at)] * 99
    stream = ShardStream(opened(server), skipped_max=24)
    found = {s["__key__"] for s in stream}
    lost = {skipped.game_id for skipped in stream.stats.skipped}
    assert found | lost == set(data.games)
    assert not found & lost
    shard_of = {m.game_id: m.shard for m in data.members}
    assert len({shard_of[game_id] for game_id in lost}) == 1
    assert all("4 attempts" in skipped.reason for skipped in stream.stats.skipped)
    server.faults[path] = [Fault("cut", at)] * 99
    with pytest.raises(StreamError, match="games could not be read"):
        list(ShardStream(opened(server)))


def test_a_shard_that_changed_is_not_read(server: Server, data: Small) -> None:
    server.faults[f"/{data.manifest.shards[0].url}"] = [Fault("other_etag")] * 9
    stream = ShardStream(opened(server), skipped_max=24)
    assert len(list(stream)) == 24 - data.manifest.shards[0].games
    assert "not what the manifest names" in stream.stats.skipped[0].reason


def test_what_the_user_has_to_mend_ends_the_stream(server: Server, data: Small) -> None:
    body = error_body("unauthorized", "a token is needed")
    server.faults[f"/{data.manifest.shards[0].url}"] = [Fault("status", status=401, body=body)]
    with pytest.raises(AuthError, match="a token is needed"):
        list(ShardStream(opened(server), skipped_max=24))


def test_the_server_goes_away_and_comes_back(data: Small) -> None:
    with running(data) as server:
        port = server.server_address[1]
        stream = iter(ShardStream(open_dataset(server.url, retry=replace(QUICK, attempts=8))))
        keys = [next(stream)["__key__"] for _ in range(3)]
    with running(data, port=port):
        keys += [sample["__key__"] for sample in stream]
    assert sorted(keys) == sorted(data.games)


def test_broken_folders(data: Small, tmp_path: Path) -> None:
    out = data.write(tmp_path / "out")
    path = out / data.manifest.shards[1].url
    path.write_bytes(path.read_bytes()[:5000])
    (out / data.manifest.shards[0].url).unlink()
    stream = ShardStream(open_dataset(shards=out), skipped_max=24)
    found = {s["__key__"] for s in stream}
    assert found | {s.game_id for s in stream.stats.skipped} == set(data.games)
    reasons = {skipped.reason.rsplit(" ", 3)[-1] for skipped in stream.stats.skipped}
    assert len(reasons) == 2 or len(found) < 24
    with pytest.raises(StreamError, match="could not be read"):
        list(ShardStream(open_dataset(shards=out)))


# --- what cannot be opened ----------------------------------------------------------------------


def test_errors_of_the_service_reach_the_user(server: Server) -> None:
    body = error_body("query", "unknown character 'fxo'", "nearest: fox")
    server.faults["/v1/datasets"] = [Fault("status", status=400, body=body)]
    with pytest.raises(QueryError, match="nearest: fox"):
        opened(server)


def test_members_must_be_those_of_the_manifest(server: Server, data: Small) -> None:
    server.bodies["/v1/members.parquet"] = members_bytes(data.members[:-1]), '"p"'
    with pytest.raises(StreamError, match="not of this manifest"):
        opened(server)
    elsewhere = [replace(m, shard=m.shard + 1) for m in data.members]
    server.bodies["/v1/members.parquet"] = members_bytes(elsewhere), '"p"'
    with pytest.raises(StreamError, match="not of this manifest"):
        opened(server)
    server.bodies["/v1/members.parquet"] = b"PAR1 no parquet PAR1", '"p"'
    with pytest.raises(StreamError, match="damaged"):
        opened(server)
    server.bodies["/v1/datasets"] = b"{}", '"m"'
    with pytest.raises(StreamError, match="not a manifest"):
        opened(server)


def test_offsets_that_do_not_add_up_are_found(server: Server, data: Small) -> None:
    moved = [replace(data.members[0], offset=data.members[0].offset + 512), *data.members[1:]]
    server.bodies["/v1/members.parquet"] = members_bytes(moved), '"p"'
    stream = ShardStream(opened(server), skipped_max=24)
    assert len(list(stream)) == 24 - data.manifest.shards[0].games
    assert "cannot lie" in stream.stats.skipped[0].reason


def test_a_manifest_cannot_point_out_of_its_folder(data: Small, tmp_path: Path) -> None:
    out = data.write(tmp_path / "out")
    first = replace(data.manifest.shards[0], url="../../../etc/passwd")
    shards = (first, *data.manifest.shards[1:])
    (out / "manifest.json").write_text(replace(data.manifest, shards=shards).to_json())
    with pytest.raises(UsageError, match="outside"):
        list(ShardStream(open_dataset(shards=out)))


def test_a_dataset_comes_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        open_dataset()
    with pytest.raises(UsageError, match="give one of them"):
        open_dataset("http://host", shards=tmp_path)
    with pytest.raises(NotFoundError, match="holds no dataset"):
        open_dataset(shards=tmp_path)


def test_locks(server: Server, data: Small, tmp_path: Path) -> None:
    manifest = data.manifest
    listed = tuple(m.listed for m in data.members)
    lock = Lock(manifest.request, manifest.dataset_id, manifest.query, listed, manifest.frames)
    assert open_dataset(server.url, lock=lock).manifest.dataset_id == lock.dataset_id
    sent = json.loads(server.seen[0][3])
    assert Lock.from_json(json.dumps(sent["lock"])) == lock
    other = small(5, 6)
    with pytest.raises(RunMismatchError, match="the lock names"):
        open_dataset(shards=other.write(tmp_path / "other"), lock=lock)


def test_the_token_is_sent_and_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELEEWM_TOKEN", "from-the-environment")
    dataset = opened(server)
    next(iter(ShardStream(dataset)))
    sent = {headers.get("Authorization") for _, _, headers, _ in server.seen}
    assert sent == {"Bearer from-the-environment"}
    assert "from-the-environment" not in repr(dataset.source)


# --- with others --------------------------------------------------------------------------------


def test_first_stage_of_a_webdataset_pipeline(server: Server, data: Small) -> None:
    wds = pytest.importorskip("webdataset")
    pipeline = wds.DataPipeline(ShardStream(opened(server)), wds.to_tuple("__key__", "parquet"))
    assert dict(pipeline) == data.games


def test_loader_workers_share_the_shards(data: Small, tmp_path: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")

    class Samples(torch_data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[str]:
            dataset = Dataset(data.manifest, data.members, FolderSource(tmp_path / "out"))
            return (sample["__key__"] for sample in ShardStream(dataset))

    data.write(tmp_path / "out")
    loader = torch_data.DataLoader(
        Samples(), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert sorted(loader) == sorted(data.games)


def test_games_fill_a_pool(server: Server, data: Small) -> None:
    pool = Pool(AGE, 10)
    for game in ShardStream(opened(server)).games(AGE):
        pool.add(game.member.game_id, game.table, game.member.sides)
    assert pool.n_windows == 24 * 2 * (FRAMES - 10)
    assert not pool.missing


def test_a_game_that_cannot_be_decoded_is_skipped_and_named(tmp_path: Path) -> None:
    good, bad, short = "0a" * 16, "0b" * 16, "0c" * 16
    games = {good: game_bytes(1), bad: b"PAR1 not really PAR1", short: game_bytes(2, FRAMES - 1)}
    out = dataset_of(games, 6).write(tmp_path / "out")
    stream = ShardStream(open_dataset(shards=out), skipped_max=2)
    assert [game.member.game_id for game in stream.games(AGE)] == [good]
    reasons = {skipped.game_id: skipped.reason for skipped in stream.stats.skipped}
    assert "parquet cannot read" in reasons[bad]
    assert reasons[short] == f"{FRAMES - 1} frames instead of {FRAMES}"
    with pytest.raises(StreamError, match="2 games could not be read, 1 may"):
        list(ShardStream(open_dataset(shards=out), skipped_max=1).games(AGE))


def test_neither_torch_nor_duckdb_is_imported() -> None:
    code = (
        "import sys, training.stream\n"
        "print(sorted({'torch', 'duckdb', 'webdataset'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
