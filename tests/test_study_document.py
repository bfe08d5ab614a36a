"""A config file: what YAML reads otherwise than it looks is one line that names it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgm.cli import main as command_line
from sgm.study.document import read_config
from tests.workflow import ROOT, TINY, Workflow, tiny

WRONG = {
    "seeds: 1\nn: 2\nseeds: 5": "line 3: the key 'seeds' is given twice",
    "a: {b: 1, c: {d: 1, d: 2}}": "line 1: the key 'd' is given twice",
    '{"seeds": 1, "seeds": 5}': "line 1: the key 'seeds' is given twice",
    "seeds: 010": "line 1: 010: YAML reads 8; write the number out",
    "seeds:\n- 3:20": "line 2: 3:20: YAML reads 200; write the number out",
    "x: 3:20.5": "line 1: 3:20.5: YAML reads 200.5; write the number out",
    "seeds: [": "line 1: expected the node content",
    "a: b: c": "line 1: mapping values are not allowed here",
    "\tseeds: 1": "line 1: found character '\\t' that cannot start any token",
    "a: *b": "line 1: found undefined alias 'b'",
    "a: !!python/name:os.mkdir": "line 1: could not determine a constructor",
    "? [a]\n: 1": "line 1: found unhashable key",
    "- 1": ": must be a mapping of keys, not list",
    "": ": must be a mapping of keys, not NoneType",
    "a: \0": "can't be read as YAML",
    "a: 2024-13-45": "can't be read as YAML",
    "[" * 5000: "can't be read as YAML",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=[t[:20] for t in WRONG])
def test_what_reads_otherwise_than_it_looks_is_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"study\.yaml") as error:
        read_config(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_text_file_is_one_line(tmp_path: Path, capsys: Any) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("study: café".encode("latin-1"))
    for path in (latin, tmp_path, tmp_path / "typo.yaml", Path("/dev/zero"), Path("a\0b")):
        assert command_line(["validate", str(path)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "path", [TINY, *(ROOT / "config").rglob("*.yaml")], ids=lambda path: path.stem
)
def test_a_config_is_what_the_safe_loader_reads(path: Path) -> None:
    own = yaml.safe_load(path.read_text())
    base = read_config(path.parent / own.pop("extends")) if "extends" in own else {}
    assert read_config(path) == base | own


def test_a_config_has_the_keys_of_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    texts = {
        "base.yaml": "study: base\nseeds: 2\nhorizons: [1.0, 2.0]",
        "deep/middle.yaml": "extends: ../base.yaml\nstudy: middle\nhorizons: [3.0]",
        "deep/top.yaml": "extends: middle.yaml\nseeds: 5",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = read_config(tmp_path / "deep/top.yaml")
    assert found == {"study": "middle", "seeds": 5, "horizons": [3.0]}


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("gone.yaml", r"gone\.yaml' is not there: must be the config file of a study"),
        ("study.yaml", r"extends: must not lead back to .*study\.yaml"),
        ("[a.yaml, b.yaml]", r"study\.yaml: extends = \['a.yaml', 'b.yaml'\]: must be a config"),
        ("broken.yaml", r"broken\.yaml, line 2: the key 'a' is given twice"),
    ],
)
def test_what_can_not_be_extended_is_one_line(tmp_path: Path, extends: str, message: str) -> None:
    (tmp_path / "broken.yaml").write_text("a: 1\na: 2")
    path = tmp_path / "study.yaml"
    path.write_text(f"extends: {extends}\nstudy: x")
    with pytest.raises(ValueError, match=message) as error:
        read_config(path)
    assert "\n" not in str(error.value)


def test_other_numbers_are_as_the_safe_loader_reads_them(tmp_path: Path) -> None:
    text = "[0, 0.5, -1, 1_000, 0x10, 1.0e-05, 1e-5, '010', '3:20', 1, on, no, .5, 0.0, 00.5]"
    path = tmp_path / "study.yaml"
    path.write_text(f"x: {text}\nmerged: {{<<: &a {{b: 1}}, b: 2}}")
    assert read_config(path) == yaml.safe_load(path.read_text())


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """What `make` calls, in this environment: the stamps of the install are taken as new."""
    command = ["make", "--no-print-directory", "-o", ".venv/run.stamp", *words]
    environment = Workflow(ROOT).environment
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", ["study", "plan", "clean-stale"])
def test_make_says_in_one_line_what_is_wrong_with_a_config(tmp_path: Path, target: str) -> None:
    spaced = tmp_path / "in puts"
    spaced.mkdir()
    config, made = spaced / "study.yaml", tmp_path / "made"
    trick = {"__use_yte__": True, "__definitions__": [f"import os; os.mkdir({str(made)!r})"]}
    config.write_text(yaml.safe_dump(tiny() | trick))
    for study, word in ((config, "__use_yte__"), (spaced, "is a folder"), ("typo", "not there")):
        finished = make(target, f"STUDY={study}")
        lines = [line for line in finished.stderr.splitlines() if not line.startswith("make")]
        assert finished.returncode != 0
        assert [word in line for line in lines if "config is not valid" not in line] == [True]
        assert not finished.stdout
    assert not made.exists()


def test_snakemake_says_in_one_line_what_is_wrong_with_a_config(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    workflow.write(tiny(seeds=0))
    text = (tmp_path / "study.yaml").read_text()
    for content, word in ((text, "seeds = 0: "), (text + "\nseeds: 1\n", "'seeds' is given twice")):
        (tmp_path / "study.yaml").write_text(content)
        finished = workflow.run("--dry-run", "--quiet")
        assert finished.returncode == 1
        said = [line for line in finished.stderr.splitlines() if "specific profile" not in line]
        assert [word in line for line in said if line != "the config is not valid"] == [True]


def test_a_label_may_repeat_a_letter_as_often_as_snakemake_allows(tmp_path: Path) -> None:
    target = tiny()["targets"][0]
    assert Workflow(tmp_path).planned(tiny(targets=[target | {"name": "a" * 19}]))
