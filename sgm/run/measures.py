"""Divergences and bounds as named variables of the grid.

A measure returns a mapping from each variable that its registry row declares, and no other,
to its value, NaN where it is not known. It names what it needs among its arguments. A
divergence, any of

    sample      the generated rows
    generated   as many of them as an independent true sample can have
    reference   an independent true sample of that size: fresh draws, or the held-out rows
    target, train, heldout
    control     the exact-score chain on the same noise, for trained scores of a known law

A bound, any of `process`, `law`, `times`, `sampler`, and of the score's error at the
departure times `score_mse`, `score_mse_standard_error` and `score_cross` under the forward
process, from `score_draws` draws a time (0: exact), `score_mse_generated` along the generated
chain (NaN where it is not known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sgm import bounds, divergences
from sgm.densities import Law
from sgm.divergences import Control, Coupled, ReferenceRun
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.processes import Process, VPProcess
from sgm.samplers import Steps
from sgm.targets import LawTarget, Target

__all__ = [
    "coverage",
    "gaussian_kl",
    "gaussian_w2",
    "heldout_nll",
    "histogram",
    "kl_bound",
    "kl_objection",
    "mmd",
    "mmd_exact",
    "nll",
    "nll_exact",
    "partition_kl",
    "sample_w2",
    "sliced_w2",
    "sliced_w2_authors",
    "sliced_w2_exact",
    "w2_bound",
    "w2_objection",
    "w2_one_step",
    "w2_one_step_objection",
]

Array = npt.NDArray[np.float64]


def gaussian_kl(
    sample: Array, target: Target, control: Control | None, plugin_rows: int
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
    coupled, mean, sd = None, np.nan, np.nan
    control = _coupling(control, len(sample))
    if control is not None:
        coupled = divergences.coupled_kl(law, sample, control, plugin_rows)
        mean, sd = coupled.plugin_mean, coupled.plugin_sd
    values |= {"kl_plugin_expected": mean, "kl_plugin_expected_sd": sd}
    return values | _coupled("kl", coupled)


def _coupling(control: Control | None, n: int) -> Control | None:
    """The control of `n` generated rows; None where nothing is known of its law, or n is small."""
    if control is None or control.law is None or n < divergences.GROUPS:
        return None
    return Control(control.rows[:n], control.law)


def _coupled(name: str, estimate: Coupled | None) -> dict[str, Any]:
    """The variables of a coupled estimate, see `sgm.study.variables.coupled`; NaN without one."""
    estimate = estimate or Coupled(np.nan, np.nan, np.nan, np.nan)
    return {
        f"{name}_coupled": estimate.value,
        f"{name}_coupled_standard_error": estimate.standard_error,
        f"{name}_coupled_reference_error": estimate.reference_error,
        f"{name}_coupled_gain": estimate.gain,
    }


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
    distance, upper, coupled = np.nan, np.nan, None
    if control is not None:
        distance = divergences.coupling_distance(sample, control.rows)
        if isinstance(control.law, Gaussian):
            upper = distance + float(wasserstein2(law, control.law))
        if (coupling := _coupling(control, len(sample))) is not None:
            coupled = divergences.coupled_w2(law, sample, coupling)
    values |= {"w2_coupling": distance, "w2_coupling_bound": upper}
    return values | _coupled("w2", coupled)


def sample_w2(
    generated: Array, reference: Array, target: Target, control: Control | None, rows: int
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
    coupled = divergences.coupled_difference(
        lambda x, y: divergences.centred_w2(x, y).square,
        generated[:n],
        reference,
        control,
        float(wasserstein2(target.reference, control.law)) ** 2,
        root=True,
    )
    return values | _coupled("w2_sample", coupled)


def sliced_w2(
    generated: Array,
    reference: Array,
    target: Target,
    control: Control | None,
    projections: int,
    projection_seed: int,
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
    coupled = divergences.coupled_difference(
        lambda x, y: divergences.sliced_w2(x, y, directions).value ** 2,
        generated[: len(control.rows)],
        reference,
        control,
        exact,
        error,
        root=True,
    )
    return values | _coupled("sliced_w2", coupled)


@lru_cache(maxsize=1)  # one run serves all seeds of a schedule, and takes seconds to sort
def _sliced_w2_of(run: ReferenceRun, projections: int, projection_seed: int) -> tuple[float, float]:
    """Squared sliced W2 of a reference run's law to the target, and its standard error."""
    directions = divergences.projections(run.rows.shape[1], projections, projection_seed)
    return divergences.unbiased_sliced_w2_squared(
        run.rows, run.truth, directions, divergences.GROUPS
    )


