"""Gaussian targets, with μ = mean · (1, …, 1).

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), their slides and code. The
slides' correlated matrix, 1/√|j − j′| with a unit diagonal, is not a covariance for d ≥ 2;
their code and their figures use offset = 1. Their "anisotropic" figures come from the
blocks, not from the variances printed on the slide.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, MultipleOf

from sgm.gaussian import Gaussian
from sgm.registry import Dimension, NonNegative, Positive, Real, register
from sgm.targets.base import LawTarget, require_least, require_positive

__all__ = [
    "correlated",
    "correlation_matrix",
    "heteroscedastic_blocks",
    "heteroscedastic_slides",
    "isotropic",
]

Array = npt.NDArray[np.float64]


def _constant_mean(dimension: int, mean: float) -> Array:
    if not np.isfinite(mean):
        raise ValueError(f"mean = {mean!r}: must be a finite number")
    return np.full(dimension, mean, dtype=np.float64)


@register("target")
def isotropic(dimension: Dimension, mean: Real, variance: Positive) -> LawTarget:
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
    LawTarget
    """
    require_least("dimension", dimension, 1)
    require_positive("variance", variance)
    law = Gaussian.diagonal(_constant_mean(dimension, mean), np.full(dimension, variance))
    return LawTarget(law)


@register("target")
def heteroscedastic_slides(dimension: Annotated[Dimension, Ge(5)], mean: Real) -> LawTarget:
    """Diagonal covariance: 10 on the first five coordinates, 0.1 on the others.

    Parameters
    ----------
    dimension : int
        At least 5.
    mean : float

    Returns
    -------
    LawTarget
    """
    require_least("dimension", dimension, 5)
    variances = np.where(np.arange(dimension) < 5, 10.0, 0.1)
    return LawTarget(Gaussian.diagonal(_constant_mean(dimension, mean), variances))


@register("target")
def heteroscedastic_blocks(
    dimension: Annotated[Dimension, Ge(5), MultipleOf(5)], mean: Real
) -> LawTarget:
    """Diagonal covariance in five equal blocks: 1, 0.01, 1, 1, 1.

    Parameters
    ----------
    dimension : int
        A multiple of 5.
    mean : float

    Returns
    -------
    LawTarget
    """
    require_least("dimension", dimension, 5)
    if dimension % 5:
        raise ValueError(f"dimension = {dimension!r}: must be a multiple of 5")
    variances = np.repeat([1.0, 0.01, 1.0, 1.0, 1.0], dimension // 5)
    return LawTarget(Gaussian.diagonal(_constant_mean(dimension, mean), variances))


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


@register("target")
def correlated(dimension: Dimension, mean: Real, offset: NonNegative) -> LawTarget:
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
    LawTarget
    """
    require_least("dimension", dimension, 1)
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
    return LawTarget(law)
