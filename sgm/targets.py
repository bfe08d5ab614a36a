"""Targets: the laws π_data that the samplers are asked for, of known law or empirical.

Gaussian targets, with μ = mean · (1, …, 1):

    isotropic                Σ = variance · I
    heteroscedastic_slides   Σ diagonal, 10 on the first five coordinates, 0.1 elsewhere
    heteroscedastic_blocks   Σ diagonal, five blocks of d/5 coordinates: 1, 0.01, 1, 1, 1
    correlated               Σ_jj′ = 1/√(|j − j′| + offset)
    gaussian_file            μ and Σ from a file
    digits_gaussian          μ and Σ of the digits

and one data set, scikit-learn's 8×8 `digits`. A builder takes keyword parameters and
raises ValueError on a value out of range; the message names it.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), their slides and code. The
slides' correlated matrix, 1/√|j − j′| with a unit diagonal, is not a covariance for d ≥ 2;
their code and their figures use offset = 1. Their "anisotropic" figures come from the
blocks, not from the variances printed on the slide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.random import stream

__all__ = [
    "EmpiricalTarget",
    "GaussianTarget",
    "Target",
    "correlated",
    "correlation_matrix",
    "digits",
    "digits_gaussian",
    "gaussian_file",
    "heteroscedastic_blocks",
    "heteroscedastic_slides",
    "isotropic",
]

Array = npt.NDArray[np.float64]


class Target(ABC):
    """A law on ℝᵈ to sample from.

    Attributes
    ----------
    law : Gaussian or None
        π_data if it is a known Gaussian law, else None.
    """

    law: Gaussian | None

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @property
    @abstractmethod
    def reference(self) -> Gaussian:
        """The Gaussian that moment-based divergences compare with: the law itself, or
        the Gaussian with the moments of the full data set."""

    @abstractmethod
    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` training rows, shape (n, d)."""


@dataclass(frozen=True, eq=False)
class GaussianTarget(Target):
    """A Gaussian π_data.

    Parameters
    ----------
    law : Gaussian
        Of batch shape ().
    """

    law: Gaussian

    @property
    def dimension(self) -> int:
        return self.law.dimension

    @property
    def reference(self) -> Gaussian:
        return self.law

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        return self.law.sample(n, generator)


