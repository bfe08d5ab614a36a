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
W2_FLOOR = 0.05

OBJECTIONS = {
    "units": "1",
    "flag_values": [0, 1, 2, 3],
    "flag_meanings": "none the_law_of_the_data_is_unknown "
    "a_Gaussian_surrogate_stands_for_the_law the_theorem_is_about_another_sampler",
}
#: What the variables of a grid say of themselves.
ABOUT: dict[str, dict[str, object]] = {
    "kl_plugin": {
        "role": "divergence",
        "figure": "kl",
        "label": "KL(data || generated)",
        "floor": "kl_floor",
        "floor_sd": "kl_floor_sd",
        "floor_power": 1,
        "exact": "kl_exact",
        "unbiased": "kl_unbiased",
        "standard_error": "kl_standard_error",
        "bound": "kl_bound",
    },
    "w2_plugin": {
        "role": "divergence",
        "figure": "w2",
        "label": "W2(data, generated)",
        "floor": "w2_plugin_floor",
        "exact": "w2_exact",
        "unbiased": "w2_unbiased",
        "bound": "w2_bound",
        "units": "1",
    },
    "sliced_w2": {
        "role": "divergence",
        "figure": "sliced_w2",
        "label": "sliced W2",
        "exact": "sliced_w2_exact",
        "bound": "w2_bound",
        "units": "1",
    },
    "nll": {
        "role": "divergence",
        "figure": "nll",
        "label": "NLL of the sample",
        "floor": "nll_floor",
        "ranks": "0",
    },
    "mmd": {"role": "divergence", "label": "squared MMD", "units": "1"},
    "heldout_nll_gap": {
        "role": "divergence",
        "figure": "heldout_nll",
        "label": "held-out NLL gap",
        "floor": "heldout_nll_floor",
    },
    "kl_bound": {
        "role": "bound",
        "label": "upper bound E1 + E2 + E3",
        "parts": "kl_bound_discretization kl_bound_score kl_bound_mixing",
        "refined": "kl_bound_refined kl_path",
        "objection": "kl_bound_objection",
    },
    "kl_bound_discretization": {
        "label": "E3 discretization",
        "refined": "kl_bound_discretization_refined",
    },
    "kl_bound_discretization_refined": {"label": "E3 refined"},
    "kl_bound_score": {"label": "E2 score error"},
    "kl_bound_mixing": {"label": "E1 mixing"},
    "kl_bound_refined": {"label": "refined bound E1 + E2 + E3 refined"},
    "kl_path": {"label": "path KL (Girsanov)"},
    "kl_bound_objection": OBJECTIONS,
    "w2_bound": {
        "role": "bound",
        "label": "upper bound on W2",
        "units": "1",
        "parts": "w2_bound_time w2_bound_discretization w2_bound_score w2_bound_mixing",
        "refined": "w2_bound_sharp w2_bound_safe w2_bound_forward",
        "objection": "w2_bound_objection",
    },
    "w2_bound_objection": OBJECTIONS,
    "w2_bound_sharp": {"label": "sharp Lipschitz constant"},
    "w2_bound_safe": {"label": "safe Lipschitz constant"},
    "w2_bound_mixing": {"label": "mixing"},
    "w2_bound_score": {"label": "score error"},
    "w2_bound_discretization": {"label": "discretization"},
    "w2_bound_time": {"label": "time regularity"},
}


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
    surrogates: Sequence[str] = (),
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
    surrogates : sequence of str
        Targets for which the W2 bound is that of a Gaussian in their place.
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
    data["kl_bound_refined"] = (
        mixing + data["kl_bound_score"] + data["kl_bound_discretization_refined"]
    )
    data["kl_path"] = drawn * (0.3 + 5e-3 * parabola("path") + 0.1 * by_seed)
    data["train_loss"] = (free * (drawn.isel(time_grid=0, n_steps=0, drop=True) * 1.5)).where(
        trained
    )
    data["train_seconds"] = 20.0 * data["train_loss"]
    data |= _further_measures(data, grid, rng, surrogates)
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
            plain_attrs = {"units": "nats", "long_name": str(name).replace("_", " ")}
            variable.attrs = plain_attrs | ABOUT.get(name, {})
    grid = grid.assign(data)
    grid.attrs = {"study": "synthetic", "n_samples": 10_000, "variance": 1.0, "commit": "0" * 40}
    return grid


def _further_measures(
    data: dict[str, xr.DataArray],
    grid: xr.Dataset,
    rng: np.random.Generator,
    surrogates: Sequence[str],
) -> dict[str, xr.DataArray]:
    """W2 and its bound, NLL, MMD; and where the theorems apply."""
    kl, known = data["kl_plugin"], grid.law_known
    runs = xr.DataArray(rng.standard_normal(grid.sizes["seed"]), dims="seed")
    w2 = (0.2 * kl).where(known) ** 0.5
    score = 30 * data["kl_bound_score"]
    mixing, time, steps = (
        factor * data[f"kl_bound_{part}"]
        for factor, part in ((50, "mixing"), (0.5, "discretization"), (4, "discretization"))
    )
    other_sampler = xr.where(grid.sampler == "ei_modified", 0, 3)
    unknown = xr.where(known, 0, 1)
    surrogate = xr.where(grid.target.isin(list(surrogates)), 2, 0)
    return {
        "w2_plugin": w2,
        "w2_plugin_floor": W2_FLOOR + 0.003 * runs * xr.ones_like(known, dtype=float),
        "w2_unbiased": (w2**2 - W2_FLOOR**2) ** 0.5,
        "sliced_w2": w2 / 7,
        "sliced_w2_exact": data["w2_exact"] / 7,
        "nll": (50 + kl).where(known),
        "nll_floor": 50 + 0.05 * runs * xr.ones_like(known, dtype=float),
        "mmd": 0.01 * (kl - FLOOR),
        "w2_bound_mixing": mixing,
        "w2_bound_score": score,
        "w2_bound_discretization": steps,
        "w2_bound_time": time,
        "w2_bound": mixing + score + steps + time,
        "w2_bound_sharp": mixing + score + 0.6 * steps + time,
        "w2_bound_safe": mixing + score + 1.3 * steps + time,
        "kl_bound_objection": np.maximum(unknown, other_sampler),
        "w2_bound_objection": np.maximum(unknown, np.maximum(surrogate, other_sampler)),
    }


