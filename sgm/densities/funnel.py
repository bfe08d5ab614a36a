"""Neal's funnel: X₁ ~ N(0, a²) sets the scale of the other coordinates.

    X_j | X₁ ~ N(0, e^{2bX₁}),     j = 2, …, d,     n = d − 1.

Noised, Y = m X + √v Z is a mixture over z = X₁, with q(z) = m² e^{2bz} + v and ρ = Σ_{j≥2} y_j²:

    p(y) = ∫ N(z; 0, a²) N(y₁; m z, v) N(y_{2…d}; 0, q(z) I) dz
         = N(y₁; 0, V) ∫ N(z; c, w) N(y_{2…d}; 0, q(z) I) dz,
    V = m² a² + v,     c = m a² y₁/V,     w = a² v/V.

Two expressions of ∂₁log p, −(y₁ − m E[z|y])/v and, by parts in z, the mean over the posterior
of z of the slope of the remaining integrand over m, combine into one in which nothing cancels
and no division by v or m is left: with k(z) = (m² e^{2bz}/q)(ρ/q − n),

    ∂₁log p = (m a² b E[k|y] − y₁)/V,     ∂_j log p = −y_j E[1/q | y].

Sources
-------
Neal (2003), Slice sampling, section 8; the noised law and its score are derived above.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import lgamma

import numpy as np
import numpy.typing as npt

from sgm.densities.base import Law, Partition
from sgm.densities.posterior import Posterior
from sgm.densities.quadrature import DecayCurve

__all__ = ["Funnel"]

Array = npt.NDArray[np.float64]

_CELLS = 50
_REACH = 8.5


class Funnel(Law):
    """The funnel in ℝᵈ.

    Parameters
    ----------
    dimension : int
        d ≥ 1; N(0, a²) if 1.
    spread : float
        a > 0, standard deviation of the first coordinate.
    slope : float
        b > 0: given x₁, the others have standard deviation e^{b x₁}.

    Raises
    ------
    ValueError
        If a parameter is out of range; the message names it.
    """

    def __init__(self, dimension: int, spread: float = 1.0, slope: float = 0.5) -> None:
        if dimension < 1:
            raise ValueError(f"dimension = {dimension!r}: must be at least 1")
        for key, value in {"spread": spread, "slope": slope}.items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{key} = {value!r}: must be a positive finite number")
        if spread * slope > 9:
            raise ValueError(
                f"spread * slope = {spread * slope!r}: must be at most 9, beyond which the scales "
                "of the other coordinates leave float64"
            )
        self.spread, self.slope = float(spread), float(slope)
        self.mean = np.zeros(dimension)

    @property
    def _others(self) -> int:
        """n."""
        return self.dimension - 1

    @property
    def _mean_variance(self) -> float:
        """E e^{2bX₁}."""
        return float(np.exp(2 * (self.spread * self.slope) ** 2))

    @property
    def covariance(self) -> Array:
        return np.diag([self.spread**2, *[self._mean_variance] * self._others])

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        x = generator.standard_normal((n, self.dimension))
        x[:, 0] *= self.spread
        x[:, 1:] *= np.exp(self.slope * x[:, :1])
        return x

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        x = np.asarray(x, dtype=np.float64)
        return self._posterior(x, scale, variance)[0]

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        x = np.asarray(x, dtype=np.float64)
        _, first, precision = self._posterior(x, scale, variance)
        return np.concatenate([first[..., None], -precision[..., None] * x[..., 1:]], axis=-1)

    def _posterior(
        self, x: Array, scale: npt.ArrayLike, variance: npt.ArrayLike
    ) -> tuple[Array, Array, Array]:
        """log p, ∂₁log p and E[1/q | y], each of shape (...)."""
        a, b = self.spread, self.slope
        first, rho = x[..., 0], np.sum(x[..., 1:] ** 2, axis=-1)
        columns = np.broadcast_arrays(first, rho, scale, variance)
        first, rho, m, v = (np.ravel(column).astype(np.float64) for column in columns)
        total = m**2 * a**2 + v
        center, width = 2 * b * m * a**2 * first / total, 2 * b * a * np.sqrt(v / total)
        found = Posterior(self._others, rho, v, m**2, center, width).moments()
        slope = (m * a**2 * b * found.pull - first) / total
        log_density = found.log_mass - 0.5 * (first**2 / total + np.log(total))
        log_density -= 0.5 * (self.dimension + 1) * np.log(2 * np.pi)
        shape = columns[0].shape
        return log_density.reshape(shape), slope.reshape(shape), found.precision.reshape(shape)

    def marginal(self, coordinates: Sequence[int]) -> Funnel:
        """A funnel of lower dimension.

        The first coordinate must come first: the others alone have no density of this form.
        """
        chosen = self._require_coordinates(coordinates)
        if chosen[0] != 0:
            raise ValueError(f"coordinates = {chosen!r}: must start with 0 for a funnel")
        return Funnel(len(chosen), self.spread, self.slope)

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        return self._excess(noise) if self._others else np.zeros(np.shape(noise))

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        return self._excess.remainder(noise) / 2 if self._others else np.zeros(np.shape(noise))

    @cached_property
    def _excess(self) -> DecayCurve:
        # the expansion at γ = 0 goes by powers of γ e^{−2bX₁}, whose means under ever
        # steeper weights grow: e^{−8(ab)²} is where the curve has its bend
        steepness = (self.spread * self.slope) ** 2
        smallest, largest = np.exp(-8 * steepness), 1e4 * self.principal_variances[-1]
        curve = DecayCurve.fit(self._excess_at, smallest, largest)
        # all of it is known: N(0) = n (ab)², the entropies of the funnel and of its Gaussian
        error = float(curve.remainder(0.0) / 2 / (self._others * steepness) - 1)
        if not abs(error) < 1e-5:
            raise ArithmeticError(
                f"spread = {self.spread!r}, slope = {self.slope!r}: the negentropy of the funnel "
                f"in d = {self.dimension} is not resolved, with a relative error of {error:.1e}"
            )
        return curve

    def _excess_at(self, noise: float) -> float:
        """D(γ) = E|∇log(p/g)|², by quadrature over y₁ and log ρ.

        In ∇log(p/g) the Gaussian's share cancels exactly: −y₁/V of the first component,
        and Λ = E e^{2bX₁} in  E[1/q | y] − 1/(Λ + γ) = E[(Λ − e^{2bz})/q | y]/(Λ + γ).
        With z on a grid, p and the posterior moments are matrix products. The grid is
        shared by all those y₁ whose posteriors it can cover: all of them at large noise,
        one at small noise. At γ = 0 the closed form is 2n (b² + sinh 2a²b²).
        """
        n, a, b, matched = self._others, self.spread, self.slope, self._mean_variance
        if noise == 0:
            return float(2 * n * (b**2 + np.sinh(2 * (a * b) ** 2)))
        total = a**2 + noise
        width = a * np.sqrt(noise / total)
        # ∇log p has the weight e^{−2bX₁}, which shifts the laws of y₁ and of z
        reach = _REACH + 2 * a * b
        y_step = 0.4
        t = np.arange(-reach, reach, y_step)
        y_weights = y_step * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
        centers = a**2 * t / np.sqrt(total)
        z_step = 0.5 / np.sqrt(1 / width**2 + 2 * n * b**2)
        u_step = 0.25 * min(1.2 * np.sqrt(2 / n), 1.0)
        # tails of log(χ²_n/n) (Laurent and Massart, 2000)
        tail = np.sqrt(2 / n) * _REACH + _REACH**2 / n
        value = 0.0
        group = np.floor(centers / (16 * width))
        for members in np.split(np.arange(t.size), np.flatnonzero(np.diff(group)) + 1):
            middle = centers[members]
            span = (_REACH + 2 * b * width) * width
            # from the first center: next to γ = 0 the steps are below its rounding error
            within = middle - middle[0]
            z = np.arange(-span, within[-1] + span + z_step, z_step)
            drawn = np.exp(2 * b * (middle[0] + z))[:, None]
            q = drawn + noise
            u = np.arange(np.log(q[0, 0]) - tail, np.log(q[-1, 0]) + np.log1p(tail), u_step)
            rho = n * np.exp(u)
            ratio = rho / q
            log_radial = n / 2 * np.log(ratio / 2) - ratio / 2 - lgamma(n / 2)
            radial = np.exp(log_radial) * u_step * z_step
            given_y = np.exp(-0.5 * ((z - within[:, None]) / width) ** 2)
            given_y /= np.sqrt(2 * np.pi) * width
            p = given_y @ radial
            pull = given_y @ (radial * drawn / q * (ratio - n))
            gap = given_y @ (radial * (matched - drawn) / q)
            squared = (a**2 * b / total * pull) ** 2 + rho * (gap / (matched + noise)) ** 2
            # nothing is left of p, nor of the moments, far out in u
            value += y_weights[members] @ np.sum(squared / np.maximum(p, 1e-290), axis=1)
        return float(value)

    def partition(self) -> Partition:
        """Fifty equiprobable intervals of x₁."""
        from scipy.special import ndtri

        cuts = self.spread * ndtri(np.arange(1, _CELLS) / _CELLS)
        return Partition(
            "x1",
            lambda points: np.searchsorted(cuts, points[:, 0]),
            np.full(_CELLS, 1 / _CELLS),
        )
