"""One thread a process, as in the workflow's jobs: numbers are then bit-identical. No display."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and torch are imported
os.environ["MPLBACKEND"] = "agg"
