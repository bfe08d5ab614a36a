"""Schedules that their sources prescribe by a noise level, against 50 digits and their sources."""

from collections.abc import Callable
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from sgm.processes import VEProcess, VPProcess
from sgm.schedules import CosineSchedule, GeometricSchedule, NoiseSchedule
from sgm.schedules.levels import (
    DiscreteCosineSchedule,
    EDMSchedule,
    LaplaceSchedule,
    PowerCosineSchedule,
    SigmoidSchedule,
)

INF = np.inf
SIGMOIDS = [
    (-3.0, 3.0, 0.9),
    (0.0, 3.0, 0.3),
    (0.0, 3.0, 1.1),
    (-3.0, -1.0, 0.02),
    (0.0, 1.0, 50.0),
]
COSINES = [(0.0, 1.0, 1.0), (0.2, 1.0, 0.5), (0.0, 0.7, 3.0), (0.5, 0.9, 0.01), (0.01, 1.0, 100.0)]
LAPLACES = [
    (0.0, 0.5),
    (0.0, 1.0),
    (2.0, 0.25),
    (-1.0, 3.0),
    (5.0, 1.5),
    (-80.0, 10.0),
    (0.0, 0.01),
]
FRACTIONS = [0.0, 1e-9, 1e-3, 0.05, 0.3, 0.5, 0.51, 0.7, 0.99, 1 - 2**-30]


def alpha_bar(schedule: NoiseSchedule, fraction: float) -> mp.mpf:
    """ᾱ at a fraction of T by the formula of the source."""
    f = mp.mpf(fraction)
    match schedule:
        case SigmoidSchedule():
            start, end, tau = map(mp.mpf, (schedule.start, schedule.end, schedule.tau))
            logistic = lambda x: 1 / (1 + mp.exp(-x / tau))  # noqa: E731
            x = start + (end - start) * f
            return (logistic(end) - logistic(x)) / (logistic(end) - logistic(start))
        case PowerCosineSchedule():
            start, end, tau = map(mp.mpf, (schedule.start, schedule.end, schedule.tau))
            c = lambda u: mp.cos(u * mp.pi / 2) ** (2 * tau) if u < 1 else mp.mpf(0)  # noqa: E731
            return (c(start + (end - start) * f) - c(end)) / (c(start) - c(end))
        case LaplaceSchedule():
            if f in (0, 1):
                return 1 - f
            # arXiv 2407.03297: μ − b sgn(0.5 − t) log(1 − 2|t − 0.5|)
            mu, b = mp.mpf(schedule.location), mp.mpf(schedule.scale)
            half = f - mp.mpf(1) / 2
            return 1 / (1 + mp.exp(-mu - b * mp.sign(half) * mp.log(1 - 2 * abs(half))))
        case EDMSchedule():
            low, high, rho = map(mp.mpf, (schedule.sigma_min, schedule.sigma_max, schedule.rho))
            s = (low ** (1 / rho) + f * (high ** (1 / rho) - low ** (1 / rho))) ** rho
            return 1 / (1 + (s**2 - low**2) / mp.mpf(schedule.variance))


def free(horizon: float, variance: float) -> list[NoiseSchedule]:
    """Every family without its clip."""
    return [
        *(SigmoidSchedule(horizon, variance, INF, *shape) for shape in SIGMOIDS),
        *(PowerCosineSchedule(horizon, variance, INF, *shape) for shape in COSINES),
        *(LaplaceSchedule(horizon, variance, INF, *shape) for shape in LAPLACES),
        *(EDMSchedule(horizon, variance, *shape) for shape in EDMS),
    ]


EDMS = [
    (0.002, 80.0, 7.0),
    (0.0, 80.0, 1.0),
    (0.0, 3.0, 0.5),
    (0.5, 3.0, 0.5),
    (0.01, 50.0, 1000.0),
]


def name(schedule: NoiseSchedule) -> str:
    values = [getattr(schedule, key) for key in schedule.__dataclass_fields__]
    return f"{type(schedule).__name__}-" + "-".join(f"{value:g}" for value in values)


