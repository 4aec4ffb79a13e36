"""From a dataset's address to its games: shards over HTTP or from a folder, checked byte by byte.

Imports neither torch nor duckdb; webdataset is not needed, but may be fed:
`wds.DataPipeline(ShardStream(open_dataset(url, request=request)), ...)`.
"""

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urljoin

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import NotFoundError, RunMismatchError, StreamError, UsageError
from schemas.features import View
from schemas.game import read_columns
from schemas.shard import (
    BLOCK,
    MEMBERS,
    Lock,
    Manifest,
    Member,
    Request,
    Shard,
    dataset_id,
    header,
    member_json,
    members_from,
    pack,
    padded,
    sample_bytes,
    shard_bytes,
)
from training.http import Client, Retry, Traffic

SKIPPED_SHARE_MAX = 0.05
"""Of a stream's games: more lost ones are an error, and so is any loss of a stream of few games."""
READS_OF_A_SAMPLE = 2
"""A byte that flipped on the wire is right the second time; one that is wrong at rest is not."""
GAME_BYTES_MAX = 1 << 28

Sample = dict[str, Any]
"""One game as webdataset has it: __key__, __url__, parquet (bytes), json (bytes)."""


# --- sources ------------------------------------------------------------------------------------


class Reader(Protocol):
    """A shard's bytes."""

    def read(self, n: int) -> bytes | bytearray:
        """The next n bytes, all of them. Raises StreamError."""

    def seek(self, position: int) -> None:
        """Go on at another byte."""

    def close(self) -> None:
        """Let go of the file or connection."""


class Source(Protocol):
    """Where a dataset lies."""

    def url(self, shard: Shard) -> str:
        """The shard's address, for people and for `__url__`."""

    def open(self, shard: Shard, traffic: Traffic) -> Reader:
        """A reader of the shard from its first byte, which counts into `traffic`."""


@dataclass(frozen=True)
class ServiceSource:
    """Shards of a service; `manifest_url` is what their relative addresses start from."""

    manifest_url: str
    token: str | None = field(default=None, repr=False)
    retry: Retry = field(default_factory=Retry)

    def url(self, shard: Shard) -> str:
        """The shard's address."""
        return urljoin(self.manifest_url, shard.url)

    def open(self, shard: Shard, traffic: Traffic) -> Reader:
        """A transfer that resumes by itself."""
        client = Client(self.manifest_url, self.token, self.retry, traffic=traffic)
        return client.open(shard.url, size=shard.bytes, etag=shard.etag)


@dataclass(frozen=True)
class FolderSource:
    """Shards of a folder that `meleewm export` wrote."""

    folder: Path

    def url(self, shard: Shard) -> str:
        """The shard's path. Raises UsageError for one outside the folder."""
        return str(_inside(self.folder, shard.url))

    def open(self, shard: Shard, traffic: Traffic) -> Reader:
        """The opened file. Raises StreamError where it is missing."""
        path = _inside(self.folder, shard.url)
        try:
            return _FileReader(path.open("rb"), path, traffic)
        except OSError as error:
            raise StreamError(f"{path}: {error.strerror}") from error


@dataclass
class _FileReader:
    file: BinaryIO
    path: Path
    traffic: Traffic

    def read(self, n: int) -> bytes:
        data = self.file.read(n)
        self.traffic.bytes += len(data)
        if len(data) < n:
            raise StreamError(f"{self.path} ends {n - len(data)} bytes too early")
        return data

    def seek(self, position: int) -> None:
        self.file.seek(position)

    def close(self) -> None:
        self.file.close()


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(f"the manifest in {folder} names a file outside of it: {name}")
    return path


# --- dataset ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """What a query gave: its manifest, its games in dataset order, and where they lie."""

    manifest: Manifest
    members: tuple[Member, ...]
    source: Source = field(repr=False)

    @cached_property
    def by_shard(self) -> dict[int, list[Member]]:
        """Shard number -> its games in the order of its tar."""
        found: dict[int, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.shard, []).append(member)
        return found

    def check(self, shard: Shard) -> None:
        """Raise StreamError where a shard's games do not lie back to back and fill it."""
        at, members = 0, self.by_shard.get(shard.n, [])
        for member in members:
            sane = all(0 <= n <= GAME_BYTES_MAX for n in (member.parquet_bytes, member.json_bytes))
            if member.offset != at + BLOCK or not sane:
                raise StreamError(f"shard {shard.n}: {member.game_id} cannot lie where it does")
            at += sample_bytes(member.parquet_bytes, member.json_bytes)
        if shard_bytes(members) != shard.bytes:
            raise StreamError(f"shard {shard.n}: its games do not add up to {shard.bytes} bytes")


