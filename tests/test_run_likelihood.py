"""The stage of the likelihood: its terms fit together, and don't depend on blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgm.architectures import MLP
from sgm.networks import ScoreEnsemble
from sgm.run.build import build_process
from sgm.run.jobs.likelihood import likelihood
from sgm.scores import scaled
from sgm.store.cells import Arrays, read_cells
from sgm.targets import correlated

VP = {"build": "sgm.processes:VPProcess", "parameters": {"variance": 1.0}}
VE = {"build": "sgm.processes:VEProcess", "parameters": {}}
CUT = {
    "build": "sgm.schedules:BetaSchedule",
    "parameters": {"a": 0.0, "beta_min": 0.1, "beta_max": 20.0},
    "full_horizon": 1.0,
}
STEEP = CUT | {"parameters": {"a": 3.0, "beta_min": 0.1, "beta_max": 20.0}}
GEOMETRIC = {
    "build": "sgm.schedules:GeometricSchedule",
    "parameters": {"sigma_min": 0.01, "sigma_max": 50.0},
    "full_horizon": 1.0,
}
CHOICES = {
    "rows": 300,
    "nodes": 32,
    "cutoff": 1e-4,
    "divergence": "exact",
    "directions": 2,
    "method": "RK45",
    "rtol": 1e-6,
    "atol": 1e-6,
    "atol_nats": 1e-4,
}
PAIR = {
    "build": "sgm.targets:correlated",
    "parameters": {"dimension": 2, "mean": 0.5, "offset": 1.0},
    "label": "pair",
}
MODES = {"build": "sgm.targets:two_modes", "parameters": {}, "label": "modes"}
EXACT = {"build": "sgm.scores:exact", "parameters": {}}
SCALED = {"build": "sgm.scores:scaled", "parameters": {"eps": 0.1}}
TRAINED = {"build": "sgm.networks:ScoreEnsemble", "parameters": {}}


def run(
    folder: Path, seeds: range = range(2), inputs: dict[str, Path] | None = None, **leaves: Any
) -> Arrays:
    spec = {
        "study_seed": 1,
        "target": PAIR,
        "process": VP,
        "schedules": [CUT | {"label": "cut"}],
        "horizon": 0.6,
        "score": EXACT,
        "likelihood": CHOICES,
    } | leaves
    likelihood(spec, seeds, inputs or {}, {"likelihood": folder / "cells.npz"}, "cpu")
    return read_cells(folder / "cells.npz")


@pytest.mark.parametrize(("process", "schedule"), [(VP, CUT), (VE, GEOMETRIC)])
@pytest.mark.parametrize("target", [PAIR, MODES])
def test_the_terms_make_the_bound(
    tmp_path: Path, process: Any, schedule: Any, target: dict[str, Any]
) -> None:
    found = run(
        tmp_path, process=process, schedules=[schedule], target=target, score=SCALED, horizon=0.9
    )
    assert all(value.shape == (1, 2) for value in found.values())
    start = found["terminal_log_density"] + found["elbo_difference"]  # E log p at the cutoff
    np.testing.assert_allclose(start, found["terminal_log_density"] + found["elbo_r"]
                               - found["elbo_k"], atol=1e-9)  # fmt: skip
    np.testing.assert_allclose(
        found["elbo"], start - found["score_gap"] - found["kl_terminal"], rtol=1e-12
    )
    np.testing.assert_allclose(start, found["data_log_density"], atol=2e-3)
    assert (found["optimal_horizon_interior"] == 1).all()


def test_the_flow_of_the_exact_score_attains_the_bound(tmp_path: Path) -> None:
    """E log q = ELBO for the flow; for the backward SDE the bound is not attained."""
    found = run(tmp_path, target=MODES, likelihood=CHOICES | {"rows": 2000})
    error = found["flow_log_likelihood"] - found["elbo"]
    assert (abs(error) < 4 * found["flow_log_likelihood_standard_error"]).all()
    assert (found["flow_log_likelihood_standard_error"] < 0.01).all()
    assert (found["reverse_sde_kl"] < found["kl_terminal"] / 10).all()


def test_the_flow_of_a_gaussian_is_gaussian(tmp_path: Path) -> None:
    """The flow of the exact score carries N(0, σ²) at T to N(m₀ + …, …): affine in each axis.

    Along axis i of the covariance, dx/dt = f x − ½ β s and s = −(x − m μ)/V: (x − m μ)/√V is
    conserved, so that q has variance σ² V(ε)/V(T) there, and a mean that is moved likewise.
    """
    found = run(tmp_path, likelihood=CHOICES | {"rows": 4000})
    process, law = build_process(VP, CUT, 0.6), correlated(2, 0.5, 1.0).law
    early, late = (process.marginal(law, t) for t in (CHOICES["cutoff"], 0.6))
    ratio = early.eigenvalues / late.eigenvalues
    variance = process.prior_variance * ratio
    mean = early.mean - np.sqrt(ratio) * late.mean
    kl = 0.5 * np.sum(
        law.eigenvalues / variance - 1 - np.log(law.eigenvalues / variance)
        + law.rotate(law.mean - mean) ** 2 / variance
    )  # fmt: skip
    gap = found["data_log_density"] - found["flow_log_likelihood"]
    assert (abs(gap - kl) < 4 * found["flow_log_likelihood_standard_error"]).all()


def test_the_best_horizon_is_where_error_and_information_meet(tmp_path: Path) -> None:
    found = run(tmp_path, score=SCALED)
    best = found["optimal_horizon"][0, 0]
    process, law = build_process(VP, CUT, 1.0), correlated(2, 0.5, 1.0).law
    mse, _ = scaled(process, law, 0.1).error_moments(law, best)
    m, v = process.mean_scale(best), process.kernel_variance(best)
    np.testing.assert_allclose(mse, law.relative_fisher_information(1.0, m, v), rtol=1e-9)
    stretched = {key: value for key, value in CUT.items() if key != "full_horizon"}
    assert "optimal_horizon" not in run(tmp_path, score=SCALED, schedules=[stretched])


def networks(folder: Path, seeds: list[int], output: str = "relative") -> Path:
    architecture = MLP(
        dimension=2, width=16, layers=1, time_width=16, time_scale=1000.0, output=output
    )
    folder.mkdir(exist_ok=True)
    ScoreEnsemble.initial(architecture, seeds).save(folder / "networks.safetensors")
    return folder / "networks.safetensors"


@pytest.mark.parametrize("output", ["relative", "preconditioned"])
def test_both_ways_to_the_bound_of_a_network_agree(tmp_path: Path, output: str) -> None:
    """From the error to the known score, and from losses that don't know it."""
    file = networks(tmp_path, [1, 2], output)
    coarse = {"rows": 2000, "rtol": 0.1, "atol": 0.1, "atol_nats": 1.0}  # of the flow
    found = run(tmp_path, inputs={"network": file}, score=TRAINED, likelihood=CHOICES | coarse)
    error = np.hypot(found["score_gap_standard_error"], found["denoising_elbo_standard_error"])
    assert (abs(found["elbo"] - found["denoising_elbo"]) < 4 * error).all()
    assert (error < 0.05 * found["score_gap"]).all()


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_numbers_do_not_depend_on_the_block(tmp_path: Path, divergence: str) -> None:
    choices = CHOICES | {"rows": 20, "divergence": divergence, "rtol": 1e-3, "atol_nats": 1e-2}
    seeds = [4, 5, 6, 7]  # of the networks: two a schedule
    together = run(
        tmp_path,
        inputs={"network": networks(tmp_path, seeds)},
        score=TRAINED,
        schedules=[CUT, STEEP],
        likelihood=choices,
    )
    for s, schedule in enumerate((CUT, STEEP)):
        for seed in range(2):
            alone = run(
                tmp_path,
                seeds=range(seed, seed + 1),
                inputs={"network": networks(tmp_path, [seeds[2 * s + seed]])},
                score=TRAINED,
                schedules=[schedule],
                likelihood=choices,
            )
            for name, value in alone.items():
                if not name.endswith("seconds"):
                    np.testing.assert_array_equal(value[0, 0], together[name][s, seed], name)


