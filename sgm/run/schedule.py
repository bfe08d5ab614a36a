"""The best noise schedule for a law: what `sgm schedule` finds.

Says what it gains over the usual schedules, by exact laws, and writes into a folder

    schedule.json      its knots, which a study reads as family `schedule_file`
    certificate.json   what was minimised for which law, from which starts, to which gradient
    figure.png, .pdf   β, the signal-to-noise ratio and the objective, beside the usual ones
    figure.csv         the numbers drawn
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import pandas as pd
import yaml

from sgm.gaussian import Gaussian
from sgm.optimal_schedule import (
    OBJECTIVES,
    PROGRAMS,
    NotConvergedError,
    OptimalSchedule,
    find_schedule,
    find_steps,
    reference_schedules,
)
from sgm.run.build import build_target
from sgm.run.inventory.status import format_table
from sgm.store.cells import written_whole
from sgm.study import Item, Study
from sgm.study.config import parse_item
from sgm.study.document import read_config

__all__ = ["search", "write_schedule"]


def _from_target(target: str, study: str | Path) -> Item:
    """A target of a study by its label, or one that is spelled out in YAML."""
    if not target.lstrip().startswith("{"):
        items: dict[str, Item] = {
            item.label: item for item in Study.parse(read_config(study)).targets
        }
        if target not in items:
            raise ValueError(
                f"target = {target!r}: must be a target of {study}, which has {', '.join(items)}, "
                "or a family with its keys, such as '{family: isotropic, dimension: 50, mean: 1.0, "
                "variance: 0.5}'"
            )
        return items[target]
    return parse_item("target", _yaml("target", target))


def _from_data(path: Path) -> Item:
    """The user's rows, mean and covariance in an .npz file, or a folder of images."""
    if not path.exists():
        raise ValueError(f"data = {str(path)!r}: there is no such file or folder")
    if path.is_dir():
        if any(p.suffix.lower() in (".png", ".jpg", ".jpeg") for p in path.rglob("*")):
            return parse_item(
                "target", {"family": "image_folder", "path": str(path), "heldout_rows": 1}
            )
        batches = any(path.glob("data_batch_*")) or any(path.glob("cifar-10-batches*"))
        family = "cifar10" if batches else "mnist"
        return parse_item("target", {"family": family, "path": str(path)})
    moments = False
    if path.suffix == ".npz" and is_zipfile(path):
        with ZipFile(path) as archive:
            moments = "covariance.npy" in archive.namelist()
    if moments:
        return parse_item("target", {"family": "gaussian_file", "path": str(path)})
    rows = {"heldout_fraction": 0.5, "standardise": False, "dequantise": False}
    return parse_item("target", {"family": "data_file", "path": str(path), **rows})


def _sampler(text: str) -> dict[str, Any]:
    """A sampler by its name, or with its parameters in YAML."""
    if not text.lstrip().startswith("{"):
        if text in PROGRAMS:
            parse_item("sampler", text)  # whose parameters have no default
        return {"sampler": text}
    item = parse_item("sampler", _yaml("sampler", text))
    return {"sampler": item.family, "sampler_parameters": item.spec["parameters"]}


def _yaml(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"{key} = {text!r}: must be YAML: {' '.join(str(error).split())}"
        ) from None


def _law(item: Item) -> Gaussian:
    if item.entry.law == "density":
        raise ValueError(
            f"target = {item.label!r}: must be Gaussian, or data, whose moments are used: "
            "only then is the law of the output exact"
        )
    return build_target(item.spec).reference


def write_schedule(
    found: OptimalSchedule, label: str, folder: Path, reached: Mapping[str, Any] | None = None
) -> None:
    """Write the schedule, its certificate and a figure.

    Parameters
    ----------
    found : OptimalSchedule
    label : str
        Of the target.
    folder : Path
        Made if need be; files in it are replaced.
    reached : mapping, optional
        More of the certificate: which error was asked for.
    """
    from sgm import plots  # slow to import

    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Any] = {
        "certificate": {"target": label, **(reached or {}), **found.certificate()}
    }
    if not found.parameters:  # β_a needs no file
        tables["schedule"] = found.knots()
    for name, table in tables.items():
        with written_whole(folder / f"{name}.json") as aside:
            aside.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")
    frame = _frame(found)
    title = f"{label}, {found.sampler_label}, N = {found.n_steps}"
    figure = plots.optimal_schedule_figure(frame, title, OBJECTIVES[found.objective])
    plots.save(figure, frame, folder / "figure")


def _frame(found: OptimalSchedule) -> pd.DataFrame:
    """The curves of the figure; of an optimum of which B alone counts, β is the mean of a step."""
    variance, n = found.spectrum.variance, found.n_steps
    values = {"optimum": found.value, **found.references}
    knots, fractions = np.linspace(0.0, 1.0, n + 1), np.linspace(0.0, 1.0, 301)
    steps = np.repeat(np.diff(found.integral) * n, 2)
    rates = {"optimum": (np.repeat(knots, 2)[1:-1], steps)}
    if found.rates is not None:
        rates["optimum"] = knots, found.rates
    integrals = {"optimum": np.interp(fractions, knots, found.integral)}
    for name, schedule in reference_schedules(variance, found.best_a).items():
        rates[name] = fractions, np.asarray(schedule.beta(fractions))
        integrals[name] = np.asarray(schedule.integral(fractions))
    parts: list[dict[str, Any]] = []
    for name, value in values.items():
        curve = (
            rf"best $\beta_a$, a = {found.best_a:.3g}" if name == "best_beta_a" else LABELS[name]
        )
        x, y = rates[name]
        # m²/v = 1/(e^u − 1); at t = 0 there is no noise
        ratio = 1 / np.expm1(integrals[name][1:] / variance)
        for panel, (axis, a, b) in enumerate(
            (("rate", x, y), ("snr", fractions[1:], ratio), ("objective", [np.nan], [value]))
        ):
            parts.append({"panel": panel, "axis": axis, "curve": curve, "x": a, "y": b})
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


