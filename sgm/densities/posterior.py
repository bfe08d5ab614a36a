"""The posterior of a noised funnel's first coordinate, integrated with nodes that follow it.

With z = c + √w ζ and the exponent 2bz = center + width ζ, the weight of ζ given a row is e^f,

    f = −ζ²/2 − (n/2) log q − ρ/(2q),     q = m² e^{center + width ζ} + v,
    f′ = −ζ + ½ width r (ρ/q − n),        r = m² e^{…}/q = 1 − v/q,
    f″ = −1 − ½ width² r [n v/q + (ρ/q)(2r − 1)].

f″ > 0 where (width² ρ/2v) σ(1 − σ)(2σ − 1 − nv/ρ) > 1, σ = v/q: a cubic that is positive on one
interval of σ, and largest at σ* = (3 + ε + √(3 + ε²))/6, ε = nv/ρ < 1. So f is concave but for
one interval around q = v/σ*, on either side of which it has at most one mode. Both are found
by bisection, hence no mode can hide between nodes. Next to a mode f is concave: where it
has fallen by a given amount, bisection finds too.

The moments asked for are E[1/q], and E[(r/q) ρ − r n]. The factor 1/q moves the weight to the
left, by up to `width`. Therefore modes and ends are those of
the weight with n + 1 for n, halfway between the weight and its product with 1/q, and the ends
allow for the factor q^{±½} that parts it from these: its logarithm has slope width/2 at most.

The trapezoidal rule converges geometrically on such weights: half as many nodes have the
square root of its error. Rows that it does not settle are done again with twice as many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments", "Posterior"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LEFT_OUT = 36.0  # the weight beyond the ends is below e^{−36} of its largest
_INTERVALS = 56
_DOUBLINGS = 8
_SETTLED = 4e-6  # of half the nodes, for about 10⁻¹¹ of all
_SHARP = 1e10  # ζ² + ρ/q at the mode of a posterior that is as good as a point
_LARGEST = 600.0  # exponent
_ELEMENTS = 2**15  # of a table of rows and nodes


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the posterior of each row; all of shape (n_rows,).

    Parameters
    ----------
    log_mass : ndarray
        log ∫ e^f dζ.
    precision : ndarray
        E[1/q].
    pull : ndarray
        E[r (ρ/q − n)].
    """

    log_mass: Array
    precision: Array
    pull: Array


