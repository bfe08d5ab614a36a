"""Which figures a study has: what its targets, scores and measures give to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgm.study.plan import Plan

__all__ = ["figures"]


def figures(plan: Plan) -> list[str]:
    """Stems of the study's figures, as ``kl/isotropic``."""
    study = plan.study
    stems = ["schedules"]
    calibrated = False
    for target in study.targets:
        scores = [score for score in study.scores if study.runs(target, score)]
        sampled = [score for score in scores if plan.is_sampled(target, score)]
        exact = target.entry.law == "gaussian" and any(s.family != "trained" for s in scores)
        for item in plan.measures("divergences", target):
            for variable in item.entry.variables:
                drawn = variable.about.get("role") == "divergence"
                if drawn and (sampled or (exact and "exact" in variable.about)):
                    stems.append(f"{variable.about['figure']}/{target.label}")
        for item in plan.measures("bounds", target):
            stems += [
                f"{variable.name.removesuffix('_bound')}_decomposition/{target.label}"
                for variable in item.entry.variables
                if variable.about.get("role") == "bound"
            ]
        if sampled and len(study.schedules) > 1 and study.seeds > 1:
            stems.append(f"comparison/{target.label}")
        if sampled and study.pictures is not None:
            stems.append(f"samples/{target.label}")
        if sampled and any(item.family == "histogram" for item in study.divergences):
            stems.append(f"histogram/{target.label}")
        if len(study.horizons) > 1 and study.likelihood is not None and scores:
            stems += [f"elbo/{target.label}", f"horizon/{target.label}"]
        shapes = {getattr(schedule.parameters, "a", None) for schedule in study.schedules} - {None}
        if len(study.horizons) > 1 and len(shapes) > 1 and scores:
            stems.append(f"map/{target.label}")
        calibrated |= exact and any(score.family != "trained" for score in sampled)
    return stems + ["calibration"] * calibrated
