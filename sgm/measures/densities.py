"""By densities: the target's own, one fitted to the sample, and the probabilities of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import divergences
from sgm.divergences import Control, ReferenceRun
from sgm.gaussian import Gaussian, kl_divergence
from sgm.measures.coupled import coupled, coupling, divergence, estimated
from sgm.registry import Count, Positive, register
from sgm.targets import Target
from sgm.variables import GRID, REPLICATE, RUN, Variable

__all__ = ["heldout_nll", "nll", "nll_exact", "partition_kl"]

Array = npt.NDArray[np.float64]


def nll_exact(law: Gaussian, generated: Gaussian) -> dict[str, Any]:
    """The cross-entropy of two Gaussians, KL(generated ‖ law) plus the entropy."""
    entropy = np.sum(np.log(2 * np.pi * np.e * generated.eigenvalues)) / 2
    return {"nll_exact": kl_divergence(generated, law) + entropy}


@register(
    "divergence",
    needs="law",
    exact=nll_exact,
    variables=[
        Variable(
            "nll",
            REPLICATE,
            "mean negative log-likelihood of the sample under the target",
            about=divergence(
                "nll",
                "NLL of the sample under the target",
                exact="nll_exact",
                standard_error="nll_standard_error",
                coupled="nll_coupled",
                ranks="0",
            ),
            measured_floor=True,
        ),
        *coupled("nll", "mean negative log-likelihood of the generated law under the target"),
        Variable("nll_standard_error", REPLICATE, "standard error of that"),
        Variable("nll_exact", GRID, "the same of the exact law of the sampler's output"),
    ],
)
def nll(sample: Array, target: Target, control: Control | None) -> dict[str, Any]:
    """Mean negative log-likelihood of the sample under a known density."""
    assert target.law is not None
    densities = target.law.log_density(sample)
    entropy = divergences.cross_entropy(densities)
    values = {"nll": entropy.value, "nll_standard_error": entropy.standard_error}
    control = coupling(control, len(sample))
    if control is None:
        return values | estimated("nll", None)
    if isinstance(control.law, ReferenceRun):
        own = divergences.cross_entropy(target.law.log_density(control.law.rows))
        exact, error = own.value, own.standard_error
        if not np.isfinite(exact):  # rows where the target has no mass
            return values | estimated("nll", None)
    else:
        assert control.law is not None
        exact, error = float(nll_exact(target.reference, control.law)["nll_exact"]), 0.0
    found = divergences.coupled_cross_entropy(
        densities, target.law.log_density(control.rows), exact, error
    )
    return values | estimated("nll", found)


@register(
    "divergence",
    needs="density",
    variables=[
        Variable(
            "partition_kl",
            REPLICATE,
            "KL(sample || target) over cells of known probability, plug-in: a lower bound",
            about=divergence(
                "partition_kl",
                "KL over cells (modes, or x₁)",
                floor="partition_kl_floor",
                floor_sd="partition_kl_floor_sd",
            ),
        ),
        Variable("partition_kl_floor", ("target",), "its expectation for a true sample"),
        Variable("partition_kl_floor_sd", ("target",), "standard deviation of that"),
    ],
)
def partition_kl(sample: Array, target: Target) -> dict[str, Any]:
    """KL of the sample's frequencies over cells of known probability."""
    assert target.law is not None
    cells = target.law.partition()
    if len(cells.probabilities) == 1:
        names = ("partition_kl", "partition_kl_floor", "partition_kl_floor_sd")
        return dict.fromkeys(names, np.nan)
    kl = divergences.partition_kl(cells.label(sample), cells.probabilities)
    return {
        "partition_kl": kl.value,
        "partition_kl_floor": kl.floor,
        "partition_kl_floor_sd": kl.floor_sd,
    }


@register(
    "divergence",
    needs="data",
    variables=[
        Variable(
            "heldout_nll_gap",
            REPLICATE,
            "held-out NLL, fitted to generated minus to true data",
            about=divergence(
                "heldout_nll",
                "held-out NLL gap",
                floor="heldout_nll_floor",
                standard_error="heldout_nll_standard_error",
            ),
        ),
        Variable("heldout_nll_standard_error", REPLICATE, "standard error of that"),
        Variable("heldout_nll_floor", RUN, "the same between halves of the true data"),
    ],
)
def heldout_nll(
    sample: Array,
    train: Array,
    heldout: Array,
    components: Count,
    regularisation: Positive,
) -> dict[str, Any]:
    """Held-out log-likelihood gap."""
    gap = divergences.heldout_nll_gap(
        sample, train, heldout, components=components, regularisation=regularisation
    )
    return {
        "heldout_nll_gap": gap.value,
        "heldout_nll_standard_error": gap.standard_error,
        "heldout_nll_floor": gap.floor,
    }
