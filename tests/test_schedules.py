"""β and B of each family against high-precision references and each other."""

from collections.abc import Callable

import mpmath as mp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgm.run.properties.schedules import PROPERTIES
from sgm.schedules import (
    BetaSchedule,
    ConstantSchedule,
    CosineSchedule,
    GeometricSchedule,
    NoiseSchedule,
    NumericalSchedule,
    TruncatedSchedule,
)

Array = npt.NDArray[np.float64]

SHAPES = [-700.0, -40.0, -10.0, -1.0, -1e-3, -1e-9, 0.0, 1e-12, 1e-5, 0.5, 3.0, 31.0, 200.0, 700.0]


def reference(a: float, horizon: float, low: float, high: float, t: float) -> tuple[float, float]:
    """(β, B) of β_a at 400 digits, straight from the definition."""
    with mp.workdps(400):
        a, T, low, high, t = (mp.mpf(x) for x in (a, horizon, low, high, t))
        if a == 0:
            ratio, integral = t / T, t**2 / (2 * T)
        else:
            ratio = mp.expm1(a * t) / mp.expm1(a * T)
            integral = (mp.expm1(a * t) / a - t) / mp.expm1(a * T)
        return float(low + (high - low) * ratio), float(low * t + (high - low) * integral)


@pytest.mark.parametrize("horizon", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("a", SHAPES)
def test_beta_family_matches_400_digits(a: float, horizon: float) -> None:
    schedule = BetaSchedule(horizon, a, 0.1, 20.0)
    times = horizon * np.array([0.0, 1e-9, 1e-3, 0.05, 0.3, 0.5, 0.7, 0.99, 1.0])
    beta, integral = np.transpose([reference(a, horizon, 0.1, 20.0, t) for t in times])
    np.testing.assert_allclose(schedule.beta(times), beta, rtol=2e-13)
    np.testing.assert_allclose(schedule.integral(times), integral, rtol=2e-13)


@given(a=st.floats(-700, 700), t=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_beta_family_anywhere(a: float, t: float) -> None:
    schedule = BetaSchedule(1.0, a, 0.1, 20.0)
    beta, integral = reference(a, 1.0, 0.1, 20.0, t)
    assert schedule.beta(t) == pytest.approx(beta, rel=1e-12)
    assert schedule.integral(t) == pytest.approx(integral, rel=1e-12)


def test_beta_family_is_continuous_across_zero() -> None:
    times = np.linspace(0, 1, 11)
    linear = BetaSchedule(1.0, 0.0, 0.1, 20.0)
    for a in (1e-300, -1e-300, 1e-14, -1e-14):
        near = BetaSchedule(1.0, a, 0.1, 20.0)
        np.testing.assert_allclose(near.integral(times), linear.integral(times), rtol=1e-13)
        np.testing.assert_allclose(near.beta(times), linear.beta(times), rtol=1e-13)


@pytest.mark.parametrize("a", SHAPES)
def test_beta_family_is_increasing_between_its_ends(a: float) -> None:
    schedule = BetaSchedule(2.0, a, 0.1, 20.0)
    values = schedule.beta(np.linspace(0, 2, 201))
    assert np.all(np.diff(values) >= 0)
    assert values[0] == pytest.approx(0.1)
    assert values[-1] == schedule.supremum == pytest.approx(20.0)


def families() -> list[NoiseSchedule]:
    return [
        *(BetaSchedule(1.7, a, 0.1, 20.0) for a in (-700.0, -10.0, 0.0, 1e-6, 5.0, 700.0)),
        ConstantSchedule(1.7, 3.0),
        CosineSchedule(1.7, 2.0, 0.008, 20.0),
        NumericalSchedule(1.7, lambda t: 1 + np.sin(3 * t) ** 2),
        GeometricSchedule(1.7, 0.01, 50.0),
        TruncatedSchedule(1.7, BetaSchedule(2.0, 3.0, 0.1, 20.0)),
    ]


def name(schedule: NoiseSchedule) -> str:
    return f"{type(schedule).__name__}-{getattr(schedule, 'a', '')}"


@pytest.mark.parametrize("schedule", families(), ids=name)
def test_inverse_integral_inverts(schedule: NoiseSchedule) -> None:
    times = schedule.horizon * np.array([[0.0, 1e-7, 1e-3], [0.2, 0.9, 1.0]])
    levels = schedule.integral(times)
    found = schedule.inverse_integral(levels)
    np.testing.assert_allclose(schedule.integral(found), levels, rtol=1e-13)
    np.testing.assert_allclose(found, times, rtol=1e-10)


def test_the_inverse_of_an_integral_without_bound() -> None:
    schedule = CosineSchedule(1.0, 1.0, 0.008, np.inf)
    levels = schedule.integral(np.array([0.0, 0.5, 1.0]))
    assert levels[-1] == np.inf
    np.testing.assert_allclose(schedule.inverse_integral(levels), [0.0, 0.5, 1.0], rtol=1e-13)
    assert schedule.inverse_integral(np.inf) == 1.0


def test_an_integral_that_has_no_inverse_is_refused() -> None:
    class Broken(ConstantSchedule):
        def integral(self, t: npt.ArrayLike) -> Array:
            return np.where(self.times(t) % 1.0 == 0, self.times(t), np.nan)

    with pytest.raises(RuntimeError, match=r"b = 0\.3: no time with"):
        Broken(1.0, 1.0).inverse_integral(0.3)


@pytest.mark.parametrize("level", [-0.1, 31.0])
def test_inverse_integral_refuses_what_is_never_reached(level: float) -> None:
    with pytest.raises(ValueError, match=r"b = .*: must lie in \[0, B\(T\)\]"):
        ConstantSchedule(1.0, 30.0).inverse_integral(level)


@pytest.mark.parametrize("schedule", families()[6:8], ids=name)
def test_numerical_schedule_reproduces_closed_forms(schedule: NoiseSchedule) -> None:
    numerical = NumericalSchedule(schedule.horizon, schedule.beta)
    times = np.linspace(0, schedule.horizon, 37)
    # the cosine's clip is a kink: the error of its panel is O(width²) = 1e-5
    np.testing.assert_allclose(numerical.integral(times), schedule.integral(times), atol=2e-5)


def test_numerical_schedule_is_exact_for_smooth_rates() -> None:
    schedule = BetaSchedule(1.3, 4.0, 0.1, 20.0)
    numerical = NumericalSchedule(1.3, schedule.beta)
    times = np.linspace(0, 1.3, 37)
    np.testing.assert_allclose(numerical.integral(times), schedule.integral(times), rtol=1e-13)
    assert numerical.supremum == pytest.approx(20.0)
    falling = NumericalSchedule(1.0, lambda t: 3 - 2 * t)
    assert falling.supremum == pytest.approx(3.0)


@pytest.mark.parametrize(("horizon", "variance"), [(1.0, 1.0), (2.5, 0.5), (0.7, 4.0)])
def test_cosine_prescribes_the_mean_scale_and_clips(horizon: float, variance: float) -> None:
    free = CosineSchedule(horizon, variance, 0.008, np.inf)
    clipped = CosineSchedule(horizon, variance, 0.008, 20.0)
    angle = np.pi / 2 * (np.linspace(0, 0.9, 10) + 0.008) / 1.008
    times = horizon * np.linspace(0, 0.9, 10)
    prescribed = np.cos(angle) ** 2 / np.cos(np.pi / 2 * 0.008 / 1.008) ** 2
    np.testing.assert_allclose(np.exp(-free.integral(times) / variance), prescribed, rtol=1e-12)
    assert free.clip_time == pytest.approx(horizon)
    t_c = clipped.clip_time
    assert 0 < t_c < horizon
    assert free.beta(t_c) == pytest.approx(20.0)
    with mp.workdps(30):
        rate = variance * mp.pi / (horizon * mp.mpf("1.008"))
        beta = lambda t: min(rate * mp.tan(mp.pi / 2 * (t / horizon + 0.008) / 1.008), 20)  # noqa: E731
        whole = float(mp.quad(beta, [0, t_c, horizon]))
    assert clipped.integral(horizon) == pytest.approx(whole, rel=1e-12)
    assert clipped.supremum == 20.0


def test_cosine_keeps_its_digits_at_small_times() -> None:
    schedule = CosineSchedule(1.0, 1.0, 0.008, 20.0)
    with mp.workdps(40):
        angle = lambda t: mp.pi / 2 * (mp.mpf(t) + mp.mpf(0.008)) / (1 + mp.mpf(0.008))  # noqa: E731
        value = float(-2 * mp.log(mp.cos(angle(1e-9)) / mp.cos(angle(0))))
    assert schedule.integral(1e-9) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
@pytest.mark.parametrize("schedule", families(), ids=name)
def test_a_schedule_has_its_properties(
    schedule: NoiseSchedule, prop: Callable[[NoiseSchedule], str]
) -> None:
    assert prop(schedule)


@pytest.mark.parametrize(("horizon", "low", "high"), [(1.0, 0.01, 50.0), (2.5, 0.1, 0.2)])
def test_geometric_noise_grows_by_equal_factors(horizon: float, low: float, high: float) -> None:
    """B(t) + σ_min² is the square of σ_min (σ_max/σ_min)^{t/T}."""
    schedule, fraction = GeometricSchedule(horizon, low, high), np.linspace(0, 1, 9)
    root = np.sqrt(schedule.integral(horizon * fraction) + low**2)
    np.testing.assert_allclose(root, low ** (1 - fraction) * high**fraction, rtol=1e-12)
    assert schedule.integral(1e-12 * horizon) == pytest.approx(
        1e-12 * horizon * float(schedule.beta(0.0)), rel=1e-9
    )
    assert schedule.supremum == pytest.approx(2 * np.log(high / low) * high**2 / horizon)


def test_truncated_schedule_is_the_family_that_grows_as_slowly() -> None:
    """Linear and geometric schedules stopped early are schedules of their own families."""
    t = np.linspace(0, 0.6, 7)
    for whole, own in [
        (BetaSchedule(1.0, 0.0, 0.1, 20.0), BetaSchedule(0.6, 0.0, 0.1, 0.1 + 0.6 * 19.9)),
        (GeometricSchedule(1.0, 0.1, 10.0), GeometricSchedule(0.6, 0.1, 0.1 * 100**0.6)),
    ]:
        truncated = TruncatedSchedule(0.6, whole)
        np.testing.assert_allclose(truncated.beta(t), own.beta(t), rtol=1e-12)
        np.testing.assert_allclose(truncated.integral(t), own.integral(t), rtol=1e-12)
        assert truncated.supremum == pytest.approx(own.supremum)
    hump = NumericalSchedule(2.0, lambda t: 2 - (t - 1) ** 2)
    assert TruncatedSchedule(1.5, hump).supremum == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BetaSchedule(0.0, 1.0, 0.1, 20.0), "horizon = 0.0: must be"),
        (lambda: BetaSchedule(np.inf, 1.0, 0.1, 20.0), "horizon = inf: must be"),
        (lambda: BetaSchedule(1.0, np.nan, 0.1, 20.0), "a = nan: must be"),
        (lambda: BetaSchedule(1.0, 1.0, -0.1, 20.0), "beta_min = -0.1: must be"),
        (lambda: BetaSchedule(1.0, 1.0, 0.1, np.nan), "beta_max = nan: must be"),
        (lambda: BetaSchedule(1.0, 1.0, 2.0, 1.0), "beta_max = 1.0: must be at least beta_min"),
        (lambda: ConstantSchedule(1.0, -1.0), "rate = -1.0: must be"),
        (lambda: CosineSchedule(1.0, 0.0, 0.008, 20.0), "variance = 0.0: must be"),
        (lambda: CosineSchedule(1.0, 1.0, 0.0, 20.0), "offset = 0.0: must be"),
        (lambda: CosineSchedule(1.0, 1.0, 0.008, 0.01), "clip = 0.01: must exceed"),
        (lambda: GeometricSchedule(1.0, 0.0, 1.0), "sigma_min = 0.0: must be"),
        (lambda: GeometricSchedule(1.0, 2.0, 2.0), "sigma_max = 2.0: must exceed sigma_min"),
        (
            lambda: TruncatedSchedule(1.5, ConstantSchedule(1.0, 2.0)),
            "horizon = 1.5: must be at most 1.0",
        ),
        (lambda: NumericalSchedule(1.0, lambda t: t - 0.5), r"beta\(.*must be positive"),
        (lambda: NumericalSchedule(1.0, lambda t: 1 / np.maximum(1 - t, 0)), r"beta\(1\) = "),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("offset", [k / 1000 for k in range(1, 1000, 7)] + [0.284])
def test_the_cosine_is_clipped_at_the_pole_of_its_tangent(offset: float) -> None:
    """Every offset: π/2 (1 + s)/(1 + s) rounds to above π/2 for some of them."""
    assert CosineSchedule(1.0, 1.0, offset, 20.0).beta(1.0) == 20.0
    free = CosineSchedule(1.0, 1.0, offset, np.inf)
    assert free.beta(1.0) == free.integral(1.0) == free.supremum == np.inf


@pytest.mark.parametrize("t", [-1e-9, 1.7 * (1 + 1e-9), np.nan])
@pytest.mark.parametrize("schedule", families(), ids=name)
def test_times_outside_the_horizon_are_refused(schedule: NoiseSchedule, t: float) -> None:
    for function in (schedule.beta, schedule.integral):
        with pytest.raises(ValueError, match=r"t = .*: must lie in \[0, T\]"):
            function(t)
    # rounding past T is no time past T
    assert schedule.integral(1.7 * (1 + 1e-15)) == schedule.integral(1.7)
