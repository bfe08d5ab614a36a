"""Upper bounds of what a sampler's output loses against the data's law.

`kl` holds the KL theorem and its sharper forms, `ddpm` the evidence bound of DDPM and `ddpm_rows`
that of rows of data, `w2` the Wasserstein theorem, `one_step` a bound of W₂ that follows a
sampler's own steps, `lipschitz` two for other laws than Gaussians too, with the constants of
`curvature`.
"""

from sgm.bounds.ddpm import (
    DDPMBound,
    DDPMObjection,
    ddpm_bound,
    ddpm_objection,
    step_losses,
)
from sgm.bounds.ddpm_rows import (
    DenoisedRows,
    RowLosses,
    RowsObjection,
    level_bins,
    row_losses,
    rows_objection,
)
from sgm.bounds.kl import (
    KL_BOUND_PROVED_FOR,
    BackwardSDEObjection,
    ConfortiKLBound,
    KLBound,
    KLObjection,
    backward_sde_kl,
    backward_sde_objection,
    conforti_kl_bound,
    gaussian_kl_bound,
    kl_bound,
    kl_objection,
)
from sgm.bounds.lipschitz import (
    ONE_EVALUATION,
    LipschitzBound,
    LipschitzObjection,
    brosse_dalalyan_w2_bound,
    lipschitz_objection,
    mixture_w2_bound,
)
from sgm.bounds.one_step import (
    OneStepBound,
    OneStepObjection,
    one_step_objection,
    one_step_w2_bound,
)
from sgm.bounds.w2 import (
    W2_BOUND_PROVED_FOR,
    W2Bound,
    W2Objection,
    contraction,
    gaussian_w2_bound,
    lipschitz_paper,
    lipschitz_safe,
    lipschitz_sharp,
    w2_objection,
)

__all__ = [
    "KL_BOUND_PROVED_FOR",
    "ONE_EVALUATION",
    "W2_BOUND_PROVED_FOR",
    "BackwardSDEObjection",
    "ConfortiKLBound",
    "DDPMBound",
    "DDPMObjection",
    "DenoisedRows",
    "KLBound",
    "KLObjection",
    "LipschitzBound",
    "LipschitzObjection",
    "OneStepBound",
    "OneStepObjection",
    "RowLosses",
    "RowsObjection",
    "W2Bound",
    "W2Objection",
    "backward_sde_kl",
    "backward_sde_objection",
    "brosse_dalalyan_w2_bound",
    "conforti_kl_bound",
    "contraction",
    "ddpm_bound",
    "ddpm_objection",
    "gaussian_kl_bound",
    "gaussian_w2_bound",
    "kl_bound",
    "kl_objection",
    "level_bins",
    "lipschitz_objection",
    "lipschitz_paper",
    "lipschitz_safe",
    "lipschitz_sharp",
    "mixture_w2_bound",
    "one_step_objection",
    "one_step_w2_bound",
    "row_losses",
    "rows_objection",
    "step_losses",
    "w2_objection",
]
