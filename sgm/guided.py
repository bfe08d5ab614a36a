"""Guidance by trained networks: the scores of `sgm.guidance`, with networks for exact scores.

The target is a law of X₀ given something, and the networks know the law of X₀ without it:

    class_guidance, classifier_free     (1 + w) s_θ(t, x, c) − w s_θ(t, x)
    dps, pigdm                          s_θ(t, x) + w ∇_x log N(y; H x̂₀(x), H C Hᵀ + r)
    replacement                         −(x − m y)/(m² r + v) of the observed coordinates

with one network for s_θ(t, x, c) and s_θ(t, x), and x̂₀ = (x + v s_θ)/m by Tweedie's formula,
through which the gradient is taken by automatic differentiation: with the Jacobian J of x̂₀ it is
Jᵀ Hᵀ (H C Hᵀ + r)⁻¹ (y − H x̂₀), C = 0 for `dps` and s²v/(m²s² + v) I for `pigdm`, s² the mean
variance of a coordinate of the prior. x̂₀ and J divide by m, and their error is that of v s_θ over
m: at the noisy end that is finite for networks that learn X₀ (output "data" or "preconditioned").

Sources
-------
Ho and Salimans (arXiv 2207.12598); those of `sgm.guidance`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sgm.arguments import require_finite, shown
from sgm.densities.tilted import TiltedMixture
from sgm.processes import Process
from sgm.targets import ClassOfData, ClassOfLaw, Observation, Target, observation_of

__all__ = [
    "GradientGuided",
    "Guided",
    "GuidedByClass",
    "Replaced",
    "class_guidance",
    "classifier_free",
    "dps",
    "pigdm",
    "replacement",
]


@dataclass(frozen=True, eq=False)
class Guided:
    """A score made of networks; called as a `sgm.networks.ScoreFn`.

    Parameters
    ----------
    networks : ScoreEnsemble or ReusedScore
        R networks, bound to a process.
    """

    networks: Any

    @property
    def process(self) -> Process:
        """The process whose score it is."""
        process: Process = self.networks.process
        return process

    def __getitem__(self, block: slice) -> Self:
        """That of the networks of a slice."""
        return replace(self, networks=self.networks[block])

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same on a device or in a floating-point type."""
        return replace(self, networks=self.networks.to(device, dtype))


@dataclass(frozen=True, eq=False)
class GuidedByClass(Guided):
    """(1 + w) s_θ(t, x, c) − w s_θ(t, x).

    Parameters
    ----------
    label : int
        c.
    weight : float
        w; 0 is the conditional score and −1 the other.
    """

    label: int
    weight: float

    def __post_init__(self) -> None:
        require_finite(weight=self.weight)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Scores of x, shape (R, n, d)."""
        conditional: Tensor = self.networks(x, t, self.label)
        if self.weight == 0:
            return conditional
        unconditional: Tensor = self.networks(x, t)
        return (1 + self.weight) * conditional - self.weight * unconditional


@dataclass(frozen=True, eq=False)
class GradientGuided(Guided):
    """s_θ + w ∇ log N(y; H x̂₀, H C Hᵀ + r).

    Parameters
    ----------
    observation : Observation
    weight : float
    spread : float
        s², with C = s²v/(m²s² + v) I; 0 for C = 0.
    """

    observation: Observation
    weight: float
    spread: float = 0.0

    def __post_init__(self) -> None:
        require_finite(weight=self.weight)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Scores of x, shape (R, n, d); in float64, since x̂₀ and J divide by m."""
        m, v = (float(part(t)) for part in (self.process.mean_scale, self.process.kernel_variance))
        known = self.observation
        with torch.enable_grad():
            at = x.double() if x.requires_grad else x.detach().double().requires_grad_()
            score = self.networks(at, t)
            h, y = (torch.as_tensor(part).to(at) for part in (known.operator, known.value))
            gap = y - (at + v * score) / m @ h.T
            own = self.spread * v / (m**2 * self.spread + v) if self.spread else 0.0
            covariance = own * h @ h.T + known.variance * torch.eye(len(y)).to(h)
            log_likelihood = -(gap * torch.linalg.solve(covariance, gap.mT).mT).sum() / 2
            (pull,) = torch.autograd.grad(log_likelihood, at, create_graph=x.requires_grad)
        found: Tensor = (score + self.weight * pull).to(x)
        return found if x.requires_grad else found.detach()


@dataclass(frozen=True, eq=False)
class Replaced(Guided):
    """The networks' score; of the observed coordinates that of their own noised law given y.

    Parameters
    ----------
    observation : Observation
        Of coordinates.
    """

    observation: Observation

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Scores of x, shape (R, n, d)."""
        m, v = (float(part(t)) for part in (self.process.mean_scale, self.process.kernel_variance))
        known = self.observation
        places = torch.as_tensor(known.coordinates, device=x.device)
        score: Tensor = self.networks(x, t).clone()
        shift = x[..., places] - m * torch.as_tensor(known.value).to(x)
        score[..., places] = -shift / (m**2 * known.variance + v)
        return score


def class_guidance(networks: Any, target: Target) -> GuidedByClass:
    """Classifier-free guidance with the class and the weight of a target `tilted`."""
    law = target.law
    if not isinstance(law, TiltedMixture):
        raise ValueError(f"law = {shown(law)}: must be that of a target `tilted`, not rescaled")
    return GuidedByClass(networks, law.component, law.weight)


def classifier_free(networks: Any, target: Target, weight: float) -> GuidedByClass:
    """Classifier-free guidance to the class of a target `conditional`, with a weight."""
    if not isinstance(target, ClassOfLaw | ClassOfData):
        raise ValueError(f"target = {shown(target)}: must be `conditional`")
    return GuidedByClass(networks, target.label, weight)


def dps(networks: Any, target: Target, weight: float) -> GradientGuided:
    """Diffusion posterior sampling: C = 0."""
    known = _observation(target)
    return GradientGuided(networks.differentiable(), known, weight)


def pigdm(networks: Any, target: Target, weight: float) -> GradientGuided:
    """Pseudoinverse guidance: C = s²v/(m²s² + v) I."""
    known = _observation(target)
    spread = float(np.mean(known.prior.principal_variances))
    return GradientGuided(networks.differentiable(), known, weight, spread)


def replacement(networks: Any, target: Target) -> Replaced:
    """Inpainting by replacement."""
    known = _observation(target)
    if known.coordinates is None:
        raise ValueError("observed: must be coordinates for the score `trained_replacement`")
    return Replaced(networks, known)


def _observation(target: Target) -> Observation:
    known = observation_of(target)
    if known is None:
        raise ValueError(
            f"law = {shown(target.law)}: must be that of a target `posterior`, not rescaled"
        )
    return known
