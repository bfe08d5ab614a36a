"""Schemes of one evaluation a step that remember denoisers or noises of steps before.

In the noise level σ̃ = √v/m and u = x/m the probability flow is du/dσ̃ = ε, ε = (u − x̂₀)/σ̃; and
in λ = −log σ̃, σ̃⁻¹u has the derivative σ̃⁻¹x̂₀. Multistep schemes extrapolate ε or x̂₀ from its
values at earlier levels; r = σ̃′/σ̃ is that of the step, and its first ones extrapolate from fewer.

Sources
-------
Lu et al. (DPM-Solver++, arXiv 2211.01095); Zhang and Chen (DEIS, arXiv 2204.13902); Zhao et al.
(UniPC, arXiv 2302.04867); Cui et al. (ER-SDE-Solver, arXiv 2309.06169, and their code).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm.arguments import require_integer, require_within
from sgm.processes import Process
from sgm.registry import register
from sgm.samplers.increments import (
    factor,
    level_ratio,
    log_level,
    log_ratio,
    phi,
    step_columns,
    towards_denoiser,
)
from sgm.samplers.steps import Stage, Steps, program, symbols

__all__ = ["deis", "dpm_solver_pp_2m", "er_sde", "unipc"]

Array = npt.NDArray[np.float64]


@register("sampler", axes={"eta": "η"})
def dpm_solver_pp_2m(
    process: Process, times: npt.ArrayLike, eta: Annotated[float, Interval(ge=0, le=1)] = 0.0
) -> Steps:
    """DPM-Solver++(2M), of the probability flow (η = 0) or of the backward SDE (η = 1).

    x′ = √(v′/v) r^η x + m′(1 − r^{1+η}) D + √(v′(1 − r^{2η})) z, and
    D = x̂₀ + (λ′ − λ)/(2(λ − λ₋)) (x̂₀ − x̂₀₋) in terms of the denoiser of the step before; D = x̂₀
    in the first step and in one onto the data. η between scales the added Langevin noise.

    Parameters
    ----------
    process : Process
    times : array_like, shape (N + 1,)
        Decreasing grid, see `sgm.timegrids`.
    eta : float
        η in [0, 1].

    Returns
    -------
    Steps
        N steps of one evaluation.

    Raises
    ------
    ValueError
        If `eta` lies outside [0, 1].
    """
    require_within(0.0, 1.0, eta=eta)
    start, stop = step_columns(times)
    rise = log_ratio(process, start, stop)
    keep = process.std(stop) / process.std(start) * np.exp(-eta * rise if eta else 0 * start)
    move = process.mean_scale(stop) * -np.expm1(-(1 + eta) * rise)
    noise = process.std(stop) * np.sqrt(-np.expm1(-2 * eta * rise) if eta else 0 * start)
    weight = _slope_weight(rise)
    x, before, _, denoised, z = symbols(2)
    data = denoised + weight * (denoised - before)
    return program(
        process, len(start), [Stage(start, x, [keep * x + move * data + noise * z, denoised])]
    )


@register("sampler", axes={"order": "p"})
def deis(
    process: Process, times: npt.ArrayLike, order: Annotated[int, Interval(ge=1, le=3)]
) -> Steps:
    """Exponential Adams-Bashforth (ρAB-DEIS): ε extrapolated by a polynomial in the noise level.

    u′ = u + ∫ P(σ̃) dσ̃ over the step, P the polynomial through ε at the last `order` levels; the
    scheme of order 1 is `ddim` with η = 0. With C the part of u′ beyond that scheme's,
    σ̃(ε − ε₋) = x̂₀₋ + C₋ − x̂₀ =: G: differences of ε are told by these, which don't cancel.

    Parameters
    ----------
    process, times
        As in `dpm_solver_pp_2m`.
    order : int
        1, 2 or 3 levels.

    Returns
    -------
    Steps
        N steps of one evaluation.

    Raises
    ------
    ValueError
        If `order` is none of 1, 2, 3.
    """
    require_integer(1, order=order)
    require_within(1, 3, order=order)
    start, stop = step_columns(times)
    r, lost = level_ratio(process, start, stop)
    keep, move = towards_denoiser(process, start, stop)
    # distances of the last levels from this one, in units of the step; ∞ where there is none
    with np.errstate(divide="ignore", invalid="ignore"):
        last = np.append(np.inf, lost[:-1, 0] / (r[:-1, 0] * lost[1:, 0]))[:, None]
        beyond = np.concatenate([[[np.inf]], last[:-1] * lost[:-1] / (r[:-1] * lost[1:])])
    weights = _adams_bashforth(last, last + beyond, order)
    first, second = (*weights, 0.0 * r, 0.0 * r)[:2]
    x, held, before, _, denoised, _ = symbols(3)
    gap = held - denoised
    older = np.append(0.0, r[:-1, 0])[:, None] * before
    change = lost * (first * gap + second * (gap + older))
    then = [keep * x + move * denoised + process.mean_scale(stop) * change, denoised + change, gap]
    return program(process, len(start), [Stage(start, x, then)])


@register("sampler", axes={"order": "p"})
def er_sde(
    process: Process,
    times: npt.ArrayLike,
    order: Annotated[int, Interval(ge=1, le=3)],
    noise_scale: Literal["flow", "sde", "sde_5"] = "sde_5",
) -> Steps:
    """ER-SDE-Solver: the SDE of any amount of noise, x̂₀ by its Taylor polynomial in the level.

    A noise scale φ with φ(σ̃)/σ̃ that does not fall names an SDE that has the forward process's
    laws, and with ρ = φ(σ̃′)/φ(σ̃)

        u′ = ρ u + ∫ P(s) d(φ(σ̃′)/φ(s)) + √(σ̃′² − ρ² σ̃²) z,     s from σ̃ to σ̃′,

    where P = x̂₀ + (s − σ̃) D + (s − σ̃)² D₂/2, with D and D₂/2 the divided differences of x̂₀ at the
    last levels. φ = σ̃ is the probability flow and φ = σ̃² the backward SDE; sde_5,
    φ = σ̃ (e^(σ̃^0.3) + 10), is the one that the authors recommend. A step onto the data freezes x̂₀.

    D is the slope half a step before σ̃, and the third term does not amend it, here as in the
    authors' code: with it the scheme is of second order still.

    Parameters
    ----------
    process, times
        As in `dpm_solver_pp_2m`.
    order : int
        1, 2 or 3 terms of P.
    noise_scale : {"flow", "sde", "sde_5"}
        φ.

    Returns
    -------
    Steps
        N steps of one evaluation.

    Raises
    ------
    ValueError
        If `order` is none of 1, 2, 3, or `noise_scale` no known one.
    """
    require_integer(1, order=order)
    require_within(1, 3, order=order)
    start, stop = step_columns(times)
    r, lost = level_ratio(process, start, stop)
    rise = log_ratio(process, start, stop)
    keep, _ = towards_denoiser(process, start, stop)
    between = np.isfinite(rise)  # not onto the data, nor from the infinite level of a pole at T
    level = np.where(stop > 0, log_level(process, np.where(stop > 0, stop, start)) / 2, 0.0)
    fall = _scale_fall(level, rise, noise_scale)
    first, second = np.zeros((2, *rise.shape))
    for k, part in enumerate((first, second)[: order - 1], start=1):
        part[between] = _scale_moment(level[between], rise[between], k, noise_scale)
    slope, bend, r_before = np.zeros((3, *rise.shape))
    slope[1:], r_before[1:] = r[:-1] / lost[:-1], r[:-1]
    bend[2:] = r[1:-1] * r[:-2] / (lost[1:-1] + r[1:-1] * lost[:-2])
    x, before, held, _, denoised, z = symbols(3)
    gap = slope * (denoised - before)  # −σ̃ D
    taylor = (lost - r * np.expm1(-fall)) * denoised - first * gap
    taylor = taylor + second * bend * (gap - r_before * held)
    noise = process.std(stop) * np.sqrt(-np.expm1(-2 * fall))
    sample = keep * np.exp(-fall) * x + process.mean_scale(stop) * taylor + noise * z
    return program(process, len(start), [Stage(start, x, [sample, denoised, gap])])


@register("sampler")
def unipc(process: Process, times: npt.ArrayLike) -> Steps:
    """UniPC of second order: a multistep predictor, corrected by the evaluation it leads to.

    UniP-2 and UniC-2 of the denoiser with B(h) = eʰ − 1. The evaluation at the predicted point
    of a level corrects the arrival there and starts the next step: one a step. The first step is
    of one order less, a step onto the data freezes x̂₀, and the last point stays as predicted.

    Parameters
    ----------
    process, times
        As in `dpm_solver_pp_2m`.

    Returns
    -------
    Steps
        N steps of one evaluation; register 0 is the predicted sample.
    """
    start, stop = step_columns(times)
    rise = log_ratio(process, start, stop)
    keep, move = towards_denoiser(process, start, stop)
    weight = _slope_weight(rise)
    first, second, third = (phi(k, np.where(np.isfinite(rise), -rise, 0.0)) for k in (1, 2, 3))
    # the corrector: Σ ρ_j r_j^{i−1} = i! φ_{i+1}(−h)/φ₁(−h), i = 1, 2, at r₁ = −(λ − λ₋)/h and 1
    back = 2 * weight  # −1/r₁
    slope = np.where(weight > 0, (second - 2 * third) / first * back / (1 + back), 0.0)
    arrived = np.where(weight > 0, second / first - slope, 0.5)
    correction = np.zeros_like(start)
    correction[1:] = (move * arrived)[:-1]
    begins = np.arange(len(start))[:, None] == 0
    predicted, corrected, before, _, denoised, _ = symbols(3)
    x = np.where(begins, predicted, corrected + correction * denoised)
    change = denoised - before
    then = [
        keep * x + move * (denoised + weight * change),
        keep * x + move * ((1 - arrived) * denoised + slope * back * change),
        denoised,
    ]
    return program(process, len(start), [Stage(start, predicted, then)])


def _scale_fall(level: Array, rise: Array, noise_scale: str) -> Array:
    """How much log φ(σ̃)/σ̃ falls over a step of `rise` that arrives at log σ̃′ = `level`."""
    match noise_scale:
        case "flow":
            return np.zeros_like(rise)
        case "sde":
            return rise
        case "sde_5":
            with np.errstate(over="ignore"):  # above σ̃ = e²³⁶⁶
                power = np.exp(0.3 * level)
                ends = (np.log1p(10 * np.exp(-power * np.exp(0.3 * x))) for x in (rise, 0.0))
                return np.asarray(power * np.expm1(0.3 * rise) + next(ends) - next(ends))
    raise ValueError(f"noise_scale = {noise_scale!r}: must be 'flow', 'sde' or 'sde_5'")


def _scale_moment(level: Array, rise: Array, k: int, noise_scale: str) -> Array:
    """∫ (s/σ̃ − 1)^k d(φ(σ̃′)/φ(s)) over steps that arrive at log σ̃′ = `level`, shape of it."""
    from scipy.integrate import tanhsinh

    def density(t: Array, level: Array, rise: Array) -> Array:
        ahead = rise * (1 - t)  # log s − log σ̃′
        with np.errstate(over="ignore"):
            power = factor(np.exp(0.3 * (level + ahead)))
            slope = {"flow": 1.0, "sde": 2.0}.get(
                noise_scale, 1 + 0.3 * power / (1 + 10 * np.exp(-power))
            )
            share = np.exp(-ahead - _scale_fall(level, ahead, noise_scale))
        return np.asarray(rise * slope * share * np.expm1(-rise * t) ** k)

    return np.asarray(tanhsinh(density, 0.0, 1.0, args=(level, rise), rtol=1e-13).integral)


def _slope_weight(rise: Array) -> Array:
    """(λ′ − λ)/(2(λ − λ₋)), and 0 where x̂₀ is frozen, shape (N, 1)."""
    weight = np.zeros_like(rise)
    with np.errstate(invalid="ignore"):
        weight[1:] = rise[1:] / (2 * rise[:-1])
    return np.where(np.isfinite(weight), weight, 0.0)


def _adams_bashforth(a: Array, b: Array, order: int) -> list[Array]:
    """Integrals over [0, 1] of the Lagrange polynomials of the older nodes −a and −b.

    Where a node lies at −∞ there is none, and the order is that of the others.
    """
    if order == 1:
        return []
    two = -1 / (2 * a)
    if order == 2:
        return [two]
    known = np.isfinite(b)
    a, b = np.where(known, a, 1.0), np.where(known, b, 2.0)
    first, second = -(1 / 3 + b / 2) / (a * (b - a)), (1 / 3 + a / 2) / (b * (b - a))
    return [np.where(known, first, two), np.where(known, second, 0.0)]
