"""Streams of the one loop: chunks, replicates, common random numbers, failures.

That its law is right is the sentinel's business (test_sentinel.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sgm import samplers, scores, timegrids
from sgm.architectures import MLP
from sgm.gaussian import Gaussian
from sgm.networks import ScoreEnsemble, ScoreFn, affine_score_fn
from sgm.processes import VPProcess
from sgm.samplers import Steps
from sgm.schedules import BetaSchedule, ConstantSchedule
from sgm.simulation import CHUNK_ROWS, Observer, simulate_reverse

CPU = torch.device("cpu")
D = 5
PROCESS = VPProcess(BetaSchedule(horizon=1.0, a=0.0, beta_min=0.1, beta_max=20.0), 1.0)
STEPS = samplers.exponential_integrator_modified(PROCESS, timegrids.uniform(1.0, 8))
COVARIANCE = 1 / np.sqrt(1 + np.abs(np.subtract.outer(np.arange(D), np.arange(D))))
LAW = Gaussian.from_covariance(np.ones(D), COVARIANCE)
EXACT = affine_score_fn(scores.exact(PROCESS, LAW), torch.float32, CPU)
NETWORKS = ScoreEnsemble.initial(
    MLP(
        dimension=D,
        width=16,
        layers=2,
        time_width=16,
        time_scale=1000.0,
        output="relative",
    ),
    range(4),
).bind(PROCESS)


def simulate(
    score_fn: ScoreFn,
    n: int,
    seeds: list[int],
    steps: Steps = STEPS,
    observe: Observer | None = None,
) -> torch.Tensor:
    return simulate_reverse(
        steps, score_fn, 1.0, n, D, 7, seeds, {"target": "x"}, torch.float32, CPU, observe
    )


@pytest.mark.parametrize("score_fn", [EXACT, NETWORKS], ids=["affine", "networks"])
def test_rows_of_a_chunk_do_not_depend_on_the_chunks_after_it(score_fn: ScoreFn) -> None:
    seeds = [0, 1, 2, 3]
    long = simulate(score_fn, 2 * CHUNK_ROWS + 100, seeds)
    assert torch.equal(simulate(score_fn, CHUNK_ROWS, seeds), long[:, :CHUNK_ROWS])
    assert torch.equal(simulate(score_fn, 2 * CHUNK_ROWS, seeds), long[:, : 2 * CHUNK_ROWS])
    assert not torch.equal(long[:, :100], long[:, CHUNK_ROWS : CHUNK_ROWS + 100])


@pytest.mark.parametrize("n", [CHUNK_ROWS, 77])
def test_a_replicate_does_not_depend_on_its_neighbours(n: int) -> None:
    whole = simulate(NETWORKS, n, [0, 1, 2, 3])
    for block in (slice(0, 1), slice(2, 4)):
        part = simulate(NETWORKS[block], n, [0, 1, 2, 3][block])
        assert torch.equal(part, whole[block])
        exact = simulate(EXACT, n, [0, 1, 2, 3][block])
        assert torch.equal(exact, simulate(EXACT, n, [0, 1, 2, 3])[block])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_blocks_change_no_bit_whatever_multiplies(precision: str) -> None:
    networks = NETWORKS.for_sampling(precision, "oneDNN")
    seeds = [0, 1, 2, 3]
    whole = simulate(networks, CHUNK_ROWS + 100, seeds)
    assert torch.equal(simulate(networks, CHUNK_ROWS + 100, seeds), whole)
    assert torch.equal(simulate(networks, CHUNK_ROWS, seeds), whole[:, :CHUNK_ROWS])
    for block in (slice(0, 1), slice(2, 4)):
        part = simulate(networks[block], CHUNK_ROWS + 100, seeds[block])
        assert torch.equal(part, whole[block])


def test_the_same_networks_in_fewer_bits_stay_beside_their_chain() -> None:
    """On the same noise: bfloat16 rounds to 2⁻⁹, float32 to 2⁻²⁴, whatever multiplies."""
    seeds = [0, 1, 2, 3]
    chain = simulate(NETWORKS, 1000, seeds)
    assert torch.equal(simulate(NETWORKS.for_sampling(products="BLAS"), 1000, seeds), chain)

    def distance(networks: ScoreEnsemble) -> float:
        return float((simulate(networks, 1000, seeds) - chain).square().mean().sqrt())

    assert distance(NETWORKS.for_sampling(products="oneDNN")) < 1e-6
    assert 1e-5 < distance(NETWORKS.for_sampling("bfloat16")) < 2**-6


def test_noise_is_shared_across_scores_schedules_and_samplers() -> None:
    """With the score's factor at zero the output is a function of the draws alone."""
    drawn = {}
    for a in (-3.0, 4.0):
        process = replace(PROCESS, schedule=BetaSchedule(1.0, a, 0.1, 20.0))
        for scheme in (samplers.euler_maruyama, samplers.exponential_integrator):
            steps = scheme(process, timegrids.uniform(1.0, 8))
            first = Steps(steps.score_time[:1], np.ones(1), np.zeros(1), np.ones(1))
            drawn[a, scheme.__name__] = simulate(EXACT, 20, [3], first)
    reference = next(iter(drawn.values()))
    assert all(torch.equal(value, reference) for value in drawn.values())
    assert not torch.equal(simulate(EXACT, 20, [4], first), reference)


