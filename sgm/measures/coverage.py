"""How good the coupled estimates are: those of few rows against those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Interval, MinLen

from sgm import divergences
from sgm.divergences import Control
from sgm.measures.divergences import (
    gaussian_kl,
    gaussian_w2,
    mmd,
    nll,
    sample_w2,
    sliced_w2,
)
from sgm.registry import Count, Seed, register
from sgm.targets import Target
from sgm.variables import REPLICATE, Variable

__all__ = ["coverage"]

Array = npt.NDArray[np.float64]

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
COVERAGE = tuple(
    variable
    for name, long_name, units in (
        ("kl", "KL(data ‖ generated), by moments", "nat"),
        ("w2", "W2², by moments", "1"),
        ("sliced_w2", "sliced W2²", "1"),
        ("w2_sample", "W2² between samples, centred", "1"),
        ("mmd", "squared MMD", "1"),
        ("nll", "NLL of the sample under the target", "nat"),
    )
    for variable in (
        Variable(
            f"coverage_{name}_truth",
            REPLICATE,
            f"{long_name}: coupled estimate from all rows",
            units,
            {"label": long_name, "coupled": f"coverage_{name}_error"},
        ),
        Variable(
            f"coverage_{name}_error",
            (*REPLICATE, "rows"),
            f"{long_name}: root mean square error of the coupled estimate from so many rows",
            units,
        ),
        Variable(
            f"coverage_{name}_stated",
            (*REPLICATE, "rows"),
            f"{long_name}: root mean square of the standard error that the coupled estimate states",
            units,
        ),
        Variable(
            f"coverage_{name}_plain",
            (*REPLICATE, "rows"),
            f"{long_name}: root mean square error of the plain estimate from so many rows",
            units,
        ),
        Variable(
            f"coverage_{name}_share",
            (*REPLICATE, "rows"),
            f"{long_name}: share of intervals ± 1.96 standard errors that contain its truth",
            "1",
        ),
    )
)


@register("divergence", needs="gaussian", variables=COVERAGE)
def coverage(
    sample: Array,
    reference: Array,
    target: Target,
    control: Control | None,
    rows: Annotated[tuple[Annotated[int, Interval(ge=40, le=10**6)], ...], MinLen(1)],
    sets: Annotated[int, Interval(ge=2, le=10**4)],
    subsample: Annotated[int, Interval(ge=40, le=20000)],
    projections: Count,
    projection_seed: Seed,
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
