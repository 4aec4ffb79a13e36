"""What travels: request, manifest, lock file, members and the arithmetic of virtual tar shards.

Pure functions of their arguments. A dataset is an ordered list of (game, rev, sides): the order,
the cut into shards, every offset and the dataset id follow from that list alone, on any machine.
"""

import base64
import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import UsageError
from schemas.records import version_text

FORMAT = 1
"""Version of order, tar layout and sample json: part of every dataset id and ETag."""
GAMES_PER_SHARD = 200
BUCKETS = 65_536
VAL_FROM, TEST_FROM = BUCKETS * 90 // 100, BUCKETS * 95 // 100
"""Buckets below VAL_FROM train, below TEST_FROM validate, the rest test."""
SPLITS = ("all", "train", "val", "test")
LIMIT_SALT = 1
"""Keys with this salt choose the games of a limited dataset, whatever their place in the order."""

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Size = TypeVar("Size", int, Counts)
Text = str | bytes
Listed = tuple[str, int, tuple[int, ...]]
"""(game_id, rev, sides): what a dataset is a list of."""


# --- request ------------------------------------------------------------------------------------


def _check(is_right: bool, message: str, hint: str = "") -> None:
    if not is_right:
        raise UsageError(message, hint)


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Request:
    """What was asked for. `snapshot` None is the newest one, `query` None or '' is everything.

    limit: at most that many games, a sample chosen by the seed.
    Raises UsageError for a value that cannot be meant.
    """

    query: str | None = None
    snapshot: int | None = None
    content: str = "games"
    split: str = "all"
    games_per_shard: int = GAMES_PER_SHARD
    seed: int = 0
    limit: int | None = None
    recordings: str = "one"

    def __post_init__(self) -> None:
        top = 2**63 - 1
        _check(self.query is None or isinstance(self.query, str), "query must be text")
        _check(self.snapshot is None or _is_int(self.snapshot, 0, top), "snapshot must be >= 0")
        _check(self.content == "games", f"unknown content '{self.content}'", "games")
        _check(self.split in SPLITS, f"unknown split '{self.split}'", ", ".join(SPLITS))
        _check(_is_int(self.games_per_shard, 1, 100_000), "games_per_shard must be 1 to 100000")
        _check(_is_int(self.seed, 0, top), "seed must be >= 0")
        _check(self.limit is None or _is_int(self.limit, 1, top), "limit must be >= 1")
        known = self.recordings in ("one", "all")
        _check(known, f"unknown recordings '{self.recordings}'", "one or all")

    def to_dict(self) -> dict[str, Any]:
        """The request as JSON types, every field named."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: object) -> "Request":
        """Read a request that may leave fields out. Raises UsageError."""
        if not isinstance(fields, Mapping):
            raise UsageError("a request is a JSON object")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(fields) - set(known)):
            raise UsageError(f"a request has no field '{unknown[0]}'", ", ".join(known))
        return cls(**fields)


# --- members ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One game of a dataset, and where its bytes lie.

    bucket: 0 to 65535, for `split_names`. stretches: lengths of the runs of consecutive frames.
    offset: of the parquet's first byte in the shard's tar; its json starts a padded parquet and one
    header later and has `json_bytes` bytes.
    """

    game_id: str
    rev: int
    sides: tuple[int, ...]
    natural_key: str
    bucket: int
    n_frames: int
    stretches: tuple[int, ...]
    parquet_bytes: int
    parquet_crc32: int
    parquet_sha256: bytes
    leaf_set: str
    version: int
    shard: int = 0
    offset: int = 0
    json_bytes: int = 0

    @property
    def listed(self) -> Listed:
        """What the dataset id is made of."""
        return self.game_id, self.rev, self.sides


