"""The slides' curves beside the published studies: a figure and two tables of reproduce.md.

    python docs/slides.py

draws docs/figures/slides.png and writes the tables into docs/reproduce.md. The curves are those of
"Analysis of Noise Schedules in Score-Based Generative Modeling Algorithms" (Strasman et al.), read
off the vector graphics. Beside each stand what the slides' own estimator shows of 10,000 rows, its
floor included; the coupled estimate, below the floor; and the exact value of the exact score.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import sgm
from sgm.divergences import plugin_kl_moments
from sgm.gaussian import Gaussian
from sgm.plots.engine import C, house_style
from sgm.published import studies
from sgm.tables import ranking_table

HERE = Path(__file__).parent
CURVES = json.loads((HERE.parent / "tests/data/slides-figures.json").read_text())["curves"]
ROWS = 10_000  # that the slides draw a run
TABLE_AT = (-10, -5, 0, 5, 10)
BEGIN, END = "<!-- made by docs/slides.py -->", "<!-- end of what it made -->"


class Panel(NamedTuple):
    """A figure of the slides, its curves, and the cells of ours that it is about."""

    title: str
    networks: str
    exact: str
    bound: str
    study: str
    target: str
    divergence: str
    sampler: str = "euler_arrival"  # the one whose samples the slides show
    authors: str = ""  # the study with the authors' training recipe
    factor: float = 1.0  # from our units to theirs


KL = {"study": "paper-kl", "divergence": "kl", "authors": "paper-kl-authors"}
PANELS = (
    Panel(
        "KL, isotropic", "iso_kl_nn_uncertain", "iso_kl_exact_uncertain", "iso_kl_bound",
        target="isotropic", **KL,
    ),
    Panel(
        "KL, heteroscedastic", "aniso_kl_nn", "aniso_kl_exact", "aniso_kl_bound",
        target="heteroscedastic", **KL,
    ),
    Panel(
        "KL, correlated", "corr_kl_nn", "corr_kl_exact", "corr_kl_bound",
        target="correlated", **KL,
    ),
    Panel(
        "W2, isotropic", "iso_w2_nn", "iso_w2_exact", "iso_w2_bound",
        study="paper-w2", target="isotropic", divergence="w2",
    ),
    Panel(
        "W2, correlated, rescaled", "corr_w2_nn", "corr_w2_exact", "corr_w2_bound",
        study="paper-w2", target="correlated-rescaled", divergence="w2", factor=5.5754479,
    ),
    Panel(
        "sliced W2, funnel", "funnel_sw_param", "", "funnel_w2_bound",
        study="funnel", target="funnel", divergence="sliced_w2",
        sampler="exponential_integrator_modified",
    ),
)  # fmt: skip


def cells(study: str, panel: Panel, family: str) -> xr.Dataset:
    """The β_a family of a published study, over axes `a` and `seed`; one score family."""
    grid = sgm.load_published(study).sel(target=panel.target, sampler=panel.sampler)
    here = grid.isel(score=grid["score_family"].values == family).squeeze(
        ["score", "horizon", "time_grid", "n_steps"], drop=True
    )
    return here.isel(schedule=here["family"].values == "beta_a").swap_dims(schedule="a").sortby("a")


def floor_of(here: xr.Dataset, divergence: str) -> float:
    """What the slides' estimator shows of a perfect sampler."""
    if divergence == "kl":
        d = int(here["dimension"])
        true = Gaussian.diagonal(np.zeros(d), np.ones(d))
        return plugin_kl_moments(true, true, ROWS)[0]
    floor = float(here[f"{divergence}_floor"].mean())
    return floor * float(np.sqrt(here.attrs["n_samples"] / ROWS))  # its square falls as 1/n


def shown(here: xr.Dataset, divergence: str) -> tuple[pd.Series, pd.Series]:
    """What the slides' estimator shows: mean over the runs, and the standard deviation of a run."""
    if divergence == "kl":
        runs, within = here["kl_plugin_expected"], here["kl_plugin_expected_sd"]
    else:  # squares of distances add to the square of the floor
        runs = np.hypot(here[f"{divergence}_coupled"], floor_of(here, divergence))
        within = xr.zeros_like(runs)
    sd = np.sqrt(runs.var("seed", ddof=1) + (within**2).mean("seed"))
    return runs.mean("seed").to_series(), sd.to_series()


def frame(panel: Panel) -> pd.DataFrame:
    """All that is known of a panel, against a, in the slides' units."""
    name = panel.divergence
    here, ideal = (cells(panel.study, panel, family) for family in ("trained", "exact"))
    estimates = here[f"{name}_coupled"]
    bound = "kl_bound" if name == "kl" else "w2_bound"
    exact = ideal[f"{name}_exact"] if f"{name}_exact" in ideal else ideal[name].mean("seed")
    table = pd.DataFrame(
        {
            "resolved": estimates.mean("seed").to_series(),
            "error": (estimates.std("seed", ddof=1) / np.sqrt(estimates.sizes["seed"])).to_series(),
            "exact": exact.to_series(),
            "bound": here[bound].mean("seed").to_series(),
        }
    )
    table["shown"], table["shown_sd"] = shown(here, name)
    if panel.authors in studies():
        table["authors"], table["authors_sd"] = shown(cells(panel.authors, panel, "trained"), name)
    table *= panel.factor
    for column, curve in (
        ("slides", panel.networks), ("slides_exact", panel.exact), ("slides_bound", panel.bound)
    ):  # fmt: skip
        table[column] = pd.Series(dict(CURVES[curve]) if curve else {}, dtype=float)
    table.attrs["floor"] = floor_of(here, name) * panel.factor
    return table


