"""A user's file is what it says: not its date, nor how its path is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sgm.run.__main__ import main
from sgm.run.jobs import views
from sgm.store import cells
from sgm.store.content import content_of
from sgm.study import Plan, Study
from tests.workflow import tiny

ROWS = np.random.default_rng(0).standard_normal((300, 2))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", mean=np.zeros(2), covariance=np.eye(2))


def specs(path: str = "mine.npz", **changes: Any) -> dict[str, str]:
    """Spec of each stage of a study whose target is a file of the user's."""
    config = tiny(targets=[{"family": "gaussian_file", "name": "mine", "path": path}]) | changes
    plan = Plan(Study.parse(config), Path("results"))
    stages = ("data", "network", "samples", "divergences", "bounds", "floors", "exact", "axes")
    return {
        stage: plan.spec(stage, SimpleNamespace(**labels))
        for stage in stages
        for labels in plan.cells(stage)
    }


def test_a_file_replaced_by_an_older_one_runs_again() -> None:
    before = specs()
    stamp = Path("mine.npz").stat()
    np.savez("mine.npz", mean=np.ones(2), covariance=np.eye(2))  # as many bytes
    assert Path("mine.npz").stat().st_size == stamp.st_size
    for age in (0, 10**6):  # as `cp -p` and tar leave it
        os.utime("mine.npz", ns=(stamp.st_atime_ns - age, stamp.st_mtime_ns - age))
        after = specs()
        assert [stage for stage in before if before[stage] == after[stage]] == []


def test_equal_content_runs_nothing() -> None:
    before = specs()
    shutil.copy("mine.npz", "copy.npz")
    Path("copy.npz").replace("mine.npz")
    os.utime("mine.npz", (1, 1))
    assert specs() == before
    assert specs("./mine.npz") == before
    assert specs(str(Path("mine.npz").absolute())) == before


def test_a_file_that_changed_since_planning_stops_its_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = specs()["data"]
    np.savez("mine.npz", mean=np.ones(2), covariance=np.eye(2))
    assert main(["data", "--spec", told, "--output", "data=data.npz"]) == 1
    assert "mine.npz: has changed since the study was planned" in capsys.readouterr().err


def test_names_in_a_folder_count_and_what_is_no_file_is_refused() -> None:
    Path("folder").mkdir()
    Path("folder/a").write_text("1")
    before = content_of("folder")
    Path("folder/a").rename("folder/b")
    assert content_of("folder") != before
    for path in ("missing", "/dev/zero"):
        with pytest.raises(ValueError, match="must be a file or a folder"):
            content_of(path)


def test_a_recipes_display_name_and_the_sign_of_zero_run_nothing() -> None:
    before = specs()
    config = tiny()
    config["scores"][-1]["recipe"]["name"] = "renamed"
    assert specs(scores=config["scores"]) == before
    measures = [{"family": "gaussian_kl", "name": "mine"}, "gaussian_w2", "nll"]
    cells_of = [specs(divergences=own) for own in (measures, ["nll", "gaussian_w2", "gaussian_kl"])]
    for stage in ("samples", "divergences", "floors"):
        assert cells_of[0].get(stage) == cells_of[1].get(stage)
    schedules = tiny()["schedules"]
    zeros = [specs(schedules=[{**schedules[0], "a": [a]}]) for a in (0, 0.0, -0.0)]
    assert zeros[0] == zeros[1] == zeros[2]


def test_a_grid_grown_across_versions_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The versions stand beside the spec of a cell, and rerun nothing."""
    names = {"axes": "1.0", "exact": "1.0"}
    plan = SimpleNamespace(files=lambda kind: [f"{kind}.npz"] if kind in names else [])
    for kind, version in names.items():
        monkeypatch.setattr(cells, "_versions", lambda v=version: cells.canonical({"torch": v}))
        cells.write_cells(f"{kind}.npz", {"x": [1.0]}, {"a": 1})
        assert list(cells.read_cells(f"{kind}.npz")) == ["x"]
        assert cells.read_spec(f"{kind}.npz") == '{"a":1}'
    assert views._cell_versions(plan) == {"cell_versions": '[{"torch":"1.0"}]'}
    monkeypatch.setattr(cells, "_versions", lambda: cells.canonical({"torch": "2.0"}))
    cells.write_cells("axes.npz", {"x": [1.0]}, {"a": 1})
    note = views._cell_versions(plan)["cell_versions_note"]
    assert note.endswith("several versions: torch 1.0, 2.0")
    assert note in capsys.readouterr().out
