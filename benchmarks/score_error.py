"""E₂ of trained networks to a tolerance against a fixed number of draws, as a ratio.

The networks of one block of the study paper-kl (its recipe, d = 50, N = 500), trained first,
and of each target

    E₂ = Σ_k (B(τ_k) − B(τ_{k+1})) E|s_θ − s|²

from `n_score_error` draws at each time, and from as many as `score_error_tolerance` needs, alone
and where the largest error is wanted too, as by the bound w2. The CPU seconds are those of the
moments, which are nearly all of a job of the rule `bound`.

    python benchmarks/score_error.py
    python benchmarks/score_error.py --steps 800 --seeds 2
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from recipes import Pair, read_study

from sgm import scores
from sgm.evaluation import score_error_moments, score_error_within
from sgm.training import train_networks


def compare(name: str, options: argparse.Namespace) -> None:
    """Print the rows of one pair "target:a"."""
    study, recipe = read_study("paper-kl")
    seeds = list(range(options.seeds))
    pairs = [Pair.of(study, name, seed) for seed in seeds]
    law, process, times = pairs[0].law, pairs[0].process, pairs[0].times
    increments = -np.diff(process.schedule.integral(times))
    axes, device = {"target": pairs[0].label}, torch.device("cpu")
    networks = train_networks(
        replace(recipe, steps=options.steps or recipe.steps),
        process,
        np.stack([pair.samples for pair in pairs]),
        scores.exact(process, law),
        study.study_seed,
        seeds,
        axes,
        "cpu",
    ).networks
    draws = (study.n_score_error, study.study_seed, seeds, axes, torch.float32, device)
    tolerance = study.score_error_tolerance
    assert tolerance is not None
    within = partial(
        score_error_within, networks, process, law, times[:-1], increments, tolerance, *draws
    )
    fixed = partial(score_error_moments, networks, process, law, times[:-1], *draws)
    slowest = None
    for label, run in {
        "fixed": fixed,
        f"E2 to {tolerance:.0%}": within,
        "and the largest": partial(within, largest=True),
    }.items():
        started = time.process_time()
        moments = run()
        seconds = (time.process_time() - started) / len(seeds)
        slowest = slowest or seconds
        total = moments.mse @ increments
        error = np.sqrt(moments.mse_standard_error**2 @ increments**2) / total
        largest = np.sqrt(moments.mse.max(axis=-1))
        print(
            f"{name:20}{label:18}{moments.draws.mean():8.0f}{total.mean():9.3f}"
            f"{np.median(error):10.2%}{largest.mean():9.3f}{seconds:9.2f}{slowest / seconds:8.1f}",
            flush=True,
        )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs = ["isotropic:0", "heteroscedastic:0", "correlated:0"]
    parser.add_argument("--pairs", nargs="+", metavar="TARGET:A", default=pairs)
    parser.add_argument("--seeds", type=int, default=2, help="networks of the block")
    parser.add_argument("--steps", type=int, help="of training; the recipe's by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{options.seeds} networks a pair, means over them; CPU seconds a network, one thread\n"
        f"{'target:a':20}{'draws':18}{'a time':>8}{'E2':>9}{'error':>10}{'largest':>9}"
        f"{'CPU s':>9}{'ratio':>8}"
    )
    for name in options.pairs:
        compare(name, options)


if __name__ == "__main__":
    main()
