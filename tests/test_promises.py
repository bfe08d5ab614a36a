"""What families promise, ours and a user's, is checked when they are used."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sgm.run.build import MeasureError, measured
from sgm.run.check import check
from sgm.run.jobs import views
from sgm.store.grid import open_grid
from sgm.study import Plan, Study
from tests.workflow import run_jobs, tiny

# --- stages and steps --------------------------------------------------------------------


def test_a_bound_along_the_chain_of_a_sampler_with_more_stages_than_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The theorem's error is that at the N departures, however often a step asks the score."""
    monkeypatch.chdir(tmp_path)
    corrected = {"family": "predictor_corrector", "corrector_steps": 2, "step_size": 1e-12}
    config = tiny(samplers=[corrected, "euler_maruyama"], bounds=["kl", "w2"])
    bound = grid_of(config).w2_bound_score
    assert np.all(bound > 0)  # exact for the affine score, watched for the networks
    label = "predictor_corrector_corrector_steps=2_step_size=1e-12"
    plain, same = (bound.sel(sampler=name) for name in ("euler_maruyama", label))
    affine = {"score": "scaled_eps=0.1"}
    # a corrector that hardly moves: the chain at the departures is the predictor's
    np.testing.assert_allclose(same.sel(affine), plain.sel(affine), rtol=1e-6)
    np.testing.assert_allclose(same, plain, rtol=0.5)  # other draws


def test_samplers_with_memory_through_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks and exact scores, bounds along the chain, pictures and evaluations."""
    monkeypatch.chdir(tmp_path)
    own = [{"family": "edm", "s_churn": 3}, {"family": "deis", "order": 3}, "unipc", "heun"]
    pictures = {"schedules": ["beta_a=-2"], "rows": 5, "times": [1, 0.5, 0], "coordinates": [0]}
    grid = grid_of(tiny(samplers=own, bounds=["kl", "w2"], pictures=pictures))
    assert np.all(grid.w2_bound_score > 0)
    assert np.isfinite(grid.kl_plugin.sel(score="trained")).all()
    assert np.isfinite(grid.kl_exact.sel(score="scaled_eps=0.1")).all()
    np.testing.assert_array_equal(grid.nfe.squeeze(), [19, 10, 10, 19])


# --- rows of the registry ----------------------------------------------------------------

HEAD = "import numpy as np\nfrom sgm.study import Variable, register\n"
AXES = '("target", "schedule")'

MISSPELT = {
    'register("shedule")': "kind = 'shedule': must be one of target, schedule",
    'register("target", law="gausian")': "law = 'gausian' of a target: must be one of 'gaussian'",
    'register("schedule", law="density")': "law = 'density' of a schedule: must be left out",
    'register("score", needs="gausian")': "needs = 'gausian' of a score: must be one of '', 'law'",
    'register("sampler", needs="law")': "needs = 'law' of a sampler: must be left out",
    'register("divergence")': "variables of a divergence: must be what it computes",
    f'register("score", variables=[Variable("x", {AXES}, "x")])': "variables of a score: must be",
    'register("bound", variables=["x"])': r"variables = \['x'\]: must be a list of Variable",
    'register("sampler", exact=print)': "exact of a sampler: must be left out, but for a diverg",
    'register("schedule", stationary=True)': "stationary of a schedule: must be left out",
    f'register("bound", objection=print, variables=[Variable("x", {AXES}, "x")])': "about: obj",
    f'register("divergence", exact=print, variables=[Variable("x", {AXES}, "x")])': "exact: the ",
    'register("divergence", exact=lambda law: 0, variables=[Variable("x", (), "x")])': "exact = <f",
    'register("process")(np.sum)': "kind = 'process': is not open to extensions",
    'register("time_grid", axes="n")': "axes = 'n': must be a list of names",
    'Variable("x", ("schedule", "target"), "x")': "axes = .* of x: .*in this order",
    'Variable("x", ("target", "target"), "x")': "axes = .* of x: .*in this order",
    'Variable("x", ("seeds",), "x")': "axes = .* of x: must be a tuple of some of target",
    'Variable("a b", (), "x")': "name = 'a b' of a variable: must be letters",
    'Variable("x", (), "x", 1)': "units = 1 of x: must be a text",
    'Variable("x", (), "x", "1", {"rôle": "bound"})': "about = 'rôle' of x: must be one of role",
    'Variable("x", (), "x", "1", {"role": "divergense"})': "role = 'divergense' of x: must be 'div",
    'Variable("x", (), "x", "1", {"role": "divergence"})': "figure = '' of x: must be letters",
    'Variable("x", (), "x", "1", {"floor_power": "two"})': "floor_power = 'two' of x: must be",
    'Variable("x", (), "x", "1", {"label": 3})': "label = 3 of x: must be a text",
}


@pytest.mark.parametrize(("words", "message"), MISSPELT.items())
def test_what_is_misspelt_in_a_row_is_refused(tmp_path: Path, words: str, message: str) -> None:
    (tmp_path / "misspelt.py").write_text(f"{HEAD}{words}\n")
    with pytest.raises(ValueError, match=f"extensions: '.*misspelt.py': ValueError: {message}"):
        Study.parse(tiny(extensions=[str(tmp_path / "misspelt.py")]))


@pytest.mark.parametrize(
    ("kind", "signature", "message"),
    [
        (
            "time_grid",
            "horizon, steps",
            "steps: not among what a time_grid may ask for: process, horizon, n_steps, law, stop",
        ),
        ("target", "dimension: int", "dimension: not among .*: nothing; .*are keyword-only"),
        ("sampler", "process, times, eta", "eta: not among what a sampler may ask for"),
    ],
)
def test_an_argument_that_nobody_gives_is_refused(
    tmp_path: Path, kind: str, signature: str, message: str
) -> None:
    code = f"@register({kind!r})\ndef mine({signature}):\n    return None\n"
    (tmp_path / "asking.py").write_text(HEAD + code)
    with pytest.raises(ValueError, match=f"extensions: .*asking.py': ValueError: {message}"):
        Study.parse(tiny(extensions=[str(tmp_path / "asking.py")]))


GRIDS = """@register('time_grid')
def mine(horizon, n_steps):
    return np.linspace(horizon, {}, n_steps + 1)
