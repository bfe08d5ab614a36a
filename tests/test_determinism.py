"""The same study gives the same numbers: in any order, any blocks, on any number of cores."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sgm.gather import gather
from sgm.run.__main__ import main
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study
from sgm.study.plan import PATTERNS
from tests.workflow import ROOT, Workflow, tiny

OUTPUTS = {"network": ("network", "training")}
ORDER = (
    *("data", "network", "reference", "samples", "bounds", "divergences"),
    *("likelihood", "floors", "exact", "learned", "priors", "axes"),
)


def config(**changes: Any) -> dict[str, Any]:
    """The tiny study with three seeds, W2, a correlated target (its products take a BLAS) and a
    mixture, whose exact-score chain has a reference run."""
    correlated = {"family": "correlated", "dimension": 5, "mean": 0.5, "offset": 1.0}
    mixture = {"family": "ring_mixture", "modes": 3, "radius": 2.0, "variance": 0.1}
    likelihood = {
        "rows": 20, "nodes": 16, "cutoff": 0.01, "divergence": "exact", "directions": 1,
        "method": "RK45", "rtol": 0.001, "atol": 0.001, "atol_nats": 0.001,
    }  # fmt: skip
    known = [*tiny()["targets"], correlated, mixture]
    own = tiny(seeds=3, targets=known, bounds=["kl", "w2"], n_reference=1000)
    return own | {"likelihood": likelihood} | changes


class Labels:
    def __init__(self, labels: dict[str, str]) -> None:
        self.__dict__.update(labels)


def run(study: dict[str, Any], root: Path, order: int | None = None) -> xr.Dataset:
    """All jobs of a study, one after another; each stage's in an order of its own."""
    plan = Plan(Study.parse(study), root)
    for stage in ORDER:
        jobs = list(plan.cells(stage))
        if order is not None:
            random.Random(order).shuffle(jobs)
        for labels in jobs:
            files = plan.inputs(stage, Labels(labels))
            words = [stage, "--spec", plan.spec(stage, Labels(labels)), "--device", "cpu"]
            words += ["--seeds", labels.get("seeds", "0-0")]
            words += ["--input", *(f"{name}={path}" for name, path in files.items()), "--output"]
            words += [
                f"{kind}={plan.pattern(kind).format(**labels)}"
                for kind in OUTPUTS.get(stage, (stage,))
            ]
            assert main(words) == 0
    write_grid(gather(plan, {}), root / "grid.zarr")
    return open_grid(root / "grid.zarr")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return run(config(), tmp_path_factory.mktemp("study") / "results")


def test_every_stage_is_run() -> None:
    made = {kind for stage in ORDER for kind in OUTPUTS.get(stage, (stage,))}
    assert made == PATTERNS.keys() - {"pictures"}


@pytest.mark.parametrize(
    ("seeds", "schedules", "order"),
    [
        (2, 2, 1),
        pytest.param(1, 1, 0, marks=pytest.mark.slow),
        pytest.param(3, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_blocks_and_the_order_of_jobs_change_no_bit(
    grid: xr.Dataset, tmp_path: Path, seeds: int, schedules: int, order: int
) -> None:
    again = run(config(seeds_per_job=seeds, schedules_per_job=schedules), tmp_path, order)
    names = [name for name in grid.variables if grid[name].attrs.get("units") != "s"]
    different = [
        n
        for n in names
        if not np.array_equal(grid[n], again[n], equal_nan=grid[n].dtype.kind == "f")
    ]
    assert different == []
    assert again.attrs["content_sha256"] == grid.attrs["content_sha256"]


@pytest.mark.slow
def test_another_seed_is_another_study(grid: xr.Dataset, tmp_path: Path) -> None:
    """The digest can tell: one word of the config moves it, and no exact number."""
    other = run(config(study_seed=2), tmp_path)
    assert other.attrs["content_sha256"] != grid.attrs["content_sha256"]
    np.testing.assert_array_equal(other.kl_exact, grid.kl_exact)
    assert not np.array_equal(other.kl_plugin, grid.kl_plugin, equal_nan=True)


@pytest.mark.slow
@pytest.mark.xdist_group("workflow")
def test_cores_and_jobs_at_once_change_no_bit(finished: Workflow, tmp_path: Path) -> None:
    """Real jobs under Snakemake, on one core and on two, and the jobs of this process."""
    alone = run(tiny(), tmp_path / "alone").attrs["content_sha256"]
    assert finished.grid.attrs["content_sha256"] == alone  # on two
    workflow = Workflow(tmp_path / "one")
    workflow.write(tiny())
    ended = workflow.run("--cores", "1")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert workflow.grid.attrs["content_sha256"] == alone


# What another processor does: each library told to use older instructions only.
OLDER = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
CHILD = """
import sys, pathlib
from tests.test_determinism import config, run
run(config(), pathlib.Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_an_older_processor_moves_numbers_within_the_stated_tolerance(
    grid: xr.Dataset, tmp_path: Path
) -> None:
    """docs/reliability.md: exact numbers to 1e-12 or 1e-11, those of networks to 1 %."""
    child = [sys.executable, "-c", CHILD, str(tmp_path)]
    subprocess.run(child, env=os.environ | OLDER, check=True, cwd=ROOT)
    older = open_grid(tmp_path / "grid.zarr")
    untrained = grid.sel(score="scaled_eps=0.1")
    for name, variable in grid.data_vars.items():
        if "score" in variable.dims or variable.dtype.kind != "f":
            continue
        np.testing.assert_allclose(older[name], variable, rtol=1e-11, err_msg=str(name))
    gaussian = [
        item.label for item in Study.parse(config()).targets if item.entry.law == "gaussian"
    ]
    for name in ("kl_exact", "kl_reverse_exact", "kl_bound", "w2_bound"):
        for known, tolerance in ((gaussian, 1e-12), (slice(None), 1e-11)):
            np.testing.assert_allclose(
                older[name].sel(score="scaled_eps=0.1", target=known),
                untrained[name].sel(target=known), rtol=tolerance, err_msg=name,
            )  # fmt: skip
    for name in ("kl_plugin", "kl_bound", "kl_path", "train_loss"):
        trained = grid[name].sel(score="trained")
        np.testing.assert_allclose(older[name].sel(score="trained"), trained, rtol=0.01)
    assert not older.equals(grid)  # the switches did something
