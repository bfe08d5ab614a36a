"""What the jobs of one target compute without a network: an array a variable, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgm.store.cells import write_cells

__all__ = ["Values"]

AXES = {  # and the key of a spec that lists what stands along each
    "schedule": "schedules", "horizon": "horizons", "score": "scores", "sampler": "samplers",
    "time_grid": "time_grids", "n_steps": "n_steps",
}  # fmt: skip


class Values:
    """Arrays over the axes of the grid that a job's variables have, NaN until something is put.

    Parameters
    ----------
    spec : mapping
        Of the job: its axes, and `variables` with the axes of each.
    seeds : range, optional
        The axis `seed`; without, variables are taken without it.
    """

    def __init__(self, spec: Mapping[str, Any], seeds: range | None = None) -> None:
        self._spec = spec
        self.size = {axis: len(spec[key]) for axis, key in AXES.items()}
        if seeds is not None:
            self.size["seed"] = len(seeds)
        self._axes = {
            name: [axis for axis in owned if axis in self.size]
            for name, owned in spec["variables"].items()
        }
        self._arrays = {
            name: np.full([self.size[axis] for axis in own], np.nan)
            for name, own in self._axes.items()
        }

    def put(self, computed: Mapping[str, Any], **place: int) -> None:
        """Numbers by variable, at a place on the axes."""
        for name, value in computed.items():
            self._arrays[name][tuple(place[axis] for axis in self._axes[name])] = value

    def write(self, path: Path) -> None:
        """Write all arrays, with the labels of the scores."""
        labels = np.array([score["label"] for score in self._spec["scores"]], dtype=np.str_)
        write_cells(path, self._arrays | {"score": labels}, self._spec)
