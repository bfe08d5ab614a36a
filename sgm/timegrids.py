"""Time grids of the backward simulation: decreasing times T = τ₀ > τ₁ > … > τ_N = 0.

A builder takes a horizon and a number of steps N and returns the N + 1 times. The
grid is where the solver stops, never the noise *schedule*, which is β(t).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer, require_positive
from sgm.registry import register

__all__ = ["quadratic", "uniform"]

Array = npt.NDArray[np.float64]


@register("time_grid")
def uniform(horizon: float, n_steps: int) -> Array:
    """Equal steps, τ_k = T(1 − k/N): the grid of the paper.

    Parameters
    ----------
    horizon : float
        T > 0.
    n_steps : int
        N ≥ 1.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to 0, both exactly.

    Raises
    ------
    ValueError
        If `horizon` is not positive and finite or `n_steps` no integer of at least 1.
    """
    return _grid(horizon, n_steps, lambda k: horizon * k / n_steps)


@register("time_grid")
def quadratic(horizon: float, n_steps: int) -> Array:
    """Steps that shrink towards the data, τ_k = T(1 − k/N)² (DDIM, arXiv 2010.02502).

    Parameters
    ----------
    horizon, n_steps
        As in `uniform`.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to 0.
    """
    return _grid(horizon, n_steps, lambda k: horizon * (k / n_steps) ** 2)


def _grid(horizon: float, n_steps: int, time: Callable[[Array], Array]) -> Array:
    """The times of N, N − 1, …, 0 steps to go."""
    require_positive(horizon=horizon)
    require_integer(1, n_steps=n_steps)
    times = time(np.arange(n_steps, -1, -1, dtype=np.float64))
    times[0] = horizon  # T·N/N rounds to above T for some T and N
    return times
