"""Divergences read off likelihoods: of generated rows, of the cells they fall in, of held-out rows.

Of a law p with a known density and rows x_1..x_n of a sampler's output q,

    −(1/n) Σ log p(x_i)  →  H(q, p) = KL(q ‖ p) + H(q),

the cross-entropy, from which KL can't be had without q's entropy. A partition of space into K
cells of known probabilities p_k turns it into a multinomial problem: f_k, the fraction of the
rows in cell k, has KL(f ‖ p) = Σ f_k log(f_k/p_k), whose limit is at most KL(q ‖ p) (data
processing). A law known only through rows is compared by the likelihood of held-out ones.

Sources
-------
Partition: 2n KL(f ‖ p) is Wilks' likelihood ratio, asymptotically χ² with K − 1 degrees of
freedom if q gives the cells their probabilities (Wilks, Ann. Math. Stat. 9, 1938).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_integer, require_positive
from sgm.divergences.samples import rows

__all__ = [
    "CrossEntropy",
    "HeldoutGap",
    "PartitionKL",
    "cross_entropy",
    "heldout_nll_gap",
    "partition_kl",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean negative log-density of a sample under a known law.

    Parameters
    ----------
    value : float
        Nats a row.
    standard_error : float
        Of `value`; NaN where that is infinite.
    """

    value: float
    standard_error: float


def cross_entropy(log_densities: npt.ArrayLike) -> CrossEntropy:
    """Unbiased estimate of H(q, p) = −E_q log p, from log p at the rows of a sample of q.

    Its floor is p's entropy, the same mean over true rows. Lower is not better: H(q, p) is
    below the entropy of p for a sampler that keeps to where p is large, and equal to it for
    many q ≠ p. It sees rows where p is small, and no lost mode.

    Parameters
    ----------
    log_densities : array_like, shape (n,)
        log p at the rows, n ≥ 2, in nats.

    Returns
    -------
    CrossEntropy
        Of value +∞ if a log-density is not finite: a row is not, or p vanishes there.

    Raises
    ------
    ValueError
        If the array has another shape.
    """
    values = real_array("log_densities", log_densities)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"log_densities has shape {values.shape}: must be (n,) with n >= 2")
    if not np.isfinite(values).all():
        return CrossEntropy(np.inf, np.nan)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return CrossEntropy(float(-np.mean(values)), error)


@dataclass(frozen=True)
class PartitionKL:
    """KL between the cells' frequencies and their probabilities.

    Parameters
    ----------
    value : float
        In nats.
    floor, floor_sd : float
        Mean and standard deviation of `value` for a sampler that gives every cell its
        probability, from the χ² limit.
    """

    value: float
    floor: float
    floor_sd: float


