"""The console script `sgm`, and the names of what is shipped, in a checkout and outside of one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sgm
from sgm import cli, published, shipped
from sgm.run.jobs import views
from sgm.study import Study
from sgm.study.document import read_config
from tests.workflow import ROOT, tiny

COMMANDS = {
    "study", "plan", "status", "usage", "clean-stale", "publish", "report", "reports",
    "figures", "check", "schedule", "validate", "schema",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(tiny()))
    return tmp_path


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^    ([a-z-]+)\s", shown, flags=re.MULTILINE)) == COMMANDS
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: sgm {command} ")
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"sgm {sgm.__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "study typo",
            "study: 'typo' is not there: must be the config file of a study, or the name",
        ),
        ("study mine.yaml --profile typo", "study: profile = 'typo': must be a folder, or one of"),
        ("plan typo.yaml", "plan: 'typo.yaml' is not there"),
        ("status typo", "status: 'typo' is not there"),
        ("clean-stale typo", "clean-stale: 'typo' is not there"),
        ("publish mine.yaml", "publish: study = 'tiny': must have run to its end"),
        ("figures typo", "figures: study = 'typo': must be one of those in "),
        ("figures exact-kl --x typo", "figures: x = 'typo': must be a number that varies"),
        ("check typo", "check: name = 'typo': no family has this name"),
        ("schedule --target typo", "schedule: target = 'typo': must be a target of quick, which"),
        ("validate wrong.yaml", "validate: the config is not valid: seeds = 0: must be"),
        ("validate own.yaml", "validate: extensions = ['own.py']: executes code"),
    ],
)
def test_what_can_not_be_is_one_line(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.yaml").write_text(yaml.safe_dump(tiny(seeds=0)))
    Path("own.yaml").write_text(yaml.safe_dump(tiny(extensions=["own.py"])))
    assert cli.main(shlex.split(line)) == (2 if line.startswith("check") else 1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stduy", "argument COMMAND: invalid choice: 'stduy'"),
        ("plan mine.yaml --cores 2", "unrecognized arguments: --cores 2"),
        ("schedule --steps ten", "argument --steps: invalid int value: 'ten'"),
        ("figures --formats gif", "argument --formats: invalid choice: 'gif'"),
        ("plan mine.yaml -- --dry-run", "nothing may follow it but Snakemake's options"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_words_that_are_none_are_named(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(shlex.split(line))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def started(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the Snakemake that `sgm study` becomes."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: calls.append(words))
    assert cli.main(["study", *shlex.split(line)]) == 0
    ((path, command, environment),) = calls
    assert path == sys.executable
    return command, environment


def test_a_study_is_run_by_snakemake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "theirs")
    command, environment = started("mine.yaml --cores 2 -- --dry-run --quiet", monkeypatch)
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    words += ["--configfile", "mine.yaml", "--cores", "2", "--logger", "sgm"]
    assert command == [*words, "--dry-run", "--quiet"]
    assert environment["PYTHONPATH"] == f"{ROOT / 'workflow'}{os.pathsep}theirs"
    assert environment["PATH"].startswith(f"{Path(sys.executable).parent}{os.pathsep}")


@pytest.mark.parametrize("profile", ["slurm", "profiles/slurm", "own"])
def test_a_profile_is_a_folder_or_one_of_those_shipped(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own").mkdir()
    command, _ = started(f"exact-kl --profile {profile}", monkeypatch)
    expected = "own" if profile == "own" else str(ROOT / "profiles/slurm")
    assert command[-2:] == ["--workflow-profile", expected]
    assert command[6] == str(ROOT / "config/studies/exact-kl.yaml")


def test_a_home_that_can_not_be_written_to_holds_no_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setenv("MPLCONFIGDIR", "/proc/none")
    _, environment = started("mine.yaml", monkeypatch)
    assert environment["XDG_CACHE_HOME"] == str(folder / ".cache")
    assert environment["MPLCONFIGDIR"] == str(folder / ".cache/matplotlib")


GIVEN = {
    "study": "STUDY=a.yaml CORES=2 PROFILE=slurm",
    "plan": "STUDY=a.yaml",
    "status": "STUDY=a.yaml",
    "usage": "",
    "clean-stale": "STUDY=a.yaml YES=1",
    "publish": "STUDY=a.yaml TO=b",
    "report": "STUDY=a FROM=b",
    "reports": "FROM=b",
    "figures": "STUDY=a FROM=b FORMATS='png pdf' X=eta CORES=2",
    "check": "NAME=n FILE=f PARAMETERS='a: 1' KIND=k STUDY=a.yaml CELLS=9",
    "schedule": "TARGET=t DATA=d STUDY=a.yaml N=5 ERROR=0.1 SAMPLER=s OBJECTIVE=o SPACE=a "
    "VARIANCE=2 KNOTS=3",
    "schema": "",
}


@pytest.mark.parametrize("target", GIVEN)
def test_make_calls_the_same_commands(target: str) -> None:
    """Every variable of a target comes to an option; without any, the script's defaults hold."""
    make = ["make", "-n", "--no-print-directory", "-o", ".venv/run.stamp"]
    make += ["-o", ".venv/cluster.stamp", "-C", str(ROOT), target]
    parsed = []
    for given in (shlex.split(GIVEN[target]), []):
        text = subprocess.check_output([*make, *given], text=True).replace("\\\n", " ")
        (line,) = [line for line in text.splitlines() if line.startswith("python -m sgm ")]
        words = shlex.split(line.partition(" > ")[0])[3:]
        parsed.append(vars(cli._parser().parse_args(words)))
        if given:  # nothing is lost on the way
            values = {value.partition("=")[2] for value in given} - {"png pdf", "1"}
            assert values <= set(words)
    options, plain = parsed
    assert options["command"] == target
    for key in ("steps", "error", "sampler", "objective", "space", "variance", "knots", "x"):
        if key in plain:
            assert options[key] != plain[key] == vars(cli._parser().parse_args([target]))[key]


