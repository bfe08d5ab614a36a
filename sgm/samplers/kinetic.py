"""Schemes for the kinetic process: two registers, the position x and the velocity v.

Backwards, with D = diag(ε², σ²) and the score −R u + c s(t, cᵀu) of u = (x, v)
(`sgm.kinetic`), u follows

    du = β [−A u + D(−R u + c s)] dt + √β diag(ε, σ) dB.

All start at the stationary law N(0, S): y as the prior N(0, w), w = cᵀS c, and in the first stage
the pair given y, S c y/w + √(det S/w) (−c_v, c_x) z. Each step evaluates the score once, at
y = cᵀu; the two noises of a pair are two stages.

Sources
-------
Strasman et al. (arXiv 2511.02419) and their code, for Euler-Maruyama; Dockhorn, Vahdat, Kreis
(arXiv 2112.07068), for the symmetric splitting (SSCS). The ancestral scheme is derived here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.kinetic import KineticProcess
from sgm.processes import Process
from sgm.registry import register
from sgm.samplers.increments import increment, step_ends
from sgm.samplers.steps import Stage, Steps, program, symbols

__all__ = ["kinetic_ancestral", "kinetic_euler_maruyama", "sscs"]

Array = npt.NDArray[np.float64]

X, V, S, DENOISED, Z = symbols(2)


@register("sampler", process="kinetic")
def kinetic_euler_maruyama(process: Process, times: npt.ArrayLike) -> Steps:
    """Euler-Maruyama for (x, v): drift and diffusion at the departure time τ_k.

    Parameters
    ----------
    process : Process
        A `KineticProcess`.
    times : array_like, shape (N + 1,)
        Decreasing grid, see `sgm.timegrids`.

    Returns
    -------
    Steps
        N steps and evaluations.

    Raises
    ------
    ValueError
        If the process is another one.
    """
    kinetic = _kinetic(process)
    start, stop = step_ends(times)
    growth = (start - stop) * kinetic.schedule.beta(start)
    c, rest = kinetic.projection(start)
    nilpotent, rate = kinetic.generator
    drift = kinetic.damping * np.eye(2) - nilpotent - rate @ rest  # −A − D R
    factor = np.eye(2) + growth[:, None, None] * drift
    noise = growth[:, None, None] * rate
    return _scheme(kinetic, start, c, factor, growth[:, None] * (c @ rate), S, noise)


@register("sampler", process="kinetic")
def sscs(process: Process, times: npt.ArrayLike) -> Steps:
    """Symmetric splitting (SSCS): the stationary process run backwards, and the score's excess.

    With S the stationary covariance, the backward SDE is du = β S Aᵀ S⁻¹ u dt + √β diag(ε, σ) dB,
    solved exactly over each half of a step, and du = β D (score + S⁻¹u) dt, an Euler step over
    all of it in between, with the score at the time of departure, as the authors' code has it:
    of weak order 1. The first half step would leave the stationary law as it is; two halves that
    meet are one.

    Parameters
    ----------
    process, times
        As in `kinetic_euler_maruyama`.

    Returns
    -------
    Steps
        N steps and evaluations.

    Raises
    ------
    ValueError
        If the process is another one.
    """
    kinetic = _kinetic(process)
    start, stop = step_ends(times)
    middle = (start + stop) / 2
    growth = increment(kinetic, start, stop)
    c, rest = kinetic.projection(start)
    _, rate = kinetic.generator
    pull = np.linalg.inv(kinetic.stationary) - rest
    kicked = np.eye(2) + growth[:, None, None] * (rate @ pull)
    ends = np.append(middle[1:], stop[-1])
    flow, gained = kinetic.backward_transition(increment(kinetic, middle, ends))
    kick = growth[:, None] * np.einsum("nij,nj->ni", flow, c @ rate)
    return _scheme(kinetic, start, c, flow @ kicked, kick, S, gained)


@register("sampler", process="kinetic")
def kinetic_ancestral(process: Process, times: npt.ArrayLike) -> Steps:
    """A draw of the earlier pair given the later one and the denoised data: DDPM's step for (x, v).

    u′ = G u + (m′ − G m) x̂₀ + N(0, C′ − G F C′), G = C′ Fᵀ C⁻¹, primes at τ_{k+1}: the backward SDE
    with x̂₀ = E[X₀ | u] frozen over the step. Exact of a point mass.

    Parameters
    ----------
    process, times
        As in `kinetic_euler_maruyama`.

    Returns
    -------
    Steps
        N steps and evaluations.

    Raises
    ------
    ValueError
        If the process is another one.
    """
    kinetic = _kinetic(process)
    start, stop = step_ends(times)
    c, _ = kinetic.projection(start)
    flow, _ = kinetic.transition(increment(kinetic, start, stop))
    (m, _), (m_next, covariance_next) = kinetic.kernel(start), kinetic.kernel(stop)
    carried = flow @ covariance_next
    gain = carried.swapaxes(-1, -2) @ kinetic.precision(start)
    towards = m_next - np.einsum("nij,nj->ni", gain, m)
    noise = covariance_next - gain @ carried
    return _scheme(kinetic, start, c, gain, towards, DENOISED, noise)


def _kinetic(process: Process) -> KineticProcess:
    if not isinstance(process, KineticProcess):
        raise ValueError(f"process = {process!r}: must be kinetic for this scheme")
    return process


def _scheme(
    process: KineticProcess,
    start: Array,
    c: Array,
    factor: Array,
    kick: Array,
    kicking: Array,
    noise: Array,
) -> Steps:
    """Steps u′ = factor u + kick · (score or x̂₀) + N(0, noise) from stationary pairs.

    The score is evaluated at the times of departure, in the points cᵀu.
    """
    spread, w = process.stationary @ c[0], process.prior_variance
    across = np.sqrt(np.linalg.det(process.stationary) / w) * np.array([-c[0, 1], c[0, 0]])
    begun = [spread[i] / w * X + across[i] * Z for i in (0, 1)]
    lower, left = _cholesky(noise)
    moved = [
        factor[:, i, :1] * X
        + factor[:, i, 1:] * V
        + kick[:, i, None] * kicking
        + lower[:, i, None] * Z
        for i in (0, 1)
    ]
    stages = [
        Stage(None, X, begun, when=(start == start[0])[:, None]),
        Stage(start[:, None], c[:, :1] * X + c[:, 1:] * V, moved),
        Stage(None, X, [X, V + left[:, None] * Z]),
    ]
    return program(process, len(start), stages)


def _cholesky(covariance: Array) -> tuple[Array, Array]:
    """The first column and the last entry of the lower factor, shapes (N, 2) and (N,)."""
    x = np.sqrt(covariance[:, 0, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = np.where(x > 0, covariance[:, 1, 0] / x, 0.0)
    left = np.maximum(covariance[:, 1, 1] - mixed**2, 0.0)
    return np.stack([x, mixed], axis=-1), np.sqrt(left)
