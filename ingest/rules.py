"""Why a replay does not become a game: one table of named rules, and the checks of the start block.

A refusal is data, not an error of the user's: it ends as a row of the ledger with the rule's name
and a detail that says what exactly was wrong. What no rule names is stored: CPU players, PAL, short
games, unusual stages, a missing end, a teams flag on two players.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.names import SPECIAL_MODE_STAGES, stage_name

RULES = {
    "not_a_replay": "the bytes do not begin as a .slp file does",
    "truncated": "the file is shorter than its header says",
    "unfinished": "the game was still being written: no length, and no game end",
    "unreadable": "the event stream does not follow the format",
    "needs_repair": "damaged; the rescue was declined (`meleewm ingest --no-repair`)",
    "special_mode": "Target Test, Home-Run Contest and the like",
    "not_two_players": "another number of players than two",
    "no_frames": "not a single frame was recorded",
    "crashed": "the worker process died while it read this replay",
    "hung": "the worker process did not finish with this replay in time",
    "out_of_memory": "reading it took more memory than a worker process may have",
    "too_large": "more bytes than any replay has",
    "bad_file": "the file cannot be read from disk, or not unpacked",
    "bad_folder": "the folder cannot be read, or is a link to one that is read anyway",
    "bad_archive": "the archive, or the rest of it, cannot be read",
    "nested_archive": "an archive too deep in archives, or too large: it was not looked into",
    "bad_member": "this member of an archive cannot be read",
}
"""rule -> what it refuses"""

_SPECIAL_SCENES = {15: "Target Test", 32: "Home-Run Contest"}
START_BYTES_MIN = 0x140  # game start of Slippi 0.1
EMPTY_PORT = 3
PLAYER_TYPES = range(4)
"""Human, CPU, demo, and an empty port."""


class Refusal(Exception):  # noqa: N818 - it is an outcome, not an error
    """Carries rule and detail from where a replay is refused to the ledger row; never further.

    What a detail quotes of the input stands behind a colon: stores without names cut it there.
    """

    def __init__(self, rule: str, detail: str) -> None:
        assert rule in RULES, rule
        super().__init__(rule, detail)
        self.rule = rule
        self.detail = detail


@dataclass(frozen=True)
class StartBlock:
    """The fields of game start that decide whether a replay is read at all.

    payload: the event's bytes without its code. Offsets: project-slippi/slippi-wiki:SPEC.md, less
    one for the code.
    """

    payload: bytes

    @property
    def stage(self) -> int:
        """External stage id."""
        return int.from_bytes(self.payload[0x12:0x14], "big")

    @property
    def scene(self) -> int | None:
        """Major scene: 2 local versus, 8 online; None before Slippi 3.7."""
        return self.payload[0x1A3] if len(self.payload) > 0x1A3 else None

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor."""
        return self.payload[0], self.payload[1]

    @property
    def types(self) -> tuple[int, ...]:
        """Player type on each of the four ports."""
        return tuple(self.payload[0x65 + 0x24 * port] for port in range(4))

    @property
    def ports(self) -> tuple[int, ...]:
        """Console ports 1 to 4 that somebody plays on."""
        return tuple(port for port, kind in enumerate(self.types, 1) if kind != EMPTY_PORT)


def _special_mode(start: StartBlock) -> str | None:
    if start.stage in SPECIAL_MODE_STAGES:
        return stage_name(start.stage)
    return _SPECIAL_SCENES.get(start.scene or 0)


def _not_two_players(start: StartBlock) -> str | None:
    ports = start.ports
    return None if len(ports) == 2 else f"{len(ports)} players, on ports {list(ports)}"


START_RULES: tuple[tuple[str, Callable[[StartBlock], str | None]], ...] = (
    ("special_mode", _special_mode),
    ("not_two_players", _not_two_players),
)
"""Checks in order; each gives the detail of a refusal, or None."""


def check_start(start: StartBlock) -> None:
    """Raise the Refusal of the first rule that the start block meets."""
    for rule, check in START_RULES:
        if (detail := check(start)) is not None:
            raise Refusal(rule, detail)
