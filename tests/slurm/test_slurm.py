"""Studies on a real one-node Slurm: the numbers of a local run, and what accidents cost.

Run by ``make test-slurm``, as root on a Debian machine without a Slurm of its own.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow import ROOT, Workflow, tiny

HERE = Path(__file__).parent
PROFILES = ROOT / "profiles"
GRID = "results/tiny/views/grid.json"
ACTIVE = {"PENDING", "RUNNING", "COMPLETING"}
BETA_3 = [{"family": "beta_a", "a": [3], "beta_min": 0.1, "beta_max": 20.0}]
TRAINED = tiny(schedules=BETA_3, seeds=1, seeds_per_job=1)
EXACT = TRAINED | {
    "scores": [{"family": "exact", "sampled": True}],
    "bounds": ["kl", "patient"],
    "divergences": ["gaussian_kl", "hungry"],
    "extensions": [str(HERE / "patient.py")],
}


@dataclass(frozen=True)
class Job:
    """A job as Slurm remembers it."""

    number: str
    rule: str
    state: str
    partition: str
    memory: str
    time_limit: str


@dataclass(frozen=True)
class SlurmWorkflow(Workflow):
    """A study on Slurm, under the profile that the repository ships and a user's own.

    Parameters
    ----------
    folder, checkout
        See `Workflow`.
    targets : tuple of str
        What to make; all of it if empty.
    profile : Path
        The workflow profile.
    polling : tuple of str
        Options that make it ask for the state of its jobs more often.
    """

    targets: tuple[str, ...] = ()
    profile: Path = PROFILES / "slurm"
    polling: tuple[str, ...] = ("--slurm-init-seconds-before-status-checks", "4")

    def command(self, *options: str) -> list[str]:
        site = self.folder / "site.yaml"
        site.write_text("default-resources: {slurm_partition: site, slurm_account: users}\n")
        command = [sys.executable, "-m", "snakemake", *self.targets]
        command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        command += ["--configfile", "study.yaml"]
        command += ["--profile", str(site), "--workflow-profile", str(self.profile)]
        return [*command, *self.polling, *options]

    def start(self) -> subprocess.Popen[bytes]:
        """Start Snakemake, and leave it running."""
        with (self.folder / "snakemake.log").open("ab") as log:
            return subprocess.Popen(
                ["env", "--default-signal=INT", *self.command()],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def finish(self, snakemake: subprocess.Popen[bytes]) -> None:
        """Wait for a run that must succeed."""
        assert snakemake.wait(600) == 0, (self.folder / "snakemake.log").read_text()[-4000:]

    def jobs(self) -> list[Job]:
        """All jobs of this folder, in the order of submission."""
        listed = subprocess.check_output(["scontrol", "--oneliner", "show", "jobs"], text=True)
        jobs = []
        for line in listed.splitlines():
            fields = dict(re.findall(r"(\S+?)=(\S*)", line))
            if fields.get("WorkDir") == str(self.folder):
                # the plugin writes rule_NAME_… in the comment, cluster-generic sgm-NAME as the name
                named = f"{fields.get('Comment', '')} {fields['JobName']}"
                rule = re.search(r"\b(?:rule_|sgm-)([a-z]+)", named)
                assert rule is not None, line
                memory = re.search(r"mem=(\w+)", fields["TRES"])
                assert memory is not None, line
                jobs.append(
                    Job(fields["JobId"], rule[1], fields["JobState"], fields["Partition"],
                        memory[1], fields["TimeLimit"])
                )  # fmt: skip
        return sorted(jobs, key=lambda job: int(job.number))

    def attempts(self) -> dict[str, list[Job]]:
        """The jobs of each rule."""
        attempts = defaultdict(list)
        for job in self.jobs():
            attempts[job.rule].append(job)
        return attempts

    def active(self) -> list[Job]:
        return [job for job in self.jobs() if job.state in ACTIVE]

    def cells(self) -> set[str]:
        """Files of the study, hidden ones included, but for logs and benchmarks."""
        files = (path for path in self.results.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.results)) for path in files}
        return {name for name in names if name.split("/")[0] not in ("logs", "benchmarks")}


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first true answer of a function, asked twice a second."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.5)
    return answer


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    state = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([HERE / "start.sh", state], check=True)
        yield
    finally:
        subprocess.run([HERE / "stop.sh", state], check=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> SlurmWorkflow:
    """The study with the exact score, run without Slurm."""
    folder = tmp_path_factory.mktemp("local") / "exact"
    Workflow(folder).write(EXACT)
    finished = Workflow(folder).run(GRID)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return SlurmWorkflow(folder)


def test_the_numbers_are_those_of_a_local_run(tmp_path: Path) -> None:
    study = SlurmWorkflow(tmp_path / "slurm")
    study.write(TRAINED)
    snakemake = study.start()
    here = Workflow(tmp_path / "local").make(TRAINED)
    study.finish(snakemake)
    assert study.grid.content_sha256 == here.content_sha256
    assert study.cells() == SlurmWorkflow(tmp_path / "local").cells()
    attempts = study.attempts()
    assert set(attempts) == {"data", "train", "sample", "evaluate", "bound", "exact"}
    for jobs in attempts.values():
        assert [(job.state, job.partition) for job in jobs] == [("COMPLETED", "site")]


def test_a_job_that_is_cancelled_or_outgrows_its_limits_is_run_again_with_more(
    local: SlurmWorkflow, tmp_path: Path
) -> None:
    profile = yaml.safe_load((PROFILES / "slurm/config.yaml").read_text())
    # see patient.py
    profile["set-resources"]["evaluate"]["mem_mb"] = "1000 + 3000 * (attempt - 1)"
    profile["set-resources"]["exact"]["runtime"] = "attempt"
    (tmp_path / "tight").mkdir()
    (tmp_path / "tight/config.yaml").write_text(yaml.safe_dump(profile))
    study = SlurmWorkflow(tmp_path / "study", targets=(GRID,), profile=tmp_path / "tight")
    study.write(EXACT)
    snakemake = study.start()

    def running_data() -> list[Job]:
        return [job for job in study.attempts()["data"] if job.state == "RUNNING"]

    subprocess.run(["scancel", wait_for(running_data)[0].number], check=True)
    study.finish(snakemake)

    attempts = study.attempts()
    assert [(job.state, job.memory, job.time_limit) for job in attempts["data"]] == [
        ("CANCELLED", "2000M", "00:30:00"),
        ("COMPLETED", "4000M", "01:00:00"),
    ]
    assert [job.memory for job in attempts["evaluate"]] == ["1000M", "4000M"]
    assert attempts["evaluate"][0].state in ("FAILED", "OUT_OF_MEMORY")
    assert [(job.state, job.time_limit) for job in attempts["exact"]] == [
        ("TIMEOUT", "00:01:00"),
        ("COMPLETED", "00:02:00"),
    ]
    assert study.grid.content_sha256 == local.grid.content_sha256
    assert study.cells() == local.cells()


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_snakemake_loses_and_doubles_nothing(
    local: SlurmWorkflow, tmp_path: Path, blow: signal.Signals
) -> None:
    study = SlurmWorkflow(tmp_path / "study", targets=(GRID,))
    study.write(EXACT)
    snakemake = study.start()
    wait_for(lambda: any(job.state == "RUNNING" for job in study.jobs()))
    snakemake.send_signal(blow)
    assert snakemake.wait(timeout=60) != 0
    if blow == signal.SIGINT:
        wait_for(lambda: not study.active())
        assert "CANCELLED" in {job.state for job in study.jobs()}
    else:
        # the jobs run on; the next Snakemake doesn't know of them, and submits their twins
        assert study.active()
        assert study.run("--unlock").returncode == 0

    finished = study.run()
    assert finished.returncode == 0, finished.stderr[-4000:]
    wait_for(lambda: not study.active())
    assert study.grid.content_sha256 == local.grid.content_sha256
    assert study.cells() == local.cells()
    assert study.planned() == {}


def test_cluster_generic_runs_a_cancelled_job_again(tmp_path: Path) -> None:
    """With Slurm's own qsub, qstat and qdel in the place of PBS."""
    study = SlurmWorkflow(
        tmp_path / "study",
        targets=tuple(f"results/tiny/data/isotropic/seeds_{i}-{i}.npz" for i in range(3)),
        profile=PROFILES / "cluster-generic",
        polling=("--seconds-between-status-checks", "2", "--latency-wait", "5"),
    )
    study.write(TRAINED | {"seeds": 3})
    snakemake = study.start()
    running = wait_for(lambda: [job for job in study.jobs() if job.state == "RUNNING"])
    subprocess.run(["scancel", running[0].number], check=True)
    study.finish(snakemake)
    jobs = study.jobs()
    assert sorted(job.state for job in jobs) == ["CANCELLED", *3 * ["COMPLETED"]]
    assert {(job.rule, job.time_limit) for job in jobs} == {
        ("data", "00:30:00"),
        ("data", "01:00:00"),
    }
    assert all((study.folder / target).is_file() for target in study.targets)
