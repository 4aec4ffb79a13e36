"""Damage replays at random and ingest them: `python -m tests.fuzz --cases 5000 --seed 1`.

Every case must end as a game or as a named refusal, in the ledger exactly once: no crash, no hang,
and nothing stored that the replay does not say. Case N of a seed is the same in every run.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ingest.replay import ParsedGame
from ingest.rules import RULES
from ingest.slp import GAME_END, KINDS, split
from ingest.synthetic import make_game
from ingest.workers import ingest
from store.catalog import Catalog
from store.layout import Layout, open_layout
from store.parquet import read_footer, read_game
from store.verify import verify
from tests.ingest.fidelity import assert_faithful
from tests.ingest.mutations import OF_BYTES, OF_STREAM, whole, wrap
from tests.ingest.streams import take_apart

VERSIONS = ((0, 1), (0, 2), (1, 0), (1, 4), (2, 0), (2, 2), (3, 0), (3, 3), (3, 6), (3, 7), (3, 9),
            (3, 12), (3, 14), (3, 16), (3, 18), (3, 19))  # fmt: skip
STAGES = ("fod", "stadium", "dreamland", "yoshis", "fd")
BATCH = 500
REAL_FILES, REAL_FRAMES = 60, 150
WRAPPED_SHARE, UNTOUCHED_SHARE = 0.1, 0.01
OUTCOMES = ("stored", "repaired", "refused")
_NEVER = ("crashed", "hung", "out_of_memory")


@dataclass(frozen=True)
class Case:
    """One damaged replay: the bytes of the file, and those of the replay inside it."""

    number: int
    mutations: tuple[str, ...]
    ending: str
    file: bytes
    replay: bytes

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.number:06}{self.ending}"


@dataclass
class Report:
    """What became of all cases, and what must not have happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    by_mutation: dict[str, Counter[str]] = field(default_factory=dict)
    compared: int = 0
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The tables."""
        yield "  ".join(f"{name} {n}" for name, n in sorted(self.outcomes.items()))
        yield from (f"  refused, {rule}: {n}" for rule, n in sorted(self.rules.items()))
        yield f"  games compared with their replays: {self.compared}"
        yield f"{'mutation':24}" + "".join(f"{name:>10}" for name in (*OUTCOMES, "other"))
        for mutation, counts in sorted(self.by_mutation.items()):
            other = counts.total() - sum(counts[name] for name in OUTCOMES)
            numbers = [*(counts[name] for name in OUTCOMES), other]
            yield f"{mutation:24}" + "".join(f"{n:10}" for n in numbers)


# --- cases ----------------------------------------------------------------------------------------


def synthetic_replays() -> list[bytes]:
    """Short games of all layouts: every stage, Nana, rollbacks, quits, without end or metadata."""
    replays = []
    for n, version in enumerate(VERSIONS):
        chars = ("ice_climbers", "fox") if n % 2 else None
        for seed in range(2):
            made = make_game(
                100 * n + seed,
                version=version,
                chars=chars,
                stage=STAGES[(n + seed) % len(STAGES)],
                n_frames=30 + 40 * seed,
                rollbacks=version >= (3, 0) and seed == 1,
                quit=n % 5 == 0,
                with_end=n % 7 != 3,
                with_metadata=n % 6 != 5,
            )
            replays.append(made.slp)
    return replays


def real_replays(folder: Path, rng: Random) -> list[bytes]:
    """The beginnings of some real replays, each with its end and metadata."""
    paths = sorted(folder.rglob("*.slp"))
    picked = sorted(rng.sample(paths, min(REAL_FILES, len(paths))))
    return [shortened(path.read_bytes()) for path in picked]


def shortened(data: bytes, n_frames: int = REAL_FRAMES) -> bytes:
    """A replay's first frames; what cannot be taken apart is cut to some length."""
    events = split(data)
    pre = (events.codes == KINDS["pre"].code).nonzero()[0]
    if len(pre) <= 4 * n_frames or events.fault:
        return data[:100_000]
    begin = KINDS["start"].code if KINDS["start"].code in events.sizes else KINDS["pre"].code
    starts = (events.codes == begin).nonzero()[0]
    stop = int(starts[starts <= pre[4 * n_frames]][-1])
    stream = take_apart(data[: int(events.offsets[stop]) - 1] + b"}")
    stream.tail = data[events.stop :]
    ends = (events.codes == GAME_END).nonzero()[0]
    if len(ends):
        at = int(events.offsets[ends[-1]])
        stream.events.append(data[at - 1 : at + events.sizes[GAME_END]])
    return stream.pack()


