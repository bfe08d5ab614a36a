"""The wheel, installed where no checkout is: the documented lines, in a folder of the user's."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from sgm.run.inventory.progress import survey
from sgm.run.inventory.status import plan_of
from sgm.store.grid import open_grid
from tests.test_docs import SHELL
from tests.workflow import ROOT, tiny

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]

BUILD, INSTALL, STUDY, PLAN = SHELL["tests/test_wheel.py::test_a_study_runs_without_a_checkout"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, built by what is installed here."""
    folder = tmp_path_factory.mktemp("copy")
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT)
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("published/", "tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    words = [sys.executable, "-m", *shlex.split(BUILD), "--no-build-isolation", "--quiet"]
    subprocess.run(words, cwd=folder, check=True)
    (built,) = (folder / "dist").glob("sgm_workbench-*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a line in a user's folder, which lies in a repository of the user's.

    In the environment are the wheel and, in place of a download, this environment's libraries. Its
    folder `bin` is not on the path, as where an environment is not activated.
    """
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "env", symlinks=True)
    python = home / "env/bin/python"
    own = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    # what an editable install leaves there is not read: .pth files of such a folder are not
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip, install, _ = shlex.split(INSTALL)
    words = [sys.executable, "-m", pip, "--python", python, install, "--no-deps", "--no-index"]
    subprocess.run([*words, "--quiet", wheel], check=True)
    kept = {name: os.environ[name] for name in ("HOME", "OMP_NUM_THREADS") if name in os.environ}
    environment = kept | {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run(["git", "init", "--quiet", home], check=True)
    (home / "work").mkdir()

    def run(line: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command, *words = shlex.split(line)
        done = subprocess.run(
            [home / "env/bin" / command, *words], cwd=home / "work", env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr[-4000:]
        return done

    return run


def folder(run: Run) -> Path:
    return Path(run('python -c "import os; print(os.getcwd())"').stdout.strip())


def test_the_wheel_holds_what_a_study_is_run_with(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for top in ("Snakefile", "workflow", "config", "profiles", "requirements.txt"):
        files = subprocess.check_output([*listed, top], cwd=ROOT, text=True).splitlines()
        assert {f"sgm/share/{name}" for name in files} <= names, top
    pages = subprocess.check_output([*listed, "sgm/report"], cwd=ROOT, text=True).splitlines()
    assert any("/vendor/" in name for name in pages)
    assert {"sgm/py.typed", *pages} <= names
    assert not [name for name in names if "published/" in name or name.startswith("tests")]
    (top_level,) = {name.partition("/")[0] for name in names} - {"sgm"}
    assert top_level.startswith("sgm_workbench-")


def test_a_study_runs_without_a_checkout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = folder(run)
    where = run('python -c "import sgm; print(sgm.__file__)"').stdout
    assert Path(where.strip()).is_relative_to(here.parent / "env")
    # a user's own extension and a shipped file, which `extends` a shipped study
    config = tiny(study="mine", extensions=["mine.py"], divergences=["gaussian_kl"], bounds=[])
    path = "config/schedules/isotropic-kl-20.json"
    file = {"family": "schedule_file", "path": path, "interpolation": "monotone"}
    config |= {"schedules": ["power", file], "extends": "exact-kl"}
    (here / "mine.py").write_text(
        "from sgm.schedules import ConstantSchedule\n"
        "from sgm.study import register\n\n\n"
        "@register('schedule')\ndef power(horizon: float) -> ConstantSchedule:\n"
        "    return ConstantSchedule(horizon, 3.0)\n"
    )
    (here / "mine.yaml").write_text(yaml.safe_dump(config))
    said = run(STUDY)
    assert "The results are in results/mine; `sgm report results/mine` puts" in said.stderr
    assert "] train isotropic" in said.stderr  # our logger's line
    monkeypatch.chdir(here)
    grid = open_grid("mine")
    assert grid.attrs["failures"] == "[]"
    assert grid.attrs["commit"] == ""  # not that of the repository around it
    assert grid.sizes["schedule"] == 2
    assert (here / "results/mine/figures/kl/isotropic.png").stat().st_size
    told = run(PLAN).stdout.splitlines()
    (line,) = [line for line in told if line.startswith("all ")]
    files, done, *left = (int(word) for word in line.split()[1:6])
    assert files == done > 5
    assert left == [0, 0, 0]


def test_its_files_are_those_that_a_checkout_would_make(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code's digests are equal, so that either goes on with what the other has left."""
    here = folder(run)
    (here / "tiny.yaml").write_text(yaml.safe_dump(tiny()))
    run("sgm study tiny.yaml --cores 2")
    monkeypatch.chdir(here)
    stages = survey(plan_of("tiny.yaml"))
    assert sum(len(stage.done) for stage in stages) > 5
    assert not any(stage.left for stage in stages)


def test_the_rest_of_the_package_works_without_a_checkout(run: Run) -> None:
    assert "exact-kl" in run("sgm plan typo", code=1).stderr
    assert "in `published` of its repository" in run("sgm figures exact-kl", code=1).stderr
    schema = json.loads(run("sgm schema").stdout)
    assert schema == json.loads((ROOT / "workflow/schemas/study.schema.json").read_text())
    assert (
        "0 fail"
        in run("sgm check cosine --kind schedule --parameters 'offset: 0.008, clip: 20'").stdout
    )
