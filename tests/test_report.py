"""The report of a study: its numbers, its words, and that nothing of a study gets out of them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import sgm
from sgm import published
from sgm.cli import main
from sgm.report import Source, of_published, of_results, report_page, write_index, write_report
from sgm.report.figures import kinds, picture_bytes
from sgm.report.page import summary_of
from sgm.report.table import table_of_cells
from sgm.run.report import report
from sgm.store import FAILED
from sgm.store.grid import write_grid
from sgm.study import Plan, Study
from sgm.study.document import read_config
from tests.grids import NOT_APPLICABLE, synthetic_grid
from tests.workflow import ROOT

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'&"


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.raw.append((self._open, data))
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def source_of(grid: xr.Dataset, folder: Path, study: str = "synthetic") -> Source:
    texts = [name for name, values in grid.coords.items() if values.dtype.kind in "OU"]
    grid = grid.assign_coords({name: grid[name].astype(object) for name in texts})
    return Source(study, grid, folder, "sgm.open_grid('x')", "'x'", "make study", "Again:")


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="cells">(.*?)</script>', page)
    return dict(json.loads(text))


def rows_of(data: dict[str, Any]) -> list[dict[str, str]]:
    columns = {c["title"]: [c["texts"][code] for code in c["codes"]] for c in data["columns"]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def comparison() -> str:
    return report_page(of_published("comparison"))


# --- numbers -----------------------------------------------------------------------------


def test_the_table_holds_the_numbers_of_the_grid(comparison: str) -> None:
    grid, rows = sgm.load_published("comparison"), rows_of(data_of(comparison))
    label = "KL(data ‖ generated), by moments"
    place = {"target": "correlated", "schedule": "beta_a=3"}
    (row,) = [
        r for r in rows
        if all(r[k] == v for k, v in place.items())
        and r["divergence"] == label and r["score"] == "explicit"
    ]  # fmt: skip
    here = grid.sel(score="explicit", **place).squeeze()
    runs = here.kl_coupled.values
    error = runs.std(ddof=1) / np.sqrt(len(runs))
    assert float(row["error"]) == pytest.approx(runs.mean(), abs=0.15 * error)
    assert float(row["standard error"]) == pytest.approx(error, rel=0.05)
    best = grid.kl_coupled.sel(score="explicit", target="correlated").squeeze().mean("seed").min()
    assert float(row["regret"]) == pytest.approx(float(runs.mean() / best), rel=0.01)
    for bound in ("kl_bound", "kl_bound_refined", "kl_path"):
        assert float(row[bound]) == pytest.approx(float(here[bound].mean()), rel=0.006)
    assert (row["estimate"], row["status"], row["floor"]) == ("coupled", "done", "")
    exact = [r for r in rows if r["score"] == "exact" and r["divergence"] == label]
    assert {r["target"] for r in exact} == {"isotropic", "heteroscedastic", "correlated"}
    assert {r["standard error"] for r in exact} == {""}


def test_every_cell_with_a_number_has_its_row() -> None:
    grid = synthetic_grid(a=[-5, 0, 5], n_steps=[50, 500])
    grid["status"][0, 0, 0, 1, 0, 0, 0, :3] = FAILED
    grid["kl_plugin"][0, 0, 0, 1, 0, 0, 0, :3] = np.nan
    grid["status"][0, 1, 0, 1] = NOT_APPLICABLE
    cells = table_of_cells(grid).cells
    assert (
        list(cells.query("divergence == 'KL(data ‖ generated)'").status).count("3 of 10 failed")
        == 1
    )
    gone = cells.query("schedule == 'beta_a=0' and score == 'trained'")
    assert gone.empty
    there = cells.query("score == 'trained' and divergence == 'KL(data ‖ generated)'")
    assert len(there) == 2 * 3  # of four schedules one has no such score
    assert (there["floor"] == "0.0668").all()


def test_what_all_rows_share_is_said_once(comparison: str) -> None:
    titles = [column["title"] for column in data_of(comparison)["columns"]]
    assert not {"T", "N", "sampler", "time grid"} & set(titles)
    assert "Common to all: T 1; sampler exponential_integrator_modified;" in comparison


def test_the_answer_is_that_of_the_ranking(comparison: str) -> None:
    ranking = of_published("comparison").table("ranking")
    ranking = ranking[(ranking["varies"] == "schedule") & (ranking["among"] == "all")]
    (row,) = ranking.query(
        "target == 'mg25' and divergence == 'kl_plugin' and bound == 'kl_bound'"
    ).to_dict("records")
    assert f"<code>kl_bound</code> picks {row['pick']}: {row['regret']:.1f} [" in comparison
    assert f"<b>{row['best']}</b> has the least KL(data ‖ generated), by moments" in comparison


def test_a_study_of_samplers_names_its_winners() -> None:
    grid = sgm.load_published("leaderboard")
    page = report_page(of_published("leaderboard"))
    at = {"target": "slides", "sampler": "deis_order=3", "time_grid": "uniform", "n_steps": 50}
    error = float(grid.kl_exact.sel(schedule="beta_a=0", **at).squeeze())
    (row,) = re.findall(r"<tr><th scope=\"row\">slides</th><td>50 evaluations</td>.*?</tr>", page)
    assert all(f"<td>{word}</td>" in row for word in ("beta_a=0", "uniform", "deis_order=3"))
    assert f"{error:.3g}</td>" in row
    assert data_of(page)["rows"] == 2 * 16560


def test_a_study_of_times_names_the_best() -> None:
    page = report_page(of_published("elbo-vp"))
    assert "How long to diffuse: which of 8 times T gives the best likelihood?" in page
    assert page.count('<td class="number"><b>0.8</b></td>') == 4
    assert page.count('<td class="number"><b>2</b></td>') == 1


def test_a_study_of_estimates_says_how_good_they_are() -> None:
    grid, page = sgm.load_published("calibration"), report_page(of_published("calibration"))
    ratio = float((grid.kl_unbiased.mean("seed") / grid.kl_exact).median())
    row = r"by moments</th><td>without its bias</td><td class=\"number\">30</td>"
    (found,) = re.findall(rf"KL\(data ‖ generated\), {row}<td class=\"number\">([\d.]+)</td>", page)
    assert float(found) == pytest.approx(ratio, rel=0.01)


def test_a_table_without_intervals_says_nothing_of_runs() -> None:
    """A column of `ranking.csv` that is empty throughout is one of texts all the same."""
    page = report_page(of_published("exact-w2"))
    assert (of_published("exact-w2").table("ranking")["best_set"] == "").all()
    assert "nats, exact." in page
    assert "The runs can't tell it" not in page
    assert "<b>Least error (score exact, exponential_integrator_modified): beta_a=2 on iso" in page


@pytest.mark.slow
@pytest.mark.parametrize("study", published.studies())
def test_every_published_study_has_its_page(study: str) -> None:
    source = of_published(study)
    page = Parsed(report_page(source))
    assert len([i for i in page.all("img") if i.get("src")]) == len(source.figures) > 0


# --- nothing of a study gets out, nothing from outside gets in -----------------------------


def hostile(folder: Path) -> Source:
    """A study whose every text is markup; it has figures, failures and notes."""
    grid = synthetic_grid(a=[-5, 0, 5], targets=["isotropic", "other"])
    for axis in ("target", "schedule", "score", "sampler", "time_grid"):
        labels = [f"{HOSTILE}{label}" for label in grid[axis].values]
        grid = grid.assign_coords({axis: np.array(labels, dtype=object)})
    for name in ("family", "recipe"):
        own = np.array([f"{HOSTILE}{x}" for x in grid[name].values], dtype=object)
        grid = grid.assign_coords({name: (grid[name].dims, own)})
    for variable in grid.data_vars.values():
        if "label" in variable.attrs:
            variable.attrs["label"] += HOSTILE
        variable.attrs["units"] = HOSTILE
    grid.kl_bound_objection.attrs["flag_meanings"] = (
        "none the_law<script>window.hacked=1</script> surrogate other"
    )
    grid["kl_bound_objection"][:] = 1
    failures = [{"target": HOSTILE, "seed": 0, "message": HOSTILE}] * 5
    grid = grid.assign_attrs(
        failures=json.dumps(failures), config=json.dumps({"study": HOSTILE, HOSTILE: 1}),
        created=HOSTILE, commit=HOSTILE, sgm_version=HOSTILE, cell_versions_note=HOSTILE,
    )  # fmt: skip
    # a file's name has no slash
    path = folder / "figures/kl" / f"{HOSTILE.replace('/', '')}.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(path)
    source = source_of(grid, folder, HOSTILE)
    return dataclasses.replace(source, notes=(HOSTILE,), processor=HOSTILE, redraw=HOSTILE)


def test_texts_of_a_study_stay_texts(tmp_path: Path) -> None:
    page = report_page(hostile(tmp_path))
    parsed = Parsed(page)
    assert len(parsed.all("script")) == 4  # the cells, the summary, the library and ours
    assert not [a for _, a in parsed.elements if any(name.startswith("on") for name in a)]
    assert [i["src"][:22] for i in parsed.all("img") if i.get("src")] == ["data:image/png;base64,"]
    assert HOSTILE in parsed.text
    assert {row["target"] for row in rows_of(data_of(page))} == {
        f"{HOSTILE}isotropic", f"{HOSTILE}other",
    }  # fmt: skip
    path = tmp_path / "report.html"
    path.write_text(page)
    write_index({HOSTILE: [path]}, tmp_path / "index.html")
    index = Parsed((tmp_path / "index.html").read_text())
    assert not index.all("script")
    assert HOSTILE in index.text
    assert summary_of(path)["study"] == HOSTILE


def policy(parsed: Parsed) -> dict[str, list[str]]:
    (meta,) = [
        a["content"] for a in parsed.all("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    return {words[0]: words[1:] for words in map(str.split, meta.split(";"))}


def test_the_page_asks_no_host_for_anything(comparison: str) -> None:
    parsed = Parsed(comparison)
    for tag, attributes in parsed.elements:
        for name in ("src", "srcset", "poster", "data", "action", "background", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        if "href" in attributes:
            assert tag == "a", attributes
    assert not {tag for tag, _ in parsed.elements} & {"link", "iframe", "object", "embed", "base"}
    for kind, text in parsed.raw:
        assert "sourceMappingURL" not in text
        assert kind == "script" or not re.search(r"url\((?!['\"]?data:)|@import", text)
    told = policy(parsed)
    assert told["default-src"] == ["'none'"]
    assert told["img-src"] == ["data:"]
    assert not [
        word for words in told.values() for word in words if "unsafe" in word or "*" in word
    ]


def test_the_policy_names_the_scripts_and_styles_that_are_there(comparison: str) -> None:
    parsed = Parsed(comparison)
    executed = [a.get("type", "") == "" for a in parsed.all("script")]
    scripts = [text for kind, text in parsed.raw if kind == "script"]
    scripts = [text for text, own in zip(scripts, executed, strict=True) if own]
    styles = [text for kind, text in parsed.raw if kind == "style"]
    for name, texts in (("script-src", scripts), ("style-src", styles)):
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert policy(parsed)[name] == [f"'sha256-{digest}'" for digest in digests]
    assert len(scripts) == len(styles) == 2


# --- figures -------------------------------------------------------------------------------


def test_every_kind_of_figure_is_told() -> None:
    for path in sorted((ROOT / "config/studies").glob("*.yaml")):
        if path.name.startswith("optimal-t-"):  # of data that is not here
            continue
        plan = Plan(Study.parse(read_config(path)), Path("none"))
        names = {stem.partition("/")[0] for stem in plan.figures()}
        grid = xr.Dataset(
            {name: ((), 0.0, variable.attributes) for name, variable in plan.variables.items()}
        )
        assert names <= set(kinds(grid)), path


def test_figures_keep_their_looks_in_fewer_bytes() -> None:
    plain = ROOT / "docs/figures/scaling.png"
    content, width, height = picture_bytes(plain)
    with Image.open(plain) as full, Image.open(io.BytesIO(content)) as few:
        assert full.size == few.size == (width, height)
        own, other = (np.asarray(image.convert("RGB"), float) for image in (full, few))
    assert len(content) < plain.stat().st_size / 2
    assert np.abs(own - other).mean() < 1.5  # of 255: white becomes 254


def test_alternative_texts_say_what_was_found(comparison: str) -> None:
    images = [image for image in Parsed(comparison).all("img") if image.get("src")]
    assert len(images) == len(of_published("comparison").figures)
    assert all(len(image["alt"]) > 30 for image in images)
    about = "KL(data ‖ generated), by moments over runs, with every bound of it; mg25."
    (kl,) = [image["alt"] for image in images if image["alt"].startswith(about)]
    assert "smallest with beta_a=5" in kl


def test_the_command_of_a_figure_draws_it(
    comparison: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(comparison)
    (line,) = [
        line for line in re.findall(r"python -c '.*'", parsed.text) if '"kl/mg25"' in line
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(line)[2], {})
    assert {path.suffix for path in tmp_path.glob("kl-mg25.*")} == {".png", ".pdf", ".csv"}


# --- other studies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        synthetic_grid(a=[0], cosine=False, n_seeds=1),
        synthetic_grid(a=[-5, 5], n_seeds=1),
        synthetic_grid(a=range(-40, 41), targets=["isotropic"], unknown_targets=["digits"]),
        synthetic_grid(a=[-5, 5], samplers=["one", "two"], horizons=[1.0, 2.0]),
    ],
    ids=["one cell", "one run", "many schedules", "samplers and times"],
)
def test_small_and_large_studies_have_a_page(grid: xr.Dataset, tmp_path: Path) -> None:
    page = report_page(source_of(grid, tmp_path))
    if grid.sizes["sampler"] > 1:  # once, of the page that has most on it
        assert page == report_page(source_of(grid, tmp_path))
    assert "nan" not in re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S).lower()
    assert data_of(page)["rows"] > 0


def test_a_study_that_failed_says_why(tmp_path: Path) -> None:
    grid = synthetic_grid(a=[-5, 5])
    grid["status"][:] = FAILED
    for name in grid.data_vars:
        if grid[name].dtype.kind == "f" and "seed" in grid[name].dims:
            grid[name][:] = np.nan
    failures = [
        {"target": "isotropic", "seed": s, "message": "loss is not finite"} for s in range(9)
    ]
    page = report_page(source_of(grid.assign_attrs(failures=json.dumps(failures)), tmp_path))
    assert "<td>loss is not finite</td>" in page
    assert "target isotropic, seed 0" in page
    assert "; and 6 more" in page
    states = [row["status"] for row in rows_of(data_of(page))]
    assert "10 of 10 failed" in states


def test_a_schedule_that_lost_all_its_runs_is_named(tmp_path: Path) -> None:
    grid = synthetic_grid(a=[-5, 0, 5])
    grid["status"][0, 0, 0, 1] = FAILED
    grid["kl_plugin"][0, 0, 0, 1] = np.nan
    page = report_page(source_of(grid, tmp_path))
    assert "No run of beta_a=-5 has a number here." in page
    assert '10 runs failed: <a href="#failures">where, and why</a>.' in page


# --- files ---------------------------------------------------------------------------------


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a study has a grid, without figures and tables."""
    monkeypatch.chdir(tmp_path)
    grid = source_of(synthetic_grid(a=[-5, 0, 5]), tmp_path).grid
    write_grid(grid, "results/mine/grid.zarr")
    Path("mine.yaml").write_text("study: mine\n")
    return tmp_path


