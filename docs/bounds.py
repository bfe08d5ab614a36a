"""The tables of docs/bounds.md: ``python docs/bounds.py`` writes them into the page.

One has how fast errors and bounds fall with N, from the published study `rates`; the other the
bound for mixtures beside W₂ on the line, at the settings of config/studies/bounds.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import sgm
from sgm import samplers
from sgm.bounds import brosse_dalalyan_w2_bound, mixture_w2_bound
from sgm.densities import GaussianMixture
from sgm.line import w2_on_the_line
from sgm.processes import VPProcess
from sgm.samplers import Steps
from sgm.schedules import BetaSchedule
from sgm.timegrids import uniform

PAGE = Path(__file__).parent / "bounds.md"
MADE, END = "<!-- made by docs/bounds.py -->\n", "<!-- end of what it made -->\n"

#: Those of config/studies/bounds.yaml on the line: weights, means, variances.
PAIRS = {
    "`close`: means ±0.5, variances 0.5": ([0.4, 0.6], [-0.5, 0.5], [0.5, 0.5]),
    "`widths`: means ±0.5, variances 0.2, 0.5": ([0.3, 0.7], [-0.5, 0.5], [0.2, 0.5]),
    "`apart`: means ±1, variances 0.25": ([0.4, 0.6], [-1.0, 1.0], [0.25, 0.25]),
}
SAMPLERS = {"modified": samplers.exponential_integrator_modified, "DDIM": samplers.ddim}
N_STEPS, DRAWS = 50, 300
RATES = {
    "KL, `exponential_integrator_modified`": ("kl_exact", "exponential_integrator_modified"),
    "KL, `ancestral`": ("kl_exact", "ancestral"),
    "KL, `ddim`": ("kl_exact", "ddim_eta=0"),
    "KL, `heun`": ("kl_exact", "heun"),
    "path KL": ("kl_path", "exponential_integrator_modified"),
    "refined bound": ("kl_bound_refined", "exponential_integrator_modified"),
    "E1 + E2 + E3": ("kl_bound", "exponential_integrator_modified"),
}


def rates() -> Iterator[str]:
    """d log y/d log N of the error and of its bounds, under VP linear."""
    grid = sgm.load_published("rates").sel(schedule="beta_a=0").squeeze(drop=True)
    spans = [(10, 100), (100, 1000), (1000, 2000)]
    yield "| | " + " | ".join(f"N = {a} to {b}" for a, b in spans) + " |"
    yield "| --- |" + " ---: |" * len(spans)
    for label, (name, sampler) in RATES.items():
        y = grid[name].sel(sampler=sampler) if "sampler" in grid[name].dims else grid[name]
        slopes = [np.log(y.sel(n_steps=b) / y.sel(n_steps=a)) / np.log(b / a) for a, b in spans]
        yield f"| {label} | " + " | ".join(_between(s.values, ".2f") for s in slopes) + " |"


def mixtures() -> Iterator[str]:
    """The bound for mixtures over W₂ of the output, over a = −10, 0, 5, 10."""
    yield (
        "| target | sampler | W2 | bound/W2 | Π L_k | standard error, relative | "
        "`w2_brosse_dalalyan`/W2 |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for label, (weights, means, variances) in PAIRS.items():
        law = GaussianMixture(weights, np.c_[means], np.c_[variances])
        for i, (sampler, build) in enumerate(SAMPLERS.items()):
            found = np.array([_mixture(law, a, build) for a in (-10.0, 0.0, 5.0, 10.0)]).T
            error, ratio, growth, relative, universal = found
            yield (
                f"| {'' if i else label} | {sampler} | {_between(error, '.3f')} | "
                f"{_between(ratio, '.1f')} | {_between(growth, '.2g')} | "
                f"{_between(100 * relative, '.1f')} % | {_between(universal, '.0f')} |"
            )


def _mixture(law: GaussianMixture, a: float, build: Callable[..., Steps]) -> tuple[float, ...]:
    process = VPProcess(BetaSchedule(1.0, a, 0.1, 20.0))
    times = uniform(1.0, N_STEPS)
    steps = build(process, times)
    exact = {"score_mse_generated": np.zeros(N_STEPS)}
    rng = np.random.default_rng(0)
    found = mixture_w2_bound(process, law, times, steps, rng, DRAWS, **exact)
    error = w2_on_the_line(process, law, steps)
    universal = np.nan
    if build is samplers.ddim:  # the one that this theorem is about
        bound = brosse_dalalyan_w2_bound(process, law, times, steps, **exact)
        universal = float(bound.total) / error
    told = (float(found.total) / error, float(found.growth))
    return error, *told, float(found.standard_error / found.total), universal


def _between(values: np.ndarray, form: str) -> str:
    """Least and greatest; one where they round to the same."""
    if np.isnan(values).any():
        return "–"
    low, high = (f"{value:{form}}".replace("-", "−") for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def page(text: str) -> str:
    """The page with its tables made anew."""
    tables = iter("\n".join(table()) for table in (mixtures, rates))
    head, *rest = text.split(MADE)
    return head + "".join(f"{MADE}\n{next(tables)}\n\n{END}{part.split(END)[1]}" for part in rest)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
