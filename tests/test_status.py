"""What is left of a study, what it will cost, and which of its files nobody names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from sgm.cli import main
from sgm.run.inventory import disk, status
from sgm.run.inventory.progress import OUTPUTS, survey
from sgm.store import cells
from sgm.study import Plan, Study
from sgm.study.plan import PATTERNS

CONFIG = yaml.safe_load((Path(__file__).parent / "data/tiny.yaml").read_text())
STAGES = [kind for kind in PATTERNS if kind != "training"]


def read_spec(path: str | Path) -> str:
    if Path(path).suffix == ".npz":
        with np.load(path) as archive:
            return str(archive["spec"]) if "spec" in archive.files else ""
    with safe_open(path, framework="numpy") as file:
        return str((file.metadata() or {}).get("spec", ""))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own; files are read here even where the store does not say specs yet."""
    if not hasattr(cells, "read_spec"):
        monkeypatch.setattr(cells, "read_spec", read_spec, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(**changes: Any) -> Plan:
    study = Study.parse(CONFIG | changes)
    return Plan(study, Path("results") / study.study)


def make(plan: Plan, stage: str, labels: dict[str, str], failed: int = 0, **spec: Any) -> None:
    """What a job leaves: its files with their spec, its log and its benchmark."""
    text = plan.spec(stage, SimpleNamespace(**labels))
    text = json.dumps(json.loads(text) | spec, sort_keys=True, separators=(",", ":"))
    marks = np.arange(len(cells.seed_range(labels.get("seeds", "0-0")))) < failed
    for kind in OUTPUTS.get(stage, (stage,)):
        path = Path(plan.pattern(kind).format(**labels))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            np.savez(path, failed=marks, spec=np.array(text))
        else:
            save_file({"w": np.zeros(2)}, path, {"spec": text})
    log(plan, stage, labels)


def log(plan: Plan, stage: str, labels: dict[str, str], text: str = "", after: int = -1) -> None:
    """The log of a job, written some seconds after its files."""
    place = PATTERNS[stage].format(**labels)
    path = plan.root / f"logs/{place}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    ends = [Path(plan.pattern(kind).format(**labels)) for kind in OUTPUTS.get(stage, (stage,))]
    newest = max([end.stat().st_mtime for end in ends if end.exists()], default=0.0)
    if newest:
        os.utime(path, (newest + after, newest + after))


def benchmark(plan: Plan, stage: str, labels: dict[str, str], wall: Any, cpu: Any = 1.0) -> None:
    path = plan.root / f"benchmarks/{PATTERNS[stage].format(**labels)}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tcpu_time\n{wall}\t0:00:01\t{cpu}\n")


def make_all(plan: Plan, leave: tuple[str, ...] = ("samples",)) -> None:
    """All files of a study that has run; samples were deleted."""
    for stage in STAGES:
        if stage not in leave:
            for labels in plan.cells(stage):
                make(plan, stage, labels)


def counts(plan: Plan) -> dict[str, tuple[int, int, int]]:
    return {s.name: (len(s.done), len(s.new), len(s.stale)) for s in survey(plan)}


def first(plan: Plan, stage: str) -> dict[str, str]:
    return next(iter(plan.cells(stage)))


def path_of(plan: Plan, kind: str, labels: dict[str, str]) -> Path:
    return Path(plan.pattern(kind).format(**labels))


def test_nothing_is_done_and_then_all_is() -> None:
    before = counts(planned())
    assert all(done == stale == 0 and new > 0 for done, new, stale in before.values())
    assert set(before) <= set(STAGES)
    make_all(planned())
    after = counts(planned())
    assert after == {stage: (new, 0, 0) for stage, (_, new, _) in before.items()}


def test_a_study_that_samples_nothing_needs_no_data() -> None:
    plan = planned(scores=[{"family": "exact", "sampled": False}])
    assert set(counts(plan)) == {"exact", "axes"}


