"""Blocks: what one job does together changes no number, and what is on disk is kept."""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sgm.gather import gather
from sgm.run.check import check
from sgm.store.cells import canonical, read_cells, read_spec
from sgm.study import Plan, Study
from sgm.study import fingerprint as fingerprints
from sgm.study import plan as planning
from sgm.study.blocks import LONGEST_NAME, schedule_blocks
from tests.workflow import run_jobs, tiny


def with_a(*values: float) -> list[dict[str, Any]]:
    return [{"family": "beta_a", "a": list(values), "beta_min": 0.1, "beta_max": 20.0}]


RING = {"family": "ring_mixture", "modes": 3, "radius": 1.0, "variance": 0.1}


def labels(*values: int) -> str:
    return ",".join(f"beta_a={a}" for a in values)


def plan(root: Path, **changes: Any) -> Plan:
    return Plan(Study.parse(tiny(**changes)), root)


def stale(plan: Plan) -> dict[str, int]:
    """Files of a study that are missing, or whose spec is not the plan's."""
    counts: dict[str, int] = {}
    for kind in ("network", "bounds", "divergences"):
        for cell in plan.cells(kind):
            path = Path(plan.pattern(kind).format(**cell))
            if not path.exists() or read_spec(path) != plan._spec(kind, cell):
                counts[kind] = counts.get(kind, 0) + 1
    return counts


def test_blocks_of_seeds_keep_what_is_on_disk(tmp_path: Path) -> None:
    def blocks(seeds: int, per_job: int) -> tuple[str, ...]:
        return plan(tmp_path, seeds=seeds, seeds_per_job=per_job).blocks

    assert blocks(10, 4) == ("0-3", "4-7", "8-9")
    (tmp_path / "data/isotropic").mkdir(parents=True)
    (tmp_path / "data/isotropic/seeds_0-4.npz").touch()
    (tmp_path / "logs/data/isotropic").mkdir(parents=True)
    (tmp_path / "logs/data/isotropic/seeds_0-9.npz.log").touch()
    assert blocks(10, 4) == ("0-4", "5-8", "9-9")
    assert blocks(3, 4) == ("0-4",)
    for block in blocks(10, 4):
        (tmp_path / f"data/isotropic/seeds_{block}.npz").touch()
    assert blocks(10, 4) == ("0-4", "5-8", "9-9")  # the same once they are written


def cut(names: Sequence[str], size: int, on_disk: Sequence[str], *current: str) -> set[str]:
    return set(schedule_blocks(names, size, on_disk, lambda name: name in current))


def test_blocks_of_schedules_keep_what_is_on_disk() -> None:
    assert cut("abcde", 2, []) == {"a,b", "c,d", "e"}
    assert cut("abcde", 9, []) == {"a,b,c,d,e"}
    assert cut("abcde", 2, ["b,c,d"]) == {"b,c,d", "a,e"}
    assert cut("abcde", 1, ["b,c,d"]) == {"b,c,d", "a", "e"}
    # one that holds a schedule which the study lacks is kept as long as it would not run again
    assert cut("ac", 2, ["a,b,c"], "a,b,c") == {"a,b,c"}
    assert cut("ac", 2, ["a,b,c"]) == {"a,c"}
    assert cut("ac", 2, ["b"], "b") == {"a,c"}
    # and once it is given up and its schedules are back, what is current comes first
    assert cut("abc", 2, ["a,b,c", "a,c"], "a,c") == {"a,c", "b"}
    assert cut("abc", 2, ["a,b", "b,c"], "a,b", "b,c") == {"a,b", "b,c"}


def test_the_cut_does_not_depend_on_which_new_blocks_are_written() -> None:
    names = [f"{'long' * (i % 7)}{i}" for i in range(50)]
    whole = cut(names, 12, [])
    assert max(map(len, whole)) <= LONGEST_NAME
    assert len(whole) > 50 / 12  # names got too long for twelve
    for written in whole:
        assert cut(names, 12, [written]) == whole
        assert cut(names, 12, sorted(whole - {written})) == whole


