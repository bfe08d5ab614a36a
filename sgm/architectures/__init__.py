"""What a score network is, but for its weights: shapes, and how its output is a score.

Every architecture is a function F(τ, y) ∈ ℝᵈ of a time variable τ and a state y. With
X_t = m X₀ + √v Z, data of standard deviation s_d and V = v + m² s_d², the score is

    s_θ(t, x) = F(τ, x)                                     output "score",
    s_θ(t, x) = −x/σ² + F(τ, x)                             output "relative": ∇log(p_t/π_∞),
    s_θ(t, x) = −F(τ, x/√V)/√v                              output "noise": F learns Z,
    s_θ(t, x) = (m F(τ, x/√V) − x)/v                        output "data": F learns X₀,
    s_θ(t, x) = −x/V + m s_d/√(vV) F(τ, x/√V)               output "preconditioned".

The last is the denoiser of Karras et al. (arXiv 2206.00364, table 1) for the noise level
ς = √v/m of y = x/m, c_skip y + c_out F(c_in y) ≈ E[X₀ | X_t = x], put into Tweedie's
s = (m E[X₀ | x] − x)/v: there c_skip = m² s_d²/V, c_out = s_d √(v/V), c_in = m/√V. Then F
sees and learns something of variance one at every noise level, and F = 0 is the exact score
of N(0, s_d² I). Where σ² = s_d² = 1 the VP process has V = 1, and −F is the velocity
m Z − √v X₀ of Salimans & Ho (arXiv 2202.00512): v-prediction. The last three have no score at
t = 0, where v = 0.

    τ = time_scale · t/T                    time_input "fraction",
    τ = time_scale · log(√v/m)/4            time_input "log_noise", Karras et al.'s c_noise;

A network of K classes is F(τ, y, c), c a class or none: one network for the conditional scores
∇log p_t(x | c) and ∇log p_t(x), as Ho and Salimans have it (arXiv 2207.12598).

`mlp` and `mixer` are ours (`layered`), `module` is any `torch.nn.Module` that a user's function
builds, and `module_file` a finished one, which may predict other things (`modules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sgm.architectures.base import OUTPUTS, TIME_INPUTS, Architecture, Preconditioner, Trainable
from sgm.architectures.layered import ACTIVATIONS, ALIGNMENT, MLP, Layered, Mixer
from sgm.architectures.modules import Built, Module, ModuleFile

__all__ = [
    "ACTIVATIONS",
    "ALIGNMENT",
    "ARCHITECTURES",
    "MLP",
    "OUTPUTS",
    "TIME_INPUTS",
    "Architecture",
    "Built",
    "Layered",
    "Mixer",
    "Module",
    "ModuleFile",
    "Preconditioner",
    "Trainable",
    "build_architecture",
    "from_keys",
    "network_keys",
]

ARCHITECTURES: dict[str, type[Architecture]] = {
    "mlp": MLP,
    "mixer": Mixer,
    "module": Module,
    "module_file": ModuleFile,
}
"""Architectures by name."""

_OF_THE_TARGET = ("dimension", "image_shape", "classes")


def from_keys(keys: Mapping[str, Any]) -> Architecture:
    """The architecture of plain values.

    "architecture" is a name of `ARCHITECTURES`, the other keys are its parameters. One that is
    unknown, missing or out of range is a ValueError.
    """
    given = {key: value for key, value in keys.items() if key != "architecture"}
    try:
        return _kind(keys)(**given)
    except TypeError as error:  # names the key
        raise ValueError(f"architecture = {keys['architecture']!r}: {error}") from None


def network_keys(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config's recipe that say what the network is; the others its training."""
    names = {"architecture", *_parameters(choices)} - set(_OF_THE_TARGET)
    return {key: value for key, value in choices.items() if key in names}


def build_architecture(
    keys: Mapping[str, Any],
    dimension: int,
    image_shape: tuple[int, ...] | None,
    classes: int = 0,
) -> Architecture:
    """The architecture that a recipe asks for, for a target.

    Parameters
    ----------
    keys : mapping
        See `network_keys`.
    dimension : int
        d.
    image_shape : tuple of int or None
        See `sgm.targets.Target`.
    classes : int
        Those of the rows, if the network is told of them.

    Raises
    ------
    ValueError
        If a value is out of range, or the target has no images where they are needed.
    """
    target = dict(zip(_OF_THE_TARGET, (dimension, image_shape, classes), strict=True))
    names = _parameters(keys)
    return from_keys({**keys, **{key: target[key] for key in target if key in names}})


def _kind(keys: Mapping[str, Any]) -> type[Architecture]:
    name = keys.get("architecture")
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture = {name!r}: must be one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _parameters(keys: Mapping[str, Any]) -> set[str]:
    return {field.name for field in fields(_kind(keys))}
