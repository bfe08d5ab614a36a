"""A sampler as a linear program over registers, and how one is written down.

Nearly every sampler of the field is linear in the state, in scores that it has evaluated and in
Gaussian noise, with scalar coefficients that the process and the grid determine. So a scheme is a
table: r registers R₀, …, R_{r−1}, of which R₀ is the sample x and starts as the prior, the others
save scores, denoisers or points and start at 0. Each stage evaluates the score at a point, or
evaluates nothing, and replaces all registers:

    y = Σ_j c_j R_j,     R′ = M R + g s(τ, y) + ρ z,     z ~ N(0, I).

With one register this is x′ = α x + γ s(τ, x) + ρ z. In terms of the denoiser
x̂₀ = (y + v s)/m at τ the same stage reads

    R′ = K R + c̄ x̂₀ + ρ z,     K = M − g cᵀ/v,     c̄ = g m/v,

which cancels nothing where K and c̄ are known by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array
from sgm.processes import Process

__all__ = ["Stage", "Steps", "program", "symbols"]

Array = npt.NDArray[np.float64]


def _unknown() -> Array:
    return np.array(np.nan)


@dataclass(frozen=True, eq=False)
class Steps:
    """Coefficients of the stages R′ = M R + g s(τ, c·R) + ρ z, in the order they are run.

    With one register, M, g and ρ may be given as numbers α, γ, ρ: x′ = α x + γ s(τ, x) + ρ z.

    Parameters
    ----------
    score_time : ndarray, shape (n_stages,)
        τ, the time at which the score is evaluated; NaN in a stage that evaluates nothing.
    state : ndarray, shape (n_stages,) or (n_stages, r, r)
        M, the factors of the registers.
    score : ndarray, shape (n_stages,) or (n_stages, r)
        g, the factors of the score; zero where nothing is evaluated.
    noise : ndarray, shape (n_stages,) or (n_stages, r)
        ρ, the factors of a fresh standard Gaussian vector; zero in a stage that draws none.
        Of one register, ρ ≥ 0.
    kept, denoiser : ndarray, shapes of `state` and `score`, optional
        K = M − g cᵀ/v(τ) and c̄ = g m(τ)/v(τ), where they are known without this difference; NaN
        elsewhere, and by default.
    point : ndarray, shape (n_stages, r), optional
        c, the point of the evaluation as a combination of the registers; x by default.
    starts : ndarray of int, shape (N,), optional
        The first stage of each of the N time steps; by default each stage is a step.

    Raises
    ------
    ValueError
        If shapes disagree, a coefficient is no number, or a step evaluates no score.
    """

    score_time: Array
    state: Array
    score: Array
    noise: Array
    kept: Array = field(default_factory=_unknown)
    denoiser: Array = field(default_factory=_unknown)
    point: Array = field(default_factory=_unknown)
    starts: npt.NDArray[np.intp] = field(default_factory=lambda: np.array(-1))

    def __post_init__(self) -> None:
        for key in ("score_time", "state", "score", "noise", "kept", "denoiser", "point"):
            object.__setattr__(self, key, real_array(key, getattr(self, key)))
        shape = self.score_time.shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"score_time has shape {shape}: must be (n_stages,)")
        r = self.registers
        matrix, vector = ((), ()) if self.state.ndim < 2 else ((r, r), (r,))
        if self.point.ndim == 0:
            object.__setattr__(self, "point", np.broadcast_to(np.eye(r)[0], (*shape, r)))
        if np.ndim(self.starts) == 0:
            object.__setattr__(self, "starts", np.arange(*shape))
        for key, own in {"kept": matrix, "denoiser": vector}.items():
            if getattr(self, key).ndim == 0:
                object.__setattr__(self, key, np.broadcast_to(np.nan, (*shape, *own)))
        for key, own in {
            "state": matrix, "score": vector, "noise": vector, "kept": matrix, "denoiser": vector,
            "point": (r,),
        }.items():  # fmt: skip
            if getattr(self, key).shape != (*shape, *own):
                raise ValueError(
                    f"{key} has shape {getattr(self, key).shape}: must be {(*shape, *own)}, as "
                    + ("score_time and state" if own else "score_time")
                )
        self._require_numbers()
        self._require_steps()

    def _require_numbers(self) -> None:
        silent = np.isnan(self.score_time).reshape(-1, *[1] * (self.score.ndim - 1))
        # factors of very long steps may leave the range of float64
        for key, allowed, must in (
            ("score_time", ~(self.score_time < 0) & ~np.isinf(self.score_time), "a number >= 0"),
            ("state", ~np.isnan(self.state), "a number"),
            ("score", ~np.isnan(self.score), "a number"),
            ("score", ~silent | (self.score == 0), "0 in a stage that evaluates no score"),
            ("noise", ~np.isnan(self.noise), "a number"),
            ("noise", (self.noise >= 0) | (self.registers > 1), "a number >= 0"),
            ("point", np.isfinite(self.point), "a finite number"),
        ):
            if not np.all(allowed):
                place = tuple(np.argwhere(~allowed)[0].tolist())
                where = ", ".join(map(str, place))
                raise ValueError(f"{key}[{where}] = {getattr(self, key)[place]}: must be {must}")

    def _require_steps(self) -> None:
        starts = np.asarray(self.starts)
        object.__setattr__(self, "starts", starts)
        whole = starts.ndim == 1 and starts.size > 0 and starts.dtype.kind in "iu"
        if not (whole and starts[0] == 0 and np.all(np.diff(starts) > 0)):
            raise ValueError(f"starts = {self.starts!r}: must be integers that increase from 0")
        if starts[-1] >= len(self):
            raise ValueError(f"starts: stage {starts[-1]}: must be below {len(self)}, their number")
        counts = np.add.reduceat(self.evaluated, starts, dtype=int)
        if not np.all(counts):
            raise ValueError(f"starts: step {np.argmin(counts)} must evaluate the score")

    def __len__(self) -> int:
        """Number of stages."""
        return len(self.score_time)

    @property
    def registers(self) -> int:
        """r, the number of registers."""
        return 1 if self.state.ndim < 2 else self.state.shape[-1]

    @property
    def n_steps(self) -> int:
        """N, the number of time steps."""
        return len(self.starts)

    @cached_property
    def evaluated(self) -> npt.NDArray[np.bool_]:
        """Whether a stage evaluates the score, shape (n_stages,)."""
        return np.asarray(~np.isnan(self.score_time))

    @property
    def nfe(self) -> int:
        """Number of evaluations of the score (NFE)."""
        return int(np.sum(self.evaluated))

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether the coefficients of the denoiser are known, shape (n_stages,)."""
        unknown = np.isnan(self.kept).reshape(len(self), -1).any(axis=1)
        return np.asarray(~unknown & ~np.isnan(self.denoiser).reshape(len(self), -1).any(axis=1))

    @cached_property
    def departing(self) -> npt.NDArray[np.intp]:
        """The first of the NFE evaluations of each time step, shape (N,).

        Its point is where the step finds the chain: theorems speak of steps, however many
        evaluations each has.
        """
        return np.searchsorted(np.flatnonzero(self.evaluated), self.starts)

    @property
    def departures(self) -> npt.NDArray[np.intp]:
        """The stages of these evaluations, shape (N,)."""
        return np.flatnonzero(self.evaluated)[self.departing]

    def require_precision(self, epsilon: float) -> None:
        """Refuse steps too long for a simulation, whose score is known to `epsilon` alone.

        Unlike an exact law, which takes K and c̄, a simulation adds M R and g s: the rounding
        error of s arrives in the registers multiplied by M, and by way of those in x. Only
        stages whose K is known count: others diverge by themselves.

        Parameters
        ----------
        epsilon : float
            Relative rounding error of the score, of float32 or float64.

        Raises
        ------
        ValueError
            If more than 10⁻² of a standard deviation of the noise would be rounding error.
        """
        r, n = self.registers, len(self)
        state, kept = (abs(m.reshape(n, r, r)) for m in (self.state, self.kept))
        arrived, saved = 0.0, np.zeros(r)  # errors relative to ε: of x, and of all registers
        for k in range(n):
            if not self.evaluated[k]:
                saved = state[k] @ saved
            elif self.known[k]:
                own = np.sum(state[k], axis=1)
                saved = np.maximum(own, kept[k] @ saved) if r > 1 else own
            else:
                saved = np.zeros(r)
            arrived, saved[0] = max(arrived, float(saved[0])), 0.0  # that of x is told once
        if epsilon * arrived > 1e-2:
            raise ValueError(
                f"times: a step multiplies rounding errors of the score, {epsilon:.1e}, by "
                f"{arrived:.3g}: must be at most {1e-2 / epsilon:.1g}; take more steps"
            )