def test_a_file_of_another_spec_is_stale_and_so_is_what_comes_of_it() -> None:
    plan = planned()
    make_all(plan)
    labels = first(plan, "network")
    make(plan, "network", labels, other=1)
    found = counts(planned())
    total = len(list(plan.cells("network")))
    assert found["network"] == (total - 1, 0, 1)
    for stage in ("samples", "divergences", "bounds"):
        below = [
            cell for cell in plan.cells(stage) if all(cell[name] == labels[name] for name in labels)
        ]
        number = len(list(plan.cells(stage)))
        assert found[stage] == (number - len(below), 0, len(below)), stage
        assert 0 < len(below) < number
    assert found["data"][2] == found["axes"][2] == found["exact"][2] == 0


def test_a_lost_file_is_new_and_its_samples_are_made_again() -> None:
    plan = planned()
    make_all(plan)
    path_of(plan, "divergences", first(plan, "divergences")).unlink()
    found = counts(planned())
    assert found["divergences"][1:] == found["samples"][1:] == (1, 0)
    assert found["network"][1:] == found["data"][1:] == (0, 0)
    path_of(plan, "training", first(plan, "network")).unlink()
    assert counts(planned())["network"][1:] == (1, 0)


def test_what_can_not_be_read_is_stale() -> None:
    plan = planned()
    make_all(plan)
    np.savez(path_of(plan, "exact", first(plan, "exact")), value=np.zeros(2))
    assert counts(planned())["exact"][1:] == (0, 1)


def test_more_of_an_axis_adds_new_files_alone() -> None:
    make_all(planned())
    more = counts(planned(seeds=CONFIG["seeds"] + 1))
    for stage in ("data", "network", "samples", "divergences", "bounds"):
        done, new, stale = more[stage]
        assert (done, stale) == (counts(planned())[stage][0], 0), stage
        assert new > 0, stage
    assert more["exact"][1:] == (0, 0)


def test_failed_runs_are_counted_where_cells_mark_them() -> None:
    plan = planned()
    make_all(plan)
    make(plan, "divergences", first(plan, "divergences"), failed=1)
    make(plan, "network", first(plan, "network"), failed=2)
    failed = {s.name: s.failed for s in survey(planned())}
    assert {name: n for name, n in failed.items() if n} == {"divergences": 1, "network": 2}
    likelihood = {
        "rows": 10, "nodes": 8, "cutoff": 1e-3, "divergence": "exact", "directions": 1,
        "method": "RK45", "rtol": 1e-3, "atol": 1e-3, "atol_nats": 1e-2,
    }  # fmt: skip
    plan = planned(likelihood=likelihood)
    make(plan, "likelihood", first(plan, "likelihood"), failed=1)
    assert {s.name: s.failed for s in survey(plan)}["likelihood"] == 1


def test_a_changed_file_of_the_users_makes_its_target_stale() -> None:
    np.savez("moments.npz", mean=np.zeros(2), covariance=np.eye(2))
    target = {"family": "gaussian_file", "name": "mine", "path": "moments.npz"}
    (old, *_) = CONFIG["targets"]
    scores = [score | {"targets": None} for score in CONFIG["scores"]]
    changes = {"targets": [old, target], "scores": scores}
    make_all(planned(**changes))
    assert all(found[1:] == (0, 0) for found in counts(planned(**changes)).values())
    later = path_of(planned(**changes), "axes", {}).stat().st_mtime + 10
    os.utime("moments.npz", (later, later))  # a date says nothing
    assert all(found[1:] == (0, 0) for found in counts(planned(**changes)).values())
    np.savez("moments.npz", mean=np.ones(2), covariance=np.eye(2))
    os.utime("moments.npz", (1, 1))
    stages = {s.name: s for s in survey(planned(**changes))}
    assert {labels["target"] for labels in stages["data"].stale} == {"mine"}
    assert {labels["target"] for labels in stages["divergences"].stale} == {"mine"}
    assert {labels["target"] for labels in stages["samples"].stale} == {"mine"}