"""


def test_each_study_has_the_families_of_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files may use one name in two studies, and not in one."""
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    for path, end in zip(paths, ("0.0", "0"), strict=True):
        path.write_text(HEAD + GRIDS.format(end))
    one, two = (Study.parse(tiny(extensions=[str(p)], time_grids=["mine"])) for p in paths)
    for study, path in ((one, paths[0]), (two, paths[1])):
        assert study.time_grids[0].spec["build"] == f"{path}:mine"
        check(study)
    with pytest.raises(ValueError, match=r"two\.py'.*time_grid 'mine' of .*by .*one\.py"):
        Study.parse(tiny(extensions=[str(p) for p in paths], time_grids=["mine"]))
    with pytest.raises(ValueError, match="family = 'mine': unknown time_grid"):
        Study.parse(tiny(time_grids=["mine"]))
    monkeypatch.chdir(tmp_path)  # the same file, seen from elsewhere
    again = Study.parse(tiny(extensions=["one.py", "./one.py"], time_grids=["mine"]))
    assert again.time_grids[0].spec["build"] == "one.py:mine"


MEASURE = """
@register({kind!r}, variables=[Variable({name!r}, {axes}, "x", "1", {{}}, {floor})])
def mine():
    return {{}}
"""


@pytest.mark.parametrize(
    ("kind", "name", "floor", "message"),
    [
        ("divergence", "kl_plugin", False, "divergences: 'mine' .*'kl_plugin'.*of 'gaussian_kl'"),
        ("bound", "kl_plugin", False, "bounds: 'mine' .*'kl_plugin'.*of 'gaussian_kl'"),
        ("bound", "kl_bound", False, "bounds: 'mine' .*'kl_bound'.*of 'kl'"),
        ("bound", "kl_terminal", False, "bounds: .*'kl_terminal'.*of '(likelihood|mine)'"),
        ("bound", "kl_exact", False, "bounds: 'mine' .*'kl_exact'.*of the grid itself"),
        ("bound", "status", False, "bounds: 'mine' .*'status'.*of the grid itself"),
        ("divergence", "seed", False, "divergences: 'mine' .*'seed'.*of the grid itself"),
        ("divergence", "kl", True, "divergences: .*'kl_floor'.*of '(gaussian_kl|mine)'"),
        ("divergence", "elbo", False, "divergences: 'mine' .*'elbo'.*of 'likelihood'"),
    ],
)
def test_a_variable_has_one_owner(
    tmp_path: Path, kind: str, name: str, floor: bool, message: str
) -> None:
    code = MEASURE.format(kind=kind, name=name, axes=("target", "seed"), floor=floor)
    (tmp_path / "taking.py").write_text(HEAD + code)
    key = f"{kind}s"
    listed = [*tiny()[key], "mine"]
    with pytest.raises(ValueError, match=message):
        Study.parse(tiny(extensions=[str(tmp_path / "taking.py")], **{key: listed}))


