"""The bounds of the theorems, each with its terms as variables of the grid, and where it holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm import bounds
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.processes import Process, VPProcess
from sgm.random import stream
from sgm.registry import Seed, register
from sgm.samplers import Steps
from sgm.targets import LawTarget, Target
from sgm.variables import GRID, KL_TERMINAL, REPLICATE, SCHEDULE, SOLVER, THEORY, Variable

__all__ = [
    "kl_bound",
    "kl_conforti",
    "kl_ddpm",
    "kl_ddpm_objection",
    "kl_ddpm_small",
    "kl_ddpm_small_objection",
    "kl_objection",
    "kl_sde",
    "kl_sde_objection",
    "nll_ddpm",
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
_QUARTERS = {1: "t < T/4", 2: "T/4 < t < T/2", 3: "T/2 < t < 3T/4", 4: "t > 3T/4"}


def _quarter(times: Array) -> npt.NDArray[np.int_]:
    """The quarter of [0, T] of each step's middle, 1 to 4."""
    middle = (times[:-1] + times[1:]) / 2
    return np.asarray(1 + np.minimum(4 * middle / times[0], 3).astype(int))


_LIPSCHITZ: dict[str, Literal["paper", "sharp", "safe", "forward"]] = {
    "w2_bound": "paper",
    "w2_bound_sharp": "sharp",
    "w2_bound_safe": "safe",
    "w2_bound_forward": "forward",
}

