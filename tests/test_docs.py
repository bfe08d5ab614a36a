"""Everything in README and docs that can run, runs; every name that they give exists."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import pytest
import xarray as xr
import yaml
from pydantic import BaseModel
from safetensors.torch import save_file

import sgm
from sgm import registry
from sgm.cli import main
from sgm.gather import gather
from sgm.ranking import ranking_table
from sgm.registry import families
from sgm.run.check import check
from sgm.run.jobs import views
from sgm.run.properties import examine
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study
from sgm.study.document import read_config
from sgm.study.families import Figures, MLPRecipe, Schedule, model_of
from sgm.study.variables import CURVES, EXACT_LAW, TRAINING
from tests.grids import synthetic_grid
from tests.workflow import ROOT, run_jobs, tiny

WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs/questions").glob("*.md"),
]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in WRITTEN}
TEXTS = {page: path.read_text() for page, path in PAGES.items()}


class Block(NamedTuple):
    """A fenced block: its language, the heading above it, its text."""

    language: str
    heading: str
    text: str


def blocks(page: str, *languages: str) -> list[Block]:
    found = re.split(r"^```(\w*)\n(.*?)^```\n?", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    own, heading = [], ""
    for prose, language, text in zip(found[::3], found[1::3], found[2::3], strict=False):
        heading = (re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE) or [heading])[-1]
        own.append(Block(language, heading, text))
    return [block for block in own if block.language in languages]


def one(page: str, language: str, heading: str) -> str:
    (found,) = [block.text for block in blocks(page, language) if block.heading == heading]
    return found


def matches(pattern: str) -> list[Any]:
    """The pages and what a pattern finds in their prose."""
    prose = {p: re.sub(r"^```.*?^```", "", text, flags=re.M | re.S) for p, text in TEXTS.items()}
    return sorted({(page, hit) for page in prose for hit in re.findall(pattern, prose[page])})


# --- Python and YAML -------------------------------------------------------------------

EXTENSION = ("Extend", "A schedule", "A target", "A sampler", "A score", "A bound", "A divergence",
             "A network", "A time grid")  # fmt: skip
ALONE = {
    ("README.md", "Two commands"),
    ("README.md", "Without running anything"),
    ("README.md", "In Python"),
    ("docs/extend.md", "The grid in a notebook"),
    ("docs/extend.md", "Exact mode, without a workflow"),
    ("docs/extend.md", "One job by hand"),
    ("docs/kinetic.md", "Schemes"),
    ("docs/schedules.md", "A schedule from a file"),
    ("docs/start.md", "Look at it"),
    ("docs/start.md", "One number"),
    ("docs/debug.md", "Which, and why"),
    ("docs/questions/covariance.md", "Which schedule for my covariance?"),
    ("docs/questions/my-own.md", "My own schedule, target, sampler, bound, network"),
    ("docs/questions/papers-figure.md", "Is the paper's figure right?"),
}
PARSED = {
    ("docs/config.md", "The config of a study"),
    ("docs/extend.md", "The config"),
    ("docs/extend.md", "Images in a folder"),
    ("docs/extend.md", "Choose a network"),
    ("docs/extend.md", "A network of your own"),
    ("docs/cluster.md", "Slurm"),
    ("docs/schedules.md", "One network for all schedules"),
    ("docs/objectives.md", "The losses"),
    ("docs/controlled.md", "A posterior as a target"),
    ("docs/controlled.md", "Particles"),
    ("docs/controlled.md", "Networks that know classes"),
    ("docs/metrics.md", "Scores learnt from rows"),
    ("docs/metrics.md", "Where the backward process starts: `priors`"),
}


def test_no_block_is_left_out() -> None:
    python = {(page, block.heading) for page in TEXTS for block in blocks(page, "python")}
    assert python == ALONE | {("docs/extend.md", heading) for heading in EXTENSION}
    parsed = {(page, block.heading) for page in TEXTS for block in blocks(page, "yaml")}
    assert parsed == PARSED
    others = {block.language for page in TEXTS for block in blocks(page, "", "bash", "sh")}
    assert others == {"", "bash", "sh"}  # "": the drawing of the floors, which is no code
    every = sum(text.count("\n```") for text in TEXTS.values())
    assert every == 2 * sum(len(blocks(p, "python", "yaml", "bash", "sh", "")) for p in TEXTS)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config of docs/extend.md, in a folder with it and `mine.py`."""
    monkeypatch.chdir(tmp_path)
    code = [b.text for b in blocks("docs/extend.md", "python") if b.heading in EXTENSION]
    Path("mine.py").write_text("\n\n".join(code))
    config = one("docs/extend.md", "yaml", "The config")
    Path("mine.yaml").write_text(config)
    return yaml.safe_load(config)


