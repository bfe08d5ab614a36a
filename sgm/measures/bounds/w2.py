"""The bounds of W2, each with its terms as variables of the grid, and where it holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm import bounds
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.measures.bounds.quarters import QUARTERS, quarter_of
from sgm.processes import Process, VPProcess
from sgm.random import stream
from sgm.registry import Seed, register
from sgm.samplers import Steps
from sgm.targets import LawTarget
from sgm.variables import GRID, REPLICATE, SCHEDULE, SOLVER, THEORY, Variable

__all__ = [
    "w2_bound",
    "w2_brosse_dalalyan",
    "w2_brosse_dalalyan_objection",
    "w2_objection",
    "w2_one_step",
    "w2_one_step_mixture",
    "w2_one_step_mixture_objection",
    "w2_one_step_objection",
]

Array = npt.NDArray[np.float64]

_LIPSCHITZ: dict[str, Literal["paper", "sharp", "safe", "forward"]] = {
    "w2_bound": "paper",
    "w2_bound_sharp": "sharp",
    "w2_bound_safe": "safe",
    "w2_bound_forward": "forward",
}


def w2_objection(law: Law | None, variance: float, sampler: str, total: str) -> bounds.W2Objection:
    """Why one of the W2 totals is not a theorem for a target and a sampler, if so."""
    return bounds.w2_objection(law, variance, sampler, _LIPSCHITZ[total])


@register(
    "bound",
    name="w2",
    needs="law",
    objection=w2_objection,
    stationary=True,
    variables=[
        Variable("w2_bound_mixing", SCHEDULE, "W2 theorem: mixing term", "1", {"label": "mixing"}),
        Variable(
            "w2_bound_discretization",
            SOLVER,
            "W2 theorem: discretisation term with the paper's Lipschitz constant",
            "1",
            {"label": "discretization"},
        ),
        Variable(
            "w2_bound_discretization_sharp",
            SOLVER,
            "W2 theorem: discretisation term with the sharp Lipschitz constant",
            "1",
            {"label": "discretization, sharp"},
        ),
        Variable(
            "w2_bound_discretization_safe",
            SOLVER,
            "W2 theorem: discretisation term with a Lipschitz constant safe for any spectrum",
            "1",
            {"label": "discretization, safe"},
        ),
        Variable(
            "w2_bound_time",
            SOLVER,
            "W2 theorem: time-regularity term M h T sup β (1 + 2B)",
            "1",
            {"label": "time regularity"},
        ),
        Variable(
            "w2_bound_score",
            REPLICATE,
            "W2 theorem: score term, from the largest error along the generated chain",
            "1",
            {"label": "score error"},
        ),
        Variable(
            "w2_bound_score_forward",
            THEORY,
            "W2 theorem: score term, from the largest error along the forward process",
            "1",
            {"label": "score error, forward"},
        ),
        Variable(
            "w2_bound",
            REPLICATE,
            "upper bound on W2(target, generated)",
            "1",
            {
                "role": "bound",
                "label": "upper bound on W2",
                "parts": "w2_bound_time w2_bound_discretization w2_bound_score w2_bound_mixing",
                "refined": "w2_bound_sharp w2_bound_safe w2_bound_forward w2_one_step",
                "objection": "w2_bound_objection",
                "divergence": "w2_plugin",
            },
        ),
        Variable(
            "w2_bound_sharp",
            REPLICATE,
            "upper bound on W2(target, generated) with the sharp Lipschitz constant",
            "1",
            {"label": "sharp Lipschitz constant", "objection": "w2_bound_sharp_objection"},
        ),
        Variable(
            "w2_bound_safe",
            REPLICATE,
            "upper bound on W2(target, generated) with the safe Lipschitz constant",
            "1",
            {"label": "safe Lipschitz constant", "objection": "w2_bound_safe_objection"},
        ),
        Variable(
            "w2_bound_forward",
            THEORY,
            "w2_bound with the score error along the forward process, the authors' choice",
            "1",
            {
                "label": "score error along the forward process",
                "objection": "w2_bound_forward_objection",
            },
        ),
        Variable("w2_constant_m", SOLVER, "W2 theorem: M, regularity of the score in time", "1"),
        Variable("w2_constant_b", ("target",), "W2 theorem: B, root of E|X₀|² + σ²d", "1"),
    ],
)
def w2_bound(
    process: VPProcess, law: Law, times: Array, score_mse: Array, score_mse_generated: Array
) -> dict[str, Any]:
    """The W2 theorem's terms; for a law that is not Gaussian, those of its surrogate.

    The surrogate, a Gaussian with the same moments, makes no theorem: `w2_objection` says so.
    """
    bound = bounds.gaussian_w2_bound(
        process,
        LawTarget(law).reference,
        times,
        score_mse_forward=score_mse,
        score_mse_generated=score_mse_generated,
    )
    return {
        "w2_bound_mixing": bound.mixing,
        "w2_bound_discretization": bound.discretization,
        "w2_bound_discretization_sharp": bound.discretization_sharp,
        "w2_bound_discretization_safe": bound.discretization_safe,
        "w2_bound_time": bound.time_regularity,
        "w2_bound_score": bound.score_error,
        "w2_bound_score_forward": bound.score_error_forward,
        "w2_bound": bound.total,
        "w2_bound_sharp": bound.total_sharp,
        "w2_bound_safe": bound.total_safe,
        "w2_bound_forward": bound.total_forward,
        "w2_constant_m": bound.time_constant,
        "w2_constant_b": bound.moment_constant,
    }


def w2_one_step_objection(law: Law | None, total: str) -> bounds.OneStepObjection:
    """Why the one-step bound is not a theorem for a target, if so; it is for every sampler."""
    return bounds.one_step_objection(law)


@register(
    "bound",
    needs="gaussian",
    objection=w2_one_step_objection,
    variables=[
        *(
            variable
            for q, times in QUARTERS.items()
            for variable in (
                Variable(
                    f"w2_one_step_discretization_q{q}",
                    GRID,
                    f"one-step bound on W2: contribution of the steps' discretisation at {times}",
                    "1",
                    {"label": f"discretization, {times}"},
                ),
                Variable(
                    f"w2_one_step_score_q{q}",
                    REPLICATE,
                    f"one-step bound on W2: contribution of the score's errors at {times}",
                    "1",
                    {"label": f"score error, {times}"},
                ),
            )
        ),
        Variable(
            "w2_one_step_mixing",
            GRID,
            "one-step bound on W2: contribution of the start at the prior",
            "1",
            {"label": "mixing"},
        ),
        Variable(
            "w2_one_step_discretization",
            GRID,
            "one-step bound on W2: contribution of the steps' discretisation",
            "1",
            {"label": "discretization"},
        ),
        Variable(
            "w2_one_step_score",
            REPLICATE,
            "one-step bound on W2: contribution of the score's errors along the generated chain",
            "1",
            {"label": "score error"},
        ),
        Variable(
            "w2_one_step",
            REPLICATE,
            "one-step upper bound on W2(target, generated)",
            "1",
            {
                "role": "bound",
                "label": "one-step bound on W2",
                "parts": "w2_one_step_discretization w2_one_step_score w2_one_step_mixing",
                "budget": " ".join(
                    [
                        "w2_one_step_mixing",
                        *(f"w2_one_step_discretization_q{q}" for q in reversed(QUARTERS)),
                        *(f"w2_one_step_score_q{q}" for q in reversed(QUARTERS)),
                    ]
                ),
                "objection": "w2_one_step_objection",
                "divergence": "w2_plugin",
            },
        ),
    ],
)
def w2_one_step(
    process: Process, law: Gaussian, times: Array, steps: Steps, score_mse_evaluations: Array
) -> dict[str, Any]:
    """The bound of W2 that follows the sampler's own steps, and its shares over time.

    A step belongs to the quarter of [0, T] of its middle, with its evaluations; the distance that
    an early stop leaves to the first.
    """
    bound = bounds.one_step_w2_bound(
        process, law, times, steps, score_mse_generated=score_mse_evaluations
    )
    quarter = quarter_of(times)
    step = np.searchsorted(steps.departing, np.arange(steps.nfe), side="right") - 1
    budget = {}
    for q in QUARTERS:
        own = np.sum(bound.steps[quarter == q]) + (bound.early_stop if q == 1 else 0.0)
        budget[f"w2_one_step_discretization_q{q}"] = own
        errors = bound.evaluations[..., quarter[step] == q]
        budget[f"w2_one_step_score_q{q}"] = np.sum(errors, axis=-1)
    return {
        **budget,
        "w2_one_step_mixing": bound.mixing,
        "w2_one_step_discretization": bound.discretization + bound.early_stop,
        "w2_one_step_score": bound.score_error,
        "w2_one_step": bound.total,
    }


def _recursion(
    name: str, label: str, divergence: str, discretization: str, *more: Variable
) -> list[Variable]:
    """The variables of a bound by recursion over the steps, see `sgm.bounds.lipschitz`."""
    return [
        Variable(f"{name}_mixing", GRID, f"{label}: contribution of the start at the prior", "1",
                 {"label": "mixing"}),
        Variable(f"{name}_discretization", GRID, f"{label}: {discretization}", "1",
                 {"label": "discretization"}),
        Variable(f"{name}_score", REPLICATE,
                 f"{label}: contribution of the score's errors along the generated chain", "1",
                 {"label": "score error"}),
        Variable(f"{name}_growth", GRID,
                 f"{label}: product of the steps' Lipschitz constants, by which an error at the "
                 "start is multiplied",
                 "1"),
        *more,
        Variable(name, REPLICATE, f"upper bound on W2(target, generated): {label}", "1", {
            "role": "bound",
            "label": label,
            "parts": f"{name}_discretization {name}_score {name}_mixing",
            "objection": f"{name}_objection",
            "divergence": divergence,
        }),
    ]  # fmt: skip


def _shares(name: str, bound: bounds.LipschitzBound | None) -> dict[str, Any]:
    """The variables of `_recursion`, NaN where the bound is none."""
    if bound is None:
        parts = ("_mixing", "_discretization", "_score", "_growth", "")
        return {f"{name}{part}": np.nan for part in parts}
    return {
        f"{name}_mixing": bound.mixing,
        f"{name}_discretization": bound.discretization + bound.early_stop,
        f"{name}_score": bound.score_error,
        f"{name}_growth": bound.growth,
        name: bound.total,
    }


def w2_brosse_dalalyan_objection(
    law: Law | None, sampler: str, total: str
) -> bounds.LipschitzObjection:
    """Why the bound of Brosse and Dalalyan does not hold for a target and a sampler, if so."""
    return bounds.lipschitz_objection(law, sampler, frozenset({"ddim"}))


@register(
    "bound",
    needs="law",
    objection=w2_brosse_dalalyan_objection,
    variables=_recursion(
        "w2_brosse_dalalyan",
        "bound of Brosse and Dalalyan on W2",
        "w2_plugin",
        "contribution of the steps' discretisation, for any law",
    ),
)
def w2_brosse_dalalyan(
    process: Process, law: Law, times: Array, steps: Steps, score_mse_evaluations: Array
) -> dict[str, Any]:
    """The bound of W2 for DDIM with η = 0, Euler's scheme of the flow; NaN for other samplers."""
    found = None
    if score_mse_evaluations.shape[-1] == steps.n_steps:
        found = bounds.brosse_dalalyan_w2_bound(
            process, law, times, steps, score_mse_generated=score_mse_evaluations
        )
    return _shares("w2_brosse_dalalyan", found)


