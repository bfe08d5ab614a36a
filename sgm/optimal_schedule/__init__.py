"""The best noise schedule: computed for a law, a sampler and N steps, with a certificate.

`find_schedule` minimises an exact divergence or a bound over B at the grid points, or a narrower
space; `best_levels` is the dynamic programme on the path KL.
"""

from sgm.optimal_schedule.dynamic import best_levels, candidates, shortest
from sgm.optimal_schedule.objectives import (
    OBJECTIVES,
    Spectrum,
    evaluate,
    require_objective,
    step_costs,
    terminal_kl,
)
from sgm.optimal_schedule.schemes import BY_RATE, SCHEMES
from sgm.optimal_schedule.search import (
    SPACES,
    NotConvergedError,
    OptimalSchedule,
    Start,
    find_schedule,
    reference_schedules,
)

__all__ = [
    "BY_RATE",
    "OBJECTIVES",
    "SCHEMES",
    "SPACES",
    "NotConvergedError",
    "OptimalSchedule",
    "Spectrum",
    "Start",
    "best_levels",
    "candidates",
    "evaluate",
    "find_schedule",
    "reference_schedules",
    "require_objective",
    "shortest",
    "step_costs",
    "terminal_kl",
]
