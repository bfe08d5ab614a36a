"""What a sampler makes of a Gaussian target, exactly, in one call.

import sgm
from sgm import schedules, targets

target = targets.correlated(dimension=50, mean=1.0, offset=1.0)
sgm.exact_kl(target, schedules.BetaSchedule(1.0, 5.0, 0.1, 20.0), n_steps=500)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm import scores, timegrids
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import sampler_law
from sgm.processes import Process, VPProcess
from sgm.samplers import Steps, exponential_integrator_modified
from sgm.schedules import NoiseSchedule
from sgm.scores import GaussianScore
from sgm.targets import LawTarget

__all__ = ["exact_kl", "exact_law", "exact_w2"]

Sampler = Callable[[Process, npt.NDArray[np.float64]], Steps]
Score = Callable[[Process, Gaussian], GaussianScore]


def exact_law(
    target: LawTarget | Gaussian,
    process: NoiseSchedule | Process,
    sampler: Sampler = exponential_integrator_modified,
    n_steps: int = 500,
    *,
    times: npt.ArrayLike | None = None,
    score: Score = scores.exact,
) -> Gaussian:
    """Exact law of what a sampler generates.

    Parameters
    ----------
    target : LawTarget or Gaussian
        π_data, a Gaussian: one of `sgm.targets`, or N(μ, Σ) itself.
    process : NoiseSchedule or Process
        A schedule stands for VP with it and σ² = 1.
    sampler : callable
        One of `sgm.samplers`; `functools.partial` gives it its parameters.
    n_steps : int
        N of a uniform grid.
    times : array_like, shape (N + 1,), optional
        Another grid, decreasing from T, such as those of `sgm.timegrids`; `n_steps` is then not
        looked at.
    score : callable
        One of `sgm.scores` that is affine; by default the exact one.

    Returns
    -------
    Gaussian
        With infinite variances where the sampler leaves the range of float64.

    Raises
    ------
    ValueError
        If the target is not Gaussian, or a number is out of range.
    """
    law = _gaussian(target)
    process = process if isinstance(process, Process) else VPProcess(process, 1.0)
    grid = np.asarray(timegrids.uniform(process.horizon, n_steps) if times is None else times)
    prior = process.prior(law.dimension)
    return sampler_law(sampler(process, grid), score(process, law), prior)


def exact_kl(
    target: LawTarget | Gaussian,
    process: NoiseSchedule | Process,
    sampler: Sampler = exponential_integrator_modified,
    n_steps: int = 500,
    *,
    times: npt.ArrayLike | None = None,
    score: Score = scores.exact,
) -> float:
    """Exact KL(π_data ‖ output), in nats; arguments as in `exact_law`.

    Raises
    ------
    ValueError
        As `exact_law` does.
    """
    output = exact_law(target, process, sampler, n_steps, times=times, score=score)
    return float(kl_divergence(_gaussian(target), output))


def exact_w2(
    target: LawTarget | Gaussian,
    process: NoiseSchedule | Process,
    sampler: Sampler = exponential_integrator_modified,
    n_steps: int = 500,
    *,
    times: npt.ArrayLike | None = None,
    score: Score = scores.exact,
) -> float:
    """Exact W₂(π_data, output), in units of x; arguments as in `exact_law`.

    Raises
    ------
    ValueError
        As `exact_law` does.
    """
    output = exact_law(target, process, sampler, n_steps, times=times, score=score)
    return float(wasserstein2(_gaussian(target), output))


def _gaussian(target: LawTarget | Gaussian) -> Gaussian:
    law = target.law if isinstance(target, LawTarget) else target
    if not isinstance(law, Gaussian):
        raise ValueError(
            f"target = {type(law).__name__}: must be Gaussian: only then is the law of a "
            "sampler's output exact"
        )
    return law
