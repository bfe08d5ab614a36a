"""Schedules with free knots and of a polynomial, against quadrature, limits and SciPy's files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from sgm.schedules import BetaSchedule, ConstantSchedule, NoiseSchedule, PolynomialSchedule
from sgm.schedules.knots import (
    IntegralSplineSchedule,
    PiecewiseLinearSchedule,
    SplineSchedule,
    schedule_file,
)

Array = npt.NDArray[np.float64]

KNOTS = (0.0, 0.1, 0.15, 0.6, 1.0)
RATES = (0.1, 5.0, 0.02, 3.0, 20.0)
LEVELS = (0.0, 1e-3, 2.0, 2.1, 9.0)


def families(horizon: float = 1.7) -> list[NoiseSchedule]:
    return [
        PiecewiseLinearSchedule(horizon, KNOTS, RATES),
        SplineSchedule(horizon, KNOTS, RATES),
        IntegralSplineSchedule(horizon, KNOTS, LEVELS),
        PolynomialSchedule(horizon, 0.3, 0.1, 20.0),
        PolynomialSchedule(horizon, 3.0, 0.1, 20.0),
    ]


def name(schedule: NoiseSchedule) -> str:
    return f"{type(schedule).__name__}-{getattr(schedule, 'exponent', '')}"


@pytest.mark.parametrize("horizon", [1e-6, 1.0, 2.5])
def test_the_polynomial_in_closed_form(horizon: float) -> None:
    t = horizon * np.array([0.0, 1e-9, 0.2, 0.7, 1.0])
    linear, own = BetaSchedule(horizon, 0.0, 0.1, 20.0), PolynomialSchedule(horizon, 1.0, 0.1, 20.0)
    np.testing.assert_allclose(own.beta(t), linear.beta(t), rtol=1e-14)
    np.testing.assert_allclose(own.integral(t), linear.integral(t), rtol=1e-14)
    for exponent in (0.01, 0.5, 7.0, 1000.0):
        own = PolynomialSchedule(horizon, exponent, 0.1, 20.0)
        assert own.supremum == own.beta(horizon) == 20.0
        # ∫₀¹ .1 + 19.9 u^p du
        assert own.integral(horizon) == pytest.approx(horizon * (0.1 + 19.9 / (exponent + 1)))


@pytest.mark.parametrize("schedule", families(), ids=name)
def test_the_integral_is_that_of_the_rate(schedule: NoiseSchedule) -> None:
    knots = 1.7 * np.array(KNOTS)
    for stop in (1e-6, 0.1, 0.2, 0.9, 1.7):
        value, _ = quad(
            schedule.beta, 0.0, stop, points=knots[knots < stop], epsabs=0, epsrel=1e-11, limit=500
        )
        assert schedule.integral(stop) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("schedule", families(), ids=name)
def test_the_supremum_is_the_largest_rate(schedule: NoiseSchedule) -> None:
    values = schedule.beta(np.linspace(0, 1.7, 100001))
    assert schedule.supremum >= values.max() * (1 - 1e-13)
    assert schedule.supremum == pytest.approx(values.max(), rel=1e-8)
    assert np.all(values >= 0)
    assert np.all(values[1:-1] > 0)


@pytest.mark.parametrize("schedule", families(), ids=name)
def test_inverse_integral_inverts(schedule: NoiseSchedule) -> None:
    times = np.array([[0.0, 1e-7, 1e-3], [0.2, 0.9, 1.7]])
    levels = schedule.integral(times)
    found = schedule.inverse_integral(levels)
    np.testing.assert_allclose(schedule.integral(found), levels, rtol=1e-13)
    np.testing.assert_allclose(found, times, rtol=1e-10)
    for level in (-0.1, 2 * levels[-1, -1]):
        with pytest.raises(ValueError, match=r"b = .*: must lie in \[0, B\(T\)\]"):
            schedule.inverse_integral(level)


@pytest.mark.parametrize("kind", [PiecewiseLinearSchedule, SplineSchedule])
def test_rates_stand_at_their_knots_and_stretch_with_the_horizon(
    kind: type[PiecewiseLinearSchedule] | type[SplineSchedule],
) -> None:
    short, long = kind(1.0, KNOTS, RATES), kind(3.0, KNOTS, RATES)
    np.testing.assert_allclose(short.beta(np.array(KNOTS)), RATES, rtol=1e-14)
    f = np.linspace(0, 1, 33)
    np.testing.assert_allclose(long.beta(3 * f), short.beta(f), rtol=1e-12)
    np.testing.assert_allclose(long.integral(3 * f), 3 * short.integral(f), rtol=1e-12)


def test_levels_stand_at_their_knots_whatever_the_horizon() -> None:
    short, long = (IntegralSplineSchedule(T, KNOTS, LEVELS) for T in (1.0, 3.0))
    np.testing.assert_allclose(short.integral(np.array(KNOTS)), LEVELS, rtol=1e-14)
    f = np.linspace(0, 1, 33)
    np.testing.assert_allclose(long.integral(3 * f), short.integral(f), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(3 * long.beta(3 * f), short.beta(f), rtol=1e-12, atol=1e-12)


def test_knots_on_a_known_schedule_reproduce_it() -> None:
    """Exact for what is constant or linear; of third order for a spline of a smooth β."""
    linear, t = BetaSchedule(1.7, 0.0, 0.1, 20.0), np.linspace(0, 1.7, 77)
    on_line = np.array(KNOTS) * 19.9 + 0.1
    for kind in (PiecewiseLinearSchedule, SplineSchedule):
        np.testing.assert_allclose(
            kind(1.7, KNOTS, on_line).integral(t), linear.integral(t), rtol=1e-13
        )
    constant = IntegralSplineSchedule(1.7, KNOTS, 1.7 * 3 * np.array(KNOTS))
    np.testing.assert_allclose(constant.beta(t), ConstantSchedule(1.7, 3.0).beta(t), rtol=1e-12)
    smooth = BetaSchedule(1.0, 3.0, 0.1, 20.0)
    errors = []
    for n in (17, 129):
        f = np.linspace(0, 1, n)
        spline = SplineSchedule(1.0, f, smooth.beta(f))
        errors.append(np.abs(spline.beta(t / 1.7) - smooth.beta(t / 1.7)).max())
    assert errors[0] / errors[1] > 8**2


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1.0), st.floats(-9, 9).map(lambda x: 10.0**x)),
        min_size=2,
        max_size=12,
    )
)
@settings(max_examples=30, deadline=None)
def test_any_knots_give_a_positive_rate_and_its_integral(points: list[tuple[float, float]]) -> None:
    """Neighbouring rates may differ by 18 orders of magnitude."""
    steps, values = np.transpose(points)
    knots = np.append(0.0, np.cumsum(steps[1:])) / np.sum(steps[1:])
    knots[-1] = 1.0
    t = np.unique(np.concatenate([np.linspace(0, 2.0, 201), 2 * knots]))
    levels = np.append(0.0, np.cumsum(np.clip(values[1:], 1e-5, 1e5)))
    for schedule in (
        PiecewiseLinearSchedule(2.0, knots, values),
        SplineSchedule(2.0, knots, values),
        IntegralSplineSchedule(2.0, knots, levels),
    ):
        rate, level = schedule.beta(t), schedule.integral(t)
        assert np.all(rate >= 0)
        assert rate.max() <= schedule.supremum * (1 + 1e-12)
        assert level[0] == 0
        assert np.all(np.diff(level) >= -1e-12 * level[-1])
        found = schedule.inverse_integral(level)
        np.testing.assert_allclose(
            schedule.integral(found), level, rtol=1e-9, atol=1e-9 * level[-1]
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SplineSchedule(1.0, (0.0, 0.5), (1.0, 2.0)), "knots = .*: must increase strictly"),
        (lambda: SplineSchedule(1.0, (0.0, 0.5, 0.5, 1.0), RATES[:4]), "knots = .*: must increase"),
        (lambda: SplineSchedule(1.0, (0.0, 1.0), (1.0, 2.0, 3.0)), "rates has 3 values: must have"),
        (lambda: SplineSchedule(1.0, (0.0, 1.0), (1.0, 0.0)), "rates = 0.0: must be positive"),
        (lambda: SplineSchedule(1.0, (0.0, 1.0), (1.0, np.nan)), "rates = nan: must be finite"),
        (lambda: SplineSchedule(1.0, (0.0,), (1.0,)), r"knots has shape \(1,\): must be"),
        (lambda: SplineSchedule(1.0, "ab", (1.0, 2.0)), "knots = 'ab': must be an array of real"),
        (lambda: PiecewiseLinearSchedule(0.0, KNOTS, RATES), "horizon = 0.0: must be"),
        (
            lambda: PiecewiseLinearSchedule(1.0, KNOTS, (-1.0, *RATES[1:])),
            "rates = -1.0: must be positive",
        ),
        (
            lambda: IntegralSplineSchedule(1.0, (0.0, 1.0), (0.1, 2.0)),
            r"levels = .*: must increase strictly from B\(0\) = 0",
        ),
        (
            lambda: IntegralSplineSchedule(1.0, KNOTS, (0.0, 1.0, 1.0, 2.0, 3.0)),
            "levels = .*: must increase strictly",
        ),
        (lambda: IntegralSplineSchedule(1.0, (0.0, 1.0), (0.0, 1e200)), "levels: must lie between"),
        (lambda: PolynomialSchedule(1.0, 0.0, 0.1, 20.0), "exponent = 0.0: must lie in"),
        (lambda: PolynomialSchedule(1.0, 1.0, 2.0, 1.0), "beta_max = 1.0: must be at least"),
        (lambda: PolynomialSchedule(1.0, 1.0, 0.0, 1.0), "beta_min = 0.0: must be"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("t", [-1e-9, 1.7 * (1 + 1e-9), np.nan])
@pytest.mark.parametrize("schedule", families(), ids=name)
def test_times_outside_the_horizon_are_refused(schedule: NoiseSchedule, t: float) -> None:
    for function in (schedule.beta, schedule.integral):
        with pytest.raises(ValueError, match=r"t = .*: must lie in \[0, T\]"):
            function(t)
    assert schedule.integral(1.7 * (1 + 1e-15)) == schedule.integral(1.7)


def write(path: Path, columns: dict[str, Sequence[float]]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".json":
        path.write_text(json.dumps({key: list(values) for key, values in columns.items()}))
    else:
        rows = [",".join(columns), *(",".join(map(repr, row)) for row in zip(*columns.values()))]  # noqa: B905
        path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".npz"])
def test_a_file_gives_the_schedule_of_its_knots(tmp_path: Path, suffix: str) -> None:
    rates = write(tmp_path / f"rates{suffix}", {"time": KNOTS, "beta": RATES})
    levels = write(tmp_path / f"levels{suffix}", {"integral": LEVELS, "time": KNOTS})
    for path, interpolation, expected in [
        (rates, "linear", PiecewiseLinearSchedule(1.7, KNOTS, RATES)),
        (rates, "monotone", SplineSchedule(1.7, KNOTS, RATES)),
        (levels, "monotone", IntegralSplineSchedule(1.7, KNOTS, LEVELS)),
    ]:
        assert schedule_file(1.7, path=str(path), interpolation=interpolation) == expected


BAD = {
    "a.txt": (b"", "must end in .csv, .json, .npz"),
    "b.csv": (b"", "must hold the columns 'time' and 'beta'.*; it has none"),
    "c.csv": (b"time,rate\n0,1\n1,2\n", "it has rate, time"),
    "d.csv": (b"time,beta\n0,1\n1\n", "line 3 has 1 cells: must have 2"),
    "e.csv": (b"time,beta\n0,one\n1,2\n", "could not convert string to float: 'one'"),
    "f.csv": (b"time,time\n0,0\n1,1\n", "must differ in their names"),
    "g.csv": (b"time,beta\n0,1\n2,3\n", "knots = .*: must increase strictly from 0 to 1"),
    "h.csv": (b"time,beta\n0,1\n1,-3\n", "rates = -3.0: must be positive"),
    "i.csv": (b"\xff\xfe\x00", "can't be read"),
    "j.json": (b"{", "Expecting property name"),
    "k.json": (b"[1]", "must hold an object with two lists"),
    "l.json": (b'{"time": [0, 1], "beta": [1, "a"]}', "rates = list: must be an array of real"),
    "m.json": (b'{"time": [0, 1], "beta": [1, NaN]}', "rates = nan: must be finite"),
    "n.npz": (b"PK", "path = "),
    "o.json": (b'{"time": [0, 1], "integral": [1, 2]}', r"levels = .*from B\(0\) = 0"),
}


@pytest.mark.parametrize("file", BAD)
def test_a_file_that_is_no_schedule_is_refused_by_name(tmp_path: Path, file: str) -> None:
    content, message = BAD[file]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"path = '.*{file}': .*{message}|{message}'.*{file}"):
        schedule_file(1.0, path=tmp_path / file, interpolation="monotone")


def test_a_file_is_not_there_or_its_columns_take_no_such_interpolation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path = '.*none\.csv': can't be read"):
        schedule_file(1.0, path=tmp_path / "none.csv", interpolation="linear")
    path = write(tmp_path / "levels.json", {"time": KNOTS, "integral": LEVELS})
    with pytest.raises(ValueError, match="interpolation = 'linear': must be 'monotone'"):
        schedule_file(1.0, path=path, interpolation="linear")
    with pytest.raises(ValueError, match="interpolation = 'cubic': must be"):
        schedule_file(1.0, path=path, interpolation="cubic")
    array = tmp_path / "array.npz"
    with array.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match="not a single array"):
        schedule_file(1.0, path=array, interpolation="linear")
