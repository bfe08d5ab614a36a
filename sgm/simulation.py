"""Monte-Carlo simulation of a sampler: the only loops over reverse time.

    R₀ ~ π_∞ = N(0, σ²I), other registers 0;   for each stage of `sgm.samplers.Steps`:
    R ← M R + g s(τ, c·R) + ρ Z,   Z ~ N(0, I);   the sample is R₀.

R replicates run side by side. The rows of a replicate come in chunks of `CHUNK_ROWS`,
small enough for the cache, and each chunk draws from its own stream, named by the
study's seed, the replicate's seed, the chunk and the caller's axes: never by the
schedule, the score or the sampler, which are compared under common random numbers.
So the rows of a chunk depend neither on the number of chunks nor on the replicates
beside them.

`simulate_reverse` takes rows that know nothing of each other, `simulate_particles` filters of
particles (`sgm.particles`), whole ones in a chunk: those of one particle draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgm.networks import ScoreFn
from sgm.particles import ParticleScore, Weights, require_gaussian_steps
from sgm.random import stream, stream_seed
from sgm.samplers import Steps

__all__ = ["CHUNK_ROWS", "Observer", "ParticleRun", "simulate_particles", "simulate_reverse"]

Array = npt.NDArray[np.float64]

CHUNK_ROWS = 512
"""Rows that are simulated together and share a stream; part of the streams' definition."""

ABREAST_ROWS = 4096
"""Rows of particles in chunks that are simulated side by side; no number depends on it."""

Observer = Callable[[int, slice, Tensor, Tensor], None]
"""(stage, rows, points of the stage, their scores), tensors of shape (R, n_rows, d)."""

Terms = list[tuple[int, float]]
"""A linear combination: places and factors of what is not zero."""


@torch.no_grad()
def simulate_reverse(
    steps: Steps,
    score_fn: ScoreFn,
    prior_variance: float,
    n_samples: int,
    dimension: int,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    dtype: torch.dtype,
    device: torch.device,
    observe: Observer | None = None,
) -> Tensor:
    """Run a sampler from the stationary law to the data's end.

    Parameters
    ----------
    steps : Steps
        Coefficients in float64, cast once.
    score_fn : ScoreFn
        Scores of states of shape (R, rows, d); network r sees replicate r. A replicate
        whose score is NaN ends as NaN.
    prior_variance : float
        σ² of the law that the simulation starts from.
    n_samples, dimension : int
        n and d.
    study_seed : int
    seeds : sequence of int, length R
    stream_axes : mapping
        Axes, besides the seed, along which draws must be independent, such as the target.
    dtype : torch.dtype
    device : torch.device
    observe : callable, optional
        Called at every evaluation of every chunk; it must not change its arguments.

    Returns
    -------
    Tensor, shape (R, n, d)

    Raises
    ------
    ValueError
        If steps are too long for `dtype`, see `Steps.require_precision`.
    """
    steps.require_precision(torch.finfo(dtype).eps)
    samples = torch.empty((len(seeds), n_samples, dimension), dtype=dtype, device=device)
    stages = list(_stages(steps))
    for chunk, start in enumerate(range(0, n_samples, CHUNK_ROWS)):
        rows = slice(start, min(start + CHUNK_ROWS, n_samples))
        generators = [
            torch.Generator().manual_seed(
                stream_seed(study_seed, "sampler", seed=seed, chunk=chunk, **stream_axes)
            )
            for seed in seeds
        ]
        # drawn in float32 whatever the dtype: all scores of a seed then meet the same noise
        draws = torch.empty((len(seeds), rows.stop - rows.start, dimension))
        x = _standard_normal(draws, generators).to(device, dtype) * float(np.sqrt(prior_variance))
        registers = [x, *[torch.zeros_like(x)] * (steps.registers - 1)]
        for stage, (t, point, drawn, updates) in enumerate(stages):
            s = z = x  # where a stage has none, its terms don't name it
            if point is not None:
                y = _combined(point, registers)
                s = score_fn(y, t)
                if observe is not None:
                    observe(stage, rows, y, s)
            if drawn:
                z = _standard_normal(draws, generators).to(device, dtype)
            parts = [*registers, s, z]
            registers = [_combined(update, parts) for update in updates]
        samples[:, rows] = registers[0]
    return samples


