"""Training of score networks, one per (target, schedule, seed), in blocks.

A block of R networks is trained in lock-step: each has its own data, weights,
minibatches, times and noise, and the loss that is minimised is the sum of theirs,

    Σ_r (1/b) Σ_i λ(t_ri) ℓ(s_θr; x_ri),

whose gradient splits by network; Adam acts on each weight alone. A network's numbers
therefore don't depend on the block, and on a CPU they don't bit for bit.

Random numbers come from streams named by the study's seed, the network's seed and
the axes that the caller gives, never by the schedule: networks of a seed share their
initial weights, minibatches, times (as fractions of T) and noise, so that schedules
are compared under common random numbers.

An epoch is one pass through a fresh permutation of the data in batches of b, the last
one partial; its times, noise and targets are drawn at once, in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sgm.architectures import Architecture, build_architecture, network_keys
from sgm.networks import ScoreEnsemble, pass_size, resolve_device
from sgm.objectives import OBJECTIVES, PROBES, WEIGHTS
from sgm.processes import Process
from sgm.random import stream, stream_seed
from sgm.scores import Score

__all__ = ["LEARNING_RATES", "TIME_SAMPLINGS", "Recipe", "TrainingResult", "train_networks"]

Array = npt.NDArray[np.float64]

LEARNING_RATES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + float(np.cos(np.pi * progress))),
}
"""Factor of the learning rate by name, given the fraction of the steps done."""

TIME_SAMPLINGS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "uniform": lambda u, place, size: u,
    "stratified": lambda u, place, size: (place + u) / size,
    "early": lambda u, place, size: ((place + u) / size) ** 1.5,
    "earliest": lambda u, place, size: ((place + u) / size) ** 4,
    "start": lambda u, place, size: np.zeros_like(u),
}
"""Times in [0, 1) by name, from uniform draws, each row's place in its batch and the size of
that batch: independent and uniform; one in each equal stratum of a batch; the same with
density (2/3) t^{−1/3}, more of the early times where the score moves fastest; with density
t^{−3/4}/4, which gives each decade of t nearly as much, for likelihoods of grey levels, of
which the finest are seen at the smallest times; the first time alone, for the score at one noise
level. The loss is a mean over this density."""


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run.

    Parameters
    ----------
    objective : str
        A name of `sgm.objectives.OBJECTIVES`.
    weight : str
        λ(t), a name of `sgm.objectives.WEIGHTS`.
    network : mapping
        The architecture's name and parameters, see `sgm.architectures.network_keys`.
    batch_size : int
        b.
    steps : int
        Number of optimiser steps; training may stop within an epoch.
    learning_rate : float
        Adam's, at the start.
    learning_rate_schedule : str
        A name of `LEARNING_RATES`.
    ema : float
        Decay in [0, 1) of the running mean of the weights that is returned; 0 returns
        the last weights. After n steps the decay is min(ema, (1 + n)/(10 + n)), so the
        initial weights are soon forgotten (Song et al. 2021, score_sde, `models/ema.py`).
    time_sampling : str
        A name of `TIME_SAMPLINGS`.
    time_min : float
        Times are drawn in [time_min T, T]; in [0, 1).
    probe : str
        Law of random directions, a name of `sgm.objectives.PROBES`.
    probes : int
        Random directions a row; 0 for the exact divergence, and for objectives without any.
    label_dropout : float, optional
        Probability in (0, 1] with which a row is shown without its class (Ho and Salimans, arXiv
        2207.12598), so that one network learns ∇log p_t(x | c) and ∇log p_t(x). None: a network
        that knows no classes.

    Raises
    ------
    ValueError
        If a value is out of range; the message names it.
    """

    objective: str
    weight: str
    network: Mapping[str, Any]
    batch_size: int
    steps: int
    learning_rate: float
    learning_rate_schedule: str
    ema: float
    time_sampling: str
    time_min: float
    probe: str = "rademacher"
    probes: int = 0
    label_dropout: float | None = None

    def __post_init__(self) -> None:
        names: dict[str, Sequence[str]] = {
            "objective": list(OBJECTIVES),
            "weight": list(WEIGHTS),
            "learning_rate_schedule": list(LEARNING_RATES),
            "time_sampling": list(TIME_SAMPLINGS),
            "probe": list(PROBES),
        }
        for key, allowed in names.items():
            value = getattr(self, key)
            if value not in allowed:
                raise ValueError(f"{key} = {value!r}: must be one of {', '.join(allowed)}")
        for key in ("batch_size", "steps", "learning_rate"):
            value = getattr(self, key)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{key} = {value!r}: must be positive and finite")
        for key in ("ema", "time_min"):
            value = getattr(self, key)
            if not 0 <= value < 1:
                raise ValueError(f"{key} = {value!r}: must lie in [0, 1)")
        fewest = OBJECTIVES[self.objective].fewest_probes
        allowed = "0" if fewest is None else f"at least {fewest}"
        if self.probes != 0 if fewest is None else self.probes < fewest:
            raise ValueError(
                f"probes = {self.probes!r}: must be {allowed} for objective = {self.objective!r}"
            )
        if self.probe != "rademacher" and not self.probes:
            raise ValueError(f"probe = {self.probe!r}: needs probes >= 1, and not 0")
        if self.label_dropout is not None:
            if not 0 < self.label_dropout <= 1:
                raise ValueError(f"label_dropout = {self.label_dropout!r}: must lie in (0, 1]")
            if OBJECTIVES[self.objective].needs_exact_score:
                raise ValueError(
                    f"label_dropout = {self.label_dropout!r}: must be None for objective = "
                    f"{self.objective!r}, which fits the score of all classes together"
                )

    @classmethod
    def from_keys(cls, choices: Mapping[str, Any]) -> Recipe:
        """The recipe of a config, whose keys for the network stand beside the others."""
        network = network_keys(choices)
        own = {key: value for key, value in choices.items() if key not in network}
        return cls(network=network, **own)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Trained networks and how it went.

    Parameters
    ----------
    networks : ScoreEnsemble
        R networks on the CPU, bound to the process; the weights of a failed one are NaN.
    loss : ndarray, shape (R,)
        Mean training loss of the last epoch: along the way; with `ema`, of the weights
        that are returned.
    loss_history : ndarray, shape (R, n_epochs)
    seconds : ndarray, shape (R,)
        CPU time of this process, shared equally among the networks of a pass.
    failed : ndarray of bool, shape (R,)
    messages : tuple of str, length R
        Why a network failed; empty for the others.
    """

    networks: ScoreEnsemble
    loss: Array
    loss_history: Array
    seconds: Array
    failed: npt.NDArray[np.bool_]
    messages: tuple[str, ...]


def train_networks(
    recipe: Recipe,
    process: Process,
    samples: npt.ArrayLike,
    exact_score: Score | None,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    device: str,
    networks_per_pass: int | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    labels: npt.ArrayLike | None = None,
    classes: int = 0,
) -> TrainingResult:
    """Train one network a seed, in batched passes.

    Parameters
    ----------
    recipe : Recipe
    process : Process
    samples : array_like, shape (R, n, d)
        Training data of each network.
    exact_score : Score or None
        The target's own score, for objectives that need it.
    study_seed : int
    seeds : sequence of int, length R
    stream_axes : mapping
        Axes, besides the seed, along which networks must draw independently, such as
        the target; never the schedule.
    device : {"auto", "cpu", "cuda"}
    networks_per_pass : int, optional
        How many networks run together; chosen for speed by default. It changes no
        number on a CPU.
    image_shape : tuple of int, optional
        Of the rows, for architectures of images; see `sgm.targets.Target`.
    labels : array_like of int, shape (R, n), optional
        Classes of the rows, for a recipe with `label_dropout`.
    classes : int
        K; the labels are from 0 to K − 1.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        If the shapes disagree, the data are not finite, the objective or the weight needs a law
        that is not known, derivatives that the network does not have or noise where there is none,
        the recipe asks for classes that the rows do not have, or its network suits neither the rows
        nor the process.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 3 or len(samples) != len(seeds) or 0 in samples.shape:
        raise ValueError(
            f"samples has shape {samples.shape}: must be (R, n, d) with R = {len(seeds)} seeds"
        )
    if not np.all(np.isfinite(samples)):
        raise ValueError("samples must be finite")
    told = None if recipe.label_dropout is None else _classes(labels, classes, samples.shape[:2])
    architecture = build_architecture(
        recipe.network, samples.shape[-1], image_shape, 0 if told is None else classes
    )
    _require_loss(recipe, architecture, process, exact_score)
    place = resolve_device(device)
    block = min(networks_per_pass or pass_size(architecture, place), len(seeds))
    passes = [
        _train_pass(
            recipe,
            architecture,
            process,
            samples[start : start + block],
            None if told is None else told[start : start + block],
            exact_score,
            [_Streams(study_seed, seed, stream_axes) for seed in seeds[start : start + block]],
            place,
        )
        for start in range(0, len(seeds), block)
    ]
    return TrainingResult(
        networks=ScoreEnsemble.concatenate([p.networks for p in passes]).bind(process),
        loss=np.concatenate([p.loss for p in passes]),
        loss_history=np.concatenate([p.loss_history for p in passes]),
        seconds=np.concatenate([p.seconds for p in passes]),
        failed=np.concatenate([p.failed for p in passes]),
        messages=tuple(message for p in passes for message in p.messages),
    )


