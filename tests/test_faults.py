"""Faults: killed writers, full disks, damaged files, too little memory. Nothing may be lost."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sgm.architectures import MLP, Architecture
from sgm.gather import gather
from sgm.networks import ScoreEnsemble
from sgm.run.__main__ import main
from sgm.store.cells import (
    canonical,
    read_cells,
    read_spec,
    remove_leftovers,
    write_cells,
    written_whole,
)
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study
from tests.workflow import tiny


def architecture(width: int = 16) -> Architecture:
    return MLP(
        dimension=3, width=width, layers=1, time_width=16, time_scale=1000.0, output="relative"
    )


SPEC = {"study_seed": 1, "schedules": []}


def cells(version: int) -> dict[str, Any]:
    return {
        "kl": np.arange(2.0) + version,
        "long": np.full(400_000, version),  # most of the time goes into writing
        "failed": np.array([False, True]),
        "message": np.array(["", "not finite"]),
    }


def networks(version: int, width: int = 16) -> ScoreEnsemble:
    return ScoreEnsemble.initial(architecture(width), [version])


def dataset(version: int) -> xr.Dataset:
    values = np.arange(6.0).reshape(2, 3) + version
    values[0, 0] = np.nan
    data = {
        "kl": (("schedule", "seed"), values, {"units": "1", "role": "divergence"}),
        "unknown": (("schedule", "seed"), np.full((2, 3), -np.nan), {"units": "1"}),
        "status": (("schedule", "seed"), np.ones((2, 3), np.int8), {"flag_values": [0, 1]}),
        "train_seconds": (("seed",), np.array([1.0, 2.0, 3.0]), {"units": "s"}),
    }
    labels = np.array(["beta_a=-10", "beta_a=3"], dtype=object)
    coords = {"schedule": labels, "seed": np.arange(3), "known": ("schedule", [True, False])}
    return xr.Dataset(data, coords, {"study": "tiny", "variance": 1.0, "n_train": 200})


def save_networks(path: Path, version: int) -> None:
    with written_whole(path) as aside:
        networks(version, 256).save(aside)


def save_grid(path: Path, version: int) -> None:
    write_grid(dataset(version), path, {"pictures/a": dataset(version + 10)})


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "a.npz": lambda path, version: write_cells(path, cells(version), SPEC),
    "a.safetensors": save_networks,
    "grid.zarr": save_grid,
}


def version_of(path: Path) -> int:
    """Which version a file holds; fails if it is not exactly one of them."""
    if path.suffix == ".npz":
        found = read_cells(path)
        version = int(found["kl"][0])
        for name, value in cells(version).items():
            np.testing.assert_array_equal(found[name], value)
    elif path.suffix == ".safetensors":
        weights = ScoreEnsemble.load(path).weights
        matching = [
            v for v in (0, 1) if torch.equal(weights["input"], networks(v, 256).weights["input"])
        ]
        (version,) = matching
    else:
        grid = open_grid(path)
        version = int(grid.kl[0, 1]) - 1
        xr.testing.assert_identical(grid.drop_attrs(), dataset(version).drop_attrs())
        group = open_grid(path, "pictures/a")
        xr.testing.assert_identical(group.drop_attrs(), dataset(version + 10).drop_attrs())
    return version


def write_forever(path: Path, started: Any) -> None:
    torch.set_num_threads(1)  # an import at the top of the child, not its first write, takes long
    for write in range(10**6):
        WRITERS[path.name](path, write % 2)
        started.set()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "grid" in n else []) for n in WRITERS]
)
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path, name: str) -> None:
    """SIGKILL at moments spread over a few writes: the name always bears one whole version."""
    rng = random.Random(name)
    path = tmp_path / name
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_faults"])
    gone = 0
    for _ in range(20):
        started = context.Event()
        process = context.Process(target=write_forever, args=(path, started))
        process.start()
        assert started.wait(60)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        if name == "grid.zarr" and not path.exists():
            gone += 1  # between the two renames: the next write, or the old one, brings it back
            save_grid(path, 0)
        assert version_of(path) in (0, 1)
    leftovers = sorted(p.name for p in tmp_path.iterdir() if p.name != name)
    assert all(leftover.startswith(".") for leftover in leftovers)
    WRITERS[name](path, 0)
    assert version_of(path) == 0
    remove_leftovers(tmp_path, seconds=-1)
    assert [p.name for p in tmp_path.iterdir()] == [name]


class Killed(BaseException):
    """Stands for a SIGKILL at a chosen call: no handler of ours may catch it."""


def test_a_swap_killed_at_any_call_loses_no_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that moves or removes a folder, as the last one that happens."""
    path = tmp_path / "grid.zarr"
    rename, rmtree = Path.rename, shutil.rmtree
    calls = 0
    for moment in range(12):
        rmtree(tmp_path)
        tmp_path.mkdir()
        save_grid(path, 0)
        calls = 0

        def counted(function: Callable[..., Any], moment: int = moment) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                if arguments[0] in (path, path.with_name(".grid.zarr.new"),
                                    path.with_name(".grid.zarr.old")):  # fmt: skip
                    calls += 1
                    if calls > moment:
                        raise Killed
                return function(*arguments, **options)

            return call

        monkeypatch.setattr(Path, "rename", counted(rename))
        monkeypatch.setattr(shutil, "rmtree", counted(rmtree))
        try:
            save_grid(path, 1)
        except Killed:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(Path, "rename", rename)
            monkeypatch.setattr(shutil, "rmtree", rmtree)
        kept = [p for p in (path, path.with_name(".grid.zarr.old")) if p.exists()]
        assert version_of(kept[0]) in (0, 1)
        monkeypatch.setattr(xr.Dataset, "to_zarr", lambda *_, **__: 1 / 0)  # the next one fails too
        with pytest.raises(ZeroDivisionError):
            save_grid(path, 1)
        monkeypatch.undo()
        assert version_of(path) in (0, 1)
        save_grid(path, 1)
        assert version_of(path) == 1
    assert moment >= 5  # two leftovers, two renames, the old one