def open_dataset(
    url: str | None = None,
    *,
    request: Request | None = None,
    lock: Lock | None = None,
    shards: Path | str | None = None,
    token: str | None = None,
    retry: Retry | None = None,
) -> Dataset:
    """The dataset of a request or lock at a service, or the one that a folder of shards holds.

    token: for the service (default: $MELEEWM_TOKEN). A lock given with a folder must be of the
    dataset in it. Raises UsageError, the service's own errors, RunMismatchError, StreamError.
    """
    if (url is None) == (shards is None):
        raise UsageError("a dataset comes from a service or from a folder", "give one of them")
    if shards is not None:
        found = _from_folder(Path(shards))
    else:
        assert url is not None
        token = os.environ.get("MELEEWM_TOKEN") or None if token is None else token
        client = Client(url.rstrip("/") + "/", token, retry or Retry())
        with client:
            found = _from_service(client, request or Request(), lock)
    if lock is not None and found.manifest.dataset_id != lock.dataset_id:
        raise RunMismatchError(
            f"the lock names dataset {lock.dataset_id}, this is {found.manifest.dataset_id}"
        )
    return found


def _from_service(client: Client, request: Request, lock: Lock | None) -> Dataset:
    asked = request.to_dict() if lock is None else {"lock": json.loads(lock.to_json())}
    address = urljoin(client.base_url, "v1/datasets")
    manifest = _manifest(client.post_json(address, asked), address)
    table = client.get(urljoin(address, manifest.members_url))
    source = ServiceSource(address, client.token, client.retry)
    return Dataset(manifest, _members(manifest, table), source)


def _from_folder(folder: Path) -> Dataset:
    path = folder / "manifest.json"
    if not path.is_file():
        raise NotFoundError(f"{folder} holds no dataset", "manifest.json is what export writes")
    manifest = _manifest(path.read_bytes(), str(path))
    members = _inside(folder, manifest.members_url)
    if not members.is_file():
        raise NotFoundError(f"{members} is missing")
    return Dataset(manifest, _members(manifest, members.read_bytes()), FolderSource(folder))


def _manifest(text: bytes, address: str) -> Manifest:
    try:
        return Manifest.from_json(text)
    except UsageError as error:
        raise StreamError(f"{address}: {error.message}") from error


def _members(manifest: Manifest, data: bytes) -> tuple[Member, ...]:
    """The members, held against the manifest: their list is what its id is made of."""
    try:
        table = pq.read_table(pa.BufferReader(data)).select(MEMBERS.names).cast(MEMBERS)
        if any(column.null_count for column in table.columns):
            raise ValueError("a null")
        members = tuple(members_from(table))
        found = dataset_id(manifest.request, pack(m.listed for m in members))
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError, zlib.error) as error:
        raise StreamError("members.parquet is damaged", str(error).partition("\n")[0]) from error
    in_shards = {m.shard for m in members} == {shard.n for shard in manifest.shards}
    if found != manifest.dataset_id or len(members) != manifest.games or not in_shards:
        raise StreamError("members.parquet is not of this manifest", "ask for the dataset again")
    return members


# --- stream -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skipped:
    """A game that did not arrive, and why."""

    game_id: str
    reason: str


@dataclass
class Stats:
    """What a stream has done so far, over all passes."""

    samples: int = 0
    mended: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class Game:
    """One decoded game: T frames of the columns asked for."""

    member: Member
    table: pa.Table


