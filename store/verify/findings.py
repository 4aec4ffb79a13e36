"""What verify finds, kind by kind, and which kinds are damage."""

from dataclasses import dataclass

DAMAGE = {
    "missing": "a file that the catalog names is not there",
    "size": "a file has another size than when it was written",
    "checksum": "a file's bytes are not those that were written",
    "unreadable": "a file cannot be read",
    "schema": "a game file's columns, frames or footer are not what its row says",
    "rows": "the catalog's tables contradict each other",
    "removal": "a removed game without its .removed file: a rebuild would bring it back",
}
"""Kinds of findings that make a store damaged (exit code 1)."""
NOTES = {
    "orphan": "a game file that no row names: an ingest runs, or was interrupted",
    "part": "a file that was never finished: an ingest runs, or was killed",
    "stranger": "a file among the game files that is none of ours",
    "removed": "a .removed file without a row: meleewm remove was interrupted, or it was copied",
    "all_null": "a column without any value, in every game of a version that records it",
    "constant": "a column with one value only, in every game of a version",
    "bounds": "values that the game cannot produce: the replay says so, and they were kept",
}
"""Kinds that are worth a look."""


@dataclass(frozen=True)
class Finding:
    """One thing that verify found.

    where: a path relative to the store, or a column. game_id: of the game concerned, if it is one.
    """

    kind: str
    where: str
    detail: str
    game_id: str | None = None

    def __post_init__(self) -> None:
        assert self.kind in DAMAGE or self.kind in NOTES, self.kind

    @property
    def is_damage(self) -> bool:
        """Whether the store is damaged by it."""
        return self.kind in DAMAGE
