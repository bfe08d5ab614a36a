"""Synthetic grids with known numbers: the views are tested against these, without a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

NOT_RUN, DONE, FAILED, NOT_APPLICABLE = range(4)
CELL = ("target", "schedule", "horizon", "score", "sampler", "time_grid", "n_steps")
GRID = (*CELL, "seed")

BEST_A = {"kl": 3.0, "kl_exact": 2.0, "bound": -2.0, "refined": 4.0, "path": 3.0}
FLOOR, FLOOR_SD = 0.0668, 0.0026


def synthetic_grid(
    *,
    a: Sequence[float] = tuple(range(-10, 11)),
    cosine: bool = True,
    constant: bool = False,
    targets: Sequence[str] = ("isotropic",),
    unknown_targets: Sequence[str] = (),
    horizons: Sequence[float] = (1.0,),
    scores: Sequence[str] = ("exact", "trained"),
    samplers: Sequence[str] = ("ei_modified",),
    n_steps: Sequence[int] = (500,),
    n_seeds: int = 10,
    noise: float = 0.01,
    scale: float = 1.0,
) -> xr.Dataset:
    """A grid whose KL and bounds are parabolas in a with their minima at `BEST_A`.

    Parameters
    ----------
    scores : sequence of str
        Families among exact, scaled, trained; the label is the family.
    noise : float
        Standard deviation over seeds of the empirical KL: most of it common to all
        schedules of a seed, so that paired differences are far less noisy.
    scale : float
        Factor of the curvature of the empirical KL.
    """
    names = [f"beta_a={value:g}" for value in a]
    families = ["beta_a"] * len(names)
    shape = [float(value) for value in a]
    for present, name in ((cosine, "cosine"), (constant, "constant")):
        if present:
            names, families, shape = [*names, name], [*families, name], [*shape, np.nan]
    every_target = [*targets, *unknown_targets]
    rng = np.random.default_rng(0)
    coords: dict[str, object] = {
        "target": every_target,
        "dimension": ("target", np.full(len(every_target), 50)),
        "law_known": ("target", [True] * len(targets) + [False] * len(unknown_targets)),
        "schedule": names,
        "family": ("schedule", families),
        "a": ("schedule", shape),
        "horizon": list(horizons),
        "score": list(scores),
        "score_family": ("score", list(scores)),
        "recipe": ("score", ["default" if s == "trained" else "" for s in scores]),
        "sampler": list(samplers),
        "kl_bound_proved": ("sampler", [s == "ei_modified" for s in samplers]),
        "time_grid": ["uniform"],
        "n_steps": list(n_steps),
        "seed": list(range(n_seeds)),
        "time_fraction": np.linspace(0, 1, 101),
    }
    grid = xr.Dataset(coords=coords)
    data: dict[str, xr.DataArray] = {}  # into a dataset at the end: setting one by one is slow
    known = grid.law_known
    trained = grid.score_family == "trained"
    # cosine and constant stand at a = 5 and a = −8 of the parabolas, a little higher
    place = grid.a.fillna(xr.where(grid.family == "cosine", 5.0, -8.0))
    extra = xr.where(grid.a.isnull(), 0.02, 0.0)
    ones = xr.DataArray(
        np.ones([grid.sizes[d] for d in CELL]), dims=CELL, coords={d: grid[d] for d in CELL}
    )
    sampler_factor = xr.DataArray(1 + 0.1 * np.arange(len(samplers)), dims="sampler")
    by_seed = xr.DataArray(rng.standard_normal(n_seeds) * noise, dims="seed")
    own = xr.DataArray(rng.standard_normal((len(names), n_seeds)), dims=("schedule", "seed"))

    def parabola(key: str) -> xr.DataArray:
        return (place - BEST_A[key]) ** 2 + extra

    error = xr.where(grid.score_family == "exact", 0.0, 1.0)
    exact = ones * (1e-4 + 2e-3 * sampler_factor * parabola("kl_exact") * grid.horizon)
    data["kl_exact"] = (exact * (1 + error)).where(known & ~trained)
    data["kl_reverse_exact"] = 0.9 * data["kl_exact"]
    data["w2_exact"] = data["kl_exact"] ** 0.5
    empirical = 0.09 + 2e-3 * scale * sampler_factor * parabola("kl") / grid.horizon
    data["kl_plugin"] = (ones * empirical * (1 + by_seed / 0.09 + 0.1 * noise * own)).where(trained)
    data["kl_unbiased"] = data["kl_plugin"] - FLOOR
    data["kl_standard_error"] = 0.0026 * xr.ones_like(data["kl_plugin"]).where(trained)
    data["kl_floor"] = FLOOR * xr.ones_like(known, dtype=float)
    data["kl_floor_sd"] = FLOOR_SD * xr.ones_like(known, dtype=float)

    bounded = ones.isel(sampler=0, drop=True).where(known)  # bounds do not see the sampler
    plain = bounded.isel(score=0, drop=True)
    free = plain.isel(time_grid=0, n_steps=0, drop=True)
    drawn = bounded * xr.ones_like(by_seed)
    data["kl_bound_mixing"] = free * 0.2 * np.exp(0.4 * (place - 10))
    data["kl_terminal"] = 0.9 * data["kl_bound_mixing"]
    data["kl_bound_discretization"] = plain * 6.0 * 500 / grid.n_steps
    mixing = data["kl_bound_mixing"]
    level = 0.9 + 0.02 * parabola("bound")  # of E1 + E2 with a trained score
    data["kl_bound_score"] = drawn * error * (level - mixing + by_seed)
    data["kl_bound"] = mixing + data["kl_bound_score"] + data["kl_bound_discretization"]
    refined = 5.0 + 0.02 * parabola("refined")
    score_mean = data["kl_bound_score"].isel(score=-1, drop=True).mean("seed")
    data["kl_bound_discretization_refined"] = refined - mixing - score_mean
    data["kl_path"] = drawn * (0.3 + 5e-3 * parabola("path") + 0.1 * by_seed)
    data["train_loss"] = (free * (drawn.isel(time_grid=0, n_steps=0, drop=True) * 1.5)).where(
        trained
    )
    data["train_seconds"] = 20.0 * data["train_loss"]
    data["heldout_nll_gap"] = (data["kl_plugin"] - 0.05).where(~known)
    data["heldout_nll_floor"] = (0.03 + 0.1 * by_seed).where(~known)

    t = grid.time_fraction * grid.horizon
    rate = xr.where(place == 0, 1e-9, place)
    beta = 0.1 + 19.9 * np.expm1(rate * t) / np.expm1(rate * grid.horizon)
    integral = beta.cumsum("time_fraction") * grid.horizon / 100
    data["schedule_beta"] = beta.transpose("schedule", "horizon", "time_fraction")
    data["schedule_mean_scale"] = np.exp(-integral / 2)
    data["schedule_std"] = (1 - data["schedule_mean_scale"] ** 2) ** 0.5

    # cells of a closed form are done without runs; an unknown law has no exact score
    state = xr.where(trained | known, DONE, NOT_APPLICABLE)
    status = state * ones * xr.ones_like(by_seed)
    data["status"] = status.transpose(*GRID).astype("int8")
    data["status"].attrs = {
        "flag_values": [NOT_RUN, DONE, FAILED, NOT_APPLICABLE],
        "flag_meanings": "not_run done failed not_applicable",
    }
    for name, variable in data.items():
        if name != "status":
            variable.attrs = {"units": "nats", "long_name": str(name).replace("_", " ")}
    grid = grid.assign(data)
    grid.attrs = {"study": "synthetic", "n_samples": 10_000, "variance": 1.0, "commit": "0" * 40}
    return grid


def fail(grid: xr.Dataset, **where: object) -> xr.Dataset:
    """The grid with the trained cells at `where` failed: status set, results NaN."""
    grid = grid.copy(deep=True)
    chosen = xr.ones_like(grid.status, dtype=bool) & (grid.score_family == "trained")
    for dim, labels in where.items():
        chosen = chosen & grid[dim].isin(np.atleast_1d(np.asarray(labels)))
    grid["status"] = (
        grid.status.where(~chosen, FAILED).astype("int8").assign_attrs(grid.status.attrs)
    )
    for name, variable in grid.data_vars.items():
        if "seed" in variable.dims and name != "status":
            lost = chosen
            for dim in set(chosen.dims) - set(variable.dims):
                lost = lost.any(dim)
            grid[name] = variable.where(~lost).transpose(*variable.dims)
    return grid
