"""The bounds of the theorems, each with its terms as variables of the grid, and where it holds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sgm import bounds
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.processes import Process, VPProcess
from sgm.registry import register
from sgm.samplers import Steps
from sgm.targets import LawTarget
from sgm.variables import GRID, KL_TERMINAL, REPLICATE, SCHEDULE, SOLVER, THEORY, Variable

__all__ = [
    "kl_bound",
    "kl_objection",
    "w2_bound",
    "w2_objection",
    "w2_one_step",
    "w2_one_step_objection",
]

Array = npt.NDArray[np.float64]
_QUARTERS = {1: "t < T/4", 2: "T/4 < t < T/2", 3: "T/2 < t < 3T/4", 4: "t > 3T/4"}
_LIPSCHITZ: dict[str, Literal["paper", "sharp", "safe", "forward"]] = {
    "w2_bound": "paper",
    "w2_bound_sharp": "sharp",
    "w2_bound_safe": "safe",
    "w2_bound_forward": "forward",
}


def kl_objection(law: Law | None, sampler: str, total: str) -> bounds.KLObjection:
    """Why the KL theorem does not hold for a target and a sampler, if so."""
    return bounds.kl_objection(law, sampler)


@register(
    "bound",
    name="kl",
    needs="law",
    objection=kl_objection,
    stationary=True,
    variables=[
        KL_TERMINAL,
        Variable("kl_bound_mixing", SCHEDULE, "E1, mixing term", about={"label": "E1 mixing"}),
        Variable(
            "kl_bound_score",
            THEORY,
            "E2, score-approximation term",
            about={"label": "E2 score error"},
        ),
        Variable("kl_bound_score_standard_error", THEORY, "Monte-Carlo standard error of E2"),
        Variable(
            "kl_bound_score_draws",
            THEORY,
            "Monte-Carlo draws a time for E2, their mean; 0: exact",
            "1",
        ),
        Variable(
            "kl_bound_discretization",
            SOLVER,
            "E3, discretisation term",
            about={"label": "E3 discretization", "refined": "kl_bound_discretization_refined"},
        ),
        Variable(
            "kl_bound_discretization_refined",
            SOLVER,
            "E3 without telescoping the steps",
            about={"label": "E3 refined"},
        ),
        Variable(
            "kl_bound",
            THEORY,
            "upper bound on KL(target || generated), E1 + E2 + E3",
            about={
                "role": "bound",
                "label": "upper bound E1 + E2 + E3",
                "parts": "kl_bound_discretization kl_bound_score kl_bound_mixing",
                "refined": "kl_bound_refined kl_path",
                "objection": "kl_bound_objection",
                "divergence": "kl_plugin",
            },
        ),
        Variable(
            "kl_bound_refined",
            THEORY,
            "E1 + E2 + E3 refined",
            about={"label": "refined bound E1 + E2 + E3 refined"},
        ),
        Variable(
            "kl_path",
            THEORY,
            "KL(p_T || prior) plus the Girsanov path term",
            about={"label": "path KL (Girsanov)"},
        ),
    ],
)
def kl_bound(
    process: VPProcess,
    law: Law,
    times: Array,
    score_mse: Array,
    score_mse_standard_error: Array,
    score_cross: Array,
    score_draws: npt.ArrayLike,
) -> dict[str, Any]:
    """The KL theorem's terms, with the refined and the path bound."""
    increments = -np.diff(process.schedule.integral(times))
    if isinstance(law, Gaussian):
        bound = bounds.gaussian_kl_bound(process, law, times, score_mse, score_cross)
    else:
        variance = process.variance

        def kl_to_prior(t: float) -> float:
            scale, spread = process.mean_scale(t), process.kernel_variance(t)
            return law.kl_to_normal(variance, float(scale), float(spread))

        bound = bounds.kl_bound(
            process,
            times,
            kl_to_prior=kl_to_prior(times[-1]),
            fisher=lambda t: law.relative_fisher_information(
                variance, process.mean_scale(t), process.kernel_variance(t)
            ),
            terminal_kl=kl_to_prior(times[0]),
            score_mse=score_mse,
            score_cross=score_cross,
        )
    return {
        "kl_terminal": bound.terminal,
        "kl_bound_mixing": bound.mixing,
        "kl_bound_score": bound.score_error,
        # the times' errors are estimated from independent draws; a sum, since a matrix product
        # rounds by the number of replicates
        "kl_bound_score_standard_error": np.sqrt(
            np.sum((increments * score_mse_standard_error) ** 2, axis=-1)
        ),
        "kl_bound_score_draws": score_draws,
        "kl_bound_discretization": bound.discretization,
        "kl_bound_discretization_refined": bound.discretization_refined,
        "kl_bound": bound.total,
        "kl_bound_refined": bound.total_refined,
        "kl_path": bound.path,
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
        Variable("w2_bound_mixing", SCHEDULE, "mixing term", "1", {"label": "mixing"}),
        Variable(
            "w2_bound_discretization",
            SOLVER,
            "discretisation term, the paper's Lipschitz constant",
            "1",
            {"label": "discretization"},
        ),
        Variable(
            "w2_bound_discretization_sharp",
            SOLVER,
            "discretisation term, the sharp Lipschitz constant",
            "1",
            {"label": "discretization, sharp"},
        ),
        Variable(
            "w2_bound_discretization_safe",
            SOLVER,
            "discretisation term, a Lipschitz constant that holds for any spectrum",
            "1",
            {"label": "discretization, safe"},
        ),
        Variable(
            "w2_bound_time",
            SOLVER,
            "time-regularity term M h T sup β (1 + 2B)",
            "1",
            {"label": "time regularity"},
        ),
        Variable(
            "w2_bound_score",
            REPLICATE,
            "score term, largest error along the generated chain",
            "1",
            {"label": "score error"},
        ),
        Variable(
            "w2_bound_score_forward",
            THEORY,
            "score term, largest error along the forward process",
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
            "the same with the sharp Lipschitz constant",
            "1",
            {"label": "sharp Lipschitz constant", "objection": "w2_bound_sharp_objection"},
        ),
        Variable(
            "w2_bound_safe",
            REPLICATE,
            "the same with the safe Lipschitz constant",
            "1",
            {"label": "safe Lipschitz constant", "objection": "w2_bound_safe_objection"},
        ),
        Variable(
            "w2_bound_forward",
            THEORY,
            "the same with the score error along the forward process, the authors' choice",
            "1",
            {
                "label": "score error along the forward process",
                "objection": "w2_bound_forward_objection",
            },
        ),
        Variable("w2_constant_m", SOLVER, "M, regularity of the score in time", "1"),
        Variable("w2_constant_b", ("target",), "B, root of E|X₀|² + σ²d", "1"),
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
            for q, times in _QUARTERS.items()
            for variable in (
                Variable(
                    f"w2_one_step_discretization_q{q}",
                    GRID,
                    f"share of the steps' discretisation at {times}",
                    "1",
                    {"label": f"discretization, {times}"},
                ),
                Variable(
                    f"w2_one_step_score_q{q}",
                    REPLICATE,
                    f"share of the score's errors along the generated chain at {times}",
                    "1",
                    {"label": f"score error, {times}"},
                ),
            )
        ),
        Variable(
            "w2_one_step_mixing", GRID, "share of the start at the prior", "1", {"label": "mixing"}
        ),
        Variable(
            "w2_one_step_discretization",
            GRID,
            "share of the steps' discretisation",
            "1",
            {"label": "discretization"},
        ),
        Variable(
            "w2_one_step_score",
            REPLICATE,
            "share of the score's errors along the generated chain",
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
                        *(f"w2_one_step_discretization_q{q}" for q in reversed(_QUARTERS)),
                        *(f"w2_one_step_score_q{q}" for q in reversed(_QUARTERS)),
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
    middle = (times[:-1] + times[1:]) / 2
    quarter = 1 + np.minimum(4 * middle / times[0], 3).astype(int)
    step = np.searchsorted(steps.departing, np.arange(steps.nfe), side="right") - 1
    budget = {}
    for q in _QUARTERS:
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
