"""Gaussian laws in their eigenbasis, and the divergences between them.

    N(μ, Σ),   Σ = U diag(λ) Uᵀ,   λ > 0.

Every exact result of this package is a formula in (μ, λ, U): the forward process
keeps U, and so do the samplers whose score is affine with matrices diagonal in U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_instance, require_positive
from sgm.densities.base import Law, Partition
from sgm.densities.logarithms import log_excess, log_ratio_gap

__all__ = [
    "Gaussian",
    "kl_divergence",
    "log_excess",
    "log_ratio_gap",
    "relative_fisher_information",
    "require_single",
    "wasserstein2",
]

Array = npt.NDArray[np.float64]

_ORTHOGONAL = 1e-8  # of a basis: what its rounding errors may add to a vector


@dataclass(frozen=True, eq=False)
class Gaussian(Law):
    """A Gaussian law with a covariance of full rank, or a batch of them.

    What `Law` defines is for a single law, of batch shape ().

    Parameters
    ----------
    mean : ndarray, shape (..., d)
        μ in the original coordinates.
    eigenvalues : ndarray, shape (..., d)
        λ, the variances along the columns of `basis`; zero only in the degenerate
        laws that a deterministic sampler can produce.
    basis : ndarray, shape (d, d)
        Orthogonal U, shared by the whole batch; the identity for diagonal laws.
    """

    mean: Array
    eigenvalues: Array
    basis: Array

    def __post_init__(self) -> None:
        for key in ("mean", "eigenvalues", "basis"):
            object.__setattr__(self, key, real_array(key, getattr(self, key)))
        if self.mean.ndim < 1 or self.mean.shape[-1] < 1:
            raise ValueError(f"mean has shape {self.mean.shape}: must be (..., d) with d >= 1")
        if self.eigenvalues.shape != self.mean.shape:
            raise ValueError(
                f"eigenvalues has shape {self.eigenvalues.shape}: must be {self.mean.shape}, "
                "that of mean"
            )
        d = self.mean.shape[-1]
        if self.basis.shape != (d, d):
            raise ValueError(f"basis has shape {self.basis.shape}: must be ({d}, {d})")
        if not np.all(self.eigenvalues >= 0):
            wrong = self.eigenvalues[~(self.eigenvalues >= 0)][0]
            raise ValueError(f"eigenvalues: {float(wrong)!r}: must be >= 0, being variances")
        if np.isnan(self.mean).any():
            raise ValueError("mean = nan: must be numbers")
        # U Uᵀw = w for one w in no special direction: O(d²), where U Uᵀ takes O(d³)
        probe = np.sin(np.arange(1.0, d + 1))
        if not np.all(np.abs(self.basis @ (probe @ self.basis) - probe) < _ORTHOGONAL):
            raise ValueError("basis: must be orthogonal")

    @classmethod
    def diagonal(cls, mean: npt.ArrayLike, variances: npt.ArrayLike) -> Gaussian:
        """The law N(mean, diag(variances)); both of shape (d,)."""
        mean = np.asarray(mean, dtype=np.float64)
        return cls(mean, np.asarray(variances, dtype=np.float64), np.eye(mean.shape[-1]))

    @classmethod
    def from_covariance(cls, mean: npt.ArrayLike, covariance: npt.ArrayLike) -> Gaussian:
        """The law N(mean, covariance).

        Parameters
        ----------
        mean : array_like, shape (d,)
        covariance : array_like, shape (d, d)

        Raises
        ------
        ValueError
            If the shapes disagree or the covariance is not symmetric positive definite.
        """
        mean = np.asarray(mean, dtype=np.float64)
        covariance = np.asarray(covariance, dtype=np.float64)
        d = mean.shape[-1]
        if covariance.shape != (d, d):
            raise ValueError(f"covariance has shape {covariance.shape}: must be ({d}, {d})")
        if not np.all(np.isfinite(covariance)) or not np.all(np.isfinite(mean)):
            raise ValueError("mean and covariance must be finite")
        if not np.allclose(covariance, covariance.T, rtol=1e-10, atol=0):
            raise ValueError("covariance is not symmetric")
        if np.count_nonzero(covariance - np.diag(np.diag(covariance))) == 0:
            eigenvalues, basis = np.diag(covariance).copy(), np.eye(d)
        else:
            eigenvalues, basis = np.linalg.eigh((covariance + covariance.T) / 2)
        smallest = eigenvalues.min()
        if smallest <= d * np.finfo(float).eps * max(eigenvalues.max(), 0.0):
            negative = int(np.sum(eigenvalues < 0))
            raise ValueError(
                f"covariance is not positive definite: smallest eigenvalue {smallest:.6g}, "
                f"{negative} of {d} negative"
            )
        return cls(mean, eigenvalues, basis)

    @property
    def covariance(self) -> Array:
        """Σ = U diag(λ) Uᵀ, shape (..., d, d)."""
        return np.asarray((self.basis * self.eigenvalues[..., None, :]) @ self.basis.T)

    def rotate(self, vector: npt.ArrayLike) -> Array:
        """Coordinates Uᵀv in the eigenbasis of vectors of shape (..., d)."""
        return np.asarray(np.asarray(vector) @ self.basis)

    def sample(self, n: int, generator: np.random.Generator) -> Array:
        """`n` independent draws, shape (n, d)."""
        standard = generator.standard_normal((n, self.dimension))
        return np.asarray(self.mean + (standard * np.sqrt(self.eigenvalues)) @ self.basis.T)

    @property
    def principal_variances(self) -> Array:
        """λ, shape (..., d)."""
        return self.eigenvalues

    def log_density(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        shift, spread = self._rotated(x, scale, variance)
        return np.asarray(-0.5 * np.sum(shift**2 / spread + np.log(2 * np.pi * spread), axis=-1))

    def score(
        self, x: npt.ArrayLike, scale: npt.ArrayLike = 1.0, variance: npt.ArrayLike = 0.0
    ) -> Array:
        shift, spread = self._rotated(x, scale, variance)
        return np.asarray(-(shift / spread) @ self.basis.T)

    def _rotated(
        self, x: npt.ArrayLike, scale: npt.ArrayLike, variance: npt.ArrayLike
    ) -> tuple[Array, Array]:
        """Uᵀ(x − m μ) and m² λ + v."""
        m = np.asarray(scale, dtype=np.float64)[..., None]
        v = np.asarray(variance, dtype=np.float64)[..., None]
        return self.rotate(np.asarray(x) - m * self.mean), m**2 * self.eigenvalues + v

    def marginal(self, coordinates: Sequence[int]) -> Gaussian:
        """The law of some coordinates, in the order given."""
        chosen = self._require_coordinates(coordinates)
        return Gaussian.from_covariance(self.mean[chosen], self.covariance[np.ix_(chosen, chosen)])

    def partition(self) -> Partition:
        """One cell: a Gaussian has nothing that its moments do not show."""
        return Partition("all", lambda points: np.zeros(len(points), dtype=np.intp), np.ones(1))

    def excess_information(self, noise: npt.ArrayLike) -> Array:
        return np.zeros(np.shape(noise))

    def negentropy(self, noise: npt.ArrayLike) -> Array:
        return np.zeros(np.shape(noise))

    def shares_basis(self, other: Gaussian) -> bool:
        """Whether both laws are written in the same eigenbasis."""
        return self.basis is other.basis or np.array_equal(self.basis, other.basis)


def kl_divergence(p: Gaussian, q: Gaussian) -> Array:
    """KL(p ‖ q) of Gaussians, +∞ if q is degenerate or has overflowed.

    ½ Σ [r − log(1 + r)] + ½ (μ_p − μ_q)ᵀ Σ_q⁻¹ (μ_p − μ_q), where 1 + r are the
    eigenvalues of Σ_q⁻¹ Σ_p; tiny divergences and huge ones keep their digits.

    Parameters
    ----------
    p, q : Gaussian
        Their batch shapes broadcast.

    Returns
    -------
    ndarray, shape (...)
        In nats.
    """
    _require_one_space(p, q)
    q_usable = np.all(q.eigenvalues > 0, axis=-1) & _in_range(q)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shift = q.rotate(p.mean - q.mean)
        if p.shares_basis(q):
            value = 0.5 * np.sum(log_ratio_gap(p.eigenvalues, q.eigenvalues), axis=-1)
        else:
            scale = 1 / np.sqrt(q.eigenvalues)
            turned = q.basis.T @ p.basis
            whitened = scale[..., :, None] * turned * np.sqrt(p.eigenvalues)[..., None, :]
            finite = np.all(np.isfinite(whitened), axis=(-2, -1))
            whitened = np.where(finite[..., None, None], whitened, np.eye(p.dimension))
            excess = np.linalg.eigvalsh(whitened @ np.swapaxes(whitened, -1, -2)) - 1
            near = np.all(np.abs(excess) < 0.5, axis=-1)
            # far apart, the trace and the known determinants: small eigenvalues of the
            # product are lost in the rounding error of large ones
            trace = np.sum(whitened**2, axis=(-2, -1)) - p.dimension
            determinant = np.sum(np.log(p.eigenvalues), axis=-1)
            determinant = determinant - np.sum(np.log(q.eigenvalues), axis=-1)
            safe = np.where(near[..., None], excess, 0.0)
            gap = np.where(near, np.sum(log_excess(safe), axis=-1), trace - determinant)
            value = 0.5 * gap
        value = value + 0.5 * np.sum(shift**2 / q.eigenvalues, axis=-1)
    return np.asarray(np.where(_in_range(p) & q_usable, value, np.inf))


def wasserstein2(p: Gaussian, q: Gaussian) -> Array:
    """W₂(p, q) of Gaussians (Bures): √(|Δμ|² + tr Σ_p + tr Σ_q − 2 tr(Σ_p^½ Σ_q Σ_p^½)^½).

    Parameters
    ----------
    p, q : Gaussian
        Their batch shapes broadcast.

    Returns
    -------
    ndarray, shape (...)
        +∞ if one of them has overflowed.
    """
    _require_one_space(p, q)
    usable = _in_range(p) & _in_range(q)
    if not np.all(usable):
        p, q = (_kept_where(usable, law) for law in (p, q))
        with np.errstate(over="ignore"):
            return np.asarray(np.where(usable, wasserstein2(p, q), np.inf))
    with np.errstate(over="ignore"):
        shift = np.sum((p.mean - q.mean) ** 2, axis=-1)
    root_p, root_q = np.sqrt(p.eigenvalues), np.sqrt(q.eigenvalues)
    if p.shares_basis(q):
        return np.asarray(np.sqrt(shift + np.sum((root_p - root_q) ** 2, axis=-1)))
    # min over rotations R of |Σ_p^½ − Σ_q^½ R|_F, at the polar factor of Σ_q^½ Σ_p^½: traces
    # less twice the fidelity would cancel, and leave a floor of 1e-8 √tr Σ
    turned = (q.basis.T @ p.basis) * root_p[..., None, :]
    left, _, right = np.linalg.svd(root_q[..., :, None] * turned)
    gap = turned - root_q[..., :, None] * (left @ right)
    return np.asarray(np.sqrt(shift + np.sum(gap**2, axis=(-2, -1))))


def relative_fisher_information(p: Gaussian, variance: float) -> Array:
    """I(p | N(0, σ²I)) = E_p|∇log(p/φ)|² = Σ (λ − σ²)²/(λσ⁴) + |μ|²/σ⁴.

    Parameters
    ----------
    p : Gaussian
    variance : float
        σ².

    Returns
    -------
    ndarray, shape (...)
        +∞ for a degenerate law or one that has overflowed.
    """
    require_positive(variance=variance)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        gap = (p.eigenvalues - variance) ** 2 / (p.eigenvalues * variance**2)
        value = np.sum(gap, axis=-1) + np.sum(p.mean**2, axis=-1) / variance**2
    return np.asarray(np.where(_in_range(p), value, np.inf))


def _in_range(law: Gaussian) -> npt.NDArray[np.bool_]:
    """Whether a law's moments are numbers, shape (...)."""
    finite = np.isfinite(law.mean) & np.isfinite(law.eigenvalues)
    return np.asarray(np.all(finite, axis=-1))


def _kept_where(usable: npt.NDArray[np.bool_], law: Gaussian) -> Gaussian:
    """The law, with others of moments zero where it is not usable."""
    mean, eigenvalues = (np.where(usable[..., None], x, 0.0) for x in (law.mean, law.eigenvalues))
    return Gaussian(mean, eigenvalues, law.basis)


def require_single(**laws: Gaussian) -> None:
    """Refuse what is not a Gaussian of batch shape (), of the dimension of the first.

    Raises
    ------
    ValueError
        With the name of the first law that is not.
    """
    first = next(iter(laws))
    for key, law in laws.items():
        require_instance(Gaussian, **{key: law})
        if law.mean.ndim != 1:
            raise ValueError(
                f"{key} has batch shape {law.mean.shape[:-1]}: must be (), that of one law"
            )
        if law.dimension != laws[first].dimension:
            raise ValueError(
                f"{key}: dimension = {law.dimension}: must be {laws[first].dimension}, "
                f"that of {first}"
            )


def _require_one_space(p: Gaussian, q: Gaussian) -> None:
    if p.dimension != q.dimension:
        raise ValueError(f"q: dimension = {q.dimension}: must be {p.dimension}, that of p")
