"""The lines that `make study` ends with."""

from __future__ import annotations

import pytest

import sgm
from sgm.answers import MOST, answers, answers_text
from sgm.ranking import ranking_table
from sgm.store import FAILED
from tests.grids import synthetic_grid


@pytest.fixture(scope="module")
def trained():
    return sgm.load_published("optimised")


def test_each_target_has_its_best_schedule_and_what_each_bound_costs(trained) -> None:
    found = answers(trained)
    assert [line.partition(":")[0] for line in found] == [
        "isotropic", "heteroscedastic", "correlated",
    ]  # fmt: skip
    here = trained.kl_coupled.sel(target="correlated", score="explicit", n_steps=100)
    means = here.squeeze().mean("seed")
    best = str(means.idxmin("schedule").item())
    assert f"least with {best}, {float(means.min()):.3g} (score explicit, N = 100)" in found[2]
    cost = float(means.sel(schedule="beta_a=0") / means.min())
    assert f"following kl_bound costs × {cost:.2f} [" in found[2]
    assert "kl_path picks it" in found[2]
    assert "not told from best-correlated" in found[0]


def test_a_network_comes_before_the_exact_score() -> None:
    (line,) = answers(sgm.load_published("mg25"))
    assert "least with beta_a=8, 0.119 (score denoising, N = 500)" in line
    assert "kl_bound costs × 1.84 [1.71, 1.97] (beta_a=1)" in line


def test_exact_values_have_no_interval() -> None:
    grid = sgm.load_published("exact-kl")
    (line,) = [line for line in answers(grid) if line.startswith("correlated:")]
    assert "[" not in line
    rows = ranking_table(grid).query("target == 'correlated' and among == 'all'")
    row = rows.query("varies == 'schedule' and bound == 'kl_bound'").iloc[0]
    assert f"kl_bound costs × {row['regret']:.2f} ({row['pick']})" in line


def test_nothing_is_said_of_one_schedule_or_without_bounds() -> None:
    assert answers(synthetic_grid(a=[0], cosine=False)) == []
    assert answers(sgm.load_published("elbo-vp")) == []


def test_a_target_without_a_bound_is_left_out() -> None:
    found = answers(synthetic_grid(a=[-5, 0, 5], unknown_targets=["digits"]))
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
