"""Sampling from trained networks: `simulate_reverse` against a naive loop, as ratios.

10⁴ samples in 100 steps from one wide network (width 256, d = 50: the paper's) and from
ten narrow ones (width 64, d = 10: the default study's). The naive loop runs the network
of reference.py on all rows at once, one network after the other, with a time a row and
fresh normal draws every step. Runs alternate; the medians of their CPU seconds are
compared. The share of the core's limit is the rate of the floating-point operations
that the layers need (the time branch, once a step, left out) over the rate of a plain
512 × 256 × 256 product in the same process.

    python benchmarks/sampling.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import reference
import torch

from sgm import samplers, timegrids
from sgm.architectures import MLP
from sgm.networks import ScoreEnsemble
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.simulation import simulate_reverse

CASES = {"one network, width 256, d = 50": (1, 256, 50), "ten, width 64, d = 10": (10, 64, 10)}


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


@torch.no_grad()
def product_rate() -> float:
    """Fastest of several rates of a float32 product of 512 × 256 by 256 × 256, in flop/s."""
    left, right = torch.randn(512, 256), torch.randn(256, 256)
    seconds = [cpu_seconds(lambda: [left @ right for _ in range(200)]) for _ in range(10)]
    return 200 * 2 * 512 * 256 * 256 / min(seconds)


def compare(networks: int, width: int, dimension: int, options: argparse.Namespace) -> str:
    """One row of the table."""
    process = VPProcess(BetaSchedule(horizon=1.0, a=0.0, beta_min=0.1, beta_max=20.0), 1.0)
    grid = timegrids.uniform(process.horizon, options.steps)
    steps = samplers.exponential_integrator_modified(process, grid)
    architecture = MLP(
        dimension=dimension,
        width=width,
        layers=3,
        time_width=64,
        time_scale=1000.0,
        output="relative",
    )
    ensemble = ScoreEnsemble.initial(architecture, range(networks)).bind(process)
    modules = [reference.PaperNetwork(dimension, width) for _ in range(networks)]

    def ours() -> None:
        simulate_reverse(
            steps,
            ensemble,
            process.variance,
            options.samples,
            dimension,
            0,
            range(networks),
            {},
            torch.float32,
            torch.device("cpu"),
        )

    def naive() -> None:
        for module in modules:
            reference.sample(module, steps, options.samples, dimension)

    runs = [(cpu_seconds(naive), cpu_seconds(ours)) for _ in range(options.repeats)]
    slow, fast = (statistics.median(column) for column in zip(*runs, strict=True))
    rows = networks * options.samples * options.steps
    operations = 2 * rows * (2 * dimension * width + 3 * width**2)
    return (
        f"{slow:9.2f}{fast:9.2f}{slow / fast:9.1f}{operations / fast / 1e9:9.1f}"
        f"{operations / fast / product_rate():10.0%}"
    )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.samples} samples × {options.steps} steps, CPU seconds of one thread")
    print(f"{'':32}{'naive':>9}{'ours':>9}{'ratio':>9}{'Gflop/s':>9}{'of limit':>10}")
    for name, case in CASES.items():
        print(f"{name:32}{compare(*case, options)}", flush=True)


if __name__ == "__main__":
    main()
