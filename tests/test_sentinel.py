"""The sentinel: every schedule × sampler × Gaussian target, simulated with its exact score,
against the closed-form law of the sampler's output.

For n draws from a Gaussian, 2n KL(N(sample mean, sample covariance) ‖ law) is the
likelihood-ratio statistic, asymptotically χ² with d(d + 3)/2 degrees of freedom: its mean
is that number and its variance twice it. Five standard deviations are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sgm import samplers, schedules, scores, timegrids
from sgm.gaussian import Gaussian, kl_divergence
from sgm.kinetic import KineticProcess
from sgm.laws import sampler_law
from sgm.networks import affine_score_fn
from sgm.processes import Process, VPProcess
from sgm.registry import lookup
from sgm.samplers import Steps
from sgm.schedules import NoiseSchedule, knots, levels
from sgm.simulation import simulate_reverse

D, N, VARIANCE = 4, 8192, 1.5
Scheme = Callable[[Process, npt.ArrayLike], Steps]

SCHEDULES: dict[str, NoiseSchedule] = {
    "BetaSchedule": schedules.BetaSchedule(horizon=2.0, a=-1.5, beta_min=0.1, beta_max=8.0),
    "ConstantSchedule": schedules.ConstantSchedule(horizon=2.0, rate=2.0),
    "CosineSchedule": schedules.CosineSchedule(2.0, VARIANCE, offset=0.008, clip=20.0),
    "GeometricSchedule": schedules.GeometricSchedule(2.0, sigma_min=0.1, sigma_max=2.0),
    "NumericalSchedule": schedules.NumericalSchedule(2.0, lambda t: 0.2 + 2 * t + np.sin(t)),
    "TruncatedSchedule": schedules.TruncatedSchedule(
        2.0, schedules.BetaSchedule(horizon=3.0, a=1.0, beta_min=0.1, beta_max=8.0)
    ),
    "PolynomialSchedule": schedules.PolynomialSchedule(2.0, 3.0, beta_min=0.1, beta_max=8.0),
    "SigmoidSchedule": levels.SigmoidSchedule(2.0, VARIANCE, 20.0, start=-3.0, end=3.0, tau=0.9),
    "PowerCosineSchedule": levels.PowerCosineSchedule(2.0, VARIANCE, 20.0, 0.0, 1.0, tau=1.5),
    "LaplaceSchedule": levels.LaplaceSchedule(2.0, VARIANCE, 20.0, location=0.5, scale=0.5),
    "EDMSchedule": levels.EDMSchedule(2.0, VARIANCE, sigma_min=0.01, sigma_max=5.0, rho=3.0),
    "DiscreteCosineSchedule": levels.DiscreteCosineSchedule(2.0, VARIANCE, 0.008, 50, 0.9),
    "PiecewiseLinearSchedule": knots.PiecewiseLinearSchedule(2.0, (0, 0.3, 1), (0.1, 3.0, 6.0)),
    "SplineSchedule": knots.SplineSchedule(2.0, (0, 0.3, 0.6, 1), (0.1, 3.0, 0.5, 6.0)),
    "IntegralSplineSchedule": knots.IntegralSplineSchedule(2.0, (0, 0.5, 1), (0.0, 1.0, 7.0)),
}
SCHEMES: dict[str, Scheme] = {
    "ancestral": samplers.ancestral,
    "ancestral_small": samplers.ancestral_small,
    "annealed_langevin": partial(samplers.annealed_langevin, langevin_steps=2, step_size=0.1),
    "ddim": partial(samplers.ddim, eta=0.5),
    "deis": partial(samplers.deis, order=3),
    "dpm_solver_2s": samplers.dpm_solver_2s,
    "dpm_solver_pp_2m": partial(samplers.dpm_solver_pp_2m, eta=0.7),
    "dpm_solver_pp_2s": samplers.dpm_solver_pp_2s,
    "edm": partial(samplers.edm, s_churn=6.0, s_tmin=0.1, s_tmax=5.0, s_noise=1.1),
    "er_sde": partial(samplers.er_sde, order=3),
    "euler_arrival": samplers.euler_arrival,
    "euler_maruyama": samplers.euler_maruyama,
    "exponential_integrator": samplers.exponential_integrator,
    "exponential_integrator_modified": samplers.exponential_integrator_modified,
    "exponential_runge_kutta": samplers.exponential_runge_kutta,
    "exponential_runge_kutta_modified": samplers.exponential_runge_kutta_modified,
    "heun": samplers.heun,
    "kinetic_ancestral": samplers.kinetic_ancestral,
    "kinetic_euler_maruyama": samplers.kinetic_euler_maruyama,
    "langevin": partial(samplers.langevin, step_size=0.01),
    "predictor_corrector": partial(samplers.predictor_corrector, corrector_steps=1, step_size=0.01),
    "predictor_corrector_snr": partial(
        samplers.predictor_corrector_snr, corrector_steps=1, snr=0.3
    ),
    "probability_flow_euler": samplers.probability_flow_euler,
    "randomised_midpoint": partial(samplers.randomised_midpoint, times_seed=3),
    "restart": partial(samplers.restart, restarts=2, low=0.2, high=0.5),
    "sscs": samplers.sscs,
    "unipc": samplers.unipc,
}
DISTANCE = np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
TARGETS = {
    "diagonal": Gaussian.diagonal(np.array([1.0, -1.0, 0.0, 2.0]), np.array([1.0, 0.2, 0.5, 2.0])),
    "correlated": Gaussian.from_covariance(np.ones(D), 1 / np.sqrt(1 + DISTANCE)),
}


def test_the_tables_cover_all_schedules_and_samplers() -> None:
    families = {*schedules.__all__, *levels.__all__, *knots.__all__}
    assert set(SCHEDULES) == families - {"NoiseSchedule", "schedule_file"}  # a file makes these
    assert set(SCHEMES) == set(samplers.__all__) - {"Stage", "Steps", "program", "symbols"}


def statistic(x: npt.NDArray[np.float64], law: Gaussian) -> float:
    """2n KL(N(sample mean, sample covariance) ‖ law)."""
    covariance = np.cov(x, rowvar=False, bias=True)
    return 2 * len(x) * float(kl_divergence(Gaussian.from_covariance(x.mean(0), covariance), law))


KINETIC = {scheme: lookup("sampler", scheme).process == "kinetic" for scheme in SCHEMES}
FAST_ROW, FAST_COLUMN = ("BetaSchedule", "correlated"), ("ancestral", "diagonal")
CELLS = [
    pytest.param(
        schedule,
        scheme,
        target,
        # a row of one target and a column of the other in the fast suite
        marks=[pytest.mark.slow]
        * ((schedule, target) != FAST_ROW and (scheme, target) != FAST_COLUMN),
    )
    for schedule in SCHEDULES
    for scheme in SCHEMES
    for target in TARGETS
    # a schedule that is made for VP drives no pairs
    if not (KINETIC[scheme] and SCHEDULES[schedule].process_variance)
]


@pytest.mark.parametrize(("schedule", "scheme", "target"), CELLS)
def test_simulated_law_is_the_closed_form(schedule: str, scheme: str, target: str) -> None:
    process: Process = VPProcess(SCHEDULES[schedule], VARIANCE)
    if KINETIC[scheme]:
        process = KineticProcess(SCHEDULES[schedule], 0.7, 0.3, 2.0, 0.1)
    steps = SCHEMES[scheme](process, timegrids.uniform(2.0, 20))
    score = scores.exact(process, TARGETS[target])
    cpu = torch.device("cpu")
    score_fn = affine_score_fn(score, torch.float64, cpu)
    axes = {"schedule": schedule, "sampler": scheme, "target": target}  # independent cases
    x = simulate_reverse(
        steps, score_fn, process.prior_variance, N, D, 1, [0], axes, torch.float64, cpu
    )
    law = sampler_law(steps, score, process.prior(D))
    freedom = D * (D + 3) / 2
    value = statistic(x[0].numpy(), law)
    assert abs(value - freedom) < 5 * np.sqrt(2 * freedom)
    # and the test can tell this law from the data's own, which few steps do not reach
    if kl_divergence(law, TARGETS[target]) > 0.02:
        assert statistic(x[0].numpy(), TARGETS[target]) > freedom + 10 * np.sqrt(2 * freedom)
