"""Exact laws against Monte Carlo: a whole sweep of cells against one estimate.

For the correlated target in d = 50 and its exact score: the exact KL divergence of the
sampler's output for 21 values of a, three numbers of steps and two samplers (126 cells)
from `sgm.laws`, beside one Monte-Carlo estimate of one cell (10⁴ samples, N = 500, the
plug-in estimator). The same cell is printed by both: the estimate should lie above the
exact value by its noise floor.

    python benchmarks/exact_laws.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sgm import divergences, samplers, scores, targets, timegrids
from sgm.gaussian import Gaussian, kl_divergence
from sgm.laws import sampler_law
from sgm.networks import affine_score_fn
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.simulation import simulate_reverse

A = range(-10, 11)
N_STEPS = (100, 500, 1000)
SAMPLERS = (samplers.exponential_integrator_modified, samplers.euler_arrival)


def process_of(a: float) -> VPProcess:
    """The paper's process, T = σ² = 1."""
    return VPProcess(BetaSchedule(horizon=1.0, a=a, beta_min=0.1, beta_max=20.0), 1.0)


def sweep(law: Gaussian) -> dict[tuple[float, int, str], float]:
    """Exact KL divergence of every cell."""
    found = {}
    for a in A:
        process = process_of(a)
        score, prior = scores.exact(process, law), process.prior(law.dimension)
        for n_steps in N_STEPS:
            times = timegrids.uniform(process.horizon, n_steps)
            for sampler in SAMPLERS:
                output = sampler_law(sampler(process, times), score, prior)
                found[a, n_steps, sampler.__name__] = float(kl_divergence(law, output))
    return found


def estimate(law: Gaussian, n_samples: int) -> float:
    """Plug-in KL divergence of one cell: a = 0, N = 500, the first sampler."""
    process = process_of(0.0)
    sample = simulate_reverse(
        SAMPLERS[0](process, timegrids.uniform(process.horizon, 500)),
        affine_score_fn(scores.exact(process, law), torch.float64, torch.device("cpu")),
        process.variance,
        n_samples,
        law.dimension,
        0,
        [0],
        {},
        torch.float64,
        torch.device("cpu"),
    )
    return divergences.plugin_kl(law, divergences.Moments.of(sample[0].numpy()))


def main() -> None:
    """Parse the command line and print both times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9, help="of the sweep; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    law = targets.correlated(50, 1.0, 1.0).law

    seconds = []
    for _ in range(options.repeats):
        started = time.process_time()
        exact = sweep(law)
        seconds.append(time.process_time() - started)
    swept = statistics.median(seconds)
    started = time.process_time()
    estimated = estimate(law, options.samples)
    simulated = time.process_time() - started
    floor, floor_sd = divergences.plugin_kl_floor(law.dimension, options.samples)
    cell = exact[0, 500, SAMPLERS[0].__name__]

    print(f"exact laws, {len(exact)} cells          {swept:9.3f} CPU s")
    print(f"one Monte-Carlo estimate        {simulated:9.3f} CPU s")
    print(f"ratio, estimate to sweep        {simulated / swept:9.1f}")
    print(f"ratio, cell to cell             {simulated / swept * len(exact):9.0f}")
    print(
        f"KL at a = 0, N = 500: exact {cell:.5f}, estimate {estimated:.5f}"
        f" = exact + {estimated - cell:.5f}, noise floor {floor:.5f} ± {floor_sd:.5f}"
    )
    assert np.all(np.isfinite(list(exact.values())))


if __name__ == "__main__":
    main()
