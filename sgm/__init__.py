"""sgm: the workbench where noise-schedule theory meets experiment.

A score-based generative model noises data with a forward SDE

    dX = −β(t)/(2σ²) X dt + √β(t) dB,    X₀ ~ π_data,  t ∈ [0, T],

learns the score ∇log p_t and runs the SDE backwards from π_∞ = N(0, σ²I). This
package computes, on the same cells of a study, what theory says about the choice
of the noise schedule β and what a sampler makes of it.

The package has two wings that never import each other: the mathematics
(`schedules` … `evaluation`) and the study (`study`, `store`, `plots`, `report`).
Only `run` knows both.
"""

__version__ = "0.1.0"
