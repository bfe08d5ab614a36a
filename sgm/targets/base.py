"""Targets of known law, and data sets; and the way back to the original coordinates.

Everything else works on x ∈ ℝᵈ. What is stored with a target says how x came from the p
columns it stands for,

    original = center + scale · x   on the columns that vary (scale > 0),
    original = center               on the p − d constant ones (scale = 0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.densities.affine import Affine
from sgm.densities.base import Law
from sgm.gaussian import Gaussian
from sgm.random import stream

__all__ = ["EmpiricalTarget", "LawTarget", "Target", "Transform"]

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
        (height, width) of the pictures ``restore(x).reshape(-1, *image_shape)``; None if
        a row is no picture.
    """

    law: Law | None
    coordinates: Transform | None
    image_shape: tuple[int, int] | None

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

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @property
    @abstractmethod
    def reference(self) -> Gaussian:
        """The Gaussian that moment-based divergences compare with: the law itself if it
        is Gaussian, else the one with its moments or those of the full data set."""

    @abstractmethod
    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` training rows, shape (n, d)."""

    @property
    def transform(self) -> Transform:
        """The pair (center, scale), each of shape (p,), that `restore` applies."""
        return Transform.identity(self.dimension) if self.coordinates is None else self.coordinates

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
    image_shape: tuple[int, int] | None = None

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


@dataclass(frozen=True, eq=False)
class EmpiricalTarget(Target):
    """A data set; π_data is unknown.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, d)
        The data in working coordinates, more rows than columns, of a covariance of full
        rank.
    heldout_fraction : float
        Share of the rows that `split` holds out, in (0, 1).
    coordinates : Transform, optional
    image_shape : tuple of int, optional

    Raises
    ------
    ValueError
        If the rows or the shapes are not as said, or `heldout_fraction` leaves an empty
        part.
    """

    rows: Array
    heldout_fraction: float
    coordinates: Transform | None = None
    image_shape: tuple[int, int] | None = None
    law: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        require_between("heldout_fraction", self.heldout_fraction, 0.0, 1.0)
        if self.rows.ndim != 2 or self.rows.size == 0:
            raise ValueError(f"rows has shape {self.rows.shape}: must be (n, d)")
        super().__post_init__()
        if not 0 < self._heldout_rows < len(self.rows):
            raise ValueError(
                f"heldout_fraction = {self.heldout_fraction!r}: must leave at least one row "
                f"in each part of {len(self.rows)} rows"
            )
        _require_full_rank(self.rows)
        try:
            _ = self.reference
        except ValueError as error:
            raise ValueError(f"rows: must be standardised, their units differ: {error}") from error

    @classmethod
    def from_rows(
        cls,
        original: npt.ArrayLike,
        heldout_fraction: float,
        standardise: bool = True,
        dequantise: bool = False,
        image_shape: tuple[int, int] | None = None,
    ) -> EmpiricalTarget:
        """A data set from its columns as they are.

        Parameters
        ----------
        original : array_like, shape (n_rows, p)
            Constant columns are dropped; `restore` brings them back.
        heldout_fraction : float
        standardise : bool
            Whether the columns are centred and divided by their standard deviation. Both
            are those of all rows, not of the training part's: the target is then one law,
            whatever the split.
        dequantise : bool
            Whether columns of whole numbers get uniform noise on [0, 1), from a fixed
            stream: the data set is one thing in every study. A column of points has no
            score and an infinite KL divergence from any sampler; the floor of the noised
            one is the data (Theis, van den Oord, Bethge, arXiv 1511.01844, section 3.1).
        image_shape : tuple of int, optional

        Returns
        -------
        EmpiricalTarget
        """
        original = np.asarray(original, dtype=np.float64)
        if original.ndim != 2 or original.size == 0:
            raise ValueError(f"original has shape {original.shape}: must be (n, p), not empty")
        wrong = ~np.isfinite(original)
        if wrong.any():
            first = ", ".join(str(index) for index in np.argwhere(wrong)[0])
            raise ValueError(
                f"original: must be finite; missing or infinite: {wrong.sum()} values, in "
                f"{wrong.any(axis=1).sum()} of {len(original)} rows and "
                f"{wrong.any(axis=0).sum()} of {original.shape[1]} columns, "
                f"the first original[{first}]"
            )
        constant = np.ptp(original, axis=0) == 0
        if constant.all():
            raise ValueError(f"original: must vary: all {len(constant)} columns are constant")
        if dequantise:
            whole = np.all(original == np.floor(original), axis=0) & ~constant
            noise = stream(0, "dequantise").random(original.shape)
            original = np.where(whole, original + noise, original)
        center, scale = np.zeros(len(constant)), np.ones(len(constant))
        if standardise:
            center, scale = original.mean(axis=0), original.std(axis=0)
        coordinates = Transform(
            np.where(constant, original[0], center), np.where(constant, 0.0, scale)
        )
        rows = coordinates.standardise(original)
        return cls(rows, heldout_fraction, coordinates, image_shape)

    @property
    def dimension(self) -> int:
        return int(self.rows.shape[1])

    @cached_property
    def reference(self) -> Gaussian:
        """The Gaussian with the mean and covariance of all rows."""
        covariance = np.atleast_2d(np.cov(self.rows, rowvar=False))
        return Gaussian.from_covariance(self.rows.mean(axis=0), covariance)

    @property
    def _heldout_rows(self) -> int:
        return round(self.heldout_fraction * len(self.rows))

    def split(self, generator: np.random.Generator) -> tuple[Array, Array]:
        """A random split of the rows into a training and a held-out part.

        Parameters
        ----------
        generator : numpy.random.Generator
            The same state gives the same split.

        Returns
        -------
        train, heldout : ndarray, shape (n_train, d) and (n_heldout, d)
        """
        order = generator.permutation(len(self.rows))
        heldout, train = np.split(order, [self._heldout_rows])
        return self.rows[train], self.rows[heldout]

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """The first `n` rows of the training part that `split` gives for `generator`.

        Parameters
        ----------
        n : int
            At most the number of training rows.
        generator : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n, d)

        Raises
        ------
        ValueError
            If the training part has fewer than `n` rows.
        """
        train, _ = self.split(generator)
        if n > len(train):
            raise ValueError(f"n = {n}: must be at most {len(train)}, the training rows")
        return train[:n]


def _require_full_rank(rows: Array) -> None:
    """Refuse rows that no Gaussian with a density has the moments of.

    The rank is that of the correlation, which knows no units: an eigenvalue below n times
    the rounding error of the largest can't be told from zero.
    """
    n, d = rows.shape
    if n <= d:
        raise ValueError(
            f"rows: must be more than d = {d} for a covariance of full rank; there are {n}"
        )
    centred = rows - rows.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(length > 0, length, 1.0)
    eigenvalues = np.linalg.eigvalsh(unit.T @ unit)
    dependent = np.count_nonzero(eigenvalues <= n * np.finfo(float).eps * eigenvalues[-1])
    if dependent:
        raise ValueError(
            f"rows: must have a covariance of full rank; {dependent} of {d} columns are linear "
            "combinations of the others"
        )


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
