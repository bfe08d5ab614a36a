"""Particles for a posterior: weights, evidence, limits and mechanics, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from sgm import networks, particles, samplers, simulation, targets
from sgm.gaussian import kl_divergence
from sgm.particles import ParticleScore, Weights, particle_limit, systematic, twisted_smc
from sgm.processes import VEProcess, VPProcess
from sgm.run.check import check
from sgm.run.jobs import theory
from sgm.samplers import Steps
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Plan, Study
from sgm.targets import Target

Array = npt.NDArray[np.float64]

VP = VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), 1.3)
VE = VEProcess(GeometricSchedule(1.0, 0.01, 20.0))
HALF = targets.posterior(targets.correlated(2, 1.0, 1.0), [0], 0.5, [-1.0])
RING = targets.posterior(targets.ring_mixture(modes=5, radius=2.0, variance=0.1), [0], 0.3, [0.4])
GUIDANCE = ("exact", "dps", "pigdm", "moment_guidance", "replacement", "classifier_free")


def chain(n: int, sampler: Any = samplers.ancestral, process: Any = VP) -> Steps:
    steps: Steps = sampler(process, np.linspace(process.horizon, 0, n + 1))
    return steps


def run(
    score: ParticleScore, steps: Steps, n: int, seeds: int = 1, **keys: Any
) -> simulation.ParticleRun:
    return simulation.simulate_particles(
        steps, score, n, 7, range(seeds), {"target": "posterior"}, **keys
    )


# --- weights -----------------------------------------------------------------------------


def test_systematic_resampling_draws_each_particle_as_often_as_its_weight_says() -> None:
    shares = np.array([0.05, 0.0, 0.35, 0.15, 0.45, 0.0])
    mesh = (np.arange(2000) + 0.5) / 2000
    drawn = systematic(np.broadcast_to(shares, (2000, 6)), mesh, 4)
    counts = np.stack([(drawn == i).sum(axis=1) for i in range(6)], axis=1)
    np.testing.assert_allclose(counts.mean(axis=0), 4 * shares, atol=1e-3)
    assert np.all((counts >= np.floor(4 * shares)) & (counts <= np.ceil(4 * shares)))
    assert drawn.shape == (2000, 4)
    # u next to 1, where n − u rounds
    edge = systematic(np.full((1, 10**5), 1e-5), np.array([np.nextafter(1, 0)]), 10**5)
    assert edge.shape == (1, 10**5)


def test_weights_know_their_effective_size_and_forget_nothing_of_the_evidence() -> None:
    weights = Weights((2, 4))
    weights.log += np.log([[1.0, 1, 1, 1], [8.0, 0.5, 0.5, 1]]) - 800
    np.testing.assert_allclose(weights.effective(), [1, 100 / (4 * 65.5)])
    indices = weights.resample(0.5, np.array([0.3, 0.3]))
    assert indices is not None
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3], [0, 0, 0, 1]])
    np.testing.assert_array_equal(weights.resampled, [0, 1])
    weights.log += np.log(3.0)
    assert weights.resample(0.5, np.array([0.3, 0.3])) is None
    weights.finish(1, np.array([0.3, 0.3]))
    np.testing.assert_allclose(weights.log_evidence, [np.log(3) - 800, np.log(7.5) - 800])
    np.testing.assert_allclose(weights.least, [1, 100 / (4 * 65.5)])


@pytest.mark.parametrize("target", [HALF, RING], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_potentials_have_the_guidance_for_gradient_and_end_at_the_likelihood(
    target: Target, guidance: str
) -> None:
    for process in (VP, VE):
        proposal = twisted_smc(process, target.law, guidance, 2).proposal
        x = np.random.default_rng(0).standard_normal((6, 2))
        gap = proposal.propose(x, 0.0).log_potential - target.law.observation.log_likelihood(x)
        constant = 0.0 if guidance in GUIDANCE[1:5] else gap[0]  # one number does not matter
        np.testing.assert_allclose(gap, constant, atol=1e-9)
        if guidance == "replacement" or (guidance == "moment_guidance" and target is RING):
            continue  # whose guidance is no gradient
        h = 1e-5
        for t in (0.05, 0.5):
            found = proposal.propose(x, t)
            np.testing.assert_allclose(found.score, proposal(x, t), rtol=1e-12, atol=1e-12)
            right, left = (
                [proposal.propose(x + e, t).log_potential for e in side * np.eye(2)]
                for side in (h, -h)
            )
            slope = np.subtract(right, left) / (2 * h)
            np.testing.assert_allclose(
                found.score - found.prior_score, np.transpose(slope), rtol=1e-5, atol=1e-5
            )


# --- against closed forms ----------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 1.0], ids=["weights", "resampled"])
@pytest.mark.parametrize("guidance", ["dps", "moment_guidance", "replacement"])
def test_the_evidence_is_unbiased_for_few_particles(guidance: str, threshold: float) -> None:
    """Against that of the chain, which is far from the prior's own: five steps are few."""
    steps = chain(5, samplers.exponential_integrator_modified)
    limit = particle_limit(steps, VP, HALF.law)
    score = twisted_smc(VP, HALF.law, guidance, 3, threshold, 0.5 if guidance == "dps" else 1.0)
    ratio = np.exp(run(score, steps, 4000).log_evidence - limit.log_evidence)
    error = ratio.std() / np.sqrt(ratio.size)
    assert abs(ratio.mean() - 1) < 4 * error
    assert abs(HALF.law.observation.log_evidence - limit.log_evidence) > 10 * error


