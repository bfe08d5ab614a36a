"""A synthetic grid over horizons: Gaussian data, so that the terms of the ELBO are closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr

from tests.grids import ABOUT, DONE, FAILED, GRID, NOT_APPLICABLE, OBJECTIONS

HORIZONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
#: E|s_θ − ∇log p_t|² of each score: the exact one, a scaled one, and three networks.
ERRORS = {"exact": 0.0, "scaled": 0.05, "large": 0.03, "medium": 0.1, "small": 0.3}
DATA_VARIANCE, CUTOFF = 0.04, 1e-5
N_SAMPLES = 5000

LABELS = {
    "data_log_density": "E log p₀",
    "terminal_log_density": "E log p_T",
    "kl_terminal": "KL(p_T ‖ p_noise)",
    "elbo_r": "R_ε",
    "elbo_k": "K_ε",
    "elbo_difference": "R − K",
    "score_gap": "score error G",
    "elbo": "ELBO",
    "denoising_elbo": "ELBO of X_ε",
    "flow_log_likelihood": "log-likelihood by the probability flow",
    "flow_evaluations": "evaluations of the score",
    "flow_seconds": "seconds of the probability flow",
    "bits_per_dimension": "bits per dimension",
}
UNITS = {"flow_evaluations": "1", "flow_seconds": "s", "bits_per_dimension": "bit"}


def integral(a: float, t: np.ndarray) -> np.ndarray:
    """∫₀ᵗ β_a on [0, 1] from 0.1 to 20."""
    shape = t**2 / 2 if a == 0 else (np.expm1(a * t) / a - t) / np.expm1(a)
    return 0.1 * t + 19.9 * shape


def horizon_grid(
    *,
    a: Sequence[float] = (0.0,),
    cosine: bool = False,
    horizons: Sequence[float] = HORIZONS,
    scores: Sequence[str] = ("large", "medium", "small"),
    n_seeds: int = 6,
    dimension: int = 1,
    noise: float = 0.01,
    known: bool = True,
    bins: int = 40,
) -> xr.Dataset:
    """A grid whose ELBO is E log p₀ − ½ e B(T) − KL(p_T ‖ N(0, I)) for data N(0, 0.04 I).

    G of a run is its expectation times 1 + `noise` times normals, mostly shared by a seed's
    runs. The flow's log-likelihood loses a third of what the ELBO loses. The generated
    density is that of N(0, 0.04 (1 + e + KL/10)), with n draws a run. A grid of unknown
    law holds denoising ELBO, flow and bits alone.
    """
    t, rng = np.asarray(horizons, dtype=float), np.random.default_rng(0)
    names = [f"beta_a={value:g}" for value in a] + ["cosine"] * cosine
    family = ["beta_a"] * len(a) + ["cosine"] * cosine
    trained = np.array([s not in ("exact", "scaled") for s in scores])
    families = np.where(trained, "trained", np.array(scores))
    coords = {
        "target": ["gaussian"],
        "dimension": ("target", [dimension]),
        "law_known": ("target", [known]),
        "schedule": names,
        "family": ("schedule", family),
        "a": ("schedule", [*a, *[np.nan] * cosine]),
        "horizon": t,
        "score": list(scores),
        "score_family": ("score", families),
        "recipe": ("score", np.where(trained, "default", "")),
        "sampler": ["ei_modified"],
        "time_grid": ["uniform"],
        "n_steps": [100, 500],
        "seed": list(range(n_seeds)),
    }
    shapes = [*a, *[0.0] * cosine]  # the cosine stands at a = 0
    b = np.stack([integral(value, t) for value in shapes])[None]
    early = np.stack([integral(value, np.array(CUTOFF)) for value in shapes]).reshape(1, -1, 1)

    def entropy(integrated: np.ndarray) -> np.ndarray:
        spread = 1 - (1 - DATA_VARIANCE) * np.exp(-integrated)
        return -dimension / 2 * np.log(2 * np.pi * np.e * spread)

    variance = 1 - (1 - DATA_VARIANCE) * np.exp(-b)
    kl = dimension / 2 * (variance - 1 - np.log(variance))
    truth = float(entropy(np.zeros(1))[0])
    r = dimension / 2 * np.log(np.expm1(-b) / np.expm1(-early))
    e = np.array([ERRORS[s] for s in scores])[:, None]
    shared = rng.standard_normal(n_seeds)
    own = rng.standard_normal((1, len(names), len(t), len(scores), n_seeds))
    gap = e * b[..., None, None] / 2 * (1 + noise * (3 * shared + own) * trained[:, None])
    loss = gap + kl[..., None, None]
    rows = noise * rng.standard_normal(loss.shape) / 3
    flow = truth - loss / 3 + rows
    evaluations = 20 + 60 * t[:, None, None] + rng.integers(0, 3, loss.shape)
    law = ("target", "schedule", "horizon")
    run = (*law, "score", "seed")
    optimum = np.array([[_optimum(value, float(x)) for x in e[:, 0]] for value in shapes])
    data = {
        "data_log_density": ("target", [truth]),
        "terminal_log_density": (law, entropy(b)),
        "kl_terminal": (law, kl),
        "elbo_r": (law, r),
        "elbo_k": (law, r - (entropy(early) - entropy(b))),
        "elbo_difference": (law, truth - entropy(b)),
        "reverse_sde_kl": (law, 0.2 * kl),
        "score_gap": (run, gap),
        "score_gap_standard_error": (run, 0.01 * gap * trained[:, None]),
        "elbo": (run, truth - loss),
        "denoising_elbo": (run, truth - 1.1 * loss),
        "flow_log_likelihood": (run, flow),
        "flow_evaluations": (run, evaluations),
        "flow_seconds": (run, 0.01 * evaluations),
        "bits_per_dimension": (run, 8 - flow / dimension / np.log(2)),
        "train_seconds": (run, 20 + 0 * loss),
        "optimal_horizon": (("target", "schedule", "score"), optimum[None]),
        "optimal_horizon_interior": (("target", "schedule", "score"), (optimum[None] < 1) * 1.0),
    }
    if known:
        del data["bits_per_dimension"], data["denoising_elbo"]
    else:
        kept = ("flow", "bits", "denoising", "train")
        data = {name: value for name, value in data.items() if name.startswith(kept)}
    grid = xr.Dataset(data, coords=coords)
    if known:
        grid = grid.assign(_densities(grid, kl, e[:, 0], bins, rng))
        grid = grid.assign(_measures(grid, loss))
    status = xr.where(grid["score_family"] == "exact", NOT_APPLICABLE, DONE)
    ones = xr.DataArray(np.ones([grid.sizes[d] for d in GRID], dtype="int8"), dims=GRID)
    grid["status"] = (status * ones).transpose(*GRID).astype("int8")
    for name in grid.data_vars:
        plain = {"units": UNITS.get(str(name), "nats"), "long_name": str(name)}
        grid[name].attrs = plain | {"label": LABELS.get(str(name), str(name))}
        grid[name].attrs |= ABOUT.get(str(name), {})
    for name in ("elbo_r", "elbo_k", "denoising_elbo"):
        if name in grid:
            grid[name].attrs["cutoff"] = CUTOFF
    grid.attrs = {"process": "vp", "n_samples": N_SAMPLES, "likelihood_rows": 10_000}
    return grid


def _optimum(a: float, error: float) -> float:
    """Where e = (1 − 1/V)² V, by bisection: the fixed prior's information falls in T."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        v = 1 - (1 - DATA_VARIANCE) * np.exp(-float(integral(a, np.array(middle))))
        low, high = (middle, high) if (1 - 1 / v) ** 2 * v > error else (low, middle)
    return low


