"""Losses at known scores: closed forms, quadrature on the line, variances, gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sgm import scores, targets
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.objectives import (
    OBJECTIVES,
    PROBES,
    WEIGHTS,
    denoising_score_matching,
    explicit_score_matching,
    implicit_loss,
    sliced_loss,
    squared_error,
)
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, GeometricSchedule
from sgm.scores import GaussianScore

Array = npt.NDArray[np.float64]
Draws = tuple[Array, Array, Array]

D, N = 3, 40_000
#: The last one is of pairs: see test_kinetic.
OF_VP = [name for name in WEIGHTS if name != "hybrid"]
PROCESS = VPProcess(BetaSchedule(horizon=1.0, a=1.0, beta_min=0.1, beta_max=20.0), 1.3)
LAW = Gaussian.from_covariance(
    np.array([1.0, 0.0, -0.5]), np.array([[1.0, 0.4, 0.1], [0.4, 0.5, 0.0], [0.1, 0.0, 0.2]])
)
EXACT = scores.exact(PROCESS, LAW)
NO_PROBES = np.zeros((N, 0, D))

#: Objectives, with the law and the number of their random directions.
LOSSES = {
    "explicit": ("explicit", "rademacher", 0),
    "denoising": ("denoising", "rademacher", 0),
    "implicit": ("implicit", "rademacher", 0),
    "a sign": ("implicit", "rademacher", 1),
    "two normals": ("implicit", "gaussian", 2),
    "sliced, a sign": ("sliced", "rademacher", 1),
    "sliced, three normals": ("sliced", "gaussian", 3),
}


@pytest.fixture(scope="module")
def draws() -> Draws:
    generator = np.random.default_rng(5)
    x0 = LAW.sample(N, generator)
    return x0, 0.05 + 0.95 * generator.random(N), generator.standard_normal((N, D))


def affine(score: GaussianScore, t: Array) -> Callable[[Tensor], Tensor]:
    """A known score at a time a row, that torch can differentiate."""
    slope, offset = (torch.as_tensor(part) for part in score.coefficients(t))
    basis = torch.as_tensor(score.law.basis)
    return lambda x: (x @ basis * slope + offset) @ basis.T


def row_losses(name: str, score: GaussianScore, draws: Draws) -> Array:
    """Unweighted losses of a known score, through the objective's own row loss."""
    x0, t, z = draws
    objective, probe, probes = LOSSES[name]
    drawn = PROBES[probe](np.random.default_rng(7), (N, probes, D))
    examples = OBJECTIVES[objective].examples(PROCESS, EXACT, x0, t, z, drawn)
    states, compared = torch.as_tensor(examples.states), torch.as_tensor(examples.targets)
    loss = OBJECTIVES[objective].row_loss(affine(score, t), states[None], compared[None])
    return np.asarray(loss[0].detach().numpy())


def test_states_follow_the_forward_kernel(draws: Draws) -> None:
    x0, t, z = draws
    states = denoising_score_matching(PROCESS, None, x0, t, z, NO_PROBES).states
    m, v = PROCESS.mean_scale(t)[:, None], PROCESS.kernel_variance(t)[:, None]
    np.testing.assert_allclose(states, m * x0 + np.sqrt(v) * z, rtol=1e-13)
    for objective in OBJECTIVES.values():
        examples = objective.examples(PROCESS, EXACT, x0, t, z, NO_PROBES)
        np.testing.assert_array_equal(examples.states, states)


def test_explicit_loss_of_the_exact_score_is_zero(draws: Draws) -> None:
    assert np.max(row_losses("explicit", EXACT, draws)) < 1e-20


def test_explicit_loss_of_a_biased_score_is_the_bias(draws: Draws) -> None:
    biased = scores.biased(PROCESS, LAW, 0.3)
    np.testing.assert_allclose(row_losses("explicit", biased, draws), D * 0.3**2, rtol=1e-9)


