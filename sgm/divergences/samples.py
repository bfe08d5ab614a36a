"""Samples as arrays: one check of shape for every estimator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array

__all__ = ["rows"]

Array = npt.NDArray[np.float64]


def rows(**samples: npt.ArrayLike) -> tuple[Array, ...]:
    """Samples as float64 arrays of shape (n, d), n ≥ 2 of its own and d ≥ 1 that of the first.

    Rows that are not finite pass: a sampler that diverged is infinitely far, not a mistake.

    Raises
    ------
    ValueError
        With the name of the first sample of another shape.
    """
    arrays = tuple(real_array(key, sample) for key, sample in samples.items())
    d = arrays[0].shape[1] if arrays[0].ndim == 2 else "d"
    for key, array in zip(samples, arrays, strict=True):
        if array.ndim != 2 or array.shape[1] != d or len(array) < 2 or not d:
            raise ValueError(f"{key} has shape {array.shape}: must be (n, {d}) with n >= 2")
    return arrays
