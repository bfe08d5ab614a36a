"""Rows on their way from data to noise and back: scatter, histogram or images."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.engine import C, Page, Track, draw_page, wrapped

Array = npt.NDArray[np.float64]

BINS = 60
MOSAIC = 5  # images a side
GAP = "#D6E4F0"  # between images, and where there is none
CONTOURS = 6  # half a decade apart, down from the maximum
EXACT = 1e-3  # an error of the score up to this is rounding
TAIL = 0.002  # of the noised true rows, beyond the frame on each side


def samples_figure(pictures: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """True rows noised from T to 0, and below them the samplers' states at the same times.

    A block of rows a schedule: first the forward process, then one row a (score,
    sampler), and of a score that errs one row with where; time runs from T at the left to 0 at the
    right. Two coordinates are drawn as
    points over contours of the exact density of the noised data, half a decade apart; one
    coordinate as a histogram with that density, on a scale of its own at each time; images
    as a mosaic of the first 25, in grey or colour between the extremes of the true images. All
    axes of a figure have the same limits, set by the forward process, and of a known law the
    same scale across as up; a panel says how many points lie outside.

    Parameters
    ----------
    pictures : Dataset
        `forward` (schedule, time, row, coordinate), `backward` (schedule, score, sampler,
        time, row, coordinate), `time` as fractions of T, decreasing; optionally `density`
        (schedule, time, mesh_y, mesh_x) or (schedule, time, mesh_x), and `score_error`, with
        the dimension score after schedule. Attributes
        `dimension`, `horizon`, `n_steps`, `image_shape` such as "8 8",
        or "3 32 32" for the channels red, green and blue.
    target : str
        For the title.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The rows drawn: `x`, `y` the point; `x`, `x_end` and `y` a bin of a histogram and
        its height, and how many rows are `outside` or `lost` (not finite); `row`, pixel `x`
        and value `y` of an image. Contours are of `density`, and maps of `score_error`, which
        are not repeated: `y` is the root mean square of that under the density.

    Raises
    ------
    ValueError
        If the coordinates are neither one, nor two, nor an image.
    """
    pictures = pictures.load()
    shape = tuple(map(int, str(pictures.attrs.get("image_shape", "")).split()))
    coordinates = [str(name) for name in pictures["coordinate"].values]
    if not shape and len(coordinates) > 2:
        raise ValueError(f"coordinate = {len(coordinates)} values: must be one, two, or an image")
    draw: Callable[..., None] = (
        _draw_images if shape else _draw_scatter if len(coordinates) == 2 else _draw_histogram
    )
    limits = _limits(pictures["forward"].values, bool(shape))
    if len(limits) == 2 and "density" in pictures:  # a known law: its coordinates share a unit
        limits = _square(limits, pictures["mesh_x"].values, pictures["mesh_y"].values)
    tabulate = _image_rows if shape else _points if len(coordinates) == 2 else _bins
    horizon = float(pictures.attrs["horizon"])
    times = pictures["time"].values * horizon
    frame = pd.concat(
        [
            pd.DataFrame(labels | {"time": t} | tabulate(rows, limits))
            if labels["process"] != "error"
            else pd.DataFrame([labels | {"time": t, "y": float(rows)}])
            for labels, states in _series(pictures)
            for t, rows in zip(times, states, strict=True)
        ],
        ignore_index=True,
    )
    lines = frame[["schedule", "process", "score", "sampler"]].drop_duplicates()
    number = {tuple(line): i * len(times) for i, line in enumerate(lines.to_numpy())}
    column = {t: k for k, t in enumerate(times)}
    keys = zip(*(frame[name] for name in lines), strict=True)
    frame.insert(0, "panel", [number[key] for key in keys] + frame["time"].map(column))

    def paint(ax: Axes, rows: pd.DataFrame) -> None:
        first = rows.iloc[0]
        k = column[first["time"]]
        cell = pictures.sel(schedule=first["schedule"]).isel(time=k)
        if first["process"] == "error":
            error = cell["score_error"].sel(score=first["score"])
            _draw_error(ax, rows, limits, cell["density"], error)
        else:
            draw(ax, rows, limits, cell.get("density"), shape, _color(str(first["process"])))
        if k == 0:
            name = {
                "forward": "forward",
                "backward": f"{first['score']}, {first['sampler']}",
                "error": f"{first['score']}, error of the score",
            }[str(first["process"])]
            ax.set_ylabel(textwrap.fill(name.replace("_", " "), 20), fontsize=7)

    side = min(1.5, 7.6 / len(times))
    tracks = [Track("rows", height=side - 0.25, paint=paint)]
    titles = {
        number[tuple(line)] + k: (f"{line[0]}, " if k == 0 else "") + f"t = {t:.3g}"
        for line in lines.to_numpy()
        if line[1] == "forward"
        for k, t in enumerate(times)
    }
    title, *notes = _title(pictures, target, shape, limits)
    page = Page(
        title, wrapped(range(len(lines) * len(times)), tracks, len(times)), notes=notes,
        titles=titles, width=side * len(times) + 0.9, loose=True,
    )  # fmt: skip
    return draw_page(frame.assign(axis="rows"), page), frame


def _series(pictures: xr.Dataset) -> Iterator[tuple[dict[str, str], Array]]:
    """Labels and states (time, row, coordinate) of each row of panels; the empty left out."""
    for schedule in pictures["schedule"].values:
        block = pictures.sel(schedule=schedule)
        labels = {"schedule": str(schedule), "process": "forward", "score": "", "sampler": ""}
        order = ("time", "row", "coordinate")
        yield labels, block["forward"].transpose(*order).values
        for score, sampler in product(pictures["score"].values, pictures["sampler"].values):
            states = block["backward"].sel(score=score, sampler=sampler).transpose(*order).values
            if np.isfinite(states).any():
                own = {"process": "backward", "score": str(score), "sampler": str(sampler)}
                yield labels | own, states
        for score in pictures["score"].values if "score_error" in pictures else ():
            error = block["score_error"].sel(score=score)
            mesh = [d for d in error.dims if d != "time"]
            squares = (error**2).weighted(block["density"].fillna(0)).mean(mesh)
            if float(error.max()) > EXACT:
                yield labels | {"process": "error", "score": str(score)}, squares.values**0.5


def _limits(forward: Array, image: bool) -> Array:
    """Ends of the axes, shape (coordinate, 2); of an image its grey values at t = 0."""
    if image:
        return np.array([[np.nanmin(forward[:, -1]), np.nanmax(forward[:, -1])]])
    ends = np.nanquantile(forward, [TAIL, 1 - TAIL], axis=(0, 1, 2)).T
    margin = 0.08 * np.ptp(ends, axis=1, keepdims=True)
    return np.asarray(ends + margin * [-1, 1])


def _square(limits: Array, *meshes: Array) -> Array:
    """Limits of equal length about the same centres, where it can be within the density's mesh."""
    half = np.ptp(limits, axis=1).max() / 2
    limits = limits.mean(axis=1, keepdims=True) + np.array([-half, half])
    low, high = np.array([[mesh.min(), mesh.max()] for mesh in meshes]).T[..., None]
    limits -= np.maximum(limits[:, 1:] - high, 0)
    return np.asarray(limits + np.maximum(low - limits[:, :1], 0))