def test_one_family_measures_once() -> None:
    """With other parameters too: its variables would be written twice."""
    twice = [{"family": "sample_w2", "rows": 50}, {"family": "sample_w2", "rows": 20, "name": "b"}]
    with pytest.raises(ValueError, match=r"divergences: 'b' .*'w2_sample'.*of 'sample_w2'"):
        Study.parse(tiny(divergences=twice))


# --- what families return ----------------------------------------------------------------

BROKEN = [
    ("time_grid", "horizon, n_steps", "np.linspace(horizon, 0, n_steps)",
     r"returned shape \(10,\): must be \(10 \+ 1,\)"),
    ("time_grid", "horizon, n_steps", "np.linspace(0, horizon, n_steps + 1)",
     "returned times from 0 to 1: must decrease strictly"),
    ("time_grid", "horizon, n_steps", "np.linspace(horizon, -0.1, n_steps + 1)",
     "returned times from 1 to -0.1: .*stay >= 0"),
    ("time_grid", "horizon, n_steps", "np.linspace(0.5, 0, n_steps + 1)",
     "returned times from .*0.5.* on: must start at T = 1.0"),
    ("time_grid", "horizon, n_steps", "np.full(n_steps + 1, np.nan)", "must decrease strictly"),
    ("time_grid", "horizon, n_steps", "None", "returned = None: must be an array of real"),
    ("time_grid", "horizon, n_steps", "1 / 0",
     r"ZeroDivisionError: division by zero \(.*broken.py, line 5, in mine\)"),
    ("sampler", "process, times", "Steps(times, times, times, times)",
     "returned 11 steps: must be the 10 of the time grid"),
    ("sampler", "process, times", "Steps(*[times[:-1]] * 3, -times[:-1])",
     r"noise\[0\] = -1.0: must be a number >= 0"),
    ("sampler", "process, times", "Steps(2 * times[:-1], *[times[:-1]] * 3)",
     "score_time = 2.0: must be at most T = 1.0"),
    ("sampler", "process, times", "times", "returned = ndarray: must be a Steps"),
    ("sampler", "process, times", "process.sigma", "AttributeError: .*line 5, in mine"),
    ("schedule", "horizon", "3.0", "returned = 3.0: must be a NoiseSchedule"),
    ("schedule", "horizon", "ConstantSchedule(2 * horizon, 1.0)",
     "returned a schedule up to 2.0: must be 1.0"),
    ("schedule", "horizon", "Own(horizon, lambda t: 1.0, lambda t: t)",
     r"beta\(t\) has shape \(\) at t of shape \(101,\)"),
    ("schedule", "horizon", "Own(horizon, lambda t: t - 0.5, lambda t: t)",
     r"beta\(0\) = -0.5: must be >= 0"),
    ("schedule", "horizon", "Own(horizon, lambda t: t, lambda t: 1 + t)",
     r"integral\(0\) = 1, .*must increase from 0"),
    ("schedule", "horizon", "Own(horizon, lambda t: 'a' + t, lambda t: 1 + t)",
     r"UFuncTypeError: .*\(.*broken.py, line 5, in <lambda>\)|broken.py, line 5, in <lambda>: "),
    ("target", "", "3", "returned = int|returned = 3: must be a Target"),
    ("target", "", "LawTarget(Funnel(2, 1.0, 0.5))", "law='density', but is registered"),
    ("score", "process, law", "law", "returned = Gaussian: must be a GaussianScore"),
]  # fmt: skip

