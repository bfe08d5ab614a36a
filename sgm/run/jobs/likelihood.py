"""Likelihood of a score: its evidence bound, and that of its probability flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import elbo
from sgm.densities import Law
from sgm.random import stream
from sgm.run.build import build, build_process, build_target
from sgm.run.jobs import evidence, flow
from sgm.store.cells import read_cells, write_cells
from sgm.targets import Target

__all__ = ["likelihood"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Values = dict[str, Any]


def likelihood(
    spec: Spec, seeds: range, inputs: Mapping[str, Path], outputs: Mapping[str, Path], device: str
) -> None:
    """Evidence bound and likelihood of the flow, for each schedule and seed of a block.

    Of an exact or perturbed score the bound is a closed form, the same for all seeds. A flow
    that is not solved, or a quadrature that gives up, is NaN; its run is marked `failed`, with
    the `message`. What can't be computed for a schedule at all fails its runs, and no others.
    """
    target = build_target(spec["target"])
    rows = _true_rows(spec, target, inputs, seeds)
    found, failures = [], []
    for place, schedule in enumerate(spec["schedules"]):
        try:
            values = _of_schedule(spec, schedule, place, target, rows, seeds, inputs, device)
        except (ValueError, ArithmeticError) as error:
            values = {"message": [str(error)] * len(seeds)}
        messages = values.pop("message")
        for seed, message in zip(seeds, messages, strict=True):
            if message:
                print(f"{schedule['label']}, seed {seed}: {message}", flush=True)
        found.append(values)
        failures.append(messages)
    cells = {
        name: np.stack([np.broadcast_to(values.get(name, np.nan), len(seeds)) for values in found])
        for name in dict.fromkeys(name for values in found for name in values)
    }
    message = np.array(failures, dtype=np.str_)
    write_cells(outputs["likelihood"], cells | {"failed": message != "", "message": message}, spec)


def _of_schedule(
    spec: Spec,
    schedule: Mapping[str, Any],
    place: int,
    target: Target,
    rows: list[Array],
    seeds: range,
    inputs: Mapping[str, Path],
    device: str,
) -> Values:
    """All of one schedule, the one at `place` of its block; `message` has an entry a seed."""
    from sgm.likelihood import bits_per_dimension
    from sgm.run.jobs.score_fns import bind, load_networks

    process = build_process(spec["process"], schedule, spec["horizon"])
    values: Values
    trained = load_networks(spec, inputs, target)
    if trained is not None:
        ensemble = bind(spec, trained, process, place, len(seeds), target)
        values = evidence.of_networks(spec, process, target.law, ensemble, seeds, rows, device)
        values |= flow.of_networks(spec, process, target.law, ensemble, seeds, rows, device)
    else:
        assert target.law is not None
        score = build(spec["score"], process=process, law=target.law)
        finest = _finest_variance(spec, target.law)
        values = evidence.of_score(spec, process, target.law, score, finest)
        values |= flow.of_score(spec, process, target.law, score, rows, finest)
        if np.isfinite(values["data_log_density"]):
            values |= evidence.optimum(spec, target.law, schedule)
    if target.law is not None and target.law.dimension == 1:
        try:
            values["reverse_sde_kl"] = elbo.reverse_sde_kl(process, target.law)
        except ArithmeticError as error:  # next to T = 0
            values["message"] = [m or f"reverse_sde_kl: {error}" for m in values["message"]]
    if target.levels and target.span:
        values["bits_per_dimension"] = bits_per_dimension(
            values["flow_log_likelihood"], target.dimension, target.levels, span=target.span
        )
    return values


def _true_rows(spec: Spec, target: Target, inputs: Mapping[str, Path], seeds: range) -> list[Array]:
    """Rows whose likelihood is asked for, one array a seed: fresh draws or held-out rows.

    They are the same for all schedules, horizons and scores.
    """
    n, label = spec["likelihood"]["rows"], spec["target"]["label"]
    if target.law is None:
        parts = read_cells(inputs["data"], ["heldout"])["heldout"]  # one a seed, or one for all
        return [parts[min(r, len(parts) - 1)][:n].astype(np.float64) for r in range(len(seeds))]
    return [
        target.sample(n, stream(spec["study_seed"], "likelihood", target=label, seed=seed))
        for seed in seeds
    ]


def _finest_variance(spec: Spec, law: Law) -> float:
    """d/E|∇log p|²: of a Gaussian, the harmonic mean of its variances.

    The mean over true rows, the same for all seeds, where a law does not know it.
    """
    information = float(law.fisher_information())
    if np.isnan(information):
        generator = stream(spec["study_seed"], "information", target=spec["target"]["label"])
        information = float(np.mean(np.sum(law.score(law.sample(1000, generator)) ** 2, axis=1)))
    return law.dimension / information
