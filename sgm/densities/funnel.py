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
from sgm.densities.quadrature import DecayCurve

__all__ = ["Funnel"]

Array = npt.NDArray[np.float64]

_CELLS = 50
_REACH = 8.5
_LEFT_OUT = _REACH**2 / 2  # mass e^{−36} beyond reach


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
        """log p, ∂₁log p and E[1/q | y], each of shape (...).

        With z = c + √w ζ, the weight exp(−ζ²/2) q^{−n/2} e^{−ρ/(2q)} of ζ is scanned for
        the interval where it matters, then integrated by the trapezoidal rule, which is
        exact to rounding with two nodes a standard deviation.
        """
        n, a, b = self._others, self.spread, self.slope
        squared = np.asarray(scale, dtype=np.float64)[..., None] ** 2
        v = np.asarray(variance, dtype=np.float64)[..., None]
        first = x[..., :1]
        rho = np.sum(x[..., 1:] ** 2, axis=-1, keepdims=True)
        total = squared * a**2 + v
        # center + width ζ is the exponent 2bz; far beyond any use it is kept from overflow
        center = np.clip(2 * b * np.asarray(scale)[..., None] * a**2 * first / total, -500, 500)
        width = 2 * b * a * np.sqrt(v / total)

        def weigh(zeta: Array) -> tuple[Array, Array, Array]:
            drawn = squared * np.exp(center + width * zeta)
            q = drawn + v
            return -0.5 * (zeta**2 + n * np.log(q) + rho / q), drawn, q

        low, high = self._modes(rho, v, squared, center, width)
        low, high = low - _REACH - 0.5, high + _REACH + 0.5
        for _ in range(3):
            zeta = low + (high - low) * _SCAN
            log_weight = weigh(zeta)[0]
            inside = log_weight > np.max(log_weight, axis=-1, keepdims=True) - _LEFT_OUT
            start = np.maximum(np.argmax(inside, axis=-1) - 1, 0)
            stop = np.maximum(np.argmax(inside[..., ::-1], axis=-1) - 1, 0)
            step = (high - low) / (_SCAN.size - 1)
            low, high = low + step * start[..., None], high - step * stop[..., None]
        step = (high - low) / (_TRAPEZOID.size - 1)
        log_weight, drawn, q = weigh(low + (high - low) * _TRAPEZOID)
        peak = np.max(log_weight, axis=-1, keepdims=True)
        share = np.exp(log_weight - peak)
        mass = np.sum(share, axis=-1, keepdims=True)
        share /= mass
        pull = np.sum(share * drawn / q * (rho / q - n), axis=-1, keepdims=True)
        slope = (np.asarray(scale)[..., None] * a**2 * b * pull - first) / total
        log_density = peak + np.log(mass * step) - 0.5 * (first**2 / total + np.log(total))
        log_density -= 0.5 * (self.dimension + 1) * np.log(2 * np.pi)
        return log_density[..., 0], slope[..., 0], np.sum(share / q, axis=-1)

    def _modes(
        self, rho: Array, v: Array, squared: Array, center: Array, width: Array
    ) -> tuple[Array, Array]:
        """Bounds on the modes of ζ.

        They solve ζ = (width/2) (1 − v s)(ρ s − n), s = 1/q(ζ). The right side is at least
        −n width/2, and positive only where q < ρ/n; a positive mode has s ≤ 1/q(0), where
        the parabola in s has its maximum there or at its vertex.
        """
        n = self._others
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            s = np.fmin(1 / (squared * np.exp(center) + v), (1 / v + n / rho) / 2)
            # NaN where ρ/n < v: the right side is then never positive
            crossing = (np.log((rho / n - v) / squared) - center) / width
            highest = np.fmin(0.5 * width * (1 - v * s) * (rho * s - n), crossing)
        return -0.5 * n * width, np.maximum(highest, 0.0)

    def marginal(self, coordinates: Sequence[int]) -> Funnel:
        """A funnel of lower dimension: the first coordinate must come first, since the
        others alone have no density of this form."""
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
        smallest = np.exp(-8 * (self.spread * self.slope) ** 2)
        return DecayCurve.fit(self._excess_at, smallest, 1e4 * self.principal_variances[-1])

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
            z = np.arange(middle[0] - span, middle[-1] + span + z_step, z_step)
            drawn = np.exp(2 * b * z)[:, None]
            q = drawn + noise
            u = np.arange(np.log(q[0, 0]) - tail, np.log(q[-1, 0]) + np.log1p(tail), u_step)
            rho = n * np.exp(u)
            ratio = rho / q
            log_radial = n / 2 * np.log(ratio / 2) - ratio / 2 - lgamma(n / 2)
            radial = np.exp(log_radial) * u_step * z_step
            given_y = np.exp(-0.5 * ((z - middle[:, None]) / width) ** 2)
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


_SCAN = np.linspace(0.0, 1.0, 25)
_TRAPEZOID = np.linspace(0.0, 1.0, 57)
