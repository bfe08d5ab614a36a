"""DDPM as a variational autoencoder, on rows of data: with a decoder of densities or of levels.

The chain, its encoder and the losses are those of `sgm.bounds.ddpm`, given a row x₀:

    L_T(x₀) = ½ [m²|x₀|²/w + d (v/w − 1 − log(v/w))],
    L_k(x₀) = ½ d [β̃/ς² − 1 − log(β̃/ς²)] + β² E[|s_θ + Z/√v|² | x₀]/(2ας²),

and −log p_θ(x₀) ≤ L_T + Σ L_k + L_0. The last step goes from τ to 0, where β = v and √α = m: the
decoder has the mean x̂ = (x + v s_θ)/m, Tweedie's formula, and the variance v. For a density,

    L_0 = ½ d log(2πv) + v E|s_θ + Z/√v|²/(2m²).

Data of levels are rows at the middles of bins [l_j, u_j]; they have a probability P, and

    L_0 = −E Σ_j log [Φ((u_j − x̂_j)/√v) − Φ((l_j − x̂_j)/√v)],

the first level's bin reaching to −∞ and the last one's to ∞, so that levels have probability 1
together. Then the losses bound −log P. A score that is fitted to rows with uniform noise on the
bins knows nothing below a bin's width: each e-fold of √v below it costs such a chain a nat a
dimension, so that this decoder wants a last noise about as wide as half a bin. Rows with that noise
have a density, and −log of it less the log of the bins' volume bounds −log P too (Jensen), however
fine the steps.

Sources
-------
Ho, Jain, Abbeel (arXiv 2006.11239), equations 5 and 13, of which the lecture's copy exchanges the
limits and lacks the ½; Theis, van den Oord, Bethge (arXiv 1511.01844), section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.bounds.ddpm import Variance, step_variances
from sgm.bounds.objection import Objection
from sgm.processes import Process
from sgm.targets import Target

__all__ = [
    "DenoisedRows",
    "RowLosses",
    "RowsObjection",
    "level_bins",
    "row_losses",
    "rows_objection",
]

Array = npt.NDArray[np.float64]


class RowsObjection(Objection):
    """Why the bound is not about a sampler; NONE if it is."""

    NONE = 0, "none"
    SAMPLER = 1, "the theorem is about another sampler"
    DECODER = 2, "the sampler leaves out the noise of the last step"


def rows_objection(sampler: str, variance: Variance) -> RowsObjection:
    """The objection to `row_losses` for a sampler named as in `sgm.samplers`."""
    if variance == "small" and sampler == "ancestral_small":
        return RowsObjection.DECODER
    own = variance == "large" and sampler == "ancestral"
    return RowsObjection.NONE if own else RowsObjection.SAMPLER


class DenoisedRows(NamedTuple):
    """Rows, and how a score denoises them.

    Parameters
    ----------
    rows : ndarray, shape (..., n, d)
        x₀.
    loss : ndarray, shape (..., n, N)
        |s_θ + Z/√v|² at the departure times of N steps, draws or means.
    denoised : ndarray, shape (..., n, d)
        x̂ at a draw of the last departure time.
    """

    rows: Array
    loss: Array
    denoised: Array


@dataclass(frozen=True, eq=False)
class RowLosses:
    """The losses of rows, L_T, Σ L_k and L_0, in nats; all of shape (..., n)."""

    prior: Array
    steps: Array
    decoder: Array

    @property
    def total(self) -> Array:
        """Upper bound of −log p_θ or −log P of each row, in the mean over the encoder's noise."""
        return self.prior + self.steps + self.decoder


def level_bins(target: Target, rows: npt.ArrayLike) -> tuple[Array, tuple[Array, Array]]:
    """The middles of the bins of the rows' levels, and their ends, infinite beyond the range.

    Parameters
    ----------
    target : Target
        Of L levels.
    rows : array_like, shape (..., d)

    Returns
    -------
    tuple
        Middles, and the pair of ends, each of shape (..., d), in working coordinates.
    """
    assert target.levels is not None
    transform = target.transform
    center, scale = transform.center[transform.kept], transform.scale[transform.kept]
    level = np.floor(np.asarray(rows, dtype=np.float64) * scale + center)
    level = np.clip(level, 0, target.levels - 1)  # rounding at the end of a bin
    low = np.where(level == 0, -np.inf, (level - center) / scale)
    high = np.where(level == target.levels - 1, np.inf, (level + 1 - center) / scale)
    return (level + 0.5 - center) / scale, (low, high)


def _log_mass(low: Array, high: Array) -> Array:
    """log [Φ(high) − Φ(low)], in the tail where the difference does not cancel."""
    from scipy.special import log_ndtr

    swap = low + high > 0
    low, high = np.where(swap, -high, low), np.where(swap, -low, high)
    far = log_ndtr(high)
    with np.errstate(divide="ignore"):
        return np.asarray(far + np.log(-np.expm1(log_ndtr(low) - far)))


def row_losses(
    process: Process,
    times: npt.ArrayLike,
    heldout: DenoisedRows,
    bins: tuple[Array, Array] | None = None,
    variance: Variance = "large",
) -> RowLosses:
    """The losses of DDPM of each row.

    Parameters
    ----------
    process : Process
    times : array_like, shape (N + 1,)
        Decreasing grid from T to 0.
    heldout : DenoisedRows
    bins : tuple of ndarray, optional
        See `level_bins`; without it the decoder is the density.
    variance : {"large", "small"}
        ς² = β, or β̃ but in the last step.

    Raises
    ------
    ValueError
        If the grid does not end at the data.
    """
    times = np.asarray(times, dtype=np.float64)
    if times[-1] != 0:
        raise ValueError(f"times end at {float(times[-1])!r}: must end at 0, where the decoder is")
    d, prior = heldout.rows.shape[-1], process.prior_variance
    scale, noise = float(process.mean_scale(times[0])), float(process.kernel_variance(times[0]))
    own = step_variances(process, times[:-1], times[1:], variance)
    ratio = (own.posterior / own.model)[:-1]
    gaps = 0.5 * d * np.sum(ratio - 1 - np.log(ratio))
    weighted = own.weighted(heldout.loss)
    if bins is None:
        decoder = 0.5 * d * np.log(2 * np.pi * own.model[-1]) + weighted[..., -1]
    else:
        low, high = ((end - heldout.denoised) / np.sqrt(own.model[-1]) for end in bins)
        decoder = -np.sum(_log_mass(low, high), axis=-1)
    share = noise / prior
    start = scale**2 * np.sum(heldout.rows**2, axis=-1) / prior
    start = start + d * (share - 1 - np.log(share))
    return RowLosses(start / 2, gaps + np.sum(weighted[..., :-1], axis=-1), decoder)
