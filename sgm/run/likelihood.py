"""Likelihood of a score: its evidence bound, and that of its probability flow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import elbo
from sgm.densities import Law
from sgm.optimal_horizon import optimal_horizon
from sgm.processes import Process
from sgm.random import stream
from sgm.run.build import build, build_process, build_target
from sgm.store.cells import read_cells, write_cells
from sgm.targets import Target

__all__ = ["likelihood"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Values = dict[str, Any]

DIFFERENCE = 0.01  # step of numerical derivatives, in units of the law's finest feature


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
    from sgm.run.score_fns import bind, load_networks

    process = build_process(spec["process"], schedule, spec["horizon"])
    values: Values
    trained = load_networks(spec, inputs, target)
    if trained is not None:
        ensemble = bind(spec, trained, process, place, len(seeds))
        values = _of_networks(spec, process, target.law, ensemble, seeds, rows, device)
    else:
        assert target.law is not None
        score = build(spec["score"], process=process, law=target.law)
        values = _of_score(spec, process, target.law, score, rows)
        if np.isfinite(values["data_log_density"]):
            values |= _optimum(spec, target.law, schedule)
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


def _of_networks(
    spec: Spec,
    process: Process,
    law: Law | None,
    ensemble: Any,
    seeds: range,
    rows: Sequence[Array],
    device: str,
) -> Values:
    """Networks: every expectation by Monte Carlo, each flow solved on its own."""
    import torch

    from sgm import evaluation, networks
    from sgm.likelihood import network_field

    choices, axes = spec["likelihood"], {"target": spec["target"]["label"]}
    place = networks.resolve_device(device)
    score_fn = ensemble.to(place)
    common = (spec["study_seed"], list(seeds), axes, torch.float32, place)
    values: Values = {}
    # a network's relative error doesn't vanish as t → 0: each decade of noise counts alike
    quadrature = _quadrature(spec, process, 0.0)
    if law is not None:
        moments = evaluation.score_error_moments(
            score_fn, process, law, quadrature.times, choices["rows"], *common
        )
        values |= _evidence(process, law, moments.mse, quadrature)
        errors = quadrature.weights * moments.mse_standard_error
        values["score_gap_standard_error"] = np.linalg.norm(errors, axis=-1) / 2
    losses = evaluation.denoising_losses(
        score_fn, process, np.stack(rows), quadrature.times, *common
    )
    bounds = [
        elbo.denoising_elbo(process, x.shape[1], np.sum(x**2, axis=1), loss, quadrature)
        for x, loss in zip(rows, losses, strict=True)
    ]
    means = [_mean(law, x, bound) for x, bound in zip(rows, bounds, strict=True)]
    values["denoising_elbo"], values["denoising_elbo_standard_error"] = zip(*means, strict=True)
    flows = []
    for r, (seed, x) in enumerate(zip(seeds, rows, strict=True)):
        signs = None
        if choices["divergence"] == "hutchinson":
            generator = stream(spec["study_seed"], "hutchinson", seed=seed, **axes)
            signs = generator.choice([-1.0, 1.0], size=(choices["directions"], 1, *x.shape))
        network = ensemble[r : r + 1].to(dtype=torch.float64)
        field = network_field(network, signs=signs)
        flows.append(_flow(spec, process, law, field, x[None]))
    return values | {name: [flow[name] for flow in flows] for name in flows[0]}


def _of_score(spec: Spec, process: Process, law: Law, score: Any, rows: Sequence[Array]) -> Values:
    """An exact or perturbed score: its error is known."""
    from sgm.likelihood import score_field

    finest = _finest_variance(law, spec)
    quadrature = _quadrature(spec, process, finest)
    mse, _ = score.error_moments(law, quadrature.times)
    field = score_field(score, difference_step=DIFFERENCE * np.sqrt(finest))
    flows = [_flow(spec, process, law, field, x) for x in rows]
    values = _evidence(process, law, mse, quadrature)
    return values | {name: [flow[name] for flow in flows] for name in flows[0]}


def _evidence(
    process: Process, law: Law, mse: npt.ArrayLike, quadrature: elbo.TimeQuadrature
) -> Values:
    """The terms of the evidence bound."""
    bound = elbo.evidence_bound(process, law, mse, quadrature)
    r, k = elbo.denoising_terms(process, law, quadrature.cutoff)
    return {
        "kl_terminal": bound.terminal_kl,
        "data_log_density": elbo.mean_log_density(law),
        "terminal_log_density": bound.terminal_log_density,
        "elbo_r": r,
        "elbo_k": k,
        "elbo_difference": bound.finite_difference,
        "score_gap": bound.score_gap,
        "elbo": bound.elbo,
    }


def _optimum(spec: Spec, law: Law, schedule: Mapping[str, Any]) -> Values:
    """The best horizon of a schedule that is cut, not stretched."""
    if "full_horizon" not in schedule:
        return {}
    process = build_process(spec["process"], schedule, schedule["full_horizon"])
    score = build(spec["score"], process=process, law=law)
    best = optimal_horizon(process, law, lambda t: score.error_moments(law, t)[0])
    return {"optimal_horizon": best.horizon, "optimal_horizon_interior": float(best.interior)}


def _quadrature(spec: Spec, process: Process, smallest_variance: float) -> elbo.TimeQuadrature:
    choices = spec["likelihood"]
    return elbo.time_quadrature(
        process, choices["nodes"], smallest_variance=smallest_variance, cutoff=choices["cutoff"]
    )


def _finest_variance(law: Law, spec: Spec) -> float:
    """d/E|∇log p|²: of a Gaussian, the harmonic mean of its variances.

    The mean over true rows, the same for all seeds, where a law does not know it.
    """
    information = float(law.fisher_information())
    if np.isnan(information):
        generator = stream(spec["study_seed"], "information", target=spec["target"]["label"])
        information = float(np.mean(np.sum(law.score(law.sample(1000, generator)) ** 2, axis=1)))
    return law.dimension / information


def _flow(spec: Spec, process: Process, law: Law | None, field: Any, x: Array) -> Values:
    """Mean log-likelihood of rows under the flow, and its cost; NaN and why if it has none."""
    from sgm.likelihood import flow_likelihood

    choices = spec["likelihood"]
    tolerances = {key: choices[key] for key in ("rtol", "atol", "atol_nats", "method", "cutoff")}
    started = time.perf_counter()
    try:
        found = flow_likelihood(process, field, x, **tolerances)
    except ArithmeticError as error:
        names = ("flow_log_likelihood", "flow_log_likelihood_standard_error", "flow_evaluations")
        return dict.fromkeys((*names, "flow_seconds"), np.nan) | {"message": str(error)}
    seconds = time.perf_counter() - started
    mean, standard_error = _mean(law, x, found.log_likelihood)
    return {
        "flow_log_likelihood": mean,
        "flow_log_likelihood_standard_error": standard_error,
        "flow_evaluations": float(found.evaluations),
        "flow_seconds": seconds,
        "message": "",
    }


def _mean(law: Law | None, x: Array, log_q: Array) -> tuple[float, float]:
    """Mean over rows and its standard error.

    Of a law of known entropy E log p + mean(log q − log p): most of the noise of the rows
    cancels.
    """
    known = np.nan if law is None else elbo.mean_log_density(law)
    if law is None or np.isnan(known):
        known = 0.0
    else:
        log_q = log_q - law.log_density(x)
    return known + float(log_q.mean()), float(np.std(log_q, ddof=1) / np.sqrt(log_q.size))
