"""The closed-form stages: exact laws and bounds, and what stands behind the axes' labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.densities import Law
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.guidance import ControlledScore
from sgm.laws import affine_law, chain_error, sampler_law
from sgm.particles import ParticleScore, particle_limit
from sgm.processes import Process
from sgm.run.build import (
    build,
    build_objection,
    build_process,
    build_steps,
    build_target,
    build_times,
    known_law,
    measured,
)
from sgm.run.jobs.values import Values
from sgm.samplers import Steps
from sgm.scores import DensityScore, GaussianScore, Score
from sgm.store.cells import write_cells
from sgm.targets.posteriors import GaussianPosterior

__all__ = ["axes", "bound_context", "chain_context", "exact"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Files = Mapping[str, Path]


def exact(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Exact laws, divergences and bounds of all untrained scores of one target.

    Writes one array a variable, over the axes of the grid that the variable has, but
    `target` and `seed`; and the labels of its scores. The law of a sampler is exact for a
    Gaussian target; for another the bounds alone are.
    """
    law = known_law(spec)
    values = Values(spec)
    put = values.put
    for s, schedule in enumerate(spec["schedules"]):
        for h, horizon in enumerate(spec["horizons"]):
            process = build_process(spec["process"], schedule, horizon)
            scores = [build(score, process=process, law=law) for score in spec["scores"]]
            for g, time_grid in enumerate(spec["time_grids"]):
                for n, n_steps in enumerate(spec["n_steps"]):
                    place = {"schedule": s, "horizon": h, "time_grid": g, "n_steps": n}
                    times = build_times(time_grid, process, n_steps, law)
                    steps = [build_steps(sampler, process, times) for sampler in spec["samplers"]]
                    for c, score in enumerate(scores):
                        moments = score.error_moments(law, times[:-1])
                        context = bound_context(process, law, times, *moments)
                        put(measured(spec["bounds"], context), **place, score=c)
                        for m, scheme in enumerate(steps):
                            here = {**place, "score": c, "sampler": m}
                            if isinstance(score, ParticleScore):
                                put(_limit(scheme, score), **here)
                            elif isinstance(law, Gaussian) and not isinstance(score, DensityScore):
                                generated = _output_law(scheme, score, law.dimension)
                                put(_distances(law, generated, spec["divergences"]), **here)
                            if spec["chain_bounds"]:
                                told = chain_context(context, scheme, score)
                                put(measured(spec["chain_bounds"], told), **here)
    values.write(outputs["exact"])


def bound_context(
    process: Process, law: Law, times: Array, mse: Array, cross: Array
) -> dict[str, Any]:
    """What a bound may ask for, of a score whose error moments are known without draws."""
    return {
        "process": process,
        "law": law,
        "times": times,
        "score_mse": mse,
        "score_mse_standard_error": np.zeros_like(mse),
        "score_cross": cross,
        "score_draws": 0.0,
    }


def chain_context(
    context: Mapping[str, Any], steps: Steps, score: Score | ControlledScore
) -> dict[str, Any]:
    """What one that depends on the sampler may ask for besides.

    The error along the chain is NaN where its law is unknown and the score is not exact, and
    for a controlled score.
    """
    process, law = context["process"], context["law"]
    if isinstance(score, GaussianScore) and isinstance(law, Gaussian):
        along = chain_error(steps, score, law, process.prior(law.dimension))[steps.evaluated]
    else:
        along = np.full(steps.nfe, 0.0 if np.all(context["score_mse"] == 0) else np.nan)
    return {
        **context,
        "steps": steps,
        "score_mse_evaluations": along,
        "score_mse_generated": along[steps.departing],
    }


def _output_law(steps: Steps, score: GaussianScore | ControlledScore, dimension: int) -> Gaussian:
    """Exact law of a sampler's output for an affine score."""
    prior = score.process.prior(dimension)
    if isinstance(score, ControlledScore):
        return affine_law(steps, score.coefficients, prior)
    return sampler_law(steps, score, prior)


def _limit(steps: Steps, score: ParticleScore) -> dict[str, Any]:
    """What particles of a Gaussian prior tend to; not of another, or of a chain that diverges."""
    law = score.law
    if not isinstance(law, GaussianPosterior):
        return {}
    try:
        limit = particle_limit(steps, score.process, law)
    except ValueError as error:
        print(f"T = {score.process.horizon:g}, {steps.n_steps} steps: {error}", flush=True)
        return {}
    return {
        "kl_limit": kl_divergence(law, limit.law),
        "w2_limit": wasserstein2(law, limit.law),
        "log_evidence_exact": limit.log_evidence,
    }


def _distances(
    law: Gaussian, generated: Gaussian, measures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Exact divergences between a Gaussian target and the law of a sampler's output."""
    return {
        "kl_exact": kl_divergence(law, generated),
        "kl_reverse_exact": kl_divergence(generated, law),
        "w2_exact": wasserstein2(law, generated),
        **measured(measures, {"law": law, "generated": generated}),
    }


def axes(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """What stands behind the labels of the axes: dimensions, curves, what is proved."""
    time_fraction = np.linspace(0.0, 1.0, 101)
    shape = (len(spec["schedules"]), len(spec["horizons"]), len(time_fraction))
    curves = {name: np.empty(shape) for name in ("beta", "mean_scale", "std")}
    evaluations = np.empty(
        (len(spec["samplers"]), len(spec["time_grids"]), len(spec["n_steps"])), dtype=int
    )
    for s, schedule in enumerate(spec["schedules"]):
        for h, horizon in enumerate(spec["horizons"]):
            process = build_process(spec["process"], schedule, horizon)
            t = horizon * time_fraction
            curves["beta"][s, h] = process.schedule.beta(t)
            curves["mean_scale"][s, h] = process.mean_scale(t)
            curves["std"][s, h] = process.std(t)
    targets = [build_target(target) for target in spec["targets"]]
    # NFE, which is the same for all processes and laws: see `sgm.run.check`
    for m, g, n in np.ndindex(*evaluations.shape):
        times = build_times(spec["time_grids"][g], process, spec["n_steps"][n], targets[0].law)
        evaluations[m, g, n] = build_steps(spec["samplers"][m], process, times).nfe
    samplers = [sampler["build"].rsplit(":", 1)[1] for sampler in spec["samplers"]]
    values: dict[str, Any] = {
        "time_fraction": time_fraction,
        "dimension": [target.dimension for target in targets],
        "nfe": evaluations,
        "transforms": json.dumps(
            [{"center": c.tolist(), "scale": s.tolist()} for c, s in (t.transform for t in targets)]
        ),
        "image_shapes": [" ".join(map(str, target.image_shape or ())) for target in targets],
    }
    variance = spec["process"]["parameters"].get("variance")
    for item in spec["objections"]:
        codes = [
            [build_objection(item, law=t.law, variance=variance, sampler=name) for name in samplers]
            for t in targets
        ]
        values[item["label"]] = np.array(codes, dtype=np.float64)
        values[item["label"] + "_meanings"] = [code.reason for code in type(codes[0][0])]
    curves = {f"schedule_{name}": curve for name, curve in curves.items()}
    write_cells(outputs["axes"], curves | values, spec)