def test_costs_are_those_of_jobs_of_the_same_target_and_score() -> None:
    (family,) = CONFIG["targets"]
    plan = planned(targets=[family, family | {"name": "second"}, family | {"name": "third"}])
    block = len(cells.seed_range(plan.blocks[0]))
    data = {labels["target"]: labels for labels in plan.cells("data")}
    assert block > 1
    mine, second, third = data.values()
    benchmark(plan, "data", mine, 4.0)
    benchmark(plan, "data", second, 10.0)
    (stage,) = (s for s in survey(plan) if s.name == "data")
    # the third by the mean of both, per run
    assert stage.seconds == pytest.approx(4 + 10 + 7)
    make(plan, "data", second)
    (stage,) = (s for s in survey(plan) if s.name == "data")
    assert stage.seconds == pytest.approx(4 + 7)
    # of jobs of one size, nothing is known of a smaller one: it may take as long
    make(plan, "data", mine)
    make(plan, "data", third)
    more = planned(seeds=block + 1, targets=plan.study.model_dump(mode="json")["targets"])
    (stage,) = (s for s in survey(more) if s.name == "data")
    assert stage.seconds == pytest.approx(4 + 10 + 7)
    for labels in stage.left:  # of two sizes, start and run are told apart: here 1 s a run
        benchmark(more, "data", labels, {"second": 9.0}.get(labels["target"], 3.0))
    (stage,) = (s for s in survey(more) if s.name == "data")
    assert stage.seconds == pytest.approx(3 + 9 + 3)
    wide = planned(
        seeds=2 * block, seeds_per_job=block, targets=more.study.model_dump(mode="json")["targets"]
    )
    (stage,) = (s for s in survey(wide) if s.name == "data")
    assert stage.seconds == pytest.approx(4 + 10 + 3 * block)


@pytest.mark.parametrize(
    ("wall", "cpu", "expected"),
    [
        ("4.0", "2.0", 4.0),  # CPU time as of Snakemake's last look, long before the end
        ("4.0", "NA", 4.0),
        ("4.0", "0.00", 4.0),
        ("-", "-", None),
        ("", "", None),
    ],
)
def test_a_job_took_what_the_clock_says(wall: str, cpu: str, expected: float | None) -> None:
    plan = planned()
    benchmark(plan, "data", first(plan, "data"), wall, cpu)
    (stage,) = (s for s in survey(plan) if s.name == "data")
    assert stage.seconds == expected
    text = "".join(status.plan_text(plan))
    assert ("at least" in text) == (expected is not None)