def sliced_w2_exact(
    law: Gaussian, generated: Gaussian, projections: int, projection_seed: int
) -> dict[str, Any]:
    """Sliced W2 between two Gaussians over the same directions."""
    directions = divergences.projections(law.dimension, projections, projection_seed)
    return {"sliced_w2_exact": divergences.gaussian_sliced_w2(law, generated, directions).value}


def sliced_w2_authors(
    generated: Array, train: Array, projections: int, projection_seed: int
) -> dict[str, Any]:
    """Sliced W2 to the training sample, as Strasman et al. compute it."""
    directions = divergences.projections(generated.shape[1], projections, projection_seed)
    return {"sliced_w2_authors": divergences.sliced_w2(generated, train, directions).value}


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
    coupled = divergences.coupled_cross_entropy(
        densities, target.law.log_density(control.rows), exact, error
    )
    return values | _coupled("nll", coupled)


def nll_exact(law: Gaussian, generated: Gaussian) -> dict[str, Any]:
    """The cross-entropy of two Gaussians, KL(generated ‖ law) plus the entropy."""
    entropy = np.sum(np.log(2 * np.pi * np.e * generated.eigenvalues)) / 2
    return {"nll_exact": kl_divergence(generated, law) + entropy}


PLAIN = {
    "kl": "kl_unbiased",
    "w2": "w2_unbiased",
    "sliced_w2": "sliced_w2",
    "w2_sample": "w2_sample",
    "mmd": "mmd",
    "nll": "nll",
}
"""The coupled estimates, and what stands in their place without a control."""

DISTANCES = ("w2", "sliced_w2", "w2_sample")  # whose squares are nearly unbiased


