"""Kill an ingest again and again, and see that a rerun makes the store that it makes in peace.

`python -m tests.kills --rounds 20 --seed S [FOLDER]`: FOLDER of replays; without one the real ones
where they are, else simulated ones. In half of the rounds the ingest's own process dies by SIGKILL,
in the others one of its workers: at a moment drawn from the length of an ingest in peace, or (every
third round) while game files have their names and the commit that names them is held back. Then the
same command runs again. Compared are verify's findings, ids and SHA-256 of the game files and the
rows of all tables, but for times and for the ledger's rows about killed workers (rule crashed).
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.records import TABLES, TRANSIENT_RULES
from store.catalog import Catalog
from store.layout import open_layout
from store.verify import verify
from tests.conftest import ROOT

HELD_EVERY = 3
"""Every third round kills between a game file's rename and its commit."""
GAMES_PER_COMMIT = 6
WORKERS = 2
SECONDS_MAX = 600.0
TRIES = 6
_COMMAND = [sys.executable, "-c", "from tests.kills import child; child()"]


# --- the ingest that is killed --------------------------------------------------------------------


def child() -> None:
    """`meleewm ingest` with small batches.

    argv: a file, and the number of the commit that waits until that file is gone; then the flags.
    """
    from ingest.workers import run
    from meleewm.cli import main

    hold, number, *arguments = sys.argv[1:]
    commit = Catalog.commit
    commits = iter(range(10**6))

    def held(self: Catalog, rows: Any) -> int:
        if next(commits) == int(number):
            Path(hold).touch()
            while Path(hold).exists():
                time.sleep(0.005)
        return commit(self, rows)

    run.GAMES_PER_COMMIT = GAMES_PER_COMMIT
    Catalog.commit = held  # type: ignore[method-assign]
    sys.exit(main(arguments))


