"""Our networks: a residual MLP and an MLP-mixer.

Both see the time by the embedding e(t) = ReLU(W_t [sin(τω), cos(τω)]), ω_k = 10⁴^{−k/K}. With
classes it is ReLU(W_t [sin(τω), cos(τω)] + C_c), a row of C for each class and 0 for none.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from sgm.architectures.base import Trainable, require_positive

__all__ = ["ACTIVATIONS", "ALIGNMENT", "MLP", "Layered", "Mixer"]

ALIGNMENT = 16
"""Floats in a cache line of 64 bytes."""

ACTIVATIONS = ("relu", "silu")
"""Activations of an MLP."""

# Weights and activations of a pass should stay in the cache: all narrow networks go
# together (fewer, larger kernels), wide ones alone.
_CACHED_WEIGHTS = 2**16


@dataclass(frozen=True, kw_only=True)
class Layered(Trainable):
    """One of our networks: residual layers, each of which sees an embedding of the time.

    Parameters
    ----------
    layers : int
        Number of residual layers.
    time_width : int
        Width of the time embedding, a multiple of 16.
    """

    widths: ClassVar[tuple[str, ...]] = ("time_width",)

    layers: int
    time_width: int

    def __post_init__(self) -> None:
        for key in self.widths:
            value = getattr(self, key)
            if value < ALIGNMENT or value % ALIGNMENT:
                raise ValueError(f"{key} = {value!r}: must be a positive multiple of {ALIGNMENT}")
        require_positive(self, "layers")
        super().__post_init__()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes (fan in, fan out) of one network's weights, in drawing order.

        "time_layers" holds the layers' maps of the embedding side by side; gradients of
        matrices kept this way round come out contiguous. "bias" is that of "output". "classes" is
        drawn last: the others start as those of a network that knows no classes.
        """
        classes = {"classes": (self.classes, self.time_width)} if self.classes else {}
        return self._shapes | classes

    @property
    @abstractmethod
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Those but "classes"."""

    @property
    def padded_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes with every side rounded up to a multiple of 16."""
        return {name: tuple(map(_aligned, shape)) for name, shape in self.shapes.items()}


@dataclass(frozen=True, kw_only=True)
class MLP(Layered):
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
    def _shapes(self) -> dict[str, tuple[int, ...]]:
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
class Mixer(Layered):
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
    def _shapes(self) -> dict[str, tuple[int, ...]]:
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


def _aligned(side: int) -> int:
    return -(-side // ALIGNMENT) * ALIGNMENT