def test_the_evidence_of_a_mixture_is_that_of_the_quadrature() -> None:
    """Two steps on the line: the start and the middle are integrated, the end is Gaussian."""
    prior = targets.mixture([0.3, 0.7], [-1.0, 1.5], [0.1, 0.4])
    law = targets.posterior(prior, [0], 0.3, [0.2]).law
    steps = chain(2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    weights = weights / weights.sum()
    x = np.sqrt(VP.prior_variance) * nodes

    def moved(x: Array, k: int) -> Array:
        m, v = VP.mean_scale(steps.score_time[k]), VP.kernel_variance(steps.score_time[k])
        return steps.state[k] * x + steps.score[k] * prior.law.score(x[..., None], m, v)[..., 0]

    middle = moved(x, 0)[:, None] + steps.noise[0] * nodes
    spread = law.observation.variance + steps.noise[1] ** 2
    density = np.exp(-((0.2 - moved(middle, 1)) ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)
    evidence = weights @ density @ weights
    for guidance in ("pigdm", "moment_guidance"):
        found = np.exp(run(twisted_smc(VP, law, guidance, 4, 1.0), steps, 4000).log_evidence)
        assert abs(found.mean() - evidence) < 4 * found.std() / np.sqrt(found.size)
        assert found.std() / np.sqrt(found.size) < 0.02 * evidence


def test_many_particles_follow_the_posterior_of_the_chain_not_that_of_the_prior() -> None:
    steps = chain(5)
    limit = particle_limit(steps, VP, HALF.law)
    assert kl_divergence(HALF.law, limit.law) > 0.05
    many = replace(twisted_smc(VP, HALF.law, "pigdm", 2000), kept=2000)
    rows = run(many, steps, 2000, seeds=12).rows
    for value, expected in (
        (rows.mean(axis=1), limit.law.mean),
        (((rows - limit.law.mean) ** 2).mean(axis=1), np.diag(limit.law.covariance)),
    ):
        error = value.std(axis=0, ddof=1) / np.sqrt(12)
        assert np.all(error < 0.02)
        np.testing.assert_array_less(abs(value.mean(axis=0) - expected), 4 * error)
    # and one row of a few does so better than the score alone
    gaps = [
        np.linalg.norm(run(score, steps, 2000).rows[0].mean(axis=0) - limit.law.mean)
        for score in (twisted_smc(VP, HALF.law, "dps", k) for k in (1, 16))
    ]
    assert gaps[1] < gaps[0] / 3


def test_weights_of_the_exact_score_even_out_at_first_order_in_the_step() -> None:
    """Of a Gaussian prior `moment_guidance` is exact: what weighs are the steps alone."""
    noisy = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 30.0), 1.0)  # the start, which no step evens out
    score = twisted_smc(noisy, HALF.law, "moment_guidance", 100, 0.0)
    uneven = [1 - run(score, chain(n, process=noisy), 20).effective.mean() for n in (20, 40, 80)]
    assert uneven[-1] < 0.025
    orders = np.log2(np.divide(uneven[:-1], uneven[1:]))
    assert np.all((orders > 0.9) & (orders < 1.15)), orders


# --- mechanics ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", [HALF, RING], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("guidance", ["dps", "replacement"])
def test_one_particle_is_the_chain_of_its_score_bit_for_bit(target: Target, guidance: str) -> None:
    score, device = twisted_smc(VP, target.law, guidance, 1), torch.device("cpu")
    found = run(score, chain(4), 600, seeds=2, watch=[2])
    points = {}
    plain = simulation.simulate_reverse(
        chain(4), networks.score_fn(score.proposal, torch.float64, device), VP.prior_variance,
        600, 2, 7, range(2), {"target": "posterior"}, torch.float64, device,
        lambda stage, rows, y, s: points.setdefault((stage, rows.start), y.numpy()),
    )  # fmt: skip
    np.testing.assert_array_equal(found.rows, plain.numpy())
    whole = np.concatenate([points[2, 0], points[2, 512]], axis=1)
    np.testing.assert_array_equal(found.watched[2], whole)
    np.testing.assert_array_equal(found.effective, 1)


def test_a_row_keeps_its_ancestors() -> None:
    """Each step from the watched point to the next is one of the chain: its noise is normal."""
    steps, score = chain(6), replace(twisted_smc(VP, RING.law, "dps", 50, 1.0), kept=10)
    found = run(score, steps, 200, watch=range(6))
    points = [*(found.watched[k] for k in range(6)), found.rows]
    for k in range(6):
        s = score.proposal(points[k], float(steps.score_time[k]))
        z = (points[k + 1] - steps.state[k] * points[k] - steps.score[k] * s) / steps.noise[k]
        assert abs(z).max() < 5
        assert z.std() > 0.5


