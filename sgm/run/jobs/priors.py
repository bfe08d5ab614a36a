"""Other laws at which the backward process may start: what each is worth, beside N(0, w I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.densities import Law
from sgm.elbo import reverse_sde_kl
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import law_from
from sgm.priors import (
    Start,
    mixture_prior,
    moments_optimal_horizon,
    moments_prior,
    prior_terms,
)
from sgm.processes import Process
from sgm.random import stream
from sgm.run.build import build, build_process, build_steps, build_target, build_times
from sgm.run.jobs.values import Values
from sgm.scores import GaussianScore
from sgm.store.cells import read_cells
from sgm.targets import Target

__all__ = ["priors"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Files = Mapping[str, Path]


def priors(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """What each start changes of the evidence bound, and of the law of the output.

    Writes one array a variable, over the axes of the grid that the variable has, but `target`;
    and the labels of its scores. A mixture is fitted to the training rows of each seed, which are
    noised alike for all schedules and horizons; terms that are no closed form are means over
    other rows.
    """
    target = build_target(spec["target"])
    held = read_cells(inputs["data"])
    values = Values(spec, seeds)
    put, size = values.put, values.size
    for s, h in np.ndindex(size["schedule"], size["horizon"]):
        process = build_process(spec["process"], spec["schedules"][s], spec["horizons"][h])
        for r, seed in enumerate(seeds):
            train, fresh = _rows(spec, target, held, r, seed)
            for name in spec["priors"]["families"]:
                found = _terms(spec, process, target.law, name, train, fresh, seed)
                put(found, schedule=s, horizon=h, seed=r)
        if isinstance(target.law, Gaussian) and "moments" in spec["priors"]["families"]:
            for place, found in _outputs(spec, process, target.law):
                put(found, schedule=s, horizon=h, **place)
    if target.law is not None and "moments" in spec["priors"]["families"]:
        for s, schedule in enumerate(spec["schedules"]):
            for c, score in enumerate(spec["scores"]):
                put(_optimum(spec, target.law, schedule, score), schedule=s, score=c)
    values.write(outputs["priors"])


def _rows(
    spec: Spec, target: Target, held: Mapping[str, Any], r: int, seed: int
) -> tuple[Array, Array]:
    """Training rows of a seed, and others: fresh draws, or held-out rows of data."""
    train = held["train"][r].astype(np.float64)
    n = spec["priors"]["rows"]
    if target.law is None:
        parts = held["heldout"]  # one part a seed, or one for all
        return train, parts[min(r, len(parts) - 1)][:n].astype(np.float64)
    generator = stream(spec["study_seed"], "priors", target=spec["target"]["label"], seed=seed)
    return train, target.law.sample(n, generator)


def _terms(
    spec: Spec, process: Process, law: Law | None, name: str, train: Array, rows: Array, seed: int
) -> dict[str, float]:
    """KL(p_T ‖ ν), the gain of the evidence bound, and on the line KL(π_data ‖ q)."""
    axes: dict[str, Any] = {"target": spec["target"]["label"], "seed": seed}
    start: Start
    if name == "moments":
        start = moments_prior(process, train if law is None else law)
    else:
        generator = stream(spec["study_seed"], "prior fit", **axes)
        start = mixture_prior(process, train, spec["priors"]["components"], generator)
    noise = stream(spec["study_seed"], "prior noise", **axes).standard_normal(rows.shape)
    noised = process.perturb(rows, np.full(len(rows), process.horizon), noise)
    terms = prior_terms(process, start, law, noised)
    found = {
        f"kl_terminal_{name}": terms.kl,
        f"prior_gain_{name}": terms.gain,
        f"prior_gain_{name}_standard_error": terms.standard_error,
    }
    if law is not None and law.dimension == 1:
        try:
            found[f"reverse_sde_kl_{name}"] = reverse_sde_kl(process, law, start)
        except ArithmeticError as error:  # next to T = 0, or of a start with other tails
            print(f"T = {process.horizon:g}, seed {seed}, {name}: {error}", flush=True)
    return found


def _outputs(
    spec: Spec, process: Process, law: Gaussian
) -> Sequence[tuple[dict[str, int], dict[str, Any]]]:
    """Exact laws of samplers that start at p_T, the Gaussian of its own moments."""
    start = moments_prior(process, law)
    found = []
    for g, time_grid in enumerate(spec["time_grids"]):
        for n, n_steps in enumerate(spec["n_steps"]):
            times = build_times(time_grid, process, n_steps, law)
            for m, sampler in enumerate(spec["samplers"]):
                steps = build_steps(sampler, process, times)
                for c, item in enumerate(spec["scores"]):
                    score = build(item, process=process, law=law)
                    assert isinstance(score, GaussianScore)
                    output = law_from(steps, score, start)
                    place = {"time_grid": g, "n_steps": n, "sampler": m, "score": c}
                    distances = {
                        "kl_exact_moments": kl_divergence(law, output),
                        "w2_exact_moments": wasserstein2(law, output),
                    }
                    found.append((place, distances))
    return found


def _optimum(
    spec: Spec, law: Law, schedule: Mapping[str, Any], item: Mapping[str, Any]
) -> dict[str, float]:
    """The horizon of the largest bound, of a schedule that is cut, not stretched."""
    if "full_horizon" not in schedule or not np.isfinite(law.negentropy(np.asarray(1.0))):
        return {}
    process = build_process(spec["process"], schedule, schedule["full_horizon"])
    score = build(item, process=process, law=law)
    best = moments_optimal_horizon(process, law, lambda t: score.error_moments(law, t)[0])
    return {
        "optimal_horizon_moments": best.horizon,
        "optimal_horizon_moments_interior": float(best.interior),
    }
