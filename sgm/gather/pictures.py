"""Pictures in the grid: one group a target, ``pictures/<target>``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sgm.store.cells import Arrays
from sgm.study import Plan

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["gather_pictures"]


def gather_pictures(plan: Plan) -> dict[str, xr.Dataset]:
    """Gather the pictures of a study.

    Returns
    -------
    dict of str to xarray.Dataset
        By group. `forward` over (schedule, time, row, coordinate), `backward` over (schedule,
        score, sampler, time, row, coordinate), and where the law is known `density` over
        (schedule, time, mesh); on the line and in the plane `score_error` over (schedule, score,
        time, mesh). Times are fractions of T.
    """
    cells: dict[str, dict[tuple[str, str], Arrays]] = {}
    for labels in plan.cells("pictures"):
        arrays = plan.read("pictures", labels)
        cells.setdefault(labels["target"], {})[labels["schedule"], labels["score"]] = arrays
    axes = plan.read("axes", {})
    shapes = dict(zip(plan.axes["target"], axes["image_shapes"], strict=True))
    dimensions = dict(zip(plan.axes["target"], axes["dimension"], strict=True))
    return {
        f"pictures/{target}": _dataset(plan, found, int(dimensions[target]), str(shapes[target]))
        for target, found in cells.items()
    }


def _dataset(
    plan: Plan, cells: dict[tuple[str, str], Arrays], dimension: int, image_shape: str
) -> xr.Dataset:
    import xarray as xr

    schedules = list(dict.fromkeys(schedule for schedule, _ in cells))
    scores = list(dict.fromkeys(score for _, score in cells))
    first = cells[schedules[0], scores[0]]

    def every(name: str) -> Any:
        return np.stack([np.stack([cells[k, s][name] for s in scores]) for k in schedules])

    data: dict[str, Any] = {
        "forward": (
            ("schedule", "time", "row", "coordinate"),
            np.stack([cells[schedule, scores[0]]["forward"] for schedule in schedules]),
            {"long_name": "noised true rows", "units": "1"},
        ),
        "backward": (
            ("schedule", "score", "sampler", "time", "row", "coordinate"),
            every("backward"),
            {"long_name": "generated rows on their way", "units": "1"},
        ),
    }
    if "density" in first:
        mesh = ("mesh_y", "mesh_x") if "mesh_y" in first else ("mesh_x",)
        data["density"] = (
            ("schedule", "time", *mesh),
            np.stack([cells[schedule, scores[0]]["density"] for schedule in schedules]),
            {"long_name": "exact density of the noised rows", "units": "1"},
        )
    if "score_error" in first:
        data["score_error"] = (
            ("schedule", "score", "time", *mesh),
            every("score_error"),
            {"long_name": "error of the noise that the score predicts", "units": "1"},
        )
    names = first.get("coordinates", np.arange(1, 1 + first["forward"].shape[-1]).astype(str))
    coords: dict[str, Any] = {name: first[name] for name in ("mesh_x", "mesh_y") if name in first}
    coords |= {
        "schedule": np.array(schedules, dtype=object),
        "score": np.array(scores, dtype=object),
        "sampler": np.array(list(plan.axes["sampler"]), dtype=object),
        "time": ("time", first["times"], {"long_name": "t/T"}),
        "coordinate": np.array([str(name) for name in names], dtype=object),
    }
    attributes = {
        "dimension": dimension,
        "horizon": plan.study.horizons[0],
        "n_steps": max(plan.study.n_steps),
        "image_shape": image_shape,
    }
    return xr.Dataset(data, coords, attributes)