@functools.cache
def grid_of(root: Path, per_job: int) -> xr.Dataset:
    """A study with every stage that has a block of schedules, and a bound along the chain."""
    sliced = {"family": "sliced_w2", "projections": 3, "projection_seed": 0}
    config = tiny(
        schedules=with_a(-2, 3, 5), schedules_per_job=per_job, bounds=["kl", "w2"], seeds=3,
        divergences=["gaussian_kl", sliced],
        pictures={"schedules": ["beta_a=5"], "rows": 3, "times": [1.0, 0.0], "coordinates": [0]},
    )  # fmt: skip
    config["scores"][0]["sampled"] = True
    here = Plan(Study.parse(config), root / str(per_job))
    run_jobs(here)
    assert len(here.files("network")) == 2 * -(-3 // per_job)
    return gather(here, {})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@pytest.mark.parametrize("per_job", [2, 3])
def test_no_number_depends_on_the_block(root: Path, per_job: int) -> None:
    alone, together = grid_of(root, 1), grid_of(root, per_job)
    assert set(alone.variables) == set(together.variables)
    for name in set(alone.variables) - {"train_seconds"}:
        np.testing.assert_array_equal(alone[name], together[name], err_msg=str(name))
    assert (together.status == 1).all()
    for name in ("kl_plugin", "kl_bound", "w2_bound", "train_loss"):
        assert np.isfinite(together[name].sel(score="trained")).all(), name
    picture = "cells/pictures/isotropic/beta_a=5/trained.npz"
    one, other = (read_cells(root / str(n) / picture) for n in (1, per_job))
    np.testing.assert_array_equal(one["backward"], other["backward"])


def test_growth_runs_what_is_new(tmp_path: Path) -> None:
    first = plan(tmp_path, schedules=with_a(-2, 3, 5), schedules_per_job=2)
    run_jobs(first)
    assert stale(plan(tmp_path, schedules=with_a(-2, 3, 5), schedules_per_job=1)) == {}
    grown = plan(tmp_path, schedules=with_a(-2, 0, 3, 5, 7, 9), schedules_per_job=2)
    assert stale(grown) == {"network": 2, "bounds": 2, "divergences": 2}
    names = {cell["schedules"] for cell in grown.cells("network")}
    assert names == {labels(-2, 3), labels(5), labels(0, 7), labels(9)}


def test_a_block_outlives_its_schedules_until_it_would_run_again(tmp_path: Path) -> None:
    run_jobs(plan(tmp_path, schedules=with_a(-2, 3, 5), schedules_per_job=3))
    fewer = plan(tmp_path, schedules=with_a(5, -2), schedules_per_job=3)
    assert stale(fewer) == {}
    assert [cell["schedules"] for cell in fewer.cells("network")] == [labels(-2, 3, 5)]
    run_jobs(fewer, ("exact", "axes"))
    grid = gather(fewer, {})
    assert grid.schedule.values.tolist() == ["beta_a=5", "beta_a=-2"]
    whole = plan(tmp_path, schedules=with_a(-2, 3, 5), schedules_per_job=3)
    run_jobs(whole, ("exact", "axes"))
    before = gather(whole, {}).sel(schedule=grid.schedule)
    xr.testing.assert_equal(grid.drop_attrs(), before.drop_attrs())

    # a later stage runs on the whole block, whose networks are on disk
    later = plan(tmp_path, schedules=with_a(5, -2), schedules_per_job=3, n_score_error=30)
    assert stale(later) == {"bounds": 1}
    # the first stage would run again: the block is given up, the missing schedule is not made
    for change in ({"n_train": 150}, {"study_seed": 7}):
        again = plan(tmp_path, schedules=with_a(5, -2), schedules_per_job=3, **change)
        assert stale(again) == {"network": 1, "bounds": 1, "divergences": 1}
        assert [cell["schedules"] for cell in again.cells("network")] == [labels(5, -2)]


def test_a_block_is_given_up_when_what_built_its_lost_schedule_is_gone(tmp_path: Path) -> None:
    run_jobs(plan(tmp_path, schedules_per_job=2))
    (network,) = (tmp_path / "networks").rglob("*.safetensors")
    changed = network.read_bytes().replace(b"BetaSchedule", b"ZetaSchedule")
    network.write_bytes(changed)
    fewer = plan(tmp_path, schedules=with_a(3), schedules_per_job=2)
    assert [cell["schedules"] for cell in fewer.cells("network")] == ["beta_a=3"]
    network.write_bytes(changed[:100])  # nor is a damaged file asked what it was
    fewer = plan(tmp_path, schedules=with_a(3), schedules_per_job=2)
    assert [cell["schedules"] for cell in fewer.cells("network")] == ["beta_a=3"]


def test_samples_of_an_untrained_score_leave_a_block_too(tmp_path: Path) -> None:
    """Its samples are deleted: the divergences say what the schedules were."""
    config: dict[str, Any] = {"scores": [{"family": "exact", "sampled": True}], "bounds": ["kl"]}
    first = plan(tmp_path, schedules_per_job=2, **config)
    run_jobs(first)
    for path in (tmp_path / "samples").rglob("*.npz"):
        path.unlink()
    fewer = plan(tmp_path, schedules=with_a(3), **config)
    assert stale(fewer) == {}
    assert [cell["schedules"] for cell in fewer.cells("divergences")] == [labels(-2, 3)]
    more = plan(tmp_path, schedules=with_a(3), **config, n_samples=300)
    assert [cell["schedules"] for cell in more.cells("divergences")] == ["beta_a=3"]


def large(per_job: int, **changes: Any) -> dict[str, Any]:
    """10⁴ cells: 2 targets × 50 schedules × 5 scores × 2 N × 10 seeds."""
    (isotropic,) = tiny()["targets"]
    return tiny(
        targets=[isotropic, isotropic | {"name": "other", "mean": 2.0}],
        schedules=with_a(*(a / 4 for a in range(50))),
        schedules_per_job=per_job,
        scores=[{"family": "scaled", "eps": [0.1, 0.2, 0.3, 0.4, 0.5], "sampled": True}],
        n_steps=[10, 20], seeds=10, seeds_per_job=5, **changes,
    )  # fmt: skip


def test_a_large_study_is_planned_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are those of the blocks, and code is looked at once a set of addresses."""
    asked: list[frozenset[str]] = []

    def counted(roots: frozenset[str]) -> str:
        asked.append(roots)
        return fingerprints.fingerprint(roots)

    monkeypatch.setattr(planning, "fingerprint", counted)
    here = Plan(Study.parse(large(10)), tmp_path)
    chains = 2 * 5 * 2 * 2  # targets × scores × N × blocks of seeds
    jobs = [(kind, cell) for kind in ("data", "samples", "divergences", "exact", "axes")
            for cell in here.cells(kind)]  # fmt: skip
    assert len(jobs) == 2 * 2 + 2 * chains * 5 + 2 + 1
    for _ in range(2):  # Snakemake asks more than once
        for kind, cell in jobs:
            spec = json.loads(here._spec(kind, cell))
            assert canonical(spec) == here._spec(kind, cell)
    assert len(asked) == len(set(asked)) == 5


def test_the_disk_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: walked.append(str(top)) or walk(top))
    here = Plan(Study.parse(large(10)), tmp_path)
    for kind in ("samples", "divergences", "floors"):
        list(here.cells(kind))
    assert len(walked) == len(set(walked))


def test_a_reference_run_is_told_neither_seeds_nor_recipes(tmp_path: Path) -> None:
    """And its rows stand in the divergences' inputs, not in those of the samples."""
    base = tiny(targets=[RING], schedules_per_job=2)
    other = copy.deepcopy(base["scores"][-1]) | {"name": "other"}
    here = {"target": "ring_mixture", "schedule": "beta_a=3", "schedules": "beta_a=-2,beta_a=3"}
    here |= {"horizon": "1", "score": "trained", "sampler": "exponential_integrator_modified"}
    here |= {"time_grid": "uniform", "n_steps": "10", "seeds": "0-1"}

    def specs(**changes: Any) -> list[str]:
        plan = Plan(Study.parse(base | changes), tmp_path)
        return [plan._spec(kind, here) for kind in ("reference", "samples", "divergences")]

    first = specs()
    plan = Plan(Study.parse(base), tmp_path)
    assert [Path(path).parts[-4] for name, path in plan.inputs(
        "divergences", SimpleNamespace(**here)).items() if "reference" in name
    ] == ["beta_a=-2", "beta_a=3"]  # fmt: skip
    assert len(list(plan.cells("reference"))) == 2
    assert specs(seeds=5, scores=[*base["scores"], other]) == first
    more = specs(n_reference=20_000)
    assert [a == b for a, b in zip(first, more, strict=True)] == [False, True, False]
    none = Plan(Study.parse(base | {"n_reference": None}), tmp_path)
    assert not list(none.cells("reference"))
    assert not list(Plan(Study.parse(tiny()), tmp_path).cells("reference"))  # a Gaussian


def test_a_block_keeps_the_reference_run_of_a_schedule_that_left(tmp_path: Path) -> None:
    """Its divergences read it: what it was told is known from the networks' file."""
    config = tiny(targets=[RING], schedules_per_job=2, seeds=1, n_reference=1000, bounds=[])
    config["scores"] = config["scores"][-1:]
    whole = Plan(Study.parse(config), tmp_path)
    run_jobs(whole, ("data", "network", "reference", "samples", "divergences"))
    fewer = Plan(Study.parse(config | {"schedules": with_a(3)}), tmp_path)
    (cell,) = fewer.cells("divergences")
    assert cell["schedules"] == labels(-2, 3)
    assert np.isfinite(fewer.read("divergences", cell)["kl_coupled"]).all()
    place = SimpleNamespace(**cell, schedule="beta_a=-2")
    path = fewer.inputs("divergences", place)["reference_0"]
    assert read_spec(path) == fewer.spec("reference", place)
    with pytest.raises(ValueError, match="schedule = 'beta_a=9': not in the study"):
        fewer.spec("reference", SimpleNamespace(**cell, schedule="beta_a=9"))


def test_a_large_study_builds_each_process_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check grows with the schedules, not with the cells."""
    from sgm.run import check as module

    built: list[Any] = []
    build = module.build_process

    def counted(*spec: Any) -> Any:
        built.append(spec)
        return build(*spec)

    monkeypatch.setattr(module, "build_process", counted)
    check(Study.parse(large(10)))
    assert len(built) == 50


def test_cut_blocks_and_many_jobs_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's name holds its labels, and Snakemake's memory grows with the jobs."""
    names = [f"{'long' * 12}{i}" for i in range(6)]
    schedules = [{"family": "constant", "rate": 1.0, "name": name} for name in names]
    config = tiny(schedules=schedules, schedules_per_job=6)
    (notice,) = Plan(Study.parse(config), Path("nowhere")).notices()
    assert notice.startswith("schedules_per_job = 6: a block has at most 4 schedules")
    plan = Plan(Study.parse(tiny()), Path("nowhere"))
    assert plan.notices() == []
    monkeypatch.setattr("sgm.study.plan.MANY_JOBS", 5)
    assert "jobs: Snakemake needs about" in plan.notices()[0]
