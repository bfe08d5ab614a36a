"""Noise schedules with free knots: β, or B, given at some times and interpolated.

The knots are what an optimiser of schedules moves, and writes as a file. Their times are
fractions of T, from 0 to 1, so that the schedule stretches with its horizon: rates β stay
and B = T ∫₀^{t/T} β grows, levels B stay and β shrinks.

Sources
-------
Fritsch & Butland (SIAM J. Sci. Stat. Comput. 5, 1984), the monotone cubic interpolant
(PCHIP), as SciPy has it: between two knots it has no turn, so that β stays positive.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sgm.arguments import LARGEST, SMALLEST, real_array, shown
from sgm.schedules import NoiseSchedule

if TYPE_CHECKING:
    from scipy.interpolate import PPoly

__all__ = [
    "IntegralSplineSchedule",
    "PiecewiseLinearSchedule",
    "SplineSchedule",
    "schedule_file",
]

Array = npt.NDArray[np.float64]


def require_levels(schedule: NoiseSchedule, b: npt.ArrayLike) -> Array:
    """`b` as float64; what exceeds B(T) by rounding is B(T).

    Raises
    ------
    ValueError
        If a level lies outside [0, B(T)].
    """
    b, total = real_array("b", b), float(schedule.integral(schedule.horizon))
    outside = ~((b >= 0) & (b <= total * (1 + 1e-12)))
    if np.any(outside):
        wrong = float(b[outside][0])
        raise ValueError(f"b = {wrong!r}: must lie in [0, B(T)] = [0, {total}]")
    return np.minimum(b, total)


@dataclass(frozen=True)
class _KnotSchedule(NoiseSchedule):
    """A schedule given at knots.

    Parameters
    ----------
    horizon : float
    knots : sequence of float
        Times as fractions of T: 0 = f₁ < … < f_n = 1, n ≥ 2.
    """

    knots: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        fractions = _column("knots", self.knots)
        if not (fractions[0] == 0 and fractions[-1] == 1 and np.all(np.diff(fractions) > 0)):
            raise ValueError(
                f"knots = {fractions.tolist()!r:.60}: must increase strictly from 0 to 1: they are "
                "times as fractions of T"
            )
        object.__setattr__(self, "knots", tuple(map(float, fractions)))

    def _take(self, key: str, values: npt.ArrayLike) -> Array:
        """Check the values at the knots, and keep them hashable."""
        array = _column(key, values)
        if len(array) != len(self.knots):
            raise ValueError(
                f"{key} has {len(array)} values: must have {len(self.knots)}, one a knot"
            )
        object.__setattr__(self, key, tuple(map(float, array)))
        return array

    def _fractions(self, t: npt.ArrayLike) -> Array:
        return np.asarray(self.times(t) / self.horizon)


def _column(key: str, values: npt.ArrayLike) -> Array:
    """Finite numbers in a row, two or more."""
    array = real_array(key, values)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"{key} has shape {array.shape}: must be a list of 2 numbers or more")
    if not np.all(np.isfinite(array)):
        wrong = float(array[~np.isfinite(array)][0])
        raise ValueError(f"{key} = {wrong!r}: must be finite numbers")
    return array


@dataclass(frozen=True)
class _RateSchedule(_KnotSchedule):
    """β at the knots, all positive.

    Parameters
    ----------
    horizon : float
    knots : sequence of float
        As in `_KnotSchedule`.
    rates : sequence of float
        β at the knots.
    """

    rates: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = self._take("rates", self.rates)
        outside = ~((rates >= SMALLEST) & (rates <= LARGEST))
        if np.any(outside):
            raise ValueError(
                f"rates = {float(rates[outside][0])!r}: must be positive, from {SMALLEST:g} to "
                f"{LARGEST:g}"
            )

    @property
    def supremum(self) -> float:
        return float(np.max(self.rates))  # between knots β is monotone


@dataclass(frozen=True)
class PiecewiseLinearSchedule(_RateSchedule):
    """β linear between knots; B by trapezia, and its inverse by their quadratic equation.

    Parameters
    ----------
    horizon : float
    knots : sequence of float
        Times as fractions of T: 0 = f₁ < … < f_n = 1.
    rates : sequence of float
        β > 0 at the knots.
    """

    @cached_property
    def _levels(self) -> Array:
        """B at the knots."""
        rates, knots = np.array(self.rates), np.array(self.knots)
        panels = np.diff(knots) * (rates[:-1] + rates[1:]) / 2
        return np.append(0.0, np.cumsum(panels)) * self.horizon

    def _slopes(self, piece: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        """β at the start of a piece and its derivative there, in time."""
        knots, rates = np.array(self.knots) * self.horizon, np.array(self.rates)
        return rates[piece], (np.diff(rates) / np.diff(knots))[piece]

    def _piece(self, edges: npt.ArrayLike, value: Array) -> npt.NDArray[np.intp]:
        found = np.searchsorted(edges, value, side="right") - 1
        return np.asarray(np.clip(found, 0, len(self.knots) - 2))

    def beta(self, t: npt.ArrayLike) -> Array:
        return np.asarray(np.interp(self._fractions(t), self.knots, self.rates))

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        piece = self._piece(self.knots, t / self.horizon)
        since = np.maximum(t - np.array(self.knots)[piece] * self.horizon, 0.0)
        rate, slope = self._slopes(piece)
        return np.asarray(self._levels[piece] + since * (rate + slope * since / 2))

    def inverse_integral(self, b: npt.ArrayLike) -> Array:
        b = require_levels(self, b)
        piece = self._piece(self._levels, b)
        rest = b - self._levels[piece]
        rate, slope = self._slopes(piece)
        root = np.sqrt(np.maximum(rate**2 + 2 * slope * rest, 0.0))
        start = np.array(self.knots)[piece] * self.horizon
        return np.asarray(np.minimum(start + 2 * rest / (rate + root), self.horizon))


@dataclass(frozen=True)
class SplineSchedule(_RateSchedule):
    """β a monotone cubic spline (PCHIP) through knots; B its exact integral.

    Parameters
    ----------
    horizon : float
    knots : sequence of float
        Times as fractions of T: 0 = f₁ < … < f_n = 1.
    rates : sequence of float
        β > 0 at the knots.
    """

    @cached_property
    def _spline(self) -> tuple[PPoly, PPoly]:
        """β and ∫β as functions of the fraction of T."""
        rate = _pchip(self.knots, self.rates)
        return rate, rate.antiderivative()

    def beta(self, t: npt.ArrayLike) -> Array:
        rate, _ = self._spline
        # the cubic's rounding errors are those of its largest term
        return np.clip(rate(self._fractions(t)), min(self.rates), max(self.rates))

    def integral(self, t: npt.ArrayLike) -> Array:
        _, level = self._spline
        return np.asarray(self.horizon * level(self._fractions(t)))


@dataclass(frozen=True)
class IntegralSplineSchedule(_KnotSchedule):
    """B a monotone cubic spline (PCHIP) through knots; β its derivative, which is continuous.

    Parameters
    ----------
    horizon : float
    knots : sequence of float
        Times as fractions of T: 0 = f₁ < … < f_n = 1.
    levels : sequence of float
        B at the knots: 0 = B₁ < … < B_n.
    """

    levels: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = self._take("levels", self.levels)
        if not (levels[0] == 0 and np.all(np.diff(levels) > 0)):
            raise ValueError(
                f"levels = {levels.tolist()!r:.60}: must increase strictly from B(0) = 0"
            )
        if not (levels[1] >= SMALLEST and levels[-1] <= LARGEST):
            raise ValueError(f"levels: must lie between {SMALLEST:g} and {LARGEST:g} after 0")

    @cached_property
    def _spline(self) -> tuple[PPoly, PPoly]:
        """B and its derivative as functions of the fraction of T."""
        level = _pchip(self.knots, self.levels)
        return level, level.derivative()

    def beta(self, t: npt.ArrayLike) -> Array:
        _, slope = self._spline
        return np.maximum(slope(self._fractions(t)), 0.0) / self.horizon

    def integral(self, t: npt.ArrayLike) -> Array:
        level, _ = self._spline
        return np.asarray(level(self._fractions(t)))

    @property
    def supremum(self) -> float:
        _, slope = self._spline
        turns = slope.derivative().roots(extrapolate=False)
        fractions = np.append(self.knots, turns[np.isfinite(turns)])
        return float(np.max(self.beta(fractions * self.horizon)))


def _pchip(knots: Sequence[float], values: Sequence[float]) -> Any:
    from scipy.interpolate import PchipInterpolator  # slow to import, and rarely needed

    return PchipInterpolator(np.array(knots), np.array(values))


def schedule_file(
    horizon: float, *, path: str | Path, interpolation: Literal["linear", "monotone"]
) -> NoiseSchedule:
    """A schedule whose knots a file holds: columns `time` and `beta`, or `time` and `integral`.

    Parameters
    ----------
    horizon : float
        T; the times of the file are fractions of it, from 0 to 1.
    path : str or Path
        A .csv file with one line of names, a .json file of an object with two lists, or an
        .npz file with two arrays.
    interpolation : {"linear", "monotone"}
        Of `beta`: `PiecewiseLinearSchedule` or `SplineSchedule`. `integral` takes "monotone",
        `IntegralSplineSchedule`.

    Raises
    ------
    ValueError
        If the file can't be read as such, or its numbers are no schedule; the message names the
        file.
    """
    path = Path(path)
    if interpolation not in ("linear", "monotone"):
        raise ValueError(f"interpolation = {shown(interpolation)}: must be 'linear' or 'monotone'")
    try:
        columns = _read(path)
        names = sorted(map(str, columns))
        if names not in (["beta", "time"], ["integral", "time"]):
            raise ValueError(
                "must hold the columns 'time' and 'beta', or 'time' and 'integral'; it has "
                f"{', '.join(names) or 'none'}"
            )
        if "integral" in columns:
            if interpolation == "linear":
                raise ValueError(
                    "interpolation = 'linear': must be 'monotone' for the column 'integral': β "
                    "would jump"
                )
            return IntegralSplineSchedule(horizon, columns["time"], columns["integral"])
        kind = PiecewiseLinearSchedule if interpolation == "linear" else SplineSchedule
        return kind(horizon, columns["time"], columns["beta"])
    except ValueError as error:
        raise ValueError(f"path = {str(path)!r}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    """Columns of a file by name."""
    readers = {".csv": _csv, ".json": _json, ".npz": _npz}
    if path.suffix not in readers:
        raise ValueError(f"must end in {', '.join(readers)}")
    try:
        return readers[path.suffix](path.read_bytes())
    except (OSError, UnicodeDecodeError, EOFError, BadZipFile, csv.Error) as error:
        raise ValueError(f"can't be read: {error}") from error


def _csv(content: bytes) -> dict[str, list[float]]:
    rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    names, lines = [name.strip() for name in rows[0]] if rows else [], rows[1:]
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names):
            raise ValueError(f"line {number} has {len(line)} cells: must have {len(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"its columns {names}: must differ in their names")
    return {name: [float(line[i]) for line in lines] for i, name in enumerate(names)}


def _json(content: bytes) -> dict[str, Any]:
    columns = json.loads(content)
    if not isinstance(columns, dict):
        raise ValueError("must hold an object with two lists of numbers")
    return columns


def _npz(content: bytes) -> dict[str, Any]:
    archive = np.load(BytesIO(content), allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("must be an .npz file, not a single array")
    with archive:
        return {name: archive[name] for name in archive.files}
