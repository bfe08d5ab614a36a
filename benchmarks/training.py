"""Training of score networks: rate of a step, against the core's limits and the authors' loop.

The recipes of paper-kl.yaml (default) and paper-kl-authors.yaml (authors'), on the correlated
target, a = 0; the authors' loop is reference.py's. A step's operations are those of its matrix
products, forward and, twice as many, backward. They are held against the rate of one such product
of 64 rows by the library that training uses (torch's BLAS), and against the core's limit in
float32, the faster library's rate for 512 rows. Ways alternate; the medians of the CPU time a step
are shown.

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import recipes
import reference
import torch
from sampling import cpu_seconds, product_rates

from sgm import scores
from sgm.architectures import build_architecture
from sgm.training import Recipe, train_networks

PAIR, SEED = "correlated:0", 1


def operations(recipe: Recipe, dimension: int) -> float:
    """Floating-point operations of a step's products: forward, and both gradients of each."""
    architecture = build_architecture(recipe.network, dimension, None)
    matrices = [shape for shape in architecture.shapes.values() if len(shape) == 2]
    return 3 * 2 * recipe.batch_size * sum(np.prod(shape) for shape in matrices)


@torch.no_grad()
def small_rate() -> float:
    """Fastest rate of products of 64 × 256 by 256 × 256 by the BLAS, in flop/s."""
    left, right = torch.randn(64, 256), torch.randn(256, 256)
    seconds = [cpu_seconds(lambda: [left @ right for _ in range(1000)]) for _ in range(10)]
    return 1000 * 2 * 64 * 256 * 256 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=471, help="of ours, three epochs of 157")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study, theirs = recipes.read_study("paper-kl-authors")
    _, ours = recipes.read_study("paper-kl")
    pair = recipes.Pair.of(study, PAIR, SEED)
    exact = scores.exact(pair.process, pair.law)

    def train(recipe: Recipe) -> float:
        recipe = replace(recipe, steps=options.steps)
        result = train_networks(
            recipe, pair.process, pair.samples[None], exact, study.study_seed, [SEED],
            {"target": pair.label}, "cpu",
        )  # fmt: skip
        return float(result.seconds[0]) / options.steps

    def loop() -> float:
        _, seconds = reference.train(pair.process, pair.law, pair.samples, "explicit", 1, SEED)
        return seconds / -(-len(pair.samples) // reference.BATCH_SIZE)

    ways = {
        "authors' loop": (loop, theirs),
        "authors' recipe": (lambda: train(theirs), theirs),
        "default recipe": (lambda: train(ours), ours),
    }
    train(replace(ours, batch_size=64))  # the first optimiser of a process imports
    runs = [[way() for way, _ in ways.values()] for _ in range(options.repeats)]
    rates = product_rates()
    limit, small = max(rates["BLAS"], rates["oneDNN"]), small_rate()
    print(
        f"products: {small / 1e9:.0f} Gflop/s of 64 rows by the BLAS; the core's limit "
        f"{limit / 1e9:.0f} (BLAS {rates['BLAS'] / 1e9:.0f}, oneDNN {rates['oneDNN'] / 1e9:.0f})"
    )
    print(f"{'way':18}{'ms/step':>9}{'Gflop/s':>9}{'of the BLAS':>13}{'of the limit':>14}")
    for (name, (_, recipe)), seconds in zip(ways.items(), zip(*runs, strict=True), strict=True):
        step = statistics.median(seconds)
        rate = operations(recipe, pair.law.dimension) / step
        print(
            f"{name:18}{1e3 * step:9.2f}{rate / 1e9:9.0f}{rate / small:13.0%}{rate / limit:14.0%}"
        )


if __name__ == "__main__":
    main()