def test_a_last_step_without_noise_takes_the_score_of_the_prior() -> None:
    steps = chain(5, samplers.ancestral_small)
    assert steps.noise[-1] == 0
    limit = particle_limit(steps, VP, HALF.law)
    ratio = np.exp(
        run(twisted_smc(VP, HALF.law, "moment_guidance", 4), steps, 4000).log_evidence
        - limit.log_evidence
    )
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(ratio.size)


def test_a_chain_that_diverges_has_no_limit(capsys: pytest.CaptureFixture[str]) -> None:
    steep = VPProcess(BetaSchedule(1.0, 0.0, 1e3, 1e9), 1.0)
    steps = chain(60, samplers.euler_maruyama, steep)
    with pytest.raises(ValueError, match="must give a chain of the prior's score that stays in fl"):
        particle_limit(steps, steep, HALF.law)
    assert theory._limit(steps, twisted_smc(steep, HALF.law, "dps", 2)) == {}
    assert "stays in float64" in capsys.readouterr().out


def test_rows_of_filters_that_lose_their_weights_are_nan() -> None:
    far = targets.posterior(targets.isotropic(2, 0.0, 1.0), [0], 1e-9, [1e155])
    found = run(twisted_smc(VP, far.law, "moment_guidance", 3, weight=0.0), chain(3), 4)
    assert np.isnan(found.rows).all()
    assert np.isnan(found.diagnostics["log_evidence"]).all()


def test_numbers_of_a_filter_depend_neither_on_its_neighbours_nor_on_their_number() -> None:
    score, steps = twisted_smc(VP, RING.law, "dps", 100), chain(4)
    alone, many = run(score, steps, 5), run(score, steps, 12, seeds=3)
    np.testing.assert_array_equal(alone.rows[0], many.rows[0, :5])
    np.testing.assert_array_equal(alone.log_evidence[0], many.log_evidence[0, :5])
    assert len(np.unique(many.rows[..., 0])) == 36


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"guidance": "exact", "weight": 0.5}, "weight = 0.5: must be left out for guidance = 'ex"),
        ({"kept": 5}, "kept = 5: must be at most 4, the number of particles"),
        ({"threshold": 1.5}, r"threshold = 1.5: must lie in \[0, 1\]"),
    ],
)
def test_what_makes_no_filter_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        twisted_smc(VP, HALF.law, **{"guidance": "dps", "particles": 4} | keys)


def test_only_samplers_with_gaussian_steps_have_weights() -> None:
    times = np.linspace(1.0, 0, 9)
    for sampler in (
        samplers.ancestral,
        samplers.euler_maruyama,
        lambda p, t: samplers.ddim(p, t, 0.5),
        lambda p, t: samplers.predictor_corrector(p, t, 2, 0.01),
    ):
        particles.require_gaussian_steps(sampler(VP, times))
    for sampler in (samplers.ddim, samplers.heun, samplers.unipc):
        with pytest.raises(ValueError, match="must draw Gaussian noise in each step"):
            particles.require_gaussian_steps(sampler(VP, times))
    with pytest.raises(ValueError, match="n_samples = 5: must be a multiple of kept = 2"):
        run(twisted_smc(VP, HALF.law, "dps", 4, kept=2), chain(2), 5)


CONFIG = """
study: particles
targets:
  - {family: posterior, name: half, observed: [0], noise: 0.2,
     prior: {family: correlated, dimension: 3, mean: 1.0, offset: 1.0}}
schedules: {family: beta_a, a: 0, beta_min: 0.1, beta_max: 20.0}
scores:
  - {family: twisted_smc, guidance: dps, particles: [2, 8], threshold: [0, 0.5], kept: 2,
     sampled: true}
n_steps: [6]
n_samples: 30
likelihood: {rows: 10, nodes: 8, cutoff: 0.001, divergence: exact, directions: 1, method: RK45,
  rtol: 0.1, atol: 0.1, atol_nats: 0.1}
"""


def test_a_study_has_particles_on_the_axis_of_scores(tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG)
    study = Study.parse(config)
    check(study)
    plan = Plan(study, tmp_path)
    labels = [score.label for score in study.scores]
    assert labels[:2] == [
        "twisted_smc_particles=2_threshold=0",
        "twisted_smc_particles=2_threshold=0.5",
    ]
    assert {"ess", "log_evidence", "log_evidence_exact", "kl_limit"} <= plan.variables.keys()
    assert {"ess/half", "log_evidence/half"} <= set(plan.figures())
    assert not list(plan.cells("likelihood"))  # the rows follow no score that had one
    for wrong, message in (
        ({"samplers": ["ddim"]}, "samplers: ddim_eta=0: must draw Gaussian noise in each step"),
        (
            {"n_samples": 31},
            "scores: kept = 2 of 'twisted_smc_particles=2_threshold=0': must divide",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check(Study.parse(config | wrong))
