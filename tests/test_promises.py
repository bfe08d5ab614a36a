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