MEMBERS = pa.schema(
    [
        pa.field("game_id", pa.string()),
        pa.field("rev", pa.int32()),
        pa.field("sides", pa.list_(pa.int8())),
        pa.field("natural_key", pa.string()),
        pa.field("bucket", pa.uint16()),
        pa.field("n_frames", pa.int32()),
        pa.field("stretches", pa.list_(pa.int32())),
        pa.field("parquet_bytes", pa.int64()),
        pa.field("parquet_crc32", pa.uint32()),
        pa.field("parquet_sha256", pa.binary()),
        pa.field("leaf_set", pa.string()),
        pa.field("version", pa.int32()),
        pa.field("shard", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("json_bytes", pa.int32()),
    ]
)
"""members.parquet: one row a game, in dataset order, the fields of Member."""


def members_table(members: Sequence[Member]) -> pa.Table:
    """The members as a table of schema MEMBERS."""
    columns = {name: [getattr(m, name) for m in members] for name in MEMBERS.names}
    return pa.table(columns, schema=MEMBERS)


def members_from(table: pa.Table) -> list[Member]:
    """The rows of a MEMBERS table. Raises UsageError where a column is missing."""
    if missing := sorted(set(MEMBERS.names) - set(table.column_names)):
        raise UsageError(f"not a table of members: column '{missing[0]}' is missing")
    columns = [values(table.column(name)) for name in MEMBERS.names]
    return [Member(*row) for row in zip(*columns, strict=True)]


def values(column: pa.ChunkedArray) -> list[Any]:
    """A column without nulls as Python values, lists as tuples; ten times as fast as to_pylist."""
    assert not column.null_count, "a member's facts are all known"
    array = column.combine_chunks()
    if not pa.types.is_list(array.type):
        return list(array.to_numpy(zero_copy_only=False).tolist())
    flat = array.flatten().to_numpy().tolist()
    ends = np.cumsum(array.value_lengths().to_numpy()).tolist()
    return [tuple(flat[start:end]) for start, end in pairwise([0, *ends])]


# --- order, shards, splits ----------------------------------------------------------------------


def _mix(x: Keys) -> Keys:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def order_keys(seed: int, game_ids: Sequence[str], salt: int = 0) -> Keys:
    """The 64-bit keys that order a dataset: mix(mix(mix(start) ^ high) ^ low) of each id's halves.

    start = seed + (salt + 1) * 0x9E3779B97F4A7C15, all modulo 2**64.
    """
    halves = np.frombuffer(bytes.fromhex("".join(game_ids)), ">u8").reshape(-1, 2)
    halves = halves.astype(np.uint64)
    start = np.array([(seed + (salt + 1) * 0x9E3779B97F4A7C15) % 2**64], np.uint64)
    return _mix(_mix(_mix(start) ^ halves[:, 0]) ^ halves[:, 1])


def order_key(seed: int, game_id: str) -> int:
    """One game's key; see order_keys."""
    return int(order_keys(seed, [game_id])[0])


def shard_bits(games: int, games_per_shard: int) -> int:
    """round(log2(games / games_per_shard)), at least 0, in whole numbers."""
    return max((2 * games * games // games_per_shard**2).bit_length() - 1, 0) // 2


def shard_numbers(keys: Keys, games_per_shard: int) -> npt.NDArray[np.int32]:
    """Shard of each key (ascending): cut where the leading bits change, empty ones left out.

    A cut by prefix and not every N games: a few new games leave most shards as they were.
    """
    bits = shard_bits(len(keys), games_per_shard)
    prefix = keys >> np.uint64(64 - bits) if bits else np.zeros(len(keys), np.uint64)
    numbers: npt.NDArray[np.int32] = np.unique(prefix, return_inverse=True)[1].astype(np.int32)
    return numbers


def split_names(buckets: Sequence[int], natural_keys: Sequence[str]) -> list[str]:
    """The split ('train', 'val' or 'test') of each member.

    A selection without a validation game takes the training game of the highest bucket (all of its
    recordings); with one training game only, nothing is left to validate with and 'val' is empty.
    """
    names = ["train" if b < VAL_FROM else "val" if b < TEST_FROM else "test" for b in buckets]
    games = list(zip(buckets, natural_keys, strict=True))
    training = {game for game, name in zip(games, names, strict=True) if name == "train"}
    if "val" in names or len(training) < 2:
        return names
    chosen = max(training)
    return ["val" if game == chosen else name for game, name in zip(games, names, strict=True)]


# --- tar ----------------------------------------------------------------------------------------

BLOCK = 512
END = bytes(2 * BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")


def padded(size: Size) -> Size:
    """Size of a body in a tar (or of each one), zeros to a whole block included."""
    return -(-size // BLOCK) * BLOCK


def header(name: str, size: int) -> bytes:
    """A ustar header: mtime 0, owner 0, mode 0644, so that equal games give equal tars."""
    fields = [
        name.encode("ascii"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size,
        b"00000000000\0", b" " * 8, b"0", b"", b"ustar\0", b"00", b"", b"", b"0000000\0",
        b"0000000\0", b"",
    ]  # fmt: skip
    checksum = sum(_HEADER.pack(*fields))
    fields[6] = b"%06o\0 " % checksum
    return _HEADER.pack(*fields)


def sample_json(listed: Listed, n_frames: int, stretches: Sequence[int], version: int) -> bytes:
    """`<game_id>.json` of a sample: nothing in it can change while game, rev and sides stay."""
    game_id, rev, sides = listed
    # Ids are hex and all else whole numbers: a template is JSON, in a sixth of json.dumps' time.
    return (
        f'{{"game_id": "{game_id}", "rev": {rev}, "sides": {list(sides)}, "n_frames": {n_frames}, '
        f'"stretches": {list(stretches)}, "slippi_version": "{version_text(version)}"}}'
    ).encode()


def member_json(member: Member) -> bytes:
    """The json body of a member."""
    return sample_json(member.listed, member.n_frames, member.stretches, member.version)


@dataclass(frozen=True)
class FilePart:
    """Bytes of a tar that are a whole game file."""

    game_id: str
    rev: int
    size: int


def shard_parts(members: Iterable[Member]) -> Iterator[bytes | FilePart]:
    """The parts of a shard's tar in order; payload before json, so that a cut sample shows."""
    before = b""
    for member in members:
        body = member_json(member)
        yield before + header(f"{member.game_id}.parquet", member.parquet_bytes)
        yield FilePart(member.game_id, member.rev, member.parquet_bytes)
        padding = bytes(padded(member.parquet_bytes) - member.parquet_bytes)
        before = padding + header(f"{member.game_id}.json", len(body)) + body
        before += bytes(padded(len(body)) - len(body))
    yield before + END


def shard_bytes(members: Iterable[Member]) -> int:
    """Length of a shard's tar."""
    return sum(sample_bytes(m.parquet_bytes, m.json_bytes) for m in members) + len(END)


def sample_bytes(parquet_bytes: Size, json_bytes: Size) -> Size:
    """Length of one sample in a tar, both headers included."""
    return 2 * BLOCK + padded(parquet_bytes) + padded(json_bytes)


def shard_etag(members: Iterable[Member]) -> str:
    """The strong ETag of a shard, quotes included: equal tags, equal bytes."""
    digest = hashlib.sha256(b"meleewm shard %d\0" % FORMAT)
    for member in members:
        digest.update(member.parquet_sha256 + member.parquet_bytes.to_bytes(8, "big"))
        digest.update(member_json(member) + b"\0")
    return f'"{digest.hexdigest()[:32]}"'


# --- dataset id and lock ------------------------------------------------------------------------

_RECORD = struct.Struct(">16sHB")


def pack(games: Iterable[Listed]) -> bytes:
    """19 bytes a game: id, rev, sides as bits."""
    record = _RECORD.pack
    return b"".join(
        record(bytes.fromhex(game_id), rev, sum(1 << side for side in sides))
        for game_id, rev, sides in games
    )


def unpack(packed: bytes) -> list[Listed]:
    """The games of `pack`."""
    sides = {bits: tuple(s for s in range(8) if bits >> s & 1) for bits in range(256)}
    return [(raw.hex(), rev, sides[bits]) for raw, rev, bits in _RECORD.iter_unpack(packed)]


def dataset_id(request: Request, packed: bytes) -> str:
    """32 hex digits over content kind, format, cut, seed and the ordered list of games."""
    head = [FORMAT, request.content, request.games_per_shard, request.seed]
    return hashlib.sha256(json.dumps(head).encode() + b"\0" + packed).hexdigest()[:32]


LOCK_GAMES_MAX = 10_000_000
_LINE = 96  # characters of base64 a line of the lock file: its diffs stay readable


@dataclass(frozen=True)
class Lock:
    """A dataset as a file for git: any store that has these games gives the same samples."""

    request: Request
    dataset_id: str
    query: str
    games: tuple[Listed, ...]
    frames: int

    @property
    def shard_hashes(self) -> list[str]:
        """A logical hash of each shard: its games, revs and sides, whatever their bytes."""
        keys = order_keys(self.request.seed, [game_id for game_id, _, _ in self.games])
        numbers = shard_numbers(keys, self.request.games_per_shard)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        ends = [*starts, len(self.games)][1:]
        shards = [self.games[start:end] for start, end in zip(starts, ends, strict=True)]
        return [hashlib.sha256(pack(games)).hexdigest()[:16] for games in shards]

    def to_json(self) -> str:
        """The lock file's text."""
        packed = base64.b64encode(zlib.compress(pack(self.games), 9)).decode()
        document = {
            "format": "meleewm-lock-1",
            "dataset_id": self.dataset_id,
            "query": self.query,
            "request": self.request.to_dict(),
            "games": len(self.games),
            "perspectives": sum(len(sides) for _, _, sides in self.games),
            "frames": self.frames,
            "shards": self.shard_hashes,
            "list": [packed[at : at + _LINE] for at in range(0, len(packed), _LINE)],
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: Text) -> "Lock":
        """Read and check a lock file. Raises UsageError for a file that is damaged or none."""
        try:
            document = json.loads(text)
            _check(document["format"] == "meleewm-lock-1", "unknown format of lock file")
            request = Request.from_dict(document["request"])
            n_games, frames, query = document["games"], document["frames"], document["query"]
            _check(_is_int(n_games, 0, LOCK_GAMES_MAX), "the lock file is damaged: games")
            _check(_is_int(frames, 0, 2**62), "the lock file is damaged: frames")
            packed = _inflated("".join(document["list"]), n_games * _RECORD.size)
            expected = dataset_id(request, packed)
            _check(document["dataset_id"] == expected, "the lock file is damaged: dataset_id")
            games = tuple(unpack(packed))
            _check_list(request, games)
            return cls(request, expected, str(query), games, frames)
        except (ValueError, KeyError, TypeError, zlib.error, struct.error, RecursionError):
            raise UsageError("not a lock file", "write one with `meleewm lock`") from None


def _check_list(request: Request, games: Sequence[Listed]) -> None:
    ids = [game_id for game_id, _, _ in games]
    keys = order_keys(request.seed, ids)
    _check(bool(np.all(keys[1:] >= keys[:-1])), "the lock file is damaged: order of games")
    _check(len(set(ids)) == len(ids), "the lock file is damaged: a game stands twice")
    known = {(0,), (1,), (0, 1)}
    _check({sides for _, _, sides in games} <= known, "the lock file is damaged: sides")


def _inflated(text: str, size: int) -> bytes:
    """Exactly `size` bytes from base64 of zlib: a bomb is cut off."""
    inflater = zlib.decompressobj()
    packed = inflater.decompress(base64.b64decode(text, validate=True), size + 1)
    _check(len(packed) == size, "the lock file is damaged: list of games")
    return packed


# --- manifest -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """One tar of a dataset; `etag` is the header's value, quotes included."""

    n: int
    url: str
    bytes: int
    games: int
    frames: int
    etag: str


@dataclass(frozen=True)
class Manifest:
    """The head of a dataset; its members are at `members_url` as parquet (schema MEMBERS).

    URLs may be relative to the manifest's own address.
    """

    dataset_id: str
    snapshot: int
    request: Request
    query: str
    games: int
    perspectives: int
    frames: int
    bytes: int
    shards: tuple[Shard, ...]
    members_url: str

    def to_json(self) -> str:
        """The manifest as a JSON document."""
        return json.dumps({"format": "meleewm-manifest-1", **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: Text) -> "Manifest":
        """Read a manifest; fields of later versions are ignored. Raises UsageError."""
        try:
            document = json.loads(text)
            _check(document["format"] == "meleewm-manifest-1", "unknown format of manifest")
            fields = {f.name: document[f.name] for f in dataclasses.fields(cls)}
            fields["request"] = Request.from_dict(fields["request"])
            names = [f.name for f in dataclasses.fields(Shard)]
            fields["shards"] = tuple(Shard(**{n: s[n] for n in names}) for s in fields["shards"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError("not a manifest of a dataset") from None


def shard_name(n: int) -> str:
    """File name of a shard."""
    return f"{n:05d}.tar"
