"""The real workflow on a tiny study: what it makes, what it makes again, what it survives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from sgm.gather import gather
from sgm.store.cells import read_cells
from sgm.study import Plan, Study
from tests.test_determinism import run
from tests.workflow import ROOT, Workflow, tiny

pytestmark = pytest.mark.xdist_group("workflow")  # one worker: a run takes both cores

CORRELATED = {"family": "correlated", "dimension": 2, "mean": 0, "offset": 1}
VIEWS = {"grid": 1, "figures": 1, "tables": 1}
CHAIN = {"train": 1, "sample": 1, "evaluate": 1, "bound": 1}


def times(n: int, jobs: dict[str, int]) -> dict[str, int]:
    return {rule: n * count for rule, count in jobs.items()}


def some_fast(cases: dict[str, Any], fast: int) -> list[Any]:
    """Names of cases; all but the first few are marked slow."""
    marks = [[] if i < fast else [pytest.mark.slow] for i in range(len(cases))]
    return [pytest.param(name, marks=mark) for name, mark in zip(cases, marks, strict=True)]


def with_a(*values: float) -> list[dict[str, Any]]:
    return [{"family": "beta_a", "a": list(values), "beta_min": 0.1, "beta_max": 20.0}]


@pytest.fixture
def study(finished: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished study, to be changed."""
    return finished.copy(tmp_path / "copy")


def test_the_grid_is_complete_and_labelled(finished: Workflow) -> None:
    # opening needs xarray alone, and warns of nothing
    grid = xr.open_zarr(finished.results / "grid.zarr", consolidated=False).load()
    trained = grid.sel(score="trained", sampler="exponential_integrator_modified")
    for name in ("kl_plugin", "kl_unbiased", "kl_standard_error", "kl_bound", "kl_path",
                 "kl_coupled", "kl_coupled_gain", "kl_plugin_expected",
                 "kl_bound_score", "train_loss", "train_seconds"):  # fmt: skip
        assert np.isfinite(trained[name]).all(), name
    perturbed = grid.sel(score="scaled_eps=0.1")
    for name in ("kl_exact", "kl_reverse_exact", "w2_exact", "kl_bound", "kl_path"):
        assert np.isfinite(perturbed[name]).all(), name
    for name in ("kl_bound_mixing", "kl_bound_discretization", "kl_bound_discretization_refined",
                 "kl_terminal", "kl_floor", "schedule_beta"):  # fmt: skip
        assert np.isfinite(grid[name]).all(), name
    assert (grid.status == 1).all()
    for name, variable in grid.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    assert set(grid.kl_plugin.dims) == {
        "target", "schedule", "horizon", "score", "sampler", "time_grid", "n_steps", "seed"
    }  # fmt: skip
    assert grid.family.values.tolist() == ["beta_a", "beta_a"]
    assert grid.a.values.tolist() == [-2.0, 3.0]
    for key in ("config", "config_digest", "commit", "created", "torch_version", "compute_seconds"):
        assert key in grid.attrs
    total = grid.kl_bound_mixing + grid.kl_bound_score + grid.kl_bound_discretization
    np.testing.assert_allclose(total.transpose(*grid.kl_bound.dims), grid.kl_bound, rtol=1e-12)


def test_the_bound_lies_above_the_exact_divergence(finished: Workflow) -> None:
    grid = finished.grid.sel(score="scaled_eps=0.1", sampler="exponential_integrator_modified")
    assert (grid.kl_exact <= grid.kl_path.isel(seed=0)).all()
    assert (grid.kl_path <= grid.kl_bound).all()


def test_every_figure_has_its_numbers_beside_it(finished: Workflow) -> None:
    for stem in ("schedules", "kl/isotropic", "kl_decomposition/isotropic"):
        for suffix in (".png", ".pdf", ".csv"):
            assert (finished.results / "figures" / f"{stem}{suffix}").stat().st_size > 0
    # a = -2 and 3 have neither a = 0 nor another family beside them
    assert not (finished.results / "figures/comparison").exists()
    for name in ("summary.csv", "ranking.csv", "comparison.csv", "comparison.txt"):
        assert (finished.results / "tables" / name).stat().st_size > 0


