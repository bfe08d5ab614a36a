"""The tables of docs/best-schedule.md: ``python docs/best_schedules.py`` writes them into the page.

Each cell is an optimum of the exact KL over the N increments of B, beside the usual schedules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sgm import targets
from sgm.gaussian import Gaussian
from sgm.optimal_schedule import (
    BY_RATE,
    NEGLIGIBLE,
    PROGRAMS,
    NotConvergedError,
    OptimalSchedule,
    Spectrum,
    evaluate,
    find_schedule,
    gits_levels,
)

PAGE = Path(__file__).parent / "best-schedule.md"
MADE, END = "<!-- made by docs/best_schedules.py -->\n", "<!-- end of what it made -->\n"

LAWS = {
    "isotropic": targets.isotropic(50, 1.0, 0.5).law,
    "correlated": targets.correlated(50, 1.0, 1.0).law,
    "heteroscedastic": targets.heteroscedastic_slides(50, 1.0).law,
}
#: Of one stage a step, then of several or with memory.
SAMPLERS: dict[str, dict[str, Any]] = {
    "exponential_integrator_modified": {},
    "ancestral": {},
    "ddim": {},
    "euler_maruyama": {},
    "heun": {},
    "dpm_solver_pp_2m": {"eta": 0.0},
    "unipc": {},
}
STEPS = (5, 10, 20, 50, 100, 500)


def steps_of(sampler: str) -> Sequence[int]:
    """Euler schemes and programs take minutes for more."""
    if sampler in PROGRAMS:
        return STEPS[:3]
    return STEPS[:-1] if sampler in BY_RATE else STEPS


def row(target: str, law: Gaussian, sampler: str, n_steps: int) -> str:
    """A line of a table: what each schedule costs, and the best one's B(T)."""
    try:
        found = find_schedule(
            law, n_steps=n_steps, sampler=sampler, sampler_parameters=SAMPLERS[sampler]
        )
    except NotConvergedError:
        return f"| {target} | {n_steps} | no optimum found | | | | | | | |"
    best = found.references["best_beta_a"]
    cells = (
        _short(found.references["vp_linear"]),
        f"{_short(best)} ({found.best_a:.1f})",
        _short(found.references["cosine"]),
        _short(found.starts["dynamic_programming"].before),
        gits(law, sampler, n_steps),
        f"**{_least(found)}** ({found.integral[-1]:.1f})",
        ("> " if found.value < negligible(found) else "")
        + _excess(best / max(found.value, negligible(found))),
        f"{found.agreeing} of {len(found.starts)}",
    )
    return f"| {target} | {n_steps} | {' | '.join(cells)} |"


def gits(law: Gaussian, sampler: str, n_steps: int) -> str:
    """KL at the levels of GITS; under Euler schemes β is constant on each step."""
    spectrum = Spectrum.of(law, 1.0)
    levels = gits_levels(spectrum, n_steps)
    return _short(evaluate("kl", spectrum, levels, sampler, parameters=SAMPLERS[sampler])[0])


def negligible(found: OptimalSchedule) -> float:
    """Below it the search of a program stops."""
    return NEGLIGIBLE["kl"] if found.sampler in PROGRAMS else 0.0


def _least(found: OptimalSchedule) -> str:
    floor = negligible(found)
    return f"< {floor:g}" if found.value < floor else _short(found.value)


def _excess(times: float) -> str:
    return f"{100 * (times - 1):.0f} %" if times < 20 else f"{times:.1g} times"


def _short(value: float) -> str:
    return f"{value:.3g}"


def table(sampler: str, steps: Sequence[int] | None = None) -> Iterator[str]:
    """The lines of a sampler's table, for all numbers of steps if none are given."""
    if steps is None:
        steps = steps_of(sampler)
    yield (
        "| target | N | VP linear | best β_a (a) | cosine | DP on the path KL | GITS | "
        "optimum (B(T)) | best β_a costs more | starts that agree |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for target, law in LAWS.items():
        for n_steps in steps:
            yield row(target, law, sampler, n_steps)


def main() -> None:
    """Write the tables between the marks of the page."""
    text = PAGE.read_text()
    head, rest = text.split(MADE)
    _, tail = rest.split(END)
    parts = []
    for sampler in SAMPLERS:
        print(sampler, file=sys.stderr)
        choices = "".join(f", {key} = {value:g}" for key, value in SAMPLERS[sampler].items())
        parts.append(f"`{sampler}`{choices}:\n\n" + "\n".join(table(sampler)) + "\n")
    PAGE.write_text(head + MADE + "\n" + "\n".join(parts) + "\n" + END + tail)


if __name__ == "__main__":
    main()
