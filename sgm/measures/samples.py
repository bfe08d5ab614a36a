"""Between samples: optimal transport, kernels, frequencies."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm import divergences
from sgm.divergences import Control, ReferenceRun
from sgm.gaussian import Gaussian, wasserstein2
from sgm.measures.coupled import coupled, coupling, divergence, estimated
from sgm.registry import Count, Index, Real, Seed, register
from sgm.targets import Target
from sgm.variables import GRID, REPLICATE, RUN, Variable

__all__ = [
    "histogram",
    "mmd",
    "mmd_exact",
    "sample_w2",
    "sliced_w2",
    "sliced_w2_authors",
    "sliced_w2_exact",
]

Array = npt.NDArray[np.float64]
#: Rows of a divergence whose cost grows as their square.
Rows = Annotated[int, Interval(ge=4, le=20000)]


@register(
    "divergence",
    variables=[
        Variable(
            "w2_sample",
            REPLICATE,
            "signed root of W2 squared between generated and true rows, less that within each",
            "1",
            divergence(
                "w2_sample",
                "W2 between samples, centred",
                exact="w2_exact",
                standard_error="w2_sample_standard_error",
                coupled="w2_sample_coupled",
                bound="w2_bound",
            ),
            measured_floor=True,
        ),
        *coupled("w2_sample", "W2 between samples, centred", "1"),
        Variable(
            "w2_sample_standard_error", REPLICATE, "standard error of w2_sample in one run", "1"
        ),
        Variable(
            "w2_sample_visible",
            RUN,
            "share of W2 squared that w2_sample shows of a difference in scale alone",
            "1",
        ),
    ],
)
def sample_w2(
    generated: Array, reference: Array, target: Target, control: Control | None, rows: Rows
) -> dict[str, Any]:
    """Centred W2 between two samples of at most `rows` rows."""
    generated, reference = generated[:rows], reference[:rows]
    plain = divergences.centred_w2(generated, reference)
    value, error = divergences.signed_root(plain.square, plain.standard_error)
    values = {
        "w2_sample": value,
        "w2_sample_standard_error": error,
        "w2_sample_visible": plain.visible,
    }
    n = min(len(generated), len(reference))
    control = coupling(control, n) if n >= 2 * divergences.GROUPS else None  # halves of a block
    if control is None or not isinstance(control.law, Gaussian):
        return values | estimated("w2_sample", None)
    found = divergences.coupled_difference(
        lambda x, y: divergences.centred_w2(x, y).square,
        generated[:n],
        reference,
        control,
        float(wasserstein2(target.reference, control.law)) ** 2,
        root=True,
    )
    return values | estimated("w2_sample", found)


def sliced_w2_exact(
    law: Gaussian, generated: Gaussian, projections: int, projection_seed: int
) -> dict[str, Any]:
    """Sliced W2 between two Gaussians over the same directions."""
    directions = divergences.projections(law.dimension, projections, projection_seed)
    return {"sliced_w2_exact": divergences.gaussian_sliced_w2(law, generated, directions).value}


@register(
    "divergence",
    exact=sliced_w2_exact,
    variables=[
        Variable(
            "sliced_w2",
            REPLICATE,
            "sliced W2 to an independent true sample",
            "1",
            divergence(
                "sliced_w2",
                "sliced W2",
                exact="sliced_w2_exact",
                coupled="sliced_w2_coupled",
                bound="w2_bound",
            ),
            measured_floor=True,
        ),
        *coupled("sliced_w2", "sliced W2 between the target and the generated law", "1"),
        Variable(
            "max_sliced_w2",
            REPLICATE,
            "W2 in the worst of the stored directions",
            "1",
            divergence("max_sliced_w2", "largest W2 over the directions"),
            measured_floor=True,
        ),
        Variable("sliced_w2_exact", GRID, "sliced W2 of the exact law, same directions", "1"),
    ],
)
def sliced_w2(
    generated: Array,
    reference: Array,
    target: Target,
    control: Control | None,
    projections: Count,
    projection_seed: Seed,
) -> dict[str, Any]:
    """Sliced W2 to an independent true sample, and the largest W2 over the directions."""
    directions = divergences.projections(generated.shape[1], projections, projection_seed)
    sliced = divergences.sliced_w2(generated, reference, directions)
    values = {"sliced_w2": sliced.value, "max_sliced_w2": sliced.largest}
    control = coupling(control, min(len(generated), len(reference)))
    if control is None:
        return values | estimated("sliced_w2", None)
    if isinstance(control.law, ReferenceRun):
        exact, error = _sliced_w2_of(control.law, projections, projection_seed)
    else:
        assert control.law is not None
        law = divergences.gaussian_sliced_w2(target.reference, control.law, directions)
        exact, error = law.value**2, 0.0
    found = divergences.coupled_difference(
        lambda x, y: divergences.sliced_w2(x, y, directions).value ** 2,
        generated[: len(control.rows)],
        reference,
        control,
        exact,
        error,
        root=True,
    )
    return values | estimated("sliced_w2", found)


@lru_cache(maxsize=1)  # one run serves all seeds of a schedule, and takes seconds to sort
def _sliced_w2_of(run: ReferenceRun, projections: int, projection_seed: int) -> tuple[float, float]:
    """Squared sliced W2 of a reference run's law to the target, and its standard error."""
    directions = divergences.projections(run.rows.shape[1], projections, projection_seed)
    return divergences.unbiased_sliced_w2_squared(
        run.rows, run.truth, directions, divergences.GROUPS
    )


