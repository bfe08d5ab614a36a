"""The best noise schedule: computed for a law, a sampler and N steps, with a certificate.

`find_schedule` minimises an exact divergence or a bound over B at the grid points, or a narrower
space; `find_steps` finds the least N that reaches an error; `best_levels` is the dynamic programme
on the path KL, `gits_levels` that on errors of the flow.
"""

from sgm.optimal_schedule.dynamic import (
    best_levels,
    candidates,
    flow_costs,
    gits_levels,
)
from sgm.optimal_schedule.objectives import (
    OBJECTIVES,
    Spectrum,
    evaluate,
    require_objective,
    step_costs,
    terminal_kl,
)
from sgm.optimal_schedule.programs import PROGRAMS
from sgm.optimal_schedule.schemes import BY_RATE, SCHEMES
from sgm.optimal_schedule.search import (
    NEGLIGIBLE,
    SPACES,
    NotConvergedError,
    OptimalSchedule,
    Start,
    find_schedule,
    find_steps,
    reference_schedules,
)
from sgm.timegrids.chains import shortest

__all__ = [
    "BY_RATE",
    "NEGLIGIBLE",
    "OBJECTIVES",
    "PROGRAMS",
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
    "find_steps",
    "flow_costs",
    "gits_levels",
    "reference_schedules",
    "require_objective",
    "shortest",
    "step_costs",
    "terminal_kl",
]
