"""Input from others: whatever a config or a results file holds, a reader says no in one way."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from snakemake.common.configfile import load_configfile
from snakemake_interface_common.exceptions import WorkflowError

from sgm import registry
from sgm.architectures import MLP
from sgm.cli import main as command_line
from sgm.networks import ScoreEnsemble
from sgm.store.cells import read_cells, read_spec, write_cells
from sgm.study import Plan, Study
from sgm.study.document import read_config
from sgm.study.plan import PATTERNS
from tests.workflow import ROOT, tiny

CONFIGS = [
    read_config(path)
    for path in [ROOT / "config/config.yaml", *sorted((ROOT / "config/studies").glob("*.yaml"))]
]
EXAMPLES = [100, pytest.param(3000, marks=pytest.mark.slow)]


def fuzz(examples: int, inputs: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check many inputs, the same ones in every run."""
    settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,  # a shared machine stalls
        suppress_health_check=list(HealthCheck),
    )(given(inputs)(check))()


@contextmanager
def little_memory(megabytes: float) -> Iterator[None]:
    """No more than this is allocated at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


# --- configs ----------------------------------------------------------------------------

ODD = [
    10**400, -(10**400), 2**63, 1e308, 5e-324, "..", "a/../../x", "\0", "\ud800", "x" * 10**4,
    "trained", "exact", "beta_a", "isotropic", "gaussian_kl", "digits", "w2", "README.md",
]  # fmt: skip
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
SCALARS = PLAIN | st.sampled_from(ODD)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
        | st.fixed_dictionaries({"family": SCALARS}, optional={"a": inner, "name": inner})
    ),
    max_leaves=12,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config can be changed: every key and index at every level."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*here, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*here, key))


@st.composite
def mutated_configs(draw: st.DrawFn) -> dict[str, Any]:
    config = copy.deepcopy(draw(st.sampled_from(CONFIGS)))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(list(places(config))))
        holder: Any = config
        for key in above:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "replace", "delete", "double", "wrap", "swap"]))
        if change == "replace":
            holder[last] = draw(VALUES)
        elif change == "delete":
            del holder[last]
        elif change == "double":
            holder[last] = [holder[last], holder[last]]
        elif change == "wrap":
            holder[last] = {"family": holder[last]}
        else:
            holder[last] = copy.deepcopy(config[draw(st.sampled_from(sorted(config, key=str)))])
        if not config:
            break
    return config


def parse(config: Any) -> None:
    message = ""
    try:
        study = Study.parse(config)
    except ValueError as error:
        message = str(error)
    else:
        assert Study.parse(study.model_dump(mode="json")).digest == study.digest
    assert len(message) < 20_000


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_mutated_config_is_a_study_or_one_error(examples: int) -> None:
    fuzz(examples, mutated_configs(), parse)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_anything_is_a_study_or_one_error(examples: int) -> None:
    whole = st.fixed_dictionaries({}, optional=dict.fromkeys(tiny(), VALUES))
    fuzz(examples, VALUES | whole, parse)


def test_a_few_lines_of_aliases_take_little_memory() -> None:
    """Ten lists of ten, each of the one before: 10¹⁰ entries if anyone writes them out."""
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 10):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    bomb = yaml.safe_load(text)["a9"]
    keys = ("study", "seeds", "horizons", "targets", "pictures", "extensions")
    with little_memory(5):
        for key in keys:
            with pytest.raises(ValueError, match=key):
                Study.parse(tiny(**{key: bomb}))
        with pytest.raises(ValueError, match="mapping"):
            Study.parse(bomb)


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a/b", "/a", "a/../../x", "a\\b", "a\n", "a\0", "é", "x" * 65, "~", "-a", ".a",
     "=1+1", "+1", "-1", "@x", "<b>", "a<b", "a>b", "a&b", 'a"b', "a'b", "{seeds}", "$HOME", "a b"],
)  # fmt: skip
def test_names_stay_in_their_folder_their_cell_and_their_quotes(name: str) -> None:
    """Labels stand in paths, CSV files (no formula), an HTML report and shell lines."""
    target = tiny()["targets"][0] | {"name": name}
    for changes in ({"study": name}, {"targets": [target]}):
        with pytest.raises(ValueError, match=r"must (match pattern|have at most)"):
            Study.parse(tiny(**changes))


def test_every_file_of_a_study_lies_below_its_folder(tmp_path: Path) -> None:
    longest = {"name": "abcdefghij" * 6 + "ab.."}
    config = tiny(
        targets=[tiny()["targets"][0] | longest],
        schedules=[tiny()["schedules"][0] | longest | {"a": [-1e9, 1.2345678901234567e-300]}],
        scores=[tiny()["scores"][1] | longest],
        samplers=[{"family": "ddim", "eta": 1} | longest],
        time_grids=[{"family": "uniform"} | longest],
        horizons=[1.2345678901234567e-15, 1e9],
    )
    plan = Plan(Study.parse(config), tmp_path / "results")
    paths = [Path(path) for kind in PATTERNS for path in plan.files(kind)]
    assert len(set(paths)) > 10
    for path in paths:
        assert path.resolve().is_relative_to(plan.root.resolve())
        assert ".." not in path.parts
        # room for the suffixes of logs and of temporary names
        assert max(len(part) for part in path.relative_to(plan.root).parts) < 200


EXECUTING = {
    "apply": "study: !!python/object/apply:os.mkdir [{}]",
    "new": "study: !!python/object/new:os.mkdir [{}]",
    "state": "study: !!python/object/apply:subprocess.check_call [[mkdir, {}]]",
    "name": "study: !!python/name:os.mkdir",
}


@pytest.mark.parametrize("text", EXECUTING.values(), ids=EXECUTING)
def test_tags_of_a_config_execute_nothing(tmp_path: Path, text: str) -> None:
    config, made = tmp_path / "config.yaml", tmp_path / "made"
    config.write_text(text.replace("{}", str(made)))
    with pytest.raises((WorkflowError, ValueError), match=r"not valid|must be"):
        Study.parse(load_configfile(str(config)))  # as Snakemake reads it
    assert command_line(["validate", str(config)]) == 1
    assert not made.exists()


def test_a_config_that_executes_code_is_refused_by_the_check(tmp_path: Path, capsys: Any) -> None:
    """Snakemake itself evaluates such a config, before it reads the Snakefile."""
    config, made = tmp_path / "config.yaml", tmp_path / "made"
    tricks = [
        {"__use_yte__": True, "__definitions__": [f"import os; os.mkdir({str(made)!r})"]},
        {"extensions": [str(tmp_path / "extension.py")]},
    ]
    (tmp_path / "extension.py").write_text(f"import os; os.mkdir({str(made)!r})")
    for trick in tricks:
        config.write_text(json.dumps(tiny() | trick))
        assert command_line(["validate", str(config)]) == 1
        assert "executes code" in capsys.readouterr().err
        assert not made.exists()
    config.write_text(yaml.safe_dump(tiny()))
    assert command_line(["validate", str(config)]) == 0
    assert command_line(["validate", str(tmp_path / "nowhere.yaml")]) == 1


def test_an_extension_that_fails_is_one_error_each_time(tmp_path: Path) -> None:
    for text, words in {"1 / 0": "ZeroDivisionError", "def": "SyntaxError"}.items():
        extension = tmp_path / f"{words}.py"
        extension.write_text(text)
        for _ in range(2):  # half a module is not remembered as a whole one
            with pytest.raises(ValueError, match=rf"extensions: .*{words}"):
                Study.parse(tiny(extensions=[str(extension)]))


# --- cell files and networks ------------------------------------------------------------

GOOD = {"kl": np.arange(3.0), "failed": np.zeros(3, bool), "message": np.array(["", "a", "bc"])}


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(changed)))
        stop = start + draw(st.integers(0, 40))
        match draw(st.sampled_from(["set", "insert", "cut", "copy", "truncate"])):
            case "set":
                changed[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
            case "insert":
                changed[start:start] = draw(st.binary(max_size=40))
            case "cut":
                del changed[start:stop]
            case "copy":
                changed[start:start] = changed[start:stop]
            case "truncate":
                del changed[start:]
    return bytes(changed)


def archive_of(entries: dict[str, bytes], **options: Any) -> bytes:
    """A whole archive with right checksums, of entries that may be anything."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def entry(array: Any) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    """An entry with a header of one's own."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("level", ["file", "entry"])
