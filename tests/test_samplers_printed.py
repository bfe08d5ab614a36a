"""Schemes with memory as their papers print them, in 60 digits, against the exact laws.

On the line and with the exact score everything is affine in the start and in each noise: a number
is carried as a vector of coefficients of (start, 1, z₁, z₂, …), through each algorithm as it is
printed, in x, α_t and σ_t or in u = x/m and σ̃ = σ_t/α_t, with no care for cancellation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf

from sgm import laws, samplers, scores
from sgm.gaussian import Gaussian, kl_divergence
from sgm.processes import Process, VEProcess, VPProcess
from sgm.random import stream
from sgm.schedules import ConstantSchedule
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

Numbers = npt.NDArray[np.object_]  # of mpf
Times = Sequence[mpf]
CENTER = mpf(-3)


class Line:
    """β = `rate` on [0, 1], σ² = `variance` (∞ for VE), data N(−3, spread), exact score."""

    def __init__(self, rate: float | mpf, variance: float | mpf, spread: float | mpf) -> None:
        self.rate, self.variance, self.spread = mpf(rate), mpf(variance), mpf(spread)
        self.drawn = 0

    def start(self) -> Numbers:
        x = np.array([mpf(0)] * 200, dtype=object)
        x[0] = mpf(1)
        return x

    def z(self) -> Numbers:
        self.drawn += 1
        fresh = np.array([mpf(0)] * 200, dtype=object)
        fresh[1 + self.drawn] = mpf(1)
        return fresh

    def b(self, t: mpf) -> mpf:
        return self.rate * t

    def alpha(self, t: mpf) -> mpf:
        return mpf(1) if mp.isinf(self.variance) else mp.exp(-self.b(t) / (2 * self.variance))

    def sigma(self, t: mpf) -> mpf:
        if mp.isinf(self.variance):
            return mp.sqrt(self.b(t))
        return mp.sqrt(-self.variance * mp.expm1(-self.b(t) / self.variance))

    def level(self, t: mpf) -> mpf:
        return self.sigma(t) / self.alpha(t)

    def time(self, level: mpf) -> mpf:
        if mp.isinf(self.variance):
            return level**2 / self.rate
        return self.variance * mp.log1p(level**2 / self.variance) / self.rate

    def score(self, x: Numbers, t: mpf) -> Numbers:
        total = self.alpha(t) ** 2 * self.spread + self.sigma(t) ** 2
        s = -x / total
        s[1] += self.alpha(t) * CENTER / total
        return s

    def denoiser(self, x: Numbers, t: mpf) -> Numbers:
        return (x + self.sigma(t) ** 2 * self.score(x, t)) / self.alpha(t)

    def noise(self, x: Numbers, t: mpf) -> Numbers:
        return -self.sigma(t) * self.score(x, t)

    def moments(self, x: Numbers) -> tuple[mpf, mpf]:
        """Mean and variance of a number, the start being the prior."""
        prior = self.b(1) if mp.isinf(self.variance) else self.variance
        return x[1], x[0] ** 2 * prior + sum(c**2 for c in x[2:])


def karras(
    line: Line,
    times: Times,
    churn: float = 0,
    tmin: float = 0,
    tmax: mpf = mp.inf,
    noise: float = 1,
) -> Numbers:
    """Algorithm 2 of arXiv 2206.00364, with s(t) = m(t) taken out: in u and σ̃."""

    def slope(u: Numbers, level: mpf) -> Numbers:
        t = line.time(level)
        return (u - line.denoiser(line.alpha(t) * u, t)) / level

    levels = [line.level(t) for t in times]
    u = line.start() / line.alpha(times[0])
    for level, after in pairwise(levels):
        gamma = 0
        if tmin <= level <= tmax and level < levels[0]:
            gamma = min(churn / mpf(len(times) - 1), mp.sqrt(2) - 1)
        raised = min(level + gamma * level, levels[0])
        if raised > level:
            u = u + mp.sqrt(raised**2 - level**2) * noise * line.z()
        d = slope(u, raised)
        ahead = u + (after - raised) * d
        if after != 0:
            ahead = u + (after - raised) * (d / 2 + slope(ahead, after) / 2)
        u = ahead
    return u * line.alpha(times[-1])


def restarted(line: Line, times: Times, restarts: int, first: int, last: int) -> Numbers:
    """Algorithm 1 of arXiv 2306.14878 on `karras`, in u and σ̃."""
    u = karras(line, times[: last + 1]) / line.alpha(times[last])
    low, high = line.level(times[last]), line.level(times[first])

    def go(u: Numbers, times: Times) -> Numbers:
        moved = Line(line.rate, line.variance, line.spread)
        moved.start = lambda: u * line.alpha(times[0])
        return karras(moved, times) / line.alpha(times[-1])

    for _ in range(restarts):
        u = u + mp.sqrt(high**2 - low**2) * line.z()
        u = go(u, times[first : last + 1])
    return go(u, times[last:]) * line.alpha(times[-1]) if last < len(times) - 1 else u


def frozen(line: Line, x: Numbers, t: mpf, after: mpf, data: Numbers) -> Numbers:
    """x_t = (σ_t/σ_s) x_s − α_t (e^{−h} − 1) D."""
    return line.sigma(after) / line.sigma(t) * x + data * (
        line.alpha(after) - line.sigma(after) * line.alpha(t) / line.sigma(t)
    )


def dpm_solver_2(line: Line, times: Times) -> Numbers:
    """Algorithm 1 of arXiv 2206.00927, r₁ = ½; the last step, onto λ = ∞, is DDIM's."""
    x = line.start()
    for t, after in pairwise(times):
        eps = line.noise(x, t)
        if after == 0:
            return frozen(line, x, t, after, line.denoiser(x, t))
        h = mp.log(line.level(t) / line.level(after))
        middle = line.time(mp.sqrt(line.level(t) * line.level(after)))
        u = line.alpha(middle) / line.alpha(t) * x - line.sigma(middle) * mp.expm1(h / 2) * eps
        x = line.alpha(after) / line.alpha(t) * x
        x = x - line.sigma(after) * mp.expm1(h) * line.noise(u, middle)
    return x


