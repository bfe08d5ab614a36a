"""The tables of docs/best-schedule.md: ``python docs/best_schedules.py`` writes them into the page.

Each cell is an optimum of the exact KL over the N increments of B, beside the usual schedules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sgm import targets
from sgm.gaussian import Gaussian
from sgm.optimal_schedule import (
    BY_RATE,
    NotConvergedError,
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
SAMPLERS = ("exponential_integrator_modified", "ancestral", "ddim", "euler_maruyama")
STEPS = (5, 10, 20, 50, 100, 500)
#: Of Euler schemes, whose searches of 500 steps take minutes.
FEWER = STEPS[:-1]


def row(target: str, law: Gaussian, sampler: str, n_steps: int) -> str:
    """A line of a table: what each schedule costs, and the best one's B(T)."""
    try:
        found = find_schedule(law, n_steps=n_steps, sampler=sampler)
    except NotConvergedError:
        return f"| {target} | {n_steps} | no optimum found | | | | | | | |"
    best = found.references["best_beta_a"]
    cells = (
        _short(found.references["vp_linear"]),
        f"{_short(best)} ({found.best_a:.1f})",
        _short(found.references["cosine"]),
        _short(found.starts["dynamic_programming"].before),
        gits(law, sampler, n_steps),
        f"**{_short(found.value)}** ({found.integral[-1]:.1f})",
        f"{100 * (best / found.value - 1):.0f} %",
        f"{found.agreeing} of {len(found.starts)}",
    )
    return f"| {target} | {n_steps} | {' | '.join(cells)} |"


def gits(law: Gaussian, sampler: str, n_steps: int) -> str:
    """KL at the levels of GITS; under Euler schemes β is constant on each step."""
    spectrum = Spectrum.of(law, 1.0)
    return _short(evaluate("kl", spectrum, gits_levels(spectrum, n_steps), sampler)[0])


def _short(value: float) -> str:
    return f"{value:.3g}"


def table(sampler: str, steps: Sequence[int] | None = None) -> Iterator[str]:
    """The lines of a sampler's table, for all numbers of steps if none are given."""
    if steps is None:
        steps = FEWER if sampler in BY_RATE else STEPS
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
        parts.append(f"`{sampler}`:\n\n" + "\n".join(table(sampler)) + "\n")
    PAGE.write_text(head + MADE + "\n" + "\n".join(parts) + "\n" + END + tail)


if __name__ == "__main__":
    main()
