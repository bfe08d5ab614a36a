"""Cell files and the grid: every number stands at its own label."""

from __future__ import annotations

import io
import itertools
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from sgm.architectures import MLP
from sgm.gather import gather
from sgm.gather.grid import _compute_seconds
from sgm.gaussian import kl_divergence
from sgm.laws import sampler_law
from sgm.networks import ScoreEnsemble
from sgm.processes import VPProcess
from sgm.run.__main__ import main
from sgm.run.jobs import stages
from sgm.samplers import euler_arrival, exponential_integrator_modified
from sgm.schedules import BetaSchedule
from sgm.scores import exact, scaled
from sgm.store.cells import read_cells, read_spec, write_cells, written_whole
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study, Variable, canonical
from sgm.targets import correlated, isotropic
from sgm.timegrids import uniform
from tests.workflow import run_jobs, tiny

# labels that no alphabet puts in this order
CONFIG = tiny(
    targets=[
        {"family": "isotropic", "dimension": 4, "mean": 1.0, "variance": 0.5},
        {"family": "correlated", "dimension": 2, "mean": 0.5, "offset": 1.0},
    ],
    schedules=[{"family": "beta_a", "a": [5, 10, -3], "beta_min": 0.1, "beta_max": 20.0}],
    horizons=[1.0, 0.25],
    scores=[
        {"family": "scaled", "eps": [0.2, 0.1], "sampled": False},
        {"family": "exact", "sampled": False},
    ],
    samplers=["exponential_integrator_modified", "euler_arrival"],
    n_steps=[20, 5],
)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    plan = Plan(Study.parse(CONFIG), tmp_path_factory.mktemp("results"))
    run_jobs(plan, ("exact", "axes"))
    write_grid(gather(plan, {"commit": "abc"}), plan.root / "grid.zarr")
    return open_grid(plan.root / "grid.zarr")


def test_every_exact_number_stands_at_its_label(grid: xr.Dataset) -> None:
    targets = {"isotropic": isotropic(4, 1.0, 0.5), "correlated": correlated(2, 0.5, 1.0)}
    samplers = {
        "exponential_integrator_modified": exponential_integrator_modified,
        "euler_arrival": euler_arrival,
    }
    for (name, target), a, horizon, n, (scheme, steps) in itertools.product(
        targets.items(), (5.0, 10.0, -3.0), (1.0, 0.25), (20, 5), samplers.items()
    ):
        process = VPProcess(BetaSchedule(horizon, a, 0.1, 20.0), 1.0)
        scores = {
            "exact": exact(process, target.law),
            "scaled_eps=0.1": scaled(process, target.law, 0.1),
            "scaled_eps=0.2": scaled(process, target.law, 0.2),
        }
        for label, score in scores.items():
            times = uniform(horizon, n)
            law = sampler_law(steps(process, times), score, process.prior(target.dimension))
            here = grid.sel(
                target=name, schedule=f"beta_a={a:g}", horizon=horizon, n_steps=n,
                sampler=scheme, score=label, time_grid="uniform",
            )  # fmt: skip
            np.testing.assert_allclose(here.kl_exact, kl_divergence(target.law, law), rtol=1e-12)
            assert here.a == a
            assert here.dimension == target.dimension
            np.testing.assert_allclose(
                here.kl_terminal,
                kl_divergence(
                    process.marginal(target.law, horizon), process.prior(target.dimension)
                ),
                rtol=1e-9,
            )
            np.testing.assert_allclose(
                here.schedule_beta, process.schedule.beta(horizon * grid.time_fraction)
            )


