"""Parameters are coordinates: from the config through labels and the grid to a figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sgm import reading
from sgm.axes import AXES, label_of, label_without
from sgm.gather import gather
from sgm.registry import HOMES
from sgm.registry import families as registered
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study
from sgm.study.families import model_of
from tests.workflow import run_jobs, tiny


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


# --- from a config to the grid -------------------------------------------------------------


EXTENSION = """
import numpy as np
from sgm.samplers import Steps, euler_maruyama
from sgm.schedules import NumericalSchedule
from sgm.study import register

@register("schedule", axes={"exponent": "p"})
def power(horizon, *, exponent: float, beta_max: float):
    return NumericalSchedule(horizon, lambda t: 0.1 + beta_max * (t / horizon) ** exponent)

@register("sampler", axes=["exponent", "repeats"])
def cold(process, times, *, exponent: float, repeats: int = 1):
    steps = euler_maruyama(process, times)
    return Steps(steps.score_time, steps.state, steps.score, 0.9**exponent * steps.noise)
"""


def exact_study(**changes: Any) -> dict[str, Any]:
    """Exact laws of a Gaussian: no network, no sample."""
    perturbed = {"family": "scaled", "eps": [0.1, 0.2], "sampled": False}
    changes = {"likelihood": None, "pictures": None, "bounds": []} | changes
    return tiny(scores=[{"family": "exact", "sampled": False}, perturbed], **changes)


def grid_of(config: dict[str, Any], folder: Path) -> xr.Dataset:
    plan = Plan(Study.parse(config), folder)
    run_jobs(plan)
    write_grid(gather(plan, {}), folder / "grid.zarr")
    return open_grid(folder / "grid.zarr")


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("axes")
    (folder / "mine.py").write_text(EXTENSION)
    ranges = {"beta_min": 0.1, "beta_max": 20.0}
    config = exact_study(
        extensions=[str(folder / "mine.py")],
        schedules=[
            {"family": "beta_a", "a": [0.1 + 0.2, -10]} | ranges,  # 0.30000000000000004
            {"family": "power", "exponent": [0.5, 2], "beta_max": 20.0},
            {"family": "constant", "rate": 10.0},
        ],
        samplers=[
            "euler_maruyama",
            {"family": "ddim", "eta": [0, 0.1, 1]},
            {"family": "cold", "exponent": [1, 3]},
            {"family": "predictor_corrector", "corrector_steps": [1, 2], "step_size": 1e-4},
        ],
    )
    grid = grid_of(config, folder)
    Study.parse(tiny())  # a study forgets the families of the one before
    return grid


def test_every_parameter_is_a_coordinate_with_symbol_and_name(gathered: xr.Dataset) -> None:
    told = {
        name: (own.dims, own.attrs["symbol"], own.attrs["long_name"])
        for name, own in gathered.coords.items()
        if "parameter" in own.attrs
    }
    assert told == {
        "a": (("schedule",), "a", "a of beta_a"),
        "schedule_exponent": (("schedule",), "p", "exponent of power"),
        "sampler_exponent": (("sampler",), "exponent", "exponent of cold"),
        "repeats": (("sampler",), "repeats", "repeats of cold"),
        "eta": (("sampler",), "η", "eta of ddim"),
        "corrector_steps": (("sampler",), "L", "corrector_steps of predictor_corrector"),
        "step_size": (("sampler",), "δ", "step_size of predictor_corrector"),
        "eps": (("score",), "ε", "eps of scaled"),
    }
    assert all(gathered[name].dtype == np.float64 for name in told)
    np.testing.assert_array_equal(gathered.a, [0.3, -10, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(gathered.eps, [np.nan, 0.1, 0.2])
    assert gathered.horizon.attrs["symbol"] == "T"
    assert gathered.n_steps.attrs["symbol"] == "N"


def test_labels_and_coordinates_agree_to_the_last_digit(gathered: xr.Dataset) -> None:
    for name, own in gathered.coords.items():
        if "parameter" not in own.attrs:
            continue
        for label, value in zip(own[own.dims[0]].values, own.values, strict=True):
            written = re.search(rf"(?<=_{own.attrs['parameter']}=)[^_]+", label)
            assert np.isnan(value) if written is None else float(written[0]) == value, (name, label)


def test_every_built_in_parameter_that_is_an_axis_is_a_number_with_a_symbol() -> None:
    for kind in HOMES:
        for family, entry in registered(kind).items():
            for parameter, symbol in entry.symbols.items():
                annotation = model_of(entry).model_fields[parameter].annotation
                assert annotation in (int, float), (kind, family, parameter)
                assert isinstance(symbol, str)


def test_a_number_of_the_config_finds_its_cells(gathered: xr.Dataset) -> None:
    assert gathered.sel(schedule=gathered.a == 0.3).schedule.item() == "beta_a=0.3"
    indexed = gathered.set_xindex("a").set_xindex("eta")  # NaN repeats, and is no hindrance
    cell = indexed.sel(a=0.3, eta=0.1)
    assert (cell.schedule.item(), cell.sampler.item()) == ("beta_a=0.3", "ddim_eta=0.1")
    assert cell.kl_exact.notnull().any()
    with pytest.raises(KeyError):
        indexed.sel(a=0.31)
    curve = gathered.kl_exact.sel(sampler=gathered.eta.notnull()).swap_dims(sampler="eta")
    assert curve.sel(eta=[1, 0]).sampler.values.tolist() == ["ddim_eta=1", "ddim_eta=0"]


def test_the_numbers_that_vary_in_a_gathered_grid(gathered: xr.Dataset) -> None:
    assert [axis.name for axis in reading.numeric_axes(gathered)] == [
        "a", "schedule_exponent", "eta", "sampler_exponent", "corrector_steps", "eps",
    ]  # fmt: skip
    axis = reading.x_axis(gathered, "sampler_exponent")
    assert axis is not None
    assert axis.label == "exponent of cold"
    assert reading.along(gathered, axis).curves == {
        "cold_repeats=1": ["cold_exponent=1_repeats=1", "cold_exponent=3_repeats=1"]
    }


def test_a_study_says_what_its_figures_have_on_the_x_axis(tmp_path: Path) -> None:
    samplers = [{"family": "ddim", "eta": [0, 1]}]
    config = exact_study(samplers=samplers, figures={"x": "eta"})
    config["scores"] = config["scores"][:1]
    grid = grid_of(config, tmp_path)
    assert [axis.name for axis in reading.numeric_axes(grid)] == ["a", "eta"]
    default = reading.default_x(grid)
    assert default is not None
    assert default.name == "eta"
    one = reading.default_x(grid.isel(sampler=[0]))  # where eta does not vary
    assert one is not None
    assert one.name == "a"


@pytest.mark.parametrize(
    ("x", "known"),
    [("etas", "a, eta"), ("seed", "a, eta"), ("horizon", "a, eta"), ("eps", "a, eta")],
)
def test_an_x_axis_that_does_not_vary_is_refused_before_any_job(x: str, known: str) -> None:
    samplers = [{"family": "ddim", "eta": [0, 1]}]
    message = f"figures: x = '{x}': must be a number that varies in the study, {known}$"
    with pytest.raises(ValueError, match=message):
        Study.parse(tiny(samplers=samplers, figures={"x": x}))


NAMES = """
from sgm.study import Variable, register