def test_mutated_cell_files_are_read_or_one_error(
    tmp_path: Path, examples: int, level: str
) -> None:
    path = tmp_path / "cells.npz"
    write_cells(path, GOOD, {})
    if level == "file":
        inputs = mutated_bytes(path.read_bytes())
    else:  # with the right CRC-32, so that the mutation reaches what reads the arrays
        inputs = mutated_bytes(entry(np.arange(5.0))).map(lambda e: archive_of({"x.npy": e}))

    def check(content: bytes) -> None:
        path.write_bytes(content)
        arrays, message = {}, ""
        try:
            arrays = read_cells(path)
            read_spec(path)
        except ValueError as error:
            message = str(error)
        assert not message or message.startswith(str(path))
        assert sum(array.nbytes for array in arrays.values()) <= len(content)

    fuzz(examples, inputs, check)


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def understated() -> bytes:
    """A compressed entry of 16 MB that the directory says has 10 kB."""
    content = bytearray(archive_of({"x.npy": entry(np.zeros(2 * 10**6))}, compression=ZIP_DEFLATED))
    start = content.index(b"PK\x01\x02")
    content[start + 24 : start + 28] = (10_000).to_bytes(4, "little")
    return bytes(content)


SHAPE = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}\n"
BOMBS: dict[str, Callable[[Path], bytes]] = {
    "objects": lambda trace: archive_of({"x.npy": entry(np.array([Trap(trace)], dtype=object))}),
    "compressed": lambda _: archive_of(
        {"x.npy": entry(np.zeros(2 * 10**6))}, compression=ZIP_DEFLATED
    ),
    "understated": lambda _: understated(),
    "shape": lambda _: archive_of({"x.npy": header(SHAPE.format("'<f8'", "(1000000000000,)"))}),
    "itemsize": lambda _: archive_of({"x.npy": header(SHAPE.format("'<U2000000000'", "(9,)"))}),
    "nested": lambda _: archive_of({"x.npy": header("(" * 60000)}),
    "minus": lambda _: archive_of({"x.npy": header("-" * 60000 + "1")}),
    "no entry": lambda _: archive_of({"x": b"text"}),
    "version": lambda _: archive_of({"x.npy": b"\x93NUMPY\x03\x00" + b"\xff" * 40}),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_unread(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "cells.npz"
    path.write_bytes(BOMBS[bomb](tmp_path / "trace"))
    with little_memory(2), pytest.raises(ValueError, match="not a readable cell file"):
        read_cells(path)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.npz"]


def test_entries_that_share_their_bytes_take_no_more_than_the_file(tmp_path: Path) -> None:
    """A directory that names one entry of 1 MB a hundred times."""
    content = archive_of({"x.npy": entry(np.zeros(2**17))})
    start = content.index(b"PK\x01\x02")
    record, end = content[start:-22], bytearray(content[-22:])
    end[8:10] = end[10:12] = (100).to_bytes(2, "little")
    end[12:16] = (100 * len(record)).to_bytes(4, "little")
    path = tmp_path / "cells.npz"
    path.write_bytes(content[:start] + 100 * record + end)
    with little_memory(1), pytest.raises(ValueError, match="not a readable cell file"):
        read_cells(path)


ARCHITECTURE = MLP(
    dimension=3, width=16, layers=1, time_width=16, time_scale=1000.0, output="relative"
)
WRONG = [
    "", "[]", "{}", "null", "[" * 100_000,
    json.dumps(ARCHITECTURE.keys() | {"more": 1}),
    *(
        json.dumps(ARCHITECTURE.keys() | change)
        for change in (
            {"width": 2**40}, {"width": "16"}, {"layers": 10**12}, {"layers": 1.5}, {"layers": 2},
            {"dimension": 10**12}, {"dimension": 4}, {"time_width": 2**40}, {"data_std": None},
            {"data_std": float("nan")}, {"output": []}, {"time_input": -1}, {"architecture": []},
            {"architecture": "mixer"}, {"architecture": "os:system"},
        )
    ),
]  # fmt: skip


def test_networks_of_a_wrong_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "networks.safetensors"
    tensors = ScoreEnsemble.initial(ARCHITECTURE, [0, 1]).state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for architecture in WRONG:
        path.write_bytes(save(tensors, {"architecture": architecture}))
        with little_memory(5), pytest.raises(ValueError, match=f"{path}: not a readable network"):
            ScoreEnsemble.load(path)
    for state in ({"bias": tensors["bias"]}, {k: v.int() for k, v in tensors.items()}, {}):
        path.write_bytes(save(state, {"architecture": json.dumps(ARCHITECTURE.keys())}))
        with pytest.raises(ValueError, match="not a readable network"):
            ScoreEnsemble.load(path)
    ScoreEnsemble.initial(replace(ARCHITECTURE, width=32), [0]).save(path)
    assert ScoreEnsemble.load(path).architecture.width == 32


@pytest.mark.parametrize(
    ("build", "kept"), [("sgm.schedules:ConstantSchedule", 1), ("os:mkdir", 0)]
)
def test_a_file_says_what_to_build_only_among_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, kept: int
) -> None:
    """A block holds a schedule that the study lacks: what it is stands in a file, from anyone."""
    both = [tiny()["schedules"][0] | {"a": 3}, {"family": "constant", "rate": 1.0}]
    labels = {"target": "isotropic", "horizon": "1", "score": "trained", "seeds": "0-1"}
    block = "beta_a=3,constant"

    def plan(schedules: list[Any]) -> Plan:
        return Plan(Study.parse(tiny(schedules=schedules, schedules_per_job=2)), tmp_path)

    with monkeypatch.context() as forging:
        entry = registry.lookup("schedule", "constant")
        forged = type("Forged", (registry.Entry,), {"build": build})(**vars(entry))
        forging.setitem(registry._BUILT_IN["schedule"], "constant", forged)
        before = plan(both)
        spec = before.spec("network", SimpleNamespace(**labels, schedules=block))
        assert build in spec
        path = Path(before.pattern("network").format(**labels, schedules=block))
        path.parent.mkdir(parents=True)
        ScoreEnsemble.initial(ARCHITECTURE, range(4)).save(path, spec)
    found = {cell["schedules"] for cell in plan(both[:1]).cells("network")}
    assert (block in found) == kept
    assert found <= {block, "beta_a=3"}
