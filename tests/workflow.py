"""Run the real workflow on small studies, in a folder of its own."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import xarray as xr
import yaml

from sgm.run.__main__ import main
from sgm.store.grid import open_grid
from sgm.study import Plan
from tests import planner

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/data/tiny.yaml"


#: In an order in which each finds its input files.
STAGES = (
    "data", "network", "reference", "samples", "bounds", "likelihood", "divergences", "floors",
    "pictures", "exact", "learned", "priors", "axes",
)  # fmt: skip


def run_jobs(plan: Plan, stages: Sequence[str] = STAGES) -> None:
    """All jobs of some stages, in one process, with the command line that the rules build."""
    device = plan.study.device
    for stage in stages:
        for labels in plan.cells(stage):
            wildcards = SimpleNamespace(**labels)
            outputs = [f"{stage}={plan.pattern(stage).format(**labels)}"]
            if stage == "network":
                outputs.append(f"training={plan.pattern('training').format(**labels)}")
            words = ["--spec", plan.spec(stage, wildcards), "--output", *outputs]
            words += ["--device", device, "--seeds", labels.get("seeds", "0-0"), "--input"]
            inputs = plan.inputs(stage, wildcards)
            words += [f"{name}={path}" for name, path in inputs.items()]
            assert main([stage, *words]) == 0, (stage, labels)


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny study's config, with some keys changed."""
    return copy.deepcopy(yaml.safe_load(TINY.read_text())) | changes


@dataclass(frozen=True)
class Workflow:
    """A folder in which one study runs.

    Parameters
    ----------
    folder : Path
        Holds the config, `results` and `.snakemake`.
    checkout : Path
        Folder with the Snakefile and the `sgm` to run; the repository by default.
    """

    folder: Path
    checkout: Path = ROOT

    def write(self, config: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "study.yaml").write_text(yaml.safe_dump(config))

    def command(self, *options: str) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(self.checkout / "Snakefile"),
        ]
        command += ["--configfile", "study.yaml", "--directory", str(self.folder)]
        command += ["--profile", "none", "--scheduler", "greedy", "--cores", "2"]
        return [*command, "--rerun-incomplete", "--keep-going", *options]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PYTHONPATH": str(self.checkout), "PATH": path}

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        return subprocess.run(
            self.command(*options),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def dry_run(self) -> subprocess.CompletedProcess[str]:
        """Let Snakemake plan, in a fork of one that has imported all where the code allows it."""
        if self.checkout != ROOT or type(self) is not Workflow:
            return self.run("--dry-run")
        words = self.command("--dry-run")[3:]  # but for python -m snakemake
        return planner.run(words, self.folder, self.environment)

    def make(self, config: dict[str, Any]) -> xr.Dataset:
        """Run a study that must succeed, and open its grid."""
        self.write(config)
        finished = self.run()
        assert finished.returncode == 0, finished.stderr[-4000:]
        return self.grid

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    @property
    def grid(self) -> xr.Dataset:
        return open_grid(self.results / "grid.zarr")

    def planned(self, config: dict[str, Any] | None = None) -> dict[str, int]:
        """Jobs that Snakemake would run, by rule."""
        if config is not None:
            self.write(config)
        finished = self.dry_run()
        assert finished.returncode == 0, finished.stderr[-4000:]
        text = finished.stdout + finished.stderr
        table = text.split("Job stats:")[1] if "Job stats:" in text else ""
        rows = re.findall(r"^(\w+) +(\d+)$", table.split("\n\n")[0], flags=re.MULTILINE)
        return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}

    def forget(self) -> None:
        """Lose what Snakemake has noted of earlier runs."""
        shutil.rmtree(self.folder / ".snakemake", ignore_errors=True)

    def copy(self, folder: Path) -> Workflow:
        """The same study, results and bookkeeping included, elsewhere."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workflow(folder)
