"""Which points of a simulation a picture keeps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor

from sgm import samplers
from sgm.processes import Process, VPProcess
from sgm.run.jobs.pictures import _score_error, _Watch
from sgm.schedules import BetaSchedule
from sgm.scores import exact
from sgm.targets import LawTarget, ring_mixture, two_modes
from sgm.timegrids import uniform

Array = npt.NDArray[np.float64]


@pytest.mark.parametrize("build", [
    samplers.euler_maruyama,
    samplers.euler_arrival,  # its scores are those of the arrival times
    lambda process, times: samplers.langevin(process, times, 0.01),  # and these of the last one
], ids=["euler_maruyama", "euler_arrival", "langevin"])  # fmt: skip
def test_states_are_those_at_the_times_of_the_grid(
    build: Callable[[Process, Array], samplers.Steps],
) -> None:
    process, grid = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0), uniform(1.0, 10)
    watch = _Watch(build(process, grid), np.array([1.0, 0.52, 0.0]), grid)
    assert watch.stages == [0, 5, 10]
    for stage, value in ((0, 1.0), (5, 2.0)):
        watch(stage, slice(0, 1), _tensor(value), None)
    np.testing.assert_array_equal(watch.finished(np.array([[3.0]]))[:, 0, 0], [1.0, 2.0, 3.0])


def _tensor(value: float) -> Tensor:
    import torch

    return torch.full((1, 1, 1), value)


@pytest.mark.parametrize("target", [two_modes(), ring_mixture(modes=3, radius=1.0, variance=0.1)])
def test_the_error_of_a_score_is_that_of_the_noise_it_predicts(target: LawTarget) -> None:
    process, times = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0), np.array([0.5, 0.1, 0.0])
    mesh = {"mesh_x": np.linspace(-2, 2, 9), "mesh_y": np.linspace(-1, 1, 5)}
    if target.dimension == 1:
        del mesh["mesh_y"]
    process_score = exact(process, target.law)

    def wrong(x: np.ndarray, t: float) -> np.ndarray:
        return process_score(x, t) + 0.3

    found = _score_error(target, process, times, wrong, mesh)
    assert found.shape == (3, *(len(mesh[key]) for key in sorted(mesh, reverse=True)))
    size = 0.3 * np.sqrt(target.dimension * process.kernel_variance(times[:2]))
    np.testing.assert_allclose(found[:2].reshape(2, -1), np.repeat(size[:, None], found[0].size, 1))
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(_score_error(target, process, times[:2], process_score, mesh), 0)