def make_case(seed: int, number: int, replays: list[bytes]) -> Case:
    """Case `number` of a seed: one to three mutations of one replay, perhaps in an archive."""
    rng = Random(f"{seed}/{number}")
    replay = rng.choice(replays)
    every = [*OF_STREAM, *OF_BYTES]
    names = [rng.choice(every) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    names = [] if rng.random() < UNTOUCHED_SHARE else sorted(names, key=every.index)
    stream = take_apart(replay)
    of_stream = [name for name in names if name in OF_STREAM]
    for name in of_stream:
        if whole(stream):
            OF_STREAM[name](rng, stream)
    changed = stream.pack() if of_stream else replay
    for name in names:
        if name in OF_BYTES and changed:
            changed = OF_BYTES[name](rng, changed)
    if rng.random() >= WRAPPED_SHARE:
        return Case(number, tuple(names), ".slp", changed, changed)
    ending, packed = wrap(rng, changed)
    return Case(number, (*names, f"as {ending[1:]}"), ending, packed, changed)


# --- running --------------------------------------------------------------------------------------


def run(seed: int, numbers: range, replays: list[bytes], *, workers: int = 2) -> Report:
    """Ingest these cases into one store, batch after batch, and look at all that came of it."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(scratch)
        for start in range(numbers.start, numbers.stop, BATCH):
            part = range(start, min(numbers.stop, start + BATCH))
            cases = [make_case(seed, number, replays) for number in part]
            _run_batch(cases, folder, workers, report)
            print(
                f"{part.stop - numbers.start} cases, {len(report.faults)} faults", file=sys.stderr
            )
        _look_at_store(open_layout(folder / "store"), report)
    return report


def _run_batch(cases: list[Case], scratch: Path, workers: int, report: Report) -> None:
    folder = scratch / f"cases-{cases[0].number}"
    folder.mkdir()
    for case in cases:
        (folder / case.name).write_bytes(case.file)
    ingest([folder], scratch / "store", workers=workers)
    layout = open_layout(scratch / "store")
    with Catalog(layout, read_only=True) as catalog:
        sql = (
            "select source, member, hex(sha256) as sha, outcome, rule, detail from lake.replays"
            f" where source like '%/{folder.name}/%'"
        )
        rows = catalog.query(sql).to_pylist()
    ledger: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        ledger.setdefault(Path(row["source"]).name, []).append(row)
    for case in cases:
        for fault in _faults(case, ledger.pop(case.name, []), layout, scratch, report):
            report.faults.append(f"case {case.number} ({', '.join(case.mutations)}): {fault}")
        (folder / case.name).unlink()
    report.faults += [f"{name} is no case, but in the ledger" for name in ledger]


def _faults(
    case: Case, rows: list[dict[str, Any]], layout: Layout, scratch: Path, report: Report
) -> Iterator[str]:
    """What is wrong with the ledger's rows of a case, or with the game that came of it."""
    if len(rows) != 1 and not (case.ending != ".slp" and _is_passed_over(case, rows)):
        yield f"{len(rows)} rows in the ledger"
    outcome = rows[0]["outcome"] if rows else "no replay in it"
    report.outcomes[outcome] += 1
    for mutation in case.mutations or ("none",):
        report.by_mutation.setdefault(mutation, Counter())[outcome] += 1
    for row in rows:
        yield from _faults_of_row(row, report)
    if outcome in ("stored", "repaired"):
        game_id = rows[0]["sha"].lower()[:32]
        data = layout.game_path(game_id).read_bytes()
        game = ParsedGame(read_game(data), read_footer(data))
        try:
            if rows[0]["sha"] == _sha(case.replay):
                assert_faithful(case.replay, game, scratch / "one.slp")
                report.compared += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            yield f"{outcome}, but not as the replay says: {type(error).__name__}: {error}"


def _faults_of_row(row: dict[str, Any], report: Report) -> Iterator[str]:
    rule, detail = row["rule"], row["detail"]
    if (row["outcome"] == "refused") != (rule is not None):
        yield f"outcome {row['outcome']} with rule {rule}"
    if rule is None:
        return
    report.rules[rule] += 1
    if rule not in RULES or not detail:
        yield f"refused by {rule!r} with detail {detail!r}"
    if rule in _NEVER:
        yield f"{rule}: {detail}"


def _is_passed_over(case: Case, rows: list[dict[str, Any]]) -> bool:
    """Whether an archive has no replay in it any more, or more than one part to tell of."""
    if rows:
        return len({(row["member"], row["rule"]) for row in rows}) == len(rows)
    return b"a.slp" not in case.file


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest().upper()


def _look_at_store(layout: Layout, report: Report) -> None:
    """verify must find no damage."""
    findings = [finding for finding in verify(layout) if finding.is_damage]
    report.faults += [f"verify: {f.kind} {f.where} {f.detail}" for f in findings]


# --- command --------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, metavar="N", help="how many (5000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed (0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="first case (0)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="write the cases there, ingest none"
    )
    args = parser.parse_args(argv)
    folder = os.environ.get("REPLAYS")
    rng = Random(args.seed)
    replays = synthetic_replays() + (real_replays(Path(folder), rng) if folder else [])
    numbers = range(args.first, args.first + args.cases)
    print(f"{args.cases} cases of seed {args.seed}, from {len(replays)} replays"
          f"{'' if folder else ' (REPLAYS is not set: none of them real)'}")  # fmt: skip
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        for case in (make_case(args.seed, number, replays) for number in numbers):
            (args.keep / case.name).write_bytes(case.file)
            print(f"{case.name}: {', '.join(case.mutations)}")
        return 0
    began = time.monotonic()
    report = run(args.seed, numbers, replays, workers=args.workers)
    print("\n".join(report.lines()))
    print(f"{time.monotonic() - began:.0f} s; {len(report.faults)} faults")
    print("\n".join(report.faults[:50]))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
