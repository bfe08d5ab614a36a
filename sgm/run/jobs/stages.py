"""The stages: what one job does, from files to files.

Each takes the job's spec, which holds the schedules of its block, the block's seeds, and its
input and output paths by name. Arrays of a block have a leading axis for the schedules, then
one for the seeds; so have networks, of which a file holds S · R. A block's schedules come one
after the other and share no numbers but the random streams, so that a schedule's numbers
don't depend on its neighbours. Torch is imported by the stages that need it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import laws
from sgm.bounds.ddpm_rows import DenoisedRows, level_bins
from sgm.densities import Law
from sgm.divergences import Control, ReferenceRun
from sgm.gaussian import Gaussian
from sgm.particles import ParticleScore
from sgm.processes import Process
from sgm.random import stream
from sgm.run.build import (
    MeasureError,
    build,
    build_process,
    build_steps,
    build_target,
    build_times,
    measured,
)
from sgm.run.jobs.learned import learned
from sgm.run.jobs.likelihood import likelihood
from sgm.run.jobs.pictures import pictures
from sgm.run.jobs.priors import priors
from sgm.run.jobs.theory import axes, exact
from sgm.samplers import Steps
from sgm.store.cells import canonical, cell_names, read_cells, write_cells, written_whole
from sgm.targets import DataTarget, LabelledTarget, Target, class_count, drawn_labels

__all__ = [
    "STAGES",
    "axes",
    "bounds",
    "data",
    "divergences",
    "exact",
    "floors",
    "learned",
    "likelihood",
    "network",
    "pictures",
    "priors",
    "reference",
    "samples",
]

Spec = Mapping[str, Any]
Files = Mapping[str, Path]

#: Moments of the networks' error under the forward process, over (schedule, seed, time), and the
#: draws at each time, over (schedule, seed).
ERRORS = ("score_mse", "score_mse_standard_error", "score_cross", "score_draws")


def _processes(spec: Spec) -> Iterator[tuple[str, Process]]:
    """Label and forward process of each schedule of the block."""
    for schedule in spec["schedules"]:
        yield schedule["label"], build_process(spec["process"], schedule, spec["horizon"])


def _stacked(rows: Sequence[Mapping[str, Any]], n_seeds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Variables of the schedules of a block over (schedule, seed); NaN where one is not given."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.stack([np.broadcast_to(row.get(name, np.nan), n_seeds) for row in rows])
        for name in names
    }


def data(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """One training sample a seed, shared by all schedules; held-out rows where there are any."""
    target = build_target(spec["target"])
    generators = [
        stream(spec["study_seed"], "data", target=spec["target"]["label"], seed=seed)
        for seed in seeds
    ]
    if isinstance(target, DataTarget):
        parts = [target.partition(generator) for generator in generators]
        heldout = [numbers for _, numbers in parts]
        if target.heldout_fixed:
            heldout = heldout[:1]
        arrays = {
            "train": target.take(np.stack([train[: spec["n_train"]] for train, _ in parts])),
            "heldout": target.take(np.stack(heldout)),
        }
    else:
        arrays = {"train": np.stack([target.sample(spec["n_train"], g) for g in generators])}
    write_cells(outputs["data"], arrays, spec)


def network(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Train one network a schedule and seed; one that fails is marked, the others go on."""
    from sgm import networks, scores, training

    target = build_target(spec["target"])
    recipe = training.Recipe.from_keys(spec["score"]["parameters"]["recipe"])
    rows = read_cells(inputs["data"])["train"]
    classes = {} if recipe.label_dropout is None else _classes(spec, target, rows, seeds)
    results = []
    for label, process in _processes(spec):
        result = training.train_networks(
            recipe,
            process,
            rows,
            None if target.law is None else scores.exact(process, target.law),
            spec["study_seed"],
            list(seeds),
            {"target": spec["target"]["label"]},
            device,
            image_shape=target.image_shape,
            **classes,
        )
        results.append(result)
        for seed, failed, message in zip(seeds, result.failed, result.messages, strict=True):
            if failed:
                print(f"{label}, seed {seed}: {message}", flush=True)
    with written_whole(outputs["network"]) as aside:
        ensemble = networks.ScoreEnsemble.concatenate([result.networks for result in results])
        ensemble.save(aside, canonical(spec))
    cells: dict[str, Any] = {
        "train_loss": [result.loss for result in results],
        "train_seconds": [result.seconds for result in results],
        "loss_history": [result.loss_history for result in results],
        "failed": [result.failed for result in results],
        "message": np.array([result.messages for result in results], dtype=np.str_),
    }
    write_cells(outputs["training"], cells, spec)