def test_nothing_is_left_to_do_and_samples_are_gone(finished: Workflow) -> None:
    assert finished.planned() == {}
    assert not list((finished.results / "samples").rglob("*.npz"))


CHANGES = {
    "a": ({"schedules": with_a(-2, 3, 5)}, CHAIN | {"exact": 1, "axes": 1} | VIEWS),
    "seeds": ({"seeds": 3}, {"data": 1} | times(2, CHAIN) | VIEWS),
    "sampler": (
        {"samplers": ["exponential_integrator_modified", "euler_maruyama"]},
        {"sample": 2, "evaluate": 2, "exact": 1, "axes": 1} | VIEWS,
    ),
    "horizon": ({"horizons": [1.0, 0.5]}, times(2, CHAIN) | {"exact": 1, "axes": 1} | VIEWS),
    "target": (
        {"targets": [*tiny()["targets"], CORRELATED]},
        {"data": 1, "exact": 1, "axes": 1} | times(2, CHAIN) | VIEWS,
    ),
    "n_steps": (
        {"n_steps": [10, 5]},
        {"sample": 2, "evaluate": 2, "bound": 2, "exact": 1, "axes": 1} | VIEWS,
    ),
    "n_score_error": ({"n_score_error": 30}, {"bound": 2} | VIEWS),
    "precision": ({"precision": "bfloat16"}, {"sample": 2, "evaluate": 2, "bound": 2} | VIEWS),
    "fewer_a": ({"schedules": with_a(3)}, {"exact": 1, "axes": 1} | VIEWS),
    "fewer_seeds": ({"seeds": 1}, VIEWS),
    "study_seed": ({"study_seed": 2}, {"data": 1, "exact": 1} | times(2, CHAIN) | VIEWS),
    "variance": (
        {"process": {"family": "vp", "variance": 1.5}},
        {"exact": 1, "axes": 1} | times(2, CHAIN) | VIEWS,
    ),
    "blocks": ({"seeds_per_job": 1, "schedules_per_job": 2}, VIEWS),
    "runtime": ({"keep_samples": True, "device": "auto"}, VIEWS),
}


@pytest.mark.parametrize("change", some_fast(CHANGES, 1))
def test_a_changed_config_runs_exactly_the_new_cells(study: Workflow, change: str) -> None:
    """With Snakemake's own record of what jobs were told, and without it, as in a new clone."""
    changes, jobs = CHANGES[change]
    assert study.planned(tiny(**changes)) == jobs
    study.forget()
    assert study.planned(tiny(**changes)) == jobs


def test_planning_another_config_leaves_the_study_done(study: Workflow) -> None:
    """With no record but that of the plans."""
    study.forget()
    assert study.planned(tiny(study_seed=2)) != {}
    assert study.planned(tiny()) == {}


@pytest.mark.slow
@pytest.mark.parametrize("record", [True, False])
def test_a_changed_study_has_the_grid_of_a_clean_run(
    study: Workflow, tmp_path: Path, record: bool
) -> None:
    changed = tiny(n_samples=70, process={"family": "vp", "variance": 1.5}, seeds=3)
    if not record:
        study.forget()
    clean = run(changed, tmp_path / "clean")
    assert study.make(changed).attrs["content_sha256"] == clean.attrs["content_sha256"]