@register("schedule", axes=[{name!r}])
def mine(*, {name}: float):
    return None

@register("divergence", variables=[Variable("own", ("target", "seed"), "x", "1")])
def own():
    return {{}}
"""


@pytest.mark.parametrize("name", ["status", "dimension", "kl_exact", "own", "bin"])
def test_a_parameter_named_as_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(NAMES.format(name=name))
    taken = "'own'" if name == "own" else "the grid itself"
    message = f"schedules: the parameter {name!r} of 'mine' would be .* of {taken}: names must"
    with pytest.raises(ValueError, match=message):
        Study.parse(
            tiny(
                extensions=[str(tmp_path / "mine.py")],
                schedules=[{"family": "mine", name: 1.0}],
                divergences=["own"],
                pictures=None,
            )
        )


@pytest.mark.parametrize(
    ("axes", "type_", "message"),
    [
        ("['mode']", "str", "axes = 'mode' of mine: must be a number, float or int"),
        ("['mode']", "float | None", "axes = 'mode' of mine: must be a number, float or int"),
        ("['horizon']", "float", r"axes = \['horizon'\]: must be .* not what a schedule may ask"),
        ("{'mode': ''}", "float", "axes = .*: symbol '': must be a text"),
        ("{'mode': '$m$'}", "float", r"axes = .*: symbol '\$m\$': must be a text without"),
    ],
)
def test_an_axis_is_a_number_with_a_symbol(
    tmp_path: Path, axes: str, type_: str, message: str
) -> None:
    code = f"@register('schedule', axes={axes})\ndef mine(horizon, *, mode: {type_}):\n    pass\n"
    (tmp_path / "mine.py").write_text(f"from sgm.study import register\n{code}")
    with pytest.raises(ValueError, match=message):
        Study.parse(tiny(extensions=[str(tmp_path / "mine.py")]))


def test_a_number_that_no_label_can_hold_is_refused(tmp_path: Path) -> None:
    code = "@register('schedule', axes=['big'])\ndef mine(horizon, *, big: int):\n    pass\n"
    (tmp_path / "mine.py").write_text(f"from sgm.study import register\n{code}")
    with pytest.raises(ValueError, match="big: 1000000000001: must have at most 12 digits"):
        Study.parse(
            tiny(
                extensions=[str(tmp_path / "mine.py")],
                schedules=[{"family": "mine", "big": 10**12 + 1}],
            )
        )