def _classes(spec: Spec, target: Target, rows: npt.NDArray[Any], seeds: range) -> dict[str, Any]:
    """Labels of the training rows: those of the data set, drawn given the rows of a mixture."""

    def own_stream(purpose: str, seed: int) -> np.random.Generator:
        return stream(spec["study_seed"], purpose, target=spec["target"]["label"], seed=seed)

    labels = []
    for seed, own in zip(seeds, rows, strict=True):
        if isinstance(target, LabelledTarget):
            train, _ = target.partition(own_stream("data", seed))  # as the stage `data` did
            labels.append(target.labels[train[: len(own)]])
        else:
            labels.append(drawn_labels(target, own, own_stream("classes", seed)))
    return {"labels": np.stack(labels), "classes": class_count(target)}


def reference(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """A long run of the exact-score chain, on noise that no seed meets but all schedules share.

    Its rows stand in for the chain's law in the coupled estimates of all recipes and seeds.
    """
    from sgm import networks, simulation
    from sgm.run.jobs.score_fns import build_score_fn

    target = build_target(spec["target"])
    process = build_process(spec["process"], spec["schedule"], spec["horizon"])
    times = build_times(spec["time_grid"], process, spec["n_steps"], target.law)
    place = networks.resolve_device(device)
    score_fn, dtype = build_score_fn(spec["score"], process, target, place)
    (rows,) = simulation.simulate_reverse(
        build_steps(spec["sampler"], process, times),
        score_fn,
        process.prior_variance,
        spec["n_reference"],
        target.dimension,
        spec["study_seed"],
        [0],
        {"target": spec["target"]["label"], "run": "reference"},
        dtype,
        place,
    )
    write_cells(outputs["reference"], {"rows": rows.float().cpu().numpy()}, spec)


def samples(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Simulate the sampler, one generated sample a schedule and seed.

    Samples are large: each schedule has an array of its own, ``samples/LABEL`` of shape
    (R, n, d), written before the next one is simulated. Where a bound asks for it, the error
    of the networks along the chain is measured on the way, on the first rows. Where a divergence
    has a coupled estimate, the exact-score chain on the same noise follows: ``control/LABEL``,
    and if its law is Gaussian ``control_law/LABEL``, the mean and the variances in the basis of
    the target. Beside a guided score of networks it is the guided score of exact ones, of which no
    law is known. What filters of particles tell besides their rows is ``particles/VARIABLE``.
    """
    import torch

    from sgm import evaluation, networks, scores, simulation
    from sgm.run.jobs.score_fns import bind, build_score_fn, for_sampling, load_networks

    target = build_target(spec["target"])
    place = networks.resolve_device(device)
    trained = load_networks(spec, inputs, target)
    if trained is not None:
        trained = for_sampling(spec, trained, place)
    axes = {"target": spec["target"]["label"]}

    def simulated(
        process: Process, steps: Steps, score_fn: Any, dtype: Any, error: Any = None
    ) -> npt.NDArray[np.float32]:
        rows = simulation.simulate_reverse(
            steps,
            score_fn,
            process.prior_variance,
            spec["n_samples"],
            target.dimension,
            spec["study_seed"],
            list(seeds),
            axes,
            dtype,
            place,
            error,
        )
        return np.asarray(rows.float().cpu().numpy())

    def generated() -> Iterator[tuple[str, npt.NDArray[Any]]]:
        errors, told = [], []
        for s, (label, process) in enumerate(_processes(spec)):
            times = build_times(spec["time_grid"], process, spec["n_steps"], target.law)
            steps = build_steps(spec["sampler"], process, times)
            filtered = trained is None and build(spec["score"], process=process, law=target.law)
            if isinstance(filtered, ParticleScore):
                run = simulation.simulate_particles(
                    steps, filtered, spec["n_samples"], spec["study_seed"], list(seeds), axes
                )
                yield f"samples/{label}", run.rows.astype(np.float32)
                told.append(run.diagnostics)
                continue
            score_fn: Any
            if trained is not None:
                score_fn, dtype = bind(spec, trained, process, s, len(seeds), target), torch.float32
            else:
                score_fn, dtype = build_score_fn(spec["score"], process, target, place)
            error = None
            if "n_score_error" in spec:
                assert target.law is not None
                error = evaluation.ChainError(process, target.law, steps, spec["n_score_error"])
            yield f"samples/{label}", simulated(process, steps, score_fn, dtype, error)
            if "control" in spec:
                exact = build_score_fn(spec["control"], process, target, place)
                yield f"control/{label}", simulated(process, steps, *exact)
                is_exact = spec["control"]["build"] == "sgm.scores:exact"
                if is_exact and isinstance(target.law, Gaussian):
                    score = scores.exact(process, target.law)
                    prior = process.prior(target.dimension)
                    law = laws.sampler_law(steps, score, prior)
                    yield f"control_law/{label}", np.stack([law.mean, law.eigenvalues])
            if error is not None:
                errors.append(error.mse)
        if errors:
            yield "score_mse_evaluations", np.stack(errors)
        for name in told[0] if told else ():
            yield f"particles/{name}", np.stack([found[name] for found in told])
        yield from zip(("center", "scale"), target.transform, strict=True)

    write_cells(outputs["samples"], generated(), spec)


def divergences(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Divergences of each generated sample.

    A run has failed if its sample is not finite, or one of its divergences can't be computed.
    The bounds that depend on the sampler are computed here too.
    """
    target = build_target(spec["target"])
    rows = read_cells(inputs["data"])
    messages = np.full((len(spec["schedules"]), len(seeds)), "", dtype=object)
    values: dict[str, npt.NDArray[np.float64]] = {}
    for s, schedule in enumerate(spec["schedules"]):
        name = f"samples/{schedule['label']}"
        generated = read_cells(inputs["samples"], [name])[name]
        run = _reference_run(spec, target, inputs.get(f"reference_{s}"))
        controls = _controls(target, inputs["samples"], schedule["label"], run)
        for r, (seed, sample) in enumerate(zip(seeds, generated, strict=True)):
            if not np.isfinite(sample).all():
                messages[s, r] = "the generated sample is not finite"
                continue
            context = _true_rows(spec, target, rows, r, seed, len(sample))
            generated_rows = sample.astype(np.float64)
            context |= {"sample": generated_rows, "generated": generated_rows[: context.pop("n")]}
            context["control"] = controls[r] if controls else None
            try:
                found = measured(spec["divergences"], context)
            except MeasureError as error:
                messages[s, r] = _failure(f"{schedule['label']}, seed {seed}", error)
                continue
            for variable, value in found.items():
                shape = (*messages.shape, *np.shape(value))
                values.setdefault(variable, np.full(shape, np.nan))[s, r] = value
    for name in cell_names(inputs["samples"]):
        if name.startswith("particles/"):
            told = read_cells(inputs["samples"], [name])[name]
            values[name.removeprefix("particles/")] = np.where(messages == "", told, np.nan)
    if "bounds" in inputs:
        found, reasons = _chain_bounds(spec, target, inputs, len(seeds))
        values |= found
        messages = np.where(messages == "", reasons, messages)
    write_cells(outputs["divergences"], values | _failures(messages), spec)


def _failure(run: str, error: MeasureError) -> str:
    """The reason of a run's failure, which the job's log shows too."""
    print(f"{run}: {error}", flush=True)
    return str(error)


def _failures(messages: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
    """What a cell file says of its runs: which failed, and why; an empty message is none."""
    message = np.asarray(messages).astype(np.str_)
    return {"failed": message != "", "message": message}


def _reference_run(spec: Spec, target: Target, path: Path | None) -> ReferenceRun | None:
    """The long run of a schedule, with as many true rows; None without one, or if it diverged."""
    if path is None:
        return None
    rows = read_cells(path)["rows"].astype(np.float64)
    if not np.isfinite(rows).all():
        print(f"{path}: the exact-score chain is not finite: no coupled estimates", flush=True)
        return None
    label = spec["target"]["label"]
    truth = target.sample(
        len(rows), stream(spec["study_seed"], "reference", target=label, run="reference")
    )
    return ReferenceRun(rows, truth)


def _controls(target: Target, path: Path, label: str, run: ReferenceRun | None) -> list[Control]:
    """The exact-score chains of a schedule, one a seed; none if they were not simulated."""
    rows, moments = f"control/{label}", f"control_law/{label}"
    arrays = read_cells(path, {rows, moments}.intersection(cell_names(path)))
    if not arrays:
        return []
    law: Gaussian | ReferenceRun | None = run
    if moments in arrays:
        assert isinstance(target.law, Gaussian)
        mean, variances = arrays[moments]
        law = Gaussian(mean, variances, target.law.basis)
    return [Control(chain.astype(np.float64), law) for chain in arrays[rows]]


def _chain_bounds(
    spec: Spec, target: Target, inputs: Files, n_seeds: int
) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.object_]]:
    """The bounds that need the networks' error along the generated chain, and their failures."""
    forward = read_cells(inputs["bounds"], ERRORS)
    along = read_cells(inputs["samples"], ["score_mse_evaluations"])
    rows, messages = [], np.full((len(spec["schedules"]), n_seeds), "", dtype=object)
    for s, (label, process) in enumerate(_processes(spec)):
        errors = {name: error[s] for name, error in (forward | along).items()}
        times = build_times(spec["time_grid"], process, spec["n_steps"], target.law)
        steps = build_steps(spec["sampler"], process, times)
        context = {"process": process, "law": target.law, "times": times, "steps": steps, **errors}
        context["score_mse_generated"] = along["score_mse_evaluations"][s][:, steps.departing]
        try:
            rows.append(measured(spec["bounds"], context, (n_seeds,)))
        except MeasureError as error:
            rows.append({})
            messages[s] = _failure(label, error)
    return _stacked(rows, n_seeds), messages


def _true_rows(
    spec: Spec, target: Target, rows: Mapping[str, Any], r: int, seed: int, n: int
) -> dict[str, Any]:
    """True rows that a divergence may ask for: training rows, and an independent sample."""
    train, heldout = rows["train"][r].astype(np.float64, copy=False), None
    if "heldout" in rows:  # one part a seed, or one for all
        parts = rows["heldout"]
        heldout = parts[min(r, len(parts) - 1)].astype(np.float64, copy=False)
    if target.law is None:
        n = min(n, len(train))
        reference = heldout
    else:
        label = spec["target"]["label"]
        reference = target.sample(
            n, stream(spec["study_seed"], "reference", target=label, seed=seed)
        )
    return {
        "target": target,
        "train": train,
        "heldout": heldout,
        "reference": reference,
        "n": n,
    }


def floors(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """The same divergences of an independent true sample: what a perfect sampler shows.

    For data, the true sample is the training part, and the reference the held-out one.
    """
    target, rows = build_target(spec["target"]), read_cells(inputs["data"])
    label, n = spec["target"]["label"], spec["n_samples"]
    values = {name: np.full(len(seeds), np.nan) for name in spec["floors"].values()}
    messages = [""] * len(seeds)
    for r, seed in enumerate(seeds):
        context = _true_rows(spec, target, rows, r, seed, n)
        n_rows = context.pop("n")
        if target.law is None:
            sample = context["train"][:n_rows]
        else:
            sample = target.sample(n, stream(spec["study_seed"], "floor", target=label, seed=seed))
        context |= {"sample": sample, "generated": sample, "control": None}
        try:
            found = measured(spec["divergences"], context)
        except MeasureError as error:
            messages[r] = _failure(f"true samples, seed {seed}", error)
            continue
        for name, floor in spec["floors"].items():
            values[floor][r] = found[name]
    write_cells(outputs["floors"], values | _failures(messages), spec)


def bounds(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Bounds for trained networks: their score error by Monte Carlo, the rest exact.

    The errors themselves are kept, for the bounds that depend on the sampler as well. Of a law
    that is not known, the loss of denoising the held-out rows stands in for them.
    """
    import torch

    from sgm import networks
    from sgm.run.jobs.score_fns import bind, for_sampling, load_networks

    target = build_target(spec["target"])
    place = networks.resolve_device(device)
    trained = load_networks(spec, inputs, target)
    assert trained is not None
    trained = for_sampling(spec, trained, place)
    axes = {"target": spec["target"]["label"]}
    draws = (spec["study_seed"], list(seeds), axes, torch.float32, place)
    errors: dict[str, Any] = {name: [] for name in ERRORS if target.law is not None}
    rows: list[dict[str, Any]] = []
    messages = np.full((len(spec["schedules"]), len(seeds)), "", dtype=object)
    for s, (label, process) in enumerate(_processes(spec)):
        times = build_times(spec["time_grid"], process, spec["n_steps"], target.law)
        score_fn = bind(spec, trained, process, s, len(seeds), target)
        context = {"process": process, "law": target.law, "times": times, "target": target}
        if target.law is None:
            context |= _denoised(spec, score_fn, process, times, target, inputs["data"], draws)
        else:
            context |= _score_errors(spec, score_fn, process, target.law, times, draws)
        try:
            rows.append(measured(spec["bounds"], context, (len(seeds),)))
        except MeasureError as error:
            rows.append({})
            messages[s] = _failure(label, error)
        for name, own in errors.items():
            own.append(context[name])
    values = _stacked(rows, len(seeds)) | errors | _failures(messages)
    write_cells(outputs["bounds"], values, spec)


def _score_errors(
    spec: Spec,
    score_fn: Any,
    process: Process,
    law: Law,
    times: npt.NDArray[np.float64],
    draws: tuple[Any, ...],
) -> dict[str, Any]:
    """Moments of the networks' error at the departure times."""
    from sgm import evaluation

    about = (score_fn, process, law, times[:-1])
    if "score_error_tolerance" in spec:
        moments = evaluation.score_error_within(
            *about,
            -np.diff(process.schedule.integral(times)),
            spec["score_error_tolerance"],
            spec["n_score_error"],
            *draws,
            largest=spec["largest_score_error"],
        )
    else:
        moments = evaluation.score_error_moments(*about, spec["n_score_error"], *draws)
    return {
        "score_mse": moments.mse,
        "score_mse_standard_error": moments.mse_standard_error,
        "score_cross": moments.cross,
        "score_draws": moments.draws.mean(axis=-1),
        "score_mse_generated": np.full_like(moments.mse, np.nan),
    }


def _denoised(
    spec: Spec,
    score_fn: Any,
    process: Process,
    times: npt.NDArray[np.float64],
    target: Target,
    data: Path,
    draws: tuple[Any, ...],
) -> dict[str, Any]:
    """Held-out rows and how the networks denoise them, one noise a row and departure time."""
    from sgm import evaluation

    def denoised(rows: npt.NDArray[np.float64]) -> DenoisedRows:
        about = (score_fn, process, rows)
        return DenoisedRows(
            rows,
            evaluation.denoising_losses(*about, times[:-1], *draws),
            evaluation.denoised_rows(*about, float(times[-2]), *draws),
        )

    rows = read_cells(data, ["heldout"])["heldout"][:, : spec["n_score_error"]]
    rows = np.broadcast_to(rows, (len(draws[1]), *rows.shape[1:])).astype(np.float64)
    levelled = denoised(level_bins(target, rows)[0]) if target.levels else None
    return {"heldout": denoised(rows), "levelled": levelled}


STAGES: dict[str, Callable[[Spec, range, Files, Files, str], None]] = {
    "data": data,
    "network": network,
    "reference": reference,
    "samples": samples,
    "divergences": divergences,
    "floors": floors,
    "bounds": bounds,
    "likelihood": likelihood,
    "exact": exact,
    "learned": learned,
    "priors": priors,
    "pictures": pictures,
    "axes": axes,
}
