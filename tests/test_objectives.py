"""Losses at the exact score, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgm import scores
from sgm.gaussian import Gaussian
from sgm.objectives import (
    OBJECTIVES,
    WEIGHTS,
    denoising_score_matching,
    explicit_score_matching,
)
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.scores import GaussianScore

D, N = 3, 40_000
PROCESS = VPProcess(BetaSchedule(horizon=1.0, a=1.0, beta_min=0.1, beta_max=20.0), 1.3)
LAW = Gaussian.from_covariance(
    np.array([1.0, 0.0, -0.5]), np.array([[1.0, 0.4, 0.1], [0.4, 0.5, 0.0], [0.1, 0.0, 0.2]])
)
EXACT = scores.exact(PROCESS, LAW)


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    x0 = LAW.sample(N, generator)
    return x0, 0.05 + 0.95 * generator.random(N), generator.standard_normal((N, D))


def row_losses(name: str, score: GaussianScore, draws: tuple[np.ndarray, ...]) -> np.ndarray:
    """Unweighted losses of a known score, through the objective's own row loss."""
    x0, t, z = draws
    examples = OBJECTIVES[name].examples(PROCESS, EXACT, x0, t, z)
    states, targets = torch.as_tensor(examples.states), torch.as_tensor(examples.targets)
    loss = OBJECTIVES[name].row_loss(
        lambda x: torch.as_tensor(score(x[0].numpy(), t))[None], states[None], targets[None]
    )
    return loss[0].numpy()


def test_states_follow_the_forward_kernel(draws: tuple[np.ndarray, ...]) -> None:
    x0, t, z = draws
    states = denoising_score_matching(PROCESS, None, x0, t, z).states
    m, v = PROCESS.mean_scale(t)[:, None], PROCESS.kernel_variance(t)[:, None]
    np.testing.assert_allclose(states, m * x0 + np.sqrt(v) * z, rtol=1e-13)
    explicit = explicit_score_matching(PROCESS, EXACT, x0, t, z)
    np.testing.assert_array_equal(explicit.states, states)


def test_explicit_loss_of_the_exact_score_is_zero(draws: tuple[np.ndarray, ...]) -> None:
    assert np.max(row_losses("explicit", EXACT, draws)) < 1e-20


def test_explicit_loss_of_a_biased_score_is_the_bias(draws: tuple[np.ndarray, ...]) -> None:
    biased = scores.biased(PROCESS, LAW, 0.3)
    np.testing.assert_allclose(row_losses("explicit", biased, draws), D * 0.3**2, rtol=1e-9)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(
    "score",
    [EXACT, scores.scaled(PROCESS, LAW, 0.2), scores.plugin(PROCESS, LAW, 0.3)],
    ids=["exact", "scaled", "plugin"],
)
def test_denoising_loss_is_the_error_plus_a_known_constant(
    weight: str, score: GaussianScore, draws: tuple[np.ndarray, ...]
) -> None:
    """DSM = mse + Σ (1/v − 1/V), at each time, hence with every weight."""
    _, t, _ = draws
    v, marginal = PROCESS.kernel_variance(t), PROCESS.marginal(LAW, t)
    constant = np.sum(1 / v[:, None] - 1 / marginal.eigenvalues, axis=-1)
    expected = score.error_moments(LAW, t)[0] + constant
    excess = WEIGHTS[weight](PROCESS, t) * (row_losses("denoising", score, draws) - expected)
    assert abs(excess.mean()) < 5 * excess.std() / np.sqrt(N)
    # the test has the power to tell the constant from none
    weighted = WEIGHTS[weight](PROCESS, t) * constant
    assert weighted.mean() > 50 * excess.std() / np.sqrt(N)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_exact_score_minimises_the_denoising_loss(
    weight: str, draws: tuple[np.ndarray, ...]
) -> None:
    """Paired on the same draws, every perturbation costs more than five standard errors."""
    scale = WEIGHTS[weight](PROCESS, draws[1])
    best = row_losses("denoising", EXACT, draws)
    for perturb in (scores.scaled, scores.biased):
        for eps in (-0.2, 0.2):
            other = row_losses("denoising", perturb(PROCESS, LAW, eps), draws)
            gap = scale * (other - best)
            assert gap.mean() > 5 * gap.std() / np.sqrt(N)


def test_weights_are_powers_of_the_kernel_variance() -> None:
    t = np.array([0.1, 0.5, 1.0])
    v = PROCESS.kernel_variance(t)
    for power, name in enumerate(["unit", "variance", "variance_squared"]):
        np.testing.assert_allclose(WEIGHTS[name](PROCESS, t), v**power, rtol=1e-14)


def test_explicit_loss_needs_an_exact_score(draws: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(ValueError, match="objective = 'explicit'"):
        explicit_score_matching(PROCESS, None, *draws)
