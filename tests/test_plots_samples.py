"""The samples figure draws the rows it is given, and says what it leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sgm import plots
from sgm.plots.samples import BINS, GAP
from tests.grids import synthetic_pictures


def said(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def axes_of(figure: Figure) -> list[Axes]:
    return list(figure.axes)


def test_a_scatter_draws_every_row() -> None:
    pictures = synthetic_pictures("scatter", rows=40)
    figure, frame = plots.draw(pictures, "samples/two_modes")
    axes = axes_of(figure)
    assert len(axes) == 2 * (1 + 2 * 2) * 4
    assert len(frame) == len(axes) * 40
    drawn = [
        np.asarray(line.get_xydata(), float) for ax in axes for line in ax.lines if len(ax.lines)
    ]
    labels = ["schedule", "process", "score", "sampler", "time"]
    for (schedule, process, score, sampler, time), part in frame.groupby(labels):
        states = pictures.sel(schedule=schedule, time=time)
        states = (
            states["forward"]
            if process == "forward"
            else states["backward"].sel(score=score, sampler=sampler)
        )
        np.testing.assert_array_equal(part[["x", "y"]], states.values)
        assert any(np.array_equal(points, states.values) for points in drawn)
    first = axes[: 5 * 4]
    titles = [ax.get_title(loc="left") for ax in first[:4]]
    assert titles == ["beta_a=0, t = 1", "t = 0.5", "t = 0.1", "t = 0"]
    assert first[0].get_ylabel() == "forward"
    assert len({ax.get_xlim() for ax in axes}) == 1
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert "40 rows a panel" in said(figure)
    assert "x1 across, x2 up" in said(figure)


def test_contours_are_half_a_decade_apart_below_the_maximum() -> None:
    pictures = synthetic_pictures("scatter", rows=10)
    figure, _ = plots.samples_figure(pictures, "two_modes")
    (contours,) = axes_of(figure)[0].collections
    top = float(pictures["density"].isel(schedule=0, time=0).max())
    np.testing.assert_allclose(
        sorted(contours.levels / top), 10 ** np.array([-3, -2.5, -2, -1.5, -1, -0.5])
    )


def test_a_round_law_looks_round() -> None:
    pictures = synthetic_pictures("scatter", rows=200)
    pictures["forward"] = pictures["forward"] * np.array([1.0, 0.5])  # spread more across than up
    figure, _ = plots.samples_figure(pictures, "two_modes")
    for ax in axes_of(figure):
        assert ax.get_aspect() == 1
        np.testing.assert_allclose(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim()))
    # of data the columns may have different units
    figure, _ = plots.samples_figure(pictures.drop_vars("density"), "data")
    assert {ax.get_aspect() for ax in axes_of(figure)} == {"auto"}


def test_a_histogram_is_a_density_of_all_rows() -> None:
    pictures = synthetic_pictures("histogram", rows=3000)
    figure, frame = plots.samples_figure(pictures, "two_modes")
    for labels, part in frame.groupby(["schedule", "process", "score", "sampler", "time"]):
        inside = (part["y"] * (part["x_end"] - part["x"])).sum()
        np.testing.assert_allclose(inside, 1 - part["outside"].iloc[0] / 3000)
        assert len(part) == BINS
        # each bin of the forward process agrees with the exact density
        if labels[1] == "forward" and labels[-1] == 1:
            exact = pictures["density"].sel(schedule=labels[0], time=1)
            middle = exact.interp(mesh_x=(part["x"] + part["x_end"]).to_numpy() / 2).values
            width = (part["x_end"] - part["x"]).to_numpy()
            error = np.sqrt(np.maximum(middle, 0.01) / (3000 * width))
            assert (abs(part["y"] - middle) < 4.5 * error).all()
    bars = [bar.get_height() for ax in axes_of(figure) for bar in ax.patches]
    np.testing.assert_array_equal(bars, frame["y"])


@pytest.mark.parametrize("kind", ["scatter", pytest.param("histogram", marks=pytest.mark.slow)])
def test_what_is_lost_or_outside_is_said(kind: str) -> None:
    figure, frame = plots.samples_figure(synthetic_pictures(kind, lost=True, rows=50), "x")
    rows = frame[["process", "score", "sampler"]].drop_duplicates()
    assert len(rows) == 1 + 3  # the sampler without any state has no row
    texts = [text.get_text() for ax in axes_of(figure) for text in ax.texts]
    assert any("outside" in text for text in texts)
    figure.draw_without_rendering()
    assert all(ax.get_xlim()[1] < 10 for ax in axes_of(figure))


@pytest.mark.parametrize("kind", ["scatter", "histogram"])
def test_a_row_that_diverged_is_named_and_one_that_never_was_is_not(kind: str) -> None:
    pictures = synthetic_pictures(kind, rows=50).isel(schedule=[0], score=[0], sampler=[0])
    pictures["forward"][..., -5:, :] = np.nan  # a data set of 45 rows
    pictures["backward"][..., -3:, :] = np.nan
    figure, _ = plots.samples_figure(pictures, "x")
    forward, backward = (axes_of(figure)[i * 4 : i * 4 + 4] for i in (0, 1))
    assert not any("not finite" in text.get_text() for ax in forward for text in ax.texts)
    for ax in backward:
        assert "3 not finite" in ax.texts[0].get_text()


def test_images_keep_their_pixels_and_their_grey_values() -> None:
    pictures = synthetic_pictures("image", rows=30)
    figure, frame = plots.samples_figure(pictures, "digits")
    (first, *_) = axes_of(figure)
    (mosaic,) = first.images
    shown = np.ma.filled(mosaic.get_array(), np.nan)
    forward = pictures["forward"].isel(schedule=0, time=0).values
    assert shown.shape == (5 * 5 - 1, 5 * 5 - 1)
    for place in (0, 7, 24):
        top, left = divmod(place, 5)
        image = shown[top * 5 : top * 5 + 4, left * 5 : left * 5 + 4]
        np.testing.assert_array_equal(image, forward[place].reshape(4, 4))
    assert np.isnan(shown[4]).all()
    assert {ax.images[0].get_clim() for ax in axes_of(figure)} == {(0, 16)}
    assert frame.groupby(["schedule", "process", "score", "sampler", "time"]).size().eq(
        25 * 16
    ).all()  # fmt: skip
    assert "grey from 0 (white) to 16" in said(figure)


def test_colours_are_channels_between_the_extremes_of_the_true_images() -> None:
    pictures = synthetic_pictures("image", rows=30).isel(coordinate=slice(12))
    pictures.attrs |= {"image_shape": "3 2 2", "dimension": 12}
    pictures["backward"][0, 0, 0, 0, 1] = np.nan
    figure, frame = plots.samples_figure(pictures, "cifar10")
    axes = axes_of(figure)
    true = pictures["forward"].isel(schedule=0, time=-1).values
    low, high = true.min(), true.max()
    (mosaic,) = axes[0].images
    shown = np.asarray(mosaic.get_array())
    assert shown.shape == (5 * 3 - 1, 5 * 3 - 1, 3)
    forward = pictures["forward"].isel(schedule=0, time=0).values
    assert forward[:25].min() < low
    for place in (0, 7, 24):
        top, left = divmod(place, 5)
        image = shown[top * 3 : top * 3 + 2, left * 3 : left * 3 + 2]
        for channel in range(3):
            values = forward[place].reshape(3, 2, 2)[channel]
            expected = np.clip((values - low) / (high - low), 0, 1)
            np.testing.assert_allclose(image[..., channel], expected)
    gap = np.array(to_rgb(GAP))
    np.testing.assert_array_equal(shown[2], np.tile(gap, (14, 1)))
    lost = np.asarray(axes[4].images[0].get_array())  # the second image of the first sampler
    np.testing.assert_array_equal(lost[:2, 3:5], np.tile(gap, (2, 2, 1)))
    assert f"colours from {low:.3g} (dark) to {high:.3g}" in said(figure)
    assert len(frame) == 2 * 5 * 4 * 25 * 12


def test_pictures_without_a_density_draw(tmp_path: Path) -> None:
    pictures = synthetic_pictures("scatter", rows=20).drop_vars(["density", "mesh_x", "mesh_y"])
    pictures = pictures.isel(schedule=[0], score=[0])
    figure, frame = plots.samples_figure(pictures, "wine")
    assert not any(ax.collections for ax in axes_of(figure))
    first = plots.save(figure, frame, tmp_path / "a")
    second = plots.save(*plots.samples_figure(pictures, "wine"), tmp_path / "b")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_three_coordinates_are_refused() -> None:
    pictures = synthetic_pictures("image", rows=5)
    pictures.attrs["image_shape"] = ""
    with pytest.raises(ValueError, match="coordinate = 16 values: must be one, two, or an image"):
        plots.samples_figure(pictures, "digits")


@pytest.mark.parametrize("kind", ["histogram", "scatter"])
def test_where_a_score_errs_is_a_row_of_its_own(kind: str) -> None:
    pictures = synthetic_pictures(kind, rows=50)
    density = pictures["density"]
    error = xr.concat([0 * density, 0 * density + 0.4], "score").assign_coords(
        score=pictures["score"]
    )
    error = error.where(pictures["time"] > 0)
    figure, frame = plots.samples_figure(pictures.assign(score_error=error), "two_modes")
    rows = frame[frame["process"] == "error"]
    assert set(rows["score"]) == {"trained"}  # the exact one does not err
    assert len(rows) == pictures.sizes["schedule"] * pictures.sizes["time"]
    noisy = rows["time"] > 0
    np.testing.assert_allclose(rows.loc[noisy, "y"], 0.4)
    assert rows.loc[~noisy, "y"].isna().all()
    labels = [ax.get_ylabel().replace("\n", " ") for ax in figure.axes]
    assert labels.count("trained, error of the score") == pictures.sizes["schedule"]
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts.count("no noise") == pictures.sizes["schedule"]
    assert texts.count("rms 0.4") == noisy.sum()
