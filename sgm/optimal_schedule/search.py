"""Find the schedule of the least error or bound: quasi-Newton on exact laws, several starts.

The law of an output depends on B at the N + 1 grid points alone, see
`sgm.optimal_schedule.schemes`, so the widest space has N numbers: the increments of B, their sum
B(T) free. Under the Euler schemes of `BY_RATE` it depends on β there as well. Were β and B free of
each other there would be no optimum: β at a grid point is a spike that B does not see. So β is
linear between the points of the grid, and its N + 1 values are free; the best β(0) is often 0. The
spaces:

    increments   N increments of B on a uniform grid; under Euler schemes N + 1 values of β
    spline       B at K + 1 equidistant times, a monotone cubic spline (PCHIP) between
    grid         N + 1 times of a given schedule, its B(T) fixed
    a            the shape a of β_a
    a,T          a and the horizon of β_a

Increments, of one sign by their logarithms, are moved by L-BFGS-B along the analytic gradient of
log(objective): a relative one, the same for large and for tiny errors. The two families of β_a
are scanned, and refined without a gradient. Everything is in units of σ²: references, the
β_min = 0.1 σ² and β_max = 20 σ² of β_a, too.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650): the bounds as objectives, and β_a.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import samplers
from sgm.arguments import require_integer, require_positive
from sgm.bounds import gaussian_kl_bound
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import sampler_law
from sgm.optimal_schedule.dynamic import best_levels
from sgm.optimal_schedule.objectives import Spectrum, evaluate, require_objective
from sgm.optimal_schedule.programs import PROGRAMS
from sgm.optimal_schedule.schemes import BY_RATE, SCHEMES
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule, CosineSchedule, NoiseSchedule
from sgm.scores import exact
from sgm.timegrids import uniform

__all__ = [
    "NEGLIGIBLE",
    "SPACES",
    "NotConvergedError",
    "OptimalSchedule",
    "Start",
    "find_schedule",
    "find_steps",
    "reference_schedules",
]

Array = npt.NDArray[np.float64]

SPACES = ("increments", "spline", "grid", "a", "a,T")

#: Largest component of the gradient of log(objective) at an optimum.
GRADIENT = 1e-6
#: The same where it is a difference quotient.
FLAT = 1e-3
#: What the variances of a law are multiplied by to see whether its schedule suits others.
NEARBY = (0.8, 1.25)
#: Relative difference within which two starts have found the same value.
AGREEMENT = 1e-8
#: An increment of B/σ² stays within; at an optimum none is near either end.
SMALLEST, LARGEST = 1e-12, 300.0
#: a T and T of the scanned β_a.
SHAPES = np.arange(-20.0, 21.0)
HORIZONS = np.geomspace(0.02, 20.0, 13)
#: Most steps that `find_steps` tries, and the samplers that a step of length zero does nothing to.
MOST_STEPS = 1000
NESTED = tuple(name for name in SCHEMES if name not in BY_RATE)
#: A value below which a law is reached to rounding: its logarithm has no gradient.
EXACT = 1e-14
#: The same for the samplers of `PROGRAMS`, by objective: their steps can cancel each other's
#: errors, so that with enough of them no error is left that is worth a search.
NEGLIGIBLE = {"kl": 1e-8, "w2": 1e-5}


class NotConvergedError(RuntimeError):
    """No start has led to an optimum: there is no best schedule to return."""


@dataclass(frozen=True)
class Start:
    """One start of the optimiser, and what it came to.

    Parameters
    ----------
    before, after : float
        The objective.
    gradient : float
        Largest component of the gradient of its logarithm in the end.
    converged : bool
        Whether the gradient vanishes, and no increment is at the end of its range.
    """

    before: float
    after: float
    gradient: float
    converged: bool


@dataclass(frozen=True, eq=False)
class OptimalSchedule:
    """A schedule, what it is best for, and how we know.

    Parameters
    ----------
    objective, sampler, space : str
    sampler_parameters : mapping
    n_steps : int
        N.
    spectrum : Spectrum
        Of the law that it was made for.
    fractions : ndarray, shape (N + 1,)
        Times of the grid as fractions of T, from 0 to 1.
    integral : ndarray, shape (N + 1,)
        B there, from 0 to B(T).
    rates : ndarray, shape (N + 1,), or None
        β there, linear between, under the schemes of `BY_RATE`; None for others and for β_a.
    value : float
        The objective.
    kl, w2 : float
        KL(data ‖ output) and W2(data, output), exact, whatever the objective.
    references : mapping of str to float
        The objective of `vp_linear`, `cosine` and `best_beta_a` on the uniform grid.
    best_a : float
        a of the best β_a at T = 1.
    nearby : mapping of float to float
        The objective under the same schedule of laws whose variances are so many times as large:
        whether it suits this law alone. Of exact objectives, and of β_a under the schemes of
        `BY_RATE` not.
    starts : mapping of str to Start
    parameters : mapping of str to float
        Of `a` and `a,T`: the values found.
    """

    objective: str
    sampler: str
    sampler_parameters: Mapping[str, Any]
    space: str
    n_steps: int
    spectrum: Spectrum
    fractions: Array
    integral: Array
    rates: Array | None
    value: float
    kl: float
    w2: float
    references: Mapping[str, float]
    best_a: float
    nearby: Mapping[float, float]
    starts: Mapping[str, Start]
    parameters: Mapping[str, float]

    @property
    def sampler_label(self) -> str:
        """The sampler with its parameters, for people."""
        return ", ".join(
            [self.sampler, *(f"{k} = {v}" for k, v in self.sampler_parameters.items())]
        )

    @property
    def agreeing(self) -> int:
        """How many starts came to `value`."""
        return len(self._reached)

    @property
    def gradient(self) -> float:
        """The least gradient among the starts that came to `value`."""
        return min(start.gradient for start in self._reached)

    @property
    def _reached(self) -> list[Start]:
        most = max(self.value * (1 + AGREEMENT), _negligible(self.objective, self.sampler))
        return [start for start in self.starts.values() if start.converged and start.after <= most]

    def certificate(self) -> dict[str, Any]:
        """All of it, and for which law, as JSON has it; NaN and ∞ are null."""
        spectrum = self.spectrum
        return {
            "objective": self.objective,
            "sampler": self.sampler,
            "sampler_parameters": dict(self.sampler_parameters),
            "space": self.space,
            "n_steps": self.n_steps,
            "process_variance": spectrum.variance,
            "value": self.value,
            "exact_kl": _number(self.kl),
            "exact_w2": _number(self.w2),
            "total_integral": float(self.integral[-1]),
            **{name: float(value) for name, value in self.parameters.items()},
            "references": {key: _number(value) for key, value in self.references.items()},
            "best_a": self.best_a,
            "value_if_variances_are_times": {
                f"{factor:g}": _number(value) for factor, value in self.nearby.items()
            },
            "gradient_of_log": self.gradient,
            "starts_that_agree": self.agreeing,
            "starts": {
                name: {
                    "before": _number(start.before),
                    "after": _number(start.after),
                    "gradient_of_log": _number(start.gradient),
                    "converged": start.converged,
                }
                for name, start in self.starts.items()
            },
            "law": {
                "eigenvalues": (spectrum.variances * spectrum.variance).tolist(),
                "multiplicities": spectrum.multiplicities.astype(int).tolist(),
                "squared_means": (spectrum.energies * spectrum.variance).tolist(),
            },
            "fractions_of_T": self.fractions.tolist(),
            "integral": self.integral.tolist(),
            "beta": None if self.rates is None else self.rates.tolist(),
        }

    def knots(self) -> dict[str, list[float]]:
        """Columns of a schedule file for N uniform steps up to T = 1: time, integral or beta."""
        column = {"integral": self.integral} if self.rates is None else {"beta": self.rates}
        time = np.linspace(0.0, 1.0, self.n_steps + 1)
        return {"time": time.tolist(), **{key: each.tolist() for key, each in column.items()}}


def _negligible(objective: str, sampler: str) -> float:
    """The value below which two schedules are equally good."""
    return NEGLIGIBLE[objective] if sampler in PROGRAMS else EXACT


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def find_schedule(
    law: Gaussian,
    *,
    n_steps: int,
    objective: str = "kl",
    sampler: str = "exponential_integrator_modified",
    sampler_parameters: Mapping[str, Any] | None = None,
    variance: float = 1.0,
    space: str = "increments",
    knots: int = 6,
    schedule: NoiseSchedule | None = None,
) -> OptimalSchedule:
    """The schedule of the least objective for a Gaussian law, a sampler and N steps.

    The score is exact, the process VP with stationary law N(0, σ²I).

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    n_steps : int
        N ≥ 1.
    objective : str
        One of `OBJECTIVES`; bounds for the samplers that they are about.
    sampler : str
        One of `SCHEMES` or `PROGRAMS`.
    sampler_parameters : mapping, optional
        Of a sampler that has some, such as the order of `deis`; η of `ddim` is 0 by default.
    variance : float
        σ².
    space : str
        One of `SPACES`.
    knots : int
        K ≥ 2, of `spline`; at most N.
    schedule : NoiseSchedule, optional
        Of `grid`: the one whose times are sought; VP linear by default.

    Returns
    -------
    OptimalSchedule

    Raises
    ------
    ValueError
        If an argument is out of range, or the objective does not exist for the sampler or space.
    NotConvergedError
        If no start converges, or one that did not came lower than those that did.
    """
    parameters_of = dict(sampler_parameters or {})
    if sampler == "ddim" and parameters_of == {"eta": 0}:
        parameters_of = {}
    _require_choices(objective, sampler, space, schedule)
    require_integer(1, n_steps=n_steps)
    spectrum = Spectrum.of(law, variance)
    own = Gaussian.diagonal(law.rotate(law.mean), law.eigenvalues)  # in its own basis
    problem = _Problem(own, spectrum, objective, sampler, parameters_of, n_steps)
    if space == "spline":
        require_integer(2, knots=knots)
        if knots > n_steps:
            raise ValueError(f"knots = {knots!r}: must be at most n_steps = {n_steps}")
    references, best_a = _references(problem)
    grid, rates, growth = uniform(1.0, n_steps), None, None
    if space in ("a", "a,T"):
        starts, parameters = (_search_shape if space == "a" else _search_both)(problem)
        rate = _beta_a(parameters["a"], parameters.get("horizon", 1.0), spectrum.variance)
        levels = np.asarray(rate.integral(grid * rate.horizon) / spectrum.variance)
        kl, w2 = (problem.of_schedule(rate, of) for of in ("kl", "w2"))
    else:
        parameters = {}
        if sampler in BY_RATE:
            starts, own_rates = _search_rates(problem)
            levels, growth = _trapezia(own_rates)
            rates = own_rates[::-1] * spectrum.variance
        elif space == "grid":
            schedule = schedule or _beta_a(0.0, 1.0, spectrum.variance)
            total = float(schedule.integral(schedule.horizon)) / spectrum.variance
            starts, levels = _search_grid(problem, total)
            inverse = schedule.inverse_integral(levels * spectrum.variance)
            grid = inverse / schedule.horizon
            grid[0] = 1.0
        elif objective == "theorem":
            starts, levels = _search_total(problem)
        elif space == "spline":
            starts, levels = _search_spline(problem, knots)
        else:
            starts, levels = _search_increments(problem)
        kl, w2 = (
            evaluate(of, spectrum, levels, sampler, growth, parameters_of)[0] for of in ("kl", "w2")
        )
    value = min(start.after for start in starts.values() if start.converged)
    if sampler in PROGRAMS and not parameters:  # the start that is kept is not always the least
        value = {"kl": kl, "w2": w2}[objective]
    nearby: dict[float, float] = {}
    if objective in ("kl", "w2") and not (parameters and sampler in BY_RATE):
        for factor in NEARBY:
            scaled = replace(spectrum, variances=factor * spectrum.variances)
            nearby[factor], _ = evaluate(objective, scaled, levels, sampler, growth, parameters_of)
    return OptimalSchedule(
        objective, sampler, parameters_of, space, n_steps, spectrum, grid[::-1].copy(),
        levels[::-1] * spectrum.variance, rates, value, kl, w2, references, best_a, nearby, starts,
        parameters,
    )  # fmt: skip


def find_steps(
    law: Gaussian, error: float, *, most: int = MOST_STEPS, **choices: Any
) -> tuple[OptimalSchedule, OptimalSchedule | None]:
    """The fewest steps whose best schedule has an objective of at most an error.

    Where the law depends on B alone a step of length zero changes nothing, so that the optimum
    never rises with N: N is doubled until the error is reached, then found by bisection.

    Parameters
    ----------
    law : Gaussian
    error : float
        > 0, in the units of the objective.
    most : int
        The largest N that is tried.
    **choices
        Of `find_schedule`, without `n_steps`; the space ``increments`` or ``grid``, and no sampler
        of `BY_RATE`.

    Returns
    -------
    found : OptimalSchedule
        Of the least N.
    fewer : OptimalSchedule or None
        Of N − 1 steps, which exceeds the error: the proof that N is the least. None for N = 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or `most` steps do not reach the error.
    NotConvergedError
        If some N has no optimum.
    """
    require_positive(error=error)
    require_integer(1, most=most)
    for name, allowed in (("space", ("increments", "grid")), ("sampler", NESTED)):
        if choices.get(name, allowed[0]) not in allowed:
            raise ValueError(
                f"{name} = {choices[name]!r}: an error can be asked for where more steps are never "
                f"worse: must be one of {', '.join(allowed)}"
            )
    known: dict[int, OptimalSchedule] = {}

    def reached(n: int) -> bool:
        known[n] = find_schedule(law, n_steps=n, **choices)
        return known[n].value <= error

    low, high = 0, 1
    while not reached(high):
        if high == most:
            raise ValueError(
                f"error = {error!r}: must be at least {known[high].value:.4g}, the least that "
                f"{most} steps reach"
            )
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return known[high], known.get(low)


def _require_choices(
    objective: str, sampler: str, space: str, schedule: NoiseSchedule | None
) -> None:
    if sampler not in (*SCHEMES, *PROGRAMS):
        raise ValueError(
            f"sampler = {sampler!r}: must be one of {', '.join((*SCHEMES, *PROGRAMS))}"
        )
    require_objective(objective, sampler)
    if space not in SPACES:
        raise ValueError(f"space = {space!r}: must be one of {', '.join(SPACES)}")
    if space in ("grid", "spline") and sampler in BY_RATE:
        raise ValueError(
            f"space = {space!r}: the law under sampler = {sampler!r} depends on β besides B: must "
            "be increments, a or a,T"
        )
    if space in ("grid", "spline") and objective == "theorem":
        raise ValueError(
            f"space = {space!r}: objective = 'theorem' depends on the largest step alone: must be "
            "increments, a or a,T"
        )
    if schedule is not None and space != "grid":
        raise ValueError(f"schedule: must be None for space = {space!r}, which finds one")


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is minimised: `of_levels` with gradient, `of_schedule` for a given β."""

    law: Gaussian
    spectrum: Spectrum
    objective: str
    sampler: str
    parameters: Mapping[str, Any]
    n_steps: int

    @property
    def negligible(self) -> float:
        return _negligible(self.objective, self.sampler)

    def of_levels(self, levels: Array) -> tuple[float, Array]:
        return evaluate(
            self.objective, self.spectrum, levels, self.sampler, parameters=self.parameters
        )

    def of_schedule(self, schedule: NoiseSchedule, objective: str | None = None) -> float:
        """By `sgm.samplers` and `sgm.bounds`, with the schedule's own β."""
        objective = objective or self.objective
        process = VPProcess(schedule, self.spectrum.variance)
        times, score = uniform(schedule.horizon, self.n_steps), exact(process, self.law)
        if objective not in ("kl", "w2"):
            mse, cross = score.error_moments(self.law, times[:-1])
            bound = gaussian_kl_bound(process, self.law, times, mse, cross)
            terms = {"path": bound.path, "refined": bound.total_refined, "theorem": bound.total}
            return float(terms[objective])
        steps = getattr(samplers, self.sampler)(process, times, **self.parameters)
        output = sampler_law(steps, score, process.prior(self.law.dimension))
        divergence = kl_divergence if objective == "kl" else wasserstein2
        return float(divergence(self.law, output))


