"""Small games as game-file tables: every value is drawn, every frame number chosen."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from schemas.columns import PLAYER
from schemas.game import FOOTER_KEY, SIDES


def frame_numbers(runs: Sequence[int], first: int = -123) -> list[int]:
    """Frame numbers of runs of these lengths with one missing frame between two of them."""
    frames: list[int] = []
    for length in runs:
        start = frames[-1] + 2 if frames else first
        frames += range(start, start + length)
    return frames


def random_game(frames: Sequence[int], seed: int, stage: int = 32) -> pa.Table:
    """A game of the newest version with random values in every player leaf."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {"frame": pa.array(frames, pa.int32())}
    for side in SIDES:
        leaves = {
            c.name: pa.array(rng.integers(0, 100, len(frames)), c.type)
            for c in PLAYER
            if c.name != "port"
        }
        columns[side] = pa.StructArray.from_arrays(list(leaves.values()), list(leaves))
    footer = {FOOTER_KEY: json.dumps({"start": {"stage": stage}})}
    return pa.table(columns).replace_schema_metadata(footer)
