"""Checks of arguments: what is public in the mathematics' wing refuses what it can't compute.

Each raises a `ValueError` of one line, ``key = value: must be …``, where the argument enters;
inside, code trusts. Numbers are real: booleans and strings are none.

Positive numbers lie between `SMALLEST` and `LARGEST`: a product of three of them, or a square,
stays in the range of float64, so that no formula overflows before its value does.
"""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGEST",
    "SMALLEST",
    "real_array",
    "require_finite",
    "require_instance",
    "require_integer",
    "require_positive",
    "require_within",
    "shown",
]

Array = npt.NDArray[np.float64]

SMALLEST, LARGEST = 1e-100, 1e100


def shown(value: object) -> str:
    """A value as a message shows it: a number or a short text in full, else its type."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, Real | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    return type(value).__name__


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def require_finite(**values: Any) -> None:
    """Refuse what is not a finite number."""
    for key, value in values.items():
        if not (_is_real(value) and abs(value) <= sys.float_info.max):
            raise ValueError(f"{key} = {shown(value)}: must be a finite number")


def require_positive(**values: Any) -> None:
    """Refuse what is not a number from `SMALLEST` to `LARGEST`."""
    for key, value in values.items():
        if not (_is_real(value) and SMALLEST <= value <= LARGEST):
            raise ValueError(
                f"{key} = {shown(value)}: must be a positive finite number, "
                f"from {SMALLEST:g} to {LARGEST:g}"
            )


def require_within(low: float, high: float, /, **values: Any) -> None:
    """Refuse what is not a number in [low, high]."""
    for key, value in values.items():
        if not (_is_real(value) and low <= value <= high):
            raise ValueError(f"{key} = {shown(value)}: must lie in [{low:g}, {high:g}]")


def require_integer(least: int, /, **values: Any) -> None:
    """Refuse what is not an integer of at least `least`; 3.0 is none."""
    for key, value in values.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
        if not (whole and value >= least):
            raise ValueError(f"{key} = {shown(value)}: must be an integer, at least {least}")


def require_instance(kind: type | tuple[type, ...], /, **values: Any) -> None:
    """Refuse an object of another class."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    for key, value in values.items():
        if not isinstance(value, kinds):
            allowed = " or ".join(k.__name__ for k in kinds)
            raise ValueError(f"{key} = {shown(value)}: must be a {allowed}")


def real_array(key: str, value: Any) -> Array:
    """A float64 array of real numbers, without a copy of one that is."""
    if type(value) is np.ndarray and value.dtype == np.float64:
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{key} = {shown(value)}: must be an array of real numbers")
    return np.asarray(array, dtype=np.float64)
