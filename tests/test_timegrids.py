"""Time grids: decreasing from T to exactly 0."""

import numpy as np
import pytest

from sgm.timegrids import quadratic, uniform


@pytest.mark.parametrize("n_steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("horizon", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("build", [uniform, quadratic])
def test_grids_decrease_from_the_horizon_to_zero(build, horizon, n_steps):
    times = build(horizon, n_steps)
    assert times.shape == (n_steps + 1,)
    assert times[0] == horizon
    assert times[-1] == 0.0
    assert np.all(np.diff(times) < 0)


def test_uniform_steps_are_equal_and_quadratic_is_its_square():
    np.testing.assert_allclose(np.diff(uniform(2.0, 50)), -0.04, rtol=1e-12)
    np.testing.assert_allclose(quadratic(1.0, 50), uniform(1.0, 50) ** 2, rtol=1e-14)


def test_grids_start_at_the_horizon_itself():
    """T·N/N is above T at T = 0.8 for N = 3, 6, …"""
    assert all(uniform(0.8, n)[0] == 0.8 for n in range(1, 200))


@pytest.mark.parametrize(
    ("horizon", "n_steps", "message"),
    [
        (1.0, 0, "n_steps = 0: must be an integer"),
        (1.0, 2.0, "n_steps = 2.0: must be an integer"),
        (np.nan, 3, "horizon = nan: must be"),
        (-1.0, 3, "horizon = -1.0: must be"),
    ],
)
@pytest.mark.parametrize("build", [uniform, quadratic])
def test_values_out_of_range_are_named(build, horizon, n_steps, message):
    with pytest.raises(ValueError, match=message):
        build(horizon, n_steps)