_VARIANCES: dict[str, Literal["large", "small"]] = {
    "nll_ddpm": "large",
    "nll_ddpm_small": "small",
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
            for q, times in _QUARTERS.items()
        ),
        Variable(
            "kl_sde",
            THEORY,
            "upper bound on KL(target || output of the backward SDE without steps)",
            about={
                "role": "bound",
                "label": "bound of the backward SDE",
                "parts": " ".join([*(f"kl_sde_score_q{q}" for q in _QUARTERS), "kl_terminal"]),
                "budget": " ".join(
                    ["kl_terminal", *(f"kl_sde_score_q{q}" for q in reversed(_QUARTERS))]
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
    steps, quarter = bounds.backward_sde_kl(process, times, score_mse), _quarter(times)
    # sums over all steps, whatever their number: rounding then depends on no other network
    shares = {
        f"kl_sde_score_q{q}": np.sum(np.where(quarter == q, steps, 0.0), axis=-1) for q in _QUARTERS
    }
    return {"kl_terminal": terminal, **shares, "kl_sde": terminal + sum(shares.values())}


def _vae(name: str, chain: str) -> list[Variable]:
    """The variables of the evidence bound of DDPM, in both forms."""
    return [
        KL_TERMINAL,
        Variable(
            f"{name}_discretization",
            SOLVER,
            f"discretization term of the bound for {chain}",
            about={"label": "discretization"},
        ),
        Variable(
            f"{name}_score",
            THEORY,
            f"score error term of the bound for {chain}",
            about={"label": "score error"},
        ),
        Variable(
            name,
            THEORY,
            f"upper bound on KL(target || output of {chain}), the evidence bound of DDPM",
            about={
                "role": "bound",
                "label": f"DDPM bound, {chain.partition(' the ')[2]}",
                "parts": f"{name}_score {name}_discretization kl_terminal",
                "objection": f"{name}_objection",
                "divergence": "kl_plugin",
            },
        ),
        Variable(f"{name}_prior_loss", SCHEDULE, f"L_T, loss at the prior of {chain}"),
        Variable(f"{name}_step_loss", THEORY, f"sum of the losses L_k of the steps of {chain}"),
        Variable(f"{name}_decoder_loss", THEORY, f"L_0, loss of the last step of {chain}"),
        Variable(f"{name}_elbo", THEORY, f"evidence bound on E log p(X_0) by {chain}"),
    ]


def _vae_values(name: str, bound: bounds.DDPMBound) -> dict[str, Any]:
    return {
        "kl_terminal": bound.terminal,
        f"{name}_discretization": np.sum(bound.discretization),
        f"{name}_score": np.sum(bound.score_error, axis=-1),
        name: bound.total,
        f"{name}_prior_loss": bound.prior_loss,
        f"{name}_step_loss": np.sum(bound.step_loss[..., :-1], axis=-1),
        f"{name}_decoder_loss": bound.step_loss[..., -1],
        f"{name}_elbo": bound.elbo,
    }


def kl_ddpm_objection(law: Law | None, sampler: str, total: str) -> bounds.DDPMObjection:
    """Why the evidence bound of DDPM does not hold for a target and a sampler, if so."""
    return bounds.ddpm_objection(law, sampler, "large")


@register(
    "bound",
    needs="law",
    objection=kl_ddpm_objection,
    variables=_vae("kl_ddpm", "ancestral sampling with the large variance"),
)
def kl_ddpm(process: Process, law: Law, times: Array, score_mse: Array) -> dict[str, Any]:
    """The evidence bound of DDPM with the variance of the forward step, for VP and VE."""
    return _vae_values("kl_ddpm", bounds.ddpm_bound(process, law, times, score_mse, "large"))


def kl_ddpm_small_objection(law: Law | None, sampler: str, total: str) -> bounds.DDPMObjection:
    """Why the same with the small variance does not hold for a target and a sampler, if so."""
    return bounds.ddpm_objection(law, sampler, "small")


@register(
    "bound",
    needs="law",
    objection=kl_ddpm_small_objection,
    variables=_vae("kl_ddpm_small", "ancestral sampling with the small variance"),
)
def kl_ddpm_small(process: Process, law: Law, times: Array, score_mse: Array) -> dict[str, Any]:
    """The same with the variance of q(x' | x, x₀), and that of the forward step in the decoder."""
    bound = bounds.ddpm_bound(process, law, times, score_mse, "small")
    return _vae_values("kl_ddpm_small", bound)


def _rows_evidence(name: str, chain: str) -> list[Variable]:
    """The variables of the evidence bound of DDPM on rows."""
    return [
        Variable(
            f"{name}_prior",
            THEORY,
            f"L_T, loss at the prior of {chain}, mean over held-out rows",
            about={"label": "prior"},
        ),
        Variable(
            f"{name}_steps",
            THEORY,
            f"sum of the losses L_k of the steps of {chain}, mean over held-out rows",
            about={"label": "steps"},
        ),
        Variable(
            f"{name}_decoder",
            THEORY,
            f"L_0, loss of the decoder of {chain}, of levels if the data have any",
            about={"label": "decoder"},
        ),
        Variable(
            name,
            THEORY,
            f"upper bound on -log probability of held-out rows by {chain}, mean over rows",
            about={
                "role": "bound",
                "label": f"DDPM bound, {chain.partition(' the ')[2]}",
                "parts": f"{name}_decoder {name}_steps {name}_prior",
                "standard_error": f"{name}_standard_error",
            },
        ),
        Variable(f"{name}_standard_error", THEORY, f"standard error of {name} over held-out rows"),
        Variable(
            f"{name}_bits_per_dimension",
            THEORY,
            f"{name} in bits per dimension of the data's own levels",
            "bit",
        ),
        Variable(
            f"{name}_bits_per_dimension_dequantised",
            THEORY,
            f"the bound of {chain} with a decoder of densities, in bits per dimension",
            "bit",
        ),
    ]


@register(
    "bound",
    needs="data",
    variables=[
        *_rows_evidence("nll_ddpm", "ancestral sampling with the large variance"),
        *_rows_evidence("nll_ddpm_small", "ancestral sampling with the small variance"),
    ],
)
def nll_ddpm(
    process: Process,
    times: Array,
    target: Target,
    heldout: bounds.DenoisedRows,
    levelled: bounds.DenoisedRows | None,
) -> dict[str, Any]:
    """The evidence bound of DDPM on held-out rows, with both variances."""
    n, d = heldout.rows.shape[-2:]
    bins, width = None, np.nan
    if levelled and target.levels and target.span:
        _, bins = bounds.level_bins(target, levelled.rows)
        width = target.span / target.levels
    values: dict[str, Any] = {}
    for name, variance in _VARIANCES.items():
        losses = bounds.row_losses(process, times, levelled or heldout, bins, variance)
        total = losses.total
        density = bounds.row_losses(process, times, heldout, None, variance).total
        nats = {
            "_bits_per_dimension": total.mean(axis=-1) / d if bins else np.nan,
            "_bits_per_dimension_dequantised": density.mean(axis=-1) / d - np.log(width),
        }
        values |= {
            f"{name}_prior": losses.prior.mean(axis=-1),
            f"{name}_steps": losses.steps.mean(axis=-1),
            f"{name}_decoder": losses.decoder.mean(axis=-1),
            name: total.mean(axis=-1),
            f"{name}_standard_error": total.std(axis=-1, ddof=1) / np.sqrt(n),
            **{name + key: value / np.log(2) for key, value in nats.items()},
        }
    return values


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
            for q, times in _QUARTERS.items()
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
    quarter = _quarter(times)
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
