"""Which points of a simulation a picture keeps."""

from __future__ import annotations

import numpy as np
import pytest

from sgm import samplers
from sgm.processes import VPProcess
from sgm.run.jobs.pictures import _Watch
from sgm.schedules import BetaSchedule
from sgm.timegrids import uniform


@pytest.mark.parametrize("build", [
    samplers.euler_maruyama,
    samplers.euler_arrival,  # its scores are those of the arrival times
    lambda process, times: samplers.langevin(process, times, 0.01),  # and these of the last one
], ids=["euler_maruyama", "euler_arrival", "langevin"])  # fmt: skip
def test_states_are_those_at_the_times_of_the_grid(build) -> None:
    process, grid = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0), uniform(1.0, 10)
    watch = _Watch(build(process, grid), np.array([1.0, 0.52, 0.0]), grid)
    assert watch.stages == [0, 5, 10]
    for stage, value in ((0, 1.0), (5, 2.0)):
        watch(stage, slice(0, 1), _tensor(value), None)
    np.testing.assert_array_equal(watch.finished(np.array([[3.0]]))[:, 0, 0], [1.0, 2.0, 3.0])


def _tensor(value: float):
    import torch

    return torch.full((1, 1, 1), value)
