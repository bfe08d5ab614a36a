"""Sampling from trained networks: `simulate_reverse` against a naive loop, as ratios.

10⁴ samples in 100 steps from one wide network (width 256, d = 50: the paper's) and from
ten narrow ones (width 64, d = 10: the default study's). The authors' way, the naive loop, runs
the network of reference.py on all rows at once, one network after the other, with a time a row
and fresh normal draws every step. Ours multiplies by torch's BLAS, by oneDNN, and in bfloat16.
Runs alternate; the medians of their CPU seconds are compared.

The share of the limit is the rate of the floating-point operations that the layers need (the
time branch, once a step, left out) over the core's limit in float32: the faster library's rate
for a plain 512 × 256 × 256 product in the same process.

The second table says what bfloat16 does to the numbers: networks of the default recipe of
paper-kl.yaml sample 1,000 rows in 500 steps in float32 and in bfloat16, on the same noise.

    python benchmarks/sampling.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import recipes
import reference
import torch

from sgm import laws, samplers, scores, timegrids
from sgm.architectures import MLP
from sgm.divergences.coupled import coupled_law, coupling_distance
from sgm.gaussian import kl_divergence
from sgm.networks import ScoreEnsemble, affine_score_fn
from sgm.processes import VPProcess
from sgm.processor import fastest_products
from sgm.schedules import BetaSchedule
from sgm.simulation import simulate_reverse
from sgm.training import train_networks

CASES = {"one network, width 256, d = 50": (1, 256, 50), "ten, width 64, d = 10": (10, 64, 10)}
WAYS = ("authors", "BLAS", "oneDNN", "bfloat16")
CPU = torch.device("cpu")
GROUPS = 20


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def arithmetics(ensemble: ScoreEnsemble) -> dict[str, ScoreEnsemble]:
    """The same networks by the ways to multiply."""
    return {
        "BLAS": ensemble.for_sampling(products="BLAS"),
        "oneDNN": ensemble.for_sampling(products="oneDNN"),
        "bfloat16": ensemble.for_sampling("bfloat16"),
    }


@torch.no_grad()
def product_rates() -> dict[str, float]:
    """Fastest of several rates of products of 512 × 256 by 256 × 256, in flop/s."""
    left, right, nothing = torch.randn(512, 256), torch.randn(256, 256), torch.zeros(256)
    halves = left.bfloat16(), right.bfloat16()
    linear = torch.ops.mkldnn._linear_pointwise
    products: dict[str, Callable[[], object]] = {
        "BLAS": lambda: left @ right,
        "oneDNN": lambda: linear(left, right.t(), nothing, "none", [], ""),
        "bfloat16": lambda: halves[0] @ halves[1],
    }

    def rate(product: Callable[[], object]) -> float:
        seconds = [cpu_seconds(lambda: [product() for _ in range(200)]) for _ in range(10)]
        return 200 * 2 * 512 * 256 * 256 / min(seconds)

    return {way: rate(product) for way, product in products.items()}


def compare(
    networks: int, width: int, dimension: int, limit: float, options: argparse.Namespace
) -> list[str]:
    """Rows of one case: CPU seconds, ratio to the authors' way, Gflop/s, share of the limit."""
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
    ours = arithmetics(ensemble)
    modules = [reference.PaperNetwork(dimension, width) for _ in range(networks)]

    def run(way: str) -> None:
        if way == "authors":
            for module in modules:
                reference.sample(module, steps, options.samples, dimension)
            return
        simulate_reverse(
            steps, ours[way], process.variance, options.samples, dimension, 0, range(networks),
            {}, torch.float32, CPU,
        )  # fmt: skip

    runs = [[cpu_seconds(lambda w=way: run(w)) for way in WAYS] for _ in range(options.repeats)]
    medians = dict(zip(WAYS, map(statistics.median, zip(*runs, strict=True)), strict=True))
    rows = networks * options.samples * options.steps
    operations = 2 * rows * (2 * dimension * width + 3 * width**2)
    return [
        f"{way:12}{seconds:9.2f}{medians['authors'] / seconds:9.1f}"
        f"{operations / seconds / 1e9:9.0f}{operations / seconds / limit:10.0%}"
        for way, seconds in medians.items()
    ]


def effect(name: str, options: argparse.Namespace) -> str:
    """What sampling in bfloat16 changes for one pair: one row of the second table."""
    study, recipe = recipes.read_study("paper-kl")
    pair = recipes.Pair.of(study, name, 0)
    process, law, axes = pair.process, pair.law, {"target": pair.label}
    exact = scores.exact(process, law)
    trained = train_networks(
        recipe, process, pair.samples[None], exact, study.study_seed, [0], axes, "cpu"
    )
    steps = samplers.exponential_integrator_modified(process, pair.times)
    ways = arithmetics(trained.networks)
    score_fns = {
        "float32": (ways[fastest_products()], torch.float32),
        "bfloat16": (ways["bfloat16"], torch.float32),
        "exact": (affine_score_fn(exact, torch.float64, CPU), torch.float64),
    }
    rows = {
        way: simulate_reverse(
            steps, score_fn, process.variance, options.rows, law.dimension, study.study_seed,
            [0], axes, dtype, CPU,
        )[0].double().numpy()
        for way, (score_fn, dtype) in score_fns.items()
    }  # fmt: skip
    own_law = laws.sampler_law(steps, exact, process.prior(law.dimension))

    def kl(way: str, kept: np.ndarray) -> float:
        own = coupled_law(rows[way][kept], rows["exact"][kept], own_law)
        return float(kl_divergence(law, own))

    everything = np.arange(options.rows)
    values = {way: kl(way, everything) for way in ("float32", "bfloat16")}
    difference = values["bfloat16"] - values["float32"]
    left_out = [
        kl("bfloat16", kept) - kl("float32", kept)
        for group in range(GROUPS)
        for kept in [everything[everything % GROUPS != group]]
    ]
    error = np.sqrt((GROUPS - 1) * np.var(left_out))  # delete-a-group jackknife
    distance = coupling_distance(rows["bfloat16"], rows["float32"])
    scale = np.sqrt(np.mean(np.sum(np.square(rows["float32"]), axis=1)))
    return (
        f"{name:24}{values['float32']:12.5f}{difference:12.6f}{error:12.6f}"
        f"{distance:12.5f}{distance / scale:12.2%}"
    )


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000, help="of the second table")
    parser.add_argument(
        "--pairs",
        nargs="*",
        default=["isotropic:0", "heteroscedastic:0", "correlated:0"],
        help="TARGET:A of the second table; each trains a network",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates = product_rates()
    limit = max(rates["BLAS"], rates["oneDNN"])
    told = ", ".join(f"{way} {rate / 1e9:.0f}" for way, rate in rates.items())
    print(f"plain products, Gflop/s: {told}; chosen on this processor: {fastest_products()}")
    print(f"{options.samples} samples × {options.steps} steps, CPU seconds of one thread")
    for name, case in CASES.items():
        print(f"\n{name}\n{'':12}{'CPU s':>9}{'ratio':>9}{'Gflop/s':>9}{'of limit':>10}")
        for row in compare(*case, limit, options):
            print(row, flush=True)
    if options.pairs:
        print(f"\nbfloat16 for float32, {options.rows} rows on the same noise")
        names = ("KL", "its change", "st. error", "√E|X−Y|²", "of √E|X|²")
        print(f"{'':24}" + "".join(f"{name:>12}" for name in names))
    for name in options.pairs:
        print(effect(name, options), flush=True)


if __name__ == "__main__":
    main()
