"""What runs on CUDA has the numbers of the CPU, up to rounding; skipped without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sgm.gather import gather
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.store import DONE
from sgm.study import Plan, Study
from sgm.study.document import read_config
from sgm.training import Recipe, train_networks
from tests.images import with_images
from tests.test_studies import STUDIES, shrunk
from tests.workflow import run_jobs, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def grid_on(device: str, config: dict[str, object], folder: Path) -> xr.Dataset:
    """The grid of a study whose jobs ran on a device."""
    plan = Plan(Study.parse(config | {"device": device}), folder / device)
    run_jobs(plan)
    return gather(plan, {})


def assert_close(found: xr.Dataset, expected: xr.Dataset, rtol: float) -> None:
    """Each number within a part of itself or of the largest of its variable."""
    far = {}
    for name, numbers in expected.data_vars.items():
        if numbers.dtype.kind != "f" or str(name).endswith("_seconds"):
            continue
        ours, theirs = found[name].values, numbers.values
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=str(name))
        known = np.isfinite(theirs)
        gap = np.abs(ours[known] - theirs[known])
        scale = rtol * (np.abs(theirs[known]) + np.abs(theirs[known]).max(initial=0.0) / 10)
        if np.any(gap > scale):
            far[name] = float(np.max(gap / scale)) * rtol
    assert not far, far


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_has_the_numbers_of_the_cpu(path: Path, tmp_path: Path) -> None:
    config = with_images(shrunk(read_config(path)), tmp_path)
    cpu, cuda = (grid_on(device, config, tmp_path) for device in ("cpu", "cuda"))
    assert_close(cuda, cpu, rtol=0.01)


def test_a_trained_network_has_the_numbers_of_the_cpu(tmp_path: Path) -> None:
    config = tiny()
    config["scores"][1]["recipe"] |= {"steps": 200, "ema": 0.99}
    cpu, cuda = (grid_on(device, config, tmp_path) for device in ("cpu", "cuda"))
    assert np.all(cuda.status == DONE)
    assert_close(cuda, cpu, rtol=0.02)


def test_a_network_that_diverges_leaves_its_neighbours_alone() -> None:
    study = Study.parse(tiny())
    keys = study.scores[1].parameters.recipe.model_dump()
    recipe = Recipe.from_keys({key: value for key, value in keys.items() if key != "name"})
    rows = np.random.default_rng(0).standard_normal((2, 200, 3))
    rows[1] *= 1e30  # whose squares overflow in float32
    process = VPProcess(BetaSchedule(horizon=1.0, a=1.0, beta_min=0.1, beta_max=20.0), 1.0)

    def trained(samples: np.ndarray, device: str) -> np.ndarray:
        seeds = list(range(len(samples)))
        result = train_networks(recipe, process, samples, None, 1, seeds, {}, device)
        assert list(result.failed) == [False, True][: len(seeds)]
        return result.networks.weights["output"][0].numpy()

    both, alone, cpu = trained(rows, "cuda"), trained(rows[:1], "cuda"), trained(rows, "cpu")
    np.testing.assert_allclose(both, alone, atol=1e-4)
    np.testing.assert_allclose(both, cpu, atol=1e-3)