CODE = """
@register({kind!r})
def mine({signature}):
    return {value}


from dataclasses import dataclass
from sgm.samplers import Steps
from sgm.schedules import ConstantSchedule, NoiseSchedule
from sgm.densities import Funnel
from sgm.targets import LawTarget


@dataclass(frozen=True)
class Own(NoiseSchedule):
    rate: object
    total: object

    def beta(self, t):
        return self.rate(t)

    def integral(self, t):
        return self.total(t)
"""


def test_evaluations_that_depend_on_the_schedule_are_refused(tmp_path: Path) -> None:
    """They are a coordinate over sampler, time grid and steps alone."""
    twice = "(1 + (process.schedule.a > 0))"
    value = f"Steps(*[np.repeat(times[:-1], {twice})] * 4, starts={twice} * np.arange(10))"
    (tmp_path / "broken.py").write_text(
        "import numpy as np\nfrom sgm.study import register"
        + CODE.format(kind="sampler", signature="process, times", value=value)
    )
    config = tiny(extensions=[str(tmp_path / "broken.py")], samplers=["mine"])
    with pytest.raises(
        ValueError, match=r"samplers: mine: 10 steps evaluate the score 20 times, .* 10 times"
    ):
        check(Study.parse(config))


@pytest.mark.parametrize(("kind", "signature", "value", "message"), BROKEN)
def test_a_broken_promise_is_one_line_before_any_job(
    tmp_path: Path, kind: str, signature: str, value: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(
        "import numpy as np\nfrom sgm.study import register"
        + CODE.format(kind=kind, signature=signature, value=value)
    )
    line = {"family": "mine", "sampled": True} if kind == "score" else "mine"
    config = tiny(extensions=[str(tmp_path / "broken.py")], **{f"{kind}s": [line]})
    study = Study.parse(config)
    with pytest.raises(ValueError, match=f"{kind}s: mine: ") as error:
        check(study)
    text = str(error.value)
    assert re.search(message, text), text
    assert "broken.py" in text or kind == "score"
    assert "\n" not in text


# --- what goes with a divergence or a bound ----------------------------------------------

FACTS = """
from sgm.bounds.objection import Objection
from sgm.gaussian import Gaussian
from sgm.registry import GRID, REPLICATE, Positive

class Doubt(Objection):
    NONE = 0, "none"
    LAW = 1, "not Gaussian"
    SAMPLER = 2, "another sampler"

def doubt(law, variance, sampler, total):
    assert total == "mine" and variance == 1.0
    if not isinstance(law, Gaussian):
        return Doubt.LAW
    return Doubt.NONE if sampler == "ancestral" else Doubt.SAMPLER

@register("bound", variables=[Variable("mine", ("target",), "x", "1",
    {"role": "bound", "label": "mine", "parts": "", "objection": "mine_objection"})],
    objection=doubt, stationary=True)
def whole(law):
    return {"mine": 1.0}

def gap_exact(law, generated, *, low, high):
    return {"gap_exact": np.linalg.norm(generated.mean - law.mean) + low}

def ordered(low, high):
    if not high > low:
        raise ValueError(f"high = {high}: must exceed low = {low}")

@register("divergence", exact=gap_exact, require=ordered, variables=[
    Variable("gap", REPLICATE, "x", "1", {"exact": "gap_exact"}),
    Variable("gap_exact", GRID, "x", "1")])
def gap(sample, target, *, low: Positive, high: Positive = 9.0):
    return {"gap": np.linalg.norm(sample.mean(axis=0) - target.reference.mean) + low}
"""


def facts(path: Path, **changes: Any) -> dict[str, Any]:
    (path / "facts.py").write_text(HEAD + FACTS)
    own = {"extensions": [str(path / "facts.py")], "bounds": ["whole"], "targets": TWO}
    own |= {"scores": [{"family": "biased", "eps": 2.0, "sampled": True}], "n_samples": 4000}
    return tiny(**own | {"divergences": [{"family": "gap", "low": 3.0}]} | changes)


TWO = [{"family": "isotropic", "dimension": 2, "mean": 1.0, "variance": 0.5}, "two_modes"]


def test_a_users_twin_between_laws_and_objection_stand_in_the_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = grid_of(facts(tmp_path, samplers=["euler_maruyama", "ancestral"]))
    exact = grid.gap_exact.sel(target="isotropic")
    assert (exact > 3.5).all()  # the biased score moves the mean
    gap = grid.gap.sel(target="isotropic")
    assert (np.abs(gap - exact) < 5 * np.sqrt(2 * grid.w2_exact.max() / 4000) + 0.1).all()
    assert np.isnan(grid.gap_exact.sel(target="two_modes")).all()
    applicable, why = grid.mine_applicable, grid.mine_objection
    assert applicable.sel(target="isotropic", sampler="ancestral") == 1
    assert why.sel(target="isotropic", sampler="euler_maruyama") == 2
    assert (why.sel(target="two_modes") == 1).all()
    assert (applicable == (why == 0)).all()
    assert why.attrs["flag_meanings"] == "none not_Gaussian another_sampler"


def test_what_a_user_says_of_parameters_and_process_is_asked_of_the_config(tmp_path: Path) -> None:
    for parameters, message in (
        ({"low": 0.0}, "gap: low = 0.0: must be greater than"),
        ({"low": 9.5}, "gap: high = 9.0: must exceed low = 9.5"),
        ({}, "gap: low: this key is required"),
    ):
        with pytest.raises(ValueError, match=message):
            Study.parse(facts(tmp_path, divergences=[{"family": "gap"} | parameters]))
    with pytest.raises(ValueError, match="bounds: 'whole' needs the stationary law"):
        Study.parse(facts(tmp_path, process="ve"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("generated, *", "generated, chain, *", "chain: not among what exact may ask for: law, g"),
        ("*, low, high):", "*, low):", "exact: must have the arguments high, low"),
        ("sampler, total):", "sampler):", "objection: must have the arguments total"),
        (
            "low: Positive,",
            "low: Gaussian,",
            "facts.py:gap: an annotation against which a config can't be",
        ),
    ],
)
def test_what_goes_with_a_measure_is_checked(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    config = facts(tmp_path)
    assert FACTS.count(old) == 1
    (tmp_path / "facts.py").write_text(HEAD + FACTS.replace(old, new))
    with pytest.raises(ValueError, match=message):
        Study.parse(config)


# --- measures ----------------------------------------------------------------------------

MEASURES = """
import numpy as np
from sgm.study import Variable, register
from sgm.study.variables import REPLICATE, THEORY


@register("divergence", variables=[Variable("spread", REPLICATE, "x", "1", measured_floor=True)])
def spread(sample, *, broken: str):
    value = float(sample.std())
    match broken:
        case "name":
            return {"spreda": value}
        case "array":
            return {"spread": sample.std(axis=0)}
        case "text":
            return {"spread": "wide"}
        case "none":
            return None
        case "error":
            return {"spread": value / 0}
        case "some" if value > np.float64(%r):
            raise KeyError(value)
    return {"spread": value}


@register("bound", variables=[Variable("own", THEORY, "x", "1")])
def own(process, score_mse):
    if process.schedule.a > 0 and score_mse.ndim > 1:
        raise KeyError("a")
    return {"own": score_mse.sum(axis=-1)}
"""


def grid_of(config: dict[str, Any]) -> xr.Dataset:
    """All jobs of a study, and its grid."""
    study = Study.parse(config)
    check(study)
    plan = Plan(study, Path("results/tiny"))
    run_jobs(plan)
    views.grid({"config": config, "root": str(plan.root)}, {}, {"grid": plan.root / "grid.zarr"})
    return open_grid(plan.root / "grid.zarr")


def test_an_error_of_one_run_fails_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    measure = {"family": "spread", "broken": ""}
    config = tiny(extensions=["mine.py"], divergences=["gaussian_kl", measure], bounds=["kl"])
    Path("mine.py").write_text(MEASURES % 0.0)
    whole = grid_of(config)
    spread = whole.spread.sel(score="trained").squeeze()
    limit = float(np.sort(spread.values.ravel())[-2:].mean())  # the widest run alone is above it
    Path("mine.py").write_text(MEASURES % limit)
    sys.modules.pop(f"extension:{tmp_path / 'mine.py'}")
    measure["broken"] = "some"
    config["bounds"] = ["kl", "own"]
    capsys.readouterr()
    grid = grid_of(config)
    log = capsys.readouterr().out
    failures = json.loads(grid.attrs["failures"])
    runs = [f for f in failures if "sampler" in f]
    (run,) = runs
    assert re.fullmatch(
        r"spread of mine\.py: KeyError: .*\(mine\.py, line 22, in spread\)", run["message"]
    )
    assert run["message"] in log
    place = {axis: run[axis] for axis in ("target", "schedule", "score", "seed")}
    assert int(grid.status.sel(place).squeeze()) == 2
    assert int((grid.status == 2).sum()) == 1
    assert np.isnan(grid.kl_plugin.sel(place)).all()
    others = grid.status.sel(score="trained") == 1
    kept, before = (g.kl_plugin.sel(score="trained").where(others) for g in (grid, whole))
    np.testing.assert_array_equal(kept, before)
    # a bound of one schedule, for its networks; of the affine score it is there
    bounds = [f for f in failures if "time_grid" in f and "sampler" not in f]
    assert {f["schedule"] for f in bounds} == {"beta_a=3"}
    assert {f["message"] for f in bounds} == {
        "own of mine.py: KeyError: 'a' (mine.py, line 29, in own)"
    }
    own = grid.own.sel(score="trained").squeeze()
    assert np.isfinite(own.sel(schedule="beta_a=-2")).all()
    assert np.isnan(own.sel(schedule="beta_a=3")).all()
    assert np.isfinite(grid.own.sel(score="scaled_eps=0.1")).all()
    assert np.isnan(grid.kl_bound.sel(score="trained", schedule="beta_a=3")).all()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("name", "returned spreda: must be the variables that it declares, .*: spread"),
        ("array", r"spread has shape \(3,\): must be a number"),
        ("text", "spread = 'wide': must be an array of real numbers"),
        ("none", "returned None: must be a dict"),
        ("error", r"ZeroDivisionError: .*\(.*mine.py, line 20, in spread\)"),
    ],
)
def test_a_measure_returns_numbers_by_their_declared_names(
    tmp_path: Path, broken: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(MEASURES % 0.0)
    config = tiny(
        extensions=[str(tmp_path / "mine.py")], divergences=[{"family": "spread", "broken": broken}]
    )
    (item,) = Study.parse(config).divergences
    sample = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(MeasureError, match=rf"spread of .*mine.py: {message}"):
        measured([item.spec], {"sample": sample})


def test_too_little_memory_is_no_fault_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sgm.measures.divergences.gaussian_w2", hungry)
    (item,) = Study.parse(tiny(divergences=["gaussian_w2"])).divergences
    with pytest.raises(MemoryError):
        measured([item.spec], {})


def test_a_floor_that_raises_is_a_failure_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of true samples alone: the runs stay as they are."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MEASURES % 0.0)
    measure = {"family": "spread", "broken": ""}
    config = tiny(extensions=["mine.py"], divergences=["gaussian_kl", measure], bounds=[])

    def raising(measures: Any, context: Any) -> dict[str, Any]:
        if context["sample"].dtype == np.float64 and context["sample"] is context["generated"]:
            raise MeasureError("not of true samples")
        return measured(measures, context)

    monkeypatch.setattr("sgm.run.jobs.stages.measured", raising)
    grid = grid_of(config)
    failures = json.loads(grid.attrs["failures"])
    assert failures == [
        {"target": "isotropic", "seed": seed, "message": "not of true samples"} for seed in (0, 1)
    ]
    assert np.isnan(grid.spread_floor).all()
    assert np.isfinite(grid.spread.sel(score="trained")).all()
    assert (grid.status == 1).all()


def test_a_users_error_in_a_job_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where only a job asks: the rows of a target."""
    monkeypatch.chdir(tmp_path)
    Path("late.py").write_text(
        "from sgm.study import register\n"
        "from sgm.gaussian import Gaussian\n"
        "from sgm.targets import LawTarget\n\n\n"
        "class Late(LawTarget):\n"
        "    def sample(self, n, generator):\n"
        "        return generator.normally(n)\n\n\n"
        "@register('target')\n"
        "def late():\n"
        "    return Late(Gaussian.diagonal([0.0, 0.0], [1.0, 2.0]))\n"
    )
    study = Study.parse(tiny(extensions=["late.py"], targets=["late"]))
    check(study)
    with pytest.raises(AssertionError):
        run_jobs(Plan(study, Path("results/tiny")), ["data"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("data: late.py, line 8, in sample: AttributeError: ")
