"""The table of docs/samplers.md: every sampler, what it costs and the weak order that it has.

    python docs/samplers.py

measures the orders on exact laws and writes the table into docs/samplers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgm import laws, samplers, scores, targets, timegrids
from sgm.gaussian import Gaussian
from sgm.kinetic import KineticProcess
from sgm.processes import Process, VEProcess, VPProcess
from sgm.registry import lookup
from sgm.samplers import Steps
from sgm.schedules import BetaSchedule, GeometricSchedule

HERE = Path(__file__).parent
BEGIN, END = "<!-- made by docs/samplers.py -->", "<!-- end of what it made -->"
LAW = targets.correlated(dimension=4, mean=1.0, offset=1.0).law
PROCESSES: dict[str, Process] = {
    "VP": VPProcess(BetaSchedule(horizon=1.0, a=2.0, beta_min=0.1, beta_max=20.0), variance=1.0),
    "VE": VEProcess(GeometricSchedule(horizon=1.0, sigma_min=0.05, sigma_max=3.0)),
    "kinetic": KineticProcess(BetaSchedule(horizon=1.0, a=2.0, beta_min=0.1, beta_max=5.0)),
}
SDE, FLOW = "backward SDE", "probability flow"


class Row(NamedTuple):
    """A sampler with values of its parameters; what it tends to: "" a law of its own, or none."""

    build: Callable[..., Steps]
    source: str
    limit: str
    parameters: str = ""
    draws: int = 1  # over which the error is a root mean square, of random times


def rows() -> Iterator[Row]:
    paper, kl = "Strasman et al., 2402.04650", "Le Corff, “Most times …”"
    ddpm, ddim = "Ho et al., 2006.11239", "Song et al., 2010.02502"
    song = "Song et al., 2011.13456"
    yield Row(samplers.exponential_integrator_modified, kl, SDE)
    yield Row(samplers.exponential_integrator, paper, SDE)
    yield Row(samplers.euler_maruyama, song, SDE)
    yield Row(samplers.euler_arrival, "code of 2402.04650", SDE)
    yield Row(samplers.ancestral, ddpm, SDE)
    yield Row(samplers.ancestral_small, ddpm, SDE)
    yield Row(samplers.exponential_runge_kutta, "Cox and Matthews 2002", SDE)
    yield Row(samplers.exponential_runge_kutta_modified, "Cox and Matthews 2002", SDE)
    midpoint = partial(samplers.randomised_midpoint, times_seed=0)
    yield Row(midpoint, "Shen and Lee, 1909.05503", SDE, "100 seeds", draws=100)
    yield Row(samplers.probability_flow_euler, song, FLOW)
    yield Row(partial(samplers.ddim, eta=0.0), ddim, FLOW, "eta = 0")
    yield Row(samplers.heun, "Karras et al., 2206.00364", FLOW)
    yield Row(partial(samplers.edm, s_churn=5.0), "Karras et al., 2206.00364", "", "s_churn = 5")
    restart = partial(samplers.restart, restarts=2, low=0.0625, high=0.25)
    told = "restarts = 2, low = 1/16, high = 1/4"
    yield Row(restart, "Xu et al., 2306.14878", "", told)
    yield Row(samplers.dpm_solver_2s, "Lu et al., 2206.00927", FLOW)
    yield Row(samplers.dpm_solver_pp_2s, "Lu et al., 2211.01095", FLOW)
    for eta, limit in ((0.0, FLOW), (1.0, SDE)):
        multistep = partial(samplers.dpm_solver_pp_2m, eta=eta)
        yield Row(multistep, "Lu et al., 2211.01095", limit, f"eta = {eta:g}")
    for order in (1, 2, 3):
        deis = partial(samplers.deis, order=order)
        yield Row(deis, "Zhang and Chen, 2204.13902", FLOW, f"order = {order}")
    yield Row(samplers.unipc, "Zhao et al., 2302.04867", FLOW)
    for order in (1, 2, 3):
        er_sde = partial(samplers.er_sde, order=order)
        yield Row(er_sde, "Cui et al., 2309.06169", "", f"order = {order}")
    corrector = partial(samplers.predictor_corrector, corrector_steps=1, step_size=0.01)
    yield Row(corrector, song, "none", "corrector_steps = 1, step_size = 0.01")
    corrector = partial(samplers.predictor_corrector_snr, corrector_steps=1, snr=0.16)
    yield Row(corrector, song, "none", "corrector_steps = 1, snr = 0.16")
    langevin = partial(samplers.annealed_langevin, langevin_steps=2, step_size=0.1)
    yield Row(langevin, "Song and Ermon, 1907.05600", "none", "langevin_steps = 2, step_size = 0.1")
    plain = partial(samplers.langevin, step_size=0.01)
    yield Row(plain, "Roberts and Tweedie, 1996", "none", "step_size = 0.01")
    yield Row(samplers.kinetic_euler_maruyama, "Strasman et al., 2511.02419", SDE)
    yield Row(samplers.sscs, "Dockhorn et al., 2112.07068", SDE)
    yield Row(samplers.kinetic_ancestral, "here", SDE)


def family(row: Row) -> str:
    builder = row.build.func if isinstance(row.build, partial) else row.build
    return builder.__name__


def name(row: Row) -> str:
    """The family, with the values of its parameters."""
    return f"`{family(row)}`" + (f", {row.parameters}" if row.parameters else "")


def takes(row: Row, process: Process) -> bool:
    """Whether a sampler has the process."""
    if bool(lookup("sampler", family(row)).process) != isinstance(process, KineticProcess):
        return False
    try:
        row.build(process, timegrids.quadratic(1.0, 16))
    except ValueError:
        return False
    return True


def moments(row: Row, process: Process, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean and variances of the output with the exact score."""
    steps = row.build(process, times)
    return _moments(laws.sampler_law(steps, scores.exact(process, LAW), process.prior(4)))


