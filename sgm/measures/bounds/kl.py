"""The bounds of KL, each with its terms as variables of the grid, and where it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import bounds
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.measures.bounds.quarters import QUARTERS, quarter_of
from sgm.processes import VPProcess
from sgm.registry import register
from sgm.variables import KL_TERMINAL, SCHEDULE, SOLVER, THEORY, Variable

__all__ = [
    "kl_bound",
    "kl_conforti",
    "kl_objection",
    "kl_sde",
    "kl_sde_objection",
]

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
        Variable(
            "kl_bound_mixing",
            SCHEDULE,
            "E1 of the KL theorem, mixing term",
            about={"label": "E1 mixing"},
        ),
        Variable(
            "kl_bound_score",
            THEORY,
            "E2 of the KL theorem, score error",
            about={"label": "E2 score error"},
        ),
        Variable(
            "kl_bound_score_standard_error", THEORY, "Monte-Carlo standard error of kl_bound_score"
        ),
        Variable(
            "kl_bound_score_draws",
            THEORY,
            "Monte-Carlo draws per time for kl_bound_score, their mean; 0 where it is exact",
            "1",
        ),
        Variable(
            "kl_bound_discretization",
            SOLVER,
            "E3 of the KL theorem, discretisation term",
            about={"label": "E3 discretization", "refined": "kl_bound_discretization_refined"},
        ),
        Variable(
            "kl_bound_discretization_refined",
            SOLVER,
            "E3 of the KL theorem, refined: without telescoping the steps",
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
                "refined": "kl_bound_refined kl_path kl_conforti",
                "objection": "kl_bound_objection",
                "divergence": "kl_plugin",
            },
        ),
        Variable(
            "kl_bound_refined",
            THEORY,
            "upper bound on KL(target || generated), E1 + E2 + E3 refined",
            about={"label": "refined bound E1 + E2 + E3 refined"},
        ),
        Variable(
            "kl_path",
            THEORY,
            "path KL: KL(p_T || prior) plus the Girsanov term",
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
        bound = bounds.kl_bound(
            process,
            times,
            kl_to_prior=_kl_to_prior(process, law, times[-1]),
            fisher=lambda t: _information(process, law, t),
            terminal_kl=_kl_to_prior(process, law, times[0]),
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


def _kl_to_prior(process: VPProcess, law: Law, t: float) -> float:
    """KL(p_t ‖ π_∞)."""
    scale, spread = process.mean_scale(t), process.kernel_variance(t)
    return law.kl_to_normal(process.variance, float(scale), float(spread))


def _information(process: VPProcess, law: Law, t: npt.ArrayLike) -> Array:
    """I(p_t | π_∞); shape of `t`."""
    return law.relative_fisher_information(
        process.variance, process.mean_scale(t), process.kernel_variance(t)
    )


@register(
    "bound",
    needs="law",
    objection=kl_objection,
    stationary=True,
    variables=[
        Variable(
            "kl_conforti_mixing",
            SCHEDULE,
            "bound of Conforti et al.: E1, mixing term",
            about={"label": "E1 mixing"},
        ),
        Variable(
            "kl_conforti_discretization",
            SOLVER,
            "bound of Conforti et al.: half the largest step of B times I(target | prior)",
            about={"label": "discretization"},
        ),
        Variable(
            "kl_conforti_score",
            THEORY,
            "bound of Conforti et al.: what the score's error adds",
            about={"label": "score error"},
        ),
        Variable(
            "kl_conforti",
            THEORY,
            "upper bound on KL(target || generated) of Conforti et al., in the clock B",
            about={
                "role": "bound",
                "label": "bound of Conforti, Durmus, Gentiloni Silveri",
                "parts": "kl_conforti_score kl_conforti_discretization kl_conforti_mixing",
                "objection": "kl_conforti_objection",
                "divergence": "kl_plugin",
            },
        ),
    ],
)
def kl_conforti(process: VPProcess, law: Law, times: Array, score_mse: Array) -> dict[str, Any]:
    """The KL bound of Conforti, Durmus and Gentiloni Silveri, in the clock B."""
    bound = bounds.conforti_kl_bound(
        process,
        times,
        kl_to_prior=_kl_to_prior(process, law, times[-1]),
        information=float(_information(process, law, times[-1])),
        score_mse=score_mse,
    )
    return {
        "kl_conforti_mixing": bound.mixing,
        "kl_conforti_discretization": bound.discretization,
        "kl_conforti_score": bound.score_error,
        "kl_conforti": bound.total,
    }


def kl_sde_objection(law: Law | None, total: str) -> bounds.BackwardSDEObjection:
    """Why the bound of the backward SDE is no theorem about a sampler."""
    return bounds.backward_sde_objection(law)


@register(
    "bound",
    needs="law",
    objection=kl_sde_objection,
    stationary=True,
    variables=[
        KL_TERMINAL,
        *(
            Variable(
                f"kl_sde_score_q{q}",
                THEORY,
                f"bound of the backward SDE: half of E2, the score's error, at {times}",
                about={"label": f"score error, {times}"},
            )
            for q, times in QUARTERS.items()
        ),
        Variable(
            "kl_sde",
            THEORY,
            "upper bound on KL(target || output of the backward SDE without steps)",
            about={
                "role": "bound",
                "label": "bound of the backward SDE",
                "parts": " ".join([*(f"kl_sde_score_q{q}" for q in QUARTERS), "kl_terminal"]),
                "budget": " ".join(
                    ["kl_terminal", *(f"kl_sde_score_q{q}" for q in reversed(QUARTERS))]
                ),
                "objection": "kl_sde_objection",
                "divergence": "kl_plugin",
            },
        ),
    ],
)
def kl_sde(process: VPProcess, law: Law, times: Array, score_mse: Array) -> dict[str, Any]:
    """KL(p_T | prior) and half of E2 by quarters of [0, T]: the score's error by time.

    It bounds the KL of the backward SDE without steps, and the weight `beta` minimises it.
    """
    terminal = _kl_to_prior(process, law, times[0])
    steps, quarter = bounds.backward_sde_kl(process, times, score_mse), quarter_of(times)
    # sums over all steps, whatever their number: rounding then depends on no other network
    shares = {
        f"kl_sde_score_q{q}": np.sum(np.where(quarter == q, steps, 0.0), axis=-1) for q in QUARTERS
    }
    return {"kl_terminal": terminal, **shares, "kl_sde": terminal + sum(shares.values())}
