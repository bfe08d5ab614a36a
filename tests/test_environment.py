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
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sgm
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
    dev = closure(project["optional-dependencies"]["dev"])
    assert locked("requirements-dev.txt") == dev - needed
    docs = closure(project["optional-dependencies"]["docs"])
    assert locked("requirements-docs.txt") == docs - needed
    pins: dict[str, str] = {}
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            name, _, version = line.partition("==")
            assert pins.setdefault(name, version) == version, (path, line)


def test_all_version_numbers_agree() -> None:
    """Of the package, its metadata, the citation and the newest heading of the changelog."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["tool"]["hatch"]["version"] == {"path": "sgm/__init__.py"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    (newest, *older) = re.findall(r"^## (\d+\.\d+\.\d+)", changes, flags=re.MULTILINE)
    assert sgm.__version__ == cited == newest
    order = [tuple(map(int, version.split("."))) for version in (newest, *older)]
    assert order == sorted(set(order), reverse=True)


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    rule = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert rule is not None
    return [line.lstrip("\t@") for line in rule[1].splitlines()]


def test_hooks_are_the_checks_of_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert hooks == recipe("lint")


def test_hooks_are_installed(tmp_path: Path) -> None:
    """By the line of CONTRIBUTING; and one that fails stops a commit."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    command = [".venv/bin/pre-commit", "install"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "sgm").mkdir()
    (tmp_path / "sgm/wrong.py").write_text("import os\n")
    subprocess.run(["git", "add", "sgm", ".pre-commit-config.yaml"], cwd=tmp_path, check=True)
    environment = os.environ | {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "SKIP": "mypy"}
    committed = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-m", "x"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert committed.returncode != 0
    assert "F401" in committed.stdout + committed.stderr


def test_hosted_ci_runs_ours() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in steps
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_issue_templates_are_forms() -> None:
    paths = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(paths) > 2
    for path in paths:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys(), path
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids) > 2, path
        assert all(part["attributes"]["label"] for part in form["body"]), path


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
        "likelihood": 0, "floors": 4, "pictures": 4, "axes": 1, "reference": 0, "learned": 0,
        "priors": 0,
    }  # fmt: skip