@pytest.mark.parametrize("weight", OF_VP)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "score",
    [EXACT, scores.scaled(PROCESS, LAW, 0.2), scores.plugin(PROCESS, LAW, 0.3)],
    ids=["exact", "scaled", "plugin"],
)
def test_every_loss_is_the_error_plus_a_known_constant(
    name: str, weight: str, score: GaussianScore, draws: Draws
) -> None:
    """At each time, hence with every weight: denoising by Σ (1/v − 1/V), implicit by −Σ 1/V."""
    _, t, _ = draws
    v, marginal = PROCESS.kernel_variance(t), PROCESS.marginal(LAW, t)
    information = np.sum(1 / marginal.eigenvalues, axis=-1)
    constant = {"explicit": 0 * t, "denoising": D / v - information}.get(name, -information)
    expected = score.error_moments(LAW, t)[0] + constant
    scale = WEIGHTS[weight].value(PROCESS, t, LAW)
    excess = scale * (row_losses(name, score, draws) - expected)
    error = excess.std() / np.sqrt(N)
    assert abs(excess.mean()) < 5 * error + 1e-12
    # the test has the power to tell the constant from none
    assert name == "explicit" or abs(np.mean(scale * constant)) > 30 * error


@pytest.mark.parametrize("weight", OF_VP)
@pytest.mark.parametrize("name", LOSSES)
def test_exact_score_minimises_every_loss(name: str, weight: str, draws: Draws) -> None:
    """Paired on the same draws, every perturbation costs more than five standard errors."""
    scale = WEIGHTS[weight].value(PROCESS, draws[1], LAW)
    best = row_losses(name, EXACT, draws)
    for perturb in (scores.scaled, scores.biased):
        for eps in (-0.2, 0.2):
            other = row_losses(name, perturb(PROCESS, LAW, eps), draws)
            gap = scale * (other - best)
            assert gap.mean() > 5 * gap.std() / np.sqrt(N)


# --- on the line, by quadrature, for a law that is not Gaussian ---------------------------

MIXTURE = targets.two_modes().law
WEIGHT, MEAN, VARIANCE = torch.tensor([[0.3, 0.7], [1.0, 3.0], [0.01, 0.25]], dtype=torch.float64)
SCALES = {0.0: (1.0, 0.0), 0.05: (0.9, 0.19), 1.0: (0.3, 0.91)}
"""t: m and v of a VP process; at t = 0 none of the data's law is noised."""


def log_density(x: Tensor, m: float, v: float) -> Tensor:
    """Of the noised mixture, in torch, written out."""
    spread = m**2 * VARIANCE + v
    terms = WEIGHT.log() - 0.5 * ((x[..., None] - m * MEAN) ** 2 / spread + spread.log())
    return torch.logsumexp(terms, dim=-1) - 0.5 * np.log(2 * np.pi)


def perturbed(m: float, v: float, eps: float) -> Callable[[Tensor], Tensor]:
    """The mixture's score and ε sin 2x, of states (R, n, 1)."""

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x if x.requires_grad else x.requires_grad_()
            (found,) = torch.autograd.grad(log_density(y[..., 0], m, v).sum(), y, create_graph=True)
        return found + eps * torch.sin(2 * x)

    return score


def line(m: float, v: float) -> tuple[Tensor, Tensor]:
    """Points and p dx, by the rectangle rule, which converges faster than any power here."""
    x = torch.linspace(-6.0, 8.0, 28001, dtype=torch.float64)
    return x, log_density(x, m, v).exp() * (x[1] - x[0])


@pytest.mark.parametrize(("m", "v"), SCALES.values(), ids=map(str, SCALES))
def test_implicit_is_explicit_less_the_information_of_a_mixture(m: float, v: float) -> None:
    """Stationary at the true score, where it is −J; at v = 0 this is Hyvärinen's own form."""
    x, mass = line(m, v)
    states, none = x[None, :, None], torch.empty((1, len(x), 0, 1), dtype=torch.float64)
    exact = perturbed(m, v, 0.0)(states.clone()).detach()
    np.testing.assert_allclose(
        exact[0, ::100].numpy(), MIXTURE.score(x[::100, None].numpy(), m, v), rtol=1e-9, atol=1e-9
    )
    information = float(MIXTURE.fisher_information(m, v))
    assert float((mass * exact[0, :, 0] ** 2).sum()) == pytest.approx(information, rel=1e-6)

    def implicit(eps: float) -> float:
        return float((mass * implicit_loss(perturbed(m, v, eps), states, none)[0]).sum().detach())

    for eps in (-0.5, -1e-3, 0.0, 1e-3, 0.5):
        explicit = (mass * squared_error(perturbed(m, v, eps), states.clone(), exact)[0]).sum()
        assert implicit(eps) + information == pytest.approx(explicit.item(), abs=1e-6 * information)
    slope = (implicit(1e-3) - implicit(-1e-3)) / 2e-3
    curvature = (implicit(1e-3) - 2 * implicit(0.0) + implicit(-1e-3)) / 1e-6
    assert abs(slope) < 1e-7 * information
    assert curvature == pytest.approx(2 * float((mass * torch.sin(2 * x) ** 2).sum()), rel=1e-3)