@dataclass(frozen=True, eq=False)
class Posterior:
    """The weights e^f of a batch of rows.

    Parameters
    ----------
    others : int
        n ≥ 0.
    rho, variance, squared, center, width : ndarray, shape (n_rows,)
        ρ, v ≥ 0, m², and the exponent at ζ = 0 with its slope.
    """

    others: int
    rho: Array
    variance: Array
    squared: Array
    center: Array
    width: Array

    def __getitem__(self, rows: Any) -> Posterior:
        """That of some of the rows, or of all with further axes."""
        parts = (self.rho, self.variance, self.squared, self.center, self.width)
        return Posterior(self.others, *(part[rows] for part in parts))

    @np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
    def moments(self) -> Moments:
        """Mass and moments; NaN for rows that are not finite.

        Raises
        ------
        ArithmeticError
            If 14336 intervals don't settle a row.
        """
        size = self.rho.size
        found, ends = np.empty((3, size)), np.empty((4, size))
        for part in _blocks(np.arange(size), _INTERVALS):
            ends[:, part] = self[part]._ends()
        # what f is a difference of
        height = ends[0] ** 2 + self.rho * self._curves(ends[0])[1]
        height += self.others * np.maximum(abs(self.center + self.width * ends[0]) - _LARGEST, 0.0)
        sharp = np.flatnonzero(height > _SHARP)
        if sharp.size:
            found[:, sharp] = self[sharp]._at_mode(ends[0, sharp])
        # steep weights have poles nearer to the line; and f has rounding errors
        settled = _SETTLED / np.maximum(self.width, 1.0) ** 3
        settled = np.maximum(settled, 1e-14 * height)
        pending, intervals = np.flatnonzero(~(height > _SHARP)), _INTERVALS
        while pending.size:
            if intervals > _INTERVALS * 2**_DOUBLINGS:
                worst = pending[0]
                raise ArithmeticError(
                    f"{intervals // 2} intervals don't resolve the posterior of a funnel's x₁ for "
                    f"|x_2…d|² = {self.rho[worst]:.6g} and noise variance "
                    f"{self.variance[worst]:.6g}"
                )
            unsettled = []
            for part in _blocks(pending, intervals):
                _, low, high, finest = ends[:, part]
                step = (high - low) / intervals
                found[:, part], error = self[part]._trapezoid(low, step, intervals)
                # NaN, of a row that is not finite, needs no second look
                unsettled.append(part[(error > settled[part]) | (step > finest)])
            pending, intervals = np.concatenate(unsettled), 2 * intervals
        return Moments(*found)

    def _at_mode(self, mode: Array) -> Array:
        """The moments of a posterior that is as good as a point: Laplace's approximation."""
        for _ in range(4):
            mode = mode - (self._slope(mode) / self._curvature(mode))
        log_weight, ratio, precision = self._weigh(mode, self.others)
        log_mass = log_weight + 0.5 * np.log(-2 * np.pi / self._curvature(mode))
        return np.array([log_mass, precision, ratio * (self.rho * precision - self.others)])

    def _trapezoid(self, low: Array, step: Array, intervals: int) -> tuple[Array, Array]:
        """The three moments, shape (3, n_rows), and how far half the nodes are from them."""
        zeta = low[:, None] + step[:, None] * np.arange(intervals + 1)
        log_weight, ratio, precision = self[:, None]._weigh(zeta, self.others)
        peak = np.max(log_weight, axis=1)
        log_weight -= peak[:, None]
        weight = np.exp(log_weight, out=log_weight)
        mass, drawn = np.sum(weight, axis=1), np.einsum("kn,kn->k", weight, ratio)
        weight *= precision
        inverse, pulled = np.sum(weight, axis=1), np.einsum("kn,kn->k", weight, ratio)
        error = abs(2 * np.sum(weight[:, ::2], axis=1) / inverse - 1)
        pull = (self.rho * pulled - self.others * drawn) / mass
        return np.array([peak + np.log(mass * step), inverse / mass, pull]), error

    def _weigh(self, zeta: Array, others: float) -> tuple[Array, Array, Array]:
        """f, r and 1/q."""
        exponent = self.width * zeta
        exponent += self.center
        # beyond the largest exponent 1/q is as good as 0, but log q goes on
        log_q = np.maximum(exponent - _LARGEST, 0.0) if exponent.max() > _LARGEST else 0.0
        ratio, precision = self._fractions(exponent)
        log_weight = np.log(precision)
        log_weight -= log_q
        log_weight *= others
        log_weight -= self.rho * precision
        log_weight -= zeta * zeta
        log_weight *= 0.5
        return log_weight, ratio, precision

    def _slope(self, zeta: Array) -> Array:
        """f′ at n + 1."""
        ratio, precision = self._curves(zeta)
        pull = ratio * (self.rho * precision - self.others - 1)
        return np.asarray(0.5 * self.width * pull - zeta)

    def _curvature(self, zeta: Array) -> Array:
        """f″ at n + 1."""
        ratio, precision = self._curves(zeta)
        bend = (self.others + 1) * self.variance + self.rho * (2 * ratio - 1)
        return np.asarray(-1 - 0.5 * self.width**2 * ratio * precision * bend)

    def _curves(self, zeta: Array) -> tuple[Array, Array]:
        """r and 1/q."""
        return self._fractions(self.center + self.width * zeta)

    def _fractions(self, exponent: Array) -> tuple[Array, Array]:
        """r and 1/q; `exponent` is overwritten."""
        np.maximum(exponent, -_LARGEST, out=exponent)
        np.minimum(exponent, _LARGEST, out=exponent)
        drawn = np.exp(exponent, out=exponent)
        drawn *= self.squared
        precision = drawn + self.variance
        np.divide(1.0, precision, out=precision)
        drawn *= precision
        return drawn, precision

    def _ends(self) -> Array:
        """The highest mode, the ends of the weight, and its finest scale; shape (4, n_rows)."""
        n, width = self.others + 1, self.width
        modes, highest = self._modes()
        height = self._weigh(modes, n)[0]
        anchor = np.where(height[1] > height[0], modes[1], modes[0])
        level = np.max(height, axis=0) - _LEFT_OUT
        # a mode far below the other is left out
        modes = np.where(height + 0.5 * width * (modes[1] - modes[0]) > level, modes, modes[::-1])
        # f′ ≥ −ζ − n width/2, and f′ ≤ highest − ζ on the right of ζ = 0
        fall = 0.5 * (n + 1) * width
        lowest = -fall - np.sqrt(2 * _LEFT_OUT + (modes[0] + fall) ** 2)
        rise = highest + 0.5 * width
        highest = rise + np.sqrt(2 * _LEFT_OUT + rise**2 + width * np.maximum(-modes[1], 0.0))

        def beyond(zeta: Array) -> Mask:
            allowed = self._weigh(zeta, n)[0] + 0.5 * width * abs(zeta - modes)
            return np.asarray((allowed < level) == _BEFORE)

        finest = 1 / np.sqrt(np.max(-self._curvature(modes), axis=0))
        bounds = np.array([lowest, modes[1]]), np.array([modes[0], highest])
        low, high = _bisect(beyond, *bounds, finest)
        return np.array([anchor, low, high, finest])

    def _modes(self) -> tuple[Array, Array]:
        """Left and right mode, shape (2, n_rows), and a bound on f′ + ζ on the right of ζ = 0.

        The two are the same where there is one.
        """
        n, v, width, rho = self.others + 1, self.variance, self.width, self.rho
        # a parabola in s = 1/q, which vanishes at q = ρ/n; NaN where that lies below v
        s = np.fmin(self._curves(np.zeros_like(v))[1], (1 / v + n / rho) / 2)
        crossing = (np.log((rho / n - v) / self.squared) - self.center) / width
        highest = np.fmin(0.5 * width * (1 - v * s) * (rho * s - n), crossing)
        highest = np.fmax(highest, 0.0)
        low, high = -0.5 * n * width - 1, highest + 1
        # q = v/σ*, where f bends most upwards
        gap = n * v / rho
        root = np.sqrt(3 + gap**2)
        drawn = 6 * v * (1 - gap) / ((3 - gap + root) * (3 + gap + root))
        split = np.clip((np.log(drawn / self.squared) - self.center) / width, low, high)
        bends, rises = self._curvature(split) > 0, self._slope(split) > 0
        # r (ρ/q − n) = 2ζ/width at a mode bounds f″ there
        within = 1 / np.sqrt(1 + width * (n * width + np.maximum(-low, high)))
        left, right = np.where(bends & rises, split, low), np.where(bends & ~rises, split, high)
        sure = _bisect(lambda zeta: self._slope(zeta) > 0, left, right, within)
        modes = np.array([sure, sure])
        # on the left of the split q > v and ρ/q > σ* ρ/v: most often there is nothing to find
        most = np.minimum(split, 0) ** 2 + n * np.log(v) + rho * (3 + gap + root) / (6 * v)
        lead = self._weigh(sure, n)[0] + 0.5 * most
        far = lead > _LEFT_OUT + 0.5 * width * (sure - low)
        # on the right f′ ≤ its parabola's vertex − ζ
        steepest = width * (rho - n * v) ** 2 / (8 * rho * v)
        two = bends & np.where(rises, ~far, steepest > split)
        some = np.flatnonzero(two)
        if some.size:
            modes[:, some] = self[some]._pair(low[some], split[some], high[some], within[some])
        return modes, highest

    def _pair(self, low: Array, split: Array, high: Array, within: Array) -> Array:
        """Left and right mode of rows whose f bends upwards at `split`, shape (2, n_rows)."""
        bounds = np.array([low, split]), np.array([split, high])
        turns = _bisect(lambda zeta: (self._curvature(zeta) < 0) == _BEFORE, *bounds, within)
        exists = (self._slope(turns) > 0) != _BEFORE
        left, right = np.array([low, turns[1]]), np.array([turns[0], high])
        modes = _bisect(lambda zeta: self._slope(zeta) > 0, left, right, within)
        return np.where(exists, modes, modes[::-1])


def _blocks(rows: npt.NDArray[np.intp], intervals: int) -> list[npt.NDArray[np.intp]]:
    """Rows, so many at a time that their table of nodes stays small."""
    return np.array_split(rows, max(-(-rows.size * intervals // _ELEMENTS), 1))


def _bisect(holds: Callable[[Array], Mask], low: Array, high: Array, within: Array) -> Array:
    """Where a condition that holds at `low` ceases to hold on the way to `high`."""
    within = np.maximum(within, 1e-15 * (abs(low) + abs(high)))
    while (high - low > within).any():
        middle = (low + high) / 2
        here = holds(middle)
        low, high = np.where(here, middle, low), np.where(here, high, middle)
    return (low + high) / 2


_BEFORE = np.array([[True], [False]])