def _classes(
    labels: npt.ArrayLike | None, classes: int, shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """The labels of the rows, which must be there."""
    if labels is None or classes < 1:
        raise ValueError("label_dropout: must be None for rows without classes")
    told = np.asarray(labels)
    if told.shape != shape or told.dtype.kind not in "iu":
        raise ValueError(f"labels: must be whole numbers of shape {shape}, not {told.shape}")
    if told.min() < 0 or told.max() >= classes:
        raise ValueError(
            f"labels from {told.min()} to {told.max()}: must be from 0 to {classes - 1}"
        )
    return told.astype(np.int64)


def _require_loss(
    recipe: Recipe, architecture: Architecture, process: Process, exact_score: Score | None
) -> None:
    """Refuse a loss that the target, the network or the first time does not have."""
    objective, weight = OBJECTIVES[recipe.objective], WEIGHTS[recipe.weight]
    if objective.needs_exact_score and exact_score is None:
        raise ValueError(
            f"objective = {recipe.objective!r}: needs a target whose exact score is known"
        )
    if weight.needs_law and exact_score is None:
        raise ValueError(f"weight = {recipe.weight!r}: needs a target whose law is known")
    if objective.differentiates and not architecture.smooth:
        raise ValueError(
            f"objective = {recipe.objective!r}: needs a smooth network, activation = 'silu' and "
            "not 'relu', whose derivative jumps"
        )
    law = None if exact_score is None else exact_score.law
    first = np.array([recipe.time_min, 1.0]) * process.horizon
    if not np.all(np.isfinite(weight.value(process, first, law))):
        raise ValueError(f"weight = {recipe.weight!r}: is not finite for this target")
    if recipe.time_sampling == "start":
        architecture.require(process, float(first[0]))
        if objective.divides_by_noise and not process.kernel_variance(first[0]) > 0:
            raise ValueError(
                f"time_min = {recipe.time_min!r}: must be positive for objective = "
                f"{recipe.objective!r} with time_sampling = 'start'"
            )
        if not weight.value(process, first, law)[0] > 0:
            raise ValueError(
                f"weight = {recipe.weight!r}: must be positive at the only time, time_min = "
                f"{recipe.time_min!r} of T: take 'unit'"
            )


class _Streams:
    """The random numbers of one network."""

    def __init__(self, study_seed: int, seed: int, axes: Mapping[str, int | str]) -> None:
        self.weights_seed = stream_seed(study_seed, "weights", seed=seed, **axes)
        self.minibatches = stream(study_seed, "minibatches", seed=seed, **axes)
        self.times = stream(study_seed, "times", seed=seed, **axes)
        self.noise = stream(study_seed, "noise", seed=seed, **axes)
        self.probes = stream(study_seed, "probes", seed=seed, **axes)
        self.dropout = stream(study_seed, "label_dropout", seed=seed, **axes)

    def epoch(
        self,
        recipe: Recipe,
        process: Process,
        samples: Array,
        exact_score: Score | None,
        labels: npt.NDArray[np.int64] | None = None,
        classes: int = 0,
    ) -> tuple[Array, Array, Array, Array, npt.NDArray[np.int64] | None]:
        """States, targets, times, weights and labels of one epoch, in the order of its batches."""
        n = len(samples)
        order = self.minibatches.permutation(n)
        x0 = samples[order]
        row = np.arange(n, dtype=np.float64)
        place = row % recipe.batch_size
        size = np.minimum(recipe.batch_size, n - (row - place))
        u = TIME_SAMPLINGS[recipe.time_sampling](self.times.random(n), place, size)
        t = process.horizon * (recipe.time_min + (1 - recipe.time_min) * u)
        z = self.noise.standard_normal(samples.shape, dtype=np.float32).astype(np.float64)
        probes = PROBES[recipe.probe](self.probes, (n, recipe.probes, samples.shape[-1]))
        examples = OBJECTIVES[recipe.objective].examples(process, exact_score, x0, t, z, probes)
        law = None if exact_score is None else exact_score.law
        weight = WEIGHTS[recipe.weight].value(process, t, law)
        told = None
        if labels is not None:
            assert recipe.label_dropout is not None
            told = np.where(self.dropout.random(n) < recipe.label_dropout, classes, labels[order])
        return examples.states, examples.targets, t, weight, told


def _train_pass(
    recipe: Recipe,
    architecture: Architecture,
    process: Process,
    samples: Array,
    labels: npt.NDArray[np.int64] | None,
    exact_score: Score | None,
    streams: Sequence[_Streams],
    device: torch.device,
) -> TrainingResult:
    """Train networks together, all in every batched product."""
    row_loss = OBJECTIVES[recipe.objective].row_loss
    initial = ScoreEnsemble.initial(architecture, [s.weights_seed for s in streams])
    networks = initial.bind(process).to(device)
    weights = [
        w.requires_grad_() for name, w in networks.weights.items() if name not in architecture.fixed
    ]
    averages = [w.detach().clone() for w in weights] if recipe.ema else []
    optimizer = torch.optim.Adam(weights, lr=recipe.learning_rate, fused=True)
    started = time.process_time()  # the first optimiser of a process imports for half a second

    n, b = samples.shape[1], recipe.batch_size
    per_epoch = -(-n // b)
    history = np.full((len(samples), -(-recipe.steps // per_epoch)), np.nan)
    failed_at = np.full(len(samples), -1)
    for epoch, first in enumerate(range(0, recipe.steps, per_epoch)):
        if np.all(failed_at >= 0):
            break
        known = [None] * len(samples) if labels is None else labels
        parts = [
            s.epoch(recipe, process, x, exact_score, own, architecture.classes)
            for s, x, own in zip(streams, samples, known, strict=True)
        ]
        *numbers, told = zip(*parts, strict=True)
        states, targets, times, scales = (
            torch.as_tensor(np.stack(part)).to(device, torch.float32) for part in numbers
        )
        conditions = networks.condition(
            times.cpu().numpy(), None if labels is None else np.stack(told)
        )
        batches = [slice(i, min(i + b, n)) for i in range(0, n, b)][: recipe.steps - first]

        def batch_loss(rows: slice) -> torch.Tensor:
            score = partial(networks.evaluate, condition=conditions[:, rows])  # noqa: B023
            return scales[:, rows] * row_loss(score, states[:, rows], targets[:, rows])  # noqa: B023

        losses = []
        for step, rows in enumerate(batches, first):
            loss = batch_loss(rows)
            optimizer.zero_grad()
            torch.autograd.backward(loss.sum() / loss.shape[1])
            factor = LEARNING_RATES[recipe.learning_rate_schedule](step / recipe.steps)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
            optimizer.step()
            decay = min(recipe.ema, (2 + step) / (11 + step))
            for average, weight in zip(averages, weights, strict=False):
                average.mul_(decay).add_(weight.detach() * (1 - decay))
            losses.append(loss.detach())
        if averages and first + per_epoch >= recipe.steps:
            with torch.no_grad():
                for average, weight in zip(averages, weights, strict=True):
                    weight.copy_(average)
                averaged = [batch_loss(rows) for rows in batches]
            # a loss that was not finite on the way still fails the network
            losses = [
                torch.where(way.isfinite(), own, way)
                for way, own in zip(losses, averaged, strict=True)
            ]
        for r, row in enumerate(torch.cat(losses, dim=1).double().cpu().numpy()):
            wrong = np.flatnonzero(~np.isfinite(row))
            if failed_at[r] < 0 and wrong.size:
                failed_at[r] = first + wrong[0] // b
            if failed_at[r] < 0:
                history[r, epoch] = row.mean()

    final = {name: weight.detach().cpu() for name, weight in networks.weights.items()}
    finite = torch.stack([w.isfinite().flatten(1).all(1) for w in final.values()]).all(0).numpy()
    failed = (failed_at >= 0) | ~finite
    for weight in final.values():
        weight[torch.from_numpy(failed)] = torch.nan
    messages = tuple(
        f"loss is not finite at step {step + 1} of {recipe.steps}"
        if step >= 0
        else ""
        if sound
        else "weights are not finite after training"
        for step, sound in zip(failed_at, finite, strict=True)
    )
    history[failed, -1] = np.nan
    seconds = (time.process_time() - started) / len(samples)
    return TrainingResult(
        networks=ScoreEnsemble(architecture, final),
        loss=history[:, -1],
        loss_history=history,
        seconds=np.full(len(samples), seconds),
        failed=failed,
        messages=messages,
    )
