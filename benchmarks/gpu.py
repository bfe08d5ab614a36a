"""A GPU against one core: training and sampling of networks, as ratios.

Networks of the default recipe of paper-kl.yaml (width 256, d = 50). A GPU runs all networks of a
job in one pass, so that the launches of its small kernels are shared: a step of 10 networks costs
little more than that of one. The core's time is that of the process, the GPU's is by the clock.

    python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import recipes
import torch

from sgm import samplers, scores, timegrids
from sgm.networks import ScoreEnsemble, affine_score_fn
from sgm.simulation import simulate_reverse
from sgm.training import train_networks

PAIR, SEED = "correlated:0", 1


def seconds(run: Callable[[], object]) -> float:
    """Wall time of a call, which ends with all kernels done."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=314, help="of training, two epochs of 157")
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 10, 40])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing to measure")
    torch.set_num_threads(1)
    study, recipe = recipes.read_study("paper-kl")
    pair = recipes.Pair.of(study, PAIR, SEED)
    exact = scores.exact(pair.process, pair.law)
    recipe = replace(recipe, steps=options.steps)
    times = timegrids.uniform(pair.process.horizon, 100)
    steps = samplers.exponential_integrator_modified(pair.process, times)

    def train(n: int, device: str) -> ScoreEnsemble:
        rows, seeds = np.stack([pair.samples] * n), list(range(n))
        return train_networks(
            recipe, pair.process, rows, exact, study.study_seed, seeds, {}, device
        ).networks

    def sample(networks: ScoreEnsemble, device: str) -> None:
        simulate_reverse(
            steps, networks.to(torch.device(device)).bind(pair.process).for_sampling(),
            pair.process.prior_variance, 1024, pair.law.dimension, study.study_seed,
            list(range(len(networks))), {}, torch.float32, torch.device(device),
        )  # fmt: skip

    def sample_exact(n: int, device: str) -> None:
        simulate_reverse(
            steps, affine_score_fn(exact, torch.float64, torch.device(device)),
            pair.process.prior_variance, 1024, pair.law.dimension, study.study_seed,
            list(range(n)), {}, torch.float64, torch.device(device),
        )  # fmt: skip

    train(1, "cuda"), train(1, "cpu")  # what is loaded once
    print(f"{torch.cuda.get_device_name()}, {torch.backends.cuda.matmul.allow_tf32 = }")
    print(f"{'':32}{'networks':>9}{'core':>10}{'GPU':>10}{'ratio':>7}")
    for n in options.networks:
        networks = train(n, "cuda")
        sample(networks, "cuda")
        ways: dict[str, tuple[Callable[[str], object], int]] = {
            "ms a training step": (lambda device: train(n, device), options.steps),  # noqa: B023
            "ms a step of 1,024 rows": (lambda device: sample(networks, device), 100),  # noqa: B023
            "the same, exact score": (lambda device: sample_exact(n, device), 100),  # noqa: B023
        }
        for name, (run, count) in ways.items():
            core, gpu = (1e3 * seconds(lambda: run(device)) / count for device in ("cpu", "cuda"))  # noqa: B023
            print(f"{name:32}{n:9}{core:10.2f}{gpu:10.2f}{core / gpu:7.1f}", flush=True)


if __name__ == "__main__":
    main()
