"""Divergences between a generated sample and the target, each with its variables of the grid."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from sgm import divergences
from sgm.divergences import Control, Coupled, ReferenceRun
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.registry import Count, Index, Positive, Real, Seed, register
from sgm.targets import Target
from sgm.variables import GRID, REPLICATE, RUN, Variable

__all__ = [
    "gaussian_kl",
    "gaussian_w2",
    "heldout_nll",
    "histogram",
    "mmd",
    "mmd_exact",
    "nll",
    "nll_exact",
    "partition_kl",
    "sample_w2",
    "sliced_w2",
    "sliced_w2_authors",
    "sliced_w2_exact",
]

Array = npt.NDArray[np.float64]
#: Rows of a divergence whose cost grows as their square.
Rows = Annotated[int, Interval(ge=4, le=20000)]


def _divergence(figure: str, label: str, beside: str = "", **others: str) -> dict[str, str]:
    """What a divergence says of itself; `beside` are companions `<figure>_<key>`, by their keys."""
    companions = {key: f"{figure}_{key}" for key in beside.split()}
    return {"role": "divergence", "figure": figure, "label": label, **companions, **others}


def _estimated(name: str, long_name: str, units: str = "nat") -> tuple[Variable, ...]:
    """A divergence estimated with a chain of known law beside the sampler's, its error and gain."""
    return (
        Variable(
            f"{name}_coupled",
            REPLICATE,
            f"{long_name}, coupled estimate",
            units,
            {"shared_error": f"{name}_coupled_reference_error"},
        ),
        Variable(
            f"{name}_coupled_standard_error",
            REPLICATE,
            f"standard error of {name}_coupled in one run",
            units,
        ),
        Variable(
            f"{name}_coupled_reference_error",
            REPLICATE,
            f"standard error in {name}_coupled of the reference run, which all seeds share; or 0",
            units,
        ),
        Variable(
            f"{name}_coupled_gain",
            REPLICATE,
            f"variance of the plain estimate divided by that of {name}_coupled; 1 where the plain "
            "estimate is used",
            "1",
        ),
    )


def _coupling(control: Control | None, n: int) -> Control | None:
    """The control of `n` generated rows; None where nothing is known of its law, or n is small."""
    if control is None or control.law is None or n < divergences.GROUPS:
        return None
    return Control(control.rows[:n], control.law)


def _coupled(name: str, estimate: Coupled | None) -> dict[str, Any]:
    """The variables of a coupled estimate, see `_estimated`; NaN without one."""
    estimate = estimate or Coupled(np.nan, np.nan, np.nan, np.nan)
    return {
        f"{name}_coupled": estimate.value,
        f"{name}_coupled_standard_error": estimate.standard_error,
        f"{name}_coupled_reference_error": estimate.reference_error,
        f"{name}_coupled_gain": estimate.gain,
    }


