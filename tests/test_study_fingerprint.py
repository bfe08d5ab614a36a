"""Fingerprints change with what a job can reach, and with nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sgm.study import fingerprint as module
from sgm.study.fingerprint import fingerprint

PACKAGE = Path(__file__).parents[1] / "sgm"
SCHEDULES = "schedules/__init__.py"
ROWS = [
    "sgm.architectures:ARCHITECTURES[mlp]",
    "sgm.architectures.base:OUTPUTS[relative]",
    "sgm.networks:FORWARD[mlp]",
    "sgm.networks:INITIAL[mlp]",
    "sgm.objectives:OBJECTIVES[denoising]",
    "sgm.objectives:WEIGHTS[variance]",
    "sgm.objectives:PROBES[rademacher]",
    "sgm.training:LEARNING_RATES[cosine]",
    "sgm.training:TIME_SAMPLINGS[early]",
]
TRAIN = [
    "sgm.run.jobs.stages:network",
    "sgm.schedules:BetaSchedule",
    "sgm.targets:isotropic",
    *ROWS,
]
EXACT = ["sgm.run.jobs.stages:exact", "sgm.samplers:euler_maruyama", "sgm.targets:isotropic"]


Edit = Callable[[str, str, str], None]


def copy_of_the_package(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "vendor")
    return Path(shutil.copytree(PACKAGE, folder / "sgm", ignore=ignored))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Edit a copy of the package, which fingerprints then read."""
    package = copy_of_the_package(tmp_path)
    monkeypatch.setattr(module, "PACKAGE", package)
    return lambda name, old, new: replace(package / name, old, new)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that is read once, for edits that are taken back."""
    return copy_of_the_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def edit_one(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Edit one file of the common copy, which is then as it was, to the nanosecond."""
    monkeypatch.setattr(module, "PACKAGE", package)
    before: dict[Path, tuple[str, int]] = {}

    def apply(name: str, old: str, new: str) -> None:
        path = package / name
        before.setdefault(path, (path.read_text(), path.stat().st_mtime_ns))
        replace(path, old, new)

    yield apply
    for path, (text, at) in before.items():
        path.write_text(text)
        os.utime(path, ns=(at, at))


def test_equal_code_gives_equal_fingerprints(edit: Edit) -> None:
    assert fingerprint(TRAIN) == fingerprint(reversed(TRAIN))
    assert fingerprint(TRAIN) != fingerprint(EXACT)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (SCHEDULES, '"""A noise schedule β on', '"""Some schedule β on'),
        (SCHEDULES, "import numpy as np\n", "import numpy as np  # fast\n"),
        ("processes.py", "\n    def drift", "\n\n\n    # a comment\n    def drift"),
        (SCHEDULES, "class ConstantSchedule(", "class AnotherSchedule("),
        ("samplers/one_step.py", "@register(", "late = 1\n\n\n@register("),
        # what a family declares
        (SCHEDULES, 'label="beta", axes=["a"]', 'label="b", axes=["a", "beta_min"]'),
        (SCHEDULES, "a: Real", "a: Positive"),
        ("targets/gaussians.py", "variance: Positive", "variance: Annotated[float, Ge(5)]"),
        ("targets/gaussians.py", '@register("target")\ndef isotropic', "def isotropic"),
        ("registry.py", "class Entry", "class Row"),
        ("variables.py", "class Variable", "class Column"),
        ("plots/divergence.py", "import", "import antigravity\nimport"),
        ("study/plan.py", "class Plan", "class Scheme"),
        # rows of a table of choices that the recipe does not name
        ("training.py", '"constant": lambda progress: 1.0', '"zero": lambda progress: 0.0'),
        ("objectives.py", "return Examples(states, exact_score(states, t))", "return states"),
        ("objectives.py", "2 * divergence", "divergence"),
        ("objectives.py", "MIN_SNR = 5.0", "MIN_SNR = 1.0"),
        ("objectives.py", "generator.standard_normal(shape)", "generator.random(shape)"),
        ("architectures/base.py", "gain=-(v**-0.5)", "gain=v**-0.5"),
        ("architectures/layered.py", "shape[-2:]", "shape[1:]"),
        ("networks.py", "hidden = gelu(hidden)", "hidden = torch.relu(hidden)"),
    ],
)  # fmt: skip
def test_prose_and_unrelated_code_change_nothing(
    edit_one: Edit, name: str, old: str, new: str
) -> None:
    before = fingerprint(TRAIN), fingerprint(EXACT)
    edit_one(name, old, new)
    assert (fingerprint(TRAIN), fingerprint(EXACT)) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "train", "exact"),
    [
        (SCHEDULES, "np.expm1(a * t) / np.expm1", "np.exp(a * t) / np.exp", True, False),
        ("processes.py", "/ (2 * self.variance)", "/ (3 * self.variance)", True, True),
        ("training.py", "np.cos(np.pi", "np.cos(2 * np.pi", True, False),
        ("training.py", "** 1.5,", "** 1.4,", True, False),
        ("objectives.py", "-z / process.std(t)", "z / process.std(t)", True, False),
        ("architectures/layered.py", "ALIGNMENT = 16", "ALIGNMENT = 32", True, False),
        ("architectures/layered.py", "max(1, _CACHED", "max(2, _CACHED", True, False),
        ("architectures/base.py", "divisor=np.full", "gain=np.full", True, False),
        ("networks.py", "h = h + (inner", "h = (inner", True, False),
        ("samplers/one_step.py", "def _euler(", "def _euler(extra: int, ", False, True),
        ("laws.py", "def sampler_law(", "def sampler_law(extra: int, ", False, True),
        ("gaussian.py", "value = 0.5 * gap", "value = gap / 2", False, True),
        ("random.py", "digest_size=8", "digest_size=16", True, False),
        ("targets/gaussians.py", "full(dimension, variance)", "full(dimension, 2.0)", True, True),
    ],
)  # fmt: skip
def test_code_that_a_job_reaches_changes_its_fingerprint(
    edit_one: Edit, name: str, old: str, new: str, train: bool, exact: bool
) -> None:
    before = fingerprint(TRAIN), fingerprint(EXACT)
    edit_one(name, old, new)
    after = fingerprint(TRAIN), fingerprint(EXACT)
    assert (after[0] != before[0], after[1] != before[1]) == (train, exact)


