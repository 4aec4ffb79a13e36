"""The column table is the layout of the format: payload sizes follow from it."""

import pytest

from schemas.columns import FRAME, ITEM, PLAYER, STAGE, wire
from schemas.game import FULL, column_of, leaves

# project-slippi/slippi-wiki:SPEC.md: payload bytes without the event code, by first version.
PRE = {(0, 1): 58, (1, 2): 59, (1, 4): 63, (3, 15): 64, (3, 17): 66}
POST = {(0, 1): 33, (0, 2): 37, (2, 0): 51, (2, 1): 52, (3, 5): 72, (3, 8): 76, (3, 11): 80,
        (3, 16): 84}  # fmt: skip
ITEMS = {(3, 0): 37, (3, 2): 41, (3, 6): 42, (3, 16): 44}
START = {(2, 2): 8, (3, 10): 12}
# what precedes the fields: frame number, and for pre and post also port and follower
HEAD = {"pre": 6, "post": 6, "item": 4, "start": 4}


@pytest.mark.parametrize(
    ("event", "sizes", "columns"),
    [("pre", PRE, PLAYER), ("post", POST, PLAYER), ("item", ITEMS, ITEM), ("start", START, FRAME)],
)
def test_payload_sizes(event: str, sizes: dict[tuple[int, int], int], columns: tuple) -> None:  # type: ignore[type-arg]
    for version, size in sizes.items():
        fields = wire(event, version, columns)
        assert HEAD[event] + sum(c.type.bit_width // 8 for c in fields) == size


def test_every_leaf_has_a_row() -> None:
    for leaf in leaves(FULL):
        assert column_of(leaf).meaning


def test_names_are_unique_in_their_group() -> None:
    for group in (FRAME, PLAYER, ITEM):
        assert len({c.name for c in group}) == len(group)


def test_names_follow_the_sources() -> None:
    """Comparisons with raw peppi go by the table's own sources: two swapped ones would agree."""

    def plain(source: str) -> str:
        return "_".join(source.split(".")[1:])

    of_post = {plain(c.source) for c in PLAYER if c.event == "post"}
    for column in PLAYER:
        name = plain(column.source) or "port"
        assert column.name == (f"pre_{name}" if column.event == "pre" and name in of_post else name)
    assert [plain(c.source) or "slot" for c in ITEM] == [c.name for c in ITEM]
    assert [plain(c.source) or "frame" for c in FRAME] == [c.name for c in FRAME]
    assert {c.name: c.source for c in STAGE} == {
        "fod_platform_left": "fod_platform.height",
        "fod_platform_right": "fod_platform.height",
        "whispy_direction": "dreamland_whispy.direction",
        "stadium_event": "stadium_transformation.event",
        "stadium_type": "stadium_transformation.type",
        "randall_x": "",
        "randall_y": "",
    }
