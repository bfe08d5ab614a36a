"""`make schedule`: from a law on a command line to a schedule file that a study reads."""

from __future__ import annotations

import json
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sgm import laws, samplers, scores, timegrids
from sgm.cli import main
from sgm.gaussian import kl_divergence
from sgm.optimal_schedule import find_schedule
from sgm.processes import VPProcess
from sgm.run.build import build_target
from sgm.run.check import check
from sgm.schedules.knots import schedule_file
from sgm.study import Study
from sgm.study.config import parse_item
from tests.workflow import ROOT, tiny

SPELLED = "{family: correlated, dimension: 4, mean: 1.0, offset: 1.0}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(tiny()))
    rows = np.random.default_rng(0).normal(size=(300, 4)) * [3.0, 1.0, 0.5, 0.1]
    np.savetxt("mine.csv", rows, delimiter=",")
    np.savez("moments.npz", mean=np.ones(2), covariance=np.diag([1.0, 0.1]))
    return tmp_path


def written(*options: str) -> tuple[Path, dict[str, object]]:
    """The folder that a run writes, and its certificate."""
    assert main(["schedule", *options, "--folder", "out"]) == 0
    (made,) = Path("out").iterdir()
    return made, json.loads((made / "certificate.json").read_text())


@pytest.mark.parametrize(
    "sampler",
    [
        "exponential_integrator_modified",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddim", "euler_maruyama")),
    ],
)
def test_the_file_is_the_schedule_of_the_certificate(
    sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A schedule read from the file, and the samplers themselves, on the uniform grid."""
    options = ("--target", SPELLED, "--steps", "7", "--sampler", sampler, "--variance", "0.7")
    made, certificate = written(*options)
    told = yaml.safe_load(capsys.readouterr().out.strip().splitlines()[-1])[0]
    # levels stretch with T, rates are those of T = 1
    for horizon in (1.0, 3.0) if told["interpolation"] == "monotone" else (1.0,):
        schedule = schedule_file(
            horizon, path=made / "schedule.json", interpolation=told["interpolation"]
        )
        assert told["family"] == "schedule_file"
        assert Path(told["path"]) == made / "schedule.json"
        law = build_target(parse_item("target", yaml.safe_load(SPELLED)).spec).law
        process = VPProcess(schedule, 0.7)
        steps = getattr(samplers, sampler)(process, timegrids.uniform(horizon, 7))
        output = laws.sampler_law(steps, scores.exact(process, law), process.prior(4))
        assert float(kl_divergence(law, output)) == pytest.approx(certificate["value"], rel=1e-8)


def test_a_sampler_with_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    deis = "{family: deis, order: 2}"
    made, certificate = written("--target", SPELLED, "--steps", "3", "--sampler", deis)
    assert (certificate["sampler"], certificate["sampler_parameters"]) == ("deis", {"order": 2})
    assert made.name == "correlated-deis__order_=_2-kl-increments-N=3"
    shown = capsys.readouterr().out
    assert "deis, order = 2, N = 3, the exact score" in shown
    near = certificate["value_if_variances_are_times"]
    assert isinstance(near, dict)
    low, high = (f"{near[factor]:.4g}" for factor in ("0.8", "1.25"))
    assert f"For a law with 0.8 or 1.25 times these variances: {low} or {high}." in shown


def test_the_line_it_prints_is_one_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    written("--target", SPELLED, "--steps", "5")
    (line,) = yaml.safe_load(capsys.readouterr().out.strip().splitlines()[-1])
    check(Study.parse(tiny(schedules=[line])))


@pytest.mark.parametrize("space", ["a", pytest.param("a,T", marks=pytest.mark.slow)])
def test_a_beta_a_needs_no_file(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    made, certificate = written("--target", SPELLED, "--steps", "5", "--space", space)
    assert not (made / "schedule.json").exists()
    *_, where, line = capsys.readouterr().out.strip().splitlines()
    (told,) = yaml.safe_load(line)
    horizon = float(where.split("horizons: [")[1].split("]")[0])
    assert told["a"] == pytest.approx(certificate["a"])
    assert horizon == pytest.approx(certificate.get("horizon", 1.0))
    check(Study.parse(tiny(schedules=[told], horizons=[horizon])))


@pytest.mark.parametrize(
    ("options", "dimension", "label"),
    [
        (("--target", "isotropic", "--study", "study.yaml"), 3, "isotropic"),
        (("--data", "mine.csv"), 4, "mine"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (("--target", SPELLED), 4, "correlated"),
                (("--data", "moments.npz"), 2, "moments"),
                (("--target", "{family: digits, heldout_fraction: 0.3}"), 61, "digits"),
            ]
        ),
    ],
)
def test_laws_and_data(
    options: tuple[str, ...], dimension: int, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made, certificate = written(*options, "--steps", "4")
    law = certificate["law"]
    assert isinstance(law, dict)
    assert sum(law["multiplicities"]) == dimension
    assert certificate["target"] == label
    files = {"schedule.json", "certificate.json", "figure.png", "figure.pdf", "figure.csv"}
    assert {path.name for path in made.iterdir()} == files
    shown = capsys.readouterr().out
    assert shown.startswith(f"{label}: d = {dimension}, ")
    if label == "mine":
        rows = np.loadtxt("mine.csv", delimiter=",")
        expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
        assert law["eigenvalues"] == pytest.approx(expected, rel=5e-3)  # of n or of n − 1


def test_the_figure_draws_the_certificate() -> None:
    made, certificate = written("--target", SPELLED, "--steps", "6")
    frame = pd.read_csv(made / "figure.csv")
    costs = frame[frame["axis"] == "objective"].set_index("curve")["y"]
    references = certificate["references"]
    assert isinstance(references, dict)
    assert costs.iloc[0] == certificate["value"]
    assert costs.iloc[1:].tolist() == list(references.values())
    rates = frame[(frame["axis"] == "rate") & (frame["curve"] == "optimum")]
    # stairs: ∫β is B(T)
    assert np.sum(np.diff(rates["x"]) * rates["y"].to_numpy()[:-1]) == pytest.approx(
        certificate["total_integral"]
    )
    ratios = frame[frame["axis"] == "snr"]
    for _, curve in ratios.groupby("curve"):
        assert np.all(np.diff(curve["y"]) < 0)


def test_an_error_finds_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    made, certificate = written("--target", SPELLED, "--error", "0.1")
    n = certificate["n_steps"]
    assert f"N={n}" in made.name
    fewer = certificate["one_step_fewer"]
    assert isinstance(fewer, dict)
    assert fewer["n_steps"] == n - 1
    assert certificate["value"] <= certificate["error"] == 0.1 < fewer["value"]
    total = f"B(T)/σ² = {certificate['total_integral']:.4g}"
    shown = capsys.readouterr().out
    assert f"N = {n} is the smallest number of steps for an error of 0.1" in shown
    assert total in shown
    assert "stands for the data" not in shown


def test_a_folder_of_images_counts_by_its_moments(capsys: pytest.CaptureFixture[str]) -> None:
    Path("images").mkdir()
    generator = np.random.default_rng(0)
    for part, n in {"train": 400, "t10k": 50}.items():
        pixels = generator.integers(0, 256, (n, 3, 3), dtype=np.uint8)
        header = struct.pack(">4I", 2051, *pixels.shape)
        Path(f"images/{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    _, certificate = written("--data", "images", "--steps", "4")
    law = certificate["law"]
    assert isinstance(law, dict)
    assert sum(law["multiplicities"]) == 9
    shown = capsys.readouterr().out
    assert shown.startswith("images: d = 9, ")
    assert "A Gaussian with the rows' mean and covariance stands for the data." in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--target nope --study study.yaml", "target = 'nope': must be a target of study.yaml"),
        ("--target '{family: nope}'", "family = 'nope': unknown target"),
        ("--target '{family'", "target = '{family': must be YAML"),
        ("--target '{family: isotropic, dimension: 3}'", "mean: this key is required"),
        ("--target '{family: two_modes}'", "target = 'two_modes': must be Gaussian, or data"),
        ("--data none.csv", "data = 'none.csv': there is no such file"),
        ("--data mine.csv --target isotropic", "must be left out if data is given"),
        ("--data mine.csv --steps 0", "n_steps = 0: must be an integer, at least 1"),
        ("--data mine.csv --steps 5 --error 1", "steps = 5: must be left out if error is given"),
        ("--data mine.csv --error 1 --space a", "space = 'a': an error can be asked for where"),
        ("--data .", "must hold train-images-idx3-ubyte"),
        ("--data mine.csv --variance -1", "variance = -1.0: must be a positive"),
        ("--data mine.csv --objective elbo", "objective = 'elbo': must be one of kl, w2"),
        ("--data mine.csv --objective path --sampler ddim", "objective = 'path': is a bound for"),
        ("--data mine.csv --sampler restart", "sampler = 'restart': must be one of"),
        ("--data mine.csv --sampler deis", "deis: order: this key is required"),
        ("--data mine.csv --sampler '{family: deis'", "sampler = '{family: deis': must be YAML"),
        ("--data mine.csv --sampler unipc --error 1", "sampler = 'unipc': an error can be asked"),
        ("--data mine.csv --space q", "space = 'q': must be one of increments"),
        ("--data singular.npz", "not positive definite"),
        ("--data mine.csv --objective theorem --steps 2", "the optimiser did not converge"),
    ],
)
def test_what_can_not_be_is_one_line(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("singular.npz", mean=np.ones(2), covariance=np.ones((2, 2)))
    assert main(["schedule", *shlex.split(options), "--folder", "out"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.slow
def test_the_documented_commands_run(folder: Path) -> None:
    line = "sgm schedule --data mine.csv --steps 20 --objective w2"
    assert line in (ROOT / "docs/best-schedule.md").read_text()
    command = [sys.executable, "-m", *shlex.split(line)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "starts agree" in done.stdout
    assert (folder / "results/schedules").is_dir()


@pytest.mark.parametrize("target", ["isotropic", "correlated", "heteroscedastic"])
def test_the_schedules_of_the_study_are_the_best(target: str) -> None:
    """config/schedules against a search: as `make schedule` writes them."""
    config = yaml.safe_load((ROOT / "config/studies/best-schedule.yaml").read_text())
    (raw,) = [t for t in config["targets"] if t.get("name", t["family"]) == target]
    (own,) = [s for s in config["schedules"] if s.get("name") == f"best-{target}"]
    knots = json.loads((ROOT / own["path"]).read_text())
    found = find_schedule(build_target(parse_item("target", raw).spec).reference, n_steps=20)
    assert knots["integral"] == pytest.approx(found.integral, rel=1e-5)
    assert knots["time"] == pytest.approx(found.fractions)
