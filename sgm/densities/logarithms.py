"""r − log(1 + r) and x/y − 1 − log(x/y), the integrands of KL divergences.

They vanish to second order, and lose every digit if written as they stand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["log_excess", "log_ratio_gap"]

Array = npt.NDArray[np.float64]


def log_excess(r: npt.ArrayLike) -> Array:
    """r − log(1 + r) ≥ 0 for r ≥ −1, to full relative precision as r → 0.

    With s = r/(2 + r), log(1 + r) = 2 artanh s, hence s (r − 2 (s²/3 + s⁴/5 + …)); the
    plain difference loses all digits once r²/2 is below the rounding error of r.

    Parameters
    ----------
    r : array_like, shape (...)

    Returns
    -------
    ndarray, shape (...)
    """
    r = np.asarray(r, dtype=np.float64)
    small = np.abs(r) < 0.25
    near = np.where(small, r, 0.0)
    s = near / (2 + near)
    series = np.polynomial.polynomial.polyval(s**2, _ARTANH)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = r - np.log1p(r)
    return np.asarray(np.where(small, s * (near - 2 * series), far))


# s²/3 + s⁴/5 + …: |s| < 1/7, so that ten terms reach the rounding error
_ARTANH = np.array([0.0, *(1 / (2 * k + 1) for k in range(1, 11))])


def log_ratio_gap(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """x/y − 1 − log(x/y) for x ≥ 0, y > 0.

    Accurate for x ≈ y, and for x ≪ y, where (x − y)/y rounds to −1.

    Parameters
    ----------
    x, y : array_like, shape (...)
        Their shapes broadcast.

    Returns
    -------
    ndarray, shape (...)
        +∞ at x = 0.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio, excess = x / y, (x - y) / y
        return np.where(np.abs(excess) < 0.25, log_excess(excess), excess - np.log(ratio))