def test_a_failed_network_is_nan_and_its_neighbours_are_not(tmp_path: Path) -> None:
    file = networks(tmp_path, [1, 2])
    ensemble = ScoreEnsemble.load(file)
    for weight in ensemble.weights.values():
        weight[0] = torch.nan
    ensemble.save(file)
    coarse = {"rows": 20, "rtol": 1e-2, "atol_nats": 1e-1}
    found = run(tmp_path, inputs={"network": file}, score=TRAINED, likelihood=CHOICES | coarse)
    for name in ("elbo", "denoising_elbo", "flow_log_likelihood", "flow_evaluations"):
        assert np.isfinite(found[name]).tolist() == [[False, True]], name
    assert found["failed"].tolist() == [[True, False]]
    assert "the score is not finite" in found["message"][0, 0]


TRIPLE = {
    "build": "sgm.targets:mixture",
    "parameters": {
        "weights": [0.5, 0.5],
        "means": [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
        "variances": [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]],
    },
    "label": "triple",
}


def test_an_unknown_entropy_leaves_what_needs_it_unknown_and_nothing_else(tmp_path: Path) -> None:
    """Independent coordinates: the flow of the mixture on the line, and of two Gaussians."""
    choices = CHOICES | {"rows": 100}
    found = run(tmp_path, target=TRIPLE, seeds=range(1), likelihood=choices)
    for name in ("elbo", "kl_terminal", "data_log_density", "elbo_difference"):
        assert np.isnan(found[name]).all(), name
    assert "optimal_horizon" not in found
    assert not found["failed"].any()
    parameters = TRIPLE["parameters"]
    known = {
        part: TRIPLE
        | {
            "parameters": parameters
            | {key: [row[axis] for row in parameters[key]] for key in ("means", "variances")}
        }
        for part, axis in (("mixture", slice(0, 1)), ("rest", slice(1, 3)))
    }
    parts = [
        run(tmp_path, target=law, seeds=range(1), likelihood=choices) for law in known.values()
    ]
    expected = sum(part["flow_log_likelihood"] for part in parts)
    error = found["flow_log_likelihood_standard_error"]
    assert np.isfinite(error).all()
    assert (abs(found["flow_log_likelihood"] - expected) < 4 * error).all()