def draw(frames: dict[Panel, pd.DataFrame]) -> Figure:
    """A panel a figure of the slides."""
    with house_style():
        columns = 3
        rows = -(-len(frames) // columns)
        figure = Figure(figsize=(7.2, 0.6 + 2.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax, (panel, t) in zip(axes, frames.items(), strict=False):
            own = {"mfc": "none", "ls": "none", "ms": 3.5}
            ax.plot(t["slides"], "o", color=C.INK, label="slides, networks", **own)
            ax.plot(t["slides_exact"], "x", color=C.INK, label="slides, exact score", **own)
            band = t["shown"] - t["shown_sd"], t["shown"] + t["shown_sd"]
            ax.fill_between(t.index, *band, color=C.VERMILLION, alpha=0.25, lw=0)
            ax.plot(t["shown"], color=C.VERMILLION, label="ours by their estimator, ± 1 sd")
            if "authors" in t:
                ax.errorbar(
                    t.index, t["authors"], t["authors_sd"], fmt="s", ms=3.5, mfc="white",
                    color=C.VERMILLION, label="the same with their recipe",
                )  # fmt: skip
            ax.plot(t["resolved"], color=C.BLUE, label="ours, resolved")
            ax.plot(t["exact"], ":", color=C.INK, label="exact score, exact")
            ax.axhline(t.attrs["floor"], color=C.FAINT, ls="--", lw=0.9, label="their floor")
            ax.set(title=panel.title, yscale="log", xlabel="a")
            if panel.divergence == "kl":
                ax.set_ylabel("nats")
        for ax in axes[len(frames) :]:
            ax.remove()
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7
        )
    return figure


def number(value: float, error: float = np.nan) -> str:
    """Three significant digits, with an error if there is one; a dash for nothing."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.3g}" + (f" ± {error:.2g}" if np.isfinite(error) else "")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def values(panel: Panel, t: pd.DataFrame) -> Iterator[str]:
    """The numbers of a panel at some a."""
    t = t.reindex(columns=[*t.columns, *({"authors", "authors_sd"} - set(t.columns))])
    header = (
        f"{panel.title}, a", "slides, networks", "ours, their estimator", "with their recipe",
        "resolved", "slides, exact score", "exact score, exact", "slides, bound", "bound",
    )  # fmt: skip
    rows = (
        [
            f"{row.Index:g}", number(row.slides), number(row.shown, row.shown_sd),
            number(row.authors, row.authors_sd), number(row.resolved, row.error),
            number(row.slides_exact), number(row.exact), number(row.slides_bound),
            number(row.bound),
        ]
        for row in t.loc[list(TABLE_AT)].itertuples()
    )  # fmt: skip
    return markdown(header, rows)


def minima(frames: dict[Panel, pd.DataFrame]) -> Iterator[str]:
    """Where each is lowest over a, and what following the bound costs."""
    header = (
        "figure", "slides, networks", "resolved", "not told from it", "exact score", "bound",
        "error at the bound's a over the lowest",
    )  # fmt: skip
    rows = []
    for panel, t in frames.items():
        if panel.divergence not in ("kl", "w2"):  # which no bound is about
            continue
        ranking = ranking_table(sgm.load_published(panel.study))
        told = {
            "divergence": f"{panel.divergence}_plugin", "bound": f"{panel.divergence}_bound",
            "target": panel.target, "sampler": panel.sampler, "error": "coupled",
            "varies": "schedule", "parameter": "a",
        }  # fmt: skip
        row = ranking[(ranking[list(told)] == pd.Series(told)).all(axis=1)].iloc[0]
        near = row["best_set"].replace("beta_a=", "")
        rows.append([
            panel.title, f"{t['slides'].idxmin():g}", f"{row['best_at']:g}", near,
            f"{t['exact'].idxmin():g}", f"{row['pick_at']:g}", number(row["regret"]),
        ])  # fmt: skip
    return markdown(header, rows)


def tables(frames: dict[Panel, pd.DataFrame]) -> str:
    """What stands in reproduce.md."""
    lines = [line for panel, t in frames.items() for line in values(panel, t)]
    return "\n".join([BEGIN, "", *lines, *minima(frames), END])


def published() -> dict[Panel, pd.DataFrame]:
    """The panels whose study is published."""
    return {panel: frame(panel) for panel in PANELS if panel.study in studies()}


def main() -> None:
    frames = published()
    draw(frames).savefig(HERE / "figures/slides.png", dpi=150)
    page = HERE / "reproduce.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(before + tables(frames) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