def test_extensions_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from sgm.schedules import ConstantSchedule\n\ndef rate(t):\n    return 1\n")
    root = f"{path}:rate"
    before = fingerprint([root])
    path.write_text(path.read_text() + "# a comment\n")
    assert fingerprint([root]) == before
    path.write_text(path.read_text().replace("return 1", "return 3"))
    assert fingerprint([root]) != before


BLIND = {
    "star": "from own_module import *\n",
    "in try": "try:\n    from own_module import value\nexcept ImportError:\n    value = 0\n",
    "chain": "import own_module as b\nc = b\n",
    "for effect": "import own_module\n",
    "in a function": "def f():\n    from own_module import value\n    return value\n",
}


@pytest.mark.parametrize("form", BLIND)
def test_a_module_that_an_extension_imports_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    own, path = tmp_path / "own_module.py", tmp_path / "mine.py"
    own.write_text("value = 1\n")
    path.write_text(BLIND[form] + "def rate(t):\n    return 1\n")
    before = fingerprint([f"{path}:rate"])
    own.write_text("value = 1  # one\n")
    assert fingerprint([f"{path}:rate"]) == before
    own.write_text("value = 2\n")
    assert fingerprint([f"{path}:rate"]) != before


def test_a_table_filled_by_a_decorator_and_a_file_that_is_named_count(tmp_path: Path) -> None:
    path, table = tmp_path / "mine.py", tmp_path / "kernel.txt"
    text = (
        "ROWS = {}\n\ndef row(f):\n    ROWS[f.__name__] = f\n    return f\n\n"
        "@row\ndef one(t):\n    return 1\n\n"
        "def rate(t):\n    return ROWS['one'](t) + len(open('kernel.txt').read())\n"
    )
    path.write_text(text)
    table.write_text("a")
    before = fingerprint([f"{path}:rate"])
    path.write_text(text.replace("return 1", "return 2"))
    assert fingerprint([f"{path}:rate"]) != before
    path.write_text(text)
    assert fingerprint([f"{path}:rate"]) == before
    table.write_text("b")
    assert fingerprint([f"{path}:rate"]) != before


@pytest.mark.parametrize(
    "form",
    [
        "import sgm.schedules\nBase = sgm.schedules.ConstantSchedule\n",
        "from sgm.schedules import *\n",
        "from sgm import schedules\nBase = getattr(schedules, 'Constant' + 'Schedule')\n",
    ],
)
def test_what_an_extension_takes_of_the_package_counts(
    edit: Edit, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(form + "def rate(t):\n    return 1\n")
    before = fingerprint([f"{path}:rate"])
    edit(
        SCHEDULES,
        "class ConstantSchedule(NoiseSchedule):",
        "class ConstantSchedule(Edit):",
    )
    assert fingerprint([f"{path}:rate"]) != before


@pytest.mark.parametrize("name", ["__init__.py", "run/__main__.py"])
def test_what_starts_a_job_counts(edit: Edit, tmp_path: Path, name: str) -> None:
    roots = [*TRAIN, "sgm.run.__main__"]
    before = fingerprint(roots)
    path = tmp_path / "sgm" / name
    path.write_text(path.read_text() + "\nimport os\nos.environ['OMP_NUM_THREADS'] = '3'\n")
    assert fingerprint(roots) != before


@pytest.mark.parametrize(("stage", "name"), [("exact", "theory"), ("samples", "score_fns")])
def test_the_room_of_the_roof_that_a_file_stands_in_does_not_count(
    edit: Edit, tmp_path: Path, stage: str, name: str
) -> None:
    roots = [f"sgm.run.jobs.stages:{stage}", "sgm.run.__main__"]
    before = fingerprint(roots)
    run = tmp_path / "sgm/run"
    (run / f"jobs/{name}.py").rename(run / f"{name}.py")
    for path in run.rglob("*.py"):
        path.write_text(path.read_text().replace(f"sgm.run.jobs.{name}", f"sgm.run.{name}"))
    assert fingerprint(roots) == before
    edit(f"run/{name}.py", ", process", ", procession")
    assert fingerprint(roots) != before


def test_an_address_that_leads_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such definition"):
        fingerprint(["sgm.schedules:Missing"])
    with pytest.raises(ValueError, match="no such row"):
        fingerprint(["sgm.objectives:WEIGHTS[heavy]"])