@pytest.mark.slow
def test_the_gather_refuses_a_cell_of_another_config_by_name(
    study: Workflow, tmp_path: Path
) -> None:
    """Files copied over a study's own, after its jobs were planned or by hand."""
    before = study.grid
    other = tmp_path / "other"
    run(tiny(study_seed=2), other)
    name = sorted((study.results / "cells/divergences").rglob("*.npz"))[0]
    shutil.copy(other / name.relative_to(study.results), name)
    plan = Plan(Study.parse(tiny()), study.results)
    with pytest.raises(ValueError, match=f"{name.name}: made for another config"):
        gather(plan, {})
    assert study.planned() == {"sample": 1, "evaluate": 1} | VIEWS
    again = study.make(tiny())
    assert again.attrs["content_sha256"] == before.attrs["content_sha256"]


@pytest.mark.slow
def test_a_study_in_blocks_of_schedules_grows_and_shrinks(
    finished: Workflow, tmp_path: Path
) -> None:
    """Jobs by blocks make the same numbers, and none runs twice because the study changed."""
    blocks = Workflow(tmp_path / "blocks")
    blocks.write(tiny(schedules_per_job=2))
    assert blocks.planned() == CHAIN | {"data": 1, "exact": 1, "axes": 1} | VIEWS
    grid = blocks.make(tiny(schedules_per_job=2))
    for name in set(grid.variables) - {"train_seconds"}:
        np.testing.assert_array_equal(grid[name], finished.grid[name], err_msg=str(name))
    assert blocks.planned() == {}
    one_more = tiny(schedules_per_job=2, schedules=with_a(0, -2, 3))
    assert blocks.planned(one_more) == CHAIN | {"exact": 1, "axes": 1} | VIEWS
    fewer = tiny(schedules_per_job=2, schedules=with_a(3))
    assert blocks.planned(fewer) == {"exact": 1, "axes": 1} | VIEWS
    assert blocks.planned(fewer | {"n_score_error": 30}) == {
        "bound": 1, "exact": 1, "axes": 1} | VIEWS  # fmt: skip
    anew = fewer | {"n_train": 150}
    assert blocks.planned(anew) == CHAIN | {"data": 1, "exact": 1, "axes": 1} | VIEWS
    blocks.make(anew)
    assert len(list((blocks.results / "networks").rglob("beta_a=3/**/*.safetensors"))) == 1
    assert blocks.planned(tiny(schedules_per_job=2, n_train=150)) == (
        CHAIN | {"exact": 1, "axes": 1} | VIEWS  # beta_a=-2 alone
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["figures/schedules.png", "tables/summary.csv", "grid.zarr/zarr.json"]
)
def test_an_emptied_or_deleted_view_is_made_again(study: Workflow, name: str) -> None:
    path, (view, *_) = study.results / name, name.split(".")[0].split("/")
    whole = path.read_bytes()
    path.unlink()
    assert view in study.planned()
    path.write_bytes(b"")
    study.make(tiny())
    assert name.startswith("grid") or path.read_bytes() == whole
    assert study.planned() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "jobs"),
    [
        ("cells/divergences", {"sample": 1, "evaluate": 1}),
        ("cells/bounds", {"bound": 1}),
        ("networks", {"train": 1}),
        ("cells/exact", {"exact": 1}),
    ],
)
def test_a_deleted_file_is_made_again(study: Workflow, kind: str, jobs: dict[str, int]) -> None:
    first = sorted(p for p in (study.results / kind).rglob("*") if p.is_file())[0]
    first.unlink()
    planned = study.planned()
    assert {rule: planned.get(rule) for rule in jobs} == jobs