def test_the_users_families_are_checked(
    mine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every family of `mine.py` has the properties of its kind, as `make check` says."""
    axes = ("targets", "schedules", "scores", "samplers", "time_grids", "divergences", "bounds")
    study = Study.parse(mine)
    items = [item for axis in axes for item in getattr(study, axis)]
    own = [item for item in items if item.entry.build.startswith("mine.py:")]
    assert {item.family for item in own} == set(
        re.findall(r"^@register.*?^(?:def|class) (\w+)", Path("mine.py").read_text(), re.M | re.S)
    )
    for item in own:
        found = list(examine(item, n_cells=100))
        assert not [finding for finding in found if finding.verdict == "fails"], item.label
        assert sum(finding.verdict == "holds" for finding in found) > 3, item.label
    for line in SHELL["tests/test_docs.py::test_the_users_families_are_checked"]:
        # what make would run, in this process: imports take longer than the properties
        words = ["make", "-n", "-f", f"{ROOT}/Makefile", "-o", ".venv/run.stamp"]
        words += shlex.split(line)[1:]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        python, module, package, *command = shlex.split(told.replace("\\\n", " "))
        assert [python, module, package] == ["python", "-m", "sgm"]
        capsys.readouterr()
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "  holds  " in shown
        assert " 0 fail, " in shown


def test_the_users_file_of_every_family_runs(mine: dict[str, Any]) -> None:
    """`mine.py` and its study, as docs/extend.md has them: all jobs, the grid and the figures."""
    check(Study.parse(mine))
    # of two values of a parameter one is run: that both are cells, the plan says
    power, exponential = mine["schedules"]
    uniform, polynomial = mine["time_grids"]
    config = mine | {
        "schedules": [power | {"exponent": [2]}, exponential],
        "time_grids": [uniform, polynomial | {"exponent": [2]}],
    }
    whole, study = (Study.parse(told) for told in (mine, config))
    for axis in ("schedules", "time_grids"):
        assert {i.label for i in getattr(study, axis)} < {i.label for i in getattr(whole, axis)}
    plan = Plan(study, Path("results/mine"))
    run_jobs(plan)
    store = {"grid": plan.root / "grid.zarr", "stamp": Path(plan.stamp("grid"))}
    views.grid({"config": config, "root": str(plan.root)}, {}, store)
    grid = open_grid(store["grid"])
    assert grid.attrs["failures"] == "[]"
    own = grid.sel(target="equicorrelated", sampler="probability_flow_exponential")
    assert np.isfinite(own.kl_exact.sel(score="floored_least=0.6", time_grid="uniform")).all()
    remembers = grid.sel(target="equicorrelated", sampler="adams_bashforth", time_grid="uniform")
    closer = remembers.kl_exact.sel(score="exact") < own.kl_exact.sel(
        score="exact", time_grid="uniform"
    )
    assert closer.all()  # of second order, at as many evaluations
    assert (remembers.nfe == 20).all()
    assert np.isfinite(own.kl_terminal_log_sobolev).all()
    assert (own.kl_terminal_log_sobolev >= own.kl_terminal).all()
    theorem = grid.kl_terminal_log_sobolev_applicable
    assert (theorem == (grid.target == "equicorrelated")).all()
    assert np.isfinite(own.mean_gap_exact.sel(score=["exact", "floored_least=0.6"])).all()
    fitted = own.kl_learned.sel(score="shrunk_weight=0.1", time_grid="uniform")
    assert np.isfinite(fitted).all()
    assert np.isnan(grid.mean_gap_exact.sel(target=["cross", "iris"])).all()
    learnt = grid.kurtosis_excess.sel(target="iris", score=["trained", "modulated"])
    assert np.isfinite(learnt).all()
    for stem in ("schedules", "kurtosis/iris", "mean_gap/equicorrelated"):
        views.figures({"stems": [stem]}, store, {"figures": Path("figures")})


def test_a_finished_model_is_read(mine: dict[str, Any]) -> None:
    """The builder of `mine.py`, with weights that were saved as the page says."""
    module = registry.load_extension("mine.py").modulated(4, width=32, layers=2)
    save_file(module.state_dict(), "model.safetensors")
    scores = yaml.safe_load(one("docs/extend.md", "yaml", "A network of your own"))["scores"]
    config = mine | {"scores": scores, "targets": mine["targets"][:1]}
    config["schedules"] = [{"family": "beta_a", "a": 0, "beta_min": 0.1, "beta_max": 19.0}]
    config["time_grids"] = ["uniform"]
    check(Study.parse(config))


@pytest.fixture(scope="module")
def default_grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that has the labels of the default study."""
    folder = tmp_path_factory.mktemp("default")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    plan = Plan(Study.parse(config), folder)
    labels = {"score": ["exact", "explicit"], "sampler": ["exponential_integrator_modified"]}
    grid = synthetic_grid(a=[-10, 0, 5, 10], targets=["isotropic", "correlated"], n_steps=[100])
    grid = grid.assign_coords(labels)
    for axis in ("target", "schedule", "score", "sampler", "time_grid"):
        assert set(grid[axis].values.tolist()) <= set(plan.axes[axis]), axis
    texts = [name for name, values in grid.coords.items() if values.dtype.kind in "OU"]
    grid = grid.assign_coords({name: grid[name].astype(object) for name in texts})
    write_grid(grid.assign_attrs(failures="[]"), folder / "grid.zarr")
    return folder / "grid.zarr"


@pytest.fixture
def default_study(default_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the default study's config, and a grid that has its labels."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    shutil.copytree(default_grid, "results/quick/grid.zarr")
    return tmp_path


@pytest.mark.parametrize(("page", "heading"), sorted(ALONE))
def test_a_block_of_python_runs(default_study: Path, page: str, heading: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(one(page, "python", heading), f"{page}: {heading}", "exec"), namespace)
    if "curve" in namespace:
        import matplotlib.pyplot as plt

        plt.close("all")


def test_the_floor_hides_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = "docs/questions/papers-figure.md"
    exec(one(page, "python", "Is the paper's figure right?"), {})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("   0:")]
    kl, shown = (float(re.findall(rf"{word} ([\d.]+)", line)[0]) for word in ("KL", "shown"))
    said = re.findall(r"At a = 0 the KL is ([\d.]+), and the figure shows ([\d.]+)\.", TEXTS[page])
    assert said == [(f"{kl:.4f}", f"{shown:.3f}")]


def test_grids_read_as_the_readme_says_can_be_joined(default_study: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(one("README.md", "python", "Two commands"), namespace)
    grid = namespace["grid"]
    again = grid.assign_coords(schedule=[f"{name}-again" for name in grid.schedule.values])
    both = xr.merge([grid, again], join="outer", compat="no_conflicts")
    assert both.sizes["schedule"] == 2 * grid.sizes["schedule"]
    xr.testing.assert_equal(both.kl_plugin.sel(schedule=grid.schedule), grid.kl_plugin)


def test_fragments_of_configs_are_valid() -> None:
    config = yaml.safe_load(one("docs/config.md", "yaml", "The config of a study"))
    check(Study.parse(config))
    for heading in ("Scores learnt from rows", "Where the backward process starts: `priors`"):
        check(Study.parse(config | yaml.safe_load(one("docs/metrics.md", "yaml", heading))))
    controlled = {}
    for heading in ("A posterior as a target", "Particles"):
        controlled |= yaml.safe_load(one("docs/controlled.md", "yaml", heading))
        check(Study.parse(config | controlled | {"bounds": []}))
    images = yaml.safe_load(one("docs/extend.md", "yaml", "Images in a folder"))["targets"]
    Study.parse(tiny(targets=images))
    fragment = yaml.safe_load(one("docs/extend.md", "yaml", "Choose a network"))["recipe"]
    (trained,) = [score for score in tiny()["scores"] if score["family"] == "trained"]
    rest = {key: value for key, value in trained["recipe"].items() if key != "width"}
    scores = [{"family": "trained", "recipe": rest | fragment}]
    check(Study.parse(tiny(targets=images[:1], scores=scores, bounds=[])))
    one_time = yaml.safe_load(one("docs/objectives.md", "yaml", "The losses"))
    check(Study.parse(tiny(bounds=[], **one_time)))


def told(model: type[BaseModel]) -> list[str]:
    """The rows of the table of a model's keys, as they must stand on the page."""
    rows = []
    for key, field in model.model_fields.items():
        value = field.default
        value = value.model_dump() if isinstance(value, BaseModel) else value
        text = "required" if field.is_required() else f"`{json.dumps(value)}`"
        text = text.replace('"', "").replace("1e-05", "0.00001")
        rows.append(f"| `{key}` | {text} | {field.description} |")
    return rows


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Keys", Study), ("Keys of a recipe", MLPRecipe), ("Keys of figures", Figures)],
)
def test_every_key_stands_with_its_default_on_its_page(
    heading: str, model: type[BaseModel]
) -> None:
    section = TEXTS["docs/config.md"].split(f"## {heading}\n")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == told(model)


# --- the shell -------------------------------------------------------------------------

#: What runs each line of a block of shell: a script or a test.
SHELL = {
    ".ci/run": [
        "make study",
        "make test",
        "make figures STUDY=exact-kl",
        "make report",
        "make report STUDY=exact-kl",
        "make reports",
        "make check NAME=cosine KIND=schedule PARAMETERS='offset: 0.008, clip: 20'",
        "make schedule TARGET=correlated N=20 SAMPLER=ancestral",
        "make docs",
    ],
    "tests/test_environment.py::test_hooks_are_installed": [
        ".venv/bin/pre-commit install",
    ],
    "tests/test_docs.py::test_the_users_families_are_checked": [
        "make check NAME=power FILE=mine.py PARAMETERS='exponent: 2, beta_min: 0.1, beta_max: 20'",
        "make check NAME=kurtosis STUDY=mine.yaml",
    ],
    "tests/test_run_schedule.py::test_the_documented_commands_run": [
        "sgm schedule --data mine.csv --steps 20 --objective w2",
    ],
    "tests/slurm/test_slurm.py::test_the_numbers_are_those_of_a_local_run": [
        "make study STUDY=config/studies/paper-kl.yaml PROFILE=profiles/slurm",
        "SNAKEMAKE_PROFILE=site make study PROFILE=profiles/slurm",
    ],
    "tests/slurm/test_slurm.py::test_a_stopped_snakemake_loses_and_doubles_nothing": [
        "snakemake --workflow-profile profiles/slurm --configfile STUDY --unlock",
    ],
    "tests/test_docs.py::test_a_config_of_someone_elses_is_checked": [
        "sgm validate someones.yaml",
    ],
    "tests/test_wheel.py::test_a_study_runs_without_a_checkout": [
        "pip wheel --no-deps --wheel-dir dist .",
        "pip install dist/sgm_workbench-*.whl",
        "sgm study mine.yaml --cores 2",
        "sgm plan mine.yaml",
    ],
    "tests/test_docs.py::test_benchmarks_take_their_options": [
        "python benchmarks/recipes.py --objectives explicit",
        "python benchmarks/recipes.py --objectives denoising",
        "python benchmarks/sampling.py --repeats 3",
        "python benchmarks/score_error.py",
        "python benchmarks/training.py",
        "python benchmarks/exact_laws.py",
        "python benchmarks/figure.py",
        "python benchmarks/beyond_gaussian.py",
        "python benchmarks/scaling.py --figure docs/figures/scaling.png",
    ],
}


def shell_lines() -> Iterator[str]:
    for page in TEXTS:
        for block in blocks(page, "sh", "bash"):
            yield from (line.split("#")[0].strip() for line in block.text.splitlines())


def test_every_line_of_the_shell_is_run_somewhere() -> None:
    assert set(shell_lines()) == {line for lines in SHELL.values() for line in lines}
    for where, lines in SHELL.items():
        path, _, name = where.partition("::")
        text = (ROOT / path).read_text()
        assert f"def {name}(" in text if name else all(f"\n{line}\n" in text for line in lines)


def test_a_config_of_someone_elses_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "someones.yaml"
    path.write_text(yaml.safe_dump(tiny()))
    command = [sys.executable, "-m", "sgm", "validate", "someones.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("line", SHELL["tests/test_docs.py::test_benchmarks_take_their_options"])
def test_benchmarks_take_their_options(line: str) -> None:
    """Run to the end they take hours; `--help` behind the options imports and parses them."""
    words = [sys.executable, *shlex.split(line)[1:], "--help"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)


INLINE = {line for _, line in matches(r"`((?:snakemake|python) [^`…]*)`")}


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted(line for line in INLINE if line.startswith("snakemake")))
def test_a_line_of_snakemake_is_understood(line: str, default_study: Path) -> None:
    command = [sys.executable, "-m", *shlex.split(line), "--directory", str(default_study)]
    command.append("--dry-run")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def test_a_job_by_hand_on_the_command_line(default_study: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(one("docs/extend.md", "python", "One job by hand"), namespace)
    own = Path("data.npz").rename("own.npz")
    (line,) = [line for line in INLINE if line.startswith("python -m sgm.run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SPEC": namespace["spec"]}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(line, shell=True, env=environment, check=True)
    assert Path("data.npz").read_bytes() == own.read_bytes()


def test_the_optimal_schedule_is_the_file_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(one("docs/schedules.md", "python", "A schedule from a file"), namespace)
    assert namespace["best"].fun == pytest.approx(0.0821, abs=1e-4)
    shipped = ROOT / "config/studies/schedules/optimal-isotropic-20.csv"
    own, theirs = (np.loadtxt(p, delimiter=",", skiprows=1) for p in ("optimal.csv", shipped))
    np.testing.assert_allclose(own, theirs, rtol=0.01)  # the minimum is flat


def test_every_schedule_stands_in_its_table() -> None:
    """By name, with its parameters; those that may be a list in bold."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TEXTS["docs/schedules.md"], flags=re.M)
    own = {name: entry for name, entry in families("schedule").items() if ".py" not in entry.build}
    assert dict(rows).keys() == own.keys()
    for name, text in rows:
        parameters = model_of(own[name])
        said = [part.split()[0] for part in text.split(", ")]
        fields = [key for key in parameters.model_fields if key not in Schedule.model_fields]
        bold = [f"**{key}**" if key in parameters.axes else key for key in fields]
        assert sorted(said) == sorted(bold), name


# --- names -----------------------------------------------------------------------------


def test_the_tables_of_which_schedule_are_those_of_the_published_study() -> None:
    page = TEXTS["docs/which-schedule.md"]
    assert page.count("| correlated | 20 |") == 2
    assert runpy.run_path(str(ROOT / "docs/which_schedule.py"))["page"](page) == page


def test_the_rates_of_bounds_are_those_of_the_published_study() -> None:
    rows = list(runpy.run_path(str(ROOT / "docs/bounds.py"))["rates"]())
    assert "\n".join(rows) in TEXTS["docs/bounds.md"]
    assert len(rows) == 9


@pytest.mark.slow
def test_the_bound_for_mixtures_is_that_of_its_table() -> None:
    rows = list(runpy.run_path(str(ROOT / "docs/bounds.py"))["mixtures"]())
    assert "\n".join(rows) in TEXTS["docs/bounds.md"]
    assert len(rows) == 8


def test_targets_of_make_exist() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = matches(r"`make ([a-z-]+)")
    assert {name for _, name in named} <= set(targets), named


def test_studies_and_their_figures_exist() -> None:
    """Each row of a table that names a study's command and a file that it makes."""
    rows = [row for text in TEXTS.values() for row in text.splitlines() if row.startswith("| ")]
    seen = 0
    for row in rows:
        for name in re.findall(r"`(?:config/)?(studies/[\w-]+\.yaml|config\.yaml)", row):
            assert (ROOT / "config" / name).exists(), name
        found = re.search(r"`make study(?: STUDY=(\S+?))?`", row)
        figure = re.search(r"results/([\w-]+)/figures/([^`…]+\.png|[^`…]+)`", row)
        if found and figure:
            path = ROOT / (found[1] or "config/config.yaml")
            study = Study.parse(read_config(path))
            assert figure[1] == study.study, row
            stems = [f"{stem}.png" for stem in Plan(study, Path("none")).figures()]
            head, brace, rest = figure[2].partition("{")
            names, _, tail = rest.partition("}")
            for name in names.split(",") if brace else [""]:
                assert fnmatch.filter(stems, f"{head}{name}{tail}".rstrip("*") + "*"), row
            seen += 1
    assert seen > 10


def test_names_of_the_code_exist() -> None:
    for page, name in matches(r"`(sgm(?:\.\w+)+)"):
        module, attributes = name, list[str]()
        while True:
            try:
                found = importlib.import_module(module)
                break
            except ModuleNotFoundError:
                module, _, attribute = module.rpartition(".")
                attributes.insert(0, attribute)
                assert module, (page, name)
        for attribute in attributes:
            assert hasattr(found, attribute), (page, name)
            found = getattr(found, attribute)


def test_files_and_tests_that_are_named_exist() -> None:
    for page, link in matches(r"\]\(([^)#:]+)\)"):
        assert (PAGES[page].parent / link).exists(), (page, link)
    for page, path in matches(
        r"`((?:sgm|tests|config|profiles|benchmarks|docs|workflow)/[\w./-]+)`"
    ):
        assert (ROOT / path).exists(), (page, path)
    for page, (module, name) in matches(r"`(test_\w+)::(test_\w+)`"):
        assert f"def {name}(" in (ROOT / f"tests/{module}.py").read_text(), (page, module, name)


def test_modules_that_the_package_names_exist() -> None:
    names = re.findall(r"`(\w+)`", sgm.__doc__ or "")
    assert len(names) > 8
    for name in names:
        importlib.import_module(f"sgm.{name}")


def test_every_bound_and_every_objection_stand_on_their_page() -> None:
    """A row a total, and below it all objections of its family, as the code words them."""
    page = TEXTS["docs/bounds.md"]
    totals, judged = set(), {}
    for entry in families("bound").values():
        if not entry.build.startswith("sgm."):
            continue
        assert entry.objection is not None
        for total in (v for v in entry.variables if v.about.get("role") == "bound"):
            totals |= {total.name, *total.about.get("refined", "").split()}
            judged[total.name] = get_type_hints(entry.objection)["return"]
    theorems, objections = page.split("## What an objection means")
    assert set(re.findall(r"^\| `(\w+)` \|", theorems, flags=re.M)) == totals
    rows = re.findall(r"^\|([^|]*)\| (\d) \| ([^|]*) \|$", objections, flags=re.M)
    said: dict[str, dict[int, str]] = {}
    names: list[str] = []
    for first, code, reason in rows:
        names = re.findall(r"`(\w+)`", first) or names
        for name in names:
            said.setdefault(name, {})[int(code)] = reason
    assert said == {name: {int(c): c.reason for c in kind if c} for name, kind in judged.items()}


def test_the_ratios_on_the_page_of_bounds_are_those_of_the_papers_cells(tmp_path: Path) -> None:
    """Four Gaussians of d = 50, the exact score, N = 500, where the total is a theorem."""
    gaussian = {"dimension": 50, "mean": 1.0}
    config = {
        "study": "ratios",
        "seeds": 1,
        "schedules": [
            {"family": "beta_a", "a": [-10, 0, 5, 10], "beta_min": 0.1, "beta_max": 20.0}
        ],
        "targets": [
            {"family": "isotropic", "variance": 0.5, **gaussian},
            {"family": "heteroscedastic_blocks", **gaussian},
            {"family": "correlated", "offset": 1.0, **gaussian},
            {"family": "heteroscedastic_slides", **gaussian},
        ],
        "scores": [{"family": "exact", "sampled": False}],
        "samplers": ["exponential_integrator_modified", "ddim"],
        "divergences": ["gaussian_kl", "gaussian_w2"],
        "bounds": ["kl", "kl_conforti", "w2", "w2_one_step", "w2_brosse_dalalyan"],
    }
    plan = Plan(Study.parse(config), tmp_path)
    run_jobs(plan)
    rows = ranking_table(gather(plan, {})).query("covered and varies == 'schedule'")
    ddim = rows["sampler"] == "ddim_eta=0"
    rows = rows[ddim == (rows["bound"] == "w2_brosse_dalalyan")]
    found = rows.groupby("bound").agg({"ratio_min": "min", "ratio_max": "max"})
    said = re.findall(
        r"^\| `(\w+)` \|.*\| ([\d.,e]+) to ([\d.,e]+) \|$", TEXTS["docs/bounds.md"], flags=re.M
    )
    assert len(said) == 9
    for bound, *ends in said:
        ratios = [float(end.replace(",", "")) for end in ends]
        np.testing.assert_allclose(found.loc[bound], ratios, rtol=0.05, err_msg=bound)


def test_variables_that_the_metrics_page_explains_exist() -> None:
    """The first column of each table that starts with names of variables."""
    known = {variable.name for variable in (*EXACT_LAW, *TRAINING, *CURVES)}
    for path in (ROOT / "config").rglob("*.yaml"):
        known |= Plan(Study.parse(read_config(path)), Path("none")).variables.keys()
    text = TEXTS["docs/metrics.md"]
    tables = "".join(re.findall(r"^\| variable \|.*?\n\n", text, flags=re.MULTILINE | re.DOTALL))
    rows = re.findall(r"^\| (`[a-z].*?) \|", tables, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z]\w+)`", row)}
    assert len(named) > 25
    assert named <= known, named - known