def dpm_solver_pp_2s(line: Line, times: Times) -> Numbers:
    """Algorithm 1 of arXiv 2211.01095, r = ½."""
    x = line.start()
    for t, after in pairwise(times):
        data = line.denoiser(x, t)
        if after != 0:
            middle = line.time(mp.sqrt(line.level(t) * line.level(after)))
            u = frozen(line, x, t, middle, data)
            data = line.denoiser(u, middle)  # (1 − 1/(2r)) x̂(x) + 1/(2r) x̂(u)
        x = frozen(line, x, t, after, data)
    return x


def dpm_solver_pp_2m(line: Line, times: Times, eta: int = 0) -> Numbers:
    """Algorithm 2 of arXiv 2211.01095 (η = 0), and its SDE form with noise (η = 1)."""
    x, before, rise = line.start(), None, None
    for t, after in pairwise(times):
        data = line.denoiser(x, t)
        used = data
        if after == 0:
            return frozen(line, x, t, after, data)
        h = mp.log(line.level(t) / line.level(after))
        if before is not None:
            ratio = rise / h
            used = (1 + 1 / (2 * ratio)) * data - 1 / (2 * ratio) * before
        x = line.sigma(after) / line.sigma(t) * mp.exp(-eta * h) * x
        x = x - line.alpha(after) * mp.expm1(-(1 + eta) * h) * used
        x = x + line.sigma(after) * mp.sqrt(-mp.expm1(-2 * eta * h)) * line.z()
        before, rise = data, h
    return x