EDITS = {
    "docstring": ("training.py", '"""', '"""Reworded. ', {}),
    "training": ("training.py", "np.cos(np.pi", "np.cos(2 * np.pi", times(2, CHAIN) | VIEWS),
    "comment": ("processes.py", "import numpy as np\n", "import numpy as np  # fast\n", {}),
    "unused": ("schedules/__init__.py", "class ConstantSchedule", "class SteadySchedule", {}),
    "divergences": (
        "divergences/moments.py",
        "def plugin_kl(",
        "def plugin_kl(unused: int, ",
        {"sample": 2, "evaluate": 2} | VIEWS,
    ),
    "laws": (  # the law of the exact-score chain beside a network's
        "laws.py",
        "def sampler_law(",
        "def sampler_law(unused: int, ",
        {"sample": 2, "evaluate": 2, "exact": 1} | VIEWS,
    ),
    "sampling": (
        "simulation.py",
        "CHUNK_ROWS = 512",
        "CHUNK_ROWS = 256",
        {"sample": 2, "evaluate": 2} | VIEWS,
    ),
    "tables": ("tables.py", "def write_tables(", "def write_tables(unused: int, ", {"tables": 1}),
}


@pytest.mark.parametrize("edit", some_fast(EDITS, 1))
def test_an_edit_of_code_reruns_what_it_touches(study: Workflow, tmp_path: Path, edit: str) -> None:
    name, old, new, jobs = EDITS[edit]
    checkout = tmp_path / "checkout"
    for part in ("sgm", "workflow"):
        shutil.copytree(ROOT / part, checkout / part)
    shutil.copy(ROOT / "Snakefile", checkout)
    path = checkout / "sgm" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert Workflow(study.folder, checkout).planned() == jobs


