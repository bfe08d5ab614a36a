"""Scores as torch evaluates them: a network, or an exact or perturbed score in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sgm import networks
from sgm.networks import ScoreFn
from sgm.processes import Process
from sgm.run.build import build
from sgm.scores import GaussianScore
from sgm.targets import Target

__all__ = ["build_score_fn", "load_networks"]


def load_networks(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], device: torch.device
) -> networks.ScoreEnsemble | None:
    """The networks among a job's inputs as it samples them, if its score is trained."""
    if "network" not in inputs:
        return None
    trained = networks.ScoreEnsemble.load(inputs["network"]).to(device)
    return trained.for_sampling(spec.get("precision", "float32"))


def build_score_fn(
    spec: Mapping[str, Any],
    process: Process,
    target: Target,
    trained: networks.ScoreEnsemble | None,
    device: torch.device,
) -> tuple[ScoreFn, torch.dtype]:
    """A score as torch evaluates it, and the type of the states that it sees."""
    if trained is not None:
        return trained.bind(process), torch.float32
    score = build(spec, process=process, law=target.law)
    make = networks.affine_score_fn if isinstance(score, GaussianScore) else networks.score_fn
    return make(score, torch.float64, device), torch.float64