@dataclass(frozen=True, eq=False)
class ParticleRun:
    """What filters of particles give, of R replicates with F filters each.

    Parameters
    ----------
    rows : ndarray, shape (R, n, d)
        NaN of a filter whose weights all vanish or overflow.
    effective, least, resampled, log_evidence : ndarray, shape (R, F)
        The effective sample size at the end and the least one, as shares of K; how often it was
        resampled; the log of its estimate of p_θ(y).
    watched : dict of int to ndarray, shape (R, n, d)
        Where the ancestors of the rows were, by stages.
    """

    rows: Array
    effective: Array
    least: Array
    resampled: Array
    log_evidence: Array
    watched: dict[int, Array] = field(default_factory=dict)

    def of_replicates(self, n: int) -> ParticleRun:
        """The chunks of each of `n` replicates one after the other, not side by side."""

        def merged(part: Array) -> Array:
            return part.reshape(n, -1, *part.shape[2:])

        own = (self.rows, self.effective, self.least, self.resampled, self.log_evidence)
        watched = {stage: merged(points) for stage, points in self.watched.items()}
        return ParticleRun(*map(merged, own), watched)  # type: ignore[call-arg, arg-type]

    @property
    def diagnostics(self) -> dict[str, Array]:
        """Means over the filters of each replicate, by the names of the grid, shape (R,)."""
        n, peak = self.log_evidence.shape[1], np.max(self.log_evidence, axis=1)
        evidence = np.exp(self.log_evidence - peak[:, None])
        mean = evidence.mean(axis=1)
        spread = evidence.std(axis=1, ddof=1) if n > 1 else np.full_like(mean, np.nan)
        return {
            "ess": self.effective.mean(axis=1),
            "ess_least": self.least.mean(axis=1),
            "resamplings": self.resampled.mean(axis=1),
            "log_evidence": peak + np.log(mean),
            "log_evidence_standard_error": spread / (np.sqrt(n) * mean),
        }


