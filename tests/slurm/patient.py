"""A user's file: a bound and a divergence of 1, which outgrow some Slurm jobs on purpose."""

import os
import subprocess
import time

import numpy as np
import numpy.typing as npt

from sgm.processes import Process
from sgm.registry import Variable, register
from sgm.variables import REPLICATE

Array = npt.NDArray[np.float64]


def asked(column: str) -> str:
    """What the Slurm job asked for; empty outside one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return ""
    ask = ["squeue", "--noheader", f"--format={column}", f"--jobs={job}"]
    return subprocess.check_output(ask, text=True).strip()


@register("bound", variables=[Variable("patience", ("target", "schedule", "horizon"), "one", "1")])
def patient(process: Process) -> dict[str, float]:
    """1, given two minutes."""
    if asked("%l") == "1:00":
        time.sleep(3600)
    return {"patience": 1.0}


@register("divergence", variables=[Variable("appetite", REPLICATE, "one", "1")])
def hungry(generated: Array) -> dict[str, float]:
    """1, given more than 1000 MB, which it takes, and holds until Slurm has looked."""
    if asked("%m") in ("1000M", "1000"):
        taken = bytearray(1500 * 2**20)
        taken[::4096] = b"1" * len(taken[::4096])  # a page counts once it is written to
        time.sleep(3600)
    return {"appetite": 1.0}
