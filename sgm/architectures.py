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

the embedding is e(t) = ReLU(W_t [sin(τω), cos(τω)]), ω_k = 10⁴^{−k/K}.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.processes import Process

__all__ = [
    "ACTIVATIONS",
    "ALIGNMENT",
    "ARCHITECTURES",
    "MLP",
    "OUTPUTS",
    "TIME_INPUTS",
    "Architecture",
    "Mixer",
    "Preconditioner",
    "build_architecture",
    "from_keys",
    "network_keys",
]

Array = npt.NDArray[np.float64]
Times = npt.NDArray[np.floating[Any]]

ALIGNMENT = 16
"""Floats in a cache line of 64 bytes."""

ACTIVATIONS = ("relu", "silu")
"""Activations of an MLP."""

# Weights and activations of a pass should stay in the cache: all narrow networks go
# together (fewer, larger kernels), wide ones alone.
_CACHED_WEIGHTS = 2**16


class Preconditioner(NamedTuple):
    """Coefficients of s = gain · F(inward · x) − x/divisor; None leaves a factor or term out.

    Parameters
    ----------
    inward, gain, divisor : ndarray or None
        Of the shape of the times.
    """

    inward: Array | None = None
    gain: Array | None = None
    divisor: Array | None = None


def _kernel_variance(process: Process, t: Times) -> Array:
    """v, which must be positive."""
    v = process.kernel_variance(t)
    if not np.all(v > 0):
        raise ValueError(
            f"t = {float(np.min(t))!r}: must be positive for a network that divides by the "
            "noise (output 'noise', 'data' or 'preconditioned', or time_input 'log_noise')"
        )
    return v


def _relative(process: Process, t: Array, data_std: float) -> Preconditioner:
    if not np.isfinite(process.variance):
        raise ValueError(
            "output = 'relative': must be 'score', 'noise', 'data' or 'preconditioned' for a "
            "process without a stationary law to be relative to"
        )
    return Preconditioner(divisor=np.full(t.shape, process.variance))


def _noise(process: Process, t: Array, data_std: float) -> Preconditioner:
    v = _kernel_variance(process, t)
    total = v + (process.mean_scale(t) * data_std) ** 2
    return Preconditioner(inward=total**-0.5, gain=-(v**-0.5))


def _data(process: Process, t: Array, data_std: float) -> Preconditioner:
    v, m = _kernel_variance(process, t), process.mean_scale(t)
    return Preconditioner(inward=(v + (m * data_std) ** 2) ** -0.5, gain=m / v, divisor=v)


def _preconditioned(process: Process, t: Array, data_std: float) -> Preconditioner:
    v, data = _kernel_variance(process, t), process.mean_scale(t) * data_std
    total = v + data**2
    gain = data / np.sqrt(v * total)
    return Preconditioner(inward=total**-0.5, gain=gain, divisor=total)


OUTPUTS: dict[str, Callable[[Process, Array, float], Preconditioner]] = {
    "score": lambda process, t, data_std: Preconditioner(),
    "relative": _relative,
    "noise": _noise,
    "data": _data,
    "preconditioned": _preconditioned,
}
"""What a network's output is, by name: from process, t and s_d to the coefficients."""

