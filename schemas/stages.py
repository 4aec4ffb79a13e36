"""Where a stage's ground, platforms and blast zones are, in game units, for drawing and checking.

Lines of our own, not the game's art: floor edges and platforms as measured in real games and as
project-slippi's and libmelee's tables give them. Platforms that move stand at their start height.
"""

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Platform:
    """A level line; `moves` marks one whose height or place the game changes."""

    left: float
    right: float
    y: float
    moves: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage: x to the right, y up, the middle of the main floor at the origin.

    floor: the main ground from left to right, edges included. body: the outline below it, closing
    the shape. blast: left, right, top, bottom beyond which a fighter is lost.
    """

    stage_id: int
    name: str
    floor: tuple[Point, ...]
    body: tuple[Point, ...]
    platforms: tuple[Platform, ...]
    blast: tuple[float, float, float, float]

    @property
    def edge(self) -> float:
        """x of the right ledge; the stages here are symmetric."""
        return self.floor[-1][0]


def _mirrored(left: float, right: float, y: float, *, moves: bool = False) -> tuple[Platform, ...]:
    return (Platform(-right, -left, y, moves), Platform(left, right, y, moves))


def _block(edge: float, inset: float, depth: float) -> tuple[Point, ...]:
    """A trapezoid below a floor, from the right edge round to the left one."""
    return ((edge - inset, -depth), (inset - edge, -depth))


STAGES = {
    stage.stage_id: stage
    for stage in (
        Stage(2, "fountain_of_dreams",
              ((-63.35, 0.0), (63.35, 0.0)), _block(63.35, 18, 28),
              (*_mirrored(21, 49.5, 20, moves=True), Platform(-14.25, 14.25, 42.75)),
              (-198.75, 198.75, 202.5, -146.25)),
        Stage(3, "pokemon_stadium",
              ((-87.75, 0.0), (87.75, 0.0)), _block(87.75, 30, 30),
              _mirrored(25, 55, 25),
              (-230.0, 230.0, 180.0, -111.0)),
        Stage(8, "yoshis_story",
              ((-56.0, -3.5), (-39.0, 0.0), (39.0, 0.0), (56.0, -3.5)), _block(56, 3, 60),
              (*_mirrored(28, 59.5, 23.45), Platform(-15.75, 15.75, 42)),
              (-175.7, 173.6, 168.0, -91.0)),
        Stage(28, "dream_land_n64",
              ((-77.27, 0.0), (77.27, 0.0)), _block(77.27, 22, 32),
              (*_mirrored(31.7, 63.1, 30.2), Platform(-19, 19, 51.4)),
              (-255.0, 255.0, 250.0, -123.0)),
        Stage(31, "battlefield",
              ((-68.4, 0.0), (68.4, 0.0)), _block(68.4, 45, 40),
              (*_mirrored(20, 57.6, 27.2), Platform(-18.8, 18.8, 54.4)),
              (-224.0, 224.0, 200.0, -108.8)),
        Stage(32, "final_destination",
              ((-85.57, 0.0), (85.57, 0.0)), _block(85.57, 50, 45),
              (),
              (-246.0, 246.0, 188.0, -140.0)),
    )
}  # fmt: skip
"""external stage id -> geometry, for the six tournament stages"""


def stage_geometry(stage_id: int) -> Stage | None:
    """The geometry of a stage, None for one that has none here: then only fighters are drawn."""
    return STAGES.get(stage_id)
