"""What surrounds the code: the lock files, the Makefile, and a user's shell, home and settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import matplotlib
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sgm import plots
from sgm.run.__main__ import main
from sgm.study import Plan, Study
from sgm.study.blocks import OUTPUTS, PATTERNS
from sgm.study.document import read_config
from tests.grids import synthetic_grid
from tests.workflow import ROOT, TINY

JUPYTER = "module://matplotlib_inline.backend_inline"


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that these need, with those needed by them, and so on."""
    found: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in requirements]
    while todo:
        own = todo.pop()
        for extra in {"", *own.extras} - {e for name, e in found if name == own.name}:
            found.add((own.name, extra))
            todo += [
                needed
                for needed in map(Requirement, requires(own.name) or [])
                if needed.marker is None or needed.marker.evaluate({"extra": extra})
            ]
    return {canonicalize_name(name) for name, _ in found}


def locked(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return {canonicalize_name(pin.name) for pin in pins}


def test_the_lock_files_hold_exactly_what_the_project_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = closure(project["dependencies"])
    assert locked("requirements.txt") == needed
    assert "pygments" in needed  # without it `make report` ends in an error
    dev = closure(project["optional-dependencies"]["dev"])
    assert locked("requirements-dev.txt") == dev - needed


def test_ci_runs_every_target() -> None:
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci/run").read_text()
    targets = re.findall(r"^([a-z-]+):.*##", makefile, flags=re.MULTILINE)
    assert len(targets) > 10
    # `make test` runs lint, and clean would remove what runs it all
    assert set(targets) - {"lint", "clean"} <= set(re.findall(r"[a-z-]+", ci))


@pytest.mark.parametrize("home", ["/proc/none", "/tmp"])
def test_caches_stand_in_the_checkout_if_home_is_not_writable(home: str) -> None:
    show = "show: ; @echo '$(XDG_CACHE_HOME)' '$(MPLCONFIGDIR)'"
    environment = {"HOME": home, "PATH": os.environ["PATH"]}
    shown = subprocess.check_output(
        ["make", "--eval", show, "show"], cwd=ROOT, env=environment, text=True
    )
    own = [f"{ROOT}/.cache", f"{ROOT}/.cache/matplotlib"]
    assert shown.split() == (own if home == "/proc/none" else [])


def test_lint_reads_the_project_alone(tmp_path: Path) -> None:
    """A user's extension beside the Makefile is not ours to format."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "mine.py").write_text("import os,sys\n")
    ruff = ["ruff", "check", "--no-cache", "."]
    assert subprocess.run(ruff, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "sgm").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "sgm/ours.py")
    assert subprocess.run(ruff, cwd=tmp_path, check=False).returncode == 1


def test_jobs_draw_under_the_backend_that_jupyter_exports() -> None:
    command = [sys.executable, "-c", "import sgm.run.__main__, sgm.plots"]
    subprocess.run(command, env=os.environ | {"MPLBACKEND": JUPYTER}, cwd=ROOT, check=True)


def test_bytes_of_a_figure_do_not_depend_on_the_users_settings(tmp_path: Path) -> None:
    theirs = {
        "text.usetex": True,
        "font.family": "monospace",
        "lines.linewidth": 5,
        "axes.grid": True,
        "savefig.bbox": "tight",
        "pdf.compression": 0,
        "figure.facecolor": "red",
        "image.cmap": "jet",
        "axes.prop_cycle": matplotlib.cycler(color=["r"]),
    }
    grid = synthetic_grid(a=(-5, 5), n_seeds=2)
    for stem in ("schedules", "kl/isotropic"):
        plots.save(*plots.draw(grid, stem), tmp_path / "plain")
        with matplotlib.rc_context(theirs):
            plots.save(*plots.draw(grid, stem), tmp_path / "theirs")
        for suffix in (".png", ".pdf", ".csv"):
            plain, other = (tmp_path / f"{name}{suffix}" for name in ("plain", "theirs"))
            assert plain.read_bytes() == other.read_bytes(), (stem, suffix)


@pytest.mark.parametrize("command", [["schema"], ["validate", str(TINY)], ["plan", str(TINY)]])
def test_a_reader_may_stop_reading(command: list[str]) -> None:
    """`make plan | head -1` ends without an error."""
    reader, writer = os.pipe()
    os.close(reader)
    run = [sys.executable, "-m", "sgm", *command]
    with open(writer, "wb") as pipe:  # noqa: PTH123
        finished = subprocess.run(run, stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--spec", ""], "data: --spec = '': must be JSON"),
        (["--spec", "[]"], "data: --spec = '[]': must be a JSON object"),
        (["--spec", "{}", "--output", "a.npz"], "data: --input, --output = 'a.npz': must be"),
    ],
)
def test_a_job_refuses_a_broken_command_line_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_a_job_starts_without_what_it_may_not_need() -> None:
    """Each job of a study pays for the imports of its command line, and of its target."""
    slow = ["torch", "xarray", "pandas", "matplotlib", "scipy", "sklearn", "pydantic", "snakemake"]
    script = (
        "import sys; import sgm.run.__main__; from sgm.targets import digits; digits(0.3); "
        "from sgm.registry import load_extension; load_extension('tests/data/extension.py'); "
        f"print(*set({slow}) & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_the_default_study_has_few_jobs(tmp_path: Path) -> None:
    """A job pays seconds of imports, and `make study` is to take less than a minute."""
    config = read_config(ROOT / "config/config.yaml")
    plan = Plan(Study.parse(config), tmp_path)
    assert {kind: len(plan.files(kind)) for kind in PATTERNS if kind not in OUTPUTS} == {
        "data": 4, "training": 4, "samples": 4, "divergences": 4, "bounds": 3, "exact": 3,
        "likelihood": 0, "floors": 4, "pictures": 4, "axes": 1, "reference": 0,
    }  # fmt: skip
