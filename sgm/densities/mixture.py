"""Mixtures of Gaussians with diagonal covariances.

    p = Σ_k w_k N(μ_k, S_k),    noised:  p_Y = Σ_k w_k N(m μ_k, m² S_k + v),
    ∇log p_Y = −Σ_k r_k (m² S_k + v)⁻¹ (y − m μ_k),    r_k(y) ∝ w_k N(y; m μ_k, m² S_k + v).

In one and two dimensions the excess Fisher information is a quadrature on a tensor grid:
components are products, so that densities and scores on the grid are matrix products of
one-dimensional ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgm.densities.base import Law, Partition
from sgm.densities.quadrature import DecayCurve, gaussian_panels

__all__ = ["GaussianMixture"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GaussianMixture(Law):
    """Σ_k weights_k N(means_k, diag(variances_k)).

    Parameters
    ----------
    weights : array_like, shape (K,)
        Positive, of sum one.
    means, variances : array_like, shape (K, d)
        Variances are positive.

    Raises
    ------
    ValueError
        If shapes disagree or a value is out of range.
    """

    weights: Array
    means: Array
    variances: Array
    mean: Array = field(init=False)

    def __post_init__(self) -> None:
        arrays = {
            key: np.asarray(getattr(self, key), dtype=np.float64)
            for key in ("weights", "means", "variances")
        }
        weights, means, variances = arrays.values()
        if weights.ndim != 1 or not (np.all(weights > 0) and abs(np.sum(weights) - 1) < 1e-9):
            raise ValueError(f"weights = {weights.tolist()!r}: must be positive, of sum 1")
        if means.ndim != 2 or means.shape[0] != len(weights) or not np.all(np.isfinite(means)):
            raise ValueError(
                f"means = {means.tolist()!r}: must be finite, of shape ({len(weights)}, d)"
            )
        if variances.shape != means.shape or not np.all(np.isfinite(variances) & (variances > 0)):
            raise ValueError(
                f"variances = {variances.tolist()!r}: must be positive finite numbers, "
                f"of shape {means.shape}"
            )
        for key, value in arrays.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "mean", weights @ means)

    @property
    def covariance(self) -> Array:
        between = self.means - self.mean
        return np.diag(self.weights @ self.variances) + (self.weights * between.T) @ between

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d); every row has its own component."""
        component = generator.choice(len(self.weights), size=n, p=self.weights)
        standard = generator.standard_normal((n, self.dimension))
        return self.means[component] + np.sqrt(self.variances[component]) * standard

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        shift, variances = self._components(x, scale, variance)
        joint = self._joint(shift, variances)
        peak = np.max(joint, axis=-1)
        return np.asarray(peak + np.log(np.sum(np.exp(joint - peak[..., None]), axis=-1)))

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        shift, variances = self._components(x, scale, variance)
        joint = self._joint(shift, variances)
        share = np.exp(joint - np.max(joint, axis=-1, keepdims=True))
        share /= np.sum(share, axis=-1, keepdims=True)
        return np.asarray(-np.sum(share[..., None] * shift / variances, axis=-2))

    def _components(
        self, x: npt.ArrayLike, scale: npt.ArrayLike, variance: npt.ArrayLike
    ) -> tuple[Array, Array]:
        """x − m μ_k and m² S_k + v, shapes that broadcast to (..., K, d)."""
        m = np.asarray(scale, dtype=np.float64)[..., None, None]
        v = np.asarray(variance, dtype=np.float64)[..., None, None]
        x = np.asarray(x, dtype=np.float64)
        return x[..., None, :] - m * self.means, m**2 * self.variances + v

    def _joint(self, shift: Array, variances: Array) -> Array:
        """log w_k N(shift_k; 0, variances_k), shape (..., K)."""
        terms = shift**2 / variances + np.log(2 * np.pi * variances)
        return np.asarray(np.log(self.weights) - 0.5 * np.sum(terms, axis=-1))

    def marginal(self, coordinates: Sequence[int]) -> GaussianMixture:
        chosen = self._require_coordinates(coordinates)
        return GaussianMixture(self.weights, self.means[:, chosen], self.variances[:, chosen])

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        if self._is_gaussian:
            return np.zeros(np.shape(noise))
        if self.dimension > 2:
            return np.full(np.shape(noise), np.nan)
        return self._excess(noise)

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        if self._is_gaussian:
            return np.zeros(np.shape(noise))
        if self.dimension > 2:
            return np.full(np.shape(noise), np.nan)
        return self._excess.remainder(noise) / 2

    @property
    def _is_gaussian(self) -> bool:
        return not (np.any(np.ptp(self.means, axis=0)) or np.any(np.ptp(self.variances, axis=0)))

    @cached_property
    def _excess(self) -> DecayCurve:
        largest = 1e4 * float(self.principal_variances[-1])
        return DecayCurve.fit(self._excess_at, float(np.min(self.variances)), largest)

    def _excess_at(self, noise: float) -> float:
        """D(γ) = ∫ p |∇log(p/g)|², by quadrature.

        With V_k = S_k + γ and z = x − μ, ∇log(p/g) is the mean over the responsibilities of

            V_k⁻¹ (μ_k − μ) + (Σ + γ)⁻¹ (S_k − Σ) V_k⁻¹ z,

        the difference of two scores without their common part, which is far larger at
        large noise.
        """
        (z, weights, density), (z2, weights2, density2) = (self._axis(j, noise) for j in range(2))
        joint = self.weights[:, None] * density
        p = joint.T @ density2
        # far from every component the density underflows, and its share with it
        safe = np.where(p > 1e-290, p, np.inf)
        noised = self.variances + noise
        precision = np.linalg.inv(self.covariance + noise * np.eye(self.dimension))
        departure = self.variances[:, :, None] * np.eye(self.dimension) - self.covariance
        slope = precision @ departure / noised[:, None, :]
        offset = (self.means - self.mean) / noised
        squared = np.zeros_like(p)
        for i in range(self.dimension):
            drawn = (joint * (offset[:, i, None] + slope[:, i, :1] * z)).T @ density2
            drawn += joint.T @ (slope[:, i, -1:] * z2 * density2)
            squared += (drawn / safe) ** 2
        return float(weights @ (p * squared) @ weights2)

    def _axis(self, j: int, noise: float) -> tuple[Array, Array, Array]:
        """Nodes (n,) and weights (n,) on a coordinate less its mean, densities (K, n) there.

        The densities are those of the components. A coordinate that does not exist has one node of
        mass one, at 0.
        """
        if j >= self.dimension:
            return np.zeros(1), np.ones(1), np.ones((len(self.weights), 1))
        mean, variance = self.means[:, j] - self.mean[j], self.variances[:, j] + noise
        z, weights = gaussian_panels(mean, np.sqrt(variance))
        exponent = -0.5 * (z - mean[:, None]) ** 2 / variance[:, None]
        return z, weights, np.exp(exponent) / np.sqrt(2 * np.pi * variance)[:, None]

    def partition(self) -> Partition:
        """The cells in which one component has the largest responsibility.

        Along one coordinate, two components exchange their order at the roots of a
        quadratic, and the mass between roots is a difference of distribution functions:
        exact in one dimension, a quadrature over the other coordinate in two; one cell in
        more.
        """
        from scipy.special import ndtr

        if self.dimension > 2:
            return Partition("all", lambda points: np.zeros(len(points), np.intp), np.ones(1))
        mean, variance = self.means[:, -1], self.variances[:, -1]
        _, weights, density = self._axis(0 if self.dimension == 2 else 1, 0.0)
        outer = self.weights * density.T
        with np.errstate(divide="ignore"):
            constant = np.log(outer) - 0.5 * (mean**2 / variance + np.log(variance))
        linear, quadratic = mean / variance, -0.5 / variance
        i, j = np.triu_indices(len(self.weights), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            c, b, a = (
                constant[:, i] - constant[:, j],
                linear[i] - linear[j],
                quadratic[i] - quadratic[j],
            )
            t = -0.5 * (b + np.copysign(np.sqrt(b**2 - 4 * a * c), b))
            edges = np.concatenate([t / a, c / t], axis=1)
        # a further edge anywhere is harmless: it splits an interval of one cell
        edges = np.sort(np.where(np.isfinite(edges), edges, self.mean[-1]), axis=1)
        inner = (edges[:, :1] - 1, (edges[:, 1:] + edges[:, :-1]) / 2, edges[:, -1:] + 1)
        y = np.concatenate(inner, axis=1)[..., None]
        owner = np.argmax(constant[:, None, :] + linear * y + quadratic * y**2, axis=-1)
        below = ndtr((edges[..., None] - mean) / np.sqrt(variance))
        mass = np.diff(below, axis=1, prepend=0.0, append=1.0)
        mass = weights[:, None] * np.sum(outer[:, None, :] * mass, axis=-1)
        probabilities = np.zeros(len(self.weights))
        np.add.at(probabilities, owner, mass)
        occupied = probabilities > 0
        cell = np.cumsum(occupied) - 1

        def label(points: Array) -> npt.NDArray[np.intp]:
            shift, variances = self._components(points, 1.0, 0.0)
            return np.asarray(cell[np.argmax(self._joint(shift, variances), axis=-1)])

        return Partition("modes", label, probabilities[occupied])