def simulate_particles(
    steps: Steps,
    score: ParticleScore,
    n_samples: int,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    watch: Collection[int] = (),
) -> ParticleRun:
    """Run filters of particles from the stationary law to the data's end, in float64 on the CPU.

    Parameters
    ----------
    steps : Steps
        Of one register, see `sgm.particles.require_gaussian_steps`.
    score : ParticleScore
    n_samples : int
        n, a multiple of `score.kept`.
    study_seed, seeds, stream_axes
        As in `simulate_reverse`.
    watch : collection of int
        Stages at whose beginning the points of the rows' ancestors are kept.

    Raises
    ------
    ValueError
        If steps are not Gaussian or too long, or n is no multiple.
    """
    require_gaussian_steps(steps)
    steps.require_precision(float(np.finfo(np.float64).eps))
    if n_samples % score.kept:
        raise ValueError(f"n_samples = {n_samples}: must be a multiple of kept = {score.kept}")
    size = max(1, CHUNK_ROWS // score.particles)
    whole, rest = divmod(n_samples // score.kept, size)
    abreast = max(1, ABREAST_ROWS // (len(seeds) * size * score.particles))
    batches = [(range(k, min(k + abreast, whole)), size) for k in range(0, whole, abreast)]
    batches += [(range(whole, whole + 1), rest)] if rest else []
    runs = []
    for chunks, filters in batches:
        named = [{"seed": r, "chunk": k, **stream_axes} for r in seeds for k in chunks]
        normal = [
            torch.Generator().manual_seed(stream_seed(study_seed, "sampler", **own))
            for own in named
        ]
        uniform = [stream(study_seed, "resampling", **own) for own in named]
        run = _filters(steps, score, filters, normal, uniform, watch)
        runs.append(run.of_replicates(len(seeds)))
    parts = ("rows", "effective", "least", "resampled", "log_evidence")
    joined = {name: np.concatenate([getattr(run, name) for run in runs], axis=1) for name in parts}
    watched = {k: np.concatenate([run.watched[k] for run in runs], axis=1) for k in watch}
    return ParticleRun(**joined, watched=watched)


@np.errstate(over="ignore", invalid="ignore")  # a filter that blows up is NaN
def _filters(
    steps: Steps,
    score: ParticleScore,
    filters: int,
    normal: Sequence[torch.Generator],
    uniform: Sequence[np.random.Generator],
    watch: Collection[int],
) -> ParticleRun:
    """Chunks of filters side by side, as many as there are generators."""
    shape = len(normal), filters, score.particles
    draws = torch.empty((shape[0], filters * score.particles, score.law.dimension))
    weights = Weights(shape)
    watched: dict[int, Array] = {}

    def drawn() -> Array:
        return np.asarray(_standard_normal(draws, normal).double().numpy())

    def chances() -> Array:
        return np.stack([generator.random(filters) for generator in uniform])

    def picked(values: Array, indices: npt.NDArray[np.intp]) -> Array:
        own = values.reshape(*shape, -1)
        taken = np.take_along_axis(own, indices[..., None], axis=2)
        return taken.reshape(shape[0], -1, *values.shape[2:])

    x, before = drawn() * float(np.sqrt(score.process.prior_variance)), np.zeros(shape)
    for k in range(len(steps)):
        alpha, gamma, rho = (float(part[k]) for part in (steps.state, steps.score, steps.noise))
        proposed = score.proposal.propose(x, float(steps.score_time[k]))
        s, own, after = proposed.score, proposed.prior_score, proposed.log_potential
        weights.log += after.reshape(shape) - before
        indices = weights.resample(score.threshold, chances())
        if indices is not None:
            x, s, own, after = (picked(part, indices) for part in (x, s, own, after))
            watched = {stage: picked(points, indices) for stage, points in watched.items()}
        before = after.reshape(shape)
        if k in watch:
            watched[k] = x
        if rho > 0:
            z = drawn()
            shift = (gamma / rho) * (s - own)
            weights.log -= np.sum(shift * (shift / 2 + z), axis=-1).reshape(shape)
            x = x * alpha + s * gamma + z * rho
        else:
            x = x * alpha + own * gamma
    weights.log += score.law.observation.log_likelihood(x).reshape(shape) - before
    effective = weights.effective()
    chosen = weights.finish(score.kept, chances())
    rows = picked(x, chosen)
    lost = np.repeat(~np.isfinite(weights.log_evidence), score.kept, axis=1)
    rows[lost] = np.nan
    return ParticleRun(
        rows, effective, weights.least, weights.resampled, weights.log_evidence,
        {stage: picked(points, chosen) for stage, points in watched.items()},
    )  # fmt: skip


def _stages(steps: Steps) -> Iterator[tuple[float, Terms | None, bool, list[Terms]]]:
    """τ, the point, whether noise is drawn, and the new registers, of each stage.

    The new registers are combinations of the old ones, the score and the noise, in this order.
    """
    n, r = len(steps), steps.registers
    state, columns = steps.state.reshape(n, r, r), (steps.score, steps.noise)
    tables = np.concatenate([state, *(part.reshape(n, r, 1) for part in columns)], axis=2)
    for t, evaluated, point, table in zip(
        steps.score_time.tolist(), steps.evaluated, steps.point, tables, strict=True
    ):
        updates = [_terms(row) for row in table]
        yield t, _terms(point) if evaluated else None, bool(np.any(table[:, -1])), updates


def _terms(row: npt.NDArray[np.float64]) -> Terms:
    return [(place, float(row[place])) for place in np.flatnonzero(row).tolist()]


def _combined(terms: Terms, parts: Sequence[Tensor]) -> Tensor:
    """A linear combination, in a tensor of its own or that of a part which stays as it is."""
    if not terms:
        return torch.zeros_like(parts[0])
    (place, factor), *rest = terms
    if not rest and factor == 1 and place < len(parts) - 1:  # the noise is drawn over
        return parts[place]
    # products and sums apart: a fused one rounds differently at the end of an array
    total = parts[place] * factor
    for place, factor in rest:
        total += parts[place] * factor
    return total


def _standard_normal(draws: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Fill each replicate's slice of a CPU tensor from its own generator."""
    for draw, generator in zip(draws, generators, strict=True):
        draw.normal_(generator=generator)
    return draws
