"""Numbers in as many digits as their errors allow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgm.rounding import interval, rounded, significant


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.1482, 0.0091, "0.148"),  # the error begins with 3.55 or more: its first digit
        (0.1482, 0.0024, "0.1482"),  # with less: its second
        (0.0010613, 0.000034, "0.001061"),
        (123456.0, 2300.0, "123500"),
        (-1.5, 0.2, "-1.50"),
        (0.0, 0.1, "0.00"),
        (3.1e-7, 2e-9, "3.100e-07"),
        (2e-9, 3e-7, "0"),
        (0.0010613, math.nan, "0.00106"),
        (0.0010613, 0.0, "0.00106"),
        (math.nan, 1.0, ""),
        (math.inf, 1.0, ""),
    ],
)
def test_a_number_has_the_digits_of_its_error(value: float, error: float, text: str) -> None:
    assert rounded(value, error) == text


@given(
    st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9),
    st.floats(1e-9, 1e9),
)
def test_rounding_moves_a_number_by_less_than_its_error(value: float, error: float) -> None:
    moved = abs(float(rounded(value, error)) - value)
    assert moved <= 0.15 * error  # half of the last digit, of which the error has 3.55 or more


def test_an_interval_has_the_digits_of_half_its_width() -> None:
    assert interval(1.3912, 1.5731) == "[1.39, 1.57]"
    assert interval(1.7532, 2.2418) == "[1.75, 2.24]"
    assert interval(math.nan, 1.0) == interval(1.0, math.nan) == ""
    assert interval(1.0, 1.0) == "[1.00, 1.00]"


def test_zeros_that_are_significant_stay() -> None:
    assert [significant(x) for x in (1.0, 786.0, 1044.0, 99950.0, 2e6, 1.2e-5, -0.25)] == [
        "1.00", "786", "1040", "100000", "2.00e+06", "1.20e-05", "-0.250",
    ]  # fmt: skip
    assert significant(0.2, 2) == "0.20"
    assert significant(math.nan) == ""