def test_a_study_that_ran_has_a_report_beside_its_grid(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = ran / "results/mine/benchmarks/cells/bounds/x/seeds_0-9.tsv"
    times.parent.mkdir(parents=True)
    times.write_text("s\tcpu_time\n7200\t3600\n")
    assert main(["report", "mine.yaml"]) == 0
    assert capsys.readouterr().out == "The report is results/mine/report.html.\n"
    page = Path("results/mine/report.html").read_text()
    assert "The figures and tables do not belong to this grid: `make study`" in page
    assert '<th scope="row">bounds</th><td class="number">1</td><td class="number">2.0000' in page
    assert "sgm.open_grid(&#34;mine&#34;)" in page


def test_views_older_than_the_grid_are_told(ran: Path) -> None:
    views = ran / "results/mine/views"
    views.mkdir()
    for view, date in (("figures", 10), ("grid", 20), ("tables", 30)):
        (views / f"{view}.json").touch()
        os.utime(views / f"{view}.json", (date, date))
    assert of_results(ran / "results/mine").notes == (
        "The figures do not belong to this grid: `make study` makes them again.",
    )


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ("none.yaml", "none.yaml"),
        ("other.yaml", "study = 'other': has no grid in results/other: `make study` makes it"),
        ("unheard-of", "study = 'unheard-of': must be one of those in"),
    ],
)
def test_a_study_without_a_grid_is_refused_in_one_line(
    ran: Path, capsys: pytest.CaptureFixture[str], study: str, says: str
) -> None:
    Path("other.yaml").write_text("study: other\n")
    assert main(["report", study]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report: ")
    assert says in line


def test_the_index_lists_every_report(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgm.run.report.studies", lambda folder: ["exact-kl", "elbo-vp"])
    assert main(["report", "mine.yaml"]) == main(["reports"]) == 0
    links = [a["href"] for a in Parsed(Path("results/index.html").read_text()).all("a")]
    assert dict.fromkeys(links) == dict.fromkeys(
        ["mine/report.html", "published/exact-kl/report.html", "published/elbo-vp/report.html"]
    )
    assert all(Path("results", link).exists() for link in links)
    assert report("published/elbo-vp") == Path("results/published/elbo-vp/report.html")
    Path("results/mine/report.html").write_text("something else")
    assert main(["reports"]) == 1


def test_the_page_says_how_large_it_is(tmp_path: Path) -> None:
    path = write_report(of_published("leaderboard"), tmp_path / "report.html")
    size = path.stat().st_size
    assert f"one file of {size / 1e6:.1f} MB" in path.read_text()
    assert size < 3e6  # 33,120 rows


def test_the_vendored_library_is_what_its_table_says() -> None:
    folder = ROOT / "sgm/report/vendor"
    (version,) = re.findall(r"\| ([\d.]+) \| MIT", (folder / "README.md").read_text())
    assert f"Tabulator v{version} " in (folder / "tabulator/tabulator.min.js").read_text()[:100]
    assert (folder / "tabulator/LICENSE").read_text().startswith("The MIT License")
