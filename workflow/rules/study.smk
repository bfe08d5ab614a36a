# The study and its plan: what all other rules read. No logic here; see sgm/study.
import os
from pathlib import Path

from sgm.run.check import check
from sgm.study import Plan, Study
from sgm.study.document import read_config
from sgm.study.plan import PATTERNS

try:
    for path in workflow.configfiles:  # what Snakemake has read without a word on it
        read_config(path)
    study = Study.parse(config)
    check(study)
except ValueError as error:
    raise WorkflowError(str(error))

plan = Plan(study, Path("results") / study.study)

# `all` lists the cells too: one that was deleted is made again, though the grid stands.
CELLS = [
    path
    for kind in (
        "training",
        "divergences",
        "floors",
        "bounds",
        "likelihood",
        "exact",
        "pictures",
        "axes",
    )
    for path in plan.files(kind)
]
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
        "comparison.txt",
    )
]


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
    """The input function of a stage."""
    return lambda wildcards: plan.inputs(stage, wildcards)


def log(kind):
    """The log of the job that makes a kind of file."""
    return f"{plan.root}/logs/{PATTERNS[kind]}.log"


def times(kind):
    """The benchmark of the job that makes a kind of file."""
    return f"{plan.root}/benchmarks/{PATTERNS[kind]}.tsv"


def named(wildcards, input):
    """Input files as NAME=PATH words for the command line."""
    return [f"{name}={path}" for name, path in input.items()]
