"""A score learned under one schedule is that of another's process, at the time of equal noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgm import samplers, scores, timegrids
from sgm.evaluation import score_error_moments
from sgm.gather import gather
from sgm.gaussian import Gaussian
from sgm.networks import ReusedScore, affine_score_fn
from sgm.processes import Process, VEProcess, VPProcess, matching_times
from sgm.run.check import check
from sgm.schedules import BetaSchedule, ConstantSchedule, CosineSchedule, GeometricSchedule
from sgm.schedules.levels import EDMSchedule, LaplaceSchedule
from sgm.simulation import simulate_reverse
from sgm.store import DONE
from sgm.store.cells import read_cells
from sgm.study import Plan, Study
from tests.workflow import Workflow, run_jobs, tiny

LAW = Gaussian.diagonal(np.array([1.0, -1.0, 0.0]), np.array([1.0, 0.2, 2.0]))
LEARNED = VPProcess(BetaSchedule(1.0, 2.0, 0.1, 40.0), 1.5)
PAIRS: list[tuple[Process, Process]] = [
    (VPProcess(CosineSchedule(2.0, 1.5, 0.008, 20.0), 1.5), LEARNED),
    (VPProcess(LaplaceSchedule(0.3, 1.5, 20.0, 0.0, 0.5), 1.5), LEARNED),
    (VPProcess(ConstantSchedule(1.0, 5.0), 1.5), LEARNED),
    (LEARNED, LEARNED),
    (
        VEProcess(GeometricSchedule(1.0, 0.01, 5.0)),
        VEProcess(EDMSchedule(2.0, np.inf, 0.002, 80.0, 7.0)),
    ),
]


@pytest.mark.parametrize(("process", "learned"), PAIRS)
def test_scores_of_equal_noise_are_equal(process: Process, learned: Process) -> None:
    """Coefficients of the exact score of a Gaussian, against those of the process itself."""
    t = process.horizon * np.array([0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1.0])
    there = matching_times(process, learned)(t)
    assert there[0] == 0
    np.testing.assert_allclose(learned.mean_scale(there), process.mean_scale(t), rtol=1e-12)
    np.testing.assert_allclose(
        learned.kernel_variance(there), process.kernel_variance(t), rtol=1e-11
    )
    own = scores.exact(process, LAW).coefficients(t)
    theirs = scores.exact(learned, LAW).coefficients(there)
    for mine, other in zip(own, theirs, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-10)


@pytest.mark.parametrize(("process", "learned"), PAIRS)
def test_a_reused_score_generates_what_the_own_score_does(
    process: Process, learned: Process
) -> None:
    """Through the simulation, and through the Monte Carlo of the error: it has none."""
    cpu, times = torch.device("cpu"), timegrids.uniform(process.horizon, 10)
    own = affine_score_fn(scores.exact(process, LAW), torch.float64, cpu)
    reused = ReusedScore(
        affine_score_fn(scores.exact(learned, LAW), torch.float64, cpu), learned, process
    )
    steps = samplers.euler_maruyama(process, times)
    prior, draws = process.prior_variance, (50, 3, 1, [0, 1], {"target": "x"}, torch.float64, cpu)
    expected, found = (simulate_reverse(steps, f, prior, *draws) for f in (own, reused))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    moments = score_error_moments(
        reused, process, LAW, times[:-1], 20, 1, [0], {"target": "x"}, torch.float64, cpu
    )
    assert np.all(moments.mse < 1e-16 * np.max(1 / process.kernel_variance(times[-2])) ** 2)


@pytest.mark.parametrize(
    ("process", "learned", "message"),
    [
        (VPProcess(ConstantSchedule(1.0, 5.0), 1.0), LEARNED, r"variance 1\.0: must be .* 1\.5"),
        (PAIRS[-1][0], LEARNED, "VEProcess of variance inf: must be VPProcess"),
        (
            LEARNED,
            VPProcess(ConstantSchedule(1.0, 5.0), 1.5),
            r"B\(T\) = .*: must be at most 5, that of the schedule of the training",
        ),
    ],
)
def test_other_processes_and_more_noise_are_refused(
    process: Process, learned: Process, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ReusedScore(None, learned, process)


def shared(*others: float, **changes: Any) -> dict[str, Any]:
    """The tiny study, with networks trained under its first schedule alone."""
    config = tiny(**changes)
    rates = {"beta_min": 0.1, "beta_max": 20.0}
    config["schedules"] = [{"family": "beta_a", "a": [-2, 3, *others], **rates}]
    for score in config["scores"]:
        if score["family"] == "trained":
            score["train_schedule"] = "beta_a=-2"
    return config


def test_all_schedules_share_the_networks_of_one(tmp_path: Path) -> None:
    """From the config to the grid; at the schedule of the training nothing has changed."""
    grids = []
    for name, config in (("own", tiny()), ("shared", shared(4.0))):
        study = Study.parse(config | {"schedules_per_job": 2})
        check(study)
        plan = Plan(study, tmp_path / name)
        run_jobs(plan)
        grids.append(gather(plan, {}))
        networks = list((tmp_path / name / "networks").rglob("*.safetensors"))
        assert len(networks) == len(plan.files("network"))
    (path,) = networks
    assert path.parent.parent.parent.name == "beta_a=-2"
    own, reused = (grid.sel(score="trained", schedule="beta_a=-2") for grid in grids)
    # t and B⁻¹(B(t)) differ in their last digits, and networks see float32
    np.testing.assert_allclose(reused.kl_plugin, own.kl_plugin, rtol=1e-3)
    np.testing.assert_allclose(reused.kl_bound, own.kl_bound, rtol=1e-3)
    np.testing.assert_array_equal(reused.train_loss, own.train_loss)
    others = grids[1].sel(score="trained", schedule=["beta_a=3", "beta_a=4"])
    assert np.isnan(others.train_loss).all()  # none was trained there
    for variable in ("kl_plugin", "kl_bound", "kl_coupled"):
        assert np.isfinite(others[variable]).all(), variable
    assert (grids[1].status == DONE).all()
    # blocks on disk: the one schedule of the networks' file cuts none
    plan = Plan(Study.parse(shared(4.0) | {"schedules_per_job": 2}), tmp_path / "shared")
    assert all(
        Path(path).exists() for kind in ("divergences", "network") for path in plan.files(kind)
    )
    weights = read_cells(plan.files("training")[0])["train_loss"]
    assert weights.shape[0] == 1


@pytest.mark.slow  # the next test asks the plan
def test_one_more_schedule_trains_nothing(tmp_path: Path) -> None:
    """As Snakemake counts: 3 schedules, one block each, 2 seeds a job."""
    workflow = Workflow(tmp_path / "study")
    planned = workflow.planned(shared())
    assert planned["train"] == 1
    assert planned["sample"] == planned["evaluate"] == planned["bound"] == 2
    own = workflow.planned(tiny())
    assert own["train"] == 2
    assert workflow.planned(shared(4.0, 5.0))["train"] == 1


def test_the_plan_keeps_the_networks_when_schedules_come(tmp_path: Path) -> None:
    """A network's spec says its own schedule alone, and no word of who uses it."""
    before = Plan(Study.parse(shared()), tmp_path)
    after = Plan(Study.parse(shared(4.0)), tmp_path)
    (labels,) = before.cells("network")
    assert list(after.cells("network")) == [labels]
    assert after.spec_of("network", labels) == before.spec_of("network", labels)
    own = Plan(Study.parse(tiny()), tmp_path)
    assert own.spec_of("network", labels) == before.spec_of("network", labels)
    sample = next(before.cells("samples"))
    assert own.spec_of("samples", sample) != before.spec_of("samples", sample)


def test_a_schedule_that_is_not_there_or_has_too_little_noise_is_refused() -> None:
    config = shared()
    config["scores"][-1 if config["scores"][-1]["family"] == "trained" else 0]["train_schedule"] = (
        "beta_a=7"
    )
    with pytest.raises(ValueError, match=r"train_schedule = 'beta_a=7' of 'trained' is not a sch"):
        Study.parse(config)
    config = shared()
    for score in config["scores"]:
        if score["family"] == "trained":
            score["train_schedule"] = "beta_a=3"
    message = r"scores: trained: train_schedule = 'beta_a=3' for schedule 'beta_a=-2': B\(T\) = "
    with pytest.raises(ValueError, match=message):
        check(Study.parse(config))
