"""Grids of times that know nothing but the horizon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer, require_positive

__all__ = ["beta_quantiles", "quadratic", "uniform"]

Array = npt.NDArray[np.float64]


def uniform(horizon: float, n_steps: int, stop: float = 0.0) -> Array:
    """Equal steps, τ_k = T(1 − k/N): the grid of the paper.

    Parameters
    ----------
    horizon : float
        T > 0.
    n_steps : int
        N ≥ 1.
    stop : float
        Last time, in [0, T).

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, both exactly.

    Raises
    ------
    ValueError
        If `horizon` is not positive and finite, `n_steps` no integer of at least 1 or `stop` not
        in [0, T).
    """
    return _grid(horizon, n_steps, stop, lambda k: stop + (horizon - stop) * k / n_steps)


def quadratic(horizon: float, n_steps: int, stop: float = 0.0) -> Array:
    """Steps that shrink towards the data, τ_k = T(1 − k/N)² (DDIM, arXiv 2010.02502).

    With a last time δ > 0 it is √τ that has equal steps between √T and √δ.

    Parameters
    ----------
    horizon, n_steps, stop
        As in `uniform`.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`.
    """
    if stop == 0:
        return _grid(horizon, n_steps, stop, lambda k: horizon * (k / n_steps) ** 2)
    low, high = np.sqrt([stop, horizon])
    return _grid(horizon, n_steps, stop, lambda k: (low + (high - low) * k / n_steps) ** 2)


def beta_quantiles(
    horizon: float, n_steps: int, stop: float = 0.0, *, alpha: float, beta: float
) -> Array:
    """Quantiles of the law Beta(α, β) on [0, T]: dense at both ends where α, β < 1.

    τ_k = T F⁻¹(1 − k/N), F the distribution function; α = β = 0.6 in Lee et al. (arXiv
    2407.12173), α = β = 1 is `uniform`. Uniform in F between F(δ/T) and 1 with a last time δ.

    Parameters
    ----------
    horizon, n_steps, stop
        As in `uniform`.
    alpha, beta : float
        Positive.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`.

    Raises
    ------
    ValueError
        If a parameter is out of range, or two quantiles agree to double precision.
    """
    from scipy.special import betainc, betaincinv

    require_positive(alpha=alpha, beta=beta)
    low = float(betainc(alpha, beta, stop / horizon)) if stop else 0.0
    return _grid(
        horizon,
        n_steps,
        stop,
        lambda k: horizon * betaincinv(alpha, beta, low + (1 - low) * k / n_steps),
    )


def require_end(horizon: float, n_steps: int, stop: float) -> None:
    """Refuse a horizon, a number of steps or a last time that no grid can have."""
    require_positive(horizon=horizon)
    require_integer(1, n_steps=n_steps)
    if not 0 <= stop < horizon:
        raise ValueError(f"stop = {stop!r}: must lie in [0, T) = [0, {horizon!r})")


def ordered(times: Array) -> Array:
    """The times, if they decrease strictly."""
    still = np.flatnonzero(~(np.diff(times) < 0))
    if still.size:
        k = int(still[0])
        raise ValueError(
            f"n_steps = {len(times) - 1}: step {k} of the time grid leads from {times[k]:.6g} to "
            f"{times[k + 1]:.6g}: must decrease in double precision; use fewer steps, or other "
            "parameters of the grid"
        )
    return times


def _grid(horizon: float, n_steps: int, stop: float, time: Callable[[Array], Array]) -> Array:
    """The times of N, N − 1, …, 0 steps to go."""
    require_end(horizon, n_steps, stop)
    times = time(np.arange(n_steps, -1, -1, dtype=np.float64))
    times[0] = horizon  # T·N/N rounds to above T for some T and N
    times[-1] = stop
    return ordered(times)
