"""Which figures a study has: what its targets, scores and measures give to draw."""

from __future__ import annotations

from sgm.study.composition import Composition
from sgm.study.config import Item

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
    calibrated = covered = False
    ranked: list[str] = []  # divergences of which there is a number
    for target in study.targets:
        scores = [score for score in study.scores if study.runs(target, score)]
        sampled = [score for score in scores if cells.is_sampled(target, score)]
        exact = target.entry.law == "gaussian" and any(s.family != "trained" for s in scores)
        for item in cells.measures("divergences", target):
            for variable in item.entry.variables:
                drawn = variable.about.get("role") == "divergence"
                if drawn and (sampled or (exact and "exact" in variable.about)):
                    stems.append(f"{variable.about['figure']}/{target.label}")
                    if variable.about.get("ranks") != "0":
                        ranked.append(variable.about["figure"])
        for item in cells.measures("bounds", target):
            stems += [
                f"{variable.name.removesuffix('_bound')}_decomposition/{target.label}"
                for variable in item.entry.variables
                if variable.about.get("role") == "bound"
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
        if len(study.horizons) > 1 and len(_shapes(cells)) > 1 and scores:
            stems.append(f"map/{target.label}")
        calibrated |= exact and any(score.family != "trained" for score in sampled)
    if len(study.samplers) * len(study.time_grids) > 1:  # else the figures above say as much
        stems += [f"leaderboard/{name}" for name in dict.fromkeys(ranked)]
    return stems + ["calibration"] * calibrated + ["coverage"] * covered


def _shapes(cells: Composition) -> set[float]:
    """The a of the β_a schedules; a family of the user's may have an `a` of its own."""
    return {s.parameters.a for s in cells.study.schedules if s.family == "beta_a"}


def _comparable(cells: Composition, target: Item) -> bool:
    """Whether the best a has another schedule beside it, and an error to be compared by."""
    shapes = _shapes(cells)
    others = any(schedule.family != "beta_a" for schedule in cells.study.schedules)
    return (
        bool(shapes)
        and (others or (0.0 in shapes and len(shapes) > 1))
        and any(
            variable.about.get("role") == "divergence" and variable.about.get("ranks") != "0"
            for item in cells.measures("divergences", target)
            for variable in item.entry.variables
        )
    )
