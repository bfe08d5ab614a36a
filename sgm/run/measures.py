"""Divergences and bounds as named variables of the grid.

A measure returns a mapping from a variable's name (declared in its registry row) to its
value. It names what it needs among its arguments: a divergence any of `sample`,
`target`, `train`, `heldout`; a bound any of `process`, `law`, `times`, and of the score's
error at the departure times `score_mse`, `score_mse_standard_error` and `score_cross`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import bounds, divergences
from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.targets import Target

__all__ = ["gaussian_kl", "heldout_nll", "kl_bound"]

Array = npt.NDArray[np.float64]


def gaussian_kl(sample: Array, target: Target) -> dict[str, Any]:
    """Plug-in and unbiased KL from the target's Gaussian to the sample's moments.

    For data whose law is unknown the target's Gaussian has the moments of all the data:
    the divergence then sees the first two moments alone.
    """
    moments = divergences.Moments.of(sample)
    floor, floor_sd = divergences.plugin_kl_floor(moments.dimension, moments.n)
    law = target.reference
    return {
        "kl_plugin": divergences.plugin_kl(law, moments),
        "kl_unbiased": divergences.unbiased_kl(law, moments),
        "kl_standard_error": divergences.kl_standard_error(law, moments),
        "kl_floor": floor,
        "kl_floor_sd": floor_sd,
    }


def heldout_nll(
    sample: Array,
    train: Array,
    heldout: Array | None,
    components: int,
    regularisation: float,
) -> dict[str, Any]:
    """Held-out log-likelihood gap, for targets that hold rows out."""
    if heldout is None:
        return {}
    gap = divergences.heldout_nll_gap(
        sample, train, heldout, components=components, regularisation=regularisation
    )
    return {
        "heldout_nll_gap": gap.value,
        "heldout_nll_standard_error": gap.standard_error,
        "heldout_nll_floor": gap.floor,
    }


def kl_bound(
    process: VPProcess,
    law: Gaussian,
    times: Array,
    score_mse: Array,
    score_mse_standard_error: Array,
    score_cross: Array,
) -> dict[str, Any]:
    """The KL theorem's terms, with the refined and the path bound."""
    increments = -np.diff(process.schedule.integral(times))
    bound = bounds.gaussian_kl_bound(process, law, times, score_mse, score_cross)
    return {
        "kl_terminal": bound.terminal,
        "kl_bound_mixing": bound.mixing,
        "kl_bound_score": bound.score_error,
        # the times' errors are estimated from independent draws
        "kl_bound_score_standard_error": np.sqrt((score_mse_standard_error**2) @ increments**2),
        "kl_bound_discretization": bound.discretization,
        "kl_bound_discretization_refined": bound.discretization_refined,
        "kl_bound": bound.total,
        "kl_path": bound.path,
    }