def deis(line: Line, times: Times, order: int) -> Numbers:
    """ρAB-DEIS of arXiv 2204.13902 with ρ = σ̃: ∫ of Lagrange's polynomials, by moments."""
    u = line.start() / line.alpha(times[0])
    known: list[tuple[mpf, Numbers]] = []
    for t, after in pairwise(times):
        known = [(line.level(t), line.noise(u * line.alpha(t), t)), *known][:order]
        nodes = [node for node, _ in known]
        # Σ_j C_j ρ_j^i = ∫ ρ^i dρ
        powers = mp.matrix([[node**i for node in nodes] for i in range(len(nodes))])
        a, b = line.level(t), line.level(after)
        integrals = mp.matrix([(b ** (i + 1) - a ** (i + 1)) / (i + 1) for i in range(len(nodes))])
        weights = mp.lu_solve(powers, integrals)
        u = u + sum(weights[j] * eps for j, (_, eps) in enumerate(known))
    return u * line.alpha(times[-1])


def unipc(line: Line, times: Times) -> Numbers:
    """Algorithms 1 and 2 of arXiv 2302.04867 at p = 2 with B = e^{−h} − 1, of the denoiser."""
    lam = [-mp.log(line.level(t)) if t else mp.inf for t in times]
    x, models = line.start(), [line.denoiser(line.start(), times[0])]
    for i, (t, after) in enumerate(pairwise(times)):
        held = frozen(line, x, t, after, models[-1])
        if after == 0:
            return held
        h, scale = lam[i + 1] - lam[i], line.alpha(after) * mp.expm1(-(lam[i + 1] - lam[i]))
        nodes = [(lam[i - 1] - lam[i]) / h] if i else []
        gaps = [(models[-2] - models[-1]) / nodes[0]] if i else []
        ahead = held - scale * sum((gap / 2 for gap in gaps), 0 * x)  # a₁ B r₁⁰ = φ₁ h/…: ½
        if i + 1 == len(times) - 1:
            return ahead
        model = line.denoiser(ahead, after)
        nodes, gaps = [*nodes, mpf(1)], [*gaps, model - models[-1]]
        hh, rows, right, phi, factorial = -h, [], [], mp.expm1(-h) / -h - 1, 1
        for k in range(len(nodes)):
            rows.append([node**k for node in nodes])
            right.append(phi * factorial / mp.expm1(hh))
            factorial *= k + 2
            phi = phi / hh - mpf(1) / factorial
        weights = mp.lu_solve(mp.matrix(rows), mp.matrix(right)) if i else [mpf(1) / 2]
        x = held - scale * sum((weights[k] * gap for k, gap in enumerate(gaps)), 0 * x)
        models.append(model)
    return x


SCALES = {
    "flow": lambda s: s,
    "sde": lambda s: s**2,
    "sde_5": lambda s: s * (mp.exp(s ** mpf(0.3)) + 10),
}


def er_sde(line: Line, times: Times, order: int, scale: str) -> Numbers:
    """Of the code of arXiv 2309.06169: `vp_1_order` to `vp_3_order_taylor`, in u and σ̃."""
    phi, levels = SCALES[scale], [line.level(t) for t in times]
    u, known, slopes = line.start() / line.alpha(times[0]), [], []
    for i, (t, after) in enumerate(pairwise(times)):
        known.append(line.denoiser(u * line.alpha(t), t))
        level, last = levels[i], levels[i + 1]
        if after == 0:
            return known[-1]
        ratio = phi(last) / phi(level)
        moved = ratio * u + (1 - ratio) * known[-1]
        panels = mp.linspace(mp.log(last), mp.log(level), 7)

        def integral(
            weight: Callable[[mpf], mpf],
            phi: Callable[[mpf], mpf] = phi,
            panels: list[mpf] = panels,
        ) -> mpf:
            with mp.workdps(25):
                return mp.quad(lambda x: weight(mp.exp(x)) * mp.exp(x) / phi(mp.exp(x)), panels)

        if order > 1 and i > 0:
            slopes.append((known[-1] - known[-2]) / (level - levels[i - 1]))
            moved = moved + (last - level + integral(lambda s: 1) * phi(last)) * slopes[-1]
        if order > 2 and i > 1:
            bend = 2 * (slopes[-1] - slopes[-2]) / (level - levels[i - 2])
            share = integral(lambda s, level=level: s - level) * phi(last)
            moved = moved + ((last - level) ** 2 / 2 + share) * bend
        u = moved + mp.sqrt(max(last**2 - level**2 * ratio**2, 0)) * line.z()
    return u * line.alpha(times[-1])