@register(
    "divergence",
    variables=[
        Variable(
            "sliced_w2_authors",
            REPLICATE,
            "sliced W2 to the training sample, the authors' convention",
            "1",
            divergence("sliced_w2_authors", "sliced W2 to the training sample", bound="w2_bound"),
            measured_floor=True,
        ),
    ],
)
def sliced_w2_authors(
    generated: Array, train: Array, projections: Count, projection_seed: Seed
) -> dict[str, Any]:
    """Sliced W2 to the training sample, as Strasman et al. compute it."""
    directions = divergences.projections(generated.shape[1], projections, projection_seed)
    return {"sliced_w2_authors": divergences.sliced_w2(generated, train, directions).value}


def mmd_exact(law: Gaussian, generated: Gaussian, rows: int) -> dict[str, Any]:
    """Squared MMD between two Gaussians, with the same kernel."""
    return {"mmd_exact": divergences.gaussian_mmd(law, generated, _bandwidth(law))}


@register(
    "divergence",
    exact=mmd_exact,
    variables=[
        Variable(
            "mmd",
            REPLICATE,
            "squared maximum mean discrepancy, Gaussian kernel, unbiased",
            "1",
            divergence("mmd", "squared MMD", exact="mmd_exact", coupled="mmd_coupled"),
            measured_floor=True,
        ),
        *coupled("mmd", "squared MMD between the target and the generated law", "1"),
        Variable("mmd_exact", GRID, "the same of the exact law of the sampler's output", "1"),
    ],
)
def mmd(
    generated: Array, reference: Array, target: Target, control: Control | None, rows: Rows
) -> dict[str, Any]:
    """Squared MMD between two samples of at most `rows` rows; coupled where a law is Gaussian.

    Of a reference run, whose pairs of rows are too many, there is no coupled estimate.
    """
    law, bandwidth = target.reference, _bandwidth(target.reference)
    generated, reference = generated[:rows], reference[:rows]
    values = {"mmd": divergences.mmd(generated, reference, bandwidth)}
    control = coupling(control, min(len(generated), len(reference)))
    if control is None or not isinstance(control.law, Gaussian):
        return values | estimated("mmd", None)
    found = divergences.coupled_difference(
        lambda x, y: divergences.mmd(x, y, bandwidth),
        generated[: len(control.rows)],
        reference,
        control,
        divergences.gaussian_mmd(law, control.law, bandwidth),
    )
    return values | estimated("mmd", found)


def _bandwidth(law: Gaussian) -> float:
    """Root mean square distance between two true rows: one kernel for all samples."""
    return float(np.sqrt(2 * np.sum(law.eigenvalues)))


def _ordered(low: float, high: float) -> None:
    if not high > low:
        raise ValueError(f"high = {high}: must exceed low = {low}")


@register(
    "divergence",
    require=_ordered,
    variables=[
        Variable(
            "sample_density",
            (*REPLICATE, "bin"),
            "density of one coordinate of the generated rows, mean over each bin",
            "1",
        ),
        Variable("target_density", ("target", "bin"), "the same of the target, exact", "1"),
    ],
)
def histogram(
    sample: Array,
    target: Target,
    coordinate: Index,
    bins: Annotated[int, Interval(ge=2, le=1000)],
    low: Real,
    high: Real,
) -> dict[str, Any]:
    """Frequencies of one coordinate over equal bins, as a density, and the exact ones.

    In the target's original units; rows outside the bins count in the total.
    """
    center, scale = (float(part[coordinate]) for part in target.transform)
    width = (high - low) / bins
    counts, edges = np.histogram(center + scale * sample[:, coordinate], bins, (low, high))
    density = {"sample_density": counts / (len(sample) * width)}
    if target.law is None:
        return density | {"target_density": np.full(bins, np.nan)}
    nodes, weights = np.polynomial.legendre.leggauss(8)
    points = edges[:-1, None] + width * (1 + nodes) / 2
    law = target.law.marginal([coordinate])
    values = np.exp(law.log_density(((points - center) / scale)[..., None])) / scale
    return density | {"target_density": values @ weights / 2}