@pytest.mark.parametrize(
    "schedule", [*free(1.0, 1.0), *free(2.5, 0.3), *free(1e-6, 1e6), *free(1e6, 1e-6)], ids=name
)
def test_the_mean_scale_is_that_of_the_source(schedule: NoiseSchedule) -> None:
    """B = −σ² log ᾱ, to 1e-12, wherever the time itself leaves so many digits."""
    assert schedule.integral(0.0) == 0
    for fraction in FRACTIONS[1:]:
        with mp.workdps(200):  # of 1 − ᾱ as small as e^{−150}
            t = schedule.horizon * fraction
            exact = mp.mpf(t) / mp.mpf(schedule.horizon)
            level = float(-schedule.variance * mp.log(alpha_bar(schedule, exact)))
        tolerance = 1e-12 if fraction < 0.999 else 1e-6
        assert schedule.integral(t) == pytest.approx(level, rel=tolerance, abs=1e-300)


@pytest.mark.parametrize("schedule", [*free(1.0, 1.0), *free(2.5, 0.3)], ids=name)
def test_beta_is_the_derivative_of_its_integral(schedule: NoiseSchedule) -> None:
    for fraction in FRACTIONS[2:-1]:
        t, edge = schedule.horizon * fraction, fraction == 0.5
        if edge and isinstance(schedule, LaplaceSchedule):
            continue  # a kink, from the left
        with mp.workdps(200):
            level = lambda f: -schedule.variance * mp.log(alpha_bar(schedule, f))  # noqa: E731
            step = mp.mpf(10) ** -20
            exact = mp.mpf(t) / mp.mpf(schedule.horizon)
            slope = (level(exact + step) - level(exact - step)) / (2 * step) / schedule.horizon
        assert schedule.beta(t) == pytest.approx(float(slope), rel=2e-12)


def clipped(horizon: float = 1.7, variance: float = 2.0, clip: float = 20.0) -> list[NoiseSchedule]:
    return [
        *(SigmoidSchedule(horizon, variance, clip, *shape) for shape in SIGMOIDS),
        *(PowerCosineSchedule(horizon, variance, clip, *shape) for shape in COSINES),
        *(LaplaceSchedule(horizon, variance, clip, *shape) for shape in LAPLACES),
    ]


@pytest.mark.parametrize("clip", [20.0, 1e4])
def test_the_integral_is_that_of_the_clipped_rate(clip: float) -> None:
    """By quadrature of β alone, between the cuts; of the free β after an early pole in its log."""
    for schedule in clipped(clip=clip):
        edges, _, held = schedule._pieces
        assert held[-1]  # every one has its pole at T
        cuts = [*edges, schedule.horizon]
        if isinstance(schedule, LaplaceSchedule):
            cuts = sorted({*cuts, schedule.horizon / 2})
        whole = 0.0
        for low, high in pairwise(cuts):
            spaced = np.geomspace if 0 < low < 0.01 * high else np.linspace
            for start, stop in pairwise(spaced(low, high, 41)):
                whole += quad(schedule.beta, start, stop, epsabs=0, epsrel=1e-11)[0]
        assert schedule.integral(schedule.horizon) == pytest.approx(whole, rel=1e-9), schedule


@pytest.mark.parametrize("schedule", [*clipped(), *clipped(clip=1e4)], ids=name)
def test_the_clip_is_the_supremum_and_no_time_exceeds_it(schedule: NoiseSchedule) -> None:
    t = schedule.horizon * np.concatenate([np.geomspace(1e-300, 1, 2000), np.linspace(0, 1, 4001)])
    values = schedule.beta(t)
    assert np.all(values >= 0)
    assert np.all(values[t > 1e-20] > 0)
    assert values.max() == schedule.supremum == schedule.clip
    levels = schedule.integral(np.sort(t))
    assert levels[0] == 0
    assert np.all(np.diff(levels) >= 0)
    assert np.all(np.diff(schedule.integral(np.linspace(0, schedule.horizon, 999))) > 0)


