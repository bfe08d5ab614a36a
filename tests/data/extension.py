"""A user's file: one schedule given by its rate alone, one target, one sampler, one bound."""

import numpy as np

from sgm.gaussian import Gaussian
from sgm.registry import Variable, register
from sgm.samplers import Steps, euler_maruyama
from sgm.schedules import NumericalSchedule
from sgm.targets import LawTarget


@register("schedule", axes=["exponent"])
def power(horizon, *, exponent: float, beta_min: float, beta_max: float):
    """Polynomial schedule."""
    slope = beta_max - beta_min
    return NumericalSchedule(horizon, lambda t: beta_min + slope * (t / horizon) ** exponent)


@register("target")
def narrow(*, dimension: int, width: float):
    """N(0, width² I)."""
    return LawTarget(Gaussian.diagonal(np.zeros(dimension), np.full(dimension, width**2)))


@register("sampler")
def cold(process, times, *, temperature: float):
    """Euler-Maruyama with its noise scaled."""
    steps = euler_maruyama(process, times)
    return Steps(steps.score_time, steps.state, steps.score, temperature * steps.noise)


@register(
    "bound",
    variables=[Variable("log_horizon", ("target", "schedule", "horizon"), "log T", "1")],
)
def log_horizon(process):
    """Not a bound of anything: it shows how one is added."""
    return {"log_horizon": np.log(process.horizon)}
