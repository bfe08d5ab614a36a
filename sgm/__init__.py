"""sgm: the workbench where noise-schedule theory meets experiment.

A score-based generative model noises data with a forward SDE

    dX = −β(t)/(2σ²) X dt + √β(t) dB,    X₀ ~ π_data,  t ∈ [0, T],

or its limit dX = √β(t) dB (VE), learns the score ∇log p_t and runs the SDE backwards from a
Gaussian, π_∞ = N(0, σ²I) in the first case. This
package computes, on the same cells of a study, what theory says about the choice
of the noise schedule β and what a sampler makes of it.

The package has two wings that never import each other: the mathematics
(`densities` … `evaluation`) and the study (`study`, `store`, `published`, `reading`,
`comparison`, `horizons`, `plots`, `tables`). Only `run` knows both. A floor plan of the modules
is in docs/architecture.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgm import plot
    from sgm.exact import exact_kl, exact_law, exact_w2
    from sgm.plots import draw
    from sgm.published import load_published
    from sgm.store.grid import open_grid

__all__ = ["draw", "exact_kl", "exact_law", "exact_w2", "load_published", "open_grid", "plot"]

__version__ = "0.2.0"

#: Where each name is defined: imported when first asked for, so that `import sgm` costs nothing.
HOMES = {
    "draw": "sgm.plots",
    "exact_kl": "sgm.exact",
    "exact_law": "sgm.exact",
    "exact_w2": "sgm.exact",
    "load_published": "sgm.published",
    "open_grid": "sgm.store.grid",
    "plot": "sgm.plot",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        home = import_module(HOMES[name])
        return home if home.__name__ == f"sgm.{name}" else getattr(home, name)
    raise AttributeError(f"module 'sgm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