def w2_one_step_mixture_objection(
    law: Law | None, sampler: str, total: str
) -> bounds.LipschitzObjection:
    """Why the one-step bound of mixtures does not hold for a target and a sampler, if so."""
    return bounds.lipschitz_objection(law, sampler)


@register(
    "bound",
    needs="density",
    objection=w2_one_step_mixture_objection,
    variables=_recursion(
        "w2_one_step_mixture",
        "one-step bound on W2 by Lipschitz constants",
        "w2_sample",
        "contribution of the steps' discretisation, by Monte Carlo",
        Variable(
            "w2_one_step_mixture_standard_error",
            GRID,
            "Monte-Carlo standard error of w2_one_step_mixture_discretization",
            "1",
        ),
    ),
)
def w2_one_step_mixture(
    process: Process,
    law: Law,
    times: Array,
    steps: Steps,
    score_mse_evaluations: Array,
    *,
    draws: Annotated[int, Interval(ge=2, le=10**6)] = 1000,
    draws_seed: Seed = 0,
) -> dict[str, Any]:
    """The bound of W2 that follows the sampler's steps, for laws whose score is Lipschitz.

    Parameters
    ----------
    draws : int
        Draws of the forward process in each step, for the errors of the steps.
    draws_seed : int
        Seed of these draws, the same for all cells.
    """
    name = "w2_one_step_mixture"
    found = None
    if score_mse_evaluations.shape[-1] == steps.n_steps:
        found = bounds.mixture_w2_bound(
            process, law, times, steps, stream(draws_seed, name), draws,
            score_mse_generated=score_mse_evaluations,
        )  # fmt: skip
    error = np.nan if found is None else found.standard_error
    return _shares(name, found) | {f"{name}_standard_error": error}
