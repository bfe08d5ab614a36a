"""Properties of a sampler: consistency, measured weak order, and its simulation.

The order is measured on the quadratic grid, whose noise levels are evenly spaced near the data:
there the last step of a scheme that freezes the denoiser costs no order up to two.

With the exact score every consistent scheme, deterministic or not, carries p_T to the law of the
data as the step tends to zero. The start must be isotropic for its law to be exact, so each
variance λ of the data is a one-dimensional case of its own. Started at the prior instead, a
scheme tends to the law of the backward SDE or of the probability flow, or, if it adds another
amount of noise than the SDE, to one in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import laws, scores
from sgm.gaussian import Gaussian, wasserstein2
from sgm.kinetic import KineticProcess
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.build import build_steps
from sgm.run.properties.findings import (
    InapplicableError,
    Property,
    PropertyError,
    require_mean,
    require_where,
)
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Item
from sgm.timegrids import quadratic, uniform

__all__ = ["PROPERTIES", "Scheme", "subjects"]

Array = npt.NDArray[np.float64]

#: Numbers of steps N over which the order is measured, and the W2 after which no more are.
COUNTS, ENOUGH = tuple(16 * 4**k for k in range(6)), 1e-5
#: The least order of a scheme that converges, and the W2 below which it is exact to rounding.
LEAST_ORDER, ROUNDING = 0.4, 1e-10
#: How far a converging scheme may be from its limit at the largest N, in standard deviations.
FAR = 0.05
VARIANCES = (0.1, 0.7, 3.0)
HORIZON = 1.3
VP = VPProcess(BetaSchedule(HORIZON, 1.5, 0.1, 6.0), 2.0)
VE = VEProcess(GeometricSchedule(HORIZON, 0.3, 4.0))
KINETIC = KineticProcess(BetaSchedule(HORIZON, 1.5, 0.1, 6.0), 0.7, 0.3, 2.0, 0.1)


@dataclass(frozen=True)
class Scheme:
    """A sampler of the config, and the process that it is tried on."""

    spec: Mapping[str, Any]
    process: Process = VP

    def output(self, process: Process, law: Gaussian, start: Gaussian, n_steps: int) -> Gaussian:
        """Exact law of its output with the exact score."""
        steps = build_steps(self.spec, process, quadratic(process.horizon, n_steps))
        return laws.sampler_law(steps, scores.exact(process, law), start)


def subjects(item: Item) -> Mapping[str, Callable[[], Scheme]]:
    """The sampler on VP or the kinetic process, with N = 10 as a first trial."""
    process = KINETIC if item.entry.process == "kinetic" else VP

    def build() -> Scheme:
        build_steps(item.spec, process, uniform(HORIZON, 10))
        return Scheme(item.spec, process)

    return {f"T = {HORIZON:g}": build}


def _order(errors: Array, name: str) -> str:
    """The slope of the errors over N, in words; refused if they don't vanish.

    Errors of the first of `COUNTS`, in standard deviations of the limit.
    """
    require_where(np.isfinite(errors), lambda k: f"W2 to {name} is {errors[k]} at N = {COUNTS[k]}")
    resolved = int(np.argmax(errors < ROUNDING)) if np.any(errors < ROUNDING) else len(errors)
    if resolved < 2:
        n = COUNTS[len(errors) - 1]
        return f"{name} is reached to rounding, W2 = {errors[-1]:.1e} at N = {n}"
    last = resolved - 1
    order = np.log(errors[last - 1] / errors[last]) / np.log(COUNTS[last] / COUNTS[last - 1])
    words = f"W2 to {name} is {errors[last - 1]:.3g} at N = {COUNTS[last - 1]} and "
    words += f"{errors[last]:.3g} at N = {COUNTS[last]} standard deviations"
    if not (order >= LEAST_ORDER and errors[last] <= FAR):
        raise PropertyError(f"{words}: it does not vanish")
    return f"weak order {order:.2f}: {words}"


def _to_the_data(scheme: Scheme, process: Process) -> str:
    data = [Gaussian.diagonal([0.8], [variance]) for variance in VARIANCES]
    starts = [process.marginal(law, process.horizon) for law in data]

    def worst(n: int) -> list[float]:
        outputs = [
            scheme.output(process, law, p_t, n) for law, p_t in zip(data, starts, strict=True)
        ]
        errors = [float(wasserstein2(*pair)) for pair in zip(data, outputs, strict=True)]
        return [float(np.max(errors / np.sqrt(VARIANCES)))]

    return _order(_errors(worst)[:, 0], "the law of the data")


def _errors(of: Callable[[int], Sequence[float]]) -> Array:
    """Errors to several limits for the first of `COUNTS`, until one is small."""
    found: list[Sequence[float]] = []
    for n in COUNTS:
        found.append(of(n))
        if min(found[-1]) < ENOUGH and len(found) > 1:
            break
    return np.array(found)


def is_consistent(scheme: Scheme) -> str:
    """On VP, started at p_T with the exact score, its law tends to that of the data."""
    if scheme.process is KINETIC:
        raise InapplicableError("its pairs (x, v) start at their stationary law")
    return _to_the_data(scheme, VP)


def is_consistent_for_ve(scheme: Scheme) -> str:
    """On VE it is refused, or its law tends to that of the data too."""
    if scheme.process is KINETIC:
        raise InapplicableError("it is a scheme of the process kinetic")
    try:
        build_steps(scheme.spec, VE, uniform(HORIZON, COUNTS[0]))
    except ValueError as error:
        raise InapplicableError(f"it refuses VE: {error}") from error
    return _to_the_data(scheme, VE)


def tends_to_a_known_limit(scheme: Scheme) -> str:
    """Started at the prior, it tends to the law of the backward SDE, or on VP of the flow."""
    process = scheme.process
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    law = Gaussian(np.array([1.0, -0.5, 0.3]), np.array(VARIANCES), basis)
    prior = process.prior(law.dimension)
    limits = {"the law of the backward SDE": laws.reverse_sde_limit(process, law)}
    if process is VP:
        limits["the law of the probability flow"] = laws.probability_flow_limit(VP, law)
    scale = np.sqrt(law.eigenvalues.mean())

    def distances(n: int) -> list[float]:
        output = scheme.output(process, law, prior, n)
        return [float(wasserstein2(limit, output)) / scale for limit in limits.values()]

    errors = dict(zip(limits, _errors(distances).T, strict=True))
    nearest = min(errors, key=lambda name: errors[name][-1])
    try:
        return _order(errors[nearest], nearest)
    except PropertyError:
        far = ", ".join(f"{error[-1]:.3g} to {name}" for name, error in errors.items())
        words = f"its limit is neither: W2 is {far} at N = {COUNTS[-1]}"
    if process is KINETIC:
        raise PropertyError(words)
    try:
        _to_the_data(scheme, VP)
    except PropertyError:
        raise PropertyError(f"{words}; nor is it consistent") from None
    raise InapplicableError(f"{words}: it adds a different amount of noise than the SDE")


def asks_the_score_within_the_horizon(scheme: Scheme) -> str:
    """It asks for the score at times in [0, T] alone, also with one step, if it takes one."""
    import torch

    from sgm.simulation import simulate_reverse

    process, count, late = scheme.process, 0, 0.0
    for n_steps in (1, 2, 10):
        asked: list[float] = []

        def score(x: torch.Tensor, t: float, asked: list[float] = asked) -> torch.Tensor:
            asked.append(t)
            return -x

        try:
            steps = build_steps(scheme.spec, process, uniform(HORIZON, n_steps))
        except ValueError:
            if n_steps == 10:
                raise
            continue  # a few steps may be refused, as restarts within one are
        simulate_reverse(
            steps,
            score,
            process.prior_variance,
            1,
            1,
            0,
            [0],
            {},
            torch.float64,
            torch.device("cpu"),
        )
        times = np.array(asked)
        require_where(
            (times >= 0) & (times <= HORIZON * (1 + 1e-12)),
            lambda k, times=times, n=n_steps: (
                f"t = {float(times[k])!r} in evaluation {k} of N = {n}: must lie in [0, {HORIZON}]"
            ),
        )
        count, late = len(times), float(times.min())
    return f"{count} evaluations in 10 steps, the earliest at t = {late:.3g}"


def simulation_has_the_exact_law(scheme: Scheme) -> str:
    """Simulated rows have the moments of the exact law, within their standard errors."""
    import torch

    from sgm.networks import affine_score_fn
    from sgm.simulation import simulate_reverse

    law = Gaussian.diagonal([1.0, -0.5, 0.3], VARIANCES)
    process, n_steps = scheme.process, 20
    steps = build_steps(scheme.spec, process, uniform(HORIZON, n_steps))
    score, place = scores.exact(process, law), torch.device("cpu")
    (rows,) = simulate_reverse(
        steps,
        affine_score_fn(score, torch.float64, place),
        process.prior_variance,
        4000,
        law.dimension,
        0,
        [0],
        {"target": "check"},
        torch.float64,
        place,
    ).numpy()
    output = laws.sampler_law(steps, score, process.prior(law.dimension))
    gap = require_mean("mean", output.mean, rows)
    centred = rows - output.mean
    products = centred[:, :, None] * centred[:, None, :]
    gap = max(gap, require_mean("covariance", output.covariance, products))
    return f"{len(rows)} rows, N = {n_steps}: {gap:.1f} standard errors at most"


PROPERTIES: tuple[Property, ...] = (
    asks_the_score_within_the_horizon,
    is_consistent,
    tends_to_a_known_limit,
    is_consistent_for_ve,
    simulation_has_the_exact_law,
)