def _points(rows: Array, limits: Array) -> dict[str, Any]:
    return {"x": rows[:, 0], "y": rows[:, 1]}


def _bins(rows: Array, limits: Array) -> dict[str, Any]:
    """Heights of the bins: all rows count, also those outside the frame."""
    edges = np.linspace(limits[0, 0], limits[0, 1], BINS + 1)
    values = rows[np.isfinite(rows)]
    count, _ = np.histogram(values, edges)
    height = count / (max(1, len(values)) * np.diff(edges))
    outside, lost = len(values) - count.sum(), rows.size - len(values)
    return {"x": edges[:-1], "x_end": edges[1:], "y": height, "outside": outside, "lost": lost}


def _image_rows(rows: Array, limits: Array) -> dict[str, Any]:
    shown = rows[: MOSAIC**2]
    index, pixel = np.indices(shown.shape)
    return {"row": index.ravel(), "x": pixel.ravel(), "y": shown.ravel()}


def _color(process: str) -> str:
    return C.INK if process == "forward" else C.VERMILLION


def _draw_scatter(
    ax: Axes,
    rows: pd.DataFrame,
    limits: Array,
    density: xr.DataArray | None,
    shape: tuple[int, ...],
    color: str,
) -> None:
    points = rows[["x", "y"]].to_numpy()
    if density is not None:
        density = density.transpose("mesh_y", "mesh_x")
        levels = float(density.max()) * 10.0 ** np.arange(-CONTOURS / 2, 0, 0.5)
        ax.contour(
            density["mesh_x"], density["mesh_y"], density, levels, colors=C.BLUE, linewidths=0.5
        )
    ax.plot(*points.T, ".", color=color, markersize=1.6, alpha=0.45, rasterized=True, zorder=1)
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    if density is not None:
        ax.set_aspect("equal")  # round laws look round
    finite = np.isfinite(points).all(1)
    inside = ((points >= limits[:, 0]) & (points <= limits[:, 1])).all(1)
    _say_missing(ax, rows, int((finite & ~inside).sum()), int((~finite).sum()))
    _few_ticks(ax)


