"""The likelihood of a score's probability flow, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import elbo
from sgm.densities import Law
from sgm.processes import Process
from sgm.random import stream

__all__ = ["of_networks", "of_score"]

Array = npt.NDArray[np.float64]
Spec = Mapping[str, Any]
Values = dict[str, Any]

DIFFERENCE = 0.01  # step of numerical derivatives, in units of the law's finest feature


def of_score(
    spec: Spec,
    process: Process,
    law: Law,
    score: Any,
    rows: Sequence[Array],
    finest_variance: float,
) -> Values:
    """An exact or perturbed score: one flow, solved for the rows of each seed."""
    from sgm.likelihood import score_field

    field = score_field(score, difference_step=DIFFERENCE * np.sqrt(finest_variance))
    return _by_seed([_solved(spec, process, law, field, x) for x in rows])


def of_networks(
    spec: Spec,
    process: Process,
    law: Law | None,
    ensemble: Any,
    seeds: range,
    rows: Sequence[Array],
    device: str,
) -> Values:
    """Networks: the flow of each, in float64, solved on its own."""
    import torch

    from sgm.likelihood import network_field
    from sgm.networks import resolve_device

    place = resolve_device(device)
    choices, target = spec["likelihood"], spec["target"]["label"]
    found = []
    for r, (seed, x) in enumerate(zip(seeds, rows, strict=True)):
        signs = None
        if choices["divergence"] == "hutchinson":
            generator = stream(spec["study_seed"], "hutchinson", seed=seed, target=target)
            signs = generator.choice([-1.0, 1.0], size=(choices["directions"], 1, *x.shape))
        network = ensemble[r : r + 1].to(place, torch.float64)
        field = network_field(network, signs=signs, device=place)
        found.append(_solved(spec, process, law, field, x[None]))
    return _by_seed(found)


def _by_seed(found: Sequence[Values]) -> Values:
    return {name: [values[name] for values in found] for name in found[0]}


def _solved(spec: Spec, process: Process, law: Law | None, field: Any, x: Array) -> Values:
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
    mean, standard_error = elbo.mean_over_rows(law, x, found.log_likelihood)
    return {
        "flow_log_likelihood": mean,
        "flow_log_likelihood_standard_error": standard_error,
        "flow_evaluations": float(found.evaluations),
        "flow_seconds": seconds,
        "message": "",
    }