def test_a_likelihood_that_failed_is_among_the_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is NaN, and the grid says why."""

    def unsolved(*arguments: Any, **options: Any) -> None:
        raise ArithmeticError("the probability flow was not solved")

    monkeypatch.setattr("sgm.likelihood.flow_likelihood", unsolved)
    likelihood = {
        "rows": 4, "nodes": 16, "cutoff": 0.01, "divergence": "exact", "directions": 1,
        "method": "RK45", "rtol": 0.1, "atol": 0.1, "atol_nats": 0.1,
    }  # fmt: skip
    changes = {"seeds": 1, "horizons": [1.0], "n_steps": [5], "likelihood": likelihood}
    plan = Plan(Study.parse(CONFIG | changes), tmp_path)
    run_jobs(plan, ("likelihood", "exact", "axes"))
    failures = json.loads(gather(plan, {}).attrs["failures"])
    assert len(failures) == 2 * 3 * 3  # targets, schedules, scores
    assert failures[0] == {
        "target": "isotropic",
        "schedule": "beta_a=5",
        "horizon": "1",
        "score": "scaled_eps=0.2",
        "seed": 0,
        "message": "the probability flow was not solved",
    }


def test_evaluations_are_a_coordinate(grid: xr.Dataset) -> None:
    assert grid.nfe.dims == ("sampler", "time_grid", "n_steps")
    assert (grid.nfe == grid.n_steps).all()  # of samplers with one a step
    assert int(grid.nfe.sel(sampler="euler_arrival", time_grid="uniform", n_steps=20)) == 20


def test_proved_flags_belong_to_their_samplers(grid: xr.Dataset) -> None:
    applicable, objection = grid.kl_bound_applicable, grid.kl_bound_objection
    assert (applicable.sel(sampler="exponential_integrator_modified") == 1).all()
    assert (applicable.sel(sampler="euler_arrival") == 0).all()
    meanings = objection.attrs["flag_meanings"].split()
    code = int(objection.sel(target="isotropic", sampler="euler_arrival"))
    assert meanings[code] == "the_theorem_is_about_another_sampler"


def test_a_job_is_told_only_what_it_reads() -> None:
    def specs(**changes: Any) -> dict[str, str]:
        scores = [*CONFIG["scores"], tiny()["scores"][-1]]
        plan = Plan(Study.parse(CONFIG | {"scores": scores} | changes), Path("nowhere"))
        labels = SimpleNamespace(
            target="isotropic", schedules="beta_a=5,beta_a=-3", horizon="1", score="trained",
            sampler="euler_arrival", time_grid="uniform", n_steps="20", seeds="0-1",
        )  # fmt: skip
        names = ("data", "network", "samples", "divergences", "bounds", "exact", "axes")
        return {stage: plan.spec(stage, labels) for stage in names}

    before = specs()
    runtime = {"seeds_per_job": 3, "schedules_per_job": 2, "device": "auto", "keep_samples": True}
    assert specs(seeds=5, **runtime) == before
    assert specs(precision="float32") == before
    changed = {  # and whatever reads the files of these
        ("n_train", 123): {"data", "network", "samples", "bounds", "divergences"},
        ("n_samples", 123): {"samples", "divergences"},
        ("n_score_error", 123): {"bounds"},
        ("score_error_tolerance", 0.123): {"bounds"},
        ("precision", "bfloat16"): {"samples", "bounds", "divergences"},
    }
    assert specs(score_error_tolerance=None) == before
    for (key, value), stages_ in changed.items():
        after = specs(**{key: value})
        assert {stage for stage in before if before[stage] != after[stage]} == stages_


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1.0, "a": [1, 2]}) == canonical({"a": [1, 2], "b": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


def test_cell_files_are_whole_plain_and_reproducible(tmp_path: Path) -> None:
    cells = {"x": np.arange(3.0), "failed": np.array([True]), "message": np.array(["no"])}
    write_cells(tmp_path / "a.npz", cells, {"n": 1})
    write_cells(tmp_path / "b.npz", iter(cells.items()), {"n": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for name, value in read_cells(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(value, cells[name])

    with pytest.raises(ValueError, match="allow_pickle"):
        write_cells(tmp_path / "c.npz", {"x": np.array([object()])}, {})
    assert not (tmp_path / "c.npz").exists()
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"d\.npz: not a readable cell file"):
        read_cells(tmp_path / "d.npz")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with written_whole(tmp_path / "x") as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_spec_may_come_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(Study.parse(CONFIG), tmp_path)
    spec = plan.spec("axes", SimpleNamespace())
    monkeypatch.setattr(sys, "stdin", io.StringIO(spec))
    assert main(["axes", "--spec", "-", "--output", f"axes={tmp_path / 'axes.npz'}"]) == 0
    assert read_spec(tmp_path / "axes.npz") == spec


def test_a_file_says_what_made_it(tmp_path: Path) -> None:
    spec = {"b": 1.0, "a": {"x": [1, 2]}}
    write_cells(tmp_path / "a.npz", {"x": np.arange(3.0)}, spec)
    assert read_spec(tmp_path / "a.npz") == canonical(spec)
    assert list(read_cells(tmp_path / "a.npz")) == ["x"]
    with (tmp_path / "old.npz").open("wb") as file:
        np.savez(file, x=np.arange(3.0))
    assert read_spec(tmp_path / "old.npz") == ""

    architecture = MLP(
        dimension=2, width=16, layers=1, time_width=16, time_scale=1.0, output="score"
    )
    networks = ScoreEnsemble.initial(architecture, [1])
    networks.save(tmp_path / "a.safetensors", canonical(spec))
    assert read_spec(tmp_path / "a.safetensors") == canonical(spec)
    for name in ("a.npz", "a.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
        with pytest.raises(ValueError, match=f"{name}: not a readable"):
            read_spec(tmp_path / name)


def test_chosen_arrays_are_read_alone(tmp_path: Path) -> None:
    write_cells(tmp_path / "a.npz", {"samples/a=1": np.ones(3), "b": np.zeros((2, 5))}, {})
    assert list(read_cells(tmp_path / "a.npz", ["samples/a=1"])) == ["samples/a=1"]
    with pytest.raises(ValueError, match=r"a\.npz: not a readable cell file"):
        read_cells(tmp_path / "a.npz", ["c"])
    with (tmp_path / "a.npz").open("r+b") as file:  # spoil the array that is not asked for
        at = file.read().index(b"b.npy") + 200
        file.seek(at)
        file.write(b"\xff")
    assert list(read_cells(tmp_path / "a.npz", ["samples/a=1"])) == ["samples/a=1"]
    with pytest.raises(ValueError, match="CRC"):
        read_cells(tmp_path / "a.npz")


def test_arrays_are_written_one_at_a_time(tmp_path: Path) -> None:
    """No array of a generator is kept once the next one is asked for."""
    alive: list[weakref.ref[Any]] = []

    def arrays() -> Iterator[tuple[str, Any]]:
        for i in range(3):
            assert all(reference() is None for reference in alive)
            array = np.full(4, float(i))
            alive.append(weakref.ref(array))
            yield f"x{i}", array
            del array

    write_cells(tmp_path / "a.npz", arrays(), {})
    assert read_cells(tmp_path / "a.npz")["x2"].tolist() == [2.0] * 4


def test_what_is_large_has_a_chunk_a_target(tmp_path: Path) -> None:
    large = xr.DataArray(np.random.default_rng(0).random((3, 50, 1000)), dims=("target", "a", "b"))
    dataset = xr.Dataset({"large": large, "small": large[:, 0]})
    write_grid(dataset, tmp_path / "grid.zarr")
    stored = zarr.open_group(tmp_path / "grid.zarr", mode="r")
    chunks = {name: stored[name].chunks for name in ("large", "small")}
    assert chunks == {"large": (1, 50, 1000), "small": (3, 1000)}
    xr.testing.assert_identical(open_grid(tmp_path / "grid.zarr").drop_attrs(), dataset)


def test_every_stage_has_a_rule_and_a_file() -> None:
    assert set(stages.STAGES) == {
        "data", "network", "reference", "samples", "divergences", "floors", "bounds", "likelihood",
        "pictures", "exact", "learned", "priors", "axes"
    }  # fmt: skip


@pytest.mark.parametrize("axes", ["target", ("target", "sede")])
def test_a_variable_over_unknown_axes_is_refused_at_once(axes: Any) -> None:
    with pytest.raises(ValueError, match=r"axes = .* of mine: must be a tuple of some of target"):
        Variable("mine", axes, "mine")


def test_a_damaged_benchmark_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tsv").write_text("s\th:m:s\n1.5\t0:00:01\n")
    for i, content in enumerate((b"s\th:m:s\nnone\t0\n", b"\xff\xfe", b"x\n1\n", b"a\ts\n1\n")):
        (tmp_path / f"b{i}.tsv").write_bytes(content)
    assert _compute_seconds(tmp_path) == 1.5
    assert capsys.readouterr().out.count("not a readable benchmark file") == 4
