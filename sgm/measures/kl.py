"""The KL theorem's bound, its terms and where it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import bounds
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.registry import register
from sgm.variables import KL_TERMINAL, SCHEDULE, SOLVER, THEORY, Variable

__all__ = ["kl_bound", "kl_objection"]

Array = npt.NDArray[np.float64]


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