def test_denoising_is_explicit_and_a_constant_for_a_mixture() -> None:
    """By quadrature over x₀ and z together: explicit + d/v − J."""
    m, v = SCALES[0.05]
    x, mass = line(1.0, 0.0)
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    x0, mass = x[5000:26000:4], 4 * mass[5000:26000:4]
    joint = mass[:, None] * torch.as_tensor(weights / np.sqrt(2 * np.pi))
    states = (m * x0[:, None] + np.sqrt(v) * torch.as_tensor(z)).reshape(1, -1, 1)
    compared = torch.as_tensor(-z / np.sqrt(v)).expand(len(x0), -1).reshape(1, -1, 1)
    y, own = line(m, v)
    exact = perturbed(m, v, 0.0)(y[None, :, None].clone()).detach()
    constant = 1 / v - float(MIXTURE.fisher_information(m, v))
    for eps in (0.0, 0.3):
        score = perturbed(m, v, eps)
        denoising = (joint.reshape(-1) * squared_error(score, states.clone(), compared)[0]).sum()
        explicit = (own * squared_error(score, y[None, :, None].clone(), exact)[0]).sum()
        assert denoising.item() == pytest.approx(explicit.item() + constant, rel=1e-6)


# --- random directions ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("probe", PROBES)
def test_hutchinsons_estimate_is_unbiased_with_the_variance_that_is_known(
    probe: str, count: int
) -> None:
    """2/K Σ_{i≠j} A²_ij for signs, 2/K Σ A²_ij for normals, A the symmetric part."""
    generator = np.random.default_rng(3)
    n, jacobian = 100_000, torch.as_tensor(generator.standard_normal((4, 4)))
    symmetric = (jacobian + jacobian.T) / 2
    squares = symmetric**2 if probe == "gaussian" else symmetric**2 * (1 - torch.eye(4))
    x = torch.zeros((1, n, 4), dtype=torch.float64)
    probes = torch.as_tensor(PROBES[probe](generator, (1, n, count, 4)))
    found = implicit_loss(lambda x: x @ jacobian.T, x, probes)[0].detach().numpy() / 2
    error = found - float(jacobian.trace())
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(n)
    spread = (error**2).std() / np.sqrt(n)
    assert abs(np.mean(error**2) - 2 / count * float(squares.sum())) < 5 * spread
    # without probes all axes are taken: no variance at all
    none = torch.empty((1, n, 0, 4), dtype=torch.float64)
    trace = implicit_loss(lambda x: x @ jacobian.T, x, none)[0].detach().numpy() / 2
    np.testing.assert_allclose(trace, float(jacobian.trace()), rtol=1e-13)


def test_sliced_takes_the_score_along_its_directions() -> None:
    jacobian = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
    x = torch.tensor([[[1.0, 1.0]]])
    probes = torch.tensor([[[[1.0, -1.0], [2.0, 0.5]]]])
    s, total = x[0, 0] @ jacobian.T, 0.0
    for direction in probes[0, 0]:
        total += float((direction @ s) ** 2 + 2 * direction @ jacobian @ direction) / 2
    found = sliced_loss(lambda x: x @ jacobian.T, x, probes)
    assert found.item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_divergence_has_the_right_gradient_for_smooth_networks_alone(smooth: bool) -> None:
    """d/db E_{N(0,1)} s′(x), s = φ(wx + b): for ReLU the density at −b/w; autograd has 0."""
    activation = torch.nn.functional.silu if smooth else torch.nn.functional.relu
    x = torch.linspace(-10.0, 10.0, 200001, dtype=torch.float64)
    mass = torch.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    w, none = 1.5, torch.empty((1, len(x), 0, 1), dtype=torch.float64)

    def mean(b: Tensor) -> Tensor:
        def score(y: Tensor) -> Tensor:
            return activation(w * y + b)

        loss = implicit_loss(score, x[None, :, None], none)[0]
        with torch.enable_grad():  # its divergence alone
            return (mass * (loss - score(x).square())).sum() / 2

    b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(mean(b), b)
    true = (mean(b + 1e-2) - mean(b - 1e-2)).item() / 2e-2
    if smooth:
        assert float(seen) == pytest.approx(true, rel=1e-3)
    else:
        density = np.exp(-((0.7 / w) ** 2) / 2) / np.sqrt(2 * np.pi)
        assert true == pytest.approx(density, rel=1e-2)
        assert abs(float(seen)) < 1e-12


