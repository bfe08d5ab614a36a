"""Parameters are coordinates: from the config through labels and the grid to a figure."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sgm import reading
from sgm.store.axes import AXES, label_of, label_without


def coordinate(parameter: str, symbol: str, family: str) -> dict[str, str]:
    return {"parameter": parameter, "symbol": symbol, "long_name": f"{parameter} of {family}"}


def grid(**sizes: int) -> xr.Dataset:
    """Three dimensions with parameters, and what each item's label says of them."""
    samplers = {
        "ddim_eta=1": (1.0, np.nan, np.nan),
        "euler_maruyama": (np.nan, np.nan, np.nan),
        "ddim_eta=0.5": (0.5, np.nan, np.nan),
        "predictor_corrector_corrector_steps=2_step_size=0.1": (np.nan, 2.0, 0.1),
        "predictor_corrector_corrector_steps=1_step_size=0.1": (np.nan, 1.0, 0.1),
        "predictor_corrector_corrector_steps=1_step_size=0.01": (np.nan, 1.0, 0.01),
    }
    values = np.array(list(samplers.values())).T
    families = ("eta", "η", "ddim"), ("corrector_steps", "L", "pc"), ("step_size", "δ", "pc")
    return xr.Dataset(
        coords={
            "schedule": ["cosine", "beta_a=0.3", "beta_a=-10", "power_exponent=2"],
            "a": ("schedule", [np.nan, 0.3, -10.0, np.nan], coordinate("a", "a", "beta_a")),
            "exponent": (
                "schedule",
                [np.nan, np.nan, np.nan, 2.0],
                coordinate("exponent", "exponent", "power"),
            ),
            "sampler": list(samplers),
            **{
                name: ("sampler", own, coordinate(name, *about))
                for (name, *about), own in zip(families, values, strict=True)
            },
            "horizon": [2.0, 1.0],
            "n_steps": [10],
            "seed": [0, 1],
        }
    )


def test_the_numbers_that_vary_in_their_order() -> None:
    names = [axis.name for axis in reading.numeric_axes(grid())]
    assert names == ["a", "horizon", "eta", "corrector_steps", "step_size"]  # one exponent, one N
    default = reading.default_x(grid())
    assert default is not None
    assert default == reading.x_axis(grid()) == reading.x_axis(grid(), "a")
    assert default.label == "$a$ of beta_a"
    labels = {axis.name: axis.label for axis in reading.numeric_axes(grid())}
    assert labels["eta"] == "$η$ of ddim"
    assert labels["horizon"] == "diffusion time $T$"
    rest = grid().sel(schedule=["cosine"], horizon=[1.0], sampler=["euler_maruyama"])
    assert reading.default_x(rest) is None
    word = reading.NumericAxis("exponent", "schedule", "exponent", "exponent", "exponent of power")
    assert word.label == "exponent of power"


def test_a_number_that_does_not_vary_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="x = 'exponent': must be a number that varies"):
        reading.x_axis(grid(), "exponent")
    with pytest.raises(ValueError, match=r"x = 'seed': .*, a, horizon, eta, corr"):
        reading.x_axis(grid(), "seed")
    with pytest.raises(ValueError, match="in the grid, none does"):
        reading.x_axis(grid().sel(schedule=["cosine"], horizon=[1.0], sampler=["ddim_eta=1"]), "a")


def test_labels_stand_along_a_number_by_what_they_have_in_common() -> None:
    def along(name: str) -> reading.Along:
        axis = reading.x_axis(grid(), name)
        assert axis is not None
        return reading.along(grid(), axis)

    assert along("a").curves == {"beta": ["beta_a=-10", "beta_a=0.3"]}
    assert along("a").others == ["cosine", "power_exponent=2"]
    assert along("horizon") == reading.Along({"": [1.0, 2.0]}, [])
    corrected = "predictor_corrector"
    assert along("corrector_steps").curves == {
        f"{corrected}_step_size=0.1": [
            f"{corrected}_corrector_steps={n}_step_size=0.1" for n in (1, 2)
        ],
        f"{corrected}_step_size=0.01": [f"{corrected}_corrector_steps=1_step_size=0.01"],
    }


def test_a_grid_that_does_not_say_what_its_coordinates_are() -> None:
    """Those published earlier: `a` has no attributes, horizons and steps have no symbol."""
    old = grid().drop_vars(["exponent", "eta", "corrector_steps", "step_size"])
    old["a"].attrs = {"long_name": "a of beta_a, NaN outside the family"}
    a, horizon = reading.numeric_axes(old)
    assert (a.label, horizon.label) == ("$a$ of beta_a", "diffusion time $T$")
    assert reading.along(old, a).curves == {"beta": ["beta_a=-10", "beta_a=0.3"]}


@pytest.mark.parametrize("value", [0.3, -10.0, 1e-12, 1e9, 0.1 + 0.2])
def test_a_label_without_a_parameter(value: float) -> None:
    parameters = {"size": 1.0, "step_size": 10.0, "step": value}
    label = label_of("own", parameters)
    for name, number in parameters.items():
        rest = {key: other for key, other in parameters.items() if key != name}
        assert label_without(label, name, number) == label_of("own", rest)


def test_every_axis_has_a_row() -> None:
    assert list(AXES) == [
        "target", "schedule", "horizon", "score", "sampler", "time_grid", "n_steps", "seed",
    ]  # fmt: skip
    assert set(reading.X_DIMENSIONS) == set(AXES) - {"target", "seed"}