def _moments(law: Gaussian) -> npt.NDArray[np.float64]:
    return np.concatenate([LAW.rotate(law.mean), law.eigenvalues])


def order(
    row: Row, process: Process, grid: Callable[[float, int], npt.NDArray[np.float64]], n: int
) -> float:
    """log₂ of the error of N steps over that of 2N; of schemes of unknown limit, of its fall."""
    if row.draws > 1:
        each = [row._replace(build=partial(row.build, times_seed=k)) for k in range(row.draws)]
    else:
        each = [row]
    found = [
        np.array([moments(one, process, grid(1.0, steps)) for one in each])
        for steps in (n, 2 * n, 4 * n)
    ]
    limits = {SDE: laws.reverse_sde_limit, FLOW: laws.probability_flow_limit}
    if row.limit in limits:
        limit = _moments(limits[row.limit](process, LAW))
        errors = [np.linalg.norm(one - limit) for one in found[1:]]
    else:
        errors = [np.linalg.norm(a - b) for a, b in pairwise(found)]
    return float(np.log2(errors[0] / errors[1]))


def line(row: Row, n: int = 256) -> str:
    """A row in Markdown."""
    process = next(process for process in PROCESSES.values() if takes(row, process))
    steps = row.build(process, timegrids.quadratic(1.0, 10))
    noise = "yes" if np.any(steps.noise) else "no"
    limit = {"": "a law of its own", "none": "–"}.get(row.limit, row.limit)
    told = [name(row), row.source, limit, noise, str(steps.nfe)]
    for process in PROCESSES.values():
        for grid in (timegrids.uniform, timegrids.quadratic):
            known = row.limit != "none" and takes(row, process)
            told.append(f"{order(row, process, grid, n):.1f}" if known else "–")
    return f"| {' | '.join(told)} |"


def table() -> str:
    """All rows, below their header."""
    orders = [f"{grid}, {process}" for process in PROCESSES for grid in ("uniform", "quadratic")]
    header = ["sampler", "source", "tends to", "noise", "NFE, N = 10", *orders]
    rule = ["---"] * 4 + ["---:"] * (1 + len(orders))
    lines = [*(f"| {' | '.join(cells)} |" for cells in (header, rule)), *map(line, rows())]
    return "\n".join([BEGIN, "", *lines, "", END])


def main() -> None:
    page = HERE / "samplers.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(before + table() + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
