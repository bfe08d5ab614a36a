"""Modules of the user's: trained here, or finished elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.architectures.base import (
    TIME_INPUTS,
    Architecture,
    Preconditioner,
    Times,
    Trainable,
    positive_variance,
    preconditioned,
    require_positive,
)
from sgm.processes import Process
from sgm.registry import load_extension

__all__ = ["CURVES", "LEVELS", "PREDICTS", "Built", "Module", "ModuleFile", "NoiseInput"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Built(Architecture):
    """A `torch.nn.Module` of the user's: F(y, τ) = module(y, τ), or module(y, τ, c) with classes.

    Parameters
    ----------
    image_shape : tuple of int or None
        Of the target; see `sgm.targets.Target`.
    builder : str
        Address of what builds it, ``"file.py:name"`` or ``"package.module:name"``: called with
        the options, and with those of `dimension`, `classes` and `image_shape`, (colours, height,
        width) or None, that it names among its arguments.
    options : mapping
        Its keyword arguments.
    images : bool
        Whether y is an image of shape (n, colours, height, width), or a row (n, d). F has the shape
        of y; τ has shape (n,), and so have whole numbers c, `classes` for a row of none.

    Raises
    ------
    ValueError
        If there are no images to be shown.
    """

    image_shape: tuple[int, ...] | None
    builder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.image_shape, list):  # as JSON has it
            object.__setattr__(self, "image_shape", tuple(self.image_shape))
        place, _, name = self.builder.partition(":")
        if not (place and name.isidentifier()):
            raise ValueError(
                f"builder = {self.builder!r}: must be file.py:name or package.module:name"
            )
        if self.images and (self.image_shape is None or prod(self.image_shape) != self.dimension):
            raise ValueError(
                f"images = True: must be left out for a target of dimension {self.dimension} whose "
                f"rows are no whole images (image_shape = {self.image_shape!r})"
            )

    @property
    def colour_shape(self) -> tuple[int, ...] | None:
        """(colours, height, width)."""
        if self.image_shape is None:
            return None
        return (1, *self.image_shape)[-3:]

    @property
    def networks_per_pass(self) -> int:
        return 1

    def build(self, seed: int) -> Any:
        """A new module, its weights drawn from torch's generator at a seed, in evaluation mode.

        Raises
        ------
        ValueError
            If it can't be built.
        """
        place, _, name = self.builder.rpartition(":")
        try:
            home = load_extension(place) if place.endswith(".py") else import_module(place)
            builder = getattr(home, name)
            asked = inspect.signature(builder).parameters
            context = {
                "dimension": self.dimension,
                "image_shape": self.colour_shape,
                "classes": self.classes,
            }
            given = {key: value for key, value in context.items() if key in asked}
            torch = import_module("torch")  # which planning does without, but for such a module
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                module = builder(**given, **self.options)
        except MemoryError:
            raise
        except Exception as error:  # of the user's code
            raise ValueError(
                f"builder = {self.builder!r} with options = {dict(self.options)}: must build a "
                f"torch.nn.Module; {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        if not hasattr(module, "named_parameters"):
            raise ValueError(
                f"builder = {self.builder!r}: must build a torch.nn.Module, not a "
                f"{type(module).__name__}"
            )
        return module.eval()

    @cached_property
    def module(self) -> Any:
        """The module into which weights are put: its own don't matter."""
        return self.build(0)

    @staticmethod
    def tensors(module: Any) -> dict[str, Any]:
        """Parameters and buffers in floating point: what fixes F beside the code."""
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors(self.module).items()}

    @cached_property
    def fixed(self) -> frozenset[str]:
        trained = {n for n, tensor in self.module.named_parameters() if tensor.requires_grad}
        return frozenset(self.shapes.keys() - trained)


@dataclass(frozen=True, kw_only=True)
class Module(Trainable, Built):
    """A module of the user's that is trained here, with our outputs and time variables."""

    name = "module"


CURVES: dict[str, Callable[[int, float, float], Array]] = {
    "linear": lambda n, start, end: np.linspace(start, end, n),
    "scaled_linear": lambda n, start, end: np.linspace(start**0.5, end**0.5, n) ** 2,
    "cosine": lambda n, start, end: _cosine_betas(n),
}
"""β_k of a discrete model by name, from their number and the first and last of them."""


def _cosine_betas(n: int) -> Array:
    """Nichol and Dhariwal (arXiv 2102.09672, equation 17)."""
    f = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - f[1:] / f[:-1], 0.999))


class NoiseInput(NamedTuple):
    """What a finished model is told of a noise level, and the coordinates that it sees.

    Parameters
    ----------
    tau : ndarray
        Its time variable.
    mean_scale, variance : ndarray
        m′ and v′ of its own process at this level: it sees x′ = m′ x/m.
    """

    tau: Array
    mean_scale: Array
    variance: Array


def _own_times(process: Process, t: Array, levels: Mapping[str, Any]) -> NoiseInput:
    tau = np.asarray(TIME_INPUTS[levels["input"]](process, t, levels["scale"]), np.float64)
    return NoiseInput(tau, process.mean_scale(t), process.kernel_variance(t))


def _sigma(process: Process, t: Array, levels: Mapping[str, Any]) -> NoiseInput:
    log_sigma = _log_noise(process, t)
    tau = {"sigma": np.exp(log_sigma), "log_sigma": log_sigma / 4}[levels["input"]]
    return NoiseInput(tau, np.ones_like(log_sigma), np.exp(2 * log_sigma))


