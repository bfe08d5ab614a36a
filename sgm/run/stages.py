"""The stages: what one job does, from files to files.

Each takes the job's spec, the seeds of its block, and its input and output paths by name.
Torch is imported by the stages that need it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgm.random import stream
from sgm.run.build import (
    build_process,
    build_steps,
    build_target,
    build_times,
    known_law,
    measured,
)
from sgm.run.pictures import pictures
from sgm.run.theory import axes, exact
from sgm.store.cells import read_cells, write_cells, written_whole
from sgm.targets import DataTarget, Target

__all__ = [
    "STAGES",
    "axes",
    "bounds",
    "data",
    "divergences",
    "exact",
    "floors",
    "network",
    "pictures",
    "samples",
]

Spec = Mapping[str, Any]
Files = Mapping[str, Path]


def data(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """One training sample a seed, shared by all schedules; held-out rows where there are any."""
    target = build_target(spec["target"])
    generators = [
        stream(spec["study_seed"], "data", target=spec["target"]["label"], seed=seed)
        for seed in seeds
    ]
    if isinstance(target, DataTarget):
        parts = [target.partition(generator) for generator in generators]
        heldout = [numbers for _, numbers in parts]
        if target.heldout_fixed:
            heldout = heldout[:1]
        arrays = {
            "train": target.take(np.stack([train[: spec["n_train"]] for train, _ in parts])),
            "heldout": target.take(np.stack(heldout)),
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
    recipe = training.Recipe.from_keys(choices)
    result = training.train_networks(
        recipe,
        process,
        read_cells(inputs["data"])["train"],
        None if target.law is None else scores.exact(process, target.law),
        spec["study_seed"],
        list(seeds),
        {"target": spec["target"]["label"]},
        device,
        image_shape=target.image_shape,
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
    """Simulate the sampler, one generated sample a seed.

    Where a bound asks for it, the error of the networks along the chain is measured on the
    way, on the first rows.
    """
    from sgm import evaluation, networks, simulation
    from sgm.run.score_fns import build_score_fn

    target = build_target(spec["target"])
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    times = build_times(spec["time_grid"], spec["horizon"], spec["n_steps"])
    steps = build_steps(spec["sampler"], process, times)
    place = networks.resolve_device(device)
    score_fn, dtype = build_score_fn(spec["score"], process, target, inputs, place)
    error = None
    if "n_score_error" in spec:
        assert target.law is not None
        error = evaluation.ChainError(process, target.law, steps, spec["n_score_error"])
    generated = simulation.simulate_reverse(
        steps,
        score_fn,
        process.prior_variance,
        spec["n_samples"],
        target.dimension,
        spec["study_seed"],
        list(seeds),
        {"target": spec["target"]["label"]},
        dtype,
        place,
        error,
    )
    center, scale = target.transform
    values = {"samples": generated.float().cpu().numpy(), "center": center, "scale": scale}
    if error is not None:
        values["score_mse_generated"] = error.mse
    write_cells(outputs["samples"], values)


def divergences(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Divergences of each generated sample; a sample that is not finite has failed.

    The bounds that depend on the sampler are computed here too.
    """
    target = build_target(spec["target"])
    cells, rows = read_cells(inputs["samples"]), read_cells(inputs["data"])
    generated = cells["samples"]
    failed = np.array([not np.isfinite(sample).all() for sample in generated])
    values: dict[str, Any] = {}
    for r, (seed, sample) in enumerate(zip(seeds, generated, strict=True)):
        if failed[r]:
            continue
        context = _true_rows(spec, target, rows, r, seed, len(sample))
        generated_rows = sample.astype(np.float64)
        context |= {"sample": generated_rows, "generated": generated_rows[: context.pop("n")]}
        for name, value in measured(spec["divergences"], context).items():
            values.setdefault(name, np.full(len(seeds), np.nan))[r] = value
    if "bounds" in inputs:
        process = build_process(spec["process"], spec["schedule"], spec["horizon"])
        forward = read_cells(inputs["bounds"])
        context = {
            "process": process,
            "law": target.law,
            "times": build_times(spec["time_grid"], spec["horizon"], spec["n_steps"]),
            "score_mse": forward["score_mse"],
            "score_mse_standard_error": forward["score_mse_standard_error"],
            "score_cross": forward["score_cross"],
            "score_mse_generated": cells["score_mse_generated"],
        }
        values |= measured(spec["bounds"], context)
    messages = np.where(failed, "the generated sample is not finite", "")
    write_cells(
        outputs["divergences"], values | {"failed": failed, "message": messages.astype(np.str_)}
    )


def _true_rows(
    spec: Spec, target: Target, rows: Mapping[str, Any], r: int, seed: int, n: int
) -> dict[str, Any]:
    """True rows that a divergence may ask for: training rows, and an independent sample."""
    train, heldout = rows["train"][r].astype(np.float64, copy=False), None
    if "heldout" in rows:  # one part a seed, or one for all
        parts = rows["heldout"]
        heldout = parts[min(r, len(parts) - 1)].astype(np.float64, copy=False)
    if target.law is None:
        n = min(n, len(train))
        reference = heldout
    else:
        label = spec["target"]["label"]
        reference = target.sample(
            n, stream(spec["study_seed"], "reference", target=label, seed=seed)
        )
    return {
        "target": target,
        "train": train,
        "heldout": heldout,
        "reference": reference,
        "n": n,
    }


def floors(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """The same divergences of an independent true sample: what a perfect sampler shows.

    For data, the true sample is the training part, and the reference the held-out one.
    """
    target, rows = build_target(spec["target"]), read_cells(inputs["data"])
    label, n = spec["target"]["label"], spec["n_samples"]
    values = {name: np.full(len(seeds), np.nan) for name in spec["floors"].values()}
    for r, seed in enumerate(seeds):
        context = _true_rows(spec, target, rows, r, seed, n)
        n_rows = context.pop("n")
        if target.law is None:
            sample = context["train"][:n_rows]
        else:
            sample = target.sample(n, stream(spec["study_seed"], "floor", target=label, seed=seed))
        found = measured(spec["divergences"], context | {"sample": sample, "generated": sample})
        for name, floor in spec["floors"].items():
            values[floor][r] = found[name]
    write_cells(outputs["floors"], values)


def bounds(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Bounds for trained networks: their score error by Monte Carlo, the rest exact.

    The errors themselves are kept, for the bounds that depend on the sampler as well.
    """
    import torch

    from sgm import evaluation, networks

    law = known_law(spec)
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    times = build_times(spec["time_grid"], spec["horizon"], spec["n_steps"])
    place = networks.resolve_device(device)
    moments = evaluation.score_error_moments(
        networks.ScoreEnsemble.load(inputs["network"]).bind(process).to(place),
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
    errors = {
        "score_mse": moments.mse,
        "score_mse_standard_error": moments.mse_standard_error,
        "score_cross": moments.cross,
    }
    unknown = {"score_mse_generated": np.full_like(moments.mse, np.nan)}
    context = {"process": process, "law": law, "times": times, **errors, **unknown}
    write_cells(outputs["bounds"], measured(spec["bounds"], context) | errors)


STAGES: dict[str, Callable[[Spec, range, Files, Files, str], None]] = {
    "data": data,
    "network": network,
    "samples": samples,
    "divergences": divergences,
    "floors": floors,
    "bounds": bounds,
    "exact": exact,
    "pictures": pictures,
    "axes": axes,
}
