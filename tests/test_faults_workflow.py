"""Faults of a whole run: damage, two runs at once, changed configs, clocks, little memory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_determinism import run
from tests.workflow import Workflow, tiny

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]


@pytest.fixture
def study(finished: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished study, to be damaged."""
    return finished.copy(tmp_path / "copy")


def content(workflow: Workflow) -> str:
    return str(workflow.grid.attrs["content_sha256"])


def started(workflow: Workflow) -> subprocess.Popen[str]:
    return subprocess.Popen(
        workflow.command(),
        cwd=workflow.folder,
        env=workflow.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def flip(path: Path) -> None:
    """One bit of an array in a cell file."""
    changed = bytearray(path.read_bytes())
    changed[changed.index(b"NUMPY")] ^= 1
    path.write_bytes(changed)


def test_damage_is_refused_by_name_and_deleting_mends_it(study: Workflow) -> None:
    whole = content(study)
    cell = next((study.results / "cells/divergences").rglob("*.npz"))
    chunk = next(p for p in (study.results / "grid.zarr/kl_exact/c").rglob("*") if p.is_file())
    flip(cell)
    failed = study.run()
    assert failed.returncode != 0
    said = (study.results / "logs/grid.log").read_text()
    assert str(cell.relative_to(study.folder)) in said
    assert len(said.splitlines()) == 1
    assert content(study) == whole  # the finished grid stays until a better one is written
    cell.unlink()
    study.make(tiny())
    assert content(study) == whole

    chunk.unlink()  # Zarr would read NaN
    failed = study.run("--forcerun", "tables")
    assert failed.returncode != 0
    assert "not a readable grid" in (study.results / "logs/tables.log").read_text()
    (study.results / "grid.zarr/zarr.json").unlink()
    study.make(tiny())
    assert content(study) == whole


def test_a_second_run_is_refused_and_the_first_finishes(study: Workflow) -> None:
    whole = content(study)
    sorted((study.results / "networks").rglob("*.safetensors"))[0].unlink()
    first = started(study)
    while not list((study.folder / ".snakemake" / "locks").glob("*")):
        assert first.poll() is None
        time.sleep(0.05)
    second = study.run()
    assert second.returncode != 0
    assert "locked" in second.stderr + second.stdout
    _, errors = first.communicate()
    assert first.returncode == 0, errors[-4000:]
    assert content(study) == whole
    assert study.planned() == {}


def test_a_config_changed_half_way_leaves_no_number_of_the_old_one(tmp_path: Path) -> None:
    """Killed while networks train or are sampled; the labels stay, what they mean changes."""
    workflow = Workflow(tmp_path / "changed")
    workflow.write(tiny())
    process = started(workflow)
    trained = workflow.results / "cells" / "training"
    while not list(trained.rglob("*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.Random(0).uniform(0, 3))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    changed = tiny()
    changed["scores"][-1]["recipe"]["steps"] = 21
    changed["n_samples"] = 150
    workflow.write(changed)
    workflow.run("--unlock")
    workflow.make(changed)
    assert content(workflow) == run(changed, tmp_path / "clean").attrs["content_sha256"]


HUNGRY = """
import os, sys
import numpy as np
from sgm.samplers import exponential_integrator_modified
from sgm.study import register

@register("sampler")
def hungry(process, times):
    if "HUNGRY" in os.environ and "snakemake" not in sys.modules:
        np.empty(2**50)
    return exponential_integrator_modified(process, times)
"""


def test_a_job_without_memory_fails_alone_and_then_gives_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = tmp_path / "hungry.py"
    extension.write_text(HUNGRY)
    schedules = [tiny()["schedules"][0] | {"a": 3}]
    config = tiny(
        schedules=schedules,
        extensions=[str(extension)],
        samplers=["hungry", "exponential_integrator_modified"],
    )
    workflow = Workflow(tmp_path / "run")
    workflow.write(config)
    monkeypatch.setenv("HUNGRY", "1")
    failed = workflow.run()
    assert failed.returncode != 0
    (log,) = (workflow.results / "logs" / "samples").rglob("hungry/**/*.log")
    assert log.read_text().startswith("samples: out of memory: Unable to allocate 8.00 PiB")
    assert len(log.read_text().splitlines()) == 1
    others = list((workflow.results / "cells/divergences").rglob("*.npz"))
    assert len(others) == 1
    monkeypatch.delenv("HUNGRY")
    grid = workflow.make(config)
    assert content(workflow) == run(config, tmp_path / "clean").attrs["content_sha256"]
    assert (grid.status == 1).all()


@pytest.mark.parametrize("years", [-50, 10])
def test_a_clock_that_jumps_reruns_nothing_and_hides_no_change(study: Workflow, years: int) -> None:
    when = time.time() + years * 365 * 86400
    for kind in ("networks", "cells"):
        for path in (study.results / kind).rglob("*"):
            if path.is_file():
                os.utime(path, (when, when))
    assert study.planned() == {}
    first = next((study.results / "cells/bounds").rglob("*.npz"))
    first.unlink()
    assert study.planned()["bound"] == 1
    assert study.planned(tiny(n_score_error=30))["bound"] == 2


def test_a_clock_set_back_hides_no_change_of_what_a_job_reads(study: Workflow) -> None:
    """New networks that look older than the bounds of the old ones: specs tell, times don't."""
    changed = tiny()
    changed["scores"][-1]["recipe"]["steps"] = 21
    study.write(changed)
    assert study.run("--until", "train").returncode == 0
    for kind in ("networks", "cells/training"):
        for path in (study.results / kind).rglob("*"):
            if path.is_file():
                os.utime(path, (0, 0))
    planned = study.planned()
    assert {rule: planned.get(rule) for rule in ("sample", "evaluate", "bound")} == {
        "sample": 2, "evaluate": 2, "bound": 2
    }  # fmt: skip
