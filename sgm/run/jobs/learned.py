"""What scores learnt from a seed's rows lead to, in closed form given these rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import affine_law, reverse_sde_limit, sampler_law
from sgm.learned import DescentScore, FittedScore
from sgm.processes import Process
from sgm.random import stream
from sgm.run.build import build, build_process, build_steps, build_times, known_law, measured
from sgm.run.jobs.theory import bound_context, chain_context
from sgm.run.jobs.values import Values
from sgm.samplers import Steps
from sgm.scores import GaussianScore
from sgm.store.cells import read_cells

__all__ = ["learned"]

Spec = Mapping[str, Any]
Files = Mapping[str, Path]


def learned(spec: Spec, seeds: range, inputs: Files, outputs: Files, device: str) -> None:
    """Divergences and bounds of all scores of one target that are learnt from its rows.

    Writes one array a variable, over the axes of the grid that the variable has, but `target`;
    and the labels of its scores. Scores of a seed see the same rows, and descents the same
    draws.
    """
    law = known_law(spec)
    assert isinstance(law, Gaussian)
    train = read_cells(inputs["data"], ["train"])["train"].astype(np.float64)
    values = Values(spec, seeds)
    put, size = values.put, values.size
    for s, h in np.ndindex(size["schedule"], size["horizon"]):
        process = build_process(spec["process"], spec["schedules"][s], spec["horizons"][h])
        prior = process.prior(law.dimension)
        scores = [
            [_built(spec, score, process, law, rows, seed) for score in spec["scores"]]
            for rows, seed in zip(train, seeds, strict=True)
        ]
        for r, c in np.ndindex(size["seed"], size["score"]):
            put(_without_steps(process, law, scores[r][c]), schedule=s, horizon=h, score=c, seed=r)
        for g, n in np.ndindex(size["time_grid"], size["n_steps"]):
            times = build_times(spec["time_grids"][g], process, spec["n_steps"][n], law)
            steps = [build_steps(sampler, process, times) for sampler in spec["samplers"]]
            for r, c in np.ndindex(size["seed"], size["score"]):
                score = scores[r][c]
                place = {"schedule": s, "horizon": h, "time_grid": g, "n_steps": n}
                place |= {"score": c, "seed": r}
                context: dict[str, Any] = {}
                if spec["bounds"] or spec["chain_bounds"]:
                    moments = score.error_moments(law, times[:-1])
                    context = bound_context(process, law, times, *moments)
                    put(measured(spec["bounds"], context), **place)
                for m, scheme in enumerate(steps):
                    put(_distances(law, _output(scheme, score, prior)), **place, sampler=m)
                    if spec["chain_bounds"]:
                        # it asks whether a score has an eigenbasis
                        told = chain_context(context, scheme, score)  # type: ignore[arg-type]
                        put(measured(spec["chain_bounds"], told), **place, sampler=m)
    values.write(outputs["learned"])


def _built(
    spec: Spec, score: Spec, process: Process, law: Gaussian, train: Any, seed: int
) -> GaussianScore | DescentScore:
    """The score that is learnt from a seed's rows."""
    target = spec["target"]["label"]
    generator = stream(spec["study_seed"], "learning", target=target, seed=seed)
    built: GaussianScore | DescentScore = build(
        score, process=process, law=law, train=train, generator=generator
    )
    return built


def _output(steps: Steps, score: GaussianScore | DescentScore, prior: Gaussian) -> Gaussian:
    if isinstance(score, GaussianScore):
        return sampler_law(steps, score, prior)
    return affine_law(steps, score.matrices, prior)


def _without_steps(
    process: Process, law: Gaussian, score: GaussianScore | DescentScore
) -> dict[str, Any]:
    """What the rows alone cost, and with the start of the reverse SDE, of a law that was fitted."""
    if not isinstance(score, GaussianScore) or (score.scale, score.bias) != (1, 0):
        return {}
    limit = reverse_sde_limit(process, score.law)
    return {
        "kl_learned_expected": score.expected_kl if isinstance(score, FittedScore) else np.nan,
        "kl_learned_fit": kl_divergence(law, score.law),
        "kl_learned_limit": kl_divergence(law, limit),
        "w2_learned_fit": wasserstein2(law, score.law),
        "w2_learned_limit": wasserstein2(law, limit),
    }


def _distances(law: Gaussian, generated: Gaussian) -> dict[str, Any]:
    return {
        "kl_learned": kl_divergence(law, generated),
        "w2_learned": wasserstein2(law, generated),
    }