def calibrated_grid(
    *, dimensions: Sequence[int] = (2, 10), n_seeds: int = 8, spread: float = 0.1
) -> xr.Dataset:
    """A grid of sampled perturbed scores: estimates scatter about exact values plus a floor.

    The unbiased estimate is the estimate less the floor; its floor grows with dimension.
    """
    grid = synthetic_grid(
        a=(-5, 0, 5, 10),
        cosine=False,
        targets=tuple(f"gaussian-{d}" for d in dimensions),
        scores=("exact", "scaled"),
        n_seeds=n_seeds,
    )
    floor = xr.DataArray(np.array(dimensions) * 5e-3, dims="target")
    noise = np.random.default_rng(1).standard_normal(grid.status.shape)
    kl = grid.kl_exact * (1 + spread * xr.DataArray(noise, dims=grid.status.dims)) + floor
    data = {
        "kl_plugin": kl,
        "kl_unbiased": kl - floor,
        "kl_floor": floor + 0 * grid.kl_floor,
        "w2_plugin": kl**0.5,
        "w2_unbiased": grid.w2_exact + 0 * kl,
        "w2_plugin_floor": (floor**0.5 + 0 * grid.w2_plugin_floor).transpose("target", "seed"),
    }
    data = {name: value.assign_attrs(grid[name].attrs) for name, value in data.items()}
    return grid.assign(data).assign_coords(dimension=("target", list(dimensions)))


def synthetic_pictures(
    kind: str, *, rows: int = 400, lost: bool = False, times: Sequence[float] = (1, 0.5, 0.1, 0)
) -> xr.Dataset:
    """Pictures of two schedules: a two-mode law in one or two dimensions, or images.

    Parameters
    ----------
    kind : str
        "histogram", "scatter" or "image".
    lost : bool
        Whether one sampler has no state at all, and one generated row lies far outside.
    """
    rng = np.random.default_rng(2)
    t = np.asarray(times, dtype=float)
    schedules = np.array([1.0, 3.0])
    m = np.exp(-schedules[:, None] * t)
    v = 1 - m**2
    d = {"histogram": 1, "scatter": 2, "image": 16}[kind]
    if kind == "image":
        x0 = rng.integers(0, 17, (rows, d)).astype(float)
    else:
        x0 = 1.5 * rng.choice([-1.0, 1.0], (rows, d)) + 0.3 * rng.standard_normal((rows, d))

    def noised(z: np.ndarray) -> np.ndarray:
        scale, std = m[..., None, None], v[..., None, None] ** 0.5
        return scale * x0 + std * z

    forward = noised(rng.standard_normal(x0.shape))
    samplers = ["ei_modified", "exponential_integrator_modified"]
    backward = np.stack(
        [noised(rng.standard_normal(x0.shape)) for _ in range(2 * len(samplers))], 1
    ).reshape(2, 2, len(samplers), *forward.shape[1:])
    if lost:
        backward[:, 0, 1] = np.nan
        backward[:, 1, 1, -1, 0] = 1e6
    data = {
        "forward": (("schedule", "time", "row", "coordinate"), forward),
        "backward": (
            ("schedule", "score", "sampler", "time", "row", "coordinate"),
            backward,
        ),
    }
    coords: dict[str, object] = {
        "schedule": ["beta_a=0", "cosine"],
        "score": ["exact", "trained"],
        "sampler": samplers,
        "time": t,
        "coordinate": [f"x{i + 1}" for i in range(d)],
    }
    if kind != "image":
        mesh = np.linspace(-4, 4, 61)
        scale, variance = m[..., None], 0.09 * m[..., None] ** 2 + v[..., None]
        one = sum(np.exp(-((mesh - c * scale) ** 2) / (2 * variance)) / 2 for c in (-1.5, 1.5))
        one = one / np.sqrt(2 * np.pi * variance)
        coords["mesh_x"] = mesh
        if kind == "scatter":
            coords["mesh_y"] = mesh
            data["density"] = (
                ("schedule", "time", "mesh_y", "mesh_x"),
                one[..., :, None] * one[..., None, :],
            )
        else:
            data["density"] = (("schedule", "time", "mesh_x"), one)
    attrs = {"dimension": d, "horizon": 1.0, "n_steps": 500}
    attrs["image_shape"] = "4 4" if kind == "image" else ""
    return xr.Dataset(data, coords, attrs)


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