def _discrete(process: Process, t: Array, levels: Mapping[str, Any]) -> NoiseInput:
    betas = CURVES[levels["curve"]](levels["steps"], levels["beta_start"], levels["beta_end"])
    log_kept = np.cumsum(np.log1p(-betas))  # log ᾱ_k
    known = (np.log(-np.expm1(log_kept)) - log_kept) / 2
    log_sigma = _log_noise(process, t)
    _require_levels(log_sigma, known[0], known[-1])
    return NoiseInput(np.interp(log_sigma, known, np.arange(len(known))), *_preserved(log_sigma))


def _continuous(process: Process, t: Array, levels: Mapping[str, Any]) -> NoiseInput:
    low, high = levels["beta_min"], levels["beta_max"]
    log_sigma = _log_noise(process, t)
    noise = np.logaddexp(0, 2 * log_sigma)  # B′ = log(1 + ς²)
    last = (low + high) / 2
    _require_levels(log_sigma, -np.inf, np.log(np.expm1(last)) / 2)
    # the root of low t′ + (high − low) t′²/2 = B′ that does not cancel
    own = 2 * noise / (low + np.sqrt(low**2 + 2 * (high - low) * noise))
    return NoiseInput(levels["scale"] * np.minimum(own, 1.0), *_preserved(log_sigma))


def _log_noise(process: Process, t: Array) -> Array:
    """log ς = log(√v/m), finite also where m underflows."""
    return 4 * np.asarray(TIME_INPUTS["log_noise"](process, t, 1.0), np.float64)


def _preserved(log_sigma: Array) -> tuple[Array, Array]:
    """m′ and v′ of a VP process with σ² = 1: m′² + v′ = 1."""
    m2 = np.exp(-np.logaddexp(0, 2 * log_sigma))
    return np.sqrt(m2), np.exp(2 * log_sigma) * m2


def _require_levels(log_sigma: Array, least: float, most: float) -> None:
    """Refuse levels that the model was not trained for, but for rounding."""
    low, high = float(np.min(log_sigma)), float(np.max(log_sigma))
    if not least - 1e-6 <= low <= high <= most + 1e-6:
        with np.errstate(over="ignore"):
            shown = [f"{level:.4g}" for level in np.exp([low, high, least, most])]
        raise ValueError(
            f"noise levels √v/m from {shown[0]} to {shown[1]}: must lie between {shown[2]} and "
            f"{shown[3]}, those of the model"
        )


LEVELS: dict[str, Callable[[Process, Array, Mapping[str, Any]], NoiseInput]] = {
    "process": _own_times,
    "discrete": _discrete,
    "continuous": _continuous,
    "sigma": _sigma,
}
"""How a finished model is told the noise level, by name."""

PREDICTS: dict[str, Callable[[Array, Array, Array], Preconditioner]] = {
    "score": lambda r, m, v: Preconditioner(r, r),
    "noise": lambda r, m, v: Preconditioner(r, -r / np.sqrt(v)),
    "data": lambda r, m, v: Preconditioner(r, r * m / v, v / r**2),
    "velocity": lambda r, m, v: Preconditioner(
        r, -r * m / (np.sqrt(v) * (m**2 + v)), (m**2 + v) / r**2
    ),
}
"""What a finished model predicts, by name, but for "edm": from r = m′/m, m′ and v′ to s.

With x′ = r x = m′ X₀ + √v′ Z, s(t, x) = r s′(x′) and s′ = F, −F/√v′, (m′F − x′)/v′, or, for the
velocity F = m′ Z − √v′ X₀ of Salimans and Ho (arXiv 2202.00512), the same with
X₀ = (m′x′ − √v′ F)/(m′² + v′).
"""


@dataclass(frozen=True, kw_only=True)
class ModuleFile(Built):
    """A finished model of the user's, as a score of any process.

    p_t depends on the process through ς = √v/m alone but for its scale: X_t/m = X₀ + ς Z. So a
    model trained under another VP or VE process is asked at the time where that has this ς.

    Parameters
    ----------
    predicts : str
        A name of `PREDICTS`, or "edm": F of Karras et al.'s preconditioning (arXiv 2206.00364,
        table 1), the output "preconditioned" above.
    levels : mapping
        ``kind``, a name of `LEVELS`, and its parameters.
    data_std : float
        s_d > 0, for "edm".
    """

    name = "module_file"

    predicts: str
    levels: Mapping[str, Any]
    data_std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "data_std")
        for key, value, allowed in (
            ("predicts", self.predicts, [*PREDICTS, "edm"]),
            ("levels", self.levels.get("kind"), list(LEVELS)),
        ):
            if value not in allowed:
                raise ValueError(f"{key} = {value!r}: must be one of {', '.join(allowed)}")

    def _input(self, process: Process, t: Times) -> NoiseInput:
        at = np.asarray(t, dtype=np.float64)
        positive_variance(process, at)
        return LEVELS[self.levels["kind"]](process, at, self.levels)

    def angle(self, process: Process, t: Times) -> Times:
        return self._input(process, t).tau

    def preconditioner(self, process: Process, t: Times) -> Preconditioner:
        if self.predicts == "edm":
            return preconditioned(process, np.asarray(t, dtype=np.float64), self.data_std)
        _, m, v = self._input(process, t)
        return PREDICTS[self.predicts](m / process.mean_scale(t), m, v)
