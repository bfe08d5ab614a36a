"""Pictures: a few rows on their way from data to noise and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.particles import ParticleScore
from sgm.processes import Process
from sgm.random import stream
from sgm.run.build import build, build_process, build_steps, build_target, build_times
from sgm.samplers import Steps
from sgm.store.cells import write_cells
from sgm.targets import DataTarget, SeenData, Target

__all__ = ["pictures"]

Array = npt.NDArray[np.float64]

MESH = 81  # points a side
WIDTH = 3.5  # standard deviations of the noise that the mesh covers


def pictures(
    spec: Mapping[str, Any],
    seeds: range,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    device: str,
) -> None:
    """A few noised true rows, and the samplers' states at the same times.

    In the target's original coordinates: all of an image, else one or two, with the exact
    density of the noised rows on a mesh where it is known. On the line and in the plane also the
    error of the score there.
    """
    import torch

    from sgm import networks, simulation
    from sgm.run.jobs.score_fns import bind, build_score_fn, for_sampling, load_networks

    target = build_target(spec["target"])
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    solver_times = build_times(spec["time_grid"], process, spec["n_steps"], target.law)
    times = np.sort(np.array(spec["times"]))[::-1] * spec["horizon"]
    place = networks.resolve_device(device)
    trained = load_networks(spec, inputs, target)
    filtered = trained is None and build(spec["score"], process=process, law=target.law)
    score_fn: Any
    if trained is not None:  # that of the schedule and seed 0
        trained = for_sampling(spec, trained, place)
        own = spec.get("place", {"schedule": 0, "schedules": 1})
        first = own["schedule"] * len(trained) // own["schedules"]
        score_fn, dtype = bind(spec, trained[first:], process, 0, 1, target), torch.float32
    else:
        score_fn, dtype = build_score_fn(spec["score"], process, target, place)

    def reverse(sampler: Mapping[str, Any]) -> Array:
        steps = build_steps(sampler, process, solver_times)
        watch = _Watch(steps, times, solver_times)
        if isinstance(filtered, ParticleScore):  # of each filter a row, and where it came from
            run = simulation.simulate_particles(
                steps,
                replace(filtered, kept=1),
                spec["rows"],
                spec["study_seed"],
                [0],
                {"target": spec["target"]["label"]},
                [stage for stage in watch.stages if stage < len(steps)],
            )
            watch.states = {stage: points[0] for stage, points in run.watched.items()}
            return watch.finished(run.rows[0])
        final = simulation.simulate_reverse(
            steps,
            score_fn,
            process.prior_variance,
            spec["rows"],
            target.dimension,
            spec["study_seed"],
            [0],
            {"target": spec["target"]["label"]},
            dtype,
            place,
            watch,
        )
        return watch.finished(final[0].double().cpu().numpy())

    generator = stream(spec["study_seed"], "pictures", target=spec["target"]["label"])
    x0 = _true_rows(target, spec["rows"], generator)
    z = generator.standard_normal(x0.shape)
    states = {
        "forward": np.stack([process.perturb(x0, np.full(len(x0), t), z) for t in times]),
        "backward": np.stack([reverse(sampler) for sampler in spec["samplers"]]),
    }
    shown = [c for c in spec["coordinates"] if c < target.dimension]
    values: dict[str, Any] = {"times": times / spec["horizon"]}
    for name, rows in states.items():
        original = target.restore(rows.reshape(-1, target.dimension))
        original = original.reshape(*rows.shape[:-1], -1)
        values[name] = original if target.image_shape else original[..., shown]
    if target.law is not None and target.image_shape is None:
        mesh = _mesh(target, process, times, shown, target.restore(x0)[:, shown])
        values |= mesh
        if len(shown) == target.dimension:

            def score(x: Array, t: float) -> Array:
                rows = torch.as_tensor(x, dtype=dtype, device=place)[None]
                return np.asarray(score_fn(rows, t)[0].double().cpu().numpy())

            values["score_error"] = _score_error(target, process, times, score, mesh)
    if target.image_shape is None:
        values["coordinates"] = [f"x{c + 1}" for c in shown]
    write_cells(outputs["pictures"], values, spec)


def _true_rows(target: Target, n: int, generator: np.random.Generator) -> Array:
    """`n` true rows; those that a data set does not have are NaN.

    Where something of an unknown law is seen, the first row is that, and NaN elsewhere.
    """
    if not isinstance(target, DataTarget):
        return target.sample(n, generator)
    rows = np.full((n, target.dimension), np.nan)
    chosen = target.take(generator.permutation(target.n_rows)[:n])
    rows[: len(chosen)] = chosen
    if isinstance(target, SeenData):
        known = target.observation
        rows[0] = np.nan
        rows[0, known.coordinates] = known.value
    return rows


class _Watch:
    """Keeps the points at which steps of the simulation depart nearest to some times.

    By the times of the grid: a step may ask for the score at another, such as its arrival's.
    """

    def __init__(self, steps: Steps, times: Array, grid: Array) -> None:
        stages = np.append(steps.departures, len(steps))
        self.stages = [int(stages[np.argmin(abs(grid - t))]) for t in times]
        self.states: dict[int, Array] = {}

    def __call__(self, stage: int, rows: slice, x: Any, score: Any) -> None:
        if stage in self.stages:
            self.states[stage] = x[0].double().cpu().numpy()

    def finished(self, final: Array) -> Array:
        """States at all times, shape (times, n, d)."""
        return np.stack([self.states.get(stage, final) for stage in self.stages])


def _mesh(
    target: Target, process: Process, times: Array, shown: list[int], rows: Array
) -> dict[str, Any]:
    """The density of the noised rows at each time, on a mesh around the data and the noise.

    The mesh is the same for all schedules.
    """
    assert target.law is not None
    law = target.law.marginal(shown)
    center, scale = (part[shown] for part in target.transform)
    noise = WIDTH * np.sqrt(process.prior_variance) * scale
    low = np.minimum(rows.min(axis=0), center - noise)
    high = np.maximum(rows.max(axis=0), center + noise)
    axes = [np.linspace(a, b, MESH) for a, b in zip(low, high, strict=True)]
    points = (np.stack(np.meshgrid(*axes), axis=-1) - center) / scale
    density = [
        np.exp(law.log_density(points, process.mean_scale(t), process.kernel_variance(t)))
        / np.prod(scale)
        for t in times
    ]
    meshes = dict(zip(("mesh_x", "mesh_y"), axes, strict=False))
    return {"density": np.stack(density), **meshes}


def _score_error(
    target: Target,
    process: Process,
    times: Array,
    score: Callable[[Array, float], Array],
    mesh: Mapping[str, Array],
) -> Array:
    """√v |s_θ − ∇log p_t| on the mesh: the error of the predicted noise; NaN where v = 0."""
    assert target.law is not None
    axes = [mesh[name] for name in ("mesh_x", "mesh_y") if name in mesh]
    points = np.stack(np.meshgrid(*axes), axis=-1)
    center, scale = target.transform
    x = (points.reshape(-1, len(axes)) - center) / scale
    found = np.full((len(times), len(x)), np.nan)
    for k, t in enumerate(times):
        m, v = process.mean_scale(t), process.kernel_variance(t)
        if v > 0:
            gap = score(x, float(t)) - target.law.score(x, m, v)
            found[k] = np.sqrt(v) * np.linalg.norm(gap, axis=-1)
    return found.reshape(len(times), *points.shape[:-1])