def test_a_stage_without_noise_draws_none() -> None:
    """A silent stage in front leaves the later draws where they were."""
    noisy = Steps(np.ones(1), np.ones(1), np.zeros(1), np.ones(1))
    silent_first = Steps(np.ones(2), np.ones(2), np.zeros(2), np.array([0.0, 1.0]))
    assert torch.equal(simulate(EXACT, 20, [0], silent_first), simulate(EXACT, 20, [0], noisy))


def test_observer_sees_every_stage_of_every_row() -> None:
    n = CHUNK_ROWS + 40
    seen = torch.zeros(len(STEPS), n)
    starts = torch.empty(2, n, D)

    def observe(stage: int, rows: slice, x: torch.Tensor, s: torch.Tensor) -> None:
        assert torch.equal(s, EXACT(x, STEPS.score_time[stage]))
        seen[stage, rows] += 1
        if stage == 0:
            starts[:, rows] = x

    simulate(EXACT, n, [0, 1], observe=observe)
    assert torch.all(seen == 1)
    # the start is the stationary law
    squares = starts.double().square()
    assert abs(squares.mean() - 1) < 5 * (2 / squares.numel()) ** 0.5


def test_registers_are_combined_as_the_table_says() -> None:
    """Against plain arithmetic; a register may hold a point, a score, a noise or nothing."""
    x, saved, drawn, s, _, z = samplers.symbols(3)
    half = np.array([[0.5]])
    steps = samplers.program(
        PROCESS,
        1,
        [
            samplers.Stage(None, x, [x, 0 * x, z]),
            samplers.Stage(np.array([[1.0]]), x + 0.5 * drawn, [x, s, drawn]),
            samplers.Stage(np.array([[0.4]]), saved, [s + half * drawn + z, x, saved - drawn]),
            samplers.Stage(None, x, [x - 2 * saved + drawn, saved, drawn]),
        ],
    )
    found = simulate(EXACT, 20, [0], steps)
    seen: list[torch.Tensor] = []
    silent = Steps(np.ones(3), np.zeros(3), np.zeros(3), np.ones(3))
    simulate(EXACT, 20, [0], silent, lambda stage, rows, y, s: seen.append(y))
    start, first, second = seen  # what is drawn, in order
    slope = EXACT(start + 0.5 * first, 1.0)
    expected = EXACT(slope, 0.4) + 0.5 * first + second - 2 * start + slope - first
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_failed_network_gives_nan_and_harms_no_other() -> None:
    weights = {k: w.clone() for k, w in NETWORKS.weights.items()}
    for w in weights.values():
        w[1] = torch.nan
    broken = simulate(ScoreEnsemble(NETWORKS.architecture, weights, PROCESS), 60, [0, 1, 2, 3])
    sound = simulate(NETWORKS, 60, [0, 1, 2, 3])
    assert torch.all(broken[1].isnan())
    for r in (0, 2, 3):
        assert torch.equal(broken[r], sound[r])


def test_a_step_too_long_for_the_score_s_digits_is_refused() -> None:
    """The exact law of such a step is right; what float32 would make of it is not."""
    process = VPProcess(ConstantSchedule(1.0, 30.0), 1.0)
    steps = samplers.ancestral(process, timegrids.uniform(1.0, 1))
    with pytest.raises(ValueError, match="times: a step multiplies rounding errors of the score"):
        simulate(EXACT, 20, [0], steps)
