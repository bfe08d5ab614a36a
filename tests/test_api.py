"""What `import sgm` offers: one line for an exact number, a grid, a figure."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import sgm
from sgm import laws, samplers, schedules, scores, targets, timegrids
from sgm.gaussian import kl_divergence, wasserstein2
from sgm.processes import VEProcess, VPProcess

TARGET = targets.correlated(dimension=50, mean=1.0, offset=1.0)


def test_exact_numbers_are_those_of_the_published_study() -> None:
    published = sgm.load_published("exact-kl").sel(
        target="correlated", score="exact", sampler="exponential_integrator_modified"
    )
    for a in (-10.0, 0.0, 10.0):
        schedule = schedules.BetaSchedule(1.0, a, 0.1, 20.0)
        cell = published.sel(schedule=f"beta_a={a:g}", n_steps=500).squeeze()
        found = sgm.exact_kl(TARGET, schedule, n_steps=500)
        assert found == pytest.approx(float(cell.kl_exact), rel=1e-9)


def test_sampler_times_score_and_process_are_what_is_simulated() -> None:
    process = VPProcess(schedules.BetaSchedule(2.0, 1.0, 0.1, 20.0), 1.7)
    times, sampler = timegrids.quadratic(2.0, 20), partial(samplers.ddim, eta=0.3)
    score = partial(scores.scaled, eps=0.1)
    law = TARGET.law
    output = laws.sampler_law(sampler(process, times), score(process, law), process.prior(50))
    found = sgm.exact_law(TARGET, process, sampler, times=times, score=score)
    np.testing.assert_array_equal(found.mean, output.mean)
    np.testing.assert_array_equal(found.eigenvalues, output.eigenvalues)
    w2 = sgm.exact_w2(law, process, sampler, times=times, score=score)
    assert w2 == float(wasserstein2(law, output))
    kl = sgm.exact_kl(law, process, sampler, times=times, score=score)
    assert kl == float(kl_divergence(law, output))
    assert kl > sgm.exact_kl(law, process, sampler, times=times)


def test_a_schedule_is_vp_with_unit_variance_and_ve_is_taken_as_a_process() -> None:
    schedule = schedules.BetaSchedule(1.0, 0.0, 0.1, 20.0)
    assert sgm.exact_kl(TARGET, schedule, n_steps=10) == sgm.exact_kl(
        TARGET, VPProcess(schedule, 1.0), n_steps=10
    )
    noised = sgm.exact_law(TARGET, VEProcess(schedule), samplers.ancestral, 50)
    assert np.all(np.isfinite(noised.eigenvalues))


def test_a_target_that_is_not_gaussian_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target = Funnel: must be Gaussian"):
        sgm.exact_kl(
            targets.funnel(dimension=3, spread=1.0, slope=0.5),
            schedules.ConstantSchedule(1.0, 1.0),
        )


def test_import_loads_no_library_and_every_name_exists() -> None:
    code = (
        "import sys, sgm; heavy = {'numpy', 'torch', 'xarray', 'pandas', 'pydantic'}; "
        "assert not heavy & set(sys.modules); "
        "assert set(sgm.__all__) <= set(dir(sgm)); [getattr(sgm, name) for name in sgm.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'exact_fid'"):
        sgm.exact_fid  # noqa: B018
    assert (Path(sgm.__file__).parent / "py.typed").exists()


def test_a_grid_opens_by_the_name_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgm.store.grid import write_grid
    from tests.grids import synthetic_grid

    monkeypatch.chdir(tmp_path)
    grid = synthetic_grid(a=[0], targets=["isotropic"], n_steps=[100])
    texts = [name for name, values in grid.coords.items() if values.dtype.kind in "OU"]
    grid = grid.assign_coords({name: grid[name].astype(object) for name in texts})
    write_grid(grid.assign_attrs(failures="[]"), "results/mine/grid.zarr")
    assert sgm.open_grid("mine").identical(sgm.open_grid("results/mine/grid.zarr"))
    with pytest.raises(ValueError, match="theirs: not a readable grid"):
        sgm.open_grid("theirs")
