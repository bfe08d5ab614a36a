"""Data sets: rows of an unknown law, some of which are held out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.random import stream
from sgm.targets.base import Target, Transform, require_between

__all__ = ["DataTarget", "EmpiricalTarget"]

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.integer[Any]]


class DataTarget(Target):
    """A data set; π_data is unknown.

    Attributes
    ----------
    heldout_fixed : bool
        Whether the held-out rows are the same for every generator.
    """

    law: None
    heldout_fixed: bool = False

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Number of rows, held-out ones included."""

    @abstractmethod
    def partition(self, generator: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Numbers of the training rows, in random order, and of the held-out rows.

        The same state of the generator gives the same parts.
        """

    @abstractmethod
    def take(self, numbers: Numbers) -> npt.NDArray[np.floating[Any]]:
        """The rows of some numbers (...), shape (..., d)."""

    def split(self, generator: np.random.Generator) -> tuple[Array, Array]:
        """The training and the held-out rows of `partition`, shape (n, d) each."""
        train, heldout = self.partition(generator)
        return self.take(train).astype(np.float64), self.take(heldout).astype(np.float64)

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """The first `n` training rows of `partition`.

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
        train, _ = self.partition(generator)
        if n > len(train):
            raise ValueError(f"n = {n}: must be at most {len(train)}, the training rows")
        return self.take(train[:n]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class EmpiricalTarget(DataTarget):
    """A data set in memory, split at random.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, d)
        The data in working coordinates, more rows than columns, of a covariance of full
        rank.
    heldout_fraction : float
        Share of the rows that are held out, in (0, 1).
    coordinates : Transform, optional
    image_shape : tuple of int, optional
    levels : int, optional
        See `Target`.

    Raises
    ------
    ValueError
        If the rows or the shapes are not as said, or `heldout_fraction` leaves an empty
        part.
    """

    rows: Array
    heldout_fraction: float
    coordinates: Transform | None = None
    image_shape: tuple[int, ...] | None = None
    levels: int | None = None
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
        image_shape: tuple[int, ...] | None = None,
        levels: int | None = None,
    ) -> EmpiricalTarget:
        """A data set from its columns as they are.

        Parameters
        ----------
        original : array_like, shape (n_rows, p)
            Constant columns, be it up to rounding, are dropped; `restore` brings them back.
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
        levels : int, optional
            See `Target`.

        Returns
        -------
        EmpiricalTarget
        """
        given = np.asarray(original)
        if given.ndim != 2 or given.size == 0:
            raise ValueError(f"original has shape {given.shape}: must be (n, p), not empty")
        if given.dtype.kind == "c":
            raise ValueError("original: must be real; it is complex")
        original = np.asarray(given, dtype=np.float64)
        wrong = ~np.isfinite(original)
        if wrong.any():
            first = ", ".join(str(index) for index in np.argwhere(wrong)[0])
            raise ValueError(
                f"original: must be finite; missing or infinite: {wrong.sum()} values, in "
                f"{wrong.any(axis=1).sum()} of {len(original)} rows and "
                f"{wrong.any(axis=0).sum()} of {original.shape[1]} columns, "
                f"the first original[{first}]"
            )
        constant = _is_constant(original, given.dtype)
        if constant.all():
            raise ValueError(f"original: must vary: all {len(constant)} columns are constant")
        if dequantise:
            whole = np.all(original == np.floor(original), axis=0) & ~constant
            noise = stream(0, "dequantise").random(original.shape)
            original = np.where(whole, original + noise, original)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            variance = original.var(axis=0)
        lost = ~constant & ~(np.isfinite(variance) & (variance > 0))
        if lost.any():
            largest = np.max(np.abs(original[:, np.argmax(lost)]))
            raise ValueError(
                f"original: must have variances that float64 can hold; column {np.argmax(lost)}, "
                f"of values up to {largest:.3g}, has none: change its units"
            )
        center, scale = np.zeros(len(constant)), np.ones(len(constant))
        if standardise:
            center, scale = original.mean(axis=0), original.std(axis=0)
        coordinates = Transform(
            np.where(constant, original[0], center), np.where(constant, 0.0, scale)
        )
        rows = coordinates.standardise(original)
        return cls(rows, heldout_fraction, coordinates, image_shape, levels)

    @classmethod
    def from_levels(
        cls,
        original: npt.ArrayLike,
        heldout_fraction: float,
        standardise: bool,
        levels: int,
        image_shape: tuple[int, ...] | None = None,
    ) -> EmpiricalTarget:
        """A data set of grey levels or counts, all of them dequantised as in `from_rows`.

        All columns are kept, constant ones too, so that a likelihood has bits per dimension.

        Parameters
        ----------
        original : array_like, shape (n_rows, p)
            Whole numbers from 0 to `levels` − 1.
        heldout_fraction : float
        standardise : bool
            Whether the columns are centred and divided by their standard deviations; else
            all are scaled alike from [0, levels) to [−1, 1).
        levels : int
            At least 2.
        image_shape : tuple of int, optional
            See `Target`.

        Returns
        -------
        EmpiricalTarget
        """
        original = np.asarray(original)
        wrong = ~((original >= 0) & (original < levels) & (original == np.floor(original)))
        if levels < 2 or wrong.any():
            found = f"; one is {original[wrong][0]:g}" if wrong.any() else ""
            raise ValueError(
                f"levels = {levels!r}: must be at least 2, and all values whole numbers from 0 to "
                f"levels - 1{found}"
            )
        noisy = original + stream(0, "dequantise").random(original.shape)
        if standardise:
            return cls.from_rows(noisy, heldout_fraction, image_shape=image_shape, levels=levels)
        coordinates = Transform.symmetric(levels, original.shape[1])
        rows = coordinates.standardise(noisy)
        return cls(rows, heldout_fraction, coordinates, image_shape, levels)

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

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def partition(self, generator: np.random.Generator) -> tuple[Numbers, Numbers]:
        order = generator.permutation(len(self.rows))
        heldout, train = np.split(order, [self._heldout_rows])
        return train, heldout

    def take(self, numbers: Numbers) -> Array:
        return np.asarray(self.rows[numbers])


def _is_constant(columns: Array, stored: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than rounding, shape (p,).

    Values that differ by a few units in the last place, of the precision they were stored in,
    are one value that was computed in several ways.
    """
    eps = np.finfo(stored if stored.kind == "f" else np.float64).eps
    ulps = 16 * eps * np.abs(columns).max(axis=0)
    return np.asarray(np.ptp(columns, axis=0) <= ulps)


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