def lines(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[str]:
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    return (captured.err if code else captured.out).splitlines()


def row(table: list[str], name: str) -> list[str]:
    (line,) = (line for line in table if line.startswith(f"{name} "))
    return line.split()


def test_the_tables(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    plan = planned()
    labels = first(plan, "divergences")
    make_all(plan)
    path_of(plan, "divergences", labels).unlink()
    benchmark(plan, "divergences", labels, 7300.0, 3725.0)
    benchmark(plan, "samples", labels, 60.0, 30.0)
    table = lines(capsys, "plan", "tiny.yaml")
    number = str(len(list(plan.cells("divergences"))))
    assert " ".join(table[0].split()) == "stage files done new stale failed runs time left"
    done = str(int(number) - 1)
    assert row(table, "divergences") == [
        "divergences", number, done, "1", "0", "0", "2", "h", "1", "min",
    ]  # fmt: skip
    assert " ".join(row(table, "all")).endswith("2 0 0 2 h 2 min")
    for title in ("files", "done", "failed runs", "time left"):  # columns end where their titles do
        end = table[0].index(title) + len(title)
        assert all(line[end - 1].strip() and not line[end : end + 2].strip() for line in table[:-2])

    table = lines(capsys, "status", "tiny.yaml")
    assert row(table, "divergences") == ["divergences", number, done, "1", "0", "0", "0"]
    assert (
        table[-1] == "Snakemake is not running here. Time left: 2 h 2 min, one job after the other."
    )


def test_the_status_of_a_study_that_runs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    plan = planned()
    make_all(plan)
    both = list(plan.cells("divergences"))
    for labels in both:
        path_of(plan, "divergences", labels).unlink()
        benchmark(plan, "divergences", labels, 3600.0, 1.0)
        benchmark(plan, "samples", labels, 7200.0, 1.0)
        os.utime(plan.root / f"benchmarks/{PATTERNS['samples'].format(**labels)}.tsv", (1, 1))
        log(plan, "samples", labels)
    assert len(both) == 2
    table = lines(capsys, "status", "tiny.yaml")
    assert row(table, "samples")[2:] == ["0", "2", "0", "0", "0"]  # killed, it seems
    assert "Snakemake is not running here" in table[-1]
    lock = touch(folder / ".snakemake/locks/0.input.lock")
    table = lines(capsys, "status", "tiny.yaml")
    assert row(table, "samples")[2:] == ["0", "2", "2", "0", "0"]
    assert table[-1] == "Time to the last cell: 3 h 0 min, with 2 jobs at a time as now."
    log(plan, "samples", both[0], "samples: an error")
    table = lines(capsys, "status", "tiny.yaml")
    assert row(table, "samples")[2:] == ["0", "2", "1", "1", "0"]
    log(plan, "samples", both[1], "samples: an error")
    assert "No job is running at the moment" in lines(capsys, "status", "tiny.yaml")[-1]
    lock.unlink()
    make_all(planned())
    assert lines(capsys, "status", "tiny.yaml")[-1] == "No cell is left."
    assert row(lines(capsys, "plan", "tiny.yaml"), "all")[-2:] == ["0", "s"]


def test_looking_writes_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    make_all(planned())
    (planned().root / "figures").mkdir()
    (planned().root / "figures/old.png").touch()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for command in ("plan", "status", "clean-stale"):
        lines(capsys, command, "tiny.yaml")
    lines(capsys, "usage")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "'x.yaml' is not there: must be the config file of a study"),
        (b"\xff\xfe\xff", "x.yaml: must be UTF-8: byte 0 is not"),
        (b"a: [", "x.yaml, line 1: expected the node content"),
        (b"- 1", "x.yaml: must be a mapping of keys, not list"),
        (b"__use_yte__: true", "__use_yte__ = True: executes code"),
        (b"seeds: 0", "the config is not valid"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "status", "clean-stale"])
def test_a_study_that_is_none_is_one_error(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    content: bytes | None,
    message: str,
    command: str,
) -> None:
    if content is not None:
        (folder / "x.yaml").write_bytes(content)
    error = lines(capsys, command, "x.yaml", code=1)
    assert error[0].startswith(f"{command}: {message}")


