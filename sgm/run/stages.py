"""The stages: what one job does, from files to files.

Each takes the job's spec, the seeds of its block, and its input and output paths by name.
Torch is imported by the stages that need it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgm.bounds import KL_BOUND_PROVED_FOR
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import sampler_law
from sgm.random import stream
from sgm.run.build import build, build_process, build_steps, build_target, build_times
from sgm.store.cells import read_cells, write_cells, written_whole
from sgm.targets import EmpiricalTarget

__all__ = ["STAGES", "axes", "bounds", "data", "divergences", "exact", "network", "samples"]

Spec = Mapping[str, Any]
Files = Mapping[str, Path]


def data(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """One training sample a seed, shared by all schedules; held-out rows where there are any."""
    target = build_target(spec["target"])
    generators = [
        stream(spec["study_seed"], "data", target=spec["target"]["label"], seed=seed)
        for seed in seeds
    ]
    if isinstance(target, EmpiricalTarget):
        parts = [target.split(generator) for generator in generators]
        arrays = {
            "train": np.stack([train[: spec["n_train"]] for train, _ in parts]),
            "heldout": np.stack([heldout for _, heldout in parts]),
        }
    else:
        arrays = {"train": np.stack([target.sample(spec["n_train"], g) for g in generators])}
    write_cells(outputs["data"], arrays)


def network(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Train one network a seed; a network that fails is marked, the others go on."""
    from sgm import scores, training

    target = build_target(spec["target"])
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    choices = dict(spec["score"]["parameters"]["recipe"])
    choices.pop("name")
    recipe = training.Recipe(**choices)
    result = training.train_networks(
        recipe,
        process,
        read_cells(inputs["data"])["train"],
        None if target.law is None else scores.exact(process, target.law),
        spec["study_seed"],
        list(seeds),
        {"target": spec["target"]["label"]},
        device,
    )
    with written_whole(outputs["network"]) as aside:
        result.networks.save(aside)
    write_cells(
        outputs["training"],
        {
            "train_loss": result.loss,
            "train_seconds": result.seconds,
            "loss_history": result.loss_history,
            "failed": result.failed,
            "message": np.array(result.messages, dtype=np.str_),
        },
    )
    for seed, failed, message in zip(seeds, result.failed, result.messages, strict=True):
        if failed:
            print(f"seed {seed}: {message}", flush=True)


