"""Divergences estimated from finite samples, with their noise floors and standard errors.

`moments`     KL and W₂ of the Gaussians with the samples' means and covariances
`likelihood`  cross-entropy under a known law, KL of a partition, held-out likelihood
`transport`   exact and sliced W₂ between two samples
`kernels`     maximum mean discrepancy
`coupled`     the same below their floors, with a chain of known law beside the sampler's

An estimator sees arrays, and the known law where it is Gaussian; never a process, a target or
a sampler. None of them is zero for a perfect sampler of finitely many rows: each comes with
its *floor*, in closed form where there is one, else the same estimator between two
independent true samples of the same sizes. KL divergences are never estimated by nearest
neighbours, which are useless in these dimensions.
"""

from sgm.divergences.coupled import (
    GROUPS,
    Control,
    Coupled,
    CoupledKL,
    ReferenceRun,
    coupled_cross_entropy,
    coupled_difference,
    coupled_kl,
    coupled_law,
    coupled_w2,
    coupling_distance,
)
from sgm.divergences.kernels import gaussian_mmd, median_bandwidth, mmd
from sgm.divergences.likelihood import (
    CrossEntropy,
    HeldoutGap,
    PartitionKL,
    cross_entropy,
    heldout_nll_gap,
    partition_kl,
)
from sgm.divergences.moments import (
    Moments,
    kl_standard_error,
    plugin_kl,
    plugin_kl_floor,
    plugin_kl_moments,
    unbiased_kl,
    w2_floor,
    w2_plugin,
    w2_squared_bias,
    w2_squared_standard_error,
    w2_standard_error,
    w2_unbiased,
)
from sgm.divergences.transport import (
    CentredW2,
    SlicedW2,
    centred_w2,
    gaussian_sliced_w2,
    projections,
    sample_w2,
    signed_root,
    sliced_w2,
    squared,
    unbiased_sliced_w2_squared,
)

__all__ = [
    "GROUPS",
    "CentredW2",
    "Control",
    "Coupled",
    "CoupledKL",
    "CrossEntropy",
    "HeldoutGap",
    "Moments",
    "PartitionKL",
    "ReferenceRun",
    "SlicedW2",
    "centred_w2",
    "coupled_cross_entropy",
    "coupled_difference",
    "coupled_kl",
    "coupled_law",
    "coupled_w2",
    "coupling_distance",
    "cross_entropy",
    "gaussian_mmd",
    "gaussian_sliced_w2",
    "heldout_nll_gap",
    "kl_standard_error",
    "median_bandwidth",
    "mmd",
    "partition_kl",
    "plugin_kl",
    "plugin_kl_floor",
    "plugin_kl_moments",
    "projections",
    "sample_w2",
    "signed_root",
    "sliced_w2",
    "squared",
    "unbiased_kl",
    "unbiased_sliced_w2_squared",
    "w2_floor",
    "w2_plugin",
    "w2_squared_bias",
    "w2_squared_standard_error",
    "w2_standard_error",
    "w2_unbiased",
]
