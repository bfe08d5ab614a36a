"""Targets of known density that are not Gaussian: the funnel, and Gaussian mixtures.

Sources
-------
The funnel and the 25-mode mixture: Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv
2402.04650); two modes on the line: Franzese et al. (arXiv 2206.05173).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from sgm.densities.funnel import Funnel
from sgm.densities.mixture import GaussianMixture
from sgm.densities.product import Product
from sgm.gaussian import Gaussian
from sgm.registry import Count, Dimension, Positive, Real, register
from sgm.targets.base import LawTarget, require_least, require_positive

__all__ = ["funnel", "grid_mixture", "mixture", "ring_mixture", "two_modes"]

Array = npt.NDArray[np.float64]
Numbers = Sequence[Real] | Sequence[Sequence[Real]]
Variances = Sequence[Positive] | Sequence[Sequence[Positive]]


@register("target", law="density")
def funnel(dimension: Annotated[Dimension, Ge(2)], spread: Positive, slope: Positive) -> LawTarget:
    """x₁ ~ N(0, spread²) and x_j | x₁ ~ N(0, e^{2 slope x₁}) for j = 2, …, d.

    Parameters
    ----------
    dimension : int
        At least 2.
    spread : float
        Positive; 1 in the paper.
    slope : float
        Positive; 0.5 in the paper; the other coordinates have variance e^{2 spread² slope²}.

    Returns
    -------
    LawTarget
    """
    require_least("dimension", dimension, 2)
    return LawTarget(Funnel(dimension, spread, slope))


@register("target", law="density")
def mixture(weights: Sequence[Positive], means: Numbers, variances: Variances) -> LawTarget:
    """Σ_k w_k N(μ_k, diag(v_k)), in any dimension; its exact divergences need d ≤ 2.

    Parameters
    ----------
    weights : list of K numbers
        Positive; divided by their sum.
    means : list of K lists of d numbers, or K numbers for d = 1
    variances : list of K lists of d numbers, or K numbers for v_k · I
        Positive.

    Returns
    -------
    LawTarget
    """
    w, m, v = _array("weights", weights), _array("means", means), _array("variances", variances)
    if w.ndim != 1 or not np.all((w > 0) & np.isfinite(w)):
        raise ValueError(f"weights = {weights!r}: must be a list of positive finite numbers")
    m = m[:, None] if m.ndim == 1 else m
    v = np.repeat(v[:, None], m.shape[-1], axis=1) if v.ndim == 1 else v
    return LawTarget(GaussianMixture(w / w.sum(), m, v))


@register("target", law="density")
def two_modes() -> LawTarget:
    """0.3 N(1, 0.1²) + 0.7 N(3, 0.5²) on the line.

    Returns
    -------
    LawTarget
    """
    return mixture(weights=[0.3, 0.7], means=[1.0, 3.0], variances=[0.1**2, 0.5**2])


@register("target", law="density")
def grid_mixture(
    dimension: Annotated[Dimension, Ge(2)],
    side: Annotated[int, Interval(ge=1, le=1000)],
    variance: Positive,
    rest_variance: Positive,
) -> LawTarget:
    """side² equal modes on {−(side − 1)/2, …, (side − 1)/2}², N(0, ·) on the other d − 2.

    The grid is the product of two mixtures on the line, so that one-dimensional
    quadrature gives its divergences.

    Parameters
    ----------
    dimension : int
        At least 2.
    side : int
        Modes along an edge; 5 in the paper.
    variance : float
        Of every mode; 0.01 in the paper.
    rest_variance : float
        Of each of the other coordinates; 0.1 in the paper.

    Returns
    -------
    LawTarget
    """
    require_least("dimension", dimension, 2)
    require_least("side", side, 1)
    require_positive("variance", variance)
    require_positive("rest_variance", rest_variance)
    positions = np.arange(side, dtype=np.float64) - (side - 1) / 2
    edge = GaussianMixture(
        np.full(side, 1 / side), positions[:, None], np.full((side, 1), variance)
    )
    rest = dimension - 2
    others = (Gaussian.diagonal(np.zeros(rest), np.full(rest, rest_variance)),) if rest else ()
    return LawTarget(Product((edge, edge, *others)))


@register("target", law="density")
def ring_mixture(modes: Count, radius: Positive, variance: Positive) -> LawTarget:
    """Equal modes N(·, variance · I) evenly spaced on a circle in the plane.

    Parameters
    ----------
    modes : int
    radius : float
        Positive; the first mode is at (radius, 0).
    variance : float

    Returns
    -------
    LawTarget
    """
    require_least("modes", modes, 1)
    require_positive("radius", radius)
    require_positive("variance", variance)
    angles = np.linspace(0, 2 * np.pi, modes, endpoint=False)
    means = np.array([[radius * np.cos(angle), radius * np.sin(angle)] for angle in angles])
    return LawTarget(
        GaussianMixture(np.full(modes, 1 / modes), means, np.full((modes, 2), variance))
    )


def _array(key: str, values: Numbers) -> Array:
    """Numbers or lists of numbers, of shape (K,) or (K, d)."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.size == 0 or array.ndim not in (1, 2):
        raise ValueError(f"{key} = {values!r}: must be numbers or lists of as many numbers each")
    return array
