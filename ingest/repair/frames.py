"""Which events of a damaged stream make whole frames: arrays over events, no loop.

E events of a file, R whole frames among them.
"""

from dataclasses import dataclass, replace

import numpy as np

from ingest.resolve import last_copies
from ingest.slp import KINDS, N_PORTS, Array, Split

_START, _PRE, _POST, _END = (KINDS[event].code for event in ("start", "pre", "post", "end"))
_OF_FRAMES = [kind.code for kind in KINDS.values()]
_CHARACTERS = 2 * N_PORTS  # a leader and a follower on each port
_EVENTS_MIN = 2  # a frame has a pre-frame and a post-frame event at the least


@dataclass(frozen=True)
class Frames:
    """Whole frames in the order of the file.

    kept (E,): whether an event is of a whole frame; row (E,): of which, -1 for none. ids (R,):
    their frame numbers. holes: frames before the last whole one were not whole; rest: the file goes
    on after it. strays: events were left out that are of ports where nobody plays.
    """

    kept: Array
    row: Array
    ids: Array
    holes: bool
    rest: bool
    strays: bool

    @property
    def settled(self) -> "Frames":
        """Only the last copy of each frame, in the order of the file: what a reader keeps anyway. A
        file that repeats few frames for ever then costs no more than they do."""
        last = last_copies(self.ids)
        if last is None or len(last) == len(self.ids):
            return self
        stays = np.zeros(len(self.ids) + 1, bool)  # the last place is that of row -1
        stays[last] = True
        number = np.append(np.cumsum(stays[:-1]) - 1, -1)
        kept = self.kept & stays[self.row]
        return replace(self, kept=kept, row=np.where(kept, number[self.row], -1),
                       ids=self.ids[stays[:-1]])  # fmt: skip

    @property
    def complete(self) -> bool:
        """Whether the last event within frames closes a whole one."""
        return len(self.ids) > 0 and not self.rest


def whole_frames(events: Split, ports: tuple[int, ...]) -> Frames:
    """Find the whole frames: begun, closed where the file closes frames, every event of the same
    frame number, of each character one pre-frame and one post-frame event, no follower alone.

    ports: console ports 1 to 4 that somebody plays on. Event sizes are those of a release at least.
    """
    stream = np.frombuffer(events.data, np.uint8)
    within = np.flatnonzero(np.isin(events.codes, _OF_FRAMES))
    code, at = events.codes[within], events.offsets[within]
    of_character = (code == _PRE) | (code == _POST)
    port = np.where(of_character, stream[at + of_character * 4], 0)
    stray = of_character & ~np.isin(port, np.array(ports, np.int64) - 1)
    within, code, at = within[~stray], code[~stray], at[~stray]
    n_events = len(events.codes)
    kept, row = np.zeros(n_events, bool), np.full(n_events, -1)
    if len(code) == 0:
        return Frames(kept, row, np.zeros(0, np.int64), holes=False, rest=False,
                      strays=bool(stray.any()))  # fmt: skip
    ids = _numbers(stream, at)
    first = np.flatnonzero(_begins(code, ids, events.sizes))
    whole = _whole(events, code, at, ids, first)
    lengths = np.diff(first, append=len(code))
    of_whole = np.repeat(whole, lengths)
    kept[within] = of_whole
    row[within[of_whole]] = np.repeat(np.arange(whole.sum()), lengths[whole])
    last = np.flatnonzero(whole)[-1] if whole.any() else -1
    return Frames(
        kept,
        row,
        ids[first[whole]].astype(np.int64),
        holes=bool(not whole[: last + 1].all()),
        rest=last < len(whole) - 1,
        strays=bool(stray.any()),
    )


def _numbers(stream: Array, at: Array) -> Array:
    """The frame number that an event begins with, big-endian."""
    number = np.zeros(len(at), np.uint32)
    for byte in range(4):
        number = (number << np.uint32(8)) | stream[at + byte]
    return number.view(np.int32)


def _begins(code: Array, ids: Array, sizes: dict[int, int]) -> Array:
    """Where a frame begins, or what is left of one."""
    begins = np.zeros(len(code), bool)
    begins[0] = True
    if _START in sizes:
        begins |= code == _START
    if _END in sizes:
        begins[1:] |= code[:-1] == _END
    if _START not in sizes and _END not in sizes:
        # all of a frame's pre-frame events come first: a frame begun twice has one number
        begins[1:] |= (ids[1:] != ids[:-1]) | ((code[1:] == _PRE) & (code[:-1] != _PRE))
    return begins


def _whole(events: Split, code: Array, at: Array, ids: Array, first: Array) -> Array:
    """Whether each frame is whole. first: its first event among `code`, `at` and `ids`."""
    stream = np.frombuffer(events.data, np.uint8)
    last = np.append(first[1:], len(code)) - 1
    whole = last - first + 1 >= _EVENTS_MIN
    if _START in events.sizes:
        whole &= code[first] == _START
    if _END in events.sizes:
        whole &= code[last] == _END
    whole &= np.minimum.reduceat(ids, first) == np.maximum.reduceat(ids, first)
    candidate = np.cumsum(whole) - 1  # only what may be whole is counted: it bounds the memory
    frame = np.repeat(np.arange(len(first)), last - first + 1)
    sent = []
    for kind in (_PRE, _POST):
        own = (code == kind) & whole[frame]
        character = 2 * stream[at[own] + 4].astype(np.int64) + (stream[at[own] + 5] != 0)
        place = candidate[frame[own]] * _CHARACTERS + character
        counts = np.bincount(place, minlength=int(whole.sum()) * _CHARACTERS)
        sent.append(counts.reshape(-1, _CHARACTERS))
    pre, post = sent
    alone = pre[:, 1::2] > pre[:, ::2]  # a follower without its leader: no game has that
    whole[whole] = (pre == post).all(1) & (pre <= 1).all(1) & (pre == 1).any(1) & ~alone.any(1)
    return whole


def senders(events: Split) -> tuple[int, ...]:
    """Console ports 1 to 4 that send in half of the file's frames or more."""
    stream = np.frombuffer(events.data, np.uint8)
    at = events.offsets[events.codes == _PRE]
    port = stream[at[stream[at + 5] == 0] + 4]
    counts = np.bincount(port, minlength=N_PORTS)[:N_PORTS]
    return tuple(int(n) + 1 for n in np.flatnonzero(2 * counts >= max(1, counts.max(initial=0))))