def touch(path: Path, content: bytes = b"x" * 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def orphaned(plan: Plan) -> list[Path]:
    """Files that no cell names, one of each sort, and others that must stay."""
    labels = first(plan, "network")
    gone = {**labels, "target": "gone"}
    root = plan.root
    return sorted(
        [
            touch(path_of(plan, "network", gone)),
            touch(path_of(plan, "training", gone)),
            touch(root / f"logs/{PATTERNS['network'].format(**gone)}.log"),
            touch(root / f"benchmarks/{PATTERNS['network'].format(**gone)}.tsv"),
            touch(path_of(plan, "data", {**labels, "seeds": "70-79"})),
            touch(path_of(plan, "data", labels).with_name(".seeds_0-1.npz.4711")),
            touch(root / "figures/kl/gone.png"),
            touch(root / "cells/notes of mine.txt"),
        ]
    )


def test_orphans_are_listed_and_deleted_on_demand_alone(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    plan = planned()
    make_all(plan, leave=())
    stem = plan.figures()[-1]
    kept = [
        touch(plan.root / f"figures/{stem}.csv"),
        touch(plan.root / "tables/summary.csv"),
        touch(plan.root / "grid.zarr/zarr.json"),
        touch(plan.root / "logs/figures.log"),
        touch(plan.root / "notes.txt"),
        touch(folder / "results/other/cells/axes.npz"),
    ]
    benchmark(plan, "data", first(plan, "data"), 1, 1)
    assert lines(capsys, "clean-stale", "tiny.yaml") == [
        "results/tiny: all files belong to the study."
    ]
    orphans = orphaned(plan)
    named = {path for path in folder.rglob("*") if path.is_file()} - {folder / p for p in orphans}
    assert sorted(disk.orphans(planned())) == orphans
    listed = lines(capsys, "clean-stale", "tiny.yaml")
    assert sorted(Path(line.rsplit("  ", 1)[0].strip()) for line in listed[1:-2]) == orphans
    assert (
        listed[-1]
        == "Nothing was deleted. To delete: `sgm clean-stale --yes` or `make clean-stale YES=1`."
    )
    assert all(path.exists() for path in orphans)
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").touch()
    error = lines(capsys, "clean-stale", "tiny.yaml", "--yes", code=1)
    assert error == [
        "clean-stale: Snakemake is running here: wait until it ends, or `snakemake --unlock` if it "
        "was killed"
    ]
    assert all(path.exists() for path in orphans)
    (folder / ".snakemake/locks/0.input.lock").unlink()
    assert lines(capsys, "clean-stale", "tiny.yaml", "--yes")[-1] == "Deleted."
    assert {path for path in folder.rglob("*") if path.is_file()} == named
    assert all(path.exists() for path in kept)
    assert not (plan.root / "networks/gone").exists()
    assert all(found[1:] == (0, 0) for found in counts(planned()).values())


def test_links_are_neither_followed_nor_touched(folder: Path) -> None:
    plan = planned()
    make_all(plan)
    outside = [touch(folder / "elsewhere/a/b.npz"), touch(folder / "elsewhere/c.npz")]
    (plan.root / "cells/linked").symlink_to(folder / "elsewhere")
    (plan.root / "cells/linked.npz").symlink_to(outside[1])
    (plan.root / "samples").symlink_to(folder / "elsewhere")
    orphan = touch(plan.root / "cells/gone/deep/x.npz")
    assert disk.orphans(planned()) == [orphan]
    disk.delete(plan, [orphan, plan.root / "cells/linked/a/b.npz", plan.root / "cells/linked.npz"])
    assert not orphan.exists()
    assert not (plan.root / "cells/gone").exists()
    assert all(path.exists() for path in outside)
    assert (plan.root / "cells/linked.npz").is_symlink()
    assert "elsewhere" not in {space.study for space in disk.usage(folder / "results")}


def test_usage_by_study_and_kind(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name, size in {
        "one/cells/exact/a.npz": 10_000,
        "one/cells/exact/b.npz": 3,
        "one/cells/axes.npz": 1,
        "one/grid.zarr/kl/c/0": 70_000,
        "one/notes": 0,
        "two/data/t/seeds_0-1.npz": 200_000,
    }.items():
        touch(folder / "results" / name, bytes(size))
    spaces = {(s.study, s.kind): s for s in disk.usage(folder / "results")}
    assert {key: s.files for key, s in spaces.items()} == {
        ("one", "cells/exact"): 2,
        ("one", "cells"): 1,
        ("one", "grid.zarr"): 1,
        ("one", "other"): 1,
        ("two", "data"): 1,
    }
    assert 10_003 <= spaces["one", "cells/exact"].bytes <= 10_003 + 2 * 2**16
    table = lines(capsys, "usage")
    assert row(table, "two")[:3] == ["two", "data", "1"]
    assert row(table, "all")[1] == "6"
    assert disk.usage(folder / "none") == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"), (0, "0 s"), (0.2, "1 s"), (59.5, "1 min 0 s"), (3725, "1 h 2 min"),
        (7200, "2 h 0 min"), (200_000, "2 d 7 h"),
    ],
)  # fmt: skip
def test_times_in_words(seconds: float | None, text: str) -> None:
    assert status.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (12_340_000, "12.3 MB"), (4e13, "40 TB")],
)
def test_sizes_in_words(number: float, text: str) -> None:
    assert disk.format_bytes(number) == text