@register(
    "divergence",
    variables=[
        Variable(
            "kl_plugin",
            REPLICATE,
            "KL(target || Gaussian fitted to the sample), plug-in",
            about=_divergence(
                "kl",
                "KL(data ‖ generated), by moments",
                "floor floor_sd exact unbiased standard_error coupled bound",
                floor_power="1",
            ),
        ),
        *_estimated("kl", "KL(target || Gaussian of the generated law's moments)"),
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
        Variable(
            "kl_unbiased",
            REPLICATE,
            "KL(target || Gaussian fitted to the sample), its finite-sample bias removed",
        ),
        Variable("kl_standard_error", REPLICATE, "standard error of kl_plugin in one run"),
        Variable("kl_floor", ("target",), "expected kl_plugin of a true sample of the same size"),
        Variable(
            "kl_floor_sd",
            ("target",),
            "standard deviation of kl_plugin over true samples of the same size",
        ),
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
    control = _coupling(control, len(sample))
    if control is not None:
        found = divergences.coupled_kl(law, sample, control, plugin_rows)
        mean, sd = found.plugin_mean, found.plugin_sd
    values |= {"kl_plugin_expected": mean, "kl_plugin_expected_sd": sd}
    return values | _coupled("kl", found)


@register(
    "divergence",
    variables=[
        Variable(
            "w2_plugin",
            REPLICATE,
            "W2 between the Gaussians of the target's and the sample's moments, plug-in",
            "1",
            _divergence(
                "w2",
                "W2(data, generated), by moments",
                "floor exact unbiased standard_error coupled bound",
                floor_power="2",
            ),
        ),
        *_estimated(
            "w2", "W2 between the Gaussians of the target's and the generated law's moments", "1"
        ),
        Variable(
            "w2_coupling",
            REPLICATE,
            "root mean square distance to the exact-score chain, an upper bound on W2 to its law",
            "1",
        ),
        Variable(
            "w2_coupling_bound",
            REPLICATE,
            "upper bound on W2(target, generated): W2 of the exact-score chain plus w2_coupling",
            "1",
        ),
        Variable(
            "w2_unbiased",
            REPLICATE,
            "signed root of w2_plugin squared minus its first-order bias",
            "1",
        ),
        Variable("w2_standard_error", REPLICATE, "standard error of w2_plugin in one run", "1"),
        Variable(
            "w2_floor",
            ("target",),
            "root of the expected square of w2_plugin for a true sample of the same size",
            "1",
        ),
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
        if (own := _coupling(control, len(sample))) is not None:
            found = divergences.coupled_w2(law, sample, own)
    values |= {"w2_coupling": distance, "w2_coupling_bound": upper}
    return values | _coupled("w2", found)


@register(
    "divergence",
    variables=[
        Variable(
            "w2_sample",
            REPLICATE,
            "signed root of W2 squared between generated and true rows, minus that within each",
            "1",
            _divergence(
                "w2_sample",
                "W2 between samples, centred",
                "standard_error coupled",
                exact="w2_exact",
                bound="w2_bound",
            ),
            measured_floor=True,
        ),
        *_estimated("w2_sample", "W2 between samples, centred", "1"),
        Variable(
            "w2_sample_standard_error", REPLICATE, "standard error of w2_sample in one run", "1"
        ),
        Variable(
            "w2_sample_visible",
            RUN,
            "share of W2 squared that w2_sample shows if laws differ in scale alone",
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
    control = _coupling(control, n) if n >= 2 * divergences.GROUPS else None  # halves of a block
    if control is None or not isinstance(control.law, Gaussian):
        return values | _coupled("w2_sample", None)
    found = divergences.coupled_difference(
        lambda x, y: divergences.centred_w2(x, y).square,
        generated[:n],
        reference,
        control,
        float(wasserstein2(target.reference, control.law)) ** 2,
        root=True,
    )
    return values | _coupled("w2_sample", found)


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
            "sliced W2 between generated rows and an independent true sample",
            "1",
            _divergence("sliced_w2", "sliced W2", "exact coupled", bound="w2_bound"),
            measured_floor=True,
        ),
        *_estimated("sliced_w2", "sliced W2 between the target and the generated law", "1"),
        Variable(
            "max_sliced_w2",
            REPLICATE,
            "W2 of projections on the worst of the stored directions",
            "1",
            _divergence("max_sliced_w2", "largest W2 over the directions"),
            measured_floor=True,
        ),
        Variable(
            "sliced_w2_exact", GRID, "sliced W2(target, exact law of the sampler's output)", "1"
        ),
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
    control = _coupling(control, min(len(generated), len(reference)))
    if control is None:
        return values | _coupled("sliced_w2", None)
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
    return values | _coupled("sliced_w2", found)


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
            "sliced W2 between generated rows and the training sample, the authors' convention",
            "1",
            _divergence("sliced_w2_authors", "sliced W2 to the training sample", bound="w2_bound"),
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
            "squared maximum mean discrepancy to a true sample, Gaussian kernel, unbiased",
            "1",
            _divergence("mmd", "squared MMD", exact="mmd_exact", coupled="mmd_coupled"),
            measured_floor=True,
        ),
        *_estimated("mmd", "squared MMD between the target and the generated law", "1"),
        Variable(
            "mmd_exact",
            GRID,
            "squared maximum mean discrepancy between the target and the exact law of the "
            "sampler's output",
            "1",
        ),
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
    control = _coupling(control, min(len(generated), len(reference)))
    if control is None or not isinstance(control.law, Gaussian):
        return values | _coupled("mmd", None)
    found = divergences.coupled_difference(
        lambda x, y: divergences.mmd(x, y, bandwidth),
        generated[: len(control.rows)],
        reference,
        control,
        divergences.gaussian_mmd(law, control.law, bandwidth),
    )
    return values | _coupled("mmd", found)


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
        Variable(
            "target_density",
            ("target", "bin"),
            "exact density of one coordinate of the target, mean over each bin",
            "1",
        ),
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
            about=_divergence(
                "nll",
                "NLL of the sample under the target",
                "exact standard_error coupled",
                ranks="0",
            ),
            measured_floor=True,
        ),
        *_estimated("nll", "mean negative log-likelihood of the generated law under the target"),
        Variable("nll_standard_error", REPLICATE, "standard error of nll in one run"),
        Variable(
            "nll_exact",
            GRID,
            "mean negative log-likelihood of the exact law of the output under the target",
        ),
    ],
)
def nll(sample: Array, target: Target, control: Control | None) -> dict[str, Any]:
    """Mean negative log-likelihood of the sample under a known density."""
    assert target.law is not None
    densities = target.law.log_density(sample)
    entropy = divergences.cross_entropy(densities)
    values = {"nll": entropy.value, "nll_standard_error": entropy.standard_error}
    control = _coupling(control, len(sample))
    if control is None:
        return values | _coupled("nll", None)
    if isinstance(control.law, ReferenceRun):
        own = divergences.cross_entropy(target.law.log_density(control.law.rows))
        exact, error = own.value, own.standard_error
        if not np.isfinite(exact):  # rows where the target has no mass
            return values | _coupled("nll", None)
    else:
        assert control.law is not None
        exact, error = float(nll_exact(target.reference, control.law)["nll_exact"]), 0.0
    found = divergences.coupled_cross_entropy(
        densities, target.law.log_density(control.rows), exact, error
    )
    return values | _coupled("nll", found)


@register(
    "divergence",
    needs="density",
    variables=[
        Variable(
            "partition_kl",
            REPLICATE,
            "KL(sample || target) over cells of known probability, plug-in: a lower bound",
            about=_divergence("partition_kl", "KL over cells (modes, or x₁)", "floor floor_sd"),
        ),
        Variable(
            "partition_kl_floor",
            ("target",),
            "expected partition_kl of a true sample of the same size",
        ),
        Variable(
            "partition_kl_floor_sd",
            ("target",),
            "standard deviation of partition_kl over true samples of the same size",
        ),
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
            "held-out NLL of a mixture fitted to generated rows, minus of one fitted to true rows",
            about=_divergence("heldout_nll", "held-out NLL gap", "floor standard_error"),
        ),
        Variable(
            "heldout_nll_standard_error",
            REPLICATE,
            "standard error of heldout_nll_gap, from the finite held-out part",
        ),
        Variable(
            "heldout_nll_floor",
            RUN,
            "root mean square of heldout_nll_gap between halves of the true training rows",
        ),
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
