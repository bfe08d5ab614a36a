"""What divergences have in common: how one is drawn, and its coupled estimate."""

from __future__ import annotations

from typing import Any

import numpy as np

from sgm import divergences
from sgm.divergences import Control, Coupled
from sgm.variables import REPLICATE, Variable

__all__ = ["coupled", "coupling", "divergence", "estimated"]


def divergence(figure: str, label: str, **companions: str) -> dict[str, str]:
    """What a divergence says of itself."""
    return {"role": "divergence", "figure": figure, "label": label, **companions}


def coupled(name: str, long_name: str, units: str = "nat") -> tuple[Variable, ...]:
    """A divergence estimated with a chain of known law beside the sampler's, its error and gain."""
    return (
        Variable(
            f"{name}_coupled",
            REPLICATE,
            f"{long_name}, coupled",
            units,
            {"shared_error": f"{name}_coupled_reference_error"},
        ),
        Variable(
            f"{name}_coupled_standard_error",
            REPLICATE,
            f"standard error of {name}_coupled in one run",
            units,
        ),
        Variable(
            f"{name}_coupled_reference_error",
            REPLICATE,
            "part of it that all seeds share, that of the reference run; 0 for a known law",
            units,
        ),
        Variable(
            f"{name}_coupled_gain",
            REPLICATE,
            f"variance of the plain estimate over that of {name}_coupled; 1: the plain stands",
            "1",
        ),
    )


def coupling(control: Control | None, n: int) -> Control | None:
    """The control of `n` generated rows; None where nothing is known of its law, or n is small."""
    if control is None or control.law is None or n < divergences.GROUPS:
        return None
    return Control(control.rows[:n], control.law)


def estimated(name: str, estimate: Coupled | None) -> dict[str, Any]:
    """The variables of a coupled estimate, see `coupled`; NaN without one."""
    estimate = estimate or Coupled(np.nan, np.nan, np.nan, np.nan)
    return {
        f"{name}_coupled": estimate.value,
        f"{name}_coupled_standard_error": estimate.standard_error,
        f"{name}_coupled_reference_error": estimate.reference_error,
        f"{name}_coupled_gain": estimate.gain,
    }