def samples(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Simulate the sampler, one generated sample a seed."""
    import torch

    from sgm import networks, simulation

    target = build_target(spec["target"])
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    times = build_times(spec["time_grid"], spec["horizon"], spec["n_steps"])
    place = networks.resolve_device(device)
    score_fn: networks.ScoreFn
    if "network" in inputs:
        dtype = torch.float32
        score_fn = networks.ScoreEnsemble.load(inputs["network"]).to(place)
    else:
        dtype = torch.float64
        score = build(spec["score"], process=process, law=target.law)
        score_fn = networks.affine_score_fn(score, dtype, place)
    generated = simulation.simulate_reverse(
        build_steps(spec["sampler"], process, times),
        score_fn,
        process.variance,
        spec["n_samples"],
        target.dimension,
        spec["study_seed"],
        list(seeds),
        {"target": spec["target"]["label"]},
        dtype,
        place,
    )
    write_cells(outputs["samples"], {"samples": generated.float().cpu().numpy()})


def divergences(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Divergences of each generated sample; a sample that is not finite has failed."""
    target = build_target(spec["target"])
    generated = read_cells(inputs["samples"])["samples"]
    rows = read_cells(inputs["data"])
    failed = np.array([not np.isfinite(sample).all() for sample in generated])
    values: dict[str, Any] = {}
    for r, sample in enumerate(generated):
        if failed[r]:
            continue
        context = {
            "sample": sample.astype(np.float64),
            "target": target,
            "train": rows["train"][r],
            "heldout": rows["heldout"][r] if "heldout" in rows else None,
        }
        for measure in spec["divergences"]:
            for name, value in build(measure, **context).items():
                values.setdefault(name, np.full(len(seeds), np.nan))[r] = value
    messages = np.where(failed, "the generated sample is not finite", "")
    write_cells(
        outputs["divergences"], values | {"failed": failed, "message": messages.astype(np.str_)}
    )


def bounds(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Bounds for trained networks: their score error by Monte Carlo, the rest exact."""
    import torch

    from sgm import evaluation, networks

    law = _known_law(spec)
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    times = build_times(spec["time_grid"], spec["horizon"], spec["n_steps"])
    place = networks.resolve_device(device)
    moments = evaluation.score_error_moments(
        networks.ScoreEnsemble.load(inputs["network"]).to(place),
        process,
        law,
        times[:-1],
        spec["n_score_error"],
        spec["study_seed"],
        list(seeds),
        {"target": spec["target"]["label"]},
        torch.float32,
        place,
    )
    context = {
        "process": process,
        "law": law,
        "times": times,
        "score_mse": moments.mse,
        "score_mse_standard_error": moments.mse_standard_error,
        "score_cross": moments.cross,
    }
    values: dict[str, Any] = {}
    for measure in spec["bounds"]:
        values |= build(measure, **context)
    write_cells(outputs["bounds"], values)


def exact(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Exact laws, divergences and bounds of all affine scores of one target.

    Writes one array a variable, over the axes of the grid that the variable has, but
    `target` and `seed`; and the labels of its scores.
    """
    law = _known_law(spec)
    size = {
        "schedule": len(spec["schedules"]),
        "horizon": len(spec["horizons"]),
        "score": len(spec["scores"]),
        "sampler": len(spec["samplers"]),
        "time_grid": len(spec["time_grids"]),
        "n_steps": len(spec["n_steps"]),
    }
    axes = {
        name: [axis for axis in owned if axis in size] for name, owned in spec["variables"].items()
    }
    values = {name: np.full([size[axis] for axis in own], np.nan) for name, own in axes.items()}

    def put(computed: Mapping[str, Any], **place: int) -> None:
        for name, value in computed.items():
            values[name][tuple(place[axis] for axis in axes[name])] = value

    for s, schedule in enumerate(spec["schedules"]):
        for h, horizon in enumerate(spec["horizons"]):
            process = build_process(spec["process"], schedule, horizon)
            prior = process.prior(law.dimension)
            scores = [build(score, process=process, law=law) for score in spec["scores"]]
            for g, time_grid in enumerate(spec["time_grids"]):
                for n, n_steps in enumerate(spec["n_steps"]):
                    place = {"schedule": s, "horizon": h, "time_grid": g, "n_steps": n}
                    times = build_times(time_grid, horizon, n_steps)
                    steps = [build_steps(sampler, process, times) for sampler in spec["samplers"]]
                    for c, score in enumerate(scores):
                        mse, cross = score.error_moments(law, times[:-1])
                        context = {
                            "process": process,
                            "law": law,
                            "times": times,
                            "score_mse": mse,
                            "score_mse_standard_error": np.zeros_like(mse),
                            "score_cross": cross,
                        }
                        for measure in spec["bounds"]:
                            put(build(measure, **context), **place, score=c)
                        for m, scheme in enumerate(steps):
                            generated = sampler_law(scheme, score, prior)
                            distances = {
                                "kl_exact": kl_divergence(law, generated),
                                "kl_reverse_exact": kl_divergence(generated, law),
                                "w2_exact": wasserstein2(law, generated),
                            }
                            put(distances, **place, score=c, sampler=m)
    write_cells(
        outputs["exact"], values | {"score": np.array([score["label"] for score in spec["scores"]])}
    )


def axes(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """What stands behind the labels of the axes: dimensions, curves, what is proved."""
    time_fraction = np.linspace(0.0, 1.0, 101)
    shape = (len(spec["schedules"]), len(spec["horizons"]), len(time_fraction))
    curves = {name: np.empty(shape) for name in ("beta", "mean_scale", "std")}
    for s, schedule in enumerate(spec["schedules"]):
        for h, horizon in enumerate(spec["horizons"]):
            process = build_process(spec["process"], schedule, horizon)
            t = horizon * time_fraction
            curves["beta"][s, h] = process.schedule.beta(t)
            curves["mean_scale"][s, h] = process.mean_scale(t)
            curves["std"][s, h] = process.std(t)
    samplers = [sampler["build"].rsplit(":", 1)[1] for sampler in spec["samplers"]]
    write_cells(
        outputs["axes"],
        {f"schedule_{name}": curve for name, curve in curves.items()}
        | {
            "time_fraction": time_fraction,
            "dimension": [build_target(target).dimension for target in spec["targets"]],
            "kl_bound_proved": [name in KL_BOUND_PROVED_FOR for name in samplers],
        },
    )


def _known_law(spec: Spec) -> Gaussian:
    """Law of the spec's target, which planning has checked to be known."""
    law = build_target(spec["target"]).law
    assert law is not None
    return law


STAGES: dict[str, Callable[[Spec, range, Files, Files, str], None]] = {
    "data": data,
    "network": network,
    "samples": samples,
    "divergences": divergences,
    "bounds": bounds,
    "exact": exact,
    "axes": axes,
}