def start(folder: Path, store: Path, *, held_commit: int = -1) -> "subprocess.Popen[bytes]":
    """An ingest in a process of its own; before one commit it makes `hold_of(store)` and waits."""
    return subprocess.Popen(
        [*_COMMAND, str(hold_of(store)), str(held_commit), "ingest", str(folder),
         "--store", str(store), "--workers", str(WORKERS), "--quiet"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def hold_of(store: Path) -> Path:
    """The file at which an ingest waits."""
    return store.with_name(f"{store.name}.hold")


def worker_pids(store: Path) -> list[int]:
    """Worker processes of an ingest into a store."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"ingest.worker import" in command and os.fsencode(store) in command and state != "Z":
            found.append(int(path.name))
    return found


def until(condition: Callable[[], Any], seconds_max: float = 60) -> Any:
    """The first true value of a condition."""
    stop = time.monotonic() + seconds_max
    while not (value := condition()):
        assert time.monotonic() < stop, "it never came"
        time.sleep(0.002)
    return value


# --- what is compared -----------------------------------------------------------------------------


def game_files(store: Path) -> dict[str, str]:
    """Name -> hash of every game file."""
    paths = [path for path in (store / "games").rglob("*") if path.is_file()]
    whole = [path for path in paths if not path.name.endswith(".part")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in whole}


def tables(store: Path, *, without: tuple[str, ...] = ("seen_at",)) -> dict[str, list[str]]:
    """Every row of every table, in no order, but for times."""
    with Catalog(open_layout(store), read_only=True) as catalog:
        return {
            name: sorted(
                str({k: v for k, v in row.items() if k not in without})
                for row in catalog.query(f"from lake.{name}").to_pylist()
            )
            for name in TABLES
        }


def look(store: Path) -> dict[str, Any]:
    """All of a store that must not depend on what happened to its ingests.

    Which of two copies of a replay was read and which was known is chance: outcomes are compared by
    replay, rows of the ledger without them.
    """
    rest = tables(store)
    with Catalog(open_layout(store), read_only=True) as catalog:
        lasting = f"(from lake.replays where coalesce(rule, '') not in {TRANSIENT_RULES})"
        ledger = catalog.query(f"select * exclude (seen_at, outcome) from {lasting}").to_pylist()
        outcomes = catalog.query(f"select sha256, outcome from {lasting}").to_pylist()
    findings = verify(open_layout(store))
    return {
        **rest,
        "replays": sorted(map(str, ledger)),
        "outcomes": sorted(map(str, outcomes)),
        "game files": game_files(store),
        "verify": sorted(map(str, findings)),
        "damage": [str(f) for f in findings if f.is_damage or f.kind == "orphan"],
        "half files": [str(path) for path in store.rglob("*.part")],
    }


# --- rounds ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """What a round did, for the print: whom it killed, when, and what lay there then."""

    victim: str
    moment: str
    files: int

    def __str__(self) -> str:
        return f"killed the {self.victim} {self.moment}, when {self.files} game files lay there"


def peace(folder: Path, store: Path) -> float:
    """Ingest undisturbed; seconds from the process's start to its end."""
    began = time.monotonic()
    _end_well(start(folder, store))
    return time.monotonic() - began


def disturbed(
    folder: Path, store: Path, victim: str, *, held_commit: int | None, after_s: float
) -> Round:
    """Kill the ingest (or a worker of it) once, then let it run again to its end."""
    hold = hold_of(store)
    process = start(folder, store, held_commit=-1 if held_commit is None else held_commit)
    if held_commit is None:
        until_s = time.monotonic() + after_s
        while time.monotonic() < until_s and process.poll() is None:
            time.sleep(0.002)
        moment = f"after {after_s:.2f} s"
    else:
        until(hold.exists)
        moment = f"before commit {held_commit + 1}"
    if victim == "parent":
        process.kill()
    else:
        _kill_a_worker(process, store)
    lay = len(list(store.glob("games/*/*.parquet")))
    hold.unlink(missing_ok=True)
    process.wait(SECONDS_MAX)
    assert process.stderr is not None
    process.stderr.close()
    until(lambda: not worker_pids(store), 10)
    if victim == "worker":
        assert process.returncode == 0, "the death of a worker must not end an ingest"
    _end_well(start(folder, store))
    until(lambda: not worker_pids(store), 10)
    return Round(victim, moment, lay)


def _kill_a_worker(process: "subprocess.Popen[bytes]", store: Path) -> None:
    for _ in range(TRIES):
        pids = until(lambda: worker_pids(store) or process.poll() is not None)
        if pids is True:
            return
        with suppress(ProcessLookupError):
            os.kill(random.choice(pids), signal.SIGKILL)
            return


def _end_well(process: "subprocess.Popen[bytes]") -> None:
    _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, said.decode("utf-8", "replace")


def run(folder: Path, scratch: Path, rounds: int, seed: int) -> list[str]:
    """All rounds; prints each and returns what differed, nothing if all is well."""
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    seconds = peace(folder, scratch / "peace")
    expected = look(scratch / "peace")
    commits = max(1, len(expected["replays"]) // GAMES_PER_COMMIT - 1)  # at least so many
    print(f"in peace: {len(expected['game files'])} games in {seconds:.1f} s", flush=True)
    assert not expected["damage"], expected["damage"]
    wrong = []
    for n in range(rounds):
        store = scratch / f"round-{n}"
        held = rng.randrange(commits) if n % HELD_EVERY == 0 else None
        after_s = seconds * (n + rng.random()) / rounds
        victim = ("parent", "worker")[n % 2]
        done = disturbed(folder, store, victim, held_commit=held, after_s=after_s)
        found = look(store)
        differs = [name for name in expected if found[name] != expected[name]]
        wrong += [f"round {n + 1}: {name}" for name in differs]
        print(f"round {n + 1}: {done}; {differs or 'the same store'}", flush=True)
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(os.environ.get("REPLAYS", ROOT / ".cache" / "replays"))
        if not folder.is_dir():
            from ingest.synthetic import write_games

            folder = Path(scratch) / "replays"
            write_games(folder, 60, seed=1)
        wrong = run(folder, Path(scratch), args.rounds, args.seed)
    print("\n".join(wrong) or f"{args.rounds} kills, and each time the same store as in peace")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
