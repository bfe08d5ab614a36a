"""The lines that `make study` ends with."""

from __future__ import annotations

import re

import pytest
import scipy.stats
from xarray import Dataset

import sgm
from sgm.answers import MOST, answers, answers_text, findings
from sgm.ranking import ranking_table
from sgm.store import FAILED
from tests.grids import synthetic_grid


@pytest.fixture(scope="module")
def trained() -> Dataset:
    return sgm.load_published("optimised")


def test_each_target_has_its_best_schedule_and_what_each_bound_costs(trained: Dataset) -> None:
    found = answers(trained)
    assert [line.partition(":")[0] for line in found] == [
        "isotropic", "heteroscedastic", "correlated",
    ]  # fmt: skip
    here = trained.kl_coupled.sel(target="correlated", score="explicit", n_steps=100)
    means = here.squeeze().mean("seed")
    best = str(means.idxmin("schedule").item())
    runs = here.squeeze().sel(schedule=best).values
    low, high = scipy.stats.t.interval(0.95, len(runs) - 1, runs.mean(), scipy.stats.sem(runs))
    said = re.search(
        r"smallest with (\S+), (\S+) \[(\S+), (\S+)\] \(score explicit, N = 100\)", found[2]
    )
    assert said is not None
    assert said[1] == best
    # both halves choose it; its interval is Welch's of the halves, nearly Student's
    assert float(said[2]) == pytest.approx(runs.mean(), abs=0.0001)
    assert [float(said[3]), float(said[4])] == pytest.approx([low, high], abs=0.2 * (high - low))
    cost = float(means.sel(schedule="beta_a=0") / means.min())
    assert f"following kl_bound costs a factor of {cost:.3f} [" in found[2]
    assert "kl_path picks it" in found[2]
    assert "not distinguishable from best-correlated" in found[0]


def test_a_network_comes_before_the_exact_score() -> None:
    (line,) = answers(sgm.load_published("mg25"))
    assert "smallest with beta_a=8, 0.119 [0.113, 0.126] (score denoising, N = 500)" in line
    assert "kl_bound costs a factor of 1.84 [1.71, 1.97] (beta_a=1)" in line


def test_exact_values_have_no_interval() -> None:
    grid = sgm.load_published("exact-kl")
    (line,) = [line for line in answers(grid) if line.startswith("correlated:")]
    assert "[" not in line
    rows = ranking_table(grid).query("target == 'correlated' and among == 'all'")
    row = rows.query("varies == 'schedule' and bound == 'kl_bound'").iloc[0]
    assert f"kl_bound costs a factor of {row['regret']:.3g} ({row['pick']})" in line


def test_a_study_of_many_settings_without_a_bound_is_answered_of_the_largest() -> None:
    found = findings(sgm.load_published("leaderboard"))
    assert {own.setting["n_steps"] for own in found} == {50}
    assert not any(own.bounded or own.judgements for own in found)
    assert all(own.values == "exact" for own in found)


def test_nothing_is_said_of_one_schedule_or_without_bounds() -> None:
    assert answers(synthetic_grid(a=[0], cosine=False)) == []
    assert answers(sgm.load_published("elbo-vp")) == []


def test_a_target_without_a_bound_is_left_out() -> None:
    grid = synthetic_grid(a=[-5, 0, 5], unknown_targets=["digits"])
    (digits,) = [found for found in findings(grid) if found.target == "digits"]
    assert digits.judgements == ()
    errors = grid[digits.divergence.name].sel(digits.setting).mean("seed")
    assert digits.best == errors.idxmin("schedule").item()
    found = answers(grid)
    assert [line.partition(":")[0] for line in found] == ["isotropic"]
    assert "nan" not in "".join(found)


def test_ten_lines_at_most_and_failures_are_counted() -> None:
    grid = synthetic_grid(a=[-5, 0, 5], targets=[f"target{i}" for i in range(12)])
    grid["status"][0, 0] = FAILED
    lines = answers_text(grid, "results/mine").splitlines()
    assert len(lines) == MOST + 3
    assert lines[MOST] == "… and 6 more targets, in results/mine/tables/ranking.csv."
    failed = int((grid["status"] == FAILED).sum())
    assert lines[-2].startswith(f"{failed} runs failed; ")