@pytest.mark.slow
def test_growing_keeps_every_number(study: Workflow) -> None:
    """One more a and one more seed, run for real: old cells are untouched, blocks don't matter."""
    before = study.grid
    stamps = {p: p.stat().st_mtime_ns for p in (study.results / "cells").rglob("seeds_*.npz")}
    after = study.make(tiny(seeds=3, schedules=with_a(-2, 3, 5)))
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert after.sizes["seed"] == 3
    old = after.sel(seed=before.seed, schedule=before.schedule)
    xr.testing.assert_identical(
        old[["kl_plugin", "kl_bound", "kl_exact", "train_loss"]].drop_attrs(),
        before[["kl_plugin", "kl_bound", "kl_exact", "train_loss"]].drop_attrs(),
    )
    assert (after.status == 1).all()

    alone = run(tiny(seeds=3, schedules=with_a(5)), study.folder.parent / "alone")
    for name in ("kl_plugin", "kl_bound", "train_loss"):  # seeds 0-2 in one block, not in two
        np.testing.assert_array_equal(
            alone[name].squeeze(), after[name].sel(schedule="beta_a=5").squeeze()
        )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_numbers(finished: Workflow, tmp_path: Path) -> None:
    """SIGKILL to Snakemake and its jobs at a random moment; the next run finishes the study."""
    workflow = Workflow(tmp_path / "killed")
    workflow.write(tiny())
    process = subprocess.Popen(
        workflow.command(),
        cwd=workflow.folder,
        env=workflow.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(random.uniform(4, 10))
    done = set((workflow.results / "cells").rglob("seeds_*.npz"))
    stamps = {p: p.stat().st_mtime_ns for p in done}
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in done:
        read_cells(path)  # nothing half-written bears a result's name
    workflow.run("--unlock")
    resumed = workflow.make(tiny())
    kept = [p for p in stamps if p.stat().st_mtime_ns == stamps[p]]
    assert len(kept) >= len(done) - 2  # at most the two running jobs are lost
    for name in ("kl_plugin", "kl_bound", "kl_exact", "train_loss", "status"):
        np.testing.assert_array_equal(resumed[name], finished.grid[name], err_msg=name)


@pytest.mark.slow
def test_a_failed_network_is_marked_and_the_study_goes_on(tmp_path: Path) -> None:
    config = tiny(schedules=with_a(3), seeds=1)
    wild = yaml.safe_load(yaml.safe_dump(config["scores"][-1])) | {"name": "wild"}
    wild["recipe"] |= {"learning_rate": 1e9, "learning_rate_schedule": "constant"}
    config["scores"].append(wild)
    workflow = Workflow(tmp_path / "wild")
    grid = workflow.make(config).squeeze()
    assert grid.status.sel(score="wild") == 2
    assert grid.status.sel(score="trained") == 1
    assert np.isnan(grid.kl_plugin.sel(score="wild"))
    assert "loss" in grid.attrs["failures"]
    assert "failed" in (workflow.results / "figures/kl/isotropic.csv").read_text() or (
        workflow.results / "tables/summary.csv"
    ).read_text().count("wild")


@pytest.mark.slow
def test_a_reference_run_serves_all_seeds_and_recipes(tmp_path: Path) -> None:
    """A long run a schedule, of a law that is not Gaussian: made again for what it depends on."""
    ring = {"family": "ring_mixture", "modes": 4, "radius": 1.0, "variance": 0.1}
    config = tiny(targets=[ring], seeds=1, n_reference=1000, bounds=[])
    config["scores"] = config["scores"][-1:]
    workflow = Workflow(tmp_path / "ring")
    grid = workflow.make(config).squeeze()
    assert np.isfinite(grid.kl_coupled).all()
    assert (grid.kl_coupled_reference_error <= grid.kl_coupled_standard_error).all()
    assert np.isnan(grid.kl_plugin_expected).all()
    assert workflow.planned() == {}
    chain = {"train": 1, "sample": 1, "evaluate": 1}
    other = yaml.safe_load(yaml.safe_dump(config["scores"][0])) | {"name": "other"}
    other["recipe"]["width"] = 32
    pair = {"sample": 2, "evaluate": 2}
    changes: list[tuple[dict[str, Any], dict[str, int]]] = [
        ({"seeds": 2}, {"data": 1} | times(2, chain)),
        ({"scores": [*config["scores"], other]}, times(2, chain)),
        ({"schedules": with_a(-2, 3, 5)}, chain | {"reference": 1, "axes": 1}),
        ({"n_steps": [10, 5]}, {"reference": 2, "axes": 1} | pair),
        ({"n_samples": 150}, pair),
        ({"n_reference": 2000}, {"reference": 2} | pair),
        ({"n_reference": None}, pair),
    ]
    for change, jobs in changes:
        planned = workflow.planned(config | change)
        planned.pop("floor", None)
        assert planned == jobs | VIEWS, change


@pytest.mark.slow
def test_an_extension_adds_families_from_one_file(tmp_path: Path) -> None:
    config = tiny(
        extensions=[str(ROOT / "tests/data/extension.py")],
        schedules=[{"family": "power", "exponent": [1, 2], "beta_min": 0.1, "beta_max": 20.0}],
        targets=[{"family": "narrow", "dimension": 2, "width": 0.5}],
        samplers=[{"family": "cold", "temperature": 0.5}],
        scores=[{"family": "exact", "sampled": True}],
        bounds=["kl", "log_horizon"],
        horizons=[2.0],
    )
    grid = Workflow(tmp_path / "extended").make(config)
    assert grid.schedule.values.tolist() == ["power_exponent=1", "power_exponent=2"]
    assert np.isfinite(grid.kl_plugin).all()
    np.testing.assert_allclose(grid.log_horizon, np.log(2.0))
    linear = grid.schedule_beta.sel(schedule="power_exponent=1").squeeze()
    np.testing.assert_allclose(linear, 0.1 + 19.9 * grid.time_fraction, rtol=1e-12)


def test_a_bad_config_is_one_clear_error_before_any_compute(study: Workflow) -> None:
    study.write(tiny(process={"family": "vp", "variance": -1.0}))
    refused = study.run()
    assert refused.returncode != 0
    assert "variance = -1.0" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert study.planned(tiny()) == {}


@pytest.mark.slow
def test_a_study_that_extends_another_has_the_jobs_of_both(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    alone = workflow.planned(tiny(seeds=5, seeds_per_job=2))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny()))
    own = {"extends": "base.yaml", "seeds": 5, "seeds_per_job": 2}
    assert workflow.planned(own) == alone
