# The study and its plan: what all other rules read. No logic here; see sgm/study.
import os
import sys
from pathlib import Path

from snakemake.logging import logger

from sgm.run.check import check
from sgm.run.inventory import disk
from sgm.run.jobs import stamps
from sgm.study import Plan, Study
from sgm.study.blocks import CELLS as CELL_KINDS
from sgm.study.blocks import OUTPUTS, PATTERNS
from sgm.study.document import read_config

try:
    inherited = {}
    for path in workflow.configfiles:
        inherited |= read_config(
            path
        )  # refuses what YAML reads otherwise than it looks
    config.pop("extends", None)
    study = Study.parse(inherited | config)
    check(study)
except ValueError as error:
    sys.exit(str(error))  # one line: a WorkflowError prints where it was raised too

plan = Plan(study, Path("results") / study.study)

# `all` lists the cells too: one that was deleted is made again, though the grid stands.
CELLS = [path for kind in CELL_KINDS for path in plan.files(kind)]
NETWORKS = plan.files("network")
FIGURES = [
    f"{plan.root}/figures/{stem}.{suffix}"
    for stem in plan.figures()
    for suffix in ("png", "pdf", "csv")
]
TABLES = [
    f"{plan.root}/tables/{name}"
    for name in (
        "summary.csv",
        "ranking.csv",
        "comparison.csv",
        "horizons.csv",
        "leaderboard.csv",
        "leaderboard_targets.csv",
        "comparison.txt",
        "answers.txt",
    )
]


if workflow.is_main_process:
    for notice in plan.notices():
        logger.warning(notice)


# A job whose input is dated in the future fails: its output would be older.
onstart:
    disk.date_back(plan)


# glibc hands large freed blocks back to the kernel, and a job pays for them again in page
# faults: up to a third of the time of sampling.
for setting in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
    os.environ.setdefault(setting, str(2**30))


wildcard_constraints:
    target="[^/]+",
    schedule="[^/]+",
    schedules="[^/]+",
    horizon="[^/]+",
    score="[^/]+",
    sampler="[^/]+",
    time_grid="[^/]+",
    n_steps=r"\d+",
    seeds=r"\d+-\d+",


def spec(stage):
    """The params function of a stage: one canonical JSON string.

    Jobs of the whole study take it from standard input: Linux allows an argument 128 KiB,
    which is a thousand schedules.
    """
    return lambda wildcards: plan.spec(stage, wildcards)


def inputs(stage):
    """The input function of a stage, whose stale files are made again.

    Snakemake learns that a job would be told something else from a record of its own,
    `.snakemake`. Where that is lost, in a clone with the results copied, the files know.
    """

    def of(wildcards):
        force(lambda: plan.is_stale(stage, wildcards), outputs(stage, wildcards))
        return plan.inputs(stage, wildcards)

    return of


def view(name, files):
    """The input function of a view, made again if it is not what its stamp says."""

    def of(wildcards):
        force(lambda: stamps.is_stale(plan, name), [plan.stamp(name)])
        return files

    return of


def outputs(stage, wildcards):
    """Files of the job of a stage."""
    kinds = OUTPUTS.get(stage, (stage,))
    return [plan.pattern(kind).format(**dict(wildcards.items())) for kind in kinds]


def force(is_stale, files):
    """Have a job run if its files are stale: asked once, where Snakemake plans the jobs.

    Not `--forcerun`: what it names becomes a target, and temporary files would stay.
    """
    if workflow.is_main_process:
        try:
            if is_stale():
                workflow.dag.forcefiles.update(files)
        except ValueError as error:
            raise WorkflowError(str(error))


def log(kind):
    """The log of the job that makes a kind of file."""
    return f"{plan.root}/logs/{PATTERNS[kind]}.log"


def times(kind):
    """The benchmark of the job that makes a kind of file."""
    return f"{plan.root}/benchmarks/{PATTERNS[kind]}.tsv"


def named(wildcards, input):
    """Input files as NAME=PATH words for the command line."""
    return [f"{name}={path}" for name, path in input.items()]
