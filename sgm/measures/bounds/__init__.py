"""The bounds of the theorems, each with its terms as variables of the grid, and where it holds."""

from sgm.measures.bounds.ddpm import (
    kl_ddpm,
    kl_ddpm_objection,
    kl_ddpm_small,
    kl_ddpm_small_objection,
    nll_ddpm,
    nll_ddpm_objection,
)
from sgm.measures.bounds.kl import (
    kl_bound,
    kl_conforti,
    kl_objection,
    kl_sde,
    kl_sde_objection,
)
from sgm.measures.bounds.w2 import (
    w2_bound,
    w2_brosse_dalalyan,
    w2_brosse_dalalyan_objection,
    w2_objection,
    w2_one_step,
    w2_one_step_mixture,
    w2_one_step_mixture_objection,
    w2_one_step_objection,
)

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
    "nll_ddpm_objection",
    "w2_bound",
    "w2_brosse_dalalyan",
    "w2_brosse_dalalyan_objection",
    "w2_objection",
    "w2_one_step",
    "w2_one_step_mixture",
    "w2_one_step_mixture_objection",
    "w2_one_step_objection",
]