class ShardStream:
    """All games of a dataset, once each pass: shards in an order keyed by (seed, epoch), each read
    front to back. Iterating gives webdataset's samples, `games` gives decoded ones.

    games: only these ids; others are passed over. part: (index, count), this reader's share of
    the shards. A sample is delivered only with exactly the bytes that the manifest says; one that
    is not even at the second reading, or a shard that cannot be read on, is left out and named in
    `stats.skipped`. StreamError ends the stream when that are more than `skipped_max` (default:
    5 % of the games). What the user has done wrong (a token, a removed dataset) ends it at once.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        epoch: int = 0,
        seed: int = 0,
        games: Collection[str] | None = None,
        part: tuple[int, int] = (0, 1),
        skipped_max: int | None = None,
    ) -> None:
        self.dataset, self.epoch, self.seed, self.part = dataset, epoch, seed, part
        self.wanted = None if games is None else frozenset(games)
        known = {m.game_id for m in dataset.members}
        if self.wanted is not None and (strange := sorted(self.wanted - known)):
            raise UsageError(f"game {strange[0]} is not in this dataset")
        n_games = len(known if self.wanted is None else self.wanted)
        self.skipped_max = int(n_games * SKIPPED_SHARE_MAX) if skipped_max is None else skipped_max
        self.stats = Stats()

    def __iter__(self) -> Iterator[Sample]:
        for _, sample in self._samples():
            yield sample

    def __call__(self) -> Iterator[Sample]:
        """What wds.DataPipeline asks of its first stage."""
        return iter(self)

    def games(self, view: View) -> Iterator[Game]:
        """The games as tables with the columns of a view; what cannot be decoded is skipped too."""
        for member, sample in self._samples():
            try:
                table = decode(sample["parquet"], view.columns)
                if len(table) != member.n_frames:
                    raise StreamError(f"{len(table)} frames instead of {member.n_frames}")
            except StreamError as error:
                self._skip([member], error.message)
                continue
            yield Game(member, table)

    def shards(self) -> list[Shard]:
        """This part's shards in the order of this epoch."""
        shards = sorted(self.dataset.manifest.shards, key=lambda shard: self._key(shard.n))
        index, count = self.part
        worker, workers = _worker()
        return shards[index::count][worker::workers]

    def _key(self, shard: int) -> bytes:
        return hashlib.sha256(f"{self.seed} {self.epoch} {shard}".encode()).digest()

    def _samples(self) -> Iterator[tuple[Member, Sample]]:
        for shard in self.shards():
            yield from self._shard(shard)

    def _shard(self, shard: Shard) -> Iterator[tuple[Member, Sample]]:
        members = [m for m in self.dataset.by_shard.get(shard.n, []) if self._wants(m)]
        if not members:
            return
        url = self.dataset.source.url(shard)
        try:
            self.dataset.check(shard)
            reader = self.dataset.source.open(shard, self.stats.traffic)
        except StreamError as error:
            self._skip(members, error.message)
            return
        with closing(reader):
            for at, member in enumerate(members):
                try:
                    data = self._whole(reader, member)
                except StreamError as error:
                    self._skip(members[at:], error.message)
                    return
                if data is None:
                    self._skip([member], f"its bytes in {url} are not those the manifest names")
                    continue
                self.stats.samples += 1
                yield member, _sample(member, url, data)

    def _wants(self, member: Member) -> bool:
        return self.wanted is None or member.game_id in self.wanted

    def _whole(self, reader: Reader, member: Member) -> memoryview | None:
        """The bytes of a sample, headers included; None where they are wrong each time."""
        for attempt in range(READS_OF_A_SAMPLE):
            reader.seek(member.offset - BLOCK)
            data = memoryview(reader.read(sample_bytes(member.parquet_bytes, member.json_bytes)))
            if _is_whole(member, data):
                self.stats.mended += attempt > 0
                return data
        return None

    def _skip(self, members: Iterable[Member], reason: str) -> None:
        self.stats.skipped += [Skipped(member.game_id, reason) for member in members]
        if len(self.stats.skipped) > self.skipped_max:
            first = self.stats.skipped[0]
            raise StreamError(
                f"{len(self.stats.skipped)} games could not be read, {self.skipped_max} may: "
                f"{first.game_id}: {first.reason}"
            )


def decode(parquet: bytes, columns: list[str]) -> pa.Table:
    """Columns of a game file; leaves that the game lacks are left out.

    Raises StreamError where the bytes are no game file.
    """
    try:
        return read_columns(parquet, columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise StreamError(f"a game that parquet cannot read: {reason}") from error


def _is_whole(member: Member, data: memoryview) -> bool:
    """Whether these are the sample's bytes. Padding is nobody's."""
    body, n = BLOCK + member.parquet_bytes, member.json_bytes
    after = BLOCK + padded(member.parquet_bytes)
    text = member_json(member)
    return (
        data[:BLOCK] == header(f"{member.game_id}.parquet", member.parquet_bytes)
        and zlib.crc32(data[BLOCK:body]) == member.parquet_crc32
        and data[after : after + BLOCK] == header(f"{member.game_id}.json", n)
        and data[after + BLOCK : after + BLOCK + n] == text
    )


def _sample(member: Member, url: str, data: memoryview) -> Sample:
    return {
        "__key__": member.game_id,
        "__url__": url,
        "parquet": bytes(data[BLOCK : BLOCK + member.parquet_bytes]),
        "json": member_json(member),
    }


def _worker() -> tuple[int, int]:
    """(index, count) of this DataLoader worker; without torch there is one reader."""
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
