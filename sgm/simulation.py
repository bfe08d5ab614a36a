"""Monte-Carlo simulation of a sampler: the only loop over reverse time.

    R₀ ~ π_∞ = N(0, σ²I), other registers 0;   for each stage of `sgm.samplers.Steps`:
    R ← M R + g s(τ, c·R) + ρ Z,   Z ~ N(0, I);   the sample is R₀.

R replicates run side by side. The rows of a replicate come in chunks of `CHUNK_ROWS`,
small enough for the cache, and each chunk draws from its own stream, named by the
study's seed, the replicate's seed, the chunk and the caller's axes: never by the
schedule, the score or the sampler, which are compared under common random numbers.
So the rows of a chunk depend neither on the number of chunks nor on the replicates
beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgm.networks import ScoreFn
from sgm.random import stream_seed
from sgm.samplers import Steps

__all__ = ["CHUNK_ROWS", "Observer", "simulate_reverse"]

CHUNK_ROWS = 512
"""Rows that are simulated together and share a stream; part of the streams' definition."""

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
