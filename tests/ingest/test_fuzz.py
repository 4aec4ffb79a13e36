"""A short run of tests.fuzz, and what longer runs have found: each as a small case of its own."""

from pathlib import Path

import pytest

from ingest.replay import parse
from ingest.slp import GAME_END
from ingest.synthetic import make_game
from ingest.workers import ingest
from store.layout import open_layout
from store.verify import verify
from tests import fuzz
from tests.ingest.streams import CODE, take_apart
from tests.ingest.test_replay import leaf

CASES = 150


@pytest.mark.slow
def test_damaged_replays_end_as_games_or_as_named_refusals() -> None:
    report = fuzz.run(20, range(CASES), fuzz.synthetic_replays())
    assert report.faults == []
    assert report.outcomes.total() == CASES
    assert min(report.outcomes[name] for name in fuzz.OUTCOMES) >= 10
    assert report.compared >= 60


def test_a_case_is_the_same_in_every_run() -> None:
    replays = fuzz.synthetic_replays()
    assert [fuzz.make_case(3, n, replays).replay for n in range(20)] == [
        fuzz.make_case(3, n, replays).replay for n in range(20)
    ]


# --- found ----------------------------------------------------------------------------------------


def test_a_follower_without_its_leader_is_not_lost_unseen() -> None:
    """A player's column is null with its leader, and hid what the follower sent."""
    stream = take_apart(make_game(11, chars=("ice_climbers", "fox"), n_frames=60).slp)
    port = stream.events[stream.first("pre")][5]
    frame = stream.events[stream.numbers("start")[30]][1:5]
    stream.events = [
        event
        for event in stream.events
        if not (event[0] in (CODE["pre"], CODE["post"]) and event[1:7] == frame + bytes([port, 0]))
    ]
    game = parse(stream.pack())
    assert game.footer["repairs"] == ["frames_dropped"]
    assert game.table["frame"].to_pylist() == [n - 123 for n in range(60) if n != 30]
    assert leaf(game.table, "p0").null_count == 0


def test_what_was_laid_out_anew_says_so_also_without_metadata() -> None:
    """Whispy's events before their version make peppi panic; it was only told of the metadata."""
    made = make_game(7, version=(3, 7), stage="dreamland", n_frames=60, with_metadata=False)
    stream = take_apart(made.slp)
    stream.sizes[CODE["dreamland_whispy"]] = 5
    number = stream.events[stream.numbers("post")[20]][1:5]
    stream.events.insert(
        stream.numbers("post")[20], bytes([CODE["dreamland_whispy"]]) + number + b"\x02"
    )
    stream.tail = b""
    game = parse(stream.pack())
    assert game.footer["repairs"] == ["relaid", "metadata_missing"]
    assert leaf(game.table, "stage.whispy_direction").to_pylist() == [0] * 10 + [2] * 50


def test_verify_takes_odd_games_for_what_they_are(tmp_path: Path) -> None:
    """A player who sends nothing on a frame has port null, not 0; and frames may lie far apart."""
    for name, seed in (("out", 21), ("far", 22)):
        stream = take_apart(make_game(seed, chars=("fox", "falco"), n_frames=60).slp)
        frame = stream.events[stream.numbers("start")[-1]][1:5]
        for n in range(len(stream.events) - 1, 0, -1):
            event = stream.events[n]
            if event[1:5] != frame or event[0] == GAME_END:
                continue
            if name == "far":
                stream.patch(n, 1, b"\x7f\xff\xff\xff")
            elif event[0] in (CODE["pre"], CODE["post"]) and event[5] == stream.events[2][5]:
                del stream.events[n]
        (tmp_path / f"{name}.slp").write_bytes(stream.pack())
    summary = ingest([tmp_path], tmp_path / "store", workers=1)
    assert summary.stored == 2
    assert [f for f in verify(open_layout(tmp_path / "store")) if f.is_damage] == []
