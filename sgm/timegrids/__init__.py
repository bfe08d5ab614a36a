"""Time grids of the backward simulation: decreasing times T = τ₀ > τ₁ > … > τ_N.

A builder takes what it asks for by name (the horizon T or the process, the number of steps N, the
law of the data) and returns N + 1 times. The grid is where the solver stops, never the noise
*schedule*, which is β(t).

`time`
    equal steps in time, and others that know T alone;
`level`
    grids of noise levels σ = √v/m, the same ones whatever the schedule;
`law`
    noise levels chosen for the law of the data.

How a grid ends
---------------
- Most end at τ_N = 0, the data.
- Where the own scale of a grid has no zero (log σ) or shouldn't be followed there, `sigma_min` says
  how far it is: N − 1 steps lead there and the last one to 0 (``end="zero"``, as of Karras et al.),
  or all N steps do and the simulation stops (``end="stop"``).
- `stop` is a time δ > 0 in place of 0, for every grid: the same scale is divided between T and δ,
  or the last step leads from `sigma_min` to δ. It is what a config calls ``early_stop``.

What stops at τ_N > 0 has the noised law p_{τ_N} for its aim: no step removes what noise is left.
"""

from sgm.timegrids.law import (
    constant_rate,
    entropic,
    entropic_rescaled,
    gaussian_geometric,
    score_optimal,
)
from sgm.timegrids.level import (
    arctangent,
    cosine,
    dmn,
    karras,
    laplace,
    linear_steps,
    log_snr,
    sigmoid,
)
from sgm.timegrids.time import beta_quantiles, quadratic, uniform

__all__ = [
    "arctangent",
    "beta_quantiles",
    "constant_rate",
    "cosine",
    "dmn",
    "entropic",
    "entropic_rescaled",
    "gaussian_geometric",
    "karras",
    "laplace",
    "linear_steps",
    "log_snr",
    "quadratic",
    "score_optimal",
    "sigmoid",
    "uniform",
]