# --- weights ---------------------------------------------------------------------------------


def test_weights_are_what_their_names_say() -> None:
    t = np.array([0.001, 0.1, 0.5, 1.0])
    m, v = PROCESS.mean_scale(t), PROCESS.kernel_variance(t)
    expected = {
        "unit": v**0,
        "variance": v,
        "variance_squared": v**2,
        "beta": PROCESS.schedule.beta(t),
        "min_snr": np.minimum(m**2 / v, 5.0) * (v / m) ** 2,
    }
    for name, weight in expected.items():
        found = WEIGHTS[name].value(PROCESS, t, None)
        np.testing.assert_allclose(found, weight, rtol=1e-14, err_msg=name)
    assert set(expected) | {"information"} == set(OF_VP)
    with pytest.raises(ValueError, match="but for the process kinetic"):
        WEIGHTS["hybrid"].value(PROCESS, t, None)
    # beyond the ratio of signal to noise that floats can hold, min_snr is v
    late = VPProcess(ConstantSchedule(4000.0, 1.0), 1.0)
    assert WEIGHTS["min_snr"].value(late, np.array([4000.0]), None) == 1.0


@pytest.mark.parametrize(
    ("process", "law"),
    [
        (PROCESS, LAW),
        (PROCESS, MIXTURE),
        (VEProcess(GeometricSchedule(1.0, 0.05, 10.0)), MIXTURE),
    ],
    ids=["VP, Gaussian", "VP, mixture", "VE, mixture"],
)
def test_the_weight_of_information_is_the_rate_at_which_it_is_lost(
    process: Process, law: Law
) -> None:
    """2v/d times −dI(X₀; X_t)/dt: the entropy of p_t by quadrature, the kernel's in closed form."""
    times = np.array([0.02, 0.1, 0.3, 0.6])

    def information(t: float) -> float:
        m, v = float(process.mean_scale(t)), float(process.kernel_variance(t))
        if isinstance(law, Gaussian):
            return float(0.5 * np.sum(np.log(m**2 * law.eigenvalues / v + 1)))
        x = np.linspace(-60.0, 60.0, 1_200_001)
        log_p = log_density(torch.as_tensor(x), m, v).numpy()
        entropy = -np.sum(np.exp(log_p) * log_p) * (x[1] - x[0])
        return float(entropy - 0.5 * np.log(2 * np.pi * np.e * v))

    step = 1e-3
    rate = np.array([information(t - step) - information(t + step) for t in times]) / (2 * step)
    found = WEIGHTS["information"].value(process, times, law)
    v = process.kernel_variance(times)
    np.testing.assert_allclose(found, 2 * v * rate / law.dimension, rtol=5e-3)
    ends = WEIGHTS["information"].value(process, np.array([0.0, 1.0]), law)
    assert ends[0] == pytest.approx(float(process.schedule.beta(0.0)), rel=1e-6)
    assert np.all(ends >= 0)


def test_the_weight_of_information_ends_at_zero_where_nothing_is_left() -> None:
    late = VPProcess(ConstantSchedule(4000.0, 1.0), 1.0)
    for law in (LAW, MIXTURE):
        assert WEIGHTS["information"].value(late, np.array([4000.0]), law) == 0.0


def test_explicit_loss_needs_an_exact_score(draws: Draws) -> None:
    with pytest.raises(ValueError, match="objective = 'explicit'"):
        explicit_score_matching(PROCESS, None, *draws, NO_PROBES)
