"""Samplers of the backward process: linear programs over a few registers.

A scheme is one function (process, times) → `Steps`, a table of coefficients that the process and
a grid of times T = τ₀ > τ₁ > … > τ_N determine; the exact law of the output (`sgm.laws`) and any
simulation (`sgm.simulation`) read the same table. The backward SDE and the probability flow that
the schemes discretise are, in forward time τ run backwards,

    dX = β [X/(2σ²) + s] dt + √β dB,     dX = (β/2) [X/σ² + s] dt.

Below h = (B(τ_k) − B(τ_{k+1}))/(2σ²), so that m(τ_{k+1})/m(τ_k) = eʰ. Formulas in h hold
for VE in the limit σ² = ∞: h = 0, and each 2σ² φ(h) with φ(h) ~ h is B(τ_k) − B(τ_{k+1}).
N counts time steps, NFE evaluations of the score: `Steps.n_steps` and `Steps.nfe`.
"""

from sgm.samplers.kinetic import kinetic_ancestral, kinetic_euler_maruyama, sscs
from sgm.samplers.langevin import (
    annealed_langevin,
    langevin,
    predictor_corrector,
    predictor_corrector_snr,
)
from sgm.samplers.multistage import (
    dpm_solver_2s,
    dpm_solver_pp_2s,
    edm,
    exponential_runge_kutta,
    exponential_runge_kutta_modified,
    heun,
    randomised_midpoint,
    restart,
)
from sgm.samplers.multistep import deis, dpm_solver_pp_2m, er_sde, unipc
from sgm.samplers.one_step import (
    ancestral,
    ancestral_small,
    ddim,
    euler_arrival,
    euler_maruyama,
    exponential_integrator,
    exponential_integrator_modified,
    probability_flow_euler,
)
from sgm.samplers.steps import Stage, Steps, program, symbols

__all__ = [
    "Stage",
    "Steps",
    "ancestral",
    "ancestral_small",
    "annealed_langevin",
    "ddim",
    "deis",
    "dpm_solver_2s",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_2s",
    "edm",
    "er_sde",
    "euler_arrival",
    "euler_maruyama",
    "exponential_integrator",
    "exponential_integrator_modified",
    "exponential_runge_kutta",
    "exponential_runge_kutta_modified",
    "heun",
    "kinetic_ancestral",
    "kinetic_euler_maruyama",
    "langevin",
    "predictor_corrector",
    "predictor_corrector_snr",
    "probability_flow_euler",
    "program",
    "randomised_midpoint",
    "restart",
    "sscs",
    "symbols",
    "unipc",
]
