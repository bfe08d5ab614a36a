"""The law of a sampler's output on the line, by transition kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sgm import laws, samplers, scores
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian, wasserstein2
from sgm.line import output_quantiles, w2_on_the_line
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

MODES = GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [[0.25], [0.25]])
VP = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0))
VE = VEProcess(GeometricSchedule(1.0, 0.1, 5.0))


@pytest.mark.parametrize(
    ("process", "times", "name"),
    [
        (VP, uniform(1.0, 20), "exponential_integrator_modified"),
        (VP, quadratic(1.0, 10), "ancestral"),
        (VP, uniform(1.0, 20), "ddim"),
        (VE, uniform(1.0, 15), "euler_maruyama"),
    ],
)
def test_one_component_is_a_gaussian_whose_law_is_known(
    process: Process, times: Array, name: str
) -> None:
    mean, variance = np.array([0.5]), np.array([0.3])
    steps = getattr(samplers, name)(process, times)
    law = Gaussian(mean, variance, np.eye(1))
    start = Gaussian.diagonal(np.zeros(1), np.full(1, process.prior_variance))
    exact = wasserstein2(law, laws.sampler_law(steps, scores.exact(process, law), start))
    one = GaussianMixture([1.0], mean[:, None], variance[:, None])
    assert w2_on_the_line(process, one, steps) == pytest.approx(exact, abs=2e-4)


def test_quantiles_of_a_mixture_are_those_of_samples() -> None:
    steps = samplers.ancestral(VP, uniform(1.0, 8))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    found = output_quantiles(VP, MODES, steps, levels)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400_000, 1))
    for k in range(len(steps)):
        tau = steps.score_time[k]
        m, v = float(VP.mean_scale(tau)), float(VP.kernel_variance(tau))
        x = steps.state[k] * x + steps.score[k] * MODES.score(x, m, v)
        x = x + steps.noise[k] * rng.standard_normal(x.shape)
    below = np.mean(x < found, axis=0)
    np.testing.assert_allclose(below, levels, atol=4 * 0.5 / np.sqrt(400_000))


@pytest.mark.parametrize(
    ("law", "steps", "match"),
    [
        (GaussianMixture([1.0], np.zeros((1, 2)), np.ones((1, 2))), "ancestral", "dimension 2"),
        (MODES, "heun", "registers: must be 1"),
    ],
)
def test_what_has_no_such_law_is_refused(law: GaussianMixture, steps: str, match: str) -> None:
    table = getattr(samplers, steps)(VP, uniform(1.0, 5))
    with pytest.raises(ValueError, match=match):
        output_quantiles(VP, law, table, np.array([0.5]))
