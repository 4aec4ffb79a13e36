"""What an ingest did, and how far it is."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest.worker import Outcome


@dataclass(frozen=True)
class Progress:
    """How far an ingest is; `files` counts everything that is done with, `refused` by rule."""

    files: int
    games: int
    known: int
    refused: Mapping[str, int]
    replay_bytes: int
    seconds: float


@dataclass
class Summary:
    """What an ingest did: files = stored + repaired + known + all refused.

    missing: source -> games that were to be parsed anew and were not found there.
    passed_over: files that are no replays by the ending of their names, no part of `files`.
    """

    files: int = 0
    stored: int = 0
    repaired: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    newer_than_parser: int = 0
    replay_bytes: int = 0
    parquet_bytes: int = 0
    seconds: float = 0.0
    snapshot: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values; counts by rule, source and ending in a fixed order."""
        counts = {
            "refused": self.refused,
            "missing": self.missing,
            "passed_over": self.passed_over,
        }
        return asdict(self) | {name: dict(sorted(count.items())) for name, count in counts.items()}

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.files += 1
        self.replay_bytes += outcome.replay_bytes
        if outcome.name == "refused":
            assert outcome.rule is not None
            self.refused[outcome.rule] += 1
        else:
            setattr(self, outcome.name, getattr(self, outcome.name) + 1)
        for game in outcome.rows.get("games", []):
            self.newer_than_parser += bool(game["newer_than_parser"])
            self.parquet_bytes += int(str(game["parquet_bytes"]))

    def progress(self) -> Progress:
        """The counts so far."""
        games = self.stored + self.repaired
        refused = dict(self.refused)
        return Progress(self.files, games, self.known, refused, self.replay_bytes, self.seconds)
