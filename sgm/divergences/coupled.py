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

Where the law of Y is not known, a long run of m rows of the same chain on noise of its own
stands in for it (`ReferenceRun`). The law of Y is then estimated from all n + m rows, which
leaves m/(n + m) of the sampling error of Y to be subtracted, and the run's own error is part
of the standard error.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

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
from sgm.divergences.transport import signed_root, squared
from sgm.gaussian import Gaussian, kl_divergence, require_single, wasserstein2

__all__ = [
    "GROUPS",
    "Control",
    "Coupled",
    "CoupledKL",
    "ReferenceRun",
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
class ReferenceRun:
    """A long run of the control's chain on other noise, where its law is not known.

    Parameters
    ----------
    rows : ndarray, shape (m, d)
        Independent draws of the control's law, finite, m at least 2 `GROUPS`.
    truth : ndarray, shape (m, d)
        As many independent draws of the target.
    """

    rows: Array
    truth: Array

    def __post_init__(self) -> None:
        chain, truth = rows(**{"run.rows": self.rows, "run.truth": self.truth})
        if truth.shape != chain.shape:
            raise ValueError(f"run.truth has shape {truth.shape}: must be {chain.shape}, of rows")
        _require_many(2 * GROUPS, **{"run.rows": chain})
        if not np.isfinite(chain).all():
            raise ValueError("run.rows: must be finite")
        object.__setattr__(self, "rows", chain)
        object.__setattr__(self, "truth", truth)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian of the rows' moments."""
        return _fitted(self.rows)

    @cached_property
    def parts(self) -> tuple[Gaussian, ...]:
        """The same without each of `GROUPS` groups of rows."""
        return tuple(_fitted(self.rows[kept]) for kept in _complements(len(self.rows)))


def _fitted(sample: Array) -> Gaussian:
    return Gaussian.from_covariance(sample.mean(axis=0), np.atleast_2d(np.cov(sample.T)))


def _complements(n: int) -> list[npt.NDArray[np.bool_]]:
    """Which of n rows are left without each group of the jackknife."""
    groups = np.arange(n) % GROUPS
    return [groups != group for group in range(GROUPS)]


@dataclass(frozen=True, eq=False)
class Control:
    """The chain that runs beside the sampler with the exact score, on the same noise.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        Row i met the noise of row i of the sample.
    law : Gaussian, ReferenceRun or None
        Law of the rows, or a long run that stands in for it; None where nothing is known of it.
    """

    rows: Array
    law: Gaussian | ReferenceRun | None

    def __post_init__(self) -> None:
        (chain,) = rows(rows=self.rows)
        object.__setattr__(self, "rows", chain)
        if self.law is not None:
            if isinstance(self.law, ReferenceRun):
                dimension = self.law.rows.shape[1]
            else:
                require_single(law=self.law)
                dimension = self.law.dimension
            if dimension != chain.shape[1]:
                raise ValueError(
                    f"law: dimension = {dimension}: must be {chain.shape[1]}, that of rows"
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
    reference_error : float
        Part of the standard error that comes from the control's reference run, and is the same
        for all samples that share it; 0 where its law is known, or the plain estimate stands.
    """

    value: float
    standard_error: float
    gain: float
    reference_error: float = 0.0

    @classmethod
    def better(
        cls, value: float, error: float, plain: float, plain_error: float, shared: float = 0.0
    ) -> Self:
        """The coupled estimate, or the plain one where that has the smaller standard error."""
        if np.isfinite(value) and error < plain_error:
            gain = (plain_error / error) ** 2 if error > 0 else np.inf
            return cls(value, error, gain, shared)
        return cls(plain, plain_error, 1.0)


@dataclass(frozen=True)
class CoupledKL(Coupled):
    """A coupled KL, and what the plug-in estimator would show of it.

    Parameters
    ----------
    plugin_mean, plugin_sd : float
        Mean and standard deviation of `plugin_kl` over samples of the number of rows asked for;
        NaN where the control has a reference run: they are those of Gaussian rows.
    """

    plugin_mean: float = np.nan
    plugin_sd: float = np.nan


def _coupled_rows(sample: npt.ArrayLike, control: npt.ArrayLike) -> tuple[Array, Array]:
    """A sample and its control as arrays, row by row of one noise."""
    x, y = rows(sample=sample, control=control)
    if x.shape != y.shape:
        raise ValueError(f"control has shape {y.shape}: must be {x.shape}, that of the sample")
    return x, y


def _checked(sample: npt.ArrayLike, control: Control) -> Array:
    """A sample as an array, of enough rows for the jackknife, whose control has a known law."""
    require_instance(Control, control=control)
    require_instance((Gaussian, ReferenceRun), **{"control.law": control.law})
    x, _ = _coupled_rows(sample, control.rows)
    _require_many(GROUPS, sample=x)
    return x


def _require_many(least: int, **samples: Array) -> None:
    for key, sample in samples.items():
        if len(sample) < least:
            raise ValueError(f"{key} has {len(sample)} rows: must have at least {least}")


def coupled_law(
    sample: npt.ArrayLike, control: npt.ArrayLike, law: Gaussian, share: float = 1.0
) -> Gaussian:
    """The Gaussian N(m̂, Ŝ) of the coupled moments.

    Parameters
    ----------
    sample, control : array_like, shape (n, d)
        Rows of X and Y.
    law : Gaussian
        Of Y.
    share : float
        Part of Y's apparent sampling error that is subtracted: m/(n + m) if `law` has the
        moments of m further rows, which has the least variance.

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
    mean = mean_x - share * factor * (mean_y - law.rotate(law.mean))
    excess = share * (y.T @ y / (len(y) - 1) - np.diag(law.eigenvalues))
    covariance = x.T @ x / (len(x) - 1) - factor[:, None] * excess * factor
    turned = Gaussian.from_covariance(mean, (covariance + covariance.T) / 2)
    return Gaussian(law.basis @ mean, turned.eigenvalues, law.basis @ turned.basis)


def _jackknife(
    statistic: Callable[[Gaussian], Array], sample: Array, control: Control
) -> tuple[Array, Array, Array] | None:
    """Bias-reduced values of functions of the coupled law, and their standard errors.

    And what of these is the reference run's. None if the coupled covariance of the rows, or of a
    group's complement, is not positive definite.
    """
    assert control.law is not None
    if not np.isfinite(control.rows).all():
        return None
    run = control.law if isinstance(control.law, ReferenceRun) else None
    share = 1.0 if run is None else len(run.rows) / (len(run.rows) + len(sample))

    def of(law: Gaussian, kept: npt.NDArray[np.bool_] | slice = slice(None)) -> Array:
        return statistic(coupled_law(sample[kept], control.rows[kept], law, share))

    try:
        law = control.law if isinstance(control.law, Gaussian) else control.law.gaussian
        whole = of(law)
        mean, variance = _deleted([of(law, kept) for kept in _complements(len(sample))])
        value = GROUPS * whole - (GROUPS - 1) * mean
        if run is None:
            return value, np.sqrt(variance), np.zeros_like(whole)
        run_mean, run_variance = _deleted([of(part) for part in run.parts])
    except ValueError:
        return None
    value -= (GROUPS - 1) * (run_mean - whole)
    return value, np.sqrt(variance + run_variance), np.sqrt(run_variance)


def _deleted(parts: Sequence[Array] | Sequence[float]) -> tuple[Array, Array]:
    """Mean of the values without each group, and the jackknife's estimate of the variance."""
    values = np.asarray(parts)
    mean = values.mean(axis=0)
    return mean, (GROUPS - 1) / GROUPS * np.sum((values - mean) ** 2, axis=0)


def _plain(statistic: Callable[[Moments], float], sample: Array) -> tuple[float, float]:
    """A function of the moments and its standard error, for rows of any law.

    What is unbiased for Gaussian rows is not for others, whose fourth moments differ: a
    jackknife takes off what is left. The error is NaN for too few rows.
    """
    whole = statistic(Moments.of(sample))
    try:
        parts = [statistic(Moments.of(sample[kept])) for kept in _complements(len(sample))]
    except ValueError:
        return whole, np.nan
    mean, variance = _deleted(parts)
    return float(GROUPS * whole - (GROUPS - 1) * mean), float(np.sqrt(variance))


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
        Of known law, or with a reference run.
    plugin_rows : int
        Number of rows of the plug-in estimator whose mean and deviation are given.

    Returns
    -------
    CoupledKL
        In nats. Where the plain estimate stands, it is `unbiased_kl`, beside a reference run
        less what bias a jackknife finds in it; the plug-in's mean and deviation are then those
        at the sample's own moments: NaN if these are singular.

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
        return CoupledKL(plain, plain_error, 1.0)
    if isinstance(control.law, ReferenceRun):
        plain, plain_error = _plain(lambda own: unbiased_kl(law, own), x)
        found = _jackknife(lambda estimate: kl_divergence(law, estimate), x, control)
        if found is None:
            return CoupledKL(plain, plain_error, 1.0)
        value, error, shared = map(float, found)
        return CoupledKL.better(value, error, plain, plain_error, shared)

    def statistic(estimate: Gaussian) -> Array:
        mean, sd = plugin_kl_moments(law, estimate, plugin_rows)
        return np.array([kl_divergence(law, estimate), mean, sd])

    found = _jackknife(statistic, x, control)
    if found is not None:
        values, errors, _ = found
        best = Coupled.better(float(values[0]), float(errors[0]), plain, plain_error)
        if best.gain > 1:
            plugin = {"plugin_mean": float(values[1]), "plugin_sd": float(values[2])}
            return CoupledKL(best.value, best.standard_error, best.gain, **plugin)
    try:
        own = Gaussian.from_covariance(moments.mean, moments.covariance)
        mean, sd = plugin_kl_moments(law, own, plugin_rows)
        # the sample's own moments are too far from the law by the bias of their plug-in
        mean -= float(kl_divergence(law, own)) - plain
    except ValueError:
        mean, sd = np.nan, np.nan
    return CoupledKL(plain, plain_error, 1.0, plugin_mean=mean, plugin_sd=sd)


def coupled_w2(law: Gaussian, sample: npt.ArrayLike, control: Control) -> Coupled:
    """W₂(law, N(m, S)) of the moments of X's law; signed root of a nearly unbiased square.

    By Gelbrich's inequality a lower bound of W₂(law, law of X), up to its standard error.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    sample : array_like, shape (n, d)
    control : Control
        Of known law, or with a reference run.

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
    square, _ = squared(plain, 0.0)
    if isinstance(control.law, ReferenceRun):
        square, plain_error = _plain(lambda own: squared(w2_unbiased(law, own), 0.0)[0], x)
    found = _jackknife(lambda estimate: wasserstein2(law, estimate) ** 2, x, control)
    if found is None:
        best = Coupled(square, plain_error, 1.0)
    else:
        value, error, shared = map(float, found)
        best = Coupled.better(value, error, square, plain_error, shared)
    return _root(best)


def _root(square: Coupled) -> Coupled:
    """Signed root of an estimated square."""
    value, error = signed_root(square.value, square.standard_error)
    shared = square.reference_error * error / square.standard_error if error else 0.0
    return Coupled(value, error, square.gain, shared)


def coupled_cross_entropy(
    log_densities: npt.ArrayLike,
    control_log_densities: npt.ArrayLike,
    exact: float,
    exact_error: float = 0.0,
) -> Coupled:
    """−E log p(X) from log p at the rows of X and of Y, whose own cross-entropy is known.

    A linear regression: the mean for X less c times the sampling error of the mean for Y, where
    c has the least variance: cov/var over the rows, less for a value that has an error itself.

    Parameters
    ----------
    log_densities, control_log_densities : array_like, shape (n,)
    exact, exact_error : float
        −E log p(Y), and its standard error if it is that of a reference run.

    Returns
    -------
    Coupled
        In nats; +∞ if a log-density of the sample is not finite.

    Raises
    ------
    ValueError
        If the arrays are not of one shape (n,) with n ≥ 3, or `exact` or its error is no number.
    """
    x = real_array("log_densities", log_densities)
    y = real_array("control_log_densities", control_log_densities)
    require_within(-np.inf, np.inf, exact=exact, exact_error=exact_error)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(f"log_densities has shape {x.shape}: must be (n,) with n >= 3")
    if y.shape != x.shape:
        raise ValueError(f"control_log_densities has shape {y.shape}: must be {x.shape}")
    if not np.isfinite(x).all():
        return Coupled(np.inf, np.nan, 1.0)
    if not np.isfinite(y).all():
        y = np.zeros_like(x)  # no help
    centred_x, centred_y = x - x.mean(), y - y.mean()
    n = len(x)
    spread = centred_y @ centred_y + n * (n - 1) * exact_error**2
    factor = centred_x @ centred_y / spread if spread > 0 else 0.0
    residual = centred_x - factor * centred_y
    shared = abs(float(factor)) * exact_error
    error = float(np.hypot(np.sqrt(residual @ residual / ((n - 2) * n)), shared))
    plain_error = float(np.sqrt(centred_x @ centred_x / ((n - 1) * n)))
    value = float(-x.mean() + factor * (y.mean() + exact)) if factor else np.nan
    return Coupled.better(value, error, float(-x.mean()), plain_error, shared)


def coupled_difference(
    statistic: Callable[[Array, Array], float],
    sample: npt.ArrayLike,
    reference: npt.ArrayLike,
    control: Control,
    exact: float,
    exact_error: float = 0.0,
    root: bool = False,
) -> Coupled:
    """D(X; reference) − D(Y; reference) + D(law of Y), for any divergence between samples.

    The bias of the estimator for X and for Y is nearly the same, and goes with the difference;
    beside a reference run, where it need not be the same, its part of order 1/n goes by
    comparison with that of the blocks, and so it does in the plain estimate.
    Standard errors come from ten disjoint blocks of rows, which errs on the safe side: in a
    block the part of second order is larger.

    Parameters
    ----------
    statistic : callable
        D of two samples of shapes (n, d) and (m, d).
    sample, reference : array_like, shape (n, d) and (m, d)
    control : Control
    exact, exact_error : float
        D of the control's law and the target's, and its standard error if it is that of a
        reference run.
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
        `exact` or its error is no number.
    """
    x, y = rows(sample=sample, reference=reference)
    require_instance(Control, control=control)
    _coupled_rows(x, control.rows)
    _require_many(2 * BLOCKS, sample=x, reference=y)
    require_within(-np.inf, np.inf, exact=exact, exact_error=exact_error)
    if not np.isfinite(x).all():
        return Coupled(np.inf, np.nan, 1.0)
    known = np.isfinite(control.rows).all()

    def pair(picked: slice) -> tuple[float, float]:
        own = statistic(x[picked], y[picked])
        other = statistic(control.rows[picked], y[picked]) if known else np.nan
        return own, own - other

    plain, difference = pair(slice(None))
    blocks = np.array([pair(slice(block, None, BLOCKS)) for block in range(BLOCKS)])
    if exact_error:  # laws of other tails have other floors: what goes as 1/n is extrapolated away
        whole = BLOCKS * np.array([plain, difference]) - blocks.mean(axis=0)
        plain, difference = whole / (BLOCKS - 1)
    plain_error, error = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    error = float(np.hypot(error, exact_error))
    best = Coupled.better(difference + exact, error, float(plain), float(plain_error), exact_error)
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