class Stage(NamedTuple):
    """A stage of each step, in the linear forms of `symbols`.

    Parameters
    ----------
    time : ndarray, shape (N, 1), or None
        τ of the evaluation; None evaluates nothing.
    at : ndarray, shape (…, w)
        The point of the evaluation, a form of the registers.
    then : sequence of ndarray, shape (…, w)
        What each of the r registers becomes, a form of all symbols.
    when : ndarray of bool, shape (N, 1), optional
        The steps that have this stage; all by default.
    """

    time: Array | None
    at: Array
    then: Sequence[Array]
    when: npt.ArrayLike = True


def symbols(registers: int) -> tuple[Array, ...]:
    """The unit linear forms: each of r registers, the score s, the denoiser x̂₀, the noise z.

    A linear form is an array of w = r + 3 coefficients, or of shape (N, w) if they differ from
    step to step, and arithmetic on forms is NumPy's: with `a` of shape (N, 1) and
    ``x, saved, s, denoised, z = symbols(2)``, ``a * x + s`` is the form a x + s.
    """
    return tuple(np.eye(registers + 3))


def program(process: Process, n_steps: int, stages: Sequence[Stage]) -> Steps:
    """The scheme whose N steps all have the given stages, in their order.

    Parameters
    ----------
    process : Process
        For the factors of the denoiser x̂₀ = (y + v s)/m.
    n_steps : int
        N.
    stages : sequence of Stage
        With as many registers each.

    Returns
    -------
    Steps
        With `kept` and `denoiser` in the stages that are written in terms of x̂₀ alone.

    Raises
    ------
    ValueError
        If stages differ in their registers, or a stage uses a score that it does not evaluate.
    """
    r = len(stages[0].then)
    tables, when = [], np.empty((n_steps, len(stages)), dtype=bool)
    for i, (time, at, then, own) in enumerate(stages):
        width = {np.shape(form)[-1:] for form in (at, *then)}
        if len(then) != r or width != {(r + 3,)}:
            raise ValueError(f"stage {i}: must have {r} registers, and forms of {r + 3} symbols")
        forms = np.stack([np.broadcast_to(form, (n_steps, r + 3)) for form in then], axis=1)
        point = np.broadcast_to(at, (n_steps, r + 3))
        if np.any(point[:, r:]) or (time is None and np.any(forms[..., r : r + 2])):
            raise ValueError(f"stage {i}: must not use a score before it is evaluated")
        tables.append(_compiled(process, time, point[:, :r], forms))
        when[:, i] = np.broadcast_to(own, (n_steps, 1))[:, 0]
    columns = [np.stack(column, axis=1) for column in zip(*tables, strict=True)]
    score_time, state, score, noise, kept, denoiser, point = (column[when] for column in columns)
    if r == 1:
        state, score, noise, kept, denoiser = (
            part.reshape(-1) for part in (state, score, noise, kept, denoiser)
        )
    starts = np.cumsum(when.sum(axis=1)) - when.sum(axis=1)
    return Steps(score_time, state, score, noise, kept, denoiser, point, starts)


def _compiled(
    process: Process, time: Array | None, point: Array, forms: Array
) -> tuple[Array, ...]:
    """τ, M, g, ρ, K, c̄ and c of a stage of each step, from the forms of the registers."""
    n, r = point.shape
    state, (score, denoiser, noise) = forms[..., :r], np.moveaxis(forms[..., r:], -1, 0)
    if time is None:
        tau = np.full(n, np.nan)
        return tau, state, np.zeros((n, r)), noise, state, np.zeros((n, r)), point
    tau = np.broadcast_to(np.reshape(time, -1), (n,))
    m, v = process.mean_scale(tau)[:, None], process.kernel_variance(tau)[:, None]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # m → 0 over long times
        gain = np.where(denoiser == 0, 0.0, denoiser / m)[..., None] * point[:, None]
        gain = np.where((denoiser == 0)[..., None] | (point == 0)[:, None], 0.0, gain)
        through = np.where(denoiser == 0, 0.0, denoiser * v / m)
    by_score = np.any(score != 0, axis=1)[:, None]
    kept = np.where(by_score[..., None], np.nan, state)
    return (
        tau, state + gain, score + through, noise, kept, np.where(by_score, np.nan, denoiser), point
    )  # fmt: skip
