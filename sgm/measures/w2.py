"""The W2 theorem's bound, its terms and where it holds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sgm import bounds
from sgm.densities import Law
from sgm.processes import VPProcess
from sgm.registry import register
from sgm.targets import LawTarget
from sgm.variables import REPLICATE, SCHEDULE, SOLVER, THEORY, Variable

__all__ = ["w2_bound", "w2_objection"]

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
                "refined": "w2_bound_sharp w2_bound_safe w2_bound_forward",
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