def _densities(
    grid: xr.Dataset, kl: np.ndarray, e: np.ndarray, bins: int, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    edges = np.linspace(-1, 1, bins + 1)
    width = edges[1] - edges[0]
    grid = grid.assign_coords(bin=(edges[1:] + edges[:-1]) / 2)
    spread = DATA_VARIANCE * (1 + e + kl[..., None] / 10)
    chance = np.diff(ndtr(edges / np.sqrt(spread[..., None])), axis=-1)
    true = np.diff(ndtr(edges / np.sqrt(DATA_VARIANCE)))
    inside = np.concatenate([chance, 1 - chance.sum(-1, keepdims=True)], axis=-1)
    shape = (2, grid.sizes["seed"])
    counts = rng.multinomial(N_SAMPLES, inside[..., None, None, :], (*chance.shape[:-1], *shape))
    density = counts[..., None, None, :, :, :-1] / N_SAMPLES / width
    dims = (*GRID, "bin")
    coords = {"bin": grid["bin"]}
    return {
        "sample_density": xr.DataArray(density, coords, dims),
        "target_density": xr.DataArray(true[None] / width, coords, ("target", "bin")),
    }


def _measures(grid: xr.Dataset, loss: np.ndarray) -> dict[str, xr.DataArray]:
    """KL and W2, exact for scores in closed form and sampled for networks; and their bounds."""
    base = xr.DataArray(loss, dims=("target", "schedule", "horizon", "score", "seed"))
    at = xr.DataArray([0.05, 0.01], dims="n_steps")
    base = (base + at).expand_dims(sampler=grid["sampler"], time_grid=grid["time_grid"])
    base = base.transpose(*GRID)
    trained = grid["score_family"] == "trained"
    shift = 0.3 * xr.DataArray(np.asarray(grid["horizon"]), dims="horizon")
    level = 0.01 + 0.0 * xr.DataArray(np.zeros(1), dims="target")
    return {
        "kl_plugin": (base + 0.01).where(trained),
        "kl_floor": level,
        "kl_floor_sd": level / 10,
        "kl_exact": base.isel(seed=0, drop=True).where(~trained),
        "w2_exact": (base.isel(seed=0, drop=True) ** 0.5).where(~trained),
        "w2_plugin": (base**0.5).where(trained),
        "kl_bound": base + shift + 0.1,
        "kl_bound_objection": (0 * base.isel(seed=0, drop=True)).assign_attrs(OBJECTIONS),
        "w2_bound": 30 * (base + 3 * shift + 0.1),
        "w2_bound_objection": 2 + 0 * base.isel(seed=0, drop=True),
    }


def fail_runs(grid: xr.Dataset, **at: object) -> xr.Dataset:
    """The grid after these runs failed: no number of theirs is left."""
    lost = xr.ones_like(grid["status"], dtype=bool)
    lost.loc[at] = False
    lost = ~lost
    data = {}
    for name, variable in grid.data_vars.items():
        if name == "status":
            data[name] = xr.where(lost, FAILED, variable, keep_attrs=True).astype("int8")
        elif "seed" in variable.dims:
            gone = lost.any([d for d in lost.dims if d not in variable.dims])
            data[name] = variable.where(~gone).transpose(*variable.dims)
    return grid.assign(data)