def exponential(line: Line, times: Times, modified: bool) -> Numbers:
    """ETD2RK (Cox and Matthews 2002) of dX = (L X + N) dB + dW."""

    def nonlinear(x: Numbers, t: mpf) -> Numbers:
        return line.score(x, t) + x / line.variance if modified else line.score(x, t)

    x, rate = line.start(), (-1 if modified else 1) / (2 * line.variance)
    for t, after in pairwise(times):
        step = line.b(t) - line.b(after)
        c = rate * step
        first, second, spread = step, step / 2, step
        if c != 0:
            first, second = mp.expm1(c) / rate, (mp.expm1(c) - c) / (rate**2 * step)
            spread = mp.expm1(2 * c) / (2 * rate)
        now = nonlinear(x, t)
        a = mp.exp(c) * x + first * now + mp.sqrt(spread) * line.z()
        x = a + second * (nonlinear(a, after) - now) if after != 0 else a
    return x


def midpoint(line: Line, times: Times, seed: int) -> Numbers:
    """Algorithm 1 of arXiv 1909.05503, for dX = (X/(2σ²) + s) dB + dW in the clock B."""
    drawn = stream(seed, "randomised_midpoint").uniform(size=len(times) - 1)
    x, rate = line.start(), 1 / (2 * line.variance)

    def spread(step: mpf) -> mpf:
        return mp.sqrt(mp.expm1(2 * rate * step) / (2 * rate) if rate else step)

    for share, t, after in zip(map(mpf, drawn), times[:-1], times[1:], strict=True):
        step = line.b(t) - line.b(after)
        early, late, noise = share * step, (1 - share) * step, line.z()
        grown = mp.expm1(rate * early) / rate if rate else early
        y = mp.exp(rate * early) * x + grown * line.score(x, t) + spread(early) * noise
        x = mp.exp(rate * step) * x + mp.exp(rate * late) * spread(early) * noise
        x = x + step * mp.exp(rate * late) * line.score(y, (line.b(t) - early) / line.rate)
        x = x + spread(late) * line.z()
    return x


PRINTED = {
    "randomised_midpoint": (
        partial(samplers.randomised_midpoint, times_seed=5),
        partial(midpoint, seed=5),
    ),
    "heun": (samplers.heun, karras),
    "edm": (
        partial(samplers.edm, s_churn=3.0, s_noise=1.1),
        partial(karras, churn=3, noise=mpf(1.1)),
    ),
    "edm, all levels": (partial(samplers.edm, s_churn=90.0), partial(karras, churn=90)),
    "dpm_solver_2s": (samplers.dpm_solver_2s, dpm_solver_2),
    "dpm_solver_pp_2s": (samplers.dpm_solver_pp_2s, dpm_solver_pp_2s),
    "dpm_solver_pp_2m": (samplers.dpm_solver_pp_2m, dpm_solver_pp_2m),
    "dpm_solver_pp_2m, SDE": (
        partial(samplers.dpm_solver_pp_2m, eta=1.0),
        partial(dpm_solver_pp_2m, eta=1),
    ),
    "deis_1": (partial(samplers.deis, order=1), partial(deis, order=1)),
    "deis_2": (partial(samplers.deis, order=2), partial(deis, order=2)),
    "deis_3": (partial(samplers.deis, order=3), partial(deis, order=3)),
    "unipc": (samplers.unipc, unipc),
    **{
        f"er_sde_{order}, {scale}": (
            partial(samplers.er_sde, order=order, noise_scale=scale),
            partial(er_sde, order=order, scale=scale),
        )
        for order, scale in [(1, "sde_5"), (2, "flow"), (3, "sde"), (3, "sde_5")]
    },
    "exponential_runge_kutta": (
        samplers.exponential_runge_kutta,
        partial(exponential, modified=False),
    ),
    "exponential_runge_kutta_modified": (
        samplers.exponential_runge_kutta_modified,
        partial(exponential, modified=True),
    ),
}


