"""How planning, running, gathering and drawing grow with the number of cells of a study.

Each step is measured on studies of growing numbers of schedules, everything else fixed, in CPU
seconds of this process or of the Snakemake that it starts (with all its jobs). If a step
takes c nᵖ, p is the slope of log time against log n: 1 is linear, less where a constant part
remains.

    plan         `snakemake --dry-run` of sampled perturbed scores: 2 targets × schedules × 5
                 scores × 4 N × 10 seeds, in blocks of 10 schedules × 10 seeds
    gather …     the views of such a study, whose cell files are filled with random numbers
    run …        exact laws with the bounds kl and w2, d = 10: 2 targets × schedules × 4 scores ×
                 2 N, from the config to the grid less the mathematics itself, which is the
                 stage's function called once more in this process; then figures and tables

    python benchmarks/scaling.py [--figure docs/figures/scaling.png]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np
import yaml

from sgm import plots, tables
from sgm.gather import gather
from sgm.plots.engine import house_style
from sgm.run.jobs import theory
from sgm.store.cells import write_cells
from sgm.store.grid import open_grid, write_grid
from sgm.study import Plan, Study

ROOT = Path(__file__).parents[1]
SCHEDULES = (31, 62, 125, 250)
VARIABLES = (
    "kl_plugin", "kl_unbiased", "kl_standard_error", "kl_floor", "kl_floor_sd",
    "w2_plugin", "w2_unbiased", "w2_standard_error", "w2_floor",
)  # fmt: skip

Timings = dict[str, dict[int, float]]  # step → size → seconds


def config(n_schedules: int, **changes: Any) -> dict[str, Any]:
    """A study of two Gaussian targets in d = 10."""
    gaussian = {"dimension": 10, "mean": 1.0}
    a = np.linspace(-10, 10, n_schedules).round(6).tolist()
    return {
        "study": "scaling",
        "study_seed": 1,
        "seeds": 10,
        "seeds_per_job": 10,
        "schedules_per_job": 10,
        "process": {"family": "vp", "variance": 1.0},
        "horizons": [1.0],
        "targets": [
            {"family": "isotropic", **gaussian, "variance": 0.5},
            {"family": "correlated", **gaussian, "offset": 1.0},
        ],
        "schedules": [{"family": "beta_a", "a": a, "beta_min": 0.1, "beta_max": 20.0}],
        "scores": [{"family": "scaled", "eps": [0.1, 0.2, 0.3, 0.4, 0.5], "sampled": True}],
        "samplers": ["exponential_integrator_modified"],
        "time_grids": ["uniform"],
        "n_steps": [10, 20, 50, 100],
        "n_train": 1000,
        "n_samples": 1000,
        "n_score_error": 100,
        "divergences": ["gaussian_kl", "gaussian_w2"],
        "bounds": ["kl", "w2"],
        "likelihood": None,
        "pictures": None,
        "keep_samples": False,
        "device": "cpu",
        "extensions": [],
    } | changes


def exact_config(n_schedules: int) -> dict[str, Any]:
    """The same without replicates."""
    scores = [{"family": "exact", "sampled": False},
              {"family": "scaled", "eps": [0.1, 0.2, 0.3], "sampled": False}]  # fmt: skip
    return config(n_schedules, scores=scores, n_steps=[50, 100], seeds=1)


@contextmanager
def timed(timings: Timings, step: str, size: int) -> Iterator[None]:
    """Note the CPU time of a block of code."""
    started = time.process_time()
    yield
    timings[step][size] = time.process_time() - started


def snakemake(study: dict[str, Any], folder: Path, *options: str) -> tuple[float, float]:
    """CPU seconds and wall seconds of a run of the workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", "study.yaml", "--directory", str(folder), "--cores", "2"]
    command += ["--profile", "none", "--scheduler", "greedy", "--quiet", "all", *options]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def measure_plan(timings: Timings, folder: Path) -> None:
    """A dry run, and the memory that it takes."""
    for n in SCHEDULES:
        study = config(n)
        timings["plan"][400 * n], wall = snakemake(study, folder / "plan", "--dry-run")
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"plan: {400 * n} cells, {wall:.0f} s wall, {memory:.2f} GB at most", flush=True)


