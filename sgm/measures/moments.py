"""By moments: KL and W2 between the Gaussians of the target's and of the sample's moments."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from sgm import divergences
from sgm.divergences import Control
from sgm.gaussian import Gaussian, wasserstein2
from sgm.measures.coupled import coupled, coupling, divergence, estimated
from sgm.registry import register
from sgm.targets import Target
from sgm.variables import REPLICATE, Variable

__all__ = ["gaussian_kl", "gaussian_w2"]

Array = npt.NDArray[np.float64]


@register(
    "divergence",
    variables=[
        Variable(
            "kl_plugin",
            REPLICATE,
            "KL(target || Gaussian fitted to the sample), plug-in",
            about=divergence(
                "kl",
                "KL(data ‖ generated), by moments",
                floor="kl_floor",
                floor_power="1",
                floor_sd="kl_floor_sd",
                exact="kl_exact",
                unbiased="kl_unbiased",
                standard_error="kl_standard_error",
                coupled="kl_coupled",
                bound="kl_bound",
            ),
        ),
        *coupled("kl", "KL(target || Gaussian of the generated law's moments)"),
        Variable(
            "kl_plugin_expected",
            REPLICATE,
            "mean of the plug-in KL over samples of plugin_rows rows, from the coupled moments",
        ),
        Variable(
            "kl_plugin_expected_sd",
            REPLICATE,
            "standard deviation of the plug-in KL over samples of plugin_rows rows",
        ),
        Variable("kl_unbiased", REPLICATE, "the same, its finite-sample bias removed"),
        Variable("kl_standard_error", REPLICATE, "standard error of the KL estimate of one run"),
        Variable("kl_floor", ("target",), "expected plug-in KL of a true sample of the same size"),
        Variable("kl_floor_sd", ("target",), "standard deviation of that"),
    ],
)
def gaussian_kl(
    sample: Array,
    target: Target,
    control: Control | None,
    plugin_rows: Annotated[int, Ge(2)] = 10_000,
) -> dict[str, Any]:
    """Plug-in, unbiased and coupled KL from the target's Gaussian to the sample's moments.

    For a law that is not Gaussian, or unknown, the target's Gaussian has its moments or
    those of all the data: the divergence then sees the first two moments alone. Only where the
    control's law is known, or has a reference run, is there a coupled estimate; where it is
    Gaussian also what the plug-in of `plugin_rows` rows would show.
    """
    moments = divergences.Moments.of(sample)
    floor, floor_sd = divergences.plugin_kl_floor(moments.dimension, moments.n)
    law = target.reference
    values = {
        "kl_plugin": divergences.plugin_kl(law, moments),
        "kl_unbiased": divergences.unbiased_kl(law, moments),
        "kl_standard_error": divergences.kl_standard_error(law, moments),
        "kl_floor": floor,
        "kl_floor_sd": floor_sd,
    }
    found, mean, sd = None, np.nan, np.nan
    control = coupling(control, len(sample))
    if control is not None:
        found = divergences.coupled_kl(law, sample, control, plugin_rows)
        mean, sd = found.plugin_mean, found.plugin_sd
    values |= {"kl_plugin_expected": mean, "kl_plugin_expected_sd": sd}
    return values | estimated("kl", found)


@register(
    "divergence",
    variables=[
        Variable(
            "w2_plugin",
            REPLICATE,
            "W2 between the Gaussians of the target's and the sample's moments, plug-in",
            "1",
            divergence(
                "w2",
                "W2(data, generated), by moments",
                floor="w2_floor",
                floor_power="2",
                exact="w2_exact",
                unbiased="w2_unbiased",
                standard_error="w2_standard_error",
                coupled="w2_coupled",
                bound="w2_bound",
            ),
        ),
        *coupled(
            "w2", "W2 between the Gaussians of the target's and the generated law's moments", "1"
        ),
        Variable(
            "w2_coupling",
            REPLICATE,
            "root mean square distance to the exact-score chain: bounds W2 to its law from above",
            "1",
        ),
        Variable(
            "w2_coupling_bound",
            REPLICATE,
            "upper bound on W2(target, generated): that of the exact-score chain, plus w2_coupling",
            "1",
        ),
        Variable(
            "w2_unbiased", REPLICATE, "signed root of its square less its first-order bias", "1"
        ),
        Variable(
            "w2_standard_error", REPLICATE, "standard error of the W2 estimate of one run", "1"
        ),
        Variable("w2_floor", ("target",), "root of its expected square for a perfect sampler", "1"),
    ],
)
def gaussian_w2(sample: Array, target: Target, control: Control | None) -> dict[str, Any]:
    """W2 between the Gaussians of the target's and of the sample's moments.

    With a control, also its distance to the sample, which bounds W2 of their laws from above.
    """
    moments, law = divergences.Moments.of(sample), target.reference
    values: dict[str, Any] = {
        "w2_plugin": divergences.w2_plugin(law, moments),
        "w2_unbiased": divergences.w2_unbiased(law, moments),
        "w2_standard_error": divergences.w2_standard_error(law, moments),
        "w2_floor": divergences.w2_floor(law, moments.n),
    }
    distance, upper, found = np.nan, np.nan, None
    if control is not None:
        distance = divergences.coupling_distance(sample, control.rows)
        if isinstance(control.law, Gaussian):
            upper = distance + float(wasserstein2(law, control.law))
        if (own := coupling(control, len(sample))) is not None:
            found = divergences.coupled_w2(law, sample, own)
    values |= {"w2_coupling": distance, "w2_coupling_bound": upper}
    return values | estimated("w2", found)
