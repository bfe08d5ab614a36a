"""Training recipes side by side: the paper's against this package's, as ratios.

For each pair of a target and an a of β_a, one network a recipe, of the same seed, and

    E₂ = Σ_k (B(τ_k) − B(τ_{k+1})) E|s_θ − s|²     on the paper's grid,

the optimiser steps and the CPU seconds. Recipes, targets, sizes and streams of random
numbers are read from the studies paper-kl-authors and paper-kl of config/studies. The baseline's
CPU seconds are those of a plain re-implementation of the authors' loop (reference.py),
of which some epochs are timed and extrapolated to all; its E₂ is that of the same
recipe in `sgm.training`, after all its steps.

    python benchmarks/recipes.py                      # both objectives: half an hour
    python benchmarks/recipes.py --objectives explicit --pairs correlated:0 isotropic:0
    python benchmarks/recipes.py --objectives denoising --ours-only --set time_sampling=early

With --log, each measurement is appended to a file as a line of JSON when it is made, and
a later run takes from the file what it holds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import reference
import torch
import yaml

from sgm import scores
from sgm.evaluation import score_error_moments
from sgm.gaussian import Gaussian
from sgm.networks import ScoreFn
from sgm.processes import VPProcess
from sgm.random import stream
from sgm.run.build import build_process, build_target, build_times
from sgm.study import Study
from sgm.study.document import read_config
from sgm.training import Recipe, train_networks

STUDIES = Path(__file__).parent.parent / "config/studies"
PAIRS = [
    *(f"{target}:{a}" for target in ("correlated", "heteroscedastic") for a in (-10, 0, 5, 10)),
    "isotropic:0",
]
SCORE_DRAWS = 100
"""Monte-Carlo points at each of the N times: E₂ to half a percent or so."""

OBJECTIVES = {"explicit": PAIRS, "denoising": [pair for pair in PAIRS if pair.endswith(":0")]}
"""What is compared, on which pairs."""


def read_study(name: str) -> tuple[Study, Recipe]:
    """A study of config/studies and the recipe of its trained score."""
    study = Study.parse(read_config(STUDIES / f"{name}.yaml"))
    (trained,) = (score for score in study.scores if score.family == "trained")
    choices = trained.parameters.recipe.model_dump()
    choices.pop("name")
    return study, Recipe.from_keys(choices)


def recipes_of(objective: str) -> tuple[Study, Recipe, Recipe]:
    """The paper's study and recipe, and ours, for an objective.

    For denoising the authors weigh by v² and we by v, in a fifth of their steps, at half
    the learning rate of our explicit recipe (the target is noisier).
    """
    study, paper = read_study("paper-kl-authors")
    _, ours = read_study("paper-kl")
    if objective == "denoising":
        paper = replace(paper, objective=objective, weight="variance_squared")
        ours = replace(ours, objective=objective, weight="variance")
        ours = replace(ours, steps=paper.steps // 5, learning_rate=ours.learning_rate / 2)
    return study, paper, ours


@dataclass(frozen=True, eq=False)
class Pair:
    """A target and a schedule, with the training data of one seed."""

    label: str
    law: Gaussian
    process: VPProcess
    times: np.ndarray
    samples: np.ndarray

    @classmethod
    def of(cls, study: Study, name: str, seed: int) -> Pair:
        """The pair "target:a" of a study."""
        label, a = name.split(":")
        (target,) = (item for item in study.targets if item.label == label)
        (schedule,) = (
            item.spec
            for item in study.schedules
            if item.family == "beta_a" and item.parameters.a == float(a)
        )
        process = build_process(study.process.spec, schedule, study.horizons[0])
        law = build_target(target.spec).law
        assert law is not None
        return cls(
            label,
            law,
            process,
            build_times(study.time_grids[0].spec, process, study.n_steps[0], law),
            law.sample(study.n_train, stream(study.study_seed, "data", target=label, seed=seed)),
        )


def score_term(study: Study, pair: Pair, score_fn: ScoreFn, seed: int) -> float:
    """E₂ of one network."""
    moments = score_error_moments(
        score_fn,
        pair.process,
        pair.law,
        pair.times[:-1],
        SCORE_DRAWS,
        study.study_seed,
        [seed],
        {"target": pair.label},
        torch.float32,
        torch.device("cpu"),
    )
    return float(moments.mse[0] @ -np.diff(pair.process.schedule.integral(pair.times)))


def measure_recipe(study: Study, name: str, recipe: Recipe, seed: int) -> dict[str, float]:
    """E₂ and CPU seconds of a recipe of `sgm.training`."""
    pair = Pair.of(study, name, seed)
    result = train_networks(
        recipe,
        pair.process,
        pair.samples[None],
        scores.exact(pair.process, pair.law),
        study.study_seed,
        [seed],
        {"target": pair.label},
        "cpu",
    )
    e2 = score_term(study, pair, result.networks, seed)
    return {"e2": e2, "seconds": float(result.seconds[0])}


def measure_reference(
    study: Study, name: str, objective: str, seed: int, epochs: int
) -> dict[str, float]:
    """CPU seconds an epoch of the authors' loop, and E₂ after so many epochs."""
    pair = Pair.of(study, name, seed)
    network, seconds = reference.train(
        pair.process, pair.law, pair.samples, objective, epochs, seed
    )
    e2 = score_term(study, pair, lambda x, t: network(x[0], torch.full((1, 1), t))[None], seed)
    return {"e2": e2, "seconds": seconds}


