"""Targets, those of known law, and the way back to the original coordinates.

Everything else works on x ∈ ℝᵈ. What is stored with a target says how x came from the p
columns it stands for,

    original = center + scale · x   on the columns that vary (scale > 0),
    original = center               on the p − d constant ones (scale = 0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.densities.affine import Affine
from sgm.densities.base import Law
from sgm.gaussian import Gaussian

__all__ = ["LawTarget", "Target", "Transform"]

Array = npt.NDArray[np.float64]


class Transform(NamedTuple):
    """Affine map from working coordinates to original columns.

    Parameters
    ----------
    center, scale : ndarray, shape (p,)
        In the units of the columns; scale ≥ 0, and zero on the constant columns, which
        working coordinates leave out.
    """

    center: Array
    scale: Array

    @classmethod
    def identity(cls, dimension: int) -> Transform:
        """Working coordinates that are the original ones."""
        return cls(np.zeros(dimension), np.ones(dimension))

    @classmethod
    def symmetric(cls, levels: int, dimension: int) -> Transform:
        """Working coordinates in [−1, 1) of columns in [0, levels)."""
        half = np.full(dimension, levels / 2)
        return cls(half, half)

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which of the p original columns vary, shape (p,)."""
        return self.scale > 0

    def restore(self, x: npt.ArrayLike) -> Array:
        """Working coordinates (..., d) to original columns (..., p), constant ones included."""
        x = np.asarray(x, dtype=np.float64)
        original = np.broadcast_to(self.center, (*x.shape[:-1], len(self.center))).copy()
        original[..., self.kept] += self.scale[self.kept] * x
        return original

    def standardise(self, original: npt.ArrayLike) -> Array:
        """Original columns (..., p) to working coordinates (..., d)."""
        kept = self.kept
        shifted = np.asarray(original, dtype=np.float64)[..., kept] - self.center[kept]
        return np.asarray(shifted / self.scale[kept])


class Target(ABC):
    """A law on ℝᵈ to sample from.

    Attributes
    ----------
    law : Law or None
        π_data if it is known, else None.
    coordinates : Transform or None
        Back to the original columns; None if these are the working coordinates.
    image_shape : tuple of int or None
        (height, width), or (3, height, width) for colours, of the pictures
        ``restore(x).reshape(-1, *image_shape)``; None if a row is no picture.
    levels : int or None
        L, if all original columns are one of the whole numbers 0, …, L − 1 plus uniform noise
        on [0, 1); else None.
    """

    law: Law | None
    coordinates: Transform | None
    image_shape: tuple[int, ...] | None
    levels: int | None = None

    def __post_init__(self) -> None:
        center, scale = self.transform
        if center.shape != scale.shape or np.count_nonzero(scale) != self.dimension:
            raise ValueError(
                f"coordinates: must be center and scale of shape (p,), with {self.dimension} "
                f"nonzero scales; shapes are {center.shape} and {scale.shape}, "
                f"nonzero {np.count_nonzero(scale)}"
            )
        if self.image_shape is not None and prod(self.image_shape) != len(scale):
            raise ValueError(
                f"image_shape = {self.image_shape!r}: must hold {len(scale)} pixels, one a column"
            )
        match self.image_shape:
            case None | (_, _) | (3, _, _):
                pass
            case shape:
                raise ValueError(
                    f"image_shape = {shape!r}: must be (height, width) or (3, height, width)"
                )

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @property
    @abstractmethod
    def reference(self) -> Gaussian:
        """The Gaussian that moment-based divergences compare with.

        The law itself if it is Gaussian, else the one with its moments or those of the data set.
        """

    @abstractmethod
    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` training rows, shape (n, d)."""

    @property
    def transform(self) -> Transform:
        """The pair (center, scale), each of shape (p,), that `restore` applies."""
        return Transform.identity(self.dimension) if self.coordinates is None else self.coordinates

    @property
    def span(self) -> float | None:
        """Length that the levels cover together in working coordinates, in geometric mean.

        A level has width 1 in the original columns and 1/s_j in working coordinate j. The
        density of the original columns is q(x)/∏ s_j, so that

            −(log q(x) + d log(span/levels))/(d log 2),    span = levels/(∏ s_j)^{1/d},

        are bits per dimension of the original levels, whatever the scales s.
        """
        if self.levels is None:
            return None
        scale = self.transform.scale
        return float(self.levels / np.exp(np.mean(np.log(scale[scale > 0]))))

    def restore(self, x: npt.ArrayLike) -> Array:
        """Working coordinates (..., d) to original columns (..., p)."""
        return self.transform.restore(x)

    def standardise(self, original: npt.ArrayLike) -> Array:
        """Original columns (..., p) to working coordinates (..., d)."""
        return self.transform.standardise(original)


@dataclass(frozen=True, eq=False)
class LawTarget(Target):
    """A target whose law is known.

    Parameters
    ----------
    law : Law
        π_data in working coordinates.
    coordinates : Transform, optional
    image_shape : tuple of int, optional
    """

    law: Law
    coordinates: Transform | None = None
    image_shape: tuple[int, ...] | None = None

    @property
    def dimension(self) -> int:
        return self.law.dimension

    @cached_property
    def reference(self) -> Gaussian:
        """The law itself if Gaussian, else the Gaussian with its mean and covariance."""
        if isinstance(self.law, Gaussian):
            return self.law
        covariance = self.law.covariance
        # a covariance computed from products is symmetric up to rounding only
        return Gaussian.from_covariance(self.law.mean, (covariance + covariance.T) / 2)

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        return self.law.sample(n, generator)

    def rescaled(
        self, center: bool, scale: float | Literal["unit_variance", "unit_spectrum"]
    ) -> LawTarget:
        """The law of (X − c)/s; `restore` undoes it.

        Parameters
        ----------
        center : bool
            Whether c is the mean; else 0.
        scale : float or str
            s > 0; or ``"unit_variance"``, the root of the mean variance of a coordinate;
            or ``"unit_spectrum"``, the root of the largest eigenvalue of the covariance.
            With the latter a Gaussian has λ_max ≤ 1, as the W₂ theorem asks for σ² = 1.

        Returns
        -------
        LawTarget
        """
        variances = self.law.principal_variances
        if scale == "unit_variance":
            s = float(np.sqrt(variances.mean()))
        elif scale == "unit_spectrum":
            # the next number up: λ_max/s² must not round to above 1
            s = float(np.nextafter(np.sqrt(variances.max()), np.inf))
        elif isinstance(scale, str) or not (np.isfinite(scale) and scale > 0):
            raise ValueError(
                f"scale = {scale!r}: must be a positive finite number, 'unit_variance' or "
                "'unit_spectrum'"
            )
        else:
            s = float(scale)
        c = self.law.mean if center else np.zeros(self.dimension)
        law: Law
        if isinstance(self.law, Gaussian):
            law = Gaussian((self.law.mean - c) / s, variances / s**2, self.law.basis)
        else:
            law = Affine(self.law, c, s)
        coordinates = Transform(self.restore(c), s * self.transform.scale)
        return replace(self, law=law, coordinates=coordinates)


def require_between(key: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside (low, high)."""
    if not low < value < high:
        raise ValueError(f"{key} = {value!r}: must lie strictly between {low:g} and {high:g}")


def require_least(key: str, value: int, least: int) -> None:
    """Refuse an integer below `least`."""
    if value < least:
        raise ValueError(f"{key} = {value!r}: must be at least {least}")


def require_positive(key: str, value: float) -> None:
    """Refuse what is not a positive finite number."""
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{key} = {value!r}: must be a positive finite number")
