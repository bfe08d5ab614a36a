"""A component of a mixture, tilted by a power of its own classifier, on ℝ and in the plane.

    q(x) = p_c(x) r_c(x)^w / Z,    r_c = w_c p_c / Σ_k w_k p_k,    Z = E[r_c(X)^w], X ~ p_c,

the law that classifier-free guidance with weight w is said to sample. Its score is
(1 + w) ∇log p_c − w ∇log p. Noised versions have no closed form; with s = √v/m,

    q_Y(y) = ∫ q(x) N(y; m x, v) dx = m^{−d} E[q(y/m + s ξ)],

are sums over a grid of equal steps h where s ≥ h, which converge geometrically, q being analytic,
and Gauss-Hermite sums over ξ where s < h, which is a small part of any feature of q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.polynomial.hermite_e import hermegauss

from sgm.densities.base import Law, Partition
from sgm.densities.mixture import GaussianMixture

__all__ = ["TiltedMixture"]

Array = npt.NDArray[np.float64]

#: Standard deviations of the component that the grid covers, and steps in one of the narrowest
#: component, itself narrowed by the tilt.
REACH, STEPS = 9.0, 4.0
#: Nodes of the grid along a coordinate, of one and of two; draws of the component that may be
#: refused for one that is kept.
LARGEST_GRID, LARGEST_REFUSAL = {1: 4000, 2: 1000}, 1000.0
_NODES, _WEIGHTS = hermegauss(16)
_WEIGHTS = _WEIGHTS / np.sum(_WEIGHTS)


class _Grid(NamedTuple):
    """Nodes of each coordinate and probabilities of q there, one axis a coordinate."""

    axes: list[Array]
    mass: Array
    step: float


@dataclass(frozen=True, eq=False)
class TiltedMixture(Law):
    """p_c r_c^w, normalised: see the module.

    Parameters
    ----------
    base : GaussianMixture
        In one dimension or two.
    component : int
        c, from 0.
    weight : float
        w ≥ 0; 0 is the component itself.

    Raises
    ------
    ValueError
        If the dimension is larger, there is no such component, the weight is negative, components
        are too different for a grid, or hardly any mass is left to draw from.
    """

    base: GaussianMixture
    component: int
    weight: float
    mean: Array = field(init=False)

    def __post_init__(self) -> None:
        if self.base.dimension > 2:
            raise ValueError(f"prior: dimension = {self.base.dimension}: must be 1 or 2")
        if not 0 <= self.component < len(self.base.weights):
            raise ValueError(
                f"component = {self.component!r}: must be from 0 to {len(self.base.weights) - 1}"
            )
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight = {self.weight!r}: must be a number >= 0")
        acceptance = self.acceptance
        if not acceptance * LARGEST_REFUSAL >= 1:
            raise ValueError(
                f"weight = {self.weight!r}: must leave {1 / LARGEST_REFUSAL:g} of the mass of "
                f"component {self.component} or more, to draw from; it leaves {acceptance:.2g}"
            )
        object.__setattr__(self, "mean", self._moments[0])

    @property
    def dimension(self) -> int:
        """d."""
        return self.base.dimension

    @cached_property
    def own(self) -> GaussianMixture:
        """The component p_c."""
        c = [self.component]
        return GaussianMixture(np.ones(1), self.base.means[c], self.base.variances[c])

    @cached_property
    def acceptance(self) -> float:
        """Z = E[r_c(X)^w], X ~ p_c."""
        points, cell = self._points
        return float(np.sum(np.exp(self._log_unnormalised(points))) * cell)

    def _log_unnormalised(self, x: Array) -> Array:
        """log p_c r_c^w."""
        own = self.own.log_density(x)
        share = np.log(self.base.weights[self.component]) + own - self.base.log_density(x)
        return np.asarray(own + self.weight * share)

    @cached_property
    def _step(self) -> float:
        narrowest = float(np.sqrt(np.min(self.base.variances)))
        return float(narrowest / (STEPS * np.sqrt(1 + self.weight)))

    @cached_property
    def _axes(self) -> list[Array]:
        axes, allowed = [], LARGEST_GRID[self.dimension]
        for center, variance in zip(self.own.means[0], self.own.variances[0], strict=True):
            half = int(np.ceil(REACH * np.sqrt(variance) / self._step))
            if 2 * half + 1 > allowed:
                raise ValueError(
                    f"component = {self.component}, weight = {self.weight!r}: must be at most "
                    f"{allowed} grid steps, each a quarter of the narrowest standard deviation, "
                    f"over √(1 + weight); is {2 * half + 1}"
                )
            axes.append(center + self._step * np.arange(-half, half + 1))
        return axes

    @cached_property
    def _points(self) -> tuple[Array, float]:
        """Nodes of the grid, shape (n₁, …, d), and the volume of a cell."""
        mesh = np.stack(np.meshgrid(*self._axes, indexing="ij"), axis=-1)
        return mesh, self._step**self.dimension

    @cached_property
    def _grid(self) -> _Grid:
        points, cell = self._points
        mass = np.exp(self._log_unnormalised(points)) * cell
        return _Grid(self._axes, mass / np.sum(mass), self._step)

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        points, _ = self._points
        mass = self._grid.mass.ravel()
        points = points.reshape(len(mass), -1)
        mean = mass @ points
        return mean, (mass * (points - mean).T) @ (points - mean)

    @property
    def covariance(self) -> Array:
        return self._moments[1]

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d): of the component, kept with probability r_c^w."""
        kept, missing = [], n
        while missing > 0:
            x = self.own.sample(int(1.1 * missing / self.acceptance) + 16, generator)
            share = self._log_unnormalised(x) - self.own.log_density(x)
            x = x[np.log(generator.random(len(x))) < share][:missing]
            kept.append(x)
            missing -= len(x)
        return np.concatenate(kept)

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        return self._density_and_score(x, scale, variance)[0]

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        return self._density_and_score(x, scale, variance)[1]

    def _density_and_score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike, variance: npt.ArrayLike
    ) -> tuple[Array, Array]:
        """Log density (...) and score (..., d) of the noised law."""
        x = np.asarray(x, dtype=np.float64)
        shape = np.broadcast_shapes(x.shape[:-1], np.shape(scale), np.shape(variance))
        points = np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
        m, v = (np.broadcast_to(part, shape).ravel() for part in (scale, variance))
        wide = np.sqrt(v) >= self._step * m
        density, score = np.empty(len(points)), np.empty(points.shape)
        for rows, sums in ((wide, self._on_grid), (~wide, self._nearby)):
            if np.any(rows):
                density[rows], score[rows] = sums(points[rows], m[rows], v[rows])
        return density.reshape(shape), score.reshape((*shape, x.shape[-1]))

    def _on_grid(self, y: Array, m: Array, v: Array) -> tuple[Array, Array]:
        """Sums over the grid: along each coordinate a kernel, of which the largest value is 1."""
        d, grid = y.shape[1], self._grid
        exponents = [
            -0.5 * (y[:, j, None] - m[:, None] * axis) ** 2 / v[:, None]
            for j, axis in enumerate(grid.axes)
        ]
        peaks = [np.max(part, axis=1, keepdims=True) for part in exponents]
        kernels = [np.exp(part - peak) for part, peak in zip(exponents, peaks, strict=True)]
        if d == 1:
            along = [kernels[0] * grid.mass]
        else:
            along = [
                kernels[0] * (kernels[1] @ grid.mass.T),
                kernels[1] * (kernels[0] @ grid.mass),
            ]
        total = np.sum(along[0], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # far out nothing is left: NaN
            mean = np.stack([part @ axis for part, axis in zip(along, grid.axes, strict=True)], 1)
            mean /= total[:, None]
            density = np.log(total) + np.sum(peaks, axis=0)[:, 0] - d / 2 * np.log(2 * np.pi * v)
        return density, (m[:, None] * mean - y) / v[:, None]

    def _nearby(self, y: Array, m: Array, v: Array) -> tuple[Array, Array]:
        """Gauss-Hermite sums around y/m."""
        d = y.shape[1]
        nodes = np.stack(np.meshgrid(*[_NODES] * d, indexing="ij"), axis=-1).reshape(-1, d)
        weights = np.prod(np.meshgrid(*[_WEIGHTS] * d, indexing="ij"), axis=0).ravel()
        x = (y / m[:, None])[:, None] + (np.sqrt(v) / m)[:, None, None] * nodes
        logs = self._log_unnormalised(x) + np.log(weights)
        peak = np.max(logs, axis=1, keepdims=True)
        share = np.exp(logs - peak)
        total = np.sum(share, axis=1)
        own = (1 + self.weight) * self.own.score(x) - self.weight * self.base.score(x)
        score = np.einsum("nk,nkd->nd", share, own) / total[:, None]
        density = peak[:, 0] + np.log(total) - np.log(self.acceptance) - d * np.log(m)
        return density, score / m[:, None]

    def marginal(self, coordinates: Sequence[int]) -> TiltedMixture:
        """The law itself: that of one coordinate of two is not available."""
        if self._require_coordinates(coordinates) != list(range(self.dimension)):
            raise ValueError(
                f"coordinates = {list(coordinates)!r}: must be all {self.dimension}, in order, for "
                "a tilted mixture"
            )
        return self

    def partition(self) -> Partition:
        """One cell."""
        return Partition("all", lambda points: np.zeros(len(points), dtype=np.intp), np.ones(1))

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        """Not known."""
        return np.full(np.shape(noise), np.nan)

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        """Not known."""
        return np.full(np.shape(noise), np.nan)
