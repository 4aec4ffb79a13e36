"""From a query at a snapshot to an ordered list of games and sides, with a name that is its value.

What a snapshot shows: removals applied, the newest revision of each game, one recording of it. The
SQL of that rule stands here once; store.sql builds its views from it too.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas import query, shard
from schemas.errors import MissingGamesError, NotFoundError
from schemas.records import version_text
from schemas.shard import MEMBERS, Counts, Lock, Manifest, Member, Request, Shard
from store.catalog import HEX_ID, Catalog
from store.layout import Layout, write_atomic

_NAMED_MAX = 3  # missing games that an error names

_COLUMNS = (
    "game_id, rev, rewrite, natural_key, bucket, n_frames, stretches, parquet_bytes,"
    " parquet_crc32, parquet_sha256, leaf_set, version"
)
_FACTS = (
    "replace(cast(natural_key as varchar), '-', '') as natural_key, bucket, n_frames, stretches,"
    " parquet_bytes, parquet_crc32, parquet_sha256, leaf_set, version"
)


@dataclass(frozen=True)
class Selection:
    """An ordered dataset of one store.

    table: schema MEMBERS, in dataset order, shards and offsets filled in. query: canonical text.
    """

    request: Request
    snapshot: int
    query: str
    table: pa.Table
    dataset_id: str

    @cached_property
    def members(self) -> list[Member]:
        """The rows of `table`."""
        return shard.members_from(self.table)

    @cached_property
    def shards(self) -> list[list[Member]]:
        """The members of each shard."""
        return [list(members) for _, members in groupby(self.members, key=lambda m: m.shard)]

    def shard(self, n: int) -> list[Member]:
        """The members of one shard. Raises NotFoundError."""
        if not 0 <= n < len(self.shards):
            raise NotFoundError(f"the dataset has no shard {n}", f"it has {len(self.shards)}")
        return self.shards[n]

    def manifest(self, base_url: str = "") -> Manifest:
        """The dataset's head; `base_url` is put before the shards' and members' relative URLs."""
        shards = tuple(
            Shard(
                n=n,
                url=f"{base_url}shards/{shard.shard_name(n)}",
                bytes=shard.shard_bytes(members),
                games=len(members),
                frames=sum(m.n_frames for m in members),
                etag=shard.shard_etag(members),
            )
            for n, members in enumerate(self.shards)
        )
        return Manifest(
            dataset_id=self.dataset_id,
            snapshot=self.snapshot,
            request=self.request,
            query=self.query,
            games=len(self.members),
            perspectives=sum(len(m.sides) for m in self.members),
            frames=sum(s.frames for s in shards),
            bytes=sum(s.bytes for s in shards),
            shards=shards,
            members_url=f"{base_url}members.parquet",
        )

    def members_parquet(self) -> bytes:
        """members.parquet."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table, sink, compression="zstd")
        return bytes(sink.getvalue())

    def lock(self) -> Lock:
        """The dataset as a lock file."""
        return Lock(
            request=replace(self.request, snapshot=self.snapshot),
            dataset_id=self.dataset_id,
            query=self.query,
            games=tuple(member.listed for member in self.members),
            frames=sum(member.n_frames for member in self.members),
        )


def select(layout: Layout, request: Request, *, catalog: Catalog | None = None) -> Selection:
    """Resolve a request; nothing matched gives an empty selection.

    catalog: one that is open already saves 0.3 s. Raises QueryError, and NotFoundError for a
    snapshot that is not there.
    """
    tree = query.parse(request.query or "")
    where, values = query.to_sql(tree)
    with _opened(layout, catalog) as lake:
        snapshot = lake.check_snapshot(request.snapshot)
        sides, games, removals = (
            lake.at(name, snapshot) for name in ("perspectives", "games", "removals")
        )
        near = games_near(games, "matched", request.recordings, lake.each_game_once(snapshot))
        is_newest = request.snapshot is None or snapshot == lake.snapshot()
        chosen = "rows join chosen using (game_id, rev, rewrite)"
        if not is_newest:
            # The bytes on disk are the newest ones, also for a selection of the past.
            chosen = _newest_files(lake, "(select * exclude (rewrite) from chosen)")
        # What a table of 287,504 games costs is decoding it: each is read as seldom as can be.
        found = lake.query(
            "with matched as materialized (select game_id, rev, rewrite, natural_key, side"
            f"   from {sides} where {where}),"
            f" rows as materialized (select {_COLUMNS} from {near}),"
            f" live as ({live_games('rows', removals, request.recordings)}),"
            " chosen as (select game_id, rev, rewrite, list(side order by side) as sides"
            "   from matched semi join live using (game_id, rev, rewrite) group by all)"
            f" select {HEX_ID} as game_id, rev, sides, {_FACTS} from {chosen} order by game_id",
            values,
        )
    found = _sampled(_of_split(found, request.split), request)
    return _selection(request, snapshot, query.canonical(tree), found)


def from_lock(layout: Layout, lock: Lock, *, catalog: Catalog | None = None) -> Selection:
    """The dataset of a lock file, whatever was ingested or removed since.

    Raises MissingGamesError where this store has not all of its games (and revisions).
    """
    wanted = pa.table(
        {
            "id": [game_id for game_id, _, _ in lock.games],
            "rev": pa.array([rev for _, rev, _ in lock.games], pa.int32()),
            "sides": pa.array([sides for _, _, sides in lock.games], pa.list_(pa.int8())),
        }
    )
    with _opened(layout, catalog) as lake:
        snapshot = lake.snapshot()
        chosen = "(select cast(id as uuid) as game_id, rev, sides from wanted)"
        found = lake.query(
            f"select {HEX_ID} as game_id, rev, sides, {_FACTS}"
            f" from {_newest_files(lake, chosen)} order by game_id",
            wanted=wanted,
        )
        removed = lake.query(f"select distinct {HEX_ID} as id from lake.removals")
    have = set(found.column("game_id").to_pylist())
    # A removed game answers old locks until `vacuum` takes its file.
    doubtful = set(removed.column("id").to_pylist())
    _refuse_missing(
        [
            (game_id, rev)
            for game_id, rev, _ in lock.games
            if game_id not in have
            or (game_id in doubtful and not layout.game_path(game_id, rev).exists())
        ]
    )
    snapshot = snapshot if lock.request.snapshot is None else lock.request.snapshot
    selection = _selection(lock.request, snapshot, lock.query, found)
    assert selection.dataset_id == lock.dataset_id, "order and id are functions of the list"
    return selection


def save(layout: Layout, selection: Selection) -> None:
    """Keep what a dataset id stands for, so that it answers after a restart."""
    path = layout.datasets / f"{selection.dataset_id}.lock"
    if not path.exists():
        write_atomic(path, selection.lock().to_json().encode())


def load(layout: Layout, dataset_id: str, *, catalog: Catalog | None = None) -> Selection:
    """A dataset that was saved. Raises NotFoundError, MissingGamesError."""
    path = layout.datasets / f"{dataset_id}.lock"
    if not re.fullmatch(r"[0-9a-f]{32}", dataset_id) or not path.exists():
        hint = "ask for it by its request or lock file"
        raise NotFoundError(f"there is no dataset {dataset_id[:40]!r}", hint)
    return from_lock(layout, Lock.from_json(path.read_bytes()), catalog=catalog)


def games_near(games: str, among: str, recordings: str, each_once: bool) -> str:
    """SQL of the rows of `games` that decide which rows of a relation `live_games` shows.

    games: the table as of the snapshot; each_once: `Catalog.each_game_once` of it. among: a
    relation with its game_id and natural_key.
    """
    if recordings == "all":
        return f"{games} semi join {among} using (game_id)"
    if each_once:
        return f"{games} semi join {among} using (natural_key)"
    # By id as well: a later revision may have another key, and takes the matched one's place.
    return (
        f"{games} semi join (select game_id from {games} semi join {among} using (natural_key)"
        f" union select game_id from {among}) using (game_id)"
    )


def live_games(games: str, removals: str, recordings: str) -> str:
    """SQL of the (game_id, rev, rewrite) that a snapshot shows.

    games, removals: the tables as of the snapshot, or of `games` all rows of `games_near`. Which
    recording of a game is shown depends on the snapshot alone, neither on the query nor on the
    order of ingest.
    """
    # Few games have two rows: windows over all of them would cost more than the rest of a query.
    # (One kind is left: a game whose revisions differ in natural_key is found by its id.)
    by_key = " or natural_key in (select natural_key from kept group by all having count(*) > 1)"
    first = " qualify game_id = min(game_id) over (partition by natural_key)"
    one = recordings == "one"
    return (
        f"with kept as (select game_id, rev, rewrite, natural_key from {games}"
        f"   where game_id not in (select game_id from {removals})),"
        " contested as (select * from kept where game_id in"
        "   (select game_id from kept group by all having count(*) > 1)"
        f"  {by_key if one else ''}),"
        " newest as (select * from contested"
        "   qualify row_number() over (partition by game_id order by rev desc, rewrite desc) = 1)"
        " select game_id, rev, rewrite from kept anti join contested using (game_id)"
        f" union all select game_id, rev, rewrite from newest{first if one else ''}"
    )


def rewrites(catalog: Catalog, snapshot: int) -> dict[tuple[str, int], int]:
    """(game id, revision) of the game files that were written again -> how often; mostly empty."""
    found = catalog.query(
        f"select {HEX_ID} as game_id, rev, max(rewrite) as rewrite"
        f" from {catalog.at('games', snapshot)} where rewrite > 0 group by all"
    )
    return {(row["game_id"], row["rev"]): row["rewrite"] for row in found.to_pylist()}


def _newest_files(catalog: Catalog, chosen: str) -> str:
    """SQL of `games` joined with `chosen` (game_id, rev), as the files are now."""
    return (
        f"(select * from {catalog.at('games', catalog.snapshot())}"
        f"   join {chosen} using (game_id, rev)"
        "   qualify row_number() over (partition by game_id, rev order by rewrite desc) = 1)"
    )


# --- from rows to a dataset ---------------------------------------------------------------------


@contextmanager
def _opened(layout: Layout, catalog: Catalog | None) -> Iterator[Catalog]:
    if catalog is not None:
        yield catalog
        return
    with Catalog(layout, read_only=True) as opened:
        yield opened


def _of_split(found: pa.Table, split: str) -> pa.Table:
    """The rows of one split; which game is in which depends on all that the query matches."""
    if split == "all":
        return found
    buckets, keys = (shard.values(found.column(name)) for name in ("bucket", "natural_key"))
    return found.filter(
        pa.array([n == split for n in shard.split_names(buckets, keys)], pa.bool_())
    )


def _sampled(found: pa.Table, request: Request) -> pa.Table:
    """At most `limit` games, by keys of their own: the first ones in order would be one shard."""
    if request.limit is None or request.limit >= len(found):
        return found
    ids = shard.values(found.column("game_id"))
    keys = shard.order_keys(request.seed, ids, shard.LIMIT_SALT)
    return found.take(np.sort(np.argsort(keys, kind="stable")[: request.limit]))


def _selection(request: Request, snapshot: int, text: str, found: pa.Table) -> Selection:
    table = _laid_out(found, request)
    packed = _packed(*(table.column(name) for name in ("game_id", "rev", "sides")))
    return Selection(request, snapshot, text, table, shard.dataset_id(request, packed))


def _laid_out(found: pa.Table, request: Request) -> pa.Table:
    """The games (sorted by id) in dataset order, with shard, offset and length of their json."""
    keys = shard.order_keys(request.seed, shard.values(found.column("game_id")))
    order = np.argsort(keys, kind="stable")
    found = found.take(order)
    numbers = shard.shard_numbers(keys[order], request.games_per_shard)
    lengths = _json_lengths(found)
    bodies = found.column("parquet_bytes").to_numpy()
    sizes = shard.sample_bytes(bodies, lengths)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    offsets = starts - starts[firsts][numbers] + shard.BLOCK
    places = {"shard": numbers, "offset": offsets, "json_bytes": lengths}
    for name, values in places.items():
        found = found.append_column(name, pa.array(values, MEMBERS.field(name).type))
    return found.cast(MEMBERS)


def _json_lengths(members: pa.Table) -> Counts:
    """Length of `shard.sample_json` of each row."""
    fixed = len(shard.sample_json(("", 0, ()), 0, (), 0)) - len("0" + "[]" + "0" + "[]" + "0.0.0")
    versions, which = np.unique(members.column("version").to_numpy(), return_inverse=True)
    texts = np.array([len(version_text(int(v))) for v in versions], np.int64)[which]
    ids = pc.binary_length(members.column("game_id")).to_numpy()
    digits = [_digits(members.column(name).to_numpy()) for name in ("rev", "n_frames")]
    lists = []
    for name in ("sides", "stretches"):
        n, total = _list_sums(members.column(name), _digits)
        lists.append(total + 2 + 2 * np.maximum(n - 1, 0))  # brackets, and ", " between
    lengths: Counts = fixed + texts + ids + sum(digits) + sum(lists)
    return lengths


def _digits(numbers: Counts) -> Counts:
    """Decimal digits of each number, none of them negative."""
    digits: Counts = 1 + np.searchsorted(10 ** np.arange(1, 19), numbers, "right")
    return digits


def _list_sums(column: pa.ChunkedArray, of: Callable[[Counts], Counts]) -> tuple[Counts, Counts]:
    """How many values each list has, and the sum of a function over them."""
    array = column.combine_chunks()
    lengths = array.value_lengths().to_numpy().astype(np.int64)
    sums = np.append(0, np.cumsum(of(array.flatten().to_numpy().astype(np.int64))))
    ends = np.cumsum(lengths)
    return lengths, sums[ends] - sums[ends - lengths]


def _packed(ids: pa.ChunkedArray, revs: pa.ChunkedArray, sides: pa.ChunkedArray) -> bytes:
    """As `shard.pack`, from columns of a table of members."""
    packed = np.empty(len(ids), np.dtype([("id", "V16"), ("rev", ">u2"), ("sides", "u1")]))
    packed["id"] = np.frombuffer(bytes.fromhex("".join(shard.values(ids))), "V16")
    packed["rev"] = revs.to_numpy()
    packed["sides"] = _list_sums(sides, lambda side: 1 << side)[1]
    return packed.tobytes()


def _refuse_missing(missing: list[tuple[str, int]]) -> None:
    if missing:
        names = ", ".join(f"{game_id} (rev {rev})" for game_id, rev in missing[:_NAMED_MAX])
        more = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
        message = f"this store has not {len(missing)} of the dataset's games: {names}{more}"
        raise MissingGamesError(message, "ingest the replays that they come from")
