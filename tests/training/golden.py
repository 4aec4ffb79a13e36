"""Numbers of the original's own code (../shared/reference/golden), read once a file."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.conftest import SHARED, require

Array = npt.NDArray[Any]
FOLDER = SHARED / "reference" / "golden"


@cache
def _load(name: str) -> Mapping[str, Array]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def golden(name: str) -> Mapping[str, Array]:
    """All arrays of one golden file; skips the test where the folder is missing."""
    require((FOLDER / f"{name}.npz").exists(), f"golden numbers {name}.npz are missing")
    return _load(name)


def under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Tensor]:
    """The number arrays named `prefix...`, as tensors, without the prefix; small ints as int64."""
    found = {}
    for key, value in arrays.items():
        if key.startswith(prefix) and value.dtype.kind != "U":
            tensor = torch.from_numpy(np.array(value))
            found[key[len(prefix) :]] = tensor if tensor.is_floating_point() else tensor.long()
    assert found, f"no golden array begins with {prefix}"
    return found
