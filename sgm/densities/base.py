"""Laws on ℝᵈ of known density, and their noised versions Y = m X + √v Z, Z ~ N(0, I).

Let g be the Gaussian of the same mean μ and covariance Σ as X, noised likewise. Since
∇log(g/φ) is affine for any φ = N(0, s I), and the first two moments of Y agree with those
of g, Stein's identity makes the Gaussian part and the rest orthogonal:

    KL(p_Y ‖ φ) = KL(p_Y ‖ g) + KL(g ‖ φ),
    E|∇log p_Y|² = E|∇log(p_Y/g)|² + Σ 1/(m² λ_i + v),
    E|∇log(p_Y/φ)|² = E|∇log(p_Y/g)|² + E_g|∇log(g/φ)|²,

λ the eigenvalues of Σ. The Gaussian terms are closed forms. What a law has to know is its
excess Fisher information at noise γ = v/m²,

    D(γ) = E|∇log(p_γ/g_γ)|²,     p_γ the law of X + √γ Z,

which vanishes for a Gaussian, and is D(v/m²)/m² for Y. De Bruijn's identity, dh/dγ = ½ J,
turns it into the negentropy: both divergences vanish as γ → ∞, so that

    N(γ) = KL(p_γ ‖ g_γ) = ½ ∫_γ^∞ D.

No difference of large numbers is taken, hence tiny divergences keep their digits.

Sources
-------
Stam (1959) and Barron (1986) for de Bruijn's identity; the decomposition is derived above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgm.densities.logarithms import log_ratio_gap

__all__ = ["Law", "Partition"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Cells of ℝᵈ of known probabilities.

    Parameters
    ----------
    name : str
        What the cells resolve, such as "modes".
    label : callable
        Points (n, d) to the indices (n,) of their cells.
    probabilities : ndarray, shape (K,)
        Positive, of sum one.
    """

    name: str
    label: Callable[[Array], npt.NDArray[np.intp]]
    probabilities: Array


class Law(ABC):
    """A law on ℝᵈ of known density.

    Everywhere `scale` and `variance` are m ≥ 0 and v ≥ 0 of the noised version
    m X + √v Z; the defaults are the law itself.

    Attributes
    ----------
    mean : ndarray, shape (d,)
        μ.
    """

    mean: Array

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.mean.shape[-1])

    @property
    @abstractmethod
    def covariance(self) -> Array:
        """Σ, shape (d, d)."""

    @cached_property
    def principal_variances(self) -> Array:
        """The eigenvalues λ of Σ, shape (d,)."""
        return np.asarray(np.linalg.eigvalsh(self.covariance), dtype=np.float64)

    @property
    def second_moment(self) -> float:
        """E|X|²."""
        return float(np.sum(self.mean**2) + np.trace(self.covariance))

    @abstractmethod
    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""

    @abstractmethod
    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        """log p of the noised law.

        Parameters
        ----------
        x : array_like, shape (..., d)
        scale, variance : array_like
            Broadcast against the leading shape of `x`.

        Returns
        -------
        ndarray, shape (...)
        """

    @abstractmethod
    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        """∇log p of the noised law; parameters as for `log_density`, shape (..., d)."""

    @abstractmethod
    def marginal(self, coordinates: Sequence[int]) -> Law:
        """The law of some coordinates, in the order given.

        Raises
        ------
        ValueError
            If they are not distinct and in range, or the marginal is not available.
        """

    @abstractmethod
    def partition(self) -> Partition:
        """Cells of known probabilities that resolve what is particular to this law.

        One cell for a Gaussian, or where none are known.
        """

    @abstractmethod
    def excess_information(self, noise: npt.ArrayLike) -> Array:
        """D(γ) = E|∇log(p_γ/g_γ)|², shape of `noise`, which is γ ≥ 0; NaN if not known."""

    @abstractmethod
    def negentropy(self, noise: npt.ArrayLike) -> Array:
        """N(γ) = KL(p_γ ‖ g_γ) in nats, shape of `noise`, which is γ ≥ 0; NaN if not known."""

    def kl_to_normal(
        self, normal_variance: float, scale: float = 1.0, variance: float = 0.0
    ) -> float:
        """KL(noised law ‖ N(0, `normal_variance` I)) in nats."""
        spread = scale**2 * self.principal_variances + variance
        shift = scale**2 * np.sum(self.mean**2) / normal_variance
        gaussian = 0.5 * (np.sum(log_ratio_gap(spread, normal_variance)) + shift)
        return float(gaussian + self.negentropy(_noise(scale, variance)))

    def fisher_information(
        self, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        """J = E|∇log p|² of the noised law, shape of `scale` and `variance` broadcast."""
        _, spread, excess = self._noised(scale, variance)
        return np.asarray(np.sum(1 / spread, axis=-1) + excess)

    def relative_fisher_information(
        self, normal_variance: float, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        """I(noised law | N(0, s I)) = E|∇log(p/φ)|² = J − 2d/s + E|Y|²/s², s = `normal_variance`.

        The three terms nearly cancel at large noise; the sum of squares taken here does not.
        """
        s = normal_variance
        squared_scale, spread, excess = self._noised(scale, variance)
        gaussian = np.sum((spread - s) ** 2 / (spread * s**2), axis=-1)
        return np.asarray(gaussian + squared_scale * np.sum(self.mean**2) / s**2 + excess)

    def _noised(self, scale: npt.ArrayLike, variance: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """m², the eigenvalues m² λ + v of the noised covariance, and E|∇log(p/g)|²."""
        squared = np.asarray(scale, dtype=np.float64) ** 2
        noise = np.asarray(variance, dtype=np.float64)
        spread = squared[..., None] * self.principal_variances + noise[..., None]
        excess = self.excess_information(_noise(scale, variance))
        # m = 0 leaves pure noise
        return squared, spread, excess / np.where(squared > 0, squared, np.inf)

    def _require_coordinates(self, coordinates: Sequence[int]) -> list[int]:
        chosen = list(coordinates)
        valid = all(0 <= j < self.dimension for j in chosen)
        if not (chosen and valid and len(set(chosen)) == len(chosen)):
            raise ValueError(
                f"coordinates = {chosen!r}: must be distinct integers from 0 to "
                f"{self.dimension - 1}"
            )
        return chosen


def _noise(scale: npt.ArrayLike, variance: npt.ArrayLike) -> Array:
    """γ = v/m², +∞ at m = 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.asarray(variance, dtype=np.float64) / np.asarray(scale) ** 2)
