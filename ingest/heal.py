"""Repair of a store: orphans adopted, marks and anchor written anew, damaged game files made again.

A game id is a hash of its replay's bytes, so any archive that holds the replay can heal the game.
Equal bytes are simply put back. Another pyarrow writes other bytes of the same values: they become
new rows with `rewrite` one higher, under the same dataset ids. Other values are never put back.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ingest import anonymize, sources
from ingest.rebuild import mark_of_removal, read_files
from ingest.rules import Refusal
from ingest.worker import Made, Options, make
from schemas.records import TABLES, Rows
from store.catalog import HEX_ID, Catalog
from store.layout import Layout, sweep_parts, write_atomic
from store.parquet import anchor_bytes
from store.upkeep import removal_mark
from store.verify import Finding
from store.verify.check import verify_files
from store.verify.parallel import DiedError, in_order
from store.verify.rows import contradictions

HEALABLE = ("missing", "size", "checksum", "unreadable", "schema")
_OF_THE_BYTES = {"rewrite", "parquet_bytes", "parquet_sha256", "parquet_crc32"}
Progress = Callable[[int, int | None, str], None]
"""(done, in all where known, of what)"""


@dataclass
class Healed:
    """What a repair did, by paths relative to the store.

    left: (path, why it is as it was). restored: with the bytes that it had; rewritten: with others.
    """

    adopted: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    swept: int = 0
    snapshot: int = 0


def repair(
    layout: Layout,
    sources_of: Sequence[Path] = (),
    *,
    options: Options | None = None,
    quick: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Healed:
    """Adopt orphans, and make damaged or missing game files again from the replays in `sources_of`.

    quick: find damage by sizes only. Raises UsageError for a path that is not there, or where the
    store was made with a key and `options` has another one, or none.
    """
    options = options or Options()
    found = sources.items(sources_of) if sources_of else None
    if sources_of:
        anonymize.check(layout, options.key)
    say = progress or (lambda *_: None)
    done = Healed(swept=sweep_parts(layout))
    with Catalog(layout) as catalog:
        findings = verify_files(
            layout, catalog, quick=quick, workers=workers,
            progress=lambda n, total: say(n, total, "games checked"),
        )  # fmt: skip
        _restore_marks(layout, catalog, findings, done)
        _adopt(layout, catalog, findings, done, workers)
        damaged = {f.where: f for f in findings if f.kind in HEALABLE and f.game_id}
        _heal(layout, catalog, damaged, found, options=options, done=done, say=say)
        for where, finding in damaged.items():
            hint = (
                "no replay given by --from has it" if sources_of else "meleewm repair --from PATH"
            )
            done.left.append((where, f"{finding.kind}: {finding.detail}; {hint}"))
        for finding in contradictions(catalog):
            game = f" (game {finding.game_id})" if finding.game_id else ""
            why = f"{finding.kind}: {finding.detail}{game}; meleewm rebuild --force mends it"
            done.left.append((finding.where, why))
        done.snapshot = catalog.snapshot()
    return done


# --- without replays ----------------------------------------------------------------------------


def _restore_marks(layout: Layout, catalog: Catalog, findings: list[Finding], done: Healed) -> None:
    """The anchor, marks of removals, and removals of marks."""
    for finding in findings:
        path = layout.root / finding.where
        if path == layout.anchor:
            write_atomic(path, anchor_bytes())
        elif finding.kind == "removal":
            (row,) = catalog.query(
                f"select {HEX_ID} as game_id, removed_at, reason from lake.removals"
                " where game_id = cast(? as uuid) order by removed_at limit 1",
                [finding.game_id],
            ).to_pylist()
            write_atomic(path, removal_mark(row))
        elif finding.kind == "removed":
            catalog.commit({"removals": [mark_of_removal(path)]})
        else:
            continue
        done.marked.append(finding.where)


def _adopt(
    layout: Layout, catalog: Catalog, findings: list[Finding], done: Healed, workers: int
) -> None:
    """Rows for the game files that have none; what is no game file of this store is left."""
    found = catalog.query(f"select distinct {HEX_ID} as id from lake.removals")
    removed = set(found.column(0).to_pylist())
    orphans = []
    for finding in findings:
        if finding.kind == "orphan" and finding.game_id in removed:
            done.left.append((finding.where, "of a removed game; meleewm vacuum deletes it"))
        elif finding.kind == "orphan":
            orphans.append(layout.root / finding.where)
    batch: Rows = {}
    for path, rows in read_files(layout, orphans, min(workers, len(orphans))):
        where = str(path.relative_to(layout.root))
        if isinstance(rows, str):
            done.left.append((where, rows))
            continue
        done.adopted.append(where)
        for name, some in rows.items():
            batch.setdefault(name, []).extend(some)
    if batch:
        catalog.commit(batch)


# --- with replays -------------------------------------------------------------------------------


def _heal(
    layout: Layout,
    catalog: Catalog,
    damaged: dict[str, Finding],
    found: Iterator[sources.Item] | None,
    *,
    options: Options,
    done: Healed,
    say: Progress,
) -> None:
    """Make damaged files again while there are replays; what is done with leaves `damaged`."""
    wanted: dict[str, str] = {}
    for where, finding in list(damaged.items()):
        assert finding.game_id
        rev = int(Path(where).name.split(".")[1])
        if rev == options.revision:
            wanted[finding.game_id] = where
        elif found is not None:
            detail = f"of revision {rev}, which this version does not write"
            done.left.append((where, f"{finding.kind}: {detail}; ingest its replay anew"))
            del damaged[where]
    if found is None:
        return
    n_wanted = len(wanted)
    replays = _matching(found, wanted, say)
    for (game_id, _), made in in_order(partial(_make, options), replays, 1):
        if game_id not in wanted:
            continue  # a second copy
        where = wanted.pop(game_id)
        problem = made if isinstance(made, str) else None
        if isinstance(made, DiedError):
            problem = str(made)
        if isinstance(made, Made):
            problem = _put_back(layout, catalog, where, made, done)
        if problem:
            done.left.append((where, problem))
        del damaged[where]
        say(n_wanted - len(wanted), n_wanted, "files healed")


def _matching(
    found: Iterator[sources.Item], wanted: Mapping[str, str], say: Progress
) -> Iterator[tuple[str, bytes]]:
    """(game id, replay) of the items that are wanted, until none is."""
    n = 0
    while wanted and (item := next(found, None)) is not None:
        n += 1
        say(n, None, "replays looked at")
        data = item.data
        if item.rule:
            continue
        if data is None:
            try:
                data = sources.read_file(item.path)
            except OSError:
                continue
        game_id = hashlib.sha256(data).hexdigest()[:32]
        if game_id in wanted:
            yield game_id, data


def _make(options: Options, replay: tuple[str, bytes]) -> Made | str:
    """In a worker process: the game file of a replay, or why there is none."""
    game_id, data = replay
    try:
        return make(data, game_id, options)
    except Refusal as refusal:
        return f"its replay is refused now, by {refusal.rule}: {refusal.detail}"
    except Exception as error:  # noqa: BLE001 - hostile bytes
        return f"its replay cannot be read now: {type(error).__name__}: {error}"


def _put_back(layout: Layout, catalog: Catalog, where: str, made: Made, done: Healed) -> str | None:
    """Write a game file again; returns why not, if not."""
    (new,) = made.rows["games"]
    (known,) = catalog.query(
        f"select * replace ({HEX_ID} as game_id,"
        " replace(cast(natural_key as varchar), '-', '') as natural_key)"
        " from lake.games where game_id = cast(? as uuid) and rev = ?"
        " order by rewrite desc limit 1",
        [new["game_id"], new["rev"]],
    ).to_pylist()
    other = [
        column.name
        for column in TABLES["games"]
        if column.name not in _OF_THE_BYTES and not _equal(new[column.name], known[column.name])
    ]
    if other:
        return f"its replay gives other values now ({', '.join(other)}): it is not put back"
    path = layout.root / where
    write_atomic(path, made.parquet)
    if new["parquet_sha256"] == known["parquet_sha256"]:
        done.restored.append(where)
        return None
    rewrite = {"rewrite": known["rewrite"] + 1}
    rows: Rows = {name: [{**row, **rewrite} for row in made.rows[name]] for name in _REWRITTEN}
    catalog.commit(rows)
    done.rewritten.append(where)
    return None


_REWRITTEN = ("games", "perspectives")


def _equal(a: Any, b: Any) -> bool:
    # the catalog keeps 32 bits of a float
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)
