"""The picture of a family: few numbers, drawn when the site is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sgm import samplers, scores, targets, timegrids
from sgm.gaussian import Gaussian, kl_divergence
from sgm.kinetic import KineticProcess
from sgm.laws import sampler_law
from sgm.processes import Process, VEProcess, VPProcess
from sgm.registry import Entry
from sgm.run.build import build_process, build_steps, build_target, build_times
from sgm.schedules import BetaSchedule
from sgm.study.items import Item
from sgm.targets import LawTarget

__all__ = ["Picture", "picture"]

ROOT = Path(__file__).parents[2]
VP = {"build": "sgm.processes:VPProcess", "parameters": {"variance": 1.0}}
LINEAR = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
#: Positions N(0, 1) at last, as VP; the clock is such that nothing is left of the data.
KINETIC = KineticProcess(BetaSchedule(1.0, 0.0, 0.1, 10.0))
LAW = targets.correlated(dimension=50, mean=1.0, offset=1.0).law
assert isinstance(LAW, Gaussian)
#: Equal numbers draw equal bytes.
STYLE = {
    "svg.hashsalt": "sgm", "svg.fonttype": "path", "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


class Picture(NamedTuple):
    """Where a picture stands, and what it shows."""

    path: Path
    alt: str
    caption: str


def picture(kind: str, entry: Entry, items: Sequence[Item], folder: Path) -> Picture | None:
    """Draw a family, with the parameters of a study; None if there is nothing to draw."""
    draw: Callable[[Sequence[Item], Figure], str] | None = DRAWN.get(kind)
    if draw is None:
        return _published(entry)
    if not Path(getattr(items[0].parameters, "path", ROOT)).exists():
        return None  # a file of the user's
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 2.6), layout="constrained")
        caption = draw(items, figure)
        path = folder / f"{entry.name}.svg"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return Picture(path, f"{entry.name}: {caption.split(':')[0]}", caption)


def _schedule(items: Sequence[Item], figure: Figure) -> str:
    rate, laws = figure.subplots(1, 2)
    t = np.linspace(0.0, 1.0, 301)
    chosen = _few(items)
    for place, item in enumerate(chosen):
        process = build_process(VP, item.spec, 1.0)
        if process.schedule.process_variance == np.inf or item.family == "geometric":
            process = VEProcess(process.schedule)
        beta = process.schedule.beta(t)
        rate.plot(t, beta, color=f"C{place}", label=_label(item))
        laws.plot(t, process.mean_scale(t), color=f"C{place}")
        laws.plot(t, process.std(t), color=f"C{place}", linestyle="--")
    rate.set(xlabel="t", ylabel="β(t)", yscale="log")
    laws.set(xlabel="t", ylabel="m(t), and √v(t) dashed")
    if len(chosen) > 1:
        rate.legend(fontsize=8)
    return (
        "rate, mean scale and standard deviation: β(t) on the left, on the right m(t) and, "
        "dashed, √v(t); T = 1, σ² = 1."
    )


def _time_grid(items: Sequence[Item], figure: Figure) -> str:
    times, levels = figure.subplots(1, 2)
    chosen = _few(items)
    for row, item in enumerate(chosen):
        tau = build_times(item.spec, LINEAR, 10, LAW)
        mark = {"color": f"C{row}", "markersize": 14, "markeredgewidth": 1.5}
        times.plot(tau, np.full(11, row), "|", **mark)
        inside = tau[tau > 0]
        noise = LINEAR.std(inside) / LINEAR.mean_scale(inside)
        levels.plot(noise, np.full(len(noise), row), "|", **mark)
    labels = [_label(item) for item in chosen]
    times.set(xlabel="t", ylim=(-0.6, len(chosen) - 0.4), xlim=(-0.02, 1.02))
    times.set_yticks(range(len(chosen)), labels)
    levels.set(xlabel="noise level σ = √v/m", xscale="log", ylim=(-0.6, len(chosen) - 0.4))
    levels.set_yticks([])
    return (
        "times and noise levels of ten steps: under the linear schedule; where the grid needs a "
        "law, of the correlated target in d = 50. The last time, 0, has no noise level."
    )


def _target(items: Sequence[Item], figure: Figure) -> str:
    generator = np.random.default_rng(0)
    target: Any = build_target(items[0].spec)
    if target.image_shape is not None and not isinstance(target, LawTarget):
        rows = target.restore(target.sample(16, generator)).reshape(-1, *target.image_shape)
        for place, axes in enumerate(figure.subplots(2, 8).flat):
            axes.imshow(rows[place], cmap="gray_r")
            axes.axis("off")
        return "sixteen rows as images: draws of the target."
    if isinstance(target, LawTarget):
        sample = target.sample(1000, generator)
    else:
        sample, _ = target.split(generator)
    plane, spectrum = figure.subplots(1, 2)
    if target.dimension > 1:
        plane.plot(sample[:, 0], sample[:, 1], ".", markersize=2)
        plane.set(xlabel="x₁", ylabel="x₂", aspect="equal", adjustable="datalim")
    else:
        plane.hist(sample[:, 0], bins=60)
        plane.set(xlabel="x₁", ylabel="rows")
    values = np.sort(target.reference.eigenvalues)[::-1]
    spectrum.plot(np.arange(1, len(values) + 1), values, ".", markersize=4)
    spectrum.set(xlabel="direction", ylabel="variance", yscale="log")
    return (
        f"{len(sample)} rows and the spectrum: the first two coordinates, and the eigenvalues of "
        f"the covariance, d = {target.dimension}."
    )


def _sampler(items: Sequence[Item], figure: Figure) -> str:
    axes = figure.subplots(1, 1)
    chosen = _few(items)

    def curve(
        process: Process, build: Callable[[np.ndarray], samplers.Steps]
    ) -> tuple[list[int], list[float]]:
        score, prior = scores.exact(process, LAW), process.prior(LAW.dimension)
        evaluations, errors = [], []
        for n_steps in (5, 10, 20, 40, 80, 160):
            steps = build(timegrids.quadratic(1.0, n_steps))
            evaluations.append(steps.nfe)
            errors.append(float(kl_divergence(LAW, sampler_law(steps, score, prior))))
        return evaluations, errors

    own = KINETIC if chosen[0].entry.process == "kinetic" else LINEAR
    for item in chosen:
        x, y = curve(own, lambda times, item=item: build_steps(item.spec, own, times))
        axes.plot(x, y, ".-", label=_label(item))
    x, y = curve(LINEAR, lambda times: samplers.exponential_integrator_modified(LINEAR, times))
    axes.plot(x, y, color="0.6", linewidth=1, label="exponential_integrator_modified")
    axes.set(xlabel="evaluations of the score", ylabel="KL, nats", xscale="log", yscale="log")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return (
        "exact KL against evaluations: N = 5 to 160 on the quadratic grid, linear schedule, exact "
        "score of the correlated target in d = 50. Grey: the scheme of the KL theorem. Where a "
        "curve levels off, the error of starting at the prior is left."
    )


def _published(entry: Entry) -> Picture | None:
    """A figure of a published study that shows a divergence or a bound."""
    stems = []
    for variable in entry.variables:
        if variable.about.get("role") == "divergence":
            stems.append(variable.about["figure"])
        elif variable.about.get("role") == "bound":
            stems += [variable.name.replace("_bound", "") + "_decomposition"]
    for stem in stems:
        found = sorted((ROOT / "published").glob(f"*/figures/{stem}/correlated.png"))
        found += sorted((ROOT / "published").glob(f"*/figures/{stem}/*.png"))
        if found:
            study = found[0].relative_to(ROOT / "published").parts[0]
            caption = f"From the published study {study}: figure {stem}, {found[0].stem}."
            return Picture(found[0], f"{entry.name} in the study {study}", caption)
    return None


def _few(items: Sequence[Item]) -> Sequence[Item]:
    """Five at most, the ends among them."""
    if len(items) <= 5:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, 5).round().astype(int)]


def _label(item: Item) -> str:
    return item.label


DRAWN: dict[str, Callable[[Sequence[Item], Figure], str]] = {
    "schedule": _schedule,
    "time_grid": _time_grid,
    "target": _target,
    "sampler": _sampler,
}