def coverage(
    sample: Array,
    reference: Array,
    target: Target,
    control: Control | None,
    rows: tuple[int, ...],
    sets: int,
    subsample: int,
    projections: int,
    projection_seed: int,
) -> dict[str, Any]:
    """How far the estimates of few rows are from those of all, and from what they say of it.

    Disjoint sets of n rows, for each n of `rows`, stand against the whole sample. Of distances
    the squares do. The MMD of the whole is the mean over sets of `subsample` rows: it is unbiased.
    That of `w2_sample` is the distance of moments.
    """

    def estimates(names: Iterable[str], picked: slice) -> dict[str, tuple[float, float, float]]:
        """Coupled value, its standard error, and the plain value, over some rows."""
        x, y = sample[picked], reference[picked]
        own = control and Control(control.rows[picked], control.law)
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "kl": lambda: gaussian_kl(x, target, own, len(x)),
            "w2": lambda: gaussian_w2(x, target, own),
            "sliced_w2": lambda: sliced_w2(x, y, target, own, projections, projection_seed),
            "w2_sample": lambda: sample_w2(x, y, target, own, subsample),
            "mmd": lambda: mmd(x, y, target, own, subsample),
            "nll": lambda: nll(x, target, own),
        }
        found = {}
        for name in names:
            values = measures[name]()
            value, error = values[f"{name}_coupled"], values[f"{name}_coupled_standard_error"]
            plain = values[PLAIN[name]]
            if name in DISTANCES:
                value, error = divergences.squared(value, error)
                plain, _ = divergences.squared(plain, 0.0)
            found[name] = value, error, plain
        return found

    def disjoint(n: int, most: int) -> list[slice]:
        return [slice(n * i, n * (i + 1)) for i in range(min(most, len(sample) // n))]

    whole = estimates(("kl", "w2", "sliced_w2", "nll"), slice(None))
    truth = {name: value for name, (value, _, _) in whole.items()} | {"w2_sample": whole["w2"][0]}
    parts = [estimates(["mmd"], part)["mmd"][0] for part in disjoint(subsample, len(sample))]
    truth["mmd"] = float(np.mean(parts)) if parts else np.nan
    values: dict[str, Any] = {f"coverage_{name}_truth": value for name, value in truth.items()}
    statistics = ("error", "stated", "plain", "share")
    values |= {
        f"coverage_{name}_{kind}": np.full(len(rows), np.nan)
        for name in PLAIN
        for kind in statistics
    }
    for i, n in enumerate(rows):
        found = [estimates(PLAIN, part) for part in disjoint(n, sets)]
        for name in PLAIN if found else ():
            value, error, plain = np.transpose([one[name] for one in found])
            gap = value - truth[name]
            if not np.isfinite([*gap, *error]).all():
                continue
            kinds = (gap**2, error**2, (plain - truth[name]) ** 2)
            for kind, squares in zip(statistics, kinds, strict=False):
                values[f"coverage_{name}_{kind}"][i] = np.sqrt(np.mean(squares))
            values[f"coverage_{name}_share"][i] = np.mean(np.abs(gap) < 1.96 * error)
    return values


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


def mmd(
    generated: Array, reference: Array, target: Target, control: Control | None, rows: int
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
    coupled = divergences.coupled_difference(
        lambda x, y: divergences.mmd(x, y, bandwidth),
        generated[: len(control.rows)],
        reference,
        control,
        divergences.gaussian_mmd(law, control.law, bandwidth),
    )
    return values | _coupled("mmd", coupled)


def mmd_exact(law: Gaussian, generated: Gaussian, rows: int) -> dict[str, Any]:
    """Squared MMD between two Gaussians, with the same kernel."""
    return {"mmd_exact": divergences.gaussian_mmd(law, generated, _bandwidth(law))}


def _bandwidth(law: Gaussian) -> float:
    """Root mean square distance between two true rows: one kernel for all samples."""
    return float(np.sqrt(2 * np.sum(law.eigenvalues)))


def heldout_nll(
    sample: Array,
    train: Array,
    heldout: Array,
    components: int,
    regularisation: float,
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


def histogram(
    sample: Array, target: Target, coordinate: int, bins: int, low: float, high: float
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
        variance = process.variance

        def kl_to_prior(t: float) -> float:
            scale, spread = process.mean_scale(t), process.kernel_variance(t)
            return law.kl_to_normal(variance, float(scale), float(spread))

        bound = bounds.kl_bound(
            process,
            times,
            kl_to_prior=kl_to_prior(times[-1]),
            fisher=lambda t: law.relative_fisher_information(
                variance, process.mean_scale(t), process.kernel_variance(t)
            ),
            terminal_kl=kl_to_prior(times[0]),
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


def kl_objection(law: Law | None, sampler: str, total: str) -> bounds.KLObjection:
    """Why the KL theorem does not hold for a target and a sampler, if so."""
    return bounds.kl_objection(law, sampler)


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


def w2_objection(law: Law | None, variance: float, sampler: str, total: str) -> bounds.W2Objection:
    """Why one of the W2 totals is not a theorem for a target and a sampler, if so."""
    return bounds.w2_objection(law, variance, sampler, _LIPSCHITZ[total])


def w2_one_step(
    process: Process, law: Gaussian, times: Array, steps: Steps, score_mse_evaluations: Array
) -> dict[str, Any]:
    """The bound of W2 that follows the sampler's own steps, and its shares."""
    bound = bounds.one_step_w2_bound(
        process, law, times, steps, score_mse_generated=score_mse_evaluations
    )
    return {
        "w2_one_step_mixing": bound.mixing,
        "w2_one_step_discretization": bound.discretization + bound.early_stop,
        "w2_one_step_score": bound.score_error,
        "w2_one_step": bound.total,
    }


def w2_one_step_objection(
    law: Law | None, variance: float, sampler: str, total: str
) -> bounds.OneStepObjection:
    """Why the one-step bound is not a theorem for a target, if so; it is for every sampler."""
    return bounds.one_step_objection(law)


_LIPSCHITZ: dict[str, Literal["paper", "sharp", "safe", "forward"]] = {
    "w2_bound": "paper",
    "w2_bound_sharp": "sharp",
    "w2_bound_safe": "safe",
    "w2_bound_forward": "forward",
}
