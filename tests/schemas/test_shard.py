"""Order, cut, splits, tar arithmetic, ids and the documents that travel."""

import dataclasses
import io
import json
import random
import subprocess
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import shard
from schemas.errors import UsageError
from schemas.shard import (
    MEMBERS,
    FilePart,
    Lock,
    Manifest,
    Member,
    Request,
    Shard,
    dataset_id,
    members_from,
    members_table,
    order_key,
    order_keys,
    pack,
    shard_bits,
    shard_numbers,
    shard_parts,
    split_names,
    unpack,
)
from tests.strategies import members


def _ids(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [draw.randbytes(16).hex() for _ in range(count)]


def _tar(chosen: list[Member]) -> bytes:
    return b"".join(
        part if isinstance(part, bytes) else _payload(part) for part in shard_parts(chosen)
    )


def _payload(part: FilePart) -> bytes:
    return (bytes.fromhex(part.game_id) * (part.size // 16 + 1))[: part.size]


def _mix(x: int) -> int:
    mask = 2**64 - 1
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1))
def test_order_key_as_documented(raw: bytes, seed: int) -> None:
    start = _mix((seed + 0x9E3779B97F4A7C15) % 2**64)
    high, low = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
    assert order_key(seed, raw.hex()) == _mix(_mix(start ^ high) ^ low)


def test_order_key_is_frozen() -> None:
    # Changing this changes the id of every dataset: raise shard.FORMAT with it.
    assert order_key(0, "00" * 16) == 0x33FE8BD4F9C57863
    assert order_key(7, "0123456789abcdef" * 2) == 14799061496388850627


def test_keys_are_spread_evenly() -> None:
    keys = order_keys(0, [f"{n:032x}" for n in range(20_000)])
    counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
    assert counts.min() > 1100
    assert counts.max() < 1400


@given(st.integers(1, 2_000_000), st.integers(1, 1000))
def test_shard_bits_is_rounded_log2(games: int, games_per_shard: int) -> None:
    bits = shard_bits(games, games_per_shard)
    exact = np.log2(games / games_per_shard)
    assert bits == 0 if exact < 0.5 else abs(bits - exact) <= 0.5 + 1e-9


def test_growth_keeps_shards() -> None:
    ids = _ids(20_005)

    def shards(chosen: list[str]) -> set[frozenset[str]]:
        keys = order_keys(0, chosen)
        order = np.argsort(keys)
        numbers = shard_numbers(keys[order], 200)
        found: dict[int, set[str]] = {}
        for place, number in zip(order, numbers, strict=True):
            found.setdefault(int(number), set()).add(chosen[place])
        assert sorted(found) == list(range(len(found)))
        return {frozenset(games) for games in found.values()}

    before, after = shards(ids[:20_000]), shards(ids)
    assert len(before & after) / len(before) > 0.9


def test_splits_by_bucket() -> None:
    buckets = [0, shard.VAL_FROM - 1, shard.VAL_FROM, shard.TEST_FROM - 1, shard.TEST_FROM, 65_535]
    names = split_names(buckets, [str(n) for n in range(6)])
    assert names == ["train", "train", "val", "val", "test", "test"]


def test_small_selection_keeps_a_validation_game() -> None:
    assert split_names([5, 70, 70, 3], ["a", "b", "b", "c"]) == ["train", "val", "val", "train"]
    assert split_names([70, 70], ["b", "b"]) == ["train", "train"]
    assert split_names([], []) == []
    assert split_names([1, 65_535], ["a", "b"]) == ["train", "test"]


def test_members_and_table_are_the_same() -> None:
    assert MEMBERS.names == [field.name for field in dataclasses.fields(Member)]
    with pytest.raises(UsageError, match="bucket"):
        members_from(members_table([]).drop_columns(["bucket"]))


@settings(max_examples=30, deadline=None)
@given(st.lists(members(), max_size=5))
def test_members_round_trip(chosen: list[Member]) -> None:
    assert members_from(members_table(chosen)) == chosen


@settings(max_examples=30, deadline=None)
@given(st.lists(members(), max_size=5, unique_by=lambda m: m.game_id))
def test_tarfile_reads_a_shard(chosen: list[Member]) -> None:
    chosen = [dataclasses.replace(m, json_bytes=len(shard.member_json(m))) for m in chosen]
    raw = _tar(chosen)
    assert len(raw) == shard.shard_bytes(chosen)
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
    names = [f"{m.game_id}.{ending}" for m in chosen for ending in ("parquet", "json")]
    assert list(found) == names
    for member in chosen:
        parquet, text = found[f"{member.game_id}.parquet"], found[f"{member.game_id}.json"]
        assert parquet is not None
        assert text is not None
        payload = _payload(FilePart(member.game_id, member.rev, member.parquet_bytes))
        assert parquet.read() == payload
        assert json.loads(text.read())["sides"] == list(member.sides)


def test_gnu_tar_reads_a_shard(tmp_path: Path) -> None:
    chosen = [Member(i, 1, (0,), i, 0, 9, (9,), 700, 0, b"", "", 3_009_000) for i in _ids(3)]
    (tmp_path / "shard.tar").write_bytes(_tar(chosen))
    listing = subprocess.run(
        ["tar", "-tvf", "shard.tar"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert listing.stderr == ""
    assert listing.stdout.count("-rw-r--r-- 0/0") == 6


@given(members(), st.sampled_from(["rev", "sides", "parquet_bytes", "parquet_sha256", "n_frames"]))
def test_etag_follows_the_bytes(member: Member, field: str) -> None:
    others = {
        "rev": member.rev + 1, "sides": (), "parquet_bytes": member.parquet_bytes + 1,
        "parquet_sha256": b"x" * 32, "n_frames": member.n_frames + 1,
    }  # fmt: skip
    assert shard.shard_etag([member]) == shard.shard_etag([dataclasses.replace(member, shard=7)])
    changed = dataclasses.replace(member, **{field: others[field]})  # type: ignore[arg-type]
    assert shard.shard_etag([member]) != shard.shard_etag([changed])


def _lock(count: int) -> Lock:
    ids = _ids(count)
    order = np.argsort(order_keys(3, ids))
    games = tuple((ids[place], 1, (0, 1)) for place in order)
    request = Request(query="char='fox'", seed=3, games_per_shard=2)
    return Lock(request, dataset_id(request, pack(games)), "char = 'fox'", games, 100)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_lock_round_trip(count: int) -> None:
    lock = _lock(count)
    assert Lock.from_json(lock.to_json()) == lock
    assert len(lock.shard_hashes) == len(set(lock.shard_hashes))
    assert unpack(pack(lock.games)) == list(lock.games)


def _changed(**fields: object) -> str:
    return json.dumps({**json.loads(_lock(5).to_json()), **fields})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 100_000, "\xff", _changed(games=4), _changed(games=6),
        _changed(games=-1), _changed(games=10**12), _changed(list=["AAAA"]), _changed(list=7),
        _changed(dataset_id="0" * 32), _changed(request={"seed": 4}), _changed(format="x"),
        _changed(request={"colour": 4}), _changed(frames="many"),
    ],
)  # fmt: skip
def test_damaged_lock(text: str) -> None:
    with pytest.raises(UsageError):
        Lock.from_json(text)


def test_lock_bomb_is_cut_off() -> None:
    import base64

    bomb = base64.b64encode(zlib.compress(bytes(100_000_000), 9)).decode()
    with pytest.raises(UsageError, match="list of games"):
        Lock.from_json(_changed(list=[bomb]))


def test_dataset_id_depends_on_list_cut_and_seed_only() -> None:
    packed = pack(_lock(5).games)
    same = [Request(), Request(query="char='fox'", snapshot=4, limit=9, recordings="all")]
    assert len({dataset_id(request, packed) for request in same}) == 1
    others = [Request(seed=1), Request(games_per_shard=7)]
    assert len({dataset_id(request, packed) for request in [*same, *others]}) == 3


def test_manifest_round_trip() -> None:
    shards = (Shard(0, "/shards/00000.tar", 1024, 0, 0, '"x"'),)
    manifest = Manifest("0" * 32, 3, Request(), "true", 1, 2, 9, 1024, shards, "/members.parquet")
    assert Manifest.from_json(manifest.to_json()) == manifest
    later = json.dumps({**json.loads(manifest.to_json()), "colour": "red"})
    assert Manifest.from_json(later) == manifest
    with pytest.raises(UsageError):
        Manifest.from_json("{}")


@pytest.mark.parametrize(
    "fields",
    [
        {"split": "dev"}, {"seed": -1}, {"seed": "1"}, {"limit": 0}, {"limit": True}, {"query": 5},
        {"snapshot": -1}, {"content": "tables"}, {"recordings": "two"}, {"games_per_shard": 0},
        {"colour": 1}, [],
    ],
)  # fmt: skip
def test_request_refuses(fields: object) -> None:
    with pytest.raises(UsageError):
        Request.from_dict(fields)


def test_request_round_trip() -> None:
    request = Request("won", 4, "games", "val", 7, 8, 9, "all")
    assert Request.from_dict(request.to_dict()) == request
    assert Request.from_dict({}) == Request()
