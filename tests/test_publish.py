"""Published studies: what is written, what is loaded and what is drawn is what has run."""

from __future__ import annotations

import gzip
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from PIL import Image

import sgm
from sgm import published
from sgm.cli import main
from sgm.report.source import of_published, of_results
from sgm.run.__main__ import main as run
from sgm.run.publish import publish
from sgm.store.grid import open_grid, zip_grid
from sgm.study import Plan, Study
from sgm.study.document import read_config
from tests.workflow import ROOT, run_jobs, tiny

pytestmark = pytest.mark.xdist_group("publish")  # one folder for all
STUDIES = published.studies()
PICTURES = {"schedules": ["beta_a=3"], "rows": 20, "times": [1.0, 0.0], "coordinates": [0, 1]}


def views(plan: Plan) -> None:
    """The grid, its figures and its tables, with their stamps."""
    store = f"{plan.root}/grid.zarr"
    files = {"grid": f"grid={store}"} | {x: f"{x}={plan.root}/{x}" for x in ("figures", "tables")}
    for view, output in files.items():
        words = ["--spec", plan.view_spec(view), "--input", f"grid={store}"]
        assert run([view, *words, "--output", output, f"stamp={plan.stamp(view)}"]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study has run and is published."""
    folder = tmp_path_factory.mktemp("checkout")
    config = tiny(pictures=PICTURES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        Path("study.yaml").write_text(yaml.safe_dump(config))
        plan = Plan(Study.parse(config), Path("results/tiny"))
        run_jobs(plan)
        views(plan)
        assert main(["publish", "study.yaml", "--folder", "published"]) == 0
    return folder


def test_the_published_grid_is_the_studys(folder: Path) -> None:
    own = open_grid(folder / "results/tiny/grid.zarr")
    loaded = sgm.load_published("tiny", folder / "published")
    xr.testing.assert_identical(loaded, own)
    assert loaded.attrs["stored_sha256"] == own.attrs["stored_sha256"]
    for name in own.variables:
        assert loaded[name].dtype == own[name].dtype, name
    assert (folder / "published/tiny/config.yaml").read_text() == (
        folder / "study.yaml"
    ).read_text()


def test_the_same_study_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    copy = shutil.copytree("results/tiny/grid.zarr", tmp_path / "copy")  # of another date
    zip_grid(copy, tmp_path / "grid.zip")
    first = published.checksums("tiny", "published")
    assert (tmp_path / "grid.zip").read_bytes() == Path(
        "published/tiny", published.GRID
    ).read_bytes()
    publish(Path("study.yaml"), tmp_path)
    again = published.checksums("tiny", tmp_path)
    assert first.keys() == again.keys()
    assert {name for name in first if first[name] != again[name]} <= {"provenance.json"}


def test_large_tables_are_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    sizes = {path.name: path.stat().st_size for path in Path("results/tiny/tables").iterdir()}
    del sizes["summary.csv"]  # left out whatever its size
    most = sorted(sizes.values())[len(sizes) // 2]
    monkeypatch.setattr("sgm.run.publish.LARGEST", most)
    publish(Path("study.yaml"), tmp_path)
    kept = {path.name for path in (tmp_path / "tiny/tables").iterdir()}
    assert kept == {name for name, size in sizes.items() if size <= most} < set(sizes)


def test_tables_of_some_size_are_compressed_and_read_as_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sgm.run.publish.COMPRESSED", 0)
    publish(Path("study.yaml"), tmp_path)
    own, packed = Path("results/tiny/tables"), tmp_path / "tiny/tables"
    names = {f"{path.name}.gz" for path in own.iterdir()} - {"summary.csv.gz"}
    assert {path.name for path in packed.iterdir()} == names
    for name in names:
        assert gzip.decompress((packed / name).read_bytes()) == (own / name[:-3]).read_bytes()
    monkeypatch.setattr("sgm.report.source.TABLES", {})  # none is made anew from the grid
    plain, small = of_results(Path("results/tiny")), of_published("tiny", tmp_path)
    pd.testing.assert_frame_equal(plain.table("ranking"), small.table("ranking"))


def test_the_figures_are_drawn_as_the_workflow_drew_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    own, drawn = Path("results/tiny/figures"), Path("results/published/tiny/figures")
    words = ["study.yaml", "--folder", "published", "--formats", "png", "pdf", "--cores", "1"]
    assert main(["figures", *words]) == 0
    files, again = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (own, drawn)
    )
    assert again == files
    assert Path("samples/isotropic.png") in files  # drawn from a group of the grid
    assert str(drawn.parent) in capsys.readouterr().out


def test_what_figures_have_on_the_x_axis_can_be_chosen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["figures", "study.yaml", "--folder", "published", "--cores", "1", "--x"]
    drawn = Path("results/published/tiny/figures/kl/isotropic.csv")
    drawn.unlink(missing_ok=True)
    assert main([*words, "eta"]) == 1
    assert not drawn.exists()  # nothing is drawn before it is refused
    assert "x = 'eta': must be a number that varies in the grid, a" in capsys.readouterr().err
    assert main([*words, "a"]) == 0
    assert drawn.read_bytes() == Path("results/tiny/figures/kl/isotropic.csv").read_bytes()


def test_the_published_figures_look_like_the_workflows(folder: Path) -> None:
    figures = list(folder.glob("published/tiny/figures/**/*.png"))
    assert len(figures) > 3
    for path in figures:
        own = folder / "results/tiny" / path.relative_to(folder / "published/tiny")
        small, full = Image.open(path).convert("RGB"), Image.open(own).convert("RGB").reduce(2)
        assert small.size == full.size
        away = np.abs(np.asarray(small, float) - np.asarray(full, float))  # of 255
        assert away.mean() < 1, path
        assert away.max() < 50, path
        assert path.stat().st_size < own.stat().st_size / 5


@pytest.mark.parametrize("harm", ["damaged", "missing", "unknown", "not listed", "outside"])
def test_what_is_not_as_published_is_refused_by_name(
    folder: Path, tmp_path: Path, harm: str
) -> None:
    shutil.copytree(folder / "published", tmp_path / "published")
    grid = tmp_path / "published/tiny" / published.GRID
    name, says = "tiny", f"{grid}: "
    if harm == "damaged":
        content = bytearray(grid.read_bytes())
        content[len(content) // 2] ^= 1
        grid.write_bytes(content)
    elif harm == "missing":
        grid.unlink()
    elif harm == "not listed":
        (grid.parent / published.SUMS).write_text("")
    elif harm == "outside":
        (grid.parent / published.SUMS).write_text(f"{'0' * 64}  figures/../../x.png\n")
        says = f"{grid.parent / published.SUMS}: .* a path below the folder"
    else:
        name, says = "tyni", "study = 'tyni': must be one of those in .*, tiny"
    with pytest.raises(ValueError, match=says) as refused:
        sgm.load_published(name, tmp_path / "published")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("cell", "exact 1 of 1 files new"),
        ("config", "bounds 2 of 2 files stale"),
        ("figure", "to be made: figures"),
        ("stamp", "to be made: tables"),
    ],
)
def test_a_study_that_has_not_run_to_its_end_is_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: str,
    says: str,
) -> None:
    root = shutil.copytree(folder / "results", tmp_path / "results") / "tiny"
    monkeypatch.chdir(tmp_path)
    config = tiny(pictures=PICTURES, **({"n_score_error": 30} if harm == "config" else {}))
    Path("study.yaml").write_text(yaml.safe_dump(config))
    if harm == "cell":
        (root / "cells/exact/isotropic.npz").unlink()
    if harm == "figure":
        (root / "figures/schedules.png").write_bytes(b"")
    if harm == "stamp":
        (root / "views/tables.json").unlink()
    assert main(["publish", "study.yaml", "--folder", "published"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "study = 'tiny'" in line
    assert says in line
    assert not Path("published").exists()


def test_nothing_but_a_published_study_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["publish", "study.yaml", "--folder", "results"]) == 1
    assert "folder = 'results'" in capsys.readouterr().err
    assert Path("results/tiny/grid.zarr").exists()


def test_the_package_stays_cheap_to_import() -> None:
    code = "import sgm, sys; print({'numpy', 'xarray', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- the studies that are published -----------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_a_published_study_is_whole(study: str) -> None:
    root = published.PUBLISHED / study
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert files - {published.SUMS} == published.checksums(study).keys()
    for name in published.checksums(study):
        published.verified(study, name)
    grid = sgm.load_published(study)
    assert grid.attrs["study"] == study
    ran = Study.parse(yaml.safe_load((root / "config.yaml").read_text()))
    assert ran == Study.parse(read_config(ROOT / f"config/studies/{study}.yaml"))


def redrawn(study: str, folder: Path) -> set[str]:
    assert main(["figures", study, "--folder", str(folder), "--cores", "1"]) == 0
    root = Path("results/published", study)
    return {path.relative_to(root).as_posix() for path in root.rglob("*.png")}


def test_a_published_study_is_drawn_without_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its figures, and all others of its folder in the next test."""
    monkeypatch.chdir(tmp_path)
    own = shutil.copytree(published.PUBLISHED / "exact-kl", tmp_path / "some/exact-kl")
    chosen = {"figures/kl/correlated.png", "figures/schedules.png"}
    sums = published.checksums("exact-kl")
    lines = [f"{sums[name]}  {name}\n" for name in (published.GRID, *sorted(chosen))]
    (own / published.SUMS).write_text("".join(lines))
    assert redrawn("exact-kl", tmp_path / "some") == chosen


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_published_figure_can_be_drawn(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    figures = {name for name in published.checksums(study) if name.startswith("figures/")}
    assert redrawn(study, published.PUBLISHED) == figures


def test_the_slides_stand_beside_the_published_numbers() -> None:
    """The tables of docs/reproduce.md are what docs/slides.py makes of published/ today."""
    slides = runpy.run_path(str(ROOT / "docs/slides.py"))
    frames = slides["published"]()
    assert slides["tables"](frames) in (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    assert len(slides["draw"](frames).axes) == len(frames) > 0


def test_the_published_studies_stay_small() -> None:
    assert len(STUDIES) > 1
    files = [path for path in published.PUBLISHED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
