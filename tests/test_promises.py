"""What families promise, ours and a user's, is checked when they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sgm.run import views
from sgm.run.check import check
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
    study = Study.parse(config)
    check(study)
    plan = Plan(study, Path("results/tiny"))
    run_jobs(plan)
    store = {"grid": Path(plan.pattern("grid"))}
    views.grid({"config": config, "root": str(plan.root)}, {}, store)
    bound = open_grid(store["grid"].parent).w2_bound_score
    assert np.all(bound > 0)  # exact for the affine score, watched for the networks
    plain, same = (bound.sel(sampler=name) for name in ("euler_maruyama", "predictor_corrector"))
    affine = {"score": "scaled_eps=0.1"}
    # a corrector that hardly moves: the chain at the departures is the predictor's
    np.testing.assert_allclose(same.sel(affine), plain.sel(affine), rtol=1e-6)
    np.testing.assert_allclose(same, plain, rtol=0.5)  # other draws


# --- rows of the registry ----------------------------------------------------------------

HEAD = "import numpy as np\nfrom sgm.study import Variable, register\n"
AXES = '("target", "schedule")'

MISSPELT = {
    'register("shedule")': "kind = 'shedule': must be one of target, schedule",
    'register("target", law="gausian")': "law = 'gausian' of a target: must be gaussian, density",
    'register("schedule", law="density")': "law = 'density' of a schedule: must be left out",
    'register("score", needs="gausian")': "needs = 'gausian' of a score: must be one of '', 'law'",
    'register("sampler", needs="law")': "needs = 'law' of a sampler: must be left out",
    'register("divergence")': "variables of a divergence: must be what it computes",
    f'register("score", variables=[Variable("x", {AXES}, "x")])': "variables of a score: must be",
    'register("bound", variables=["x"])': r"variables = \['x'\]: must be a list of Variable",
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
            "steps: not among what a time_grid may ask for: horizon, n",
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
    for path, end in zip(paths, ("0.0", "0.1"), strict=True):
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
