"""The quarters of [0, T], over which shares of a bound are summed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["QUARTERS", "quarter_of"]

Array = npt.NDArray[np.float64]
QUARTERS = {1: "t < T/4", 2: "T/4 < t < T/2", 3: "T/2 < t < 3T/4", 4: "t > 3T/4"}


def quarter_of(times: Array) -> npt.NDArray[np.int_]:
    """The quarter of [0, T] of each step's middle, 1 to 4."""
    middle = (times[:-1] + times[1:]) / 2
    return np.asarray(1 + np.minimum(4 * middle / times[0], 3).astype(int))
