"""Draw games and dreams: what a scene is, its JSON, and one HTML page that needs no server.

A scene is one or more takes of the same frames on the same stage (truth, dream). It holds plain
arrays in game units and knows no model; any game or rollout can be turned into one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from schemas.names import CHARACTERS_INTERNAL, stage_name, state_name
from schemas.stages import stage_geometry

Array = NDArray[np.float32]
SCENE_FORMAT = 1
MARGIN = 22.0
"""Game units left free around everything that moves; a fighter is about 14 high."""

_LABELS = {
    "yoshis_story": "Yoshi's Story",
    "dream_land_n64": "Dream Land",
    "fountain_of_dreams": "Fountain of Dreams",
}
WANDER = 30.0


@dataclass(frozen=True)
class Track:
    """One fighter over T frames; every array is (T,), in game units.

    facing: -1 left, 1 right. state: action state id. stick_x, stick_y: -1 to 1.
    """

    x: Array
    y: Array
    percent: Array
    stocks: Array
    shield: Array
    facing: Array
    state: Array
    stick_x: Array
    stick_y: Array


@dataclass(frozen=True)
class Take:
    """One version of what happened: `truth`, `dream` ...; a track for each side."""

    name: str
    sides: tuple[Track, Track]


@dataclass(frozen=True)
class Curve:
    """Position error (T,) at each horizon, in game units per axis."""

    name: str
    values: Array


@dataclass(frozen=True)
class Scene:
    """Takes of the same T frames.

    frames: (T,) console frame numbers. characters: internal ids, by side. facts: what the page
    says about it (model, view, step ...). curves: errors over the same T horizons; curves_of says
    over what they are averaged.
    """

    game_id: str
    stage_id: int
    characters: tuple[int, int]
    frames: NDArray[np.int32]
    takes: tuple[Take, ...]
    facts: dict[str, str]
    curves: tuple[Curve, ...] = ()
    curves_of: str = "this rollout"

    @property
    def title(self) -> str:
        """`fox against falco on battlefield`."""
        one, two = (character_label(number) for number in self.characters)
        return f"{one} against {two} on {label(stage_name(self.stage_id))}"

    def view_box(self, shown: int | None = None) -> tuple[float, float, float, float]:
        """Left, right, bottom, top that hold the stage and the first take's fighters over the
        first `shown` frames. Other takes widen it by WANDER at most: one dream that flies off must
        not make everything tiny."""
        stage = stage_geometry(self.stage_id)
        floor = [x for x, _ in stage.floor] if stage else [-60.0, 60.0]
        left, right, bottom, top = _extent(self.takes[0], shown)
        left, right = min(left, *floor), max(right, *floor)
        bottom, top = min(bottom, -20.0), max(top, 60.0)
        for take in self.takes[1:]:
            far_left, far_right, far_bottom, far_top = _extent(take, shown)
            left -= min(WANDER, max(0.0, left - far_left))
            right += min(WANDER, max(0.0, far_right - right))
            bottom -= min(WANDER, max(0.0, bottom - far_bottom))
            top += min(WANDER, max(0.0, far_top - top))
        return left - MARGIN, right + MARGIN, bottom - MARGIN / 2, top + MARGIN


def _extent(take: Take, shown: int | None) -> tuple[float, float, float, float]:
    """Smallest and largest x, then y, of both fighters."""
    xs = np.concatenate([track.x[:shown] for track in take.sides])
    ys = np.concatenate([track.y[:shown] for track in take.sides])
    return float(np.nanmin(xs)), float(np.nanmax(xs)), float(np.nanmin(ys)), float(np.nanmax(ys))


def label(name: str) -> str:
    """A stored name as people read it: final_destination -> Final Destination."""
    return _LABELS.get(name, name.replace("_", " ").title())


def character_label(internal: int) -> str:
    """Name of a character by its internal id."""
    return label(CHARACTERS_INTERNAL.get(internal, f"character_{internal}"))


def document(scene: Scene) -> dict[str, object]:
    """The scene as JSON: `frames`, and for each take `p0` and `p1` with a list per quantity."""
    return {
        "format": SCENE_FORMAT,
        "title": scene.title,
        "game_id": scene.game_id,
        "stage": stage_name(scene.stage_id),
        "characters": [CHARACTERS_INTERNAL.get(n, f"character_{n}") for n in scene.characters],
        "facts": scene.facts,
        "frames": scene.frames.tolist(),
        **{take.name: _sides(take) for take in scene.takes},
        "errors": {curve.name: _numbers(curve.values, 3) for curve in scene.curves},
        "errors_of": scene.curves_of,
    }


def page(scene: Scene) -> str:
    """A whole HTML page that plays the scene; it fetches nothing and runs from a file."""
    stage = stage_geometry(scene.stage_id)
    content = {
        **document(scene),
        "takes": [take.name for take in scene.takes],
        "labels": [character_label(number) for number in scene.characters],
        "state_names": [_state_names(scene, side) for side in (0, 1)],
        "view": scene.view_box(),
        "geometry": None if stage is None else {
            "floor": stage.floor,
            "body": stage.body,
            "platforms": [[p.left, p.right, p.y, p.moves] for p in stage.platforms],
            "blast": stage.blast,
        },
    }  # fmt: skip
    # '<' inside the data would let a name end the script element.
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    template = resources.files("training").joinpath("viewer.html").read_text("utf-8")
    return template.replace("{{scene}}", data)


def _sides(take: Take) -> dict[str, dict[str, list[float | int | None]]]:
    return {f"p{side}": _track(track) for side, track in enumerate(take.sides)}


def _track(track: Track) -> dict[str, list[float | int | None]]:
    return {field.name: _numbers(getattr(track, field.name), 3) for field in fields(track)}


def _numbers(values: Array, digits: int) -> list[float | int | None]:
    """Rounded numbers; whole ones without a point, and null for what is not finite."""
    rounded = np.round(np.asarray(values, np.float64), digits)
    return [_number(value) for value in rounded.tolist()]


def _number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _state_names(scene: Scene, side: int) -> dict[str, str]:
    """id -> name of the action states that occur; from 341 up they depend on the character."""
    tracks: Sequence[Track] = [take.sides[side] for take in scene.takes]
    states = sorted({int(state) for track in tracks for state in track.state})
    return {str(n): state_name(scene.characters[side], n).replace("_", " ") for n in states}