@pytest.mark.parametrize(
    "schedule", [*clipped(), *(EDMSchedule(1.7, 2.0, *shape) for shape in EDMS)], ids=name
)
def test_inverse_integral_inverts(schedule: NoiseSchedule) -> None:
    times = schedule.horizon * np.array([[0.0, 1e-7, 1e-3], [0.2, 0.9, 1.0]])
    levels = schedule.integral(times)
    found = schedule.inverse_integral(levels)
    np.testing.assert_allclose(schedule.integral(found), levels, rtol=1e-12)
    for level in (-0.1, 2 * levels[-1, -1] + 1):
        with pytest.raises(ValueError, match=r"b = .*: must lie in \[0, B\(T\)\]"):
            schedule.inverse_integral(level)


def test_the_cosine_of_nichol_and_dhariwal_is_one_of_the_family() -> None:
    """τ = 1, end = 1, start = s/(1 + s)."""
    for horizon, variance, s, clip in [(1.0, 1.0, 0.008, 20.0), (2.5, 0.5, 0.021122, 300.0)]:
        own = PowerCosineSchedule(horizon, variance, clip, s / (1 + s), 1.0, 1.0)
        cosine = CosineSchedule(horizon, variance, s, clip)
        t = horizon * np.linspace(0, 1, 101)
        np.testing.assert_allclose(own.beta(t), cosine.beta(t), rtol=1e-11)
        np.testing.assert_allclose(own.integral(t), cosine.integral(t), rtol=1e-11)


def test_a_hot_sigmoid_is_linear_in_alpha_bar() -> None:
    """τ → ∞: ᾱ = 1 − t/T, the "linear" of T. Chen."""
    hot = SigmoidSchedule(2.0, 1.5, INF, -3.0, 3.0, 1e5)
    t = np.linspace(0, 1.99, 21)
    np.testing.assert_allclose(hot.integral(t), -1.5 * np.log1p(-t / 2), rtol=1e-8)


def test_a_laplace_schedule_has_log_snr_of_a_laplace_law() -> None:
    """The median is μ; quartiles are μ ± b log 2; mean |λ − μ| is b."""
    mu, b = 0.7, 0.5
    process = VPProcess(LaplaceSchedule(1.0, 1.0, INF, mu, b), 1.0)
    t = (np.arange(20000) + 0.5) / 20000
    m2 = process.mean_scale(t) ** 2
    snr = np.log(m2 / process.kernel_variance(t))
    assert np.median(snr) == pytest.approx(mu, abs=1e-4)
    np.testing.assert_allclose(
        np.quantile(snr, [0.25, 0.75]), [mu - b * np.log(2), mu + b * np.log(2)], atol=1e-3
    )
    assert np.mean(np.abs(snr - mu)) == pytest.approx(b, rel=1e-3)


@pytest.mark.parametrize("variance", [0.5, 1.0, 100.0])
def test_edm_adds_the_noise_of_its_levels(variance: float) -> None:
    """v/m² is s² − s²(0); equation 5 of the source at N = 18, its setting for CIFAR-10."""
    process = VPProcess(EDMSchedule(1.0, variance, 0.002, 80.0, 7.0), variance)
    i = np.arange(18)
    printed = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = 1 - i / 17
    ratio = process.kernel_variance(t) / process.mean_scale(t) ** 2
    np.testing.assert_allclose(ratio, printed**2 - 0.002**2, rtol=1e-9, atol=1e-18)


def test_edm_drives_ve_and_tends_to_the_geometric_schedule() -> None:
    schedule = EDMSchedule(2.0, INF, 0.01, 50.0, 1000.0)
    process, t = VEProcess(schedule), np.linspace(0, 2, 21)
    np.testing.assert_allclose(
        process.kernel_variance(t), GeometricSchedule(2.0, 0.01, 50.0).integral(t), rtol=0.02
    )
    np.testing.assert_allclose(schedule.inverse_integral(schedule.integral(t)), t, atol=1e-12)
    assert schedule.supremum == pytest.approx(float(schedule.beta(2.0)))
    near = EDMSchedule(2.0, 1e12, 0.01, 50.0, 7.0)
    far = EDMSchedule(2.0, INF, 0.01, 50.0, 7.0)
    np.testing.assert_allclose(near.integral(t), far.integral(t), rtol=1e-8)
    with pytest.raises(ValueError, match=r"variance = 1\.0: must be inf"):
        VPProcess(schedule, 1.0)


