"""What studies of laws that are not Gaussian pay for: ratios in one run.

Sliced W₂ of 10⁴ rows in d = 50 against POT's, over the same directions; the exact score of
the noised funnel and of MG25 against the affine score of a Gaussian, on the 512 rows that
the sampler sees at once; a whole curve of the W₂ bound, 21 values of a at N = 500, against
one simulated cell's worth of scores.

    python benchmarks/beyond_gaussian.py
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import ot

from sgm import bounds, divergences, scores, targets, timegrids
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule

REPEATS = 5


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of a call, median of `REPEATS` after one to warm up."""
    function()
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def process_of(a: float) -> VPProcess:
    """The paper's process, T = σ² = 1."""
    return VPProcess(BetaSchedule(horizon=1.0, a=a, beta_min=0.1, beta_max=20.0), 1.0)


def sliced() -> None:
    """Sliced W₂, ours and POT's."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 10_000, 50))
    directions = divergences.projections(50, 100, 0)
    ours = seconds(lambda: divergences.sliced_w2(x, y, directions))
    theirs = seconds(lambda: ot.sliced_wasserstein_distance(x, y, projections=directions))
    print(f"sliced W2, 100 directions: {ours:.3f} s; POT {theirs:.3f} s, {theirs / ours:.0f} times")


def noised_scores() -> None:
    """Exact scores of laws that are not Gaussian, against an affine one."""
    process, t = process_of(0.0), 0.3
    rows = np.random.default_rng(0).standard_normal((512, 50))
    laws = {
        "correlated Gaussian": targets.correlated(50, 1.0, 1.0).law,
        "MG25": targets.grid_mixture(50, 5, 0.01, 0.1).law,
        "funnel": targets.funnel(50, 1.0, 0.5).law,
        "funnel of spread 3": targets.funnel(50, 3.0, 0.5).law,
    }
    base = 0.0
    for name, law in laws.items():
        score = scores.exact(process, law)
        taken = seconds(lambda score=score: [score(rows, t) for _ in range(50)]) / 50
        base = base or taken
        print(f"score of 512 rows, {name}: {1e3 * taken:.2f} ms, {taken / base:.1f} times affine")


def w2_curve() -> None:
    """The W₂ bound for 21 values of a."""
    law = targets.correlated(50, 1.0, 1.0).law
    times, zero = timegrids.uniform(1.0, 500), np.zeros(500)

    def curve() -> None:
        for a in range(-10, 11):
            bounds.gaussian_w2_bound(
                process_of(a), law, times, score_mse_generated=zero, score_mse_forward=zero
            )

    score, rows = scores.exact(process_of(0.0), law), np.zeros((512, 50))
    taken = seconds(curve)
    scored = seconds(lambda: [score(rows, 0.3) for _ in range(100)])
    print(f"W2 bound, 21 curves at N = 500: {taken:.3f} s")
    print(f"the exact scores of one cell, 20 chunks of 500 steps: {scored * 100:.1f} s")


def main() -> None:
    """Print all."""
    sliced()
    noised_scores()
    w2_curve()


if __name__ == "__main__":
    main()
