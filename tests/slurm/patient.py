"""A user's file: a bound that never ends in a Slurm job of one minute, and is 1 elsewhere."""

import os
import subprocess
import time

from sgm.study import Variable, register


@register("bound", variables=[Variable("patience", ("target", "schedule", "horizon"), "one", "1")])
def patient(process):
    """1, given two minutes."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None:
        ask = ["squeue", "--noheader", "--format=%l", f"--jobs={job}"]
        if subprocess.check_output(ask, text=True).strip() == "1:00":
            time.sleep(3600)
    return {"patience": 1.0}