class Log:
    """Measurements by what was measured, kept in a file of JSON lines if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.found[json.dumps(entry["of"], sort_keys=True)] = entry["result"]

    def measure(
        self, of: dict[str, Any], measurement: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """The result of a measurement, made now unless the log holds it."""
        key = json.dumps(of, sort_keys=True)
        if key not in self.found:
            self.found[key] = measurement()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"of": of, "result": self.found[key]}) + "\n")
        return self.found[key]


def compare(objective: str, options: argparse.Namespace, log: Log) -> None:
    """Print one table."""
    study, paper, ours = recipes_of(objective)
    choices = asdict(ours)
    ours = Recipe.from_keys(choices | choices.pop("network") | options.changes)
    seed, epochs = options.seed, options.reference_epochs

    def recipe(name: str, recipe: Recipe) -> dict[str, float]:
        of = {"pair": name, "seed": seed, **asdict(recipe)}
        return log.measure(of, partial(measure_recipe, study, name, recipe, seed))

    def authors_loop(name: str) -> dict[str, float]:
        of = {"pair": name, "seed": seed, "reference": objective, "epochs": epochs}
        return log.measure(of, partial(measure_reference, study, name, objective, seed, epochs))

    print(f"\n{objective} score matching, seed {seed}, CPU seconds of one thread\nours: {ours}")
    pairs = options.pairs or OBJECTIVES[objective]
    if options.ours_only:
        for name in pairs:
            found = recipe(name, ours)
            print(f"{name:19}E2 {found['e2']:8.3f}   CPU s {found['seconds']:6.2f}", flush=True)
        return
    for name in pairs:  # the short ones first: the log then holds something early
        recipe(name, ours)
        authors_loop(name)
    whole = paper.steps / -(-study.n_train // paper.batch_size)
    print(
        f"authors' loop: {epochs} epochs timed, extrapolated to {whole:.0f}\n"
        f"{'':19}{'E2':^27}{'steps':^17}{'CPU seconds':^41}\n"
        f"{'target:a':19}{'paper':>9}{'ours':>9}{'ratio':>9}{'ours':>9}{'of':>8}"
        f"{'authors':>9}{'engine':>9}{'ours':>9}{'authors/ours':>14}"
    )
    for name in pairs:
        base, mine, loop = recipe(name, paper), recipe(name, ours), authors_loop(name)
        authors = loop["seconds"] * whole
        print(
            f"{name:19}{base['e2']:9.3f}{mine['e2']:9.3f}{mine['e2'] / base['e2']:9.2f}"
            f"{ours.steps:9}{paper.steps:8}{authors:9.0f}{base['seconds']:9.0f}"
            f"{mine['seconds']:9.1f}{authors / mine['seconds']:14.1f}",
            flush=True,
        )


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--pairs", nargs="+", metavar="TARGET:A", help=f"among {' '.join(PAIRS)}")
    parser.add_argument("--seed", type=int, default=1, help="1; the recipes were tuned on 0")
    parser.add_argument("--reference-epochs", type=int, default=3, help="of the authors' loop")
    parser.add_argument("--ours-only", action="store_true", help="leave the baseline out")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="change ours")
    parser.add_argument("--log", type=Path, help="file of measurements, appended to")
    options = parser.parse_args()
    options.changes = {
        key: yaml.safe_load(value) for key, value in (change.split("=") for change in options.set)
    }
    torch.set_num_threads(1)
    log = Log(options.log)
    for objective in options.objectives:
        compare(objective, options, log)


if __name__ == "__main__":
    main()