def _beta_a(shape: float, horizon: float, variance: float) -> BetaSchedule:
    return BetaSchedule(horizon, float(shape), 0.1 * variance, 20.0 * variance)


def reference_schedules(variance: float, best_a: float) -> dict[str, NoiseSchedule]:
    """VP linear, cosine and the best β_a at T = 1, in units of σ²."""
    return {
        "vp_linear": _beta_a(0.0, 1.0, variance),
        "cosine": CosineSchedule(1.0, variance, 0.021122, 20.0 * variance),
        "best_beta_a": _beta_a(best_a, 1.0, variance),
    }


def _references(problem: _Problem) -> tuple[dict[str, float], float]:
    """The objective of the `reference_schedules`, and the a of the best β_a."""
    variance = problem.spectrum.variance
    best_a, *_ = _scan(lambda a: problem.of_schedule(_beta_a(a, 1.0, variance)), SHAPES)
    schedules = reference_schedules(variance, best_a)
    return {name: problem.of_schedule(each) for name, each in schedules.items()}, best_a


def _scan(f: Callable[[float], float], places: Array) -> tuple[float, float, bool]:
    """Least value of f: the best of some places, refined between its neighbours.

    Returns
    -------
    place, value : float
    interior : bool
        Whether it is no end of the scan.
    """
    from scipy.optimize import minimize_scalar

    values = np.array([f(float(x)) for x in places])
    k = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
    interior = 0 < k < len(places) - 1
    low, high = places[max(k - 1, 0)], places[min(k + 1, len(places) - 1)]
    found = minimize_scalar(f, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    if found.fun < values[k]:
        return float(found.x), float(found.fun), interior and bool(found.success)
    return float(places[k]), float(values[k]), interior


# --- the starts -------------------------------------------------------------------------


def _starts(problem: _Problem) -> dict[str, Array]:
    """Levels to start from, each of shape (N + 1,)."""
    variance, grid = problem.spectrum.variance, uniform(1.0, problem.n_steps)
    starts = {"dynamic_programming": best_levels(problem.spectrum, problem.n_steps)}
    for name, schedule in _reference_starts(variance).items():
        starts[name] = np.asarray(schedule.integral(grid) / variance)
    return starts


def _reference_starts(variance: float) -> dict[str, NoiseSchedule]:
    schedules = reference_schedules(variance, 4.0)
    schedules["beta_a=4"] = schedules.pop("best_beta_a")
    return schedules


def _levels(increments: Array) -> Array:
    """u_0 > … > u_N = 0 from the increments of the N steps, in their order."""
    return np.append(np.cumsum(increments[::-1])[::-1], 0.0)


def _by_increments(gradient: Array) -> Array:
    """The gradient by increments from that by levels: Δ_j is in all u_k with k ≤ j."""
    return np.cumsum(gradient)


def _minimise(
    f: Callable[[Array], tuple[float, Array]], x: Array, ends: tuple[float, float],
    last_may_vanish: bool, negligible: float,
) -> tuple[Start, Array]:  # fmt: skip
    """Quasi-Newton on log f from x, each coordinate between `ends`, until f is negligible."""
    from scipy.optimize import OptimizeResult, minimize

    def logarithm(x: Array) -> tuple[float, Array]:
        value, gradient = f(x)
        if not (np.isfinite(value) and value > 0):
            return 700.0, np.zeros_like(x)  # e⁷⁰⁰: a wall, which the line search steps back from
        return float(np.log(value)), gradient / value

    def stop(intermediate_result: OptimizeResult) -> None:
        if intermediate_result.fun < np.log(negligible):
            raise StopIteration

    before, _ = f(x)
    found = minimize(
        logarithm, np.clip(x, *ends), jac=True, method="L-BFGS-B", bounds=[ends] * len(x),
        callback=stop,
        options={"maxiter": 10000, "maxfun": 30000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30},
    )  # fmt: skip
    after, gradient = f(found.x)
    norm = float(np.max(np.abs(gradient))) / after if after > 0 else 0.0
    low = found.x[:-1] if last_may_vanish else found.x
    inside = bool(np.all(low > ends[0] + 1.0) and np.all(found.x < ends[1] - 0.1))
    converged = bool(np.isfinite(after) and inside and (norm < GRADIENT or after < negligible))
    return Start(before, after, norm, converged), found.x


def _best(
    problem: _Problem,
    starts: Mapping[str, Array],
    f: Callable[[Array], tuple[float, Array]],
    ends: tuple[float, float],
    last_may_vanish: bool = False,
) -> tuple[dict[str, Start], Array]:
    """The outcome of all starts, and the best point."""
    outcomes = {
        name: _minimise(f, x, ends, last_may_vanish, problem.negligible)
        for name, x in starts.items()
    }
    _require_converged(problem, {name: start for name, (start, _) in outcomes.items()})
    converged = [outcome for outcome in outcomes.values() if outcome[0].converged]
    start, point = min(converged, key=lambda outcome: outcome[0].after)
    if problem.sampler in PROGRAMS:  # of many schedules as good, the one without the shortest steps
        least = max(start.after * (1 + AGREEMENT), problem.negligible)
        points = [point for start, point in converged if start.after <= least]
        point = max(points, key=np.min)
    return {name: start for name, (start, _) in outcomes.items()}, point


def _require_converged(problem: _Problem, starts: Mapping[str, Start]) -> None:
    reached = [start.after for start in starts.values() if start.converged]
    lower = [
        start.after
        for start in starts.values()
        if not start.converged
        and reached
        and start.after < min(reached) * (1 - AGREEMENT)
        and min(reached) > problem.negligible
    ]
    if reached and not lower:
        return
    ends = ", ".join(
        f"{name}: {start.after:.6g}, gradient {start.gradient:.1e}"
        for name, start in starts.items()
    )
    raise NotConvergedError(
        f"objective = {problem.objective!r}, sampler = {problem.sampler!r}, n_steps = "
        f"{problem.n_steps}: the optimiser did not converge, there is no best schedule ({ends}); "
        "where a step or B(T) shrinks to nothing or grows without end there is no optimum"
    )


# --- the spaces -------------------------------------------------------------------------


def _search_increments(problem: _Problem) -> tuple[dict[str, Start], Array]:
    def f(x: Array) -> tuple[float, Array]:
        increments = np.exp(x)
        value, gradient = problem.of_levels(_levels(increments))
        return value, _by_increments(gradient) * increments

    starts = {name: np.log(-np.diff(levels)) for name, levels in _starts(problem).items()}
    outcomes, x = _best(problem, starts, f, (np.log(SMALLEST), np.log(LARGEST)))
    return outcomes, _levels(np.exp(x))


def _trapezia(rates: Array) -> tuple[Array, Array]:
    """Levels and growths of a β that is linear between its values at the grid points, from T."""
    n = len(rates) - 1
    return _levels((rates[:-1] + rates[1:]) / (2 * n)), rates[:-1] / n


def _search_rates(problem: _Problem) -> tuple[dict[str, Start], Array]:
    """β/σ² at the grid points, from T to 0, by its logarithms."""
    n, spectrum = problem.n_steps, problem.spectrum

    def f(x: Array) -> tuple[float, Array]:
        rates = np.exp(x)
        levels, growth = _trapezia(rates)
        value, gradient = evaluate(problem.objective, spectrum, levels, problem.sampler, growth)
        by_increment = _by_increments(gradient[:n]) / 2
        total = np.append(by_increment + gradient[n:], 0.0)
        total[1:] += by_increment
        return value, total * rates / n

    grid = uniform(1.0, n)
    even = -np.diff(best_levels(spectrum, n)) * n
    starts = {"dynamic_programming": np.log(np.append(even, even[-1]))}
    for name, schedule in _reference_starts(spectrum.variance).items():
        starts[name] = np.log(schedule.beta(grid) / spectrum.variance)
    # β(0) = 0 is a schedule; what it does is the limit at the end of the range
    ends = np.log(SMALLEST), np.log(n * LARGEST)
    outcomes, x = _best(problem, starts, f, ends, last_may_vanish=True)
    return outcomes, np.exp(x)


def _search_grid(problem: _Problem, total: float) -> tuple[dict[str, Start], Array]:
    """Increments of a given sum, by softmax."""

    def shares(x: Array) -> Array:
        weights = np.exp(x - np.max(x))
        return np.asarray(weights / np.sum(weights))

    def f(x: Array) -> tuple[float, Array]:
        increments = total * shares(x)
        value, gradient = problem.of_levels(_levels(increments))
        # u_0 is the total: what moves it alone is no freedom, and drops out of the mean
        slope = _by_increments(gradient)
        return value, increments * (slope - np.sum(shares(x) * slope))

    starts = {name: np.log(-np.diff(levels)) for name, levels in _starts(problem).items()}
    starts = {name: x - np.mean(x) for name, x in starts.items()}
    outcomes, x = _best(problem, starts, f, (-35.0, 35.0))
    return outcomes, _levels(total * shares(x))


def _search_spline(problem: _Problem, knots: int) -> tuple[dict[str, Start], Array]:
    """B at K + 1 equidistant times; the grid reads its monotone spline."""
    from scipy.interpolate import PchipInterpolator

    places = np.linspace(0.0, 1.0, knots + 1)
    grid = uniform(1.0, problem.n_steps)

    def levels(x: Array) -> Array:
        values: Array = PchipInterpolator(places, np.append(0.0, np.cumsum(np.exp(x))))(grid)
        values[-1] = 0.0
        return values

    def f(x: Array) -> tuple[float, Array]:
        value, gradient = problem.of_levels(levels(x))
        delta = 1e-6 * np.eye(knots)
        moved = [(levels(x + step) - levels(x - step))[:-1] / 2e-6 for step in delta]
        return value, np.array(moved) @ gradient

    starts = {
        name: np.log(np.diff(PchipInterpolator(grid[::-1], start[::-1])(places)))
        for name, start in _starts(problem).items()
    }
    outcomes, x = _best(problem, starts, f, (np.log(SMALLEST), np.log(LARGEST)))
    return outcomes, levels(x)


def _search_total(problem: _Problem) -> tuple[dict[str, Start], Array]:
    """Of the theorem: its E₃ grows with the largest increment, so equal ones are best."""
    n = problem.n_steps

    def even(log_total: float) -> Array:
        return np.asarray(np.exp(log_total) * np.arange(n, -1, -1) / n)

    def f(log_total: float) -> float:
        return problem.of_levels(even(log_total))[0]

    places = np.linspace(np.log(1e-6), np.log(LARGEST), 60)
    place, value, interior = _scan(f, places)
    starts = {"equal_increments": _refined(f, f(0.0), place, value, interior, 1e-4)}
    _require_converged(problem, starts)
    return starts, even(place)


def _refined(
    f: Callable[[float], float], before: float, place: float, value: float, interior: bool,
    delta: float,
) -> Start:  # fmt: skip
    """A minimum in one number as a `Start`; its gradient by central differences."""
    slope = abs(f(place + delta) - f(place - delta)) / (2 * delta * value)
    return Start(before, value, float(slope), interior and bool(slope < FLAT))


def _search_shape(problem: _Problem) -> tuple[dict[str, Start], dict[str, float]]:
    variance = problem.spectrum.variance

    def f(a: float) -> float:
        return problem.of_schedule(_beta_a(a, 1.0, variance))

    place, value, interior = _scan(f, SHAPES)
    starts = {"scan": _refined(f, f(0.0), place, value, interior, 1e-4)}
    _require_converged(problem, starts)
    return starts, {"a": place}


def _search_both(problem: _Problem) -> tuple[dict[str, Start], dict[str, float]]:
    """a T and log T by Nelder and Mead, from the three best of a scan."""
    from scipy.optimize import minimize

    variance = problem.spectrum.variance

    def f(point: Array) -> float:
        shape, horizon = float(point[0]), float(np.exp(point[1]))
        if not (abs(shape) <= 100 and 1e-4 <= horizon <= 1e4):
            return np.inf
        return float(np.log(problem.of_schedule(_beta_a(shape / horizon, horizon, variance))))

    scanned = [
        (f(np.array([shape, log_t])), shape, log_t)
        for shape in SHAPES[::4]
        for log_t in np.log(HORIZONS)
    ]
    scanned = sorted(entry for entry in scanned if np.isfinite(entry[0]))
    starts, points = {}, {}
    for number, (before, shape, log_t) in enumerate(scanned[:3], start=1):
        found = minimize(
            f, [shape, log_t], method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-13, "maxiter": 1000, "maxfev": 1000},
        )  # fmt: skip
        slope = max(abs(f(found.x + d) - f(found.x - d)) / 2e-4 for d in 1e-4 * np.eye(2))
        interior = abs(found.x[0]) < 99 and abs(found.x[1]) < 9
        name = f"scan_{number}"
        after = float(np.exp(found.fun))
        starts[name] = Start(float(np.exp(before)), after, slope, bool(interior and slope < FLAT))
        points[name] = found.x
    _require_converged(problem, starts)
    best = min((name for name in starts if starts[name].converged), key=lambda n: starts[n].after)
    horizon = float(np.exp(points[best][1]))
    return starts, {"a": float(points[best][0]) / horizon, "horizon": horizon}
