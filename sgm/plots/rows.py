"""The tidy frame that a figure is drawn from, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.plots.panels import PANEL_LABELS, Panel
from sgm.reading import Bound, Runs, objections

#: Between the name of a curve and why its points are not a bound.
NOT_VALID = " NOT VALID: "

FRAME_COLUMNS = (
    "panel", *PANEL_LABELS, "axis", "curve", "schedule",
    "x", "y", "low", "high", "n_runs", "n_failed",
)  # fmt: skip


@dataclass
class Rows:
    """The frame in the making: rows of one panel."""

    panel: Panel
    rows: list[pd.DataFrame] = field(default_factory=list)

    def add(
        self,
        axis: str,
        curve: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        sd: npt.ArrayLike | None = None,
        low: npt.ArrayLike = np.nan,
        high: npt.ArrayLike = np.nan,
        n_runs: npt.ArrayLike = np.nan,
        n_failed: npt.ArrayLike = np.nan,
        schedule: Sequence[str] | str = "",
        keep_empty: bool = False,
    ) -> None:
        """Append a curve; one without any finite y is left out unless `keep_empty`."""
        values = np.atleast_1d(np.asarray(y, dtype=np.float64))
        values = np.where(np.isfinite(values), values, np.nan)
        if not (np.isfinite(values).any() or keep_empty):
            return
        if sd is not None:
            low, high = values - np.asarray(sd), values + np.asarray(sd)
        numbers = {"x": x, "y": values, "low": low, "high": high}
        counts = {"n_runs": n_runs, "n_failed": n_failed}
        self.rows.append(
            pd.DataFrame(
                {
                    "panel": self.panel.number,
                    **self.panel.labels,
                    "axis": axis,
                    "curve": curve,
                    "schedule": schedule,
                    **{
                        name: np.broadcast_to(np.asarray(column, dtype=np.float64), values.shape)
                        for name, column in (numbers | counts).items()
                    },
                }
            )
        )

    def add_total(
        self,
        here: xr.Dataset,
        bound: Bound,
        axis: str,
        curve: str,
        x: npt.ArrayLike,
        runs: Runs,
        *,
        total: str = "",
        schedule: Sequence[str],
        n_failed: npt.ArrayLike = np.nan,
        spread: bool = True,
    ) -> npt.NDArray[np.bool_]:
        """Append a bound's curve; the points where its theorem fails are a curve of their own.

        Returns
        -------
        ndarray of bool, shape (schedule,)
            Where the theorem applies.
        """
        reasons = np.array(objections(here, bound, total), dtype=object)
        for reason in dict.fromkeys(reasons):
            at = reasons == reason
            self.add(
                axis, curve + (NOT_VALID + reason if reason else ""), x, runs.mean.where(at),
                sd=runs.sd if spread else None, schedule=schedule, n_runs=runs.count,
                n_failed=n_failed,
            )  # fmt: skip
        return np.asarray(reasons == "", dtype=bool)


def make_frame(target: str, rows: Iterable[pd.DataFrame]) -> pd.DataFrame:
    rows = list(rows)
    frame = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=FRAME_COLUMNS)
    for column in ("n_runs", "n_failed"):
        frame[column] = frame[column].astype("Int64")
    frame.insert(0, "target", target)
    return frame
