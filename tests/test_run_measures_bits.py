"""Numbers of a run don't depend on the runs beside it."""

from __future__ import annotations

import numpy as np

from sgm.gaussian import Gaussian
from sgm.measures.bounds import kl_bound
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.timegrids import uniform


def test_a_bound_of_one_replicate_is_that_of_a_block_bit_for_bit() -> None:
    process, law = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0), Gaussian.diagonal([0], [2])
    rng = np.random.default_rng(0)
    for n in (5, 10, 20, 100, 501):
        errors = {
            name: rng.random((3, n))
            for name in ("score_mse", "score_mse_standard_error", "score_cross")
        }
        errors["score_draws"] = rng.random(3)
        times = uniform(1.0, n)
        block = kl_bound(process, law, times, **errors)
        for r in range(3):
            alone = kl_bound(process, law, times, **{k: v[r : r + 1] for k, v in errors.items()})
            for name, value in alone.items():
                whole = np.broadcast_to(block[name], 3)[r]
                assert np.broadcast_to(value, 1)[0] == whole, (name, n, r)