@pytest.mark.parametrize("shape", EDMS)
@pytest.mark.parametrize("variance", [1e-3, 1.0, 50.0, INF])
def test_edm_has_its_largest_rate_where_it_says(
    variance: float, shape: tuple[float, float, float]
) -> None:
    schedule = EDMSchedule(1.7, variance, *shape)
    t = 1.7 * np.concatenate([np.geomspace(1e-12, 1, 100001), np.linspace(0, 1, 100001)])
    assert schedule.supremum >= schedule.beta(t).max() * (1 - 1e-12)  # ρ = 1000
    assert schedule.supremum == pytest.approx(schedule.beta(t).max(), rel=1e-6)


@pytest.mark.parametrize(("horizon", "variance", "steps"), [(1.0, 1.0, 1000), (2.5, 0.3, 7)])
def test_the_discrete_cosine_is_the_chain_as_printed(
    horizon: float, variance: float, steps: int
) -> None:
    """β_k = min(1 − ᾱ_k/ᾱ_{k−1}, 0.999) by a loop, and m² of the process at the times kT/K."""
    schedule = DiscreteCosineSchedule(horizon, variance, 0.008, steps, 0.999)
    process = VPProcess(schedule, variance)
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    assert betas[-1] == 0.999
    printed = np.append(1.0, np.cumprod(1 - betas))
    t = horizon * np.arange(steps + 1) / steps
    np.testing.assert_allclose(process.mean_scale(t) ** 2, printed, rtol=1e-9)
    inside = horizon * (np.arange(steps) + 0.3) / steps
    rates = -variance * steps / horizon * np.log1p(-betas)
    np.testing.assert_allclose(schedule.beta(inside), rates, rtol=1e-9)
    np.testing.assert_array_equal(schedule.beta(t[1:]), schedule.beta(inside))  # (t_{k−1}, t_k]
    assert schedule.beta(0.0) == schedule.beta(inside[0])
    assert schedule.supremum == pytest.approx(rates[-1])
    levels = schedule.integral(inside)
    np.testing.assert_allclose(schedule.inverse_integral(levels), inside, rtol=1e-12)


def test_the_discrete_cosine_tends_to_the_continuous_one() -> None:
    """At the times kT/K they agree before the last step; elsewhere up to O(1/K²)."""
    cosine, t = CosineSchedule(1.3, 0.7, 0.008, INF), 1.3 * np.linspace(0, 0.9, 301)
    errors = []
    for steps in (50, 500):
        discrete = DiscreteCosineSchedule(1.3, 0.7, 0.008, steps, 0.999)
        knots = 1.3 * np.arange(steps) / steps
        np.testing.assert_allclose(discrete.integral(knots), cosine.integral(knots), rtol=1e-12)
        errors.append(np.abs(discrete.integral(t) - cosine.integral(t)).max())
    assert 50 < errors[0] / errors[1] < 200


