"""Scores as torch evaluates them: networks, or an exact or perturbed score in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sgm import networks
from sgm.architectures import ModuleFile
from sgm.networks import ScoreFn
from sgm.processes import Process
from sgm.run.build import build, build_process
from sgm.scores import GaussianScore
from sgm.targets import Target

__all__ = ["bind", "build_score_fn", "for_sampling", "load_networks"]


def load_networks(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], target: Target
) -> networks.ScoreEnsemble | None:
    """The networks among a job's inputs, or the one of a finished model; None for other scores."""
    score = spec.get("score", {"parameters": {}})  # bounds are told only of a user's module
    if "network" in inputs:
        own = score.get("network", score)  # of a guided score
        builder = own["parameters"].get("recipe", {}).get("builder")
        return networks.ScoreEnsemble.load(inputs["network"], builder)
    if score["build"] != "sgm.networks:finished":
        return None
    return networks.finished(
        **score["parameters"], dimension=target.dimension, image_shape=target.image_shape
    )


def for_sampling(
    spec: Mapping[str, Any], trained: networks.ScoreEnsemble, device: torch.device
) -> networks.ScoreEnsemble:
    """Networks as a job samples them."""
    return trained.to(device).for_sampling(spec.get("precision", "float32"))


def bind(
    spec: Mapping[str, Any],
    trained: networks.ScoreEnsemble,
    process: Process,
    place: int,
    n_networks: int,
    target: Target,
) -> Any:
    """The networks of a schedule as scores of its process, or what a guided score makes of them.

    Parameters
    ----------
    spec : mapping
        Of the job; if it has a `train_schedule`, all schedules share its networks.
    trained : ScoreEnsemble
        All networks of the job's input.
    process : Process
    place : int
        Of the schedule in its block.
    n_networks : int
        Of a schedule.
    target : Target
    """
    own = _bound(spec, trained, process, place, n_networks)
    if "network" in spec.get("score", {}):
        return build(spec["score"], networks=own, target=target)
    return own


def _bound(
    spec: Mapping[str, Any],
    trained: networks.ScoreEnsemble,
    process: Process,
    place: int,
    n_networks: int,
) -> networks.ScoreEnsemble | networks.ReusedScore:
    if isinstance(trained.architecture, ModuleFile):
        return trained.repeated(n_networks).bind(process)
    if "train_schedule" not in spec:
        return trained[place * n_networks : (place + 1) * n_networks].bind(process)
    learned = build_process(spec["process"], spec["train_schedule"], spec["horizon"])
    return networks.ReusedScore(trained[:n_networks].bind(learned), learned, process)


def build_score_fn(
    spec: Mapping[str, Any], process: Process, target: Target, device: torch.device
) -> tuple[ScoreFn, torch.dtype]:
    """An exact or perturbed score as torch evaluates it, and the type of its states."""
    score = build(spec, process=process, law=target.law)
    make = networks.affine_score_fn if isinstance(score, GaussianScore) else networks.score_fn
    return make(score, torch.float64, device), torch.float64