LABELS = {"optimum": "optimum", "vp_linear": "VP linear, a = 0", "cosine": "cosine"}


def _asked(found: OptimalSchedule, error: float, fewer: OptimalSchedule | None) -> dict[str, Any]:
    """What the certificate says of an error that was asked for."""
    least = {} if fewer is None else {"n_steps": fewer.n_steps, "value": fewer.value}
    return {"error": error, "one_step_fewer": least or None}


def _report(
    found: OptimalSchedule,
    label: str,
    folder: Path,
    asked: Mapping[str, Any] | None,
    law_known: bool,
) -> Iterator[str]:
    spectrum = found.spectrum
    yield (
        f"{label}: d = {spectrum.dimension}, variances from "
        f"{spectrum.variances[0] * spectrum.variance:.4g} to "
        f"{spectrum.variances[-1] * spectrum.variance:.4g}; "
        f"{found.sampler_label}, N = {found.n_steps}, the exact score"
    )
    if not law_known:
        yield "A Gaussian with the rows' mean and covariance stands for the data."
    totals: dict[str, float] = {
        name: float(schedule.integral(1.0))
        for name, schedule in reference_schedules(spectrum.variance, found.best_a).items()
    }
    if asked is not None:
        fewer = asked["one_step_fewer"]
        least = f"; with {fewer['n_steps']} the error is {fewer['value']:.4g}" if fewer else ""
        yield (
            f"N = {found.n_steps} is the smallest number of steps for an error of "
            f"{asked['error']:g}{least}. "
            f"T is where B(T)/σ² = {found.integral[-1] / spectrum.variance:.4g}."
        )
    rows = [("optimum", f"{found.value:.4g}", "", f"{found.integral[-1]:.4g}")]
    for name, value in sorted(found.references.items(), key=lambda pair: pair[1]):
        name_of = f"best beta_a, a = {found.best_a:.3g}" if name == "best_beta_a" else LABELS[name]
        times = value / found.value
        excess = f"+{100 * (times - 1):.0f} %" if times < 10 else f"{times:.3g} times"
        rows.append((name_of, f"{value:.4g}", excess, f"{totals[name]:.4g}"))
    yield format_table(("schedule", OBJECTIVES[found.objective], "more", "B(T)"), rows)
    yield f"Exact values at the optimum: KL {found.kl:.4g}, W2 {found.w2:.4g}."
    if found.nearby:
        factors = " or ".join(f"{factor:g}" for factor in found.nearby)
        values = " or ".join(f"{value:.4g}" for value in found.nearby.values())
        yield f"For a law with {factors} times these variances: {values}."
    yield (
        f"{found.agreeing} of {len(found.starts)} starts agree; gradient of the logarithm "
        f"{found.gradient:.1e}."
    )
    yield f"Files: {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}."
    if found.parameters:
        low, high = 0.1 * spectrum.variance, 20.0 * spectrum.variance
        where = f"horizons: [{found.parameters.get('horizon', 1.0):.12g}]"
        entry = (
            f"{{family: beta_a, a: {found.parameters['a']:.12g}, beta_min: {low:.12g}, "
            f"beta_max: {high:.12g}}}"
        )
    else:
        where = "horizons: [1.0]"
        entry = (
            f"{{family: schedule_file, path: {folder / 'schedule.json'}, interpolation: "
            f"{'monotone' if found.rates is None else 'linear'}}}"
        )
    yield f"In a study with {where}, time_grids: [uniform] and n_steps: [{found.n_steps}], use"
    yield f"  - {entry}"


def search(
    target: str,
    data: str,
    study: str | Path,
    steps: int | None,
    error: float | None,
    results: Path,
    **choices: Any,
) -> Iterator[str]:
    """Find the best schedule for a law, and write it into a folder of its own.

    Parameters
    ----------
    target : str
        Label of a target of the study, or its YAML; by default ``isotropic``.
    data : str
        In its place the path of rows, moments or images.
    study : str or Path
        Its file, or its name if it is shipped.
    steps : int or None
        N, by default 10.
    error : float or None
        In its place the error for which the fewest steps are found.
    results : Path
        In which the folder is made.
    **choices
        As `sgm.optimal_schedule.find_schedule` takes them.

    Yields
    ------
    str
        Lines on what was found and what it gains.

    Raises
    ------
    ValueError
        If there is no best schedule, or something can't be.
    """
    if data and target:
        raise ValueError(f"target = {target!r}: must be left out if data is given")
    if error is not None and steps is not None:
        raise ValueError(f"steps = {steps!r}: must be left out if error is given")
    item = _from_data(Path(data)) if data else _from_target(target or "isotropic", study)
    label = Path(data).stem if data else item.label
    if "sampler" in choices:
        choices |= _sampler(choices["sampler"])
    asked = None
    try:
        if error is None:
            found = find_schedule(_law(item), n_steps=10 if steps is None else steps, **choices)
        else:
            found, fewer = find_steps(_law(item), error, **choices)
            asked = _asked(found, error, fewer)
    except NotConvergedError as failure:
        raise ValueError(str(failure)) from failure
    parts = (label, found.sampler_label, found.objective, found.space.replace(",", ""))
    folder = results / re.sub(r"[^\w.=-]", "_", "-".join((*parts, f"N={found.n_steps}")))
    write_schedule(found, label, folder, asked)
    yield from _report(found, label, folder, asked, item.entry.law_known)