def partition_kl(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> PartitionKL:
    """KL(f ‖ p) of a sample's frequencies f in K cells of known probabilities p.

    It estimates a lower bound of KL(q ‖ p), and sees only how much mass lies in each cell:
    lost or unequal modes, a wrong marginal, nothing within a cell. It is biased upwards by
    about (K − 1)/(2n), the floor; 2n KL is χ²_{K−1} for a perfect sampler, to a relative
    error of about Σ 1/p_k/(6nK), a few per cent if a cell expects five rows. Empty cells
    contribute nothing.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        Cell of each row, from 0; −1 for a row that is in none, such as one that is not finite.
    probabilities : array_like, shape (K,)
        Of the cells under p, of sum 1.

    Returns
    -------
    PartitionKL
        Of value +∞ if a row is in no cell, or in one of probability zero.

    Raises
    ------
    ValueError
        If the labels are not integers from −1 to K − 1, or the probabilities are none.
    """
    labels, p = np.asarray(labels), real_array("probabilities", probabilities)
    if p.ndim != 1 or not (np.all(p >= 0) and np.isclose(np.sum(p), 1, rtol=0, atol=1e-6)):
        raise ValueError("probabilities must be a vector of numbers >= 0 of sum 1")
    if labels.ndim != 1 or len(labels) < 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels has shape {labels.shape}: must be (n,) integers with n >= 1")
    if labels.min() < -1 or labels.max() >= len(p):
        raise ValueError(
            f"labels = {labels.min()}..{labels.max()}: must lie between -1 and {len(p) - 1}"
        )
    n, degrees = len(labels), np.count_nonzero(p) - 1
    floor, floor_sd = degrees / (2 * n), float(np.sqrt(2 * degrees) / (2 * n))
    counts = np.bincount(labels[labels >= 0], minlength=len(p))
    hit = counts > 0
    if np.any(labels < 0) or np.any(p[hit] == 0):
        return PartitionKL(np.inf, floor, floor_sd)
    f = counts[hit] / n
    return PartitionKL(float(np.sum(f * np.log(f / p[hit]))), floor, floor_sd)


@dataclass(frozen=True)
class HeldoutGap:
    """A difference of held-out likelihoods, with what it can resolve.

    Parameters
    ----------
    value : float
        Nats a row; positive if the generated sample is the worse training set.
    standard_error : float
        Of `value`, from the finite held-out part alone.
    floor : float
        Root mean square of `value` between two disjoint halves of the true training rows:
        below it the gap means nothing.
    """

    value: float
    standard_error: float
    floor: float


def heldout_nll_gap(
    generated: npt.ArrayLike,
    train: npt.ArrayLike,
    heldout: npt.ArrayLike,
    *,
    components: int,
    regularisation: float,
    random_state: int = 0,
) -> HeldoutGap:
    """How much worse a density fitted to generated rows predicts true rows.

    The same Gaussian mixture (full covariances) is fitted to n generated rows and to n true
    training rows, n the smaller of the two numbers, and the mean negative log-likelihood of
    the held-out rows under the second is taken from that under the first. The two fits share
    their estimation error and their misfit to π_data, so a perfect sampler has a gap near
    zero. The floor is the gap between two halves of the training rows, root mean square over
    the three ways to pair its quarters; halves, hence it errs on the safe side.

    It sees what a mixture of this size can model: means, covariances, main modes, spread. It
    doesn't see detail within a component, nor memorisation: a sampler that returns the
    training rows has a gap of zero. A generated sample smoother than the data can have a
    small negative gap, since it regularises the fit.

    Parameters
    ----------
    generated : array_like, shape (n_generated, d)
    train, heldout : array_like, shape (n_train, d) and (n_heldout, d)
        Disjoint parts of the true data, in random order.
    components : int
        Of the mixture, at least 1 and at most n/4.
    regularisation : float
        Added to the diagonal of the covariances, in squared units of the data; > 0.
    random_state : int
        Seed of the mixture's initialisation, the same for all fits.

    Returns
    -------
    HeldoutGap
        Of value +∞ if a generated row is not finite.

    Raises
    ------
    ValueError
        If an array has another dimension, or a parameter is out of range.
    """
    # `train` first: the others must have its dimension
    train, heldout, generated = rows(train=train, heldout=heldout, generated=generated)
    n = min(len(generated), len(train))
    require_integer(1, components=components)
    require_integer(0, random_state=random_state)
    require_positive(regularisation=regularisation)
    if not components <= n // 4:
        raise ValueError(
            f"components = {components!r}: must lie between 1 and {n // 4}, a quarter of the "
            "rows that are fitted"
        )
    for key, sample in {"train": train, "heldout": heldout}.items():
        if not np.isfinite(sample).all():
            raise ValueError(f"{key} must be finite")

    parameters = (components, regularisation, random_state)
    of_train, floor = _of_true_rows(train, n, heldout, parameters)
    if not np.all(np.isfinite(generated)):
        return HeldoutGap(np.inf, np.nan, floor)
    difference = _mixture_nll(generated[:n], heldout, *parameters) - of_train
    error = float(np.std(difference, ddof=1) / np.sqrt(len(difference)))
    return HeldoutGap(float(np.mean(difference)), error, floor)


_FITTED: dict[tuple[object, ...], tuple[Array, float]] = {}
"""What `_of_true_rows` found, by a digest of the rows: a study compares the samples of many
schedules with the same true rows, whose seven fits take most of the time."""


def _of_true_rows(
    train: Array, n: int, heldout: Array, parameters: tuple[int, float, int]
) -> tuple[Array, float]:
    """−log q of the held-out rows, q fitted to n training rows; and the gap's floor."""
    digests = (sha256(part.tobytes()).digest() for part in (train, heldout))
    key = (*digests, train.shape, n, parameters)
    if key not in _FITTED:
        quarters = np.array_split(train, 4)
        pairings = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
        gaps = []
        for pairing in pairings:
            first, second = (
                _mixture_nll(np.concatenate([quarters[i], quarters[j]]), heldout, *parameters)
                for i, j in pairing
            )
            gaps.append(np.mean(first - second))
        floor = float(np.sqrt(np.mean(np.square(gaps))))
        _FITTED[key] = _mixture_nll(train[:n], heldout, *parameters), floor
    return _FITTED[key]


def _mixture_nll(
    sample: Array, heldout: Array, components: int, regularisation: float, random_state: int
) -> Array:
    """−log q of the held-out rows, q a mixture fitted to `sample`; shape (n_heldout,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        components, reg_covar=regularisation, max_iter=200, random_state=random_state
    )
    with warnings.catch_warnings():
        # a fit short of convergence, or with duplicate rows, is still a density
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(sample)
    return np.asarray(-mixture.score_samples(heldout), dtype=np.float64)
