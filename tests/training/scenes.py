"""A small scene with everything in it that a drawing shows: shields, hits, deaths, both facings."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.viewer import Curve, Scene, Take, Track


def make_scene(stage_id: int = 31, n_frames: int = 120) -> Scene:
    """Truth and dream of fox against falco; nothing about it is random."""
    truth = Take("truth", (_track(0, n_frames, 0.0), _track(1, n_frames, 0.0)))
    dream = Take("dream", (_track(0, n_frames, 3.0), _track(1, n_frames, 5.0)))
    horizons = np.arange(1, n_frames + 1)
    return Scene(
        game_id="0" * 32,
        stage_id=stage_id,
        characters=(1, 22),
        frames=np.arange(300, 300 + n_frames, dtype=np.int32),
        takes=(truth, dream),
        facts={"model": "mlp", "step": "2,000"},
        curves=(Curve("dream", _f32(horizons**0.5)), Curve("persistence", _f32(horizons**0.7))),
        curves_of="64 validation starts",
    )


def _track(side: int, n_frames: int, drift: float) -> Track:
    t = np.arange(n_frames)
    states = np.select([t % 80 < 20, t % 80 < 40, t > n_frames - 5], [178, 88, 0], 341 + side)
    return Track(
        x=_f32(60 * side - 30 + 40 * np.sin(t / 30 + side) + drift * t / n_frames),
        y=_f32(np.abs(30 * np.sin(t / 20 + side)) + drift * t / n_frames),
        percent=_f32(t / 3),
        stocks=_f32(4 - (t > n_frames - 5)),
        shield=_f32(60 - t % 80 / 2),
        facing=_f32(np.where(t % 40 < 20, 1, -1)),
        state=_f32(states),
        stick_x=_f32(np.sin(t / 9)),
        stick_y=_f32(np.cos(t / 9)),
    )


def _f32(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