def process(rate: float, variance: float) -> Process:
    schedule = ConstantSchedule(1.0, rate)
    return VEProcess(schedule) if np.isinf(variance) else VPProcess(schedule, variance)


def assert_printed(name: str, rate: float, variance: float, times: Array, spread: float) -> None:
    scheme, printed = PRINTED[name]
    mp.dps = 60 + int(3 * rate / variance)
    vp, law = process(rate, variance), Gaussian.diagonal([-3.0], [spread])
    found = laws.sampler_law(scheme(vp, times), scores.exact(vp, law), vp.prior(1))
    line = Line(rate, variance, spread)
    mean, output = line.moments(printed(line, [mpf(t) for t in times]))
    if output > 1e300:
        assert found.eigenvalues[0] == np.inf
        return
    assert found.eigenvalues[0] == pytest.approx(float(output), rel=1e-9)
    assert found.mean[0] == pytest.approx(float(mean), rel=1e-9, abs=1e-12 * float(output) ** 0.5)
    ratio = mpf(spread) / output
    kl = (ratio - 1 - mp.log(ratio) + (mean + 3) ** 2 / output) / 2
    if kl < 1e300:
        assert kl_divergence(law, found) == pytest.approx(float(kl), rel=1e-6)


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("grid", [uniform, quadratic])
def test_laws_are_those_of_the_printed_algorithms(
    name: str, grid: Callable[[float, int], Array]
) -> None:
    assert_printed(name, 4.0, 1.5, grid(1.0, 7), 0.3)
    if "modified" not in name:
        assert_printed(name, 4.0, np.inf, grid(1.0, 7), 0.3)


@pytest.mark.parametrize("name", PRINTED)
def test_laws_of_grids_that_stop_early(name: str) -> None:
    assert_printed(name, 4.0, 1.5, 0.02 + 0.98 * uniform(1.0, 5), 0.3)
    assert_printed(name, 4.0, 1.5, np.array([1.0, 0.5]), 0.3)


@pytest.mark.parametrize("name", PRINTED)
def test_laws_keep_their_digits_at_the_edges(name: str) -> None:
    """σ² and β over decades, few and many steps, narrow and wide data, as in test_laws."""
    rng = np.random.default_rng(2)
    cases = [(0.25, 20.0, 1, 0.5), (1e-2, 1.0, 2, 1e6), (1e4, 1e3, 3, 1e-6), (0.05, 3.0, 5, 1.0)]
    cases += [
        (10.0 ** rng.uniform(-1, 4), 10.0 ** rng.uniform(-2, 1), n, 10.0 ** rng.uniform(-6, 6))
        for n in (1, 2, 5, 12)
    ]
    for variance, rate, n, spread in cases:
        assert_printed(name, rate, variance, quadratic(1.0, n), spread)


@pytest.mark.parametrize("variance", [1.5, np.inf])
def test_restart_is_the_printed_algorithm(variance: float) -> None:
    rate, times, spread = 4.0, uniform(1.0, 8), 0.3
    vp = process(rate, variance)
    law, line = Gaussian.diagonal([-3.0], [spread]), Line(rate, variance, spread)
    mp.dps = 50
    for restarts, low, high, first, last in [(3, 0.26, 0.74, 2, 6), (1, 0.0, 1.0, 0, 8)]:
        steps = samplers.restart(vp, times, restarts, low, high)
        found = laws.sampler_law(steps, scores.exact(vp, law), vp.prior(1))
        grid = [mpf(t) for t in times]
        mean, output = line.moments(restarted(line, grid, restarts, first, last))
        assert found.eigenvalues[0] == pytest.approx(float(output), rel=1e-10)
        assert found.mean[0] == pytest.approx(float(mean), rel=1e-10)
        extra = 2 * (last - first) - (last == 8)  # the step onto the data has one evaluation
        assert (steps.n_steps, steps.nfe) == (8, 15 + restarts * extra)
        np.testing.assert_array_equal(steps.score_time[steps.departures], times[:-1])
