"""Any sampler whose law depends on B at the grid points alone, and its derivative.

Under constant β = σ² the time is the level u = B/σ², so that the levels are the time grid: the
law of the output is that of `sgm.laws` there, whatever the schedule that is sought. In each
direction a stage is R′ = P R + q + ρ z, and with the rows S_k of the suffix products, the means c_k
and covariances C_k of the registers, and the adjoints m̄ and w̄ of the output's mean and variance,

    ∂/∂P_k = S_{k+1}ᵀ (m̄ c_k + 2 w̄ C_k S_kᵀ)ᵀ,    ∂/∂q_k = m̄ S_{k+1},
    ∂/∂ρ_k = 2 w̄ (S_{k+1} ρ_k) S_{k+1},

summed over the directions. How P, q and ρ depend on the levels is differenced: a stage of step
j depends on the levels u_{j−3} to u_{j+1} at most, so one level in five is moved at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.laws import affine_stages, register_moments
from sgm.processes import VPProcess
from sgm.samplers import Steps
from sgm.schedules import ConstantSchedule
from sgm.scores import exact

__all__ = ["PROGRAMS", "Moments"]

Array = npt.NDArray[np.float64]
Sampler = Callable[..., Steps]

PROGRAMS = (
    "exponential_runge_kutta", "exponential_runge_kutta_modified", "randomised_midpoint", "heun",
    "edm", "dpm_solver_2s", "dpm_solver_pp_2s", "dpm_solver_pp_2m", "deis", "er_sde", "unipc",
    "annealed_langevin",
)  # fmt: skip
"""Samplers besides those of `SCHEMES` whose law depends on B at the grid points alone."""

#: Levels of which the coefficients of a step may depend: four grid points back, one ahead.
_WINDOW = 5
#: A level moves by this part of the shorter step beside it.
_MOVE = 1e-4


class Moments:
    """ε and w of the output, see `sgm.optimal_schedule.schemes`, and the way back to the levels.

    Parameters
    ----------
    sampler : callable
        (process, times) → Steps, of a scheme as `PROGRAMS` has them.
    variances : ndarray, shape (r,)
        λ/σ².
    variance : float
        σ², which a few samplers ask for.
    levels : ndarray, shape (N + 1,)
        u_0 > … > u_N = 0.
    """

    def __init__(self, sampler: Sampler, variances: Array, variance: float, levels: Array) -> None:
        self.sampler, self.unit, self.levels = sampler, variance, levels
        # of mean 1, so that the mean of the output is 1 + ε
        self.law = Gaussian.diagonal(np.ones_like(variances), variance * variances)
        self.steps, (self.factor, self.offset, self.noise) = self._stages(levels)
        self.centers, self.covariances = register_moments(
            self.steps, self.factor, self.offset, 0.0, variance
        )
        self.shift = self.centers[-1, :, 0] - 1.0
        self.variance = self.covariances[-1, :, 0, 0] / variance

    def _stages(self, levels: Array) -> tuple[Steps, tuple[Array, Array, Array]]:
        """P of shape (n, d, r, r), q of shape (n, d, r) and ρ of shape (n, r)."""
        process = VPProcess(ConstantSchedule(float(levels[0]), self.unit), self.unit)
        steps = self.sampler(process, levels)
        factor, offset = affine_stages(steps, exact(process, self.law))
        return steps, (factor, offset, steps.noise.reshape(len(steps), steps.registers))

    def gradient(self, shift_bar: Array, variance_bar: Array) -> Array:
        """By u_0, …, u_{N−1}, from the derivatives by ε and by w, of shape (r,).

        Returns
        -------
        ndarray, shape (N,)
        """
        n_stages, n = len(self.steps), self.steps.n_steps
        variance_bar = variance_bar / self.unit
        row = np.zeros_like(self.centers[0])
        row[:, 0] = 1.0
        bars = [np.empty_like(part) for part in (self.factor, self.offset, self.noise)]
        for k in range(n_stages - 1, -1, -1):
            p, rho, after = self.factor[k], self.noise[k], row
            row = (after[:, None] @ p)[:, 0]
            reached = (self.covariances[k] @ row[..., None])[..., 0]
            towards = shift_bar[:, None] * self.centers[k] + 2 * variance_bar[:, None] * reached
            bars[0][k] = after[:, :, None] * towards[:, None]
            bars[1][k] = shift_bar[:, None] * after
            bars[2][k] = 2 * np.sum((variance_bar * (after @ rho))[:, None] * after, axis=0)
        step = np.searchsorted(self.steps.starts, np.arange(n_stages), side="right") - 1
        shorter = -np.diff(self.levels)
        move = _MOVE * np.minimum(shorter, np.append(np.inf, shorter[:-1]))
        gradient = np.zeros(n)
        for colour in range(min(_WINDOW, n)):
            moved = np.append(np.where(np.arange(n) % _WINDOW == colour, move, 0.0), 0.0)
            (_, high), (_, low) = (self._stages(self.levels + s * moved) for s in (1, -1))
            change = sum(
                np.sum((bar * (a - b)).reshape(n_stages, -1), axis=1)
                for bar, a, b in zip(bars, high, low, strict=True)
            )
            # the level of this colour among u_{j−3} … u_{j+1}
            place = step + 1 - (step + 1 - colour) % _WINDOW
            inside = (place >= 0) & (place < n)
            np.add.at(gradient, place[inside], change[inside] / (2 * move[place[inside]]))
        return gradient
