"""Optimal transport between two samples: exact W₂, and W₂ along one-dimensional directions.

For samples x_1..x_n and y_1..y_m, of weights 1/n and 1/m,

    W₂² = min_π Σ_ij π_ij |x_i − y_j|²,    SW₂² = mean over θ of W₂²(θ·x, θ·y),

θ in a set of unit vectors that the caller draws once, stores, and uses for every sampler. On
a line the optimal plan pairs quantiles: both samples are sorted and compared at the levels
i/n and j/m. Uniform directions give SW₂² ≤ W₂²/d; so does the mean over any orthonormal
basis, exactly (the optimal plan, projected, is a plan in each of the d directions).

Both are biased upwards: two perfect samples lie apart. For W₂ by an amount that falls as
n^{-1/d}, which in d = 50 no sample size makes small (7.5 for two samples of 2000 rows of
N(0, I), W₂ = 0): `centred_w2` takes off what samples of one law show, and `sample_w2` is what
it is made of. For SW₂ the bias is that of d = 1: along a direction of a Gaussian with standard
deviations σ_x and σ_y, n = m rows add 2 σ_x σ_y (1 − Σ m_i²/n) ~ 2 σ_x σ_y log log n/n to the
square, m_i the mean of the i-th order statistic of n standard normal numbers.

Sources
-------
Exact W₂: the network simplex of POT (Flamary et al., JMLR 22, 2021). Centring: Papp and
Sherlock (arXiv 2203.11627), here on both sides. Standard error: the central limit theorem of
del Barrio and Loubes (Ann. Probab. 47, 2019), about the mean, in any d. Sliced W₂: Bonneel,
Rabin, Peyré, Pfister, J. Math. Imaging Vision 51, 2015; max-sliced: Deshpande et al., CVPR
2019. Orthonormal directions: Rowland et al., AISTATS 2019. Sorting is done here instead of by
POT, whose sliced distance is the same to rounding and several times slower
(benchmarks/beyond_gaussian.py).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_integer
from sgm.divergences.samples import rows
from sgm.gaussian import Gaussian, require_single

__all__ = [
    "CentredW2",
    "SlicedW2",
    "centred_w2",
    "gaussian_sliced_w2",
    "projections",
    "sample_w2",
    "signed_root",
    "sliced_w2",
    "squared",
    "unbiased_sliced_w2_squared",
]

Array = npt.NDArray[np.float64]

MAX_PIVOTS = 10**9  # of the network simplex; POT's own 10⁵ is too few for 2000 rows
CHUNK_ENTRIES = 2**21  # projected numbers held at once, 16 MB, and a few copies of them


@dataclass(frozen=True)
class SlicedW2:
    """W₂ along a set of directions.

    Parameters
    ----------
    value : float
        SW₂, the root mean square over the directions, in units of the data.
    largest : float
        Maximum over these directions: a lower bound of max-sliced W₂, and a poor one in high
        dimension, where no random direction is near the worst.
    """

    value: float
    largest: float


@dataclass(frozen=True)
class CentredW2:
    """Squared W₂ between the laws of two samples, less what samples of one law show.

    Parameters
    ----------
    square, standard_error : float
        In squared units of the data. The square may be negative; average squares.
    visible : float
        Share of W₂² that it shows of a difference in scale alone, in [0, 1].
    """

    square: float
    standard_error: float
    visible: float


def sample_w2(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Exact W₂ between two samples, each row of equal weight.

    It sees every difference between the laws, through a bias that grows with d (see the
    module). It takes about 40 n m bytes, and 2 s for 2000 rows a side, 10 s for 4000.

    Parameters
    ----------
    x, y : array_like, shape (n, d) and (m, d)

    Returns
    -------
    float
        In units of the data; +∞ if a row is not finite.

    Raises
    ------
    ValueError
        If an array has another shape.
    RuntimeError
        If the network simplex stops short of the optimum.
    """
    x, y = rows(x=x, y=y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.inf
    return float(np.sqrt(max(_transport(x, y)[0], 0.0)))


def centred_w2(x: npt.ArrayLike, y: npt.ArrayLike) -> CentredW2:
    """W₂² between two laws, from two halves x, x′ and y, y′ of a sample of each.

        mean of W₂² over the four pairs of a half of x and one of y − ½ W₂²(x, x′) − ½ W₂²(y, y′)

    is zero on average for equal laws, at any n and d. For laws that differ by a shift c and a
    factor α its mean is |c|² + (α − 1)² s trΣ, exactly (the optimal plan is that of α = 1), with
    s = 1 − E W₂²(y, y′)/(2 trΣ), the `visible` share: of the difference in scale it sees less
    than W₂² = |c|² + (α − 1)² trΣ, never more. Papp and Sherlock take off W₂²(y, y′) alone: this
    leaves a bias (α − 1) E W₂²(y, y′) of first order, which in d = 50 is many times W₂², and
    negative for a sampler that spreads too little.

    The dual potentials of the optimal plans are the influence of each row. Near equal laws,
    where they are noise themselves, the standard error is up to twice too large.

    Parameters
    ----------
    x, y : array_like, shape (n, d) and (m, d)
        With n, m ≥ 4; of an odd number the last row is not used.

    Returns
    -------
    CentredW2
        Of infinite square if a row is not finite.

    Raises
    ------
    ValueError
        If an array has another shape.
    RuntimeError
        If the network simplex stops short of the optimum.
    """
    x, y = rows(x=x, y=y)
    for key, sample in (("x", x), ("y", y)):
        if len(sample) < 4:
            raise ValueError(f"{key} has {len(sample)} rows: must have at least 4")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return CentredW2(np.inf, np.nan, np.nan)
    samples = [half for sample in (x, y) for half in np.split(sample[: len(sample) // 2 * 2], 2)]
    within = {(0, 1), (2, 3)}  # halves of one sample
    influence = [np.zeros(len(half)) for half in samples]
    square, apart = 0.0, 0.0
    for i, j in combinations(range(4), 2):
        weight = -0.5 if (i, j) in within else 0.25
        cost, *potentials = _transport(samples[i], samples[j])
        square += weight * cost
        for place, potential in zip((i, j), potentials, strict=True):
            influence[place] += weight * potential
        if (i, j) == (2, 3):
            apart = cost
    if not np.isfinite(square):  # squares out of range
        return CentredW2(np.inf, np.nan, np.nan)
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in influence)
    spread = 2 * float(np.sum(np.var(y, axis=0, ddof=1)))
    visible = 1 - apart / spread if spread > 0 else 1.0
    return CentredW2(float(square), float(np.sqrt(variance)), float(np.clip(visible, 0, 1)))


def signed_root(square: float, standard_error: float) -> tuple[float, float]:
    """Signed root of an estimated square; its error is that of the square over twice the root.

    Near zero, where that fails, it is the root of the square's error.
    """
    value = float(np.copysign(np.sqrt(abs(square)), square))
    scale = 2 * max(abs(value), np.sqrt(standard_error) / 2)
    return value, float(standard_error / scale if scale > 0 else standard_error)


def squared(root: float, standard_error: float) -> tuple[float, float]:
    """The estimated square of a `signed_root`, and its standard error."""
    scale = 2 * max(abs(root), standard_error / 2)
    return float(np.copysign(root**2, root)), float(standard_error * scale)


def _transport(x: Array, y: Array) -> tuple[float, Array, Array]:
    """Squared W₂ of two samples and its dual potentials; +∞ if squares are out of range."""
    import ot
    from scipy.spatial.distance import cdist

    cost = cdist(x, y, "sqeuclidean")
    if not np.isfinite(cost).all():
        return np.inf, np.full(len(x), np.nan), np.full(len(y), np.nan)
    weights = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # told again in the log
        square, log = ot.emd2(*weights, cost, numItermax=MAX_PIVOTS, log=True, center_dual=False)
    if log["warning"] is not None:
        raise RuntimeError(f"exact W2 of {len(x)} and {len(y)} rows: {log['warning']}")
    return float(square), np.asarray(log["u"]), np.asarray(log["v"])


def projections(dimension: int, count: int, seed: int) -> Array:
    """Random directions in orthonormal blocks of d, each uniform on the sphere.

    Column j is the j-th vector of NumPy's ``default_rng(seed).standard_normal((count, d))``,
    made orthogonal to those before it in its block: the first directions of a set don't
    depend on `count`. With count a multiple of d, SW₂² ≤ W₂²/d holds exactly and a shift is
    measured without Monte Carlo error.

    Parameters
    ----------
    dimension, count : int
        d and the number of directions, both at least 1.
    seed : int

    Returns
    -------
    ndarray, shape (d, count)
        Of unit columns.
    """
    require_integer(1, dimension=dimension, count=count)
    require_integer(0, seed=seed)
    normal = np.random.default_rng(seed).standard_normal((count, dimension)).T
    blocks = []
    for start in range(0, count, dimension):
        basis, triangle = np.linalg.qr(normal[:, start : start + dimension])
        # the signs of Gram and Schmidt: LAPACK's would not be uniform
        blocks.append(basis * np.sign(np.diag(triangle)))
    return np.concatenate(blocks, axis=1)


def sliced_w2(x: npt.ArrayLike, y: npt.ArrayLike, projections: Array) -> SlicedW2:
    """W₂ between two samples along given directions.

    It sees one-dimensional marginals. In high dimension a random one is nearly Gaussian
    (Diaconis, Freedman 1984), whatever the law: it then sees mean and covariance, and hardly
    a mode or a tail that lives in a few coordinates. It takes some 100 MB, and 0.2 s for 10⁴
    rows a side and 500 directions in d = 50.

    Parameters
    ----------
    x, y : array_like, shape (n, d) and (m, d)
    projections : ndarray, shape (d, count)
        Unit columns.

    Returns
    -------
    SlicedW2
        Both +∞ if a row is not finite.

    Raises
    ------
    ValueError
        If an array has another shape, or a direction another length than one.
    """
    x, y = rows(x=x, y=y)
    directions = _directions(projections, x.shape[1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return SlicedW2(np.inf, np.inf)
    n, m = len(x), len(y)
    # the levels i/n and j/m in units of 1/(nm): integers merge without rounding
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    weights = np.diff(levels, prepend=0) / (n * m)
    of_x, of_y = (levels - 1) // m, (levels - 1) // n
    squares = []
    chunk = max(1, CHUNK_ENTRIES // (n + m))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(directions), chunk):
            part = directions[start : start + chunk]
            gap = np.sort(part @ x.T, axis=1)[:, of_x] - np.sort(part @ y.T, axis=1)[:, of_y]
            squares.append(gap**2 @ weights)
    return _summary(np.concatenate(squares))


def unbiased_sliced_w2_squared(
    x: npt.ArrayLike, y: npt.ArrayLike, projections: Array, groups: int
) -> tuple[float, float]:
    """Squared sliced W₂ of two laws from long samples, nearly unbiased, and its standard error.

    The rows are dealt into groups, and Δ_g is the difference of the quantile functions of the
    g-th of x and of y. Groups are independent, so that the mean of ⟨Δ_g, Δ_h⟩ over pairs g ≠ h
    has none of the bias of a squared distance between samples (a U-statistic; Hoeffding, Ann.
    Math. Stat. 19, 1948); the standard error is that of a jackknife over groups.

    Parameters
    ----------
    x, y : array_like, shape (n, d)
        Rows of the two laws.
    projections : ndarray, shape (d, count)
        Unit columns.
    groups : int
        At least 3, and at most n.

    Returns
    -------
    tuple of float
        Value, which can be negative, and standard error.

    Raises
    ------
    ValueError
        If the samples have different shapes, or fewer rows than there are groups.
    """
    require_integer(3, groups=groups)
    x, y = rows(x=x, y=y)
    if x.shape != y.shape or len(x) < groups:
        raise ValueError(
            f"y has shape {y.shape}: must be {x.shape}, that of x, of at least {groups} rows"
        )
    directions = _directions(projections, x.shape[1])
    size = len(x) // groups
    products = np.zeros((groups, groups))
    chunk = max(1, CHUNK_ENTRIES // (groups * size))
    for start in range(0, len(directions), chunk):
        part = directions[start : start + chunk]
        of_x, of_y = (
            np.sort((sample[: groups * size] @ part.T).reshape(size, groups, -1), axis=0)
            for sample in (x, y)
        )
        gaps = (of_x - of_y).transpose(1, 0, 2).reshape(groups, -1)
        products += gaps @ gaps.T / (size * len(directions))
    off = products - np.diag(np.diag(products))
    value = off.sum() / (groups * (groups - 1))
    without = (off.sum() - 2 * off.sum(axis=1)) / ((groups - 1) * (groups - 2))
    error = np.sqrt((groups - 1) * np.mean((without - without.mean()) ** 2))
    return float(value), float(error)


def gaussian_sliced_w2(p: Gaussian, q: Gaussian, projections: Array) -> SlicedW2:
    """W₂ between two Gaussians along given directions, exactly.

    Along θ, (θ·(μ_p − μ_q))² + (√θᵀΣ_pθ − √θᵀΣ_qθ)².

    Parameters
    ----------
    p, q : Gaussian
        Of batch shape ().
    projections : ndarray, shape (d, count)
        Unit columns, those of `sliced_w2`.

    Returns
    -------
    SlicedW2
        Both +∞ if one of the laws has overflowed.
    """
    require_single(p=p, q=q)
    directions = _directions(projections, p.dimension)
    if not all(
        np.isfinite(law.mean).all() and np.isfinite(law.eigenvalues).all() for law in (p, q)
    ):
        return SlicedW2(np.inf, np.inf)
    sd_p, sd_q = (np.sqrt(law.rotate(directions) ** 2 @ law.eigenvalues) for law in (p, q))
    return _summary((directions @ (p.mean - q.mean)) ** 2 + (sd_p - sd_q) ** 2)


def _directions(projections: npt.ArrayLike, dimension: int) -> Array:
    """One direction a row."""
    projections = real_array("projections", projections)
    if projections.ndim != 2 or projections.shape[0] != dimension or not projections.shape[1]:
        raise ValueError(f"projections has shape {projections.shape}: must be ({dimension}, count)")
    if not np.allclose(np.sum(projections**2, axis=0), 1):
        raise ValueError("projections must have unit columns")
    return projections.T


def _summary(squares: Array) -> SlicedW2:
    if not np.isfinite(squares).all():  # out of range
        return SlicedW2(np.inf, np.inf)
    return SlicedW2(float(np.sqrt(np.mean(squares))), float(np.sqrt(np.max(squares))))