@given(
    location=st.floats(-100, 100),
    scale=st.floats(0.01, 10),
    clip=st.floats(1e-2, 1e6),
    variance=st.floats(1e-3, 1e3),
)
@settings(max_examples=60, deadline=None)
def test_a_clipped_rate_anywhere(
    location: float, scale: float, clip: float, variance: float
) -> None:
    """Up to three cuts: whatever they are, B and β agree with each other and with the clip."""
    try:
        schedule = LaplaceSchedule(1.0, variance, clip, location, scale)
    except ValueError as error:
        assert "clip" in str(error)  # noqa: PT017
        return
    t = np.linspace(0, 1, 401)
    rate, level = schedule.beta(t), schedule.integral(t)
    assert np.all((rate >= 0) & (rate <= clip))
    assert np.all(np.isfinite(level))
    steps = np.diff(level)
    assert np.all(steps >= 0)
    assert np.all(steps <= clip * np.diff(t) * (1 + 1e-9) + 1e-300)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SigmoidSchedule(1.0, 0.0, 20.0, -3.0, 3.0, 1.0), "variance = 0.0: must be"),
        (lambda: SigmoidSchedule(1.0, INF, 20.0, -3.0, 3.0, 1.0), "variance = inf: must be"),
        (lambda: SigmoidSchedule(1.0, 1.0, 20.0, 3.0, 3.0, 1.0), "end = 3.0: must exceed start"),
        (lambda: SigmoidSchedule(1.0, 1.0, 20.0, -3.0, 3.0, 0.0), "tau = 0.0: must be"),
        (lambda: SigmoidSchedule(1.0, 1.0, 20.0, -3.0, 3.0, 1e-3), r"start = -3.0: must lie in"),
        (lambda: SigmoidSchedule(1.0, 1.0, 0.1, 0.0, 3.0, 1.0), "clip = 0.1: must exceed the sm"),
        (lambda: SigmoidSchedule(1.0, 1.0, np.nan, 0.0, 3.0, 1.0), "clip = nan: must be"),
        (lambda: PowerCosineSchedule(1.0, 1.0, 20.0, -0.1, 1.0, 1.0), "start = -0.1: must lie in"),
        (lambda: PowerCosineSchedule(1.0, 1.0, 20.0, 0.0, 1.1, 1.0), "end = 1.1: must lie in"),
        (lambda: PowerCosineSchedule(1.0, 1.0, 20.0, 0.5, 0.5, 1.0), "end = 0.5: must exceed"),
        (lambda: PowerCosineSchedule(1.0, 1.0, 20.0, 0.0, 1.0, 0.0), "tau = 0.0: must lie in"),
        (lambda: LaplaceSchedule(1.0, 1.0, 20.0, 1e3, 0.5), "location = 1000.0: must lie in"),
        (lambda: LaplaceSchedule(1.0, 1.0, 20.0, 0.0, 0.0), "scale = 0.0: must lie in"),
        (lambda: EDMSchedule(1.0, 1.0, 80.0, 0.002, 7.0), "sigma_max = 0.002: must exceed"),
        (lambda: EDMSchedule(1.0, 1.0, -1.0, 80.0, 7.0), "sigma_min = -1.0: must be"),
        (lambda: EDMSchedule(1.0, 1.0, 0.002, 80.0, 0.1), "rho = 0.1: must lie in"),
        (lambda: EDMSchedule(1.0, -1.0, 0.002, 80.0, 7.0), "variance = -1.0: must be"),
        (lambda: DiscreteCosineSchedule(1.0, 1.0, 0.008, 0, 0.999), "steps = 0: must be"),
        (lambda: DiscreteCosineSchedule(1.0, 1.0, 0.008, 10**7, 0.999), "steps = 10000000: must"),
        (lambda: DiscreteCosineSchedule(1.0, 1.0, 0.008, 10, 1.0), "max_beta = 1.0: must lie in"),
        (lambda: DiscreteCosineSchedule(1.0, 1.0, 0.0, 10, 0.999), "offset = 0.0: must be"),
        (lambda: VPProcess(clipped(variance=2.0)[0], 1.0), "variance = 1.0: must be 2.0"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("t", [-1e-9, 1.7 * (1 + 1e-9), np.nan])
@pytest.mark.parametrize(
    "schedule",
    [
        *clipped()[::5],
        EDMSchedule(1.7, 2.0, *EDMS[0]),
        DiscreteCosineSchedule(1.7, 2.0, 0.008, 10, 0.999),
    ],
    ids=name,
)
def test_times_outside_the_horizon_are_refused(schedule: NoiseSchedule, t: float) -> None:
    for function in (schedule.beta, schedule.integral):
        with pytest.raises(ValueError, match=r"t = .*: must lie in \[0, T\]"):
            function(t)
    assert schedule.integral(1.7 * (1 + 1e-15)) == schedule.integral(1.7)


def test_an_unclipped_pole_is_infinite() -> None:
    for schedule in free(1.7, 2.0):
        if not isinstance(schedule, EDMSchedule):
            assert schedule.beta(1.7) == schedule.integral(1.7) == schedule.supremum == INF
            assert schedule.inverse_integral(INF) == 1.7
