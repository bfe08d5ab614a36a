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

from sgm.published import load_published

__all__ = ["load_published"]

__version__ = "0.1.0"
