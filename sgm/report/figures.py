"""The figures of a page: what each shows in words, its picture, and the command that draws it."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from PIL import Image

from sgm.answers import Finding
from sgm.reading import bounds_of, divergences_of, text_of
from sgm.report.source import Source, python_text

__all__ = ["Kind", "Picture", "kinds", "picture_bytes", "pictures", "thumbnail"]

#: What is not of a divergence or a bound: title and what is drawn, as texts of `sgm.plots` say.
TOLD = {
    "agreement": ("Bounds against errors", "how far each bound is from the error, how well it "
                  "ranks the schedules, and what following it costs"),
    "theory": ("Theory against error", "the error below all theorems that bound it; grey where a "
               "theorem does not apply"),
    "comparison": ("Schedules compared run by run", "paired differences of schedules, and their "
                   "95 % intervals"),
    "leaderboard": ("Leaderboard", "regret of each schedule, time grid and sampler at equal "
                    "numbers of evaluations of the score"),
    "map": ("Over (a, T)", "divergence and bounds over a and T, and where each is lowest"),
    "horizon": ("Quality and cost against T", "likelihood and cost against the diffusion time T"),
    "elbo": ("Evidence bound against T", "the evidence bound and its terms against the diffusion "
             "time T, and where it is largest"),
    "priors": ("Other starts", "the evidence bound and its terms where the backward process "
               "starts at a law fitted to p_T"),
    "learned": ("Scores learnt from rows", "what the rows, the start and the steps cost, on one "
                "scale"),
    "calibration": ("Calibration", "each estimate against the exact value"),
    "coverage": ("Coverage", "coupled estimates from few rows against those from all"),
    "histogram": ("Densities", "the generated density against the exact one"),
    "samples": ("Samples", "a few rows on their way from data to noise and back"),
    "schedules": ("Noise schedules", "β(t), m(t) and σ(t) of every schedule"),
}  # fmt: skip
COLOURS = 256
THUMBNAIL = 360


@dataclass(frozen=True)
class Picture:
    """A figure: its stem, picture as a ``data:`` address, alternative text and command."""

    stem: str
    source: str
    width: int
    height: int
    alternative: str
    command: str


@dataclass(frozen=True)
class Kind:
    """The figures of one kind."""

    name: str
    title: str
    about: str
    pictures: tuple[Picture, ...]


def kinds(grid: xr.Dataset) -> dict[str, tuple[str, str]]:
    """Title of each kind of figure that a grid can have, and what is drawn; in reading order."""
    found = {name: TOLD[name] for name in ("agreement", "theory", "comparison", "leaderboard")}
    for divergence in divergences_of(grid):
        label = divergence.label
        found[divergence.figure] = label, f"{label} over runs, with every bound of it"
    for bound in bounds_of(grid):
        label = text_of(grid[bound.name])
        own = f"{label} ({bound.name})"
        found[f"{bound.figure}_decomposition"] = (
            f"Terms of {bound.name}", f"the terms of the {own}, beside the error",
        )  # fmt: skip
        found[f"{bound.figure}_budget"] = (
            f"{bound.name} over time", f"where the {own} arises: mixing, steps and score",
        )  # fmt: skip
    return found | TOLD


def pictures(source: Source, findings: Sequence[Finding]) -> list[Kind]:
    """All figures of a study, by kind."""
    told, found = kinds(source.grid), dict[str, list[Picture]]()
    said = {(f.divergence.figure, f.target): f.sentence for f in findings}
    targets = [str(target) for target in source.grid["target"].values]
    places = {target: i for i, target in enumerate(targets)}
    figures = sorted(source.figures, key=lambda f: places.get(f[0].partition("/")[2], 0))
    with ThreadPoolExecutor() as pool:  # decoding, and encoding, leave Python to others
        contents = list(pool.map(picture_bytes, [path for _, path in figures]))
    for (stem, _), (content, width, height) in zip(figures, contents, strict=True):
        name, _, target = stem.partition("/")
        about = told.get(name, (name, name))[1]
        alternative = f"{about[0].upper()}{about[1:]}" + (f"; {target}." if target else ".")
        if (name, target) in said:
            alternative += f" {said[name, target]}"
        address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        found.setdefault(name, []).append(
            Picture(stem, address, width, height, alternative, _command(source, stem))
        )
    order = [*(name for name in told if name in found), *(n for n in found if n not in told)]
    return [Kind(name, *told.get(name, (name, "")), tuple(found[name])) for name in order]


def _command(source: Source, stem: str) -> str:
    """The line of shell that draws one figure, and writes the CSV of its numbers."""
    opens = source.opens
    if stem.startswith("samples/"):
        group = stem.replace("samples/", "pictures/", 1)
        opens = f"sgm.open_grid({source.store}, {python_text(group)})"
    name = stem.replace("/", "-")
    drawn = f"sgm.draw({opens}, {python_text(stem)})"
    code = f"import sgm, sgm.plots; sgm.plots.save(*{drawn}, {python_text(name)})"
    return f"python -c {shlex.quote(code)}"


def picture_bytes(path: Path) -> tuple[bytes, int, int]:
    """A figure as PNG of 256 colours at most, a quarter of the bytes; its width and height."""
    with Image.open(path) as image:
        if image.mode == "P":  # as those of published studies are
            return path.read_bytes(), *image.size
        few = image.convert("RGB").quantize(
            COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    written = io.BytesIO()
    few.save(written, "PNG")
    return written.getvalue(), *few.size


def thumbnail(path: Path) -> str:
    """A small picture of a figure, as a ``data:`` address."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    small.quantize(64, Image.Quantize.FASTOCTREE).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
