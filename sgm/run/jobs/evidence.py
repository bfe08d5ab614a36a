"""The evidence bound of a score and its terms; of networks also from the loss of denoising."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import elbo
from sgm.densities import Law
from sgm.optimal_horizon import optimal_horizon
from sgm.processes import Process
from sgm.run.build import build, build_process

__all__ = ["of_networks", "of_score", "optimum"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Values = dict[str, Any]


def of_score(spec: Spec, process: Process, law: Law, score: Any, finest_variance: float) -> Values:
    """An exact or perturbed score: its error is known, the same for all seeds."""
    quadrature = _quadrature(spec, process, finest_variance)
    mse, _ = score.error_moments(law, quadrature.times)
    return _terms(process, law, mse, quadrature)


def of_networks(
    spec: Spec,
    process: Process,
    law: Law | None,
    ensemble: Any,
    seeds: range,
    rows: Sequence[Array],
    device: str,
) -> Values:
    """Networks: every expectation by Monte Carlo; of an unknown law the loss of denoising alone."""
    import torch

    from sgm import evaluation, networks

    place = networks.resolve_device(device)
    score_fn = ensemble.to(place)
    axes = {"target": spec["target"]["label"]}
    common = (spec["study_seed"], list(seeds), axes, torch.float32, place)
    values: Values = {}
    # a network's relative error doesn't vanish as t → 0: each decade of noise counts alike
    quadrature = _quadrature(spec, process, 0.0)
    if law is not None:
        moments = evaluation.score_error_moments(
            score_fn, process, law, quadrature.times, spec["likelihood"]["rows"], *common
        )
        values |= _terms(process, law, moments.mse, quadrature)
        errors = quadrature.weights * moments.mse_standard_error
        values["score_gap_standard_error"] = np.linalg.norm(errors, axis=-1) / 2
    losses = evaluation.denoising_losses(
        score_fn, process, np.stack(rows), quadrature.times, *common
    )
    bounds = [
        elbo.denoising_elbo(process, x.shape[1], np.sum(x**2, axis=1), loss, quadrature)
        for x, loss in zip(rows, losses, strict=True)
    ]
    means = [elbo.mean_over_rows(law, x, bound) for x, bound in zip(rows, bounds, strict=True)]
    values["denoising_elbo"], values["denoising_elbo_standard_error"] = zip(*means, strict=True)
    return values


def optimum(spec: Spec, law: Law, schedule: Mapping[str, Any]) -> Values:
    """The horizon of the largest bound, of a schedule that is cut, not stretched."""
    if "full_horizon" not in schedule:
        return {}
    process = build_process(spec["process"], schedule, schedule["full_horizon"])
    score = build(spec["score"], process=process, law=law)
    best = optimal_horizon(process, law, lambda t: score.error_moments(law, t)[0])
    return {"optimal_horizon": best.horizon, "optimal_horizon_interior": float(best.interior)}


def _terms(
    process: Process, law: Law, mse: npt.ArrayLike, quadrature: elbo.TimeQuadrature
) -> Values:
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


def _quadrature(spec: Spec, process: Process, smallest_variance: float) -> elbo.TimeQuadrature:
    choices = spec["likelihood"]
    return elbo.time_quadrature(
        process, choices["nodes"], smallest_variance=smallest_variance, cutoff=choices["cutoff"]
    )
