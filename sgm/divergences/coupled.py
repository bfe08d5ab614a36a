"""Divergences below the noise floor, by coupling the sample with a chain of known law.

A chain Y that runs with the exact score of a Gaussian, on the same initial rows and the same
noise as the chain X of interest, has a law N(M, W) that is known. Its sampling error is
therefore known too, and is nearly that of X: it is subtracted. In the eigenbasis of W, with
d_i = cov(x_i, y_i)/var(y_i) and D = diag(d),

    m̂ = mean(X) − D (mean(Y) − M),      Ŝ = cov(X) − D (cov(Y) − W) D,

estimate the moments of X's law with the variance of X − DY in place of that of X. KL and W₂
are functions of (m̂, Ŝ); a delete-a-group jackknife takes off what is left of their bias of
order 1/n and gives the standard error. With any other divergence, the known value for the law
of Y replaces the estimated one:

    D̂ = D(X; reference) − D(Y; reference) + D(law of Y).

A control that is no help must not hurt: where the coupled estimate has the larger standard
error, or Ŝ is not positive definite, the plain estimate stands, and its gain is 1.

√E|X − Y|² bounds W₂(law of X, law of Y) in any dimension: the pair is a coupling of the two.

Sources
-------
Control variates by coupled chains: Craiu and Meng (arXiv 2008.12662); couplings that bound
W₂: Biswas and Mackey (arXiv 2112.03152); delete-a-group jackknife: Kott, J. Off. Stat. 17,
2001. Their use for samplers of score-based models is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_instance, require_within
from sgm.divergences.moments import (
    Moments,
    kl_standard_error,
    plugin_kl_moments,
    unbiased_kl,
    w2_squared_standard_error,
    w2_unbiased,
)
from sgm.divergences.samples import rows
from sgm.divergences.transport import signed_root
from sgm.gaussian import Gaussian, kl_divergence, require_single, wasserstein2

__all__ = [
    "GROUPS",
    "Control",
    "Coupled",
    "CoupledKL",
    "coupled_cross_entropy",
    "coupled_difference",
    "coupled_kl",
    "coupled_law",
    "coupled_w2",
    "coupling_distance",
]

Array = npt.NDArray[np.float64]

GROUPS = 20
"""Groups of the jackknife: its standard error is itself known to 1/√(2 · 19) = 16 %."""

BLOCKS = 10
"""Blocks of rows from which a coupled difference has its standard error, of two rows or more."""


@dataclass(frozen=True, eq=False)
class Control:
    """The chain that runs beside the sampler with the exact score, on the same noise.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        Row i met the noise of row i of the sample.
    law : Gaussian or None
        Law of the rows; None where the exact score is not affine.
    """

    rows: Array
    law: Gaussian | None

    def __post_init__(self) -> None:
        (chain,) = rows(rows=self.rows)
        object.__setattr__(self, "rows", chain)
        if self.law is not None:
            require_single(law=self.law)
            if self.law.dimension != chain.shape[1]:
                raise ValueError(
                    f"law: dimension = {self.law.dimension}: must be {chain.shape[1]}, that of rows"
                )


@dataclass(frozen=True)
class Coupled:
    """A coupled estimate.

    Parameters
    ----------
    value : float
    standard_error : float
    gain : float
        Variance of the plain estimate over that of this one; 1 where the plain one stands.
    """

    value: float
    standard_error: float
    gain: float

    @classmethod
    def better(cls, value: float, error: float, plain: float, plain_error: float) -> Coupled:
        """The coupled estimate, or the plain one where that has the smaller standard error."""
        if np.isfinite(value) and error < plain_error:
            return cls(value, error, (plain_error / error) ** 2 if error > 0 else np.inf)
        return cls(plain, plain_error, 1.0)


@dataclass(frozen=True)
class CoupledKL(Coupled):
    """A coupled KL, and what the plug-in estimator would show of it.

    Parameters
    ----------
    plugin_mean, plugin_sd : float
        Mean and standard deviation of `plugin_kl` over samples of the number of rows asked for.
    """

    plugin_mean: float
    plugin_sd: float


def _coupled_rows(sample: npt.ArrayLike, control: npt.ArrayLike) -> tuple[Array, Array]:
    """A sample and its control as arrays, row by row of one noise."""
    x, y = rows(sample=sample, control=control)
    if x.shape != y.shape:
        raise ValueError(f"control has shape {y.shape}: must be {x.shape}, that of the sample")
    return x, y


def _checked(sample: npt.ArrayLike, control: Control) -> Array:
    """A sample as an array, of enough rows for the jackknife, whose control has a known law."""
    require_instance(Control, control=control)
    require_instance(Gaussian, **{"control.law": control.law})
    x, _ = _coupled_rows(sample, control.rows)
    _require_many(GROUPS, sample=x)
    return x


def _require_many(least: int, **samples: Array) -> None:
    for key, sample in samples.items():
        if len(sample) < least:
            raise ValueError(f"{key} has {len(sample)} rows: must have at least {least}")


def coupled_law(sample: npt.ArrayLike, control: npt.ArrayLike, law: Gaussian) -> Gaussian:
    """The Gaussian N(m̂, Ŝ) of the coupled moments.

    Parameters
    ----------
    sample, control : array_like, shape (n, d)
        Rows of X and Y.
    law : Gaussian
        Of Y.

    Returns
    -------
    Gaussian

    Raises
    ------
    ValueError
        If Ŝ is not positive definite.
    """
    x, y = _coupled_rows(sample, control)
    Control(y, law)
    x, y = law.rotate(x), law.rotate(y)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    factor = np.sum(x * y, axis=0) / np.sum(y**2, axis=0)
    mean = mean_x - factor * (mean_y - law.rotate(law.mean))
    excess = y.T @ y / (len(y) - 1) - np.diag(law.eigenvalues)
    covariance = x.T @ x / (len(x) - 1) - factor[:, None] * excess * factor
    turned = Gaussian.from_covariance(mean, (covariance + covariance.T) / 2)
    return Gaussian(law.basis @ mean, turned.eigenvalues, law.basis @ turned.basis)


def _jackknife(
    statistic: Callable[[Gaussian], Array], sample: Array, control: Control
) -> tuple[Array, Array] | None:
    """Bias-reduced values and standard errors of functions of the coupled law.

    None if the coupled covariance of the rows, or of a group's complement, is not positive
    definite.
    """
    assert control.law is not None
    if not np.isfinite(control.rows).all():
        return None
    groups = np.arange(len(sample)) % GROUPS
    try:
        whole = statistic(coupled_law(sample, control.rows, control.law))
        parts = np.array(
            [
                statistic(coupled_law(sample[kept], control.rows[kept], control.law))
                for kept in (groups != group for group in range(GROUPS))
            ]
        )
    except ValueError:
        return None
    mean = parts.mean(axis=0)
    variance = (GROUPS - 1) / GROUPS * np.sum((parts - mean) ** 2, axis=0)
    return GROUPS * whole - (GROUPS - 1) * mean, np.sqrt(variance)


def coupled_kl(
    law: Gaussian, sample: npt.ArrayLike, control: Control, plugin_rows: int
) -> CoupledKL:
    """KL(law ‖ N(m, S)) of the moments of X's law, and the mean and noise of its plug-in.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    sample : array_like, shape (n, d)
    control : Control
        Of known law.
    plugin_rows : int
        Number of rows of the plug-in estimator whose mean and deviation are given.

    Returns
    -------
    CoupledKL
        In nats. Where the plain estimate stands, it is `unbiased_kl`, and the plug-in's mean
        and deviation are those at the sample's own moments: NaN if these are singular.

    Raises
    ------
    ValueError
        If n ≤ d + 2 or `plugin_rows` ≤ d + 2, n is below `GROUPS`, or the control has another
        shape than the sample or no known law.
    """
    x = _checked(sample, control)
    moments = Moments.of(x)
    plugin_kl_moments(law, law, plugin_rows)  # refuses too few of them
    plain, plain_error = unbiased_kl(law, moments), kl_standard_error(law, moments)

    if np.isinf(plain):
        return CoupledKL(plain, plain_error, 1.0, np.nan, np.nan)

    def statistic(estimate: Gaussian) -> Array:
        mean, sd = plugin_kl_moments(law, estimate, plugin_rows)
        return np.array([kl_divergence(law, estimate), mean, sd])

    found = _jackknife(statistic, x, control)
    if found is not None:
        values, errors = found
        best = Coupled.better(float(values[0]), float(errors[0]), plain, plain_error)
        if best.gain > 1:
            return CoupledKL(
                best.value, best.standard_error, best.gain, float(values[1]), float(values[2])
            )
    try:
        own = Gaussian.from_covariance(moments.mean, moments.covariance)
        mean, sd = plugin_kl_moments(law, own, plugin_rows)
        # the sample's own moments are too far from the law by the bias of their plug-in
        mean -= float(kl_divergence(law, own)) - plain
    except ValueError:
        mean, sd = np.nan, np.nan
    return CoupledKL(plain, plain_error, 1.0, mean, sd)


def coupled_w2(law: Gaussian, sample: npt.ArrayLike, control: Control) -> Coupled:
    """W₂(law, N(m, S)) of the moments of X's law; signed root of a nearly unbiased square.

    By Gelbrich's inequality a lower bound of W₂(law, law of X), up to its standard error.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    sample : array_like, shape (n, d)
    control : Control
        Of known law.

    Returns
    -------
    Coupled
        In units of the data. The square is what is nearly unbiased: as with `w2_unbiased`,
        average u|u| or the signed roots u, never |u|. +∞ if the sample is not finite.

    Raises
    ------
    ValueError
        If n is below `GROUPS`, or the control has another shape than the sample or no known law.
    """
    x = _checked(sample, control)
    moments = Moments.of(x)
    plain = w2_unbiased(law, moments)
    plain_error = w2_squared_standard_error(law, moments)
    if np.isinf(plain):
        return Coupled(plain, np.nan, 1.0)
    squared = np.copysign(plain**2, plain)
    found = _jackknife(lambda estimate: wasserstein2(law, estimate) ** 2, x, control)
    if found is None:
        best = Coupled(float(squared), plain_error, 1.0)
    else:
        best = Coupled.better(float(found[0]), float(found[1]), float(squared), plain_error)
    return _root(best)


def _root(square: Coupled) -> Coupled:
    """Signed root of an estimated square."""
    return Coupled(*signed_root(square.value, square.standard_error), square.gain)


def coupled_cross_entropy(
    log_densities: npt.ArrayLike, control_log_densities: npt.ArrayLike, exact: float
) -> Coupled:
    """−E log p(X) from log p at the rows of X and of Y, whose own cross-entropy is known.

    A linear regression: with c = cov/var over the rows, the mean for X less c times the
    sampling error of the mean for Y.

    Parameters
    ----------
    log_densities, control_log_densities : array_like, shape (n,)
    exact : float
        −E log p(Y).

    Returns
    -------
    Coupled
        In nats; +∞ if a log-density of the sample is not finite.

    Raises
    ------
    ValueError
        If the arrays are not of one shape (n,) with n ≥ 3, or `exact` is no number.
    """
    x = real_array("log_densities", log_densities)
    y = real_array("control_log_densities", control_log_densities)
    require_within(-np.inf, np.inf, exact=exact)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(f"log_densities has shape {x.shape}: must be (n,) with n >= 3")
    if y.shape != x.shape:
        raise ValueError(f"control_log_densities has shape {y.shape}: must be {x.shape}")
    if not np.isfinite(x).all():
        return Coupled(np.inf, np.nan, 1.0)
    if not np.isfinite(y).all():
        y = np.zeros_like(x)  # no help
    centred_x, centred_y = x - x.mean(), y - y.mean()
    spread = centred_y @ centred_y
    factor = centred_x @ centred_y / spread if spread > 0 else 0.0
    residual = centred_x - factor * centred_y
    n = len(x)
    error = float(np.sqrt(residual @ residual / ((n - 2) * n)))
    plain_error = float(np.sqrt(centred_x @ centred_x / ((n - 1) * n)))
    value = float(-x.mean() + factor * (y.mean() + exact)) if factor else np.nan
    return Coupled.better(value, error, float(-x.mean()), plain_error)


def coupled_difference(
    statistic: Callable[[Array, Array], float],
    sample: npt.ArrayLike,
    reference: npt.ArrayLike,
    control: Control,
    exact: float,
    root: bool = False,
) -> Coupled:
    """D(X; reference) − D(Y; reference) + D(law of Y), for any divergence between samples.

    The bias of the estimator for X and for Y is nearly the same, and goes with the difference.
    Standard errors come from ten disjoint blocks of rows, which errs on the safe side: in a
    block the part of second order is larger.

    Parameters
    ----------
    statistic : callable
        D of two samples of shapes (n, d) and (m, d).
    sample, reference : array_like, shape (n, d) and (m, d)
    control : Control
    exact : float
        D of the control's law and the target's.
    root : bool
        Whether D is the square of a distance: the value is then its signed root.

    Returns
    -------
    Coupled
        +∞ if the sample is not finite.

    Raises
    ------
    ValueError
        If a sample has fewer than two rows a block, the control another shape than `sample`, or
        `exact` is no number.
    """
    x, y = rows(sample=sample, reference=reference)
    require_instance(Control, control=control)
    _coupled_rows(x, control.rows)
    _require_many(2 * BLOCKS, sample=x, reference=y)
    require_within(-np.inf, np.inf, exact=exact)
    if not np.isfinite(x).all():
        return Coupled(np.inf, np.nan, 1.0)
    known = np.isfinite(control.rows).all()

    def pair(picked: slice) -> tuple[float, float]:
        own = statistic(x[picked], y[picked])
        other = statistic(control.rows[picked], y[picked]) if known else np.nan
        return own, own - other

    plain, difference = pair(slice(None))
    blocks = np.array([pair(slice(block, None, BLOCKS)) for block in range(BLOCKS)])
    plain_error, error = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    best = Coupled.better(difference + exact, float(error), float(plain), float(plain_error))
    return _root(best) if root else best


def coupling_distance(sample: npt.ArrayLike, control: npt.ArrayLike) -> float:
    """√E|X − Y|², an upper bound of W₂(law of X, law of Y).

    Parameters
    ----------
    sample, control : array_like, shape (n, d)
        Row by row of one noise.

    Returns
    -------
    float
        In units of the data; +∞ if a row is not finite.
    """
    x, y = _coupled_rows(sample, control)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.inf
    return float(np.sqrt(np.mean(np.sum((x - y) ** 2, axis=1))))
