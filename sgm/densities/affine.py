"""Affine images (X − c)/s of a law, such as rescaled data.

m (X − c)/s + √v Z is the noised version of X at scale m/s and variance v, shifted by −m c/s;
in units of X the noise level v/m² is s² v/m².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgm.densities.base import Law, Partition

__all__ = ["Affine"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine(Law):
    """The law of (X − center)/scale, X ~ `base`.

    Parameters
    ----------
    base : Law
    center : array_like, shape (d,)
    scale : float
        Positive.

    Raises
    ------
    ValueError
        If `center` or `scale` is out of range.
    """

    base: Law
    center: Array
    scale: float
    mean: Array = field(init=False)

    def __post_init__(self) -> None:
        center = np.asarray(self.center, dtype=np.float64)
        if center.shape != self.base.mean.shape or not np.all(np.isfinite(center)):
            raise ValueError(
                f"center = {center.tolist()!r}: must be {self.base.dimension} finite numbers"
            )
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale = {self.scale!r}: must be a positive finite number")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "mean", (self.base.mean - center) / self.scale)

    @property
    def covariance(self) -> Array:
        return self.base.covariance / self.scale**2

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        return (self.base.sample(n, generator) - self.center) / self.scale

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        points, base_scale = self._in_base(x, scale)
        return self.base.log_density(points, base_scale, variance)

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        points, base_scale = self._in_base(x, scale)
        return self.base.score(points, base_scale, variance)

    def _in_base(self, x: npt.ArrayLike, scale: npt.ArrayLike) -> tuple[Array, Array]:
        base_scale = np.asarray(scale, dtype=np.float64) / self.scale
        return np.asarray(x) + base_scale[..., None] * self.center, base_scale

    def marginal(self, coordinates: Sequence[int]) -> Affine:
        chosen = self._require_coordinates(coordinates)
        return Affine(self.base.marginal(chosen), self.center[chosen], self.scale)

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        return self.scale**2 * self.base.excess_information(self.scale**2 * np.asarray(noise))

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        return self.base.negentropy(self.scale**2 * np.asarray(noise))

    def partition(self) -> Partition:
        """The cells of `base`, in the new coordinates."""
        part = self.base.partition()
        return Partition(
            part.name,
            lambda points: part.label(self.center + self.scale * points),
            part.probabilities,
        )