def measure_run(timings: Timings, folder: Path) -> None:
    """An exact study to its grid, less the mathematics, and from there to its end."""
    for n in SCHEDULES[:-1]:  # up to 2000 cells
        cells, root, study = 16 * n, folder / f"exact-{n}", exact_config(n)
        plan = Plan(Study.parse(study), root / "results/scaling")
        cpu, wall = snakemake(study, root, "--", "results/scaling/views/grid.json")
        started = time.process_time()
        for labels in plan.cells("exact"):
            spec = json.loads(plan.spec("exact", argparse.Namespace(**labels)))
            theory.exact(spec, range(1), {}, {"exact": root / "again.npz"}, "cpu")
        mathematics = time.process_time() - started
        views_cpu, views_wall = snakemake(study, root)
        timings["run to the grid"][cells] = cpu - mathematics
        timings["run, figures and tables"][cells] = views_cpu
        print(
            f"run: {cells} cells; to the grid {wall:.1f} s of wall, {cpu:.1f} s of CPU less "
            f"{mathematics:.1f} of mathematics: {1000 * (cpu - mathematics) / cells:.1f} ms of CPU "
            f"a cell; {len(plan.figures())} figures and the tables {views_wall:.1f} s of wall, "
            f"{views_cpu:.1f} of CPU",
            flush=True,
        )


def pretend(plan: Plan) -> None:
    """Write the cell files of a study with random numbers in them."""
    generator = np.random.default_rng(0)

    def numbers(shape: list[int]) -> Any:
        return generator.lognormal(size=shape)

    for labels in plan.cells("divergences"):
        shape = [labels["schedules"].count(",") + 1, plan.study.seeds]
        cells: dict[str, Any] = {name: numbers(shape) for name in VARIABLES}
        cells |= {"failed": np.zeros(shape, bool), "message": np.full(shape, "", np.str_)}
        write_cells(plan.pattern("divergences").format(**labels), cells, {})
    for labels in plan.cells("exact"):
        spec = json.loads(plan.spec("exact", argparse.Namespace(**labels)))
        sizes = {"schedule": len(spec["schedules"]), "horizon": 1, "score": len(spec["scores"]),
                 "sampler": 1, "time_grid": 1, "n_steps": len(spec["n_steps"])}  # fmt: skip
        cells = {
            name: numbers([sizes[axis] for axis in axes if axis in sizes])
            for name, axes in spec["variables"].items()
        }
        cells["score"] = np.array([score["label"] for score in spec["scores"]])
        write_cells(plan.pattern("exact").format(**labels), cells, {})
    spec = json.loads(plan.spec("axes", argparse.Namespace()))
    theory.axes(spec, range(1), {}, {"axes": Path(plan.pattern("axes"))}, "cpu")


def measure_views(timings: Timings, folder: Path) -> None:
    """The gather, the grid on disk, a figure of each sort and the tables."""
    for n in SCHEDULES:
        plan, cells = Plan(Study.parse(config(n)), folder / f"views-{n}"), 400 * n
        pretend(plan)
        with timed(timings, "gather", cells):
            dataset = gather(plan, {})
        store = plan.root / "grid.zarr"
        with timed(timings, "write the grid", cells):
            write_grid(dataset, store)
        with timed(timings, "open the grid", cells):
            grid = open_grid(store)
        files = sum(path.is_file() for path in store.rglob("*"))
        values = sum(variable.size for variable in grid.variables.values())
        print(f"views: {cells} cells, {len(plan.files('divergences'))} files of divergences, "
              f"{values} values in {files} files of the grid", flush=True)  # fmt: skip
        for stem in ("kl/isotropic", "kl_decomposition/isotropic"):
            with timed(timings, f"figure {stem.split('/')[0]}", cells):
                plots.save(*plots.draw(grid, stem), plan.root / "figures" / stem)
        with timed(timings, "tables", cells):
            tables.write_tables(grid, plan.root / "tables")


def exponent(seconds: dict[int, float]) -> float:
    """Slope of log time against log size."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def draw(timings: Timings) -> plt.Figure:
    """Time against cells, with the exponents."""
    with house_style():
        figure, axes = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
        for step, seconds in timings.items():
            sizes = sorted(seconds)
            axes.loglog(sizes, [seconds[n] for n in sizes], "o-", markersize=3,
                        label=f"{step}: {exponent(seconds):.2f}")  # fmt: skip
        sizes = np.array(axes.get_xlim())
        axes.loglog(sizes, 1e-4 * sizes, "--", color="0.6", linewidth=1, label="linear: 1")
        axes.set(xlabel="cells", ylabel="CPU time, s")
        figure.legend(title="exponent", loc="outside right upper", fontsize=7)
    return figure


MEASURES: dict[str, Callable[[Timings, Path], None]] = {
    "plan": measure_plan,
    "run": measure_run,
    "views": measure_views,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--figure", type=Path, help="where to draw it")
    options = parser.parse_args()
    timings: Timings = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            MEASURES[name](timings, Path(folder))
    print("\n| step | cells: CPU s | exponent |\n| --- | --- | ---: |")
    for step, seconds in timings.items():
        values = ", ".join(f"{n}: {seconds[n]:.3g}" for n in sorted(seconds))
        print(f"| {step} | {values} | {exponent(seconds):.2f} |")
    if options.figure:
        draw(timings).savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()
