"""`make demo`: the whole flow in a few minutes, by the commands that a user would type.

Simulated replays, and the real ones where there are some, go into a store; SQL answers; the service
streams Fox games to a trainer; the trainer's dream is drawn beside the truth.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from meleewm import console
from meleewm.options import positive
from meleewm.serve import child_service
from schemas.errors import FailureError

MATCHUPS = """
select char, opp_char, stage, count(*) as games, round(avg(seconds)) as seconds,
       round(avg(won::int), 2) as win_rate, sum(projectiles) as projectiles
from perspectives group by all order by games desc, char, opp_char, stage limit 12
"""
QUERY = "char='fox'"
COMMAND = (sys.executable, "-m", "meleewm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--games", type=positive, default=48, help="simulated games (default: 48)")
    parser.add_argument("--steps", type=positive, default=1200, help="training steps (1200)")
    parser.add_argument("--no-replays", action="store_true", help="simulated games only")
    args = parser.parse_args(argv)
    return console.guard(lambda: run(args), debug=False)


def run(args: argparse.Namespace) -> int:
    """Synthesise, ingest, ask, serve, train, look."""
    started = time.monotonic()
    out: Path = args.out
    store, run_dir = out / "store", out / "run"
    real = None if args.no_replays else real_replays()
    replays = [out / "replays", *([real] if real else [])]
    if real is None:
        console.say("no real replays here (REPLAYS=dir or ../shared/replays): simulated ones only")

    step("replays of simulated games", "synth", "--games", args.games, "--out", replays[0])
    step("replays into a store", "ingest", *replays, "--store", store)
    step("a question in SQL: matchups", "sql", MATCHUPS, "--store", store)
    console.say(f"\n# the store over HTTP\n$ meleewm serve --store {store} --port 0")
    with child_service(store) as url:
        console.say(f"serving at {url}")
        train = ["--query", QUERY, "--url", url, "--steps", args.steps, "--run-dir", run_dir]
        step("a world model of Fox, from the service's stream", "train", *train)

    spent = console.human_seconds(time.monotonic() - started)
    console.say(f"\ndone in {spent}. Look at:")
    for name, what in (
        ("rollout.png", "a real stretch of a game, and the model's dream of it"),
        ("rollout.html", "the same frame by frame: open it in a browser"),
        ("rollout.json", "the same as numbers"),
        ("report.txt", "one-step metrics beside the baselines"),
    ):
        path = run_dir / name
        if not path.exists():
            raise FailureError(f"the demo did not make {path}")
        console.say(f"  {path}  {what}")
    console.say(f"The store stays in {store}: try `meleewm sql ... --store {store}`.")
    return 0


def real_replays() -> Path | None:
    """The folder of real replays: $REPLAYS, or what ../shared/replays unpacks to."""
    if folder := os.environ.get("REPLAYS"):
        return Path(folder)
    unpack = Path(__file__).resolve().parents[2] / "shared" / "replays" / "unpack"
    if not unpack.is_file():
        return None
    out = Path(".cache") / "replays"
    subprocess.run([sys.executable, str(unpack), str(out)], check=True, stdout=subprocess.DEVNULL)
    return out


def step(title: str, *words: object) -> None:
    """Say a command, run it, and stop the demo where it fails."""
    command = [str(word) for word in words]
    shown = shlex.join(" ".join(word.split()) for word in command)
    console.say(f"\n# {title}\n$ meleewm {shown}")
    code = subprocess.run([*COMMAND, *command], check=False).returncode
    if code:
        raise FailureError(f"`meleewm {command[0]}` ended with exit code {code}")


if __name__ == "__main__":
    sys.exit(main())