def _draw_histogram(
    ax: Axes,
    rows: pd.DataFrame,
    limits: Array,
    density: xr.DataArray | None,
    shape: tuple[int, ...],
    color: str,
) -> None:
    width = rows["x_end"] - rows["x"]
    ax.bar(rows["x"], rows["y"], width, align="edge", color=color, alpha=0.45, linewidth=0)
    if density is not None:
        ax.plot(density["mesh_x"], density, color=C.BLUE, linewidth=0.9)
    ax.set_xlim(*limits[0])
    ax.set_ylim(bottom=0)
    _say_missing(ax, rows, int(rows["outside"].iloc[0]), int(rows["lost"].iloc[0]))
    _few_ticks(ax)
    ax.set_yticks([])


def _draw_error(
    ax: Axes, rows: pd.DataFrame, limits: Array, density: xr.DataArray, error: xr.DataArray
) -> None:
    """√v |s_θ − s| from 0 to 1, in the plane as a map; 1 is the size of a noise."""
    x = density["mesh_x"]
    if "mesh_y" in error.dims:
        error, density = (a.transpose("mesh_y", "mesh_x") for a in (error, density))
        ax.pcolormesh(x, error["mesh_y"], error, cmap="YlOrRd", vmin=0, vmax=1, rasterized=True)
        levels = float(density.max()) * 10.0 ** np.arange(-CONTOURS / 2, 0, 0.5)
        ax.contour(x, density["mesh_y"], density, levels, colors=C.BLUE, linewidths=0.5)
        ax.set_ylim(*limits[1])
        ax.set_aspect("equal")
    else:
        ax.fill_between(x, density / float(density.max()), color=C.BLUE, alpha=0.15, linewidth=0)
        ax.plot(x, error, color=C.VERMILLION, linewidth=1.1)
        ax.set_ylim(0, 1)
    ax.set_xlim(*limits[0])
    text = f"rms {rows['y'].iloc[0]:.2g}" if np.isfinite(error).any() else "no noise"
    ax.text(
        0.99, 0.99, text, fontsize=5.5, color=C.INK, ha="right", va="top", transform=ax.transAxes,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )  # fmt: skip
    _few_ticks(ax)


def _draw_images(
    ax: Axes,
    rows: pd.DataFrame,
    limits: Array,
    density: xr.DataArray | None,
    shape: tuple[int, ...],
    color: str,
) -> None:
    """The images on a grid, a pixel between them."""
    *channels, height, width = shape
    mosaic = np.full((*channels, MOSAIC * (height + 1) - 1, MOSAIC * (width + 1) - 1), np.nan)
    for place, image in rows.groupby("row"):
        top, left = divmod(int(str(place)), MOSAIC)
        corner = slice(top * (height + 1), top * (height + 1) + height)
        across = slice(left * (width + 1), left * (width + 1) + width)
        mosaic[..., corner, across] = image["y"].to_numpy().reshape(shape)
    low, high = limits[0]
    if channels:
        levels = np.moveaxis(np.clip((mosaic - low) / (high - low), 0, 1), 0, -1)
        ax.imshow(np.where(np.isnan(levels), to_rgb(GAP), levels), interpolation="nearest")
    else:
        greys = colormaps["gray_r"].with_extremes(bad=GAP)
        ax.imshow(mosaic, cmap=greys, vmin=low, vmax=high, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _say_missing(ax: Axes, rows: pd.DataFrame, outside: int, lost: int) -> None:
    """How many rows the panel does not show; a true row that is NaN does not exist."""
    counts = {"outside": outside, "not finite": lost * (rows["process"].iloc[0] == "backward")}
    text = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    if text:
        ax.text(
            0.99, 0.99, text, fontsize=5.5, color=C.INK, ha="right", va="top",
            transform=ax.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip


def _few_ticks(ax: Axes) -> None:
    ax.tick_params(labelsize=6, length=2, pad=1.5)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.label_outer()


def _title(pictures: xr.Dataset, target: str, shape: tuple[int, ...], limits: Array) -> list[str]:
    """What is drawn, and how."""
    attrs = pictures.attrs
    title = f"{target}, dimension {attrs['dimension']}: data to noise and back"
    if shape:
        low, high = limits[0]
        scale = "colours from {} (dark) to {}" if len(shape) == 3 else "grey from {} (white) to {}"
        return [title, f"{attrs['n_steps']} steps; " + scale.format(f"{low:.3g}", f"{high:.3g}")]
    how = f"{pictures.sizes['row']} rows a panel, {attrs['n_steps']} steps"
    plane = pictures.sizes["coordinate"] == 2
    if plane:
        how += "; {} across, {} up".format(*pictures["coordinate"].values)
    if "score_error" in pictures and float(pictures["score_error"].max()) > EXACT:
        how += "; error of the score: of the predicted noise, from 0 to 1, the size of a noise"
    if "density" in pictures:
        how += f"; blue {'contours' if plane else 'lines'}: exact density of the noised data"
    return [title, how]
