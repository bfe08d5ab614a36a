"""Numbers in as many digits as their errors allow.

The last digit is that of the error's second significant digit if the error begins with less than
3.55, else of its first: 0.1482 ± 0.0091 is 0.148, and 0.1482 ± 0.0024 is 0.1482. Without an error,
as of an exact value, there are three significant digits.

Sources
-------
The rounding rule of the Particle Data Group (Review of Particle Physics, Introduction, 5.3).
"""

from __future__ import annotations

import math

__all__ = ["interval", "rounded", "significant"]

#: Magnitudes that are written without an exponent.
PLAIN = (1e-4, 1e6)


def rounded(value: float, error: float = math.nan) -> str:
    """A number as text; empty if it is not finite.

    Parameters
    ----------
    value : float
    error : float
        Its standard error or half the width of its interval; none counts that is 0 or not finite.

    Examples
    --------
    >>> rounded(0.0010613, 0.000034), rounded(0.0010613), rounded(3.1e-7, 2e-9)
    ('0.001061', '0.00106', '3.100e-07')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return significant(value)
    place = math.floor(math.log10(error))
    last = place - (error < 3.55 * 10.0**place)
    value = round(value, -last)
    if PLAIN[0] <= max(abs(value), error) < PLAIN[1]:
        return f"{value:.{max(0, -last)}f}"
    return f"{value:.{max(0, math.floor(math.log10(abs(value))) - last)}e}" if value else "0"


def significant(value: float, digits: int = 3) -> str:
    """A number in some significant digits, zeros among them; empty if it is not finite."""
    if not math.isfinite(value):
        return ""
    if 10**digits <= abs(value) < PLAIN[1]:
        return f"{float(f'{value:.{digits}g}'):.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def interval(low: float, high: float) -> str:
    """An interval as text, ``[1.75, 2.24]``, rounded as half its width allows; empty without."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    half = (high - low) / 2
    return f"[{rounded(low, half)}, {rounded(high, half)}]"