@pytest.mark.slow
def test_a_reader_never_meets_half_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.zarr"
    context = multiprocessing.get_context("forkserver")
    started = context.Event()
    process = context.Process(target=write_forever, args=(path, started))
    process.start()
    assert started.wait(60)
    whole = refused = 0
    try:
        for _ in range(60):
            try:
                grid = open_grid(path)
            except ValueError:  # replaced while it was read
                refused += 1
                continue
            version = int(grid.kl[0, 1]) - 1
            xr.testing.assert_identical(grid.drop_attrs(), dataset(version).drop_attrs())
            whole += 1
    finally:
        process.kill()
        process.join()
    assert whole > 0
    assert whole + refused == 60


# --- damage -----------------------------------------------------------------------------


def flipped(content: bytes, byte: int, bit: int) -> bytes:
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


def refusal(read: Callable[[], Any]) -> str:
    """The message of a reader that refuses, empty if it does not."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.slow  # tests/test_fuzz.py has a hundred of them for `make test`
def test_a_flipped_bit_of_a_cell_file_is_found_or_harmless(tmp_path: Path) -> None:
    """Every bit of a small file, and every length it is cut to."""
    path = tmp_path / "seeds_0-1.npz"
    original = cells(0) | {"long": np.arange(3)}
    write_cells(path, original, SPEC)
    content = path.read_bytes()
    damaged = [flipped(content, byte, bit) for byte in range(len(content)) for bit in range(8)]
    damaged += [content[:length] for length in range(len(content))]
    found = 0
    for piece in damaged:
        path.write_bytes(piece)
        message = refusal(lambda: read_cells(path)) or refusal(lambda: read_spec(path))
        if message:
            assert message.startswith(f"{path}: not a readable")
            assert "delete it" in message
            found += 1
            continue
        arrays = read_cells(path)
        assert arrays.keys() == original.keys()
        assert read_spec(path) == canonical(SPEC)
        for name, value in original.items():
            assert arrays[name].dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(arrays[name], value)
    # the rest is times and attributes of the archive, and the versions, which only say
    assert found > 0.55 * len(damaged)


def test_a_flipped_byte_of_a_network_file_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "seeds_0-0.safetensors"
    ensemble = networks(0)
    ensemble.save(path)
    content = path.read_bytes()
    rng = random.Random(0)
    damaged = [flipped(content, byte, rng.randrange(8)) for byte in range(0, len(content), 13)]
    damaged += [flipped(content, byte, rng.randrange(8)) for byte in range(900)]  # the header
    damaged += [content[: rng.randrange(len(content))] for _ in range(50)] + [b""]
    for piece in damaged:
        path.write_bytes(piece)
        message = refusal(lambda: ScoreEnsemble.load(path))
        if message:
            assert message.startswith(f"{path}: not a readable network file")
            continue
        loaded = ScoreEnsemble.load(path)
        assert loaded.architecture == ensemble.architecture
        for name, weights in ensemble.weights.items():
            assert torch.equal(loaded.weights[name], weights)


def test_networks_without_a_checksum_still_load(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    ensemble, path = networks(0), tmp_path / "old.safetensors"
    tensors = {name: w.contiguous() for name, w in ensemble.state_dict().items()}
    save_file(tensors, path, {"architecture": json.dumps(ensemble.architecture.keys())})
    assert torch.equal(ScoreEnsemble.load(path).weights["time"], ensemble.weights["time"])


@pytest.mark.slow
def test_damage_to_a_grid_is_found_or_harmless(tmp_path: Path) -> None:
    """Each file of the store, in turn: missing, empty, cut, and with bytes flipped."""
    path = tmp_path / "grid.zarr"
    save_grid(path, 0)
    rng = random.Random(0)
    tried = found = 0
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        pieces = [None, b"", content[: len(content) // 2]]
        pieces += [
            flipped(content, rng.randrange(len(content)), rng.randrange(8)) for _ in range(6)
        ]
        for piece in pieces:
            file.unlink() if piece is None else file.write_bytes(piece)
            tried += 1
            message = refusal(lambda: version_of(path))
            if message:
                assert "not a readable grid" in message
                found += 1
            else:
                grid, written = open_grid(path), dataset(0)
                assert grid.kl.attrs == written.kl.attrs
                assert grid.attrs.items() >= written.attrs.items()
            file.write_bytes(content)
    assert tried >= 200
    assert found > 0.6 * tried


def test_the_gather_names_all_damaged_files(tmp_path: Path) -> None:
    plan = Plan(Study.parse(tiny()), tmp_path)
    runs = {"failed": np.zeros((1, 2)), "message": np.array([["", ""]])}
    scores = {"score": np.array([], str)}
    kinds = {"training": runs, "bounds": runs, "divergences": runs, "exact": scores, "axes": scores}
    for kind, arrays in kinds.items():
        for labels in plan.cells(kind):
            path = plan.pattern(kind).format(**labels)
            write_cells(path, arrays, json.loads(plan.spec_of(kind, labels)))
    first, second = plan.files("training")[0], plan.files("divergences")[1]
    Path(first).write_bytes(b"")
    Path(second).write_bytes(Path(second).read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a readable result file") as error:
        gather(plan, {})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [first, second]


# --- leftovers --------------------------------------------------------------------------


def test_leftovers_are_no_blocks_and_go_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "isotropic"
    names = []
    for _ in range(2):  # two writers of one file never share a temporary one
        with written_whole(folder / "seeds_0-9.npz") as aside:
            names.append(aside.name)
            aside.write_text("half")
            (folder / "keep").write_bytes(aside.read_bytes())
    assert names[0] != names[1]
    old, young, others = folder / names[0], folder / names[1], folder / ".seeds_0-9.npz.bak"
    for path in (old, young, others):
        path.touch()
    os.utime(old, (0, time.time() - 2 * 86400))
    os.utime(others, (0, 0))
    (folder / "seeds_0-9.npz").unlink()
    assert Plan(Study.parse(tiny()), tmp_path).blocks == ("0-1",)
    assert remove_leftovers(tmp_path, seconds=86400) == [old]
    assert young.exists()
    assert others.exists()


# --- disks and memory -------------------------------------------------------------------


def job(plan: Plan, stage: str, **labels: str) -> list[str]:
    """Command line of one job, its files below the folder ``results``."""

    class Labels:
        def __getattr__(self, name: str) -> str:
            return labels[name]

    outputs = {"network": ("network", "training")}.get(stage, (stage,))
    inputs = plan.inputs(stage, Labels())
    return [
        sys.executable, "-m", "sgm.run", stage, "--spec", plan.spec(stage, Labels()),
        "--seeds", "0-1", "--device", "cpu",
        "--input", *(f"{name}={path}" for name, path in inputs.items()),
        "--output", *(f"{kind}={plan.pattern(kind).format(**labels)}" for kind in outputs),
    ]  # fmt: skip


LABELS = {"target": "isotropic", "schedules": "beta_a=3", "horizon": "1", "score": "trained",
          "seeds": "0-1"}  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "training" not in path.parts  # it holds the seconds it took
    }


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    """A limit on the size of a file, met in the middle of the write; then none."""
    plan = Plan(Study.parse(tiny()), tmp_path / "results")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    for stage in ("data", "network"):
        command = job(plan, stage, **LABELS)
        path = plan.pattern(stage).format(**LABELS)
        before = digests(plan.root)
        failed = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True)
        assert failed.returncode == 1
        assert failed.stderr.strip() == f"{stage}: [Errno 27] File too large: '{path}'"
        assert digests(plan.root) == before
        assert subprocess.run(command).returncode == 0
        assert digests(plan.root).keys() - before.keys() == {str(Path(path).relative_to(plan.root))}


SCRIPT = """
set -e
mount -t tmpfs -o size=64k tmpfs "$1"; mkdir "$1/results"
shift 0; folder="$1"; shift
head -c 60k /dev/zero > "$folder/filler"
"$@" || echo "status $?"
ls -A "$folder/results/data/isotropic"
mount -o remount,ro "$folder"; "$@" || echo "status $?"; mount -o remount,rw "$folder"
rm "$folder/filler"
"$@" && sha256sum < "$folder/results/data/isotropic/seeds_0-1.npz"
"""


def test_a_full_and_a_read_only_file_system(tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    probe = [*inside, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs a kernel that lets a user mount a tmpfs in a namespace")
    disk = tmp_path / "disk"
    disk.mkdir()
    plan = Plan(Study.parse(tiny()), disk / "results")
    command = job(plan, "data", **LABELS)
    finished = subprocess.run(
        [*inside, "sh", "-c", SCRIPT, "sh", str(disk), *command], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    path = plan.pattern("data").format(**LABELS)
    assert finished.stderr.splitlines() == [
        f"data: [Errno 28] No space left on device: '{path}'",
        f"data: [Errno 30] Read-only file system: '{path}'",
    ]
    *statuses, digest = finished.stdout.splitlines()
    assert statuses == ["status 1", "status 1"]  # and nothing half-written in between
    assert subprocess.run(command).returncode == 0
    assert digest.split()[0] == digests(disk)["results/data/isotropic/seeds_0-1.npz"]


@pytest.mark.parametrize("stage", ["data", pytest.param("network", marks=pytest.mark.slow)])
def test_too_little_memory_is_one_line(tmp_path: Path, stage: str) -> None:
    """NumPy's refusal, and torch's; with enough memory the job then gives its numbers."""
    recipe = tiny()["scores"][-1]["recipe"] | {"width": 2**14, "layers": 20}
    score = {"family": "trained", "recipe": recipe}
    wide = tiny()["targets"][0] | {"dimension": 1000}
    changes = {"data": {"n_train": 10**8, "targets": [wide]}, "network": {"scores": [score]}}[stage]
    plan = Plan(Study.parse(tiny(**changes)), tmp_path / "results")
    assert (
        subprocess.run(job(Plan(Study.parse(tiny()), plan.root), "data", **LABELS)).returncode == 0
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))

    failed = subprocess.run(
        job(plan, stage, **LABELS), preexec_fn=limited, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{stage}: out of memory: ")
    assert len(failed.stderr.strip().splitlines()) == 1


def test_a_job_told_to_read_damage_names_it(tmp_path: Path, capsys: Any) -> None:
    plan = Plan(Study.parse(tiny()), tmp_path)
    data = Path(plan.pattern("data").format(**LABELS))
    data.parent.mkdir(parents=True)
    data.write_bytes(b"PK")
    assert main(job(plan, "network", **LABELS)[3:]) == 1
    assert capsys.readouterr().err.startswith(f"network: {data}: not a readable result file")
    assert not Path(plan.pattern("network").format(**LABELS)).exists()
