"""Which figures a study has: what its targets, scores and measures give to draw."""

from __future__ import annotations

from sgm.study.composition import Composition
from sgm.study.config import Item
from sgm.study.variables import LEARNED_LAW, PARTICLES

__all__ = ["figures"]


def figures(cells: Composition) -> list[str]:
    """Stems of the study's figures, as ``kl/isotropic``.

    Raises
    ------
    ValueError
        If the study asks for a kind of figure that it does not have.
    """
    stems, only = _all(cells), cells.study.figures.only
    kinds = list(dict.fromkeys(_kind(stem) for stem in stems))
    for kind in only or ():
        if kind not in kinds:
            raise ValueError(
                f"figures: only = {kind!r}: must be a kind of figure that the study has, "
                f"{', '.join(kinds)}"
            )
    return [stem for stem in stems if only is None or _kind(stem) in only]


def _kind(stem: str) -> str:
    return stem.partition("/")[0]


def _all(cells: Composition) -> list[str]:
    study = cells.study
    stems = ["schedules"]
    calibrated = covered = bounded = False
    ranked: list[str] = []  # divergences of which there is a number
    for target in study.targets:
        scores = [score for score in study.scores if study.runs(target, score)]
        sampled = [score for score in scores if cells.is_sampled(target, score)]
        exact = target.entry.law == "gaussian" and bool(cells.untrained(target))
        for item in cells.measures("divergences", target):
            for variable in item.entry.variables:
                drawn = variable.about.get("role") == "divergence"
                if drawn and (sampled or (exact and "exact" in variable.about)):
                    stems.append(f"{variable.about['figure']}/{target.label}")
                    if variable.about.get("ranks") != "0":
                        ranked.append(variable.about["figure"])
        if any(cells.is_sampled(target, score) for score in cells.filtered(target)):
            stems += [
                f"{variable.about['figure']}/{target.label}"
                for variable in PARTICLES
                if variable.about.get("role") == "divergence"
            ]
        if cells.learned(target):
            stems += [
                f"{variable.about['figure']}/{target.label}"
                for variable in LEARNED_LAW
                if variable.about.get("role") == "divergence"
            ]
            stems.append(f"learned/{target.label}")
        if (sampled or exact) and _bounded(cells, target):
            stems.append(f"theory/{target.label}")
            bounded = True
        for item in cells.measures("bounds", target):
            stems += [
                f"{variable.name.removesuffix('_bound')}_decomposition/{target.label}"
                for variable in item.entry.variables
                if variable.about.get("role") == "bound"
            ]
            stems += [
                f"{variable.name.removesuffix('_bound')}_budget/{target.label}"
                for variable in item.entry.variables
                if variable.about.get("role") == "bound" and "budget" in variable.about
            ]
        if sampled and study.seeds > 1 and _comparable(cells, target):
            stems.append(f"comparison/{target.label}")
        if sampled and study.pictures is not None:
            stems.append(f"samples/{target.label}")
        if sampled and any(item.family == "histogram" for item in study.divergences):
            stems.append(f"histogram/{target.label}")
        covered |= any(cells.is_coupled(target, score) for score in sampled) and any(
            item.family == "coverage" for item in cells.measures("divergences", target)
        )
        if len(study.horizons) > 1 and study.likelihood is not None and scores:
            stems += [f"elbo/{target.label}", f"horizon/{target.label}"]
        if len(study.horizons) > 1 and study.priors is not None:
            stems.append(f"priors/{target.label}")
        if len(study.horizons) > 1 and len(_shapes(cells)) > 1 and scores:
            stems.append(f"map/{target.label}")
        calibrated |= exact and any(not score.entry.is_network for score in sampled)
    if len(study.samplers) * len(study.time_grids) > 1:  # else the figures above say as much
        stems += [f"leaderboard/{name}" for name in dict.fromkeys(ranked)]
    stems += ["agreement"] * (bounded and len(study.schedules) > 1)
    return stems + ["calibration"] * calibrated + ["coverage"] * covered


def _bounded(cells: Composition, target: Item) -> bool:
    """Whether the study has a bound on a divergence of the target that it measures."""
    measured = {v.name for i in cells.measures("divergences", target) for v in i.entry.variables}
    return any(
        variable.about.get("role") == "bound" and variable.about.get("divergence") in measured
        for item in cells.measures("bounds", target)
        for variable in item.entry.variables
    )


def _shapes(cells: Composition) -> set[float]:
    """The a of the β_a schedules; a family of the user's may have an `a` of its own."""
    return {s.parameters.a for s in cells.study.schedules if s.family == "beta_a"}


def _comparable(cells: Composition, target: Item) -> bool:
    """Whether there are two schedules to be compared, and an error to compare them by."""
    schedules = cells.study.schedules
    numbered = any(axis.dimension == "schedule" for axis in cells.study.coordinates)
    # of one family told apart by numbers the best is compared with a = 0 alone
    several = len({s.family for s in schedules}) > 1 or not numbered or 0.0 in _shapes(cells)
    return (
        len(schedules) > 1
        and several
        and any(
            variable.about.get("role") == "divergence" and variable.about.get("ranks") != "0"
            for item in cells.measures("divergences", target)
            for variable in item.entry.variables
        )
    )