# --- what is shipped -------------------------------------------------------------------


def test_a_shipped_study_has_its_name(folder: Path) -> None:
    for name, path in shipped.studies().items():
        assert shipped.config_file(name) == path
        assert read_config(name)["study"] == name
    assert len(shipped.studies()) == 1 + len(list((ROOT / "config/studies").glob("*.yaml")))
    for spelled in ("exact-kl", "config/studies/exact-kl.yaml"):
        assert shipped.config_file(spelled) == ROOT / "config/studies/exact-kl.yaml"


def test_what_stands_in_the_current_folder_comes_first(folder: Path) -> None:
    Path("exact-kl").mkdir()  # no config
    assert shipped.config_file("exact-kl") == ROOT / "config/studies/exact-kl.yaml"
    Path("exact-w2").write_text("study: mine")
    assert read_config("exact-w2") == {"study": "mine"}
    Path("config/studies").mkdir(parents=True)
    Path("config/studies/exact-kl.yaml").write_text("study: mine")
    assert read_config("config/studies/exact-kl.yaml") == {"study": "mine"}


def test_a_study_extends_a_shipped_one_by_its_name(folder: Path) -> None:
    Path("mine.yaml").write_text("extends: samplers\nstudy: mine")
    assert read_config("mine.yaml") == read_config("samplers") | {"study": "mine"}


def test_shipped_files_of_a_study_are_found_from_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paths() -> list[str]:
        study = Study.parse(read_config("optimised"))
        return [str(s.parameters.path) for s in study.schedules if s.family == "schedule_file"]

    names = [path.removeprefix(f"{ROOT}/") for path in paths()]
    assert [str(ROOT / name) for name in names] == paths()
    monkeypatch.chdir(ROOT)
    assert paths() == names  # a spec in a checkout says nothing of where that is
    assert all(name.startswith("config/schedules/") for name in names)


def test_an_installed_package_is_no_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where published studies are, and takes no commit of a repository that it lies in."""
    assert views._commit()
    for module in (published, views):
        monkeypatch.setattr(module, "checkout", lambda: None)
    assert views._commit() == ""
    with pytest.raises(ValueError, match=r"study = 'exact-kl': .*, none; .* of its repository"):
        sgm.load_published("exact-kl", "published")
