"""Functions of the noise level by quadrature, tabulated once; panels for sums of Gaussian bumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Chebyshev
from numpy.polynomial.legendre import leggauss

__all__ = ["DecayCurve", "gaussian_panels"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecayCurve:
    """A positive function f of γ ≥ 0, smooth at 0 and a power of γ at infinity.

    log f is a Chebyshev series in u = log(γ + `smallest`), which is regular at γ = 0 and
    linear in log γ at infinity; beyond its domain it is continued by its tangent.

    Parameters
    ----------
    series : Chebyshev
    smallest : float
        The scale of γ below which f is nearly constant.
    """

    series: Chebyshev
    smallest: float

    @classmethod
    def fit(cls, function: Callable[[float], float], smallest: float, largest: float) -> DecayCurve:
        """Tabulate `function` on [0, `largest`], with as many nodes as it takes.

        Raises
        ------
        ArithmeticError
            If 513 nodes do not bring the last coefficients below 10⁻⁷.
        """
        domain = np.log([smallest, largest + smallest])

        def log_value(angle: Array) -> Array:
            u = domain.mean() + np.ptp(domain) / 2 * np.cos(angle)
            # the last node is γ = 0
            noise = np.where(angle == np.pi, 0.0, np.exp(u) - smallest)
            return np.log([function(float(level)) for level in noise])

        angle = np.linspace(0, np.pi, 65)
        values = log_value(angle)
        while True:
            degree = angle.size - 1
            series = Chebyshev.fit(np.cos(angle), values, degree, domain=[-1, 1])
            error = np.max(np.abs(series.coef[-8:]))
            if error < 1e-9 or degree == 512:
                break
            # the nodes between the present ones, which are kept
            between = log_value((angle[1:] + angle[:-1]) / 2)
            angle = np.linspace(0, np.pi, 2 * degree + 1)
            values = np.insert(values, np.arange(1, degree + 1), between)
        if error > 1e-7:
            raise ArithmeticError(f"the curve is not resolved: last coefficients {error:.1e}")
        return cls(Chebyshev(series.coef, domain=domain), smallest)

    @property
    def _top(self) -> float:
        return float(self.series.domain[1])

    @property
    def _exponent(self) -> float:
        """f ~ γ^exponent at infinity."""
        return float(self.series.deriv()(self._top))

    def _at(self, u: Array) -> Array:
        inside = np.minimum(u, self._top)
        return np.asarray(np.exp(self.series(inside) + self._exponent * (u - inside)))

    def __call__(self, noise: npt.ArrayLike) -> Array:
        """f(γ), shape of `noise`."""
        return self._at(np.log(np.asarray(noise) + self.smallest))

    def remainder(self, noise: npt.ArrayLike) -> Array:
        """∫_γ^∞ f, shape of `noise`."""
        u = np.log(np.asarray(noise, dtype=np.float64) + self.smallest)
        inside = np.minimum(u, self._top)
        half = (self._top - inside)[..., None] / 2
        nodes = inside[..., None] + half * (1 + _NODES)
        body = np.sum(_WEIGHTS * half * self._at(nodes) * np.exp(nodes), axis=-1)
        outside = np.maximum(u, self._top)
        decay = -self._exponent - 1
        # f e^u, in one exponential: f vanishes where e^u overflows
        tail = self._at(np.array(self._top)) * np.exp(self._top - decay * (outside - self._top))
        return np.asarray(body + tail / decay)


_NODES, _WEIGHTS = leggauss(160)


def gaussian_panels(means: Array, stds: Array) -> tuple[Array, Array]:
    """Nodes and weights that integrate functions on the scale of several Gaussian bumps.

    Gauss-Legendre panels which, within nine standard deviations of a bump, are at most
    one of its standard deviations wide.

    Parameters
    ----------
    means, stds : ndarray, shape (K,)

    Returns
    -------
    nodes, weights : ndarray, shape (n,)
    """
    reach = np.arange(-9.0, 10.0)
    candidates = np.unique(means[:, None] + stds[:, None] * reach)
    distance = np.abs(candidates[:, None] - means)
    scale = np.min(np.where(distance < 9.5 * stds, stds, np.inf), axis=1)
    edges = [candidates[0]]
    for left, right, width in zip(candidates, candidates[1:], scale[1:], strict=False):
        # drop an edge if the next one is still within reach
        if right - edges[-1] > width and left > edges[-1]:
            edges.append(left)
    edges.append(candidates[-1])
    ends = np.array(edges)
    half = np.diff(ends)[:, None] / 2
    nodes, weights = leggauss(12)
    return (ends[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()