@dataclass(frozen=True, eq=False)
class EmpiricalTarget(Target):
    """A data set, standardised column by column; π_data is unknown.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, d)
        The data in standardised coordinates, in which everything else works.
    center, scale : ndarray, shape (p,)
        The transform, original = center + scale · standardised, on all p ≥ d columns of
        the original data; scale is zero on the constant columns, which are dropped.
    heldout_fraction : float
        Share of the rows that `split` holds out, in (0, 1).

    Raises
    ------
    ValueError
        If the shapes disagree or `heldout_fraction` leaves an empty part.
    """

    rows: Array
    center: Array
    scale: Array
    heldout_fraction: float
    law: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != np.count_nonzero(self.scale):
            raise ValueError(
                f"rows has shape {self.rows.shape}: must be (n, d) with d the number of "
                f"nonzero entries of scale, {np.count_nonzero(self.scale)}"
            )
        _require_between("heldout_fraction", self.heldout_fraction, 0.0, 1.0)
        if not 0 < self._heldout_rows < len(self.rows):
            raise ValueError(
                f"heldout_fraction = {self.heldout_fraction!r}: must leave at least one row "
                f"in each part of {len(self.rows)} rows"
            )

    @classmethod
    def from_rows(cls, original: npt.ArrayLike, heldout_fraction: float) -> EmpiricalTarget:
        """Standardise a data set by the mean and deviation of all its rows.

        The transform is the data set's, not the training part's: the target is then one
        law, whatever the split.

        Parameters
        ----------
        original : array_like, shape (n_rows, p)
            Constant columns are dropped.
        heldout_fraction : float

        Returns
        -------
        EmpiricalTarget
        """
        original = np.asarray(original, dtype=np.float64)
        constant = np.ptp(original, axis=0) == 0
        center = np.where(constant, original[0], original.mean(axis=0))
        scale = np.where(constant, 0.0, original.std(axis=0))
        kept = ~constant
        rows = (original[:, kept] - center[kept]) / scale[kept]
        return cls(rows, center, scale, heldout_fraction)

    @property
    def dimension(self) -> int:
        return int(self.rows.shape[1])

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which of the p original columns vary, shape (p,)."""
        return self.scale > 0

    @cached_property
    def reference(self) -> Gaussian:
        """The Gaussian with the mean and covariance of all rows."""
        return Gaussian.from_covariance(self.rows.mean(axis=0), np.cov(self.rows, rowvar=False))

    @property
    def _heldout_rows(self) -> int:
        return round(self.heldout_fraction * len(self.rows))

    def standardise(self, original: npt.ArrayLike) -> Array:
        """Original columns (n, p) to standardised coordinates (n, d)."""
        original = np.asarray(original, dtype=np.float64)
        return np.asarray((original[:, self.kept] - self.center[self.kept]) / self.scale[self.kept])

    def restore(self, standardised: npt.ArrayLike) -> Array:
        """Standardised coordinates (n, d) to original columns (n, p), constant ones included."""
        standardised = np.asarray(standardised, dtype=np.float64)
        original = np.tile(self.center, (len(standardised), 1))
        original[:, self.kept] += self.scale[self.kept] * standardised
        return original

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


def _require_between(key: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ValueError(f"{key} = {value!r}: must lie strictly between {low:g} and {high:g}")


def _require_dimension(dimension: int, least: int = 1) -> None:
    if dimension < least:
        raise ValueError(f"dimension = {dimension!r}: must be at least {least}")


def _constant_mean(dimension: int, mean: float) -> Array:
    if not np.isfinite(mean):
        raise ValueError(f"mean = {mean!r}: must be a finite number")
    return np.full(dimension, mean, dtype=np.float64)


def isotropic(dimension: int, mean: float, variance: float) -> GaussianTarget:
    """N(mean · 1, variance · I).

    Parameters
    ----------
    dimension : int
    mean : float
        Of every coordinate.
    variance : float
        Positive; 0.5 in the paper.

    Returns
    -------
    GaussianTarget
    """
    _require_dimension(dimension)
    if not (np.isfinite(variance) and variance > 0):
        raise ValueError(f"variance = {variance!r}: must be a positive finite number")
    law = Gaussian.diagonal(_constant_mean(dimension, mean), np.full(dimension, variance))
    return GaussianTarget(law)


def heteroscedastic_slides(dimension: int, mean: float) -> GaussianTarget:
    """Diagonal covariance: 10 on the first five coordinates, 0.1 on the others.

    Parameters
    ----------
    dimension : int
        At least 5.
    mean : float

    Returns
    -------
    GaussianTarget
    """
    _require_dimension(dimension, least=5)
    variances = np.where(np.arange(dimension) < 5, 10.0, 0.1)
    return GaussianTarget(Gaussian.diagonal(_constant_mean(dimension, mean), variances))


def heteroscedastic_blocks(dimension: int, mean: float) -> GaussianTarget:
    """Diagonal covariance in five equal blocks: 1, 0.01, 1, 1, 1.

    Parameters
    ----------
    dimension : int
        A multiple of 5.
    mean : float

    Returns
    -------
    GaussianTarget
    """
    _require_dimension(dimension, least=5)
    if dimension % 5:
        raise ValueError(f"dimension = {dimension!r}: must be a multiple of 5")
    variances = np.repeat([1.0, 0.01, 1.0, 1.0, 1.0], dimension // 5)
    return GaussianTarget(Gaussian.diagonal(_constant_mean(dimension, mean), variances))


def correlation_matrix(dimension: int, offset: float) -> Array:
    """Σ_jj′ = 1/√(|j − j′| + offset); at offset = 0, 1/√|j − j′| with a unit diagonal.

    For offset > 0 the entries are convex and decreasing in |j − j′|, hence Σ is positive
    definite (Pólya). The matrix at offset = 0 is the one printed on the slides.

    Parameters
    ----------
    dimension : int
    offset : float
        ≥ 0.

    Returns
    -------
    ndarray, shape (d, d)
    """
    index = np.arange(dimension)
    gap = np.abs(index[:, None] - index) + float(offset)
    gap[gap == 0] = 1.0
    return np.asarray(1 / np.sqrt(gap))


def correlated(dimension: int, mean: float, offset: float) -> GaussianTarget:
    """Covariance 1/√(|j − j′| + offset).

    Parameters
    ----------
    dimension : int
    mean : float
    offset : float
        Positive; 1 in the authors' code and figures. The slides' literal matrix,
        offset = 0 with a unit diagonal, is refused: it is not a covariance.

    Returns
    -------
    GaussianTarget
    """
    _require_dimension(dimension)
    if not (np.isfinite(offset) and offset >= 0):
        raise ValueError(f"offset = {offset!r}: must be a positive finite number")
    covariance = correlation_matrix(dimension, offset)
    if offset == 0 and dimension > 1:
        eigenvalues = np.linalg.eigvalsh(covariance)
        negative = int(np.sum(eigenvalues < -1e-12))
        kind = (
            f"indefinite ({negative} of {dimension} eigenvalues negative, "
            f"the smallest {eigenvalues[0]:.6g})"
            if negative
            else "singular"
        )
        raise ValueError(
            f"offset = {offset!r}: must be positive, 1 in the authors' code; the slides' "
            f"matrix 1/sqrt|j-j'| with unit diagonal is {kind} in dimension = {dimension} "
            "and no Gaussian law has it"
        )
    law = Gaussian.from_covariance(_constant_mean(dimension, mean), covariance)
    return GaussianTarget(law)


def gaussian_file(path: str | Path) -> GaussianTarget:
    """The Gaussian whose `mean` (d,) and `covariance` (d, d) an .npz file holds.

    Parameters
    ----------
    path : str or Path
        File written by ``numpy.savez(path, mean=..., covariance=...)``.

    Returns
    -------
    GaussianTarget

    Raises
    ------
    ValueError
        If the file can't be read as such, or the arrays are no mean and covariance.
    """
    path = Path(path)
    try:
        # from memory: np.load leaks the file it opened when the archive is broken
        archive = np.load(BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"path = {str(path)!r}: must be a readable .npz file: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"path = {str(path)!r}: must be an .npz file, not a single array")
    with archive:
        missing = {"mean", "covariance"} - set(archive.files)
        if missing:
            raise ValueError(
                f"path = {str(path)!r}: must hold the arrays 'mean' and 'covariance'; it has "
                f"{sorted(archive.files)} and lacks {sorted(missing)}"
            )
        try:
            mean = np.asarray(archive["mean"], dtype=np.float64)
            covariance = np.asarray(archive["covariance"], dtype=np.float64)
            if mean.ndim != 1 or mean.size == 0:
                raise ValueError(f"mean has shape {mean.shape}: must be (d,)")
            return GaussianTarget(Gaussian.from_covariance(mean, covariance))
        except (ValueError, TypeError) as error:
            raise ValueError(f"path = {str(path)!r}: {error}") from error


def digits(heldout_fraction: float) -> EmpiricalTarget:
    """Scikit-learn's 1797 handwritten digits, 8×8 pixels of 17 grey levels.

    Three pixels are constant and dropped, 61 remain; these are dequantised by uniform
    noise on [0, 1), a fixed stream so that the data set is one thing in every study, and
    standardised. `restore` gives rows of 64 pixels back: ``restore(x).reshape(-1, 8, 8)``.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).

    Returns
    -------
    EmpiricalTarget
        Of dimension 61.
    """
    from sklearn.datasets import load_digits

    _require_between("heldout_fraction", heldout_fraction, 0.0, 1.0)
    pixels = np.asarray(load_digits().data, dtype=np.float64)
    noise = stream(0, "dequantise").random(pixels.shape)
    return EmpiricalTarget.from_rows(
        np.where(np.ptp(pixels, axis=0) == 0, pixels, pixels + noise), heldout_fraction
    )


def digits_gaussian() -> GaussianTarget:
    """The Gaussian with the mean and covariance of the standardised digits.

    Returns
    -------
    GaussianTarget
        Of dimension 61.
    """
    return GaussianTarget(digits(heldout_fraction=0.5).reference)
