"""The evidence bound of DDPM, of laws and of data, as variables of the grid."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sgm import bounds
from sgm.densities import Law
from sgm.processes import Process
from sgm.registry import register
from sgm.targets import Target
from sgm.variables import KL_TERMINAL, SCHEDULE, SOLVER, THEORY, Variable

__all__ = [
    "kl_ddpm",
    "kl_ddpm_objection",
    "kl_ddpm_small",
    "kl_ddpm_small_objection",
    "nll_ddpm",
    "nll_ddpm_objection",
]

Array = npt.NDArray[np.float64]

_VARIANCES: dict[str, Literal["large", "small"]] = {
    "nll_ddpm": "large",
    "nll_ddpm_small": "small",
}


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
                "objection": f"{name}_objection",
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


def nll_ddpm_objection(sampler: str, total: str) -> bounds.RowsObjection:
    """Why the evidence bound on rows is not about a sampler, if so."""
    return bounds.rows_objection(sampler, _VARIANCES[total])


@register(
    "bound",
    needs="data",
    objection=nll_ddpm_objection,
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
