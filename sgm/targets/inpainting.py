"""A data set seen in part: what a network of the data set is asked to complete.

The law of X₀ given y = H X₀ + √r ξ is unknown, as that of the data set is. What stands for it are
the rows whose observed coordinates are nearest to y: draws of X₀ given |H X₀ − y| < ε, as in
approximate Bayesian computation, with ε the distance of the last of them (Biau, Cérou and Guyader,
Annales de l'Institut Henri Poincaré 51, 2015). They are a yardstick with an error of its own, the
larger the fewer rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sgm.random import stream
from sgm.registry import Count, Index, Positive, Seed, register
from sgm.targets.base import Target, require_positive
from sgm.targets.empirical import EmpiricalTarget
from sgm.targets.posteriors import Observation, _operator

__all__ = ["SeenData", "inpainting", "observation_of"]


@dataclass(frozen=True, eq=False)
class SeenData(EmpiricalTarget):
    """The rows of a data set that are nearest to what is seen.

    Parameters
    ----------
    observation : Observation
        Of coordinates; its `prior` is the Gaussian of the data set's moments.
    """

    observation: Observation = field(kw_only=True)


def observation_of(target: Target) -> Observation | None:
    """What is known of X₀ beside its prior, of a target `posterior` or `inpainting`; or None."""
    owner = target if isinstance(target, SeenData) else target.law
    known: Observation | None = getattr(owner, "observation", None)
    return known


@register("target", of_prior="posterior")
def inpainting(
    prior: Target,
    observed: Sequence[Index],
    noise: Positive,
    row: Index,
    neighbours: Count,
    observation_seed: Seed = 0,
) -> SeenData:
    """A row of a data set, of which some coordinates are seen, y = H x + √noise ξ.

    Parameters
    ----------
    prior : Target
        A data set in memory, such as `digits_images`: its keys as among `targets`.
    observed : list of integers
        The coordinates that are seen, from 0.
    noise : float
        r, the variance of the noise of each seen number.
    row : int
        Which row is seen, from 0; it is not among the neighbours.
    neighbours : int
        How many of the other rows, those nearest in the coordinates that are seen, stand for the
        unknown law.
    observation_seed : int
        Seed of ξ.

    Returns
    -------
    SeenData
        In the coordinates of the prior.

    Raises
    ------
    ValueError
        If the prior is no data set in memory, coordinates are out of range or repeated, there is no
        such row, or there are too few or too many neighbours.
    """
    require_positive("noise", noise)
    if not isinstance(prior, EmpiricalTarget):
        raise ValueError("prior: must be a data set in memory, such as digits_images")
    rows, d = prior.rows, prior.dimension
    if np.ndim(observed) != 1:
        raise ValueError(f"observed = {observed!r}: must be coordinates")
    operator = _operator(observed, d)
    if not row < len(rows):
        raise ValueError(f"row = {row!r}: must be below {len(rows)}")
    if not d < neighbours < len(rows):
        raise ValueError(
            f"neighbours = {neighbours!r}: must be more than d = {d} and less than {len(rows)}"
        )
    xi = stream(observation_seed, "observation").standard_normal(len(operator))
    value = rows[row] @ operator.T + np.sqrt(noise) * xi
    distances = np.sum((rows @ operator.T - value) ** 2, axis=1)
    distances[row] = np.inf
    nearest = np.sort(np.argsort(distances, kind="stable")[:neighbours])
    known = Observation(prior.reference, operator, value, noise)
    return SeenData(
        rows[nearest], prior.heldout_fraction, prior.coordinates, prior.image_shape, prior.levels,
        observation=known,
    )  # fmt: skip