def test_a_flow_that_is_not_solved_is_marked_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def give_up(*arguments: Any) -> float:
        raise ArithmeticError("q has mass 0.9")

    monkeypatch.setattr("sgm.elbo.reverse_sde_kl", give_up)
    found = run(tmp_path, target=MODES, likelihood=CHOICES | {"rows": 20})
    assert found["failed"].all()
    assert (found["message"] == "reverse_sde_kl: q has mass 0.9").all()
    assert np.isfinite(found["flow_log_likelihood"]).all()
    assert "seed 1: reverse_sde_kl: q has mass 0.9" in capsys.readouterr().out


def test_a_schedule_without_a_likelihood_fails_its_runs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A score of a user's that exists for one schedule of the block."""
    extension = tmp_path / "mild.py"
    extension.write_text(
        "from sgm.scores import exact\n\n"
        "def mild(process, law):\n"
        "    return exact(process, law) if process.schedule.beta(0.5) > 8 else law.nothing\n"
    )
    score = {"build": f"{extension}:mild", "parameters": {}}
    schedules = [CUT | {"label": "cut"}, STEEP | {"label": "steep"}]
    cells = run(tmp_path, schedules=schedules, score=score)
    alone = run(tmp_path, schedules=schedules[:1], score=score)
    np.testing.assert_array_equal(cells["failed"], [[False, False], [True, True]])
    assert np.isnan(cells["elbo"][1]).all()
    np.testing.assert_array_equal(cells["elbo"][0], alone["elbo"][0])
    message = str(cells["message"][1, 0])
    assert message.startswith(f"mild of {extension}: AttributeError: ")
    assert "line 4, in mild" in message
    assert f"steep, seed 0: {message}" in capsys.readouterr().out
