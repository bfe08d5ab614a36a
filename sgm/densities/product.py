"""Laws with independent blocks of coordinates: densities, divergences and informations add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from sgm.densities.base import Law, Partition

__all__ = ["Product"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Product(Law):
    """The law of (X₁, …, X_k) with independent Xᵢ ~ `factors[i]`.

    Parameters
    ----------
    factors : sequence of Law
        In the order of their coordinates; at least one.

    Raises
    ------
    ValueError
        If there is no factor.
    """

    factors: tuple[Law, ...]
    mean: Array = field(init=False)

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("factors = (): must hold at least one law")
        object.__setattr__(self, "factors", tuple(self.factors))
        object.__setattr__(self, "mean", np.concatenate([law.mean for law in self.factors]))

    @property
    def _blocks(self) -> list[tuple[Law, slice]]:
        ends = np.cumsum([0, *(law.dimension for law in self.factors)])
        return [
            (law, slice(int(start), int(stop)))
            for law, (start, stop) in zip(self.factors, pairwise(ends), strict=True)
        ]

    @property
    def covariance(self) -> Array:
        covariance = np.zeros((self.dimension, self.dimension))
        for law, block in self._blocks:
            covariance[block, block] = law.covariance
        return covariance

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        return np.concatenate([law.sample(n, generator) for law in self.factors], axis=1)

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        x = np.asarray(x, dtype=np.float64)
        terms = [law.log_density(x[..., block], scale, variance) for law, block in self._blocks]
        return np.asarray(np.sum(terms, axis=0))

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        x = np.asarray(x, dtype=np.float64)
        parts = [law.score(x[..., block], scale, variance) for law, block in self._blocks]
        return np.concatenate(parts, axis=-1)

    def marginal(self, coordinates: Sequence[int]) -> Law:
        """The law of some coordinates.

        Those of one factor must follow each other, in the order that its own marginal allows.
        """
        chosen = self._require_coordinates(coordinates)
        blocks = self._blocks
        owner = np.repeat(np.arange(len(blocks)), [law.dimension for law in self.factors])
        runs = [(k, list(run)) for k, run in groupby(chosen, key=lambda j: int(owner[j]))]
        if len({k for k, _ in runs}) < len(runs):
            raise ValueError(
                f"coordinates = {chosen!r}: must not interleave those of dependent factors"
            )
        parts = [blocks[k][0].marginal([j - blocks[k][1].start for j in run]) for k, run in runs]
        return parts[0] if len(parts) == 1 else Product(tuple(parts))

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        terms = [law.excess_information(noise) for law in self.factors]
        return np.asarray(np.sum(terms, axis=0))

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        terms = [law.negentropy(noise) for law in self.factors]
        return np.asarray(np.sum(terms, axis=0))

    def partition(self) -> Partition:
        """The product of the partitions of those factors that have more than one cell."""
        parts = [(law.partition(), block) for law, block in self._blocks]
        parts = [(part, block) for part, block in parts if len(part.probabilities) > 1]
        probabilities = np.ones(1)
        for part, _ in parts:
            probabilities = np.multiply.outer(probabilities, part.probabilities).ravel()

        def label(points: Array) -> npt.NDArray[np.intp]:
            cell = np.zeros(len(points), dtype=np.intp)
            for part, block in parts:
                cell = cell * len(part.probabilities) + part.label(points[:, block])
            return cell

        names = dict.fromkeys(part.name for part, _ in parts)
        return Partition(" × ".join(names) or "all", label, probabilities)