TIME_INPUTS: dict[str, Callable[[Process, Times, float], Times]] = {
    "fraction": lambda process, t, time_scale: float(time_scale / process.horizon) * t,
    # −log m = B/(2σ²), also where m underflows
    "log_noise": lambda process, t, time_scale: (
        (np.log(_kernel_variance(process, t)) + process.schedule.integral(t) / process.variance)
        * (time_scale / 8)
    ),
}
"""The time variable τ by name, from process, t and time_scale."""


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """All that fixes a network but its weights and the process that it is trained for.

    Parameters
    ----------
    dimension : int
        d.
    layers : int
        Number of residual layers.
    time_width : int
        Width of the time embedding, a multiple of 16.
    time_scale : float
        Factor of the time variable.
    time_input : str
        A name of `TIME_INPUTS`.
    output : str
        A name of `OUTPUTS`.
    data_std : float
        s_d > 0, for the outputs "noise", "data" and "preconditioned".

    Raises
    ------
    ValueError
        If a value is out of range; the message names it.
    """

    name: ClassVar[str]
    widths: ClassVar[tuple[str, ...]] = ("time_width",)

    dimension: int
    layers: int
    time_width: int
    time_scale: float
    output: str
    time_input: str = "fraction"
    data_std: float = 1.0

    def __post_init__(self) -> None:
        for key in self.widths:
            value = getattr(self, key)
            if value < ALIGNMENT or value % ALIGNMENT:
                raise ValueError(f"{key} = {value!r}: must be a positive multiple of {ALIGNMENT}")
        for key in ("dimension", "layers", "time_scale", "data_std"):
            value = getattr(self, key)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{key} = {value!r}: must be positive and finite")
        names: dict[str, list[str]] = {"output": list(OUTPUTS), "time_input": list(TIME_INPUTS)}
        for key, allowed in names.items():
            value = getattr(self, key)
            if value not in allowed:
                raise ValueError(f"{key} = {value!r}: must be one of {', '.join(allowed)}")

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes (fan in, fan out) of one network's weights, in drawing order.

        "time_layers" holds the layers' maps of the embedding side by side; gradients of
        matrices kept this way round come out contiguous. "bias" is that of "output".
        """

    @property
    @abstractmethod
    def networks_per_pass(self) -> int:
        """How many networks to run in one batched pass: a matter of speed alone."""

    @property
    def smooth(self) -> bool:
        """Whether the derivative in x does not jump."""
        return True

    @property
    def padded_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes with every side rounded up to a multiple of 16."""
        return {name: tuple(map(_aligned, shape)) for name, shape in self.shapes.items()}

    def angle(self, process: Process, t: Times) -> Times:
        """τ(t), of the shape of t; float64, but for "fraction", which keeps the type of t."""
        return TIME_INPUTS[self.time_input](process, t, self.time_scale)

    def preconditioner(self, process: Process, t: Times) -> Preconditioner:
        """Coefficients in float64 that make the output a score at times t."""
        return OUTPUTS[self.output](process, np.asarray(t, dtype=np.float64), self.data_std)

    def require(self, process: Process, t: float) -> None:
        """Raise a ValueError for a process that has no such output, or t = 0 if it needs noise."""
        at = np.asarray(t, dtype=np.float64)
        self.preconditioner(process, at)
        self.angle(process, at)

    def keys(self) -> dict[str, Any]:
        """The architecture as plain values, from which `from_keys` makes it again."""
        return {"architecture": self.name} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class MLP(Architecture):
    """A residual MLP, that of the paper's authors with φ = ReLU:

        h₀ = W_in y,   h_{l+1} = h_l + φ(W_l h_l + E_l e(t)),   F = W_out h_L + b.

    Parameters
    ----------
    width : int
        Width of the residual layers, a multiple of 16.
    activation : str
        φ, one of `ACTIVATIONS`; "silu", x/(1 + e^{−x}), has derivatives.
    """

    name = "mlp"
    widths = ("width", "time_width")

    width: int
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation = {self.activation!r}: must be one of {', '.join(ACTIVATIONS)}"
            )

    @property
    def smooth(self) -> bool:
        return self.activation != "relu"

    @property
    def networks_per_pass(self) -> int:
        return max(1, _CACHED_WEIGHTS // self.width**2)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        d, w, t = self.dimension, self.width, self.time_width
        return {
            "input": (d, w),
            "time": (t, t),
            "time_layers": (t, self.layers * w),
            **{f"layer_{layer}": (w, w) for layer in range(self.layers)},
            "output": (w, d),
            "bias": (d,),
        }


@dataclass(frozen=True, kw_only=True)
class Mixer(Architecture):
    """An MLP-mixer for images (Tolstikhin et al., arXiv 2105.01601, equation 1).

    The image is cut into S patches, H of shape (S, channels); with N the layer norm without
    factors, each layer does

        H ← H + A₂ GELU(A₁ N(H))                      across patches, a column at a time,
        H ← H + GELU(N(H) C₁ + E_l e(t)) C₂           across channels, a row at a time.

    One linear map makes patches rows of H, another one rows of H patches; the time enters
    every layer.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (colours, height, width), whose product is d: a state holds all
        pixels, row by row.
    patch : int
        Side of a square patch; divides height and width.
    channels : int
        Columns of H.
    token_width, channel_width : int
        Hidden widths across patches and across channels. All three are multiples of 16.
    """

    name = "mixer"
    widths = ("channels", "token_width", "channel_width", "time_width")

    image_shape: tuple[int, ...] | None
    patch: int
    channels: int
    token_width: int
    channel_width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.image_shape, list):  # as JSON has it
            object.__setattr__(self, "image_shape", tuple(self.image_shape))
        if self.image_shape is None or len(self.image_shape) not in (2, 3):
            raise ValueError(
                f"image_shape = {self.image_shape!r}: must be (height, width) or (colours, "
                "height, width) for architecture 'mixer', which needs images"
            )
        if prod(self.image_shape) != self.dimension:
            raise ValueError(
                f"dimension = {self.dimension!r}: must be {prod(self.image_shape)}, one "
                f"coordinate a pixel of images of shape {self.image_shape}, for architecture "
                "'mixer': use a target that keeps its constant pixels"
            )
        if self.patch < 1 or any(side % self.patch for side in self.image_shape[-2:]):
            raise ValueError(
                f"patch = {self.patch!r}: must divide the height and the width of images of "
                f"shape {self.image_shape}"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Colours, and patches down and across."""
        assert self.image_shape is not None
        *colours, height, width = self.image_shape
        return prod(colours), height // self.patch, width // self.patch

    @property
    def networks_per_pass(self) -> int:
        return 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        colours, down, across = self.grid
        pixels, tokens = colours * self.patch**2, down * across
        c, t = self.channels, self.time_width
        shapes: dict[str, tuple[int, ...]] = {
            "input": (pixels, c),
            "time": (t, t),
            "time_layers": (t, self.layers * self.channel_width),
        }
        for layer in range(self.layers):
            shapes |= {
                f"tokens_in_{layer}": (tokens, self.token_width),
                f"tokens_out_{layer}": (self.token_width, tokens),
                f"channels_in_{layer}": (c, self.channel_width),
                f"channels_out_{layer}": (self.channel_width, c),
            }
        return shapes | {"output": (c, pixels), "bias": (pixels,)}


ARCHITECTURES: dict[str, type[Architecture]] = {"mlp": MLP, "mixer": Mixer}
"""Architectures by name."""

_OF_THE_TARGET = ("dimension", "image_shape")


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
    keys: Mapping[str, Any], dimension: int, image_shape: tuple[int, ...] | None
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

    Raises
    ------
    ValueError
        If a value is out of range, or the target has no images where they are needed.
    """
    target = dict(zip(_OF_THE_TARGET, (dimension, image_shape), strict=True))
    names = _parameters(keys)
    return from_keys({**keys, **{key: target[key] for key in target if key in names}})


def _kind(keys: Mapping[str, Any]) -> type[Architecture]:
    name = keys.get("architecture")
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture = {name!r}: must be one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _parameters(keys: Mapping[str, Any]) -> set[str]:
    return {field.name for field in fields(_kind(keys))}


def _aligned(side: int) -> int:
    return -(-side // ALIGNMENT) * ALIGNMENT
