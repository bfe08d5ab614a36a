"""Dynamic programming: the chain of steps of least additive cost through candidates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer

__all__ = ["shortest"]

Array = npt.NDArray[np.float64]


def shortest(
    cost: Callable[[Array, Array], Array],
    terminal: Callable[[Array], Array],
    levels: Array,
    n: int,
    later: float = 1.0,
) -> tuple[Array, float]:
    """The chain of n steps of the least terminal(u_0) + Σ γᵏ cost(u_k, u_{k+1}), down to 0.

    Parameters
    ----------
    cost, terminal : callable
        Vectorised.
    levels : ndarray, shape (M,)
        Increasing positive candidates.
    n : int
        From 1 to M.
    later : float
        γ > 0.

    Returns
    -------
    chain : ndarray, shape (n + 1,)
        Decreasing to 0.
    value : float

    Raises
    ------
    ValueError
        If n is no integer from 1 to M.
    """
    require_integer(1, n=n)
    if n > len(levels):
        raise ValueError(f"n = {n!r}: must be at most {len(levels)}, the number of candidates")
    rows, columns = np.tril_indices(len(levels), -1)
    costs = np.full((len(levels), len(levels)), np.inf)
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 20000)):
        costs[rows[part], columns[part]] = cost(levels[rows[part]], levels[columns[part]])
    rest = cost(levels, np.zeros_like(levels))
    choices = []
    for _ in range(n - 1):
        total = costs + later * rest
        choices.append(np.argmin(total, axis=1))
        rest = np.take_along_axis(total, choices[-1][:, None], axis=1)[:, 0]
    whole = terminal(levels) + rest
    place = int(np.argmin(whole))
    chain = [place]
    for choice in reversed(choices):
        chain.append(int(choice[chain[-1]]))
    return np.append(levels[chain], 0.0), float(whole[place])
