"""CPU seconds of the paper's figure in exact mode, from the published grid: `sgm.plot`.

Each repetition is a process of its own. Imports are those of matplotlib, pandas, xarray, Zarr and
seaborn; the figure is loaded and drawn on two axes, as in the README, and rendered.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

SCRIPT = """
import json, time
marks = [time.process_time()]
mark = lambda: marks.append(time.process_time())
import sgm
mark()
import matplotlib.pyplot as plt
import pandas, seaborn, xarray, zarr.storage
mark()
sgm.plot
mark()
grid = sgm.load_published("exact-kl")
mark()
cells = {"target": "correlated", "score": "exact", "sampler": "exponential_integrator_modified"}
figure, (above, below) = plt.subplots(2, sharex=True, layout="constrained")
sgm.plot.bound(grid, "kl_bound", ax=above, **cells)
sgm.plot.divergence(grid, "kl", ax=below, **cells)
mark()
figure.canvas.draw()
mark()
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
STEPS = ("import sgm", "import of libraries", "import sgm.plot", "load", "draw", "render")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT], text=True))
        for _ in range(repeats)
    ]
    for step, seconds in zip(STEPS, zip(*runs, strict=True), strict=True):
        print(f"{step:20} {statistics.median(seconds):.3f} ({min(seconds):.3f} at least)")


if __name__ == "__main__":
    main()
