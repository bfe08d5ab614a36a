"""Score networks: an ensemble of independent residual MLPs, evaluated together.

    τ = time_scale · t/T,   e(t) = ReLU(W_t [sin(τω), cos(τω)]),   ω_k = 10⁴^{−k/K},
    h₀ = W_in x,   h_{l+1} = h_l + ReLU(W_l h_l + E_l e(t)),   net(t, x) = W_out h_L + b,

    s_θ(t, x) = net(t, x)              output "score",
    s_θ(t, x) = −x/σ² + net(t, x)      output "relative": the net learns ∇log(p_t/π_∞).

This is the architecture of the paper's authors, whose embedding takes the raw time
(time_scale = 1); only W_out has a bias. Weights start as PyTorch's `Linear` does,
U(±1/√fan_in).

The R networks of an ensemble share an architecture and nothing else. Their weights
are stacked along a leading axis and meet their data in batched matrix products. A
network's numbers don't depend on its neighbours, bit for bit on a CPU: widths are
multiples of 16 and the data's dimension is padded to one with zeros, so that each
network's matrices start on a cache line and the BLAS takes the same path for all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sgm.scores import GaussianScore

__all__ = [
    "OUTPUTS",
    "Architecture",
    "ScoreEnsemble",
    "ScoreFn",
    "affine_score_fn",
    "resolve_device",
    "score_fn",
]

ALIGNMENT = 16
"""Floats in a cache line of 64 bytes."""

OUTPUTS = ("score", "relative")
"""What a network's output is: the score, or the score relative to π_∞."""

# Weights and activations of a pass should stay in the cache: all narrow networks go
# together (fewer, larger kernels), wide ones alone.
_CACHED_WEIGHTS = 2**16


class ScoreFn(Protocol):
    """A score (t, x) → s, of shape and dtype of x, for replicates side by side."""

    def __call__(self, x: Tensor, t: float, /) -> Tensor:
        """Scores of x, shape (R, n, d), at one time for all rows."""
        ...


def resolve_device(name: str) -> torch.device:
    """The device "cpu" or "cuda"; "auto" is CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device = {name!r}: must be one of auto, cpu, cuda")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@dataclass(frozen=True)
class Architecture:
    """All that fixes a network but its weights.

    Parameters
    ----------
    dimension : int
        d.
    width : int
        Width of the residual layers, a multiple of 16.
    layers : int
        Number of residual layers.
    time_width : int
        Width of the time embedding, a multiple of 16.
    time_scale : float
        The embedding sees time_scale · t/T.
    output : {"score", "relative"}
    horizon : float
        T.
    variance : float
        σ² of π_∞.

    Raises
    ------
    ValueError
        If a value is out of range; the message names it.
    """

    dimension: int
    width: int
    layers: int
    time_width: int
    time_scale: float
    output: str
    horizon: float
    variance: float

    def __post_init__(self) -> None:
        for key in ("width", "time_width"):
            value = getattr(self, key)
            if value < ALIGNMENT or value % ALIGNMENT:
                raise ValueError(f"{key} = {value!r}: must be a positive multiple of {ALIGNMENT}")
        for key in ("dimension", "layers", "time_scale", "horizon", "variance"):
            value = getattr(self, key)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{key} = {value!r}: must be positive and finite")
        if self.output not in OUTPUTS:
            raise ValueError(f"output = {self.output!r}: must be one of {', '.join(OUTPUTS)}")

    @property
    def padded_dimension(self) -> int:
        """d rounded up to a multiple of 16."""
        return -(-self.dimension // ALIGNMENT) * ALIGNMENT

    @property
    def networks_per_pass(self) -> int:
        """How many networks to run in one batched pass: a matter of speed alone."""
        return max(1, _CACHED_WEIGHTS // self.width**2)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes (fan in, fan out) of one network's weights, in drawing order.

        "time_layers" holds E_0ᵀ, E_1ᵀ, … side by side; gradients of matrices kept this
        way round come out contiguous.
        """
        d, w, t = self.dimension, self.width, self.time_width
        return {
            "input": (d, w),
            "time": (t, t),
            "time_layers": (t, self.layers * w),
            **{f"layer_{layer}": (w, w) for layer in range(self.layers)},
            "output": (w, d),
            "bias": (d,),
        }


class ScoreEnsemble:
    """R networks of one architecture; called as a `ScoreFn`.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of Tensor, shapes (R, *architecture.shapes[name])
        With d padded to `architecture.padded_dimension`; see `from_state_dict`.
    """

    def __init__(self, architecture: Architecture, weights: dict[str, Tensor]) -> None:
        self.architecture = architecture
        self.weights = weights

    @classmethod
    def from_state_dict(cls, architecture: Architecture, state: dict[str, Tensor]) -> ScoreEnsemble:
        """Networks from weights without padding, shapes (R, *architecture.shapes[name])."""
        expected = {name: (len(state["bias"]), *s) for name, s in architecture.shapes.items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != expected:
            raise ValueError(f"weights of shapes {found}: must be {expected}")
        excess = architecture.padded_dimension - architecture.dimension
        padding = {"input": (0, 0, 0, excess), "output": (0, excess), "bias": (0, excess)}
        weights = {
            name: torch.nn.functional.pad(tensor, padding.get(name, (0, 0)))
            for name, tensor in state.items()
        }
        return cls(architecture, weights)

    @classmethod
    def initial(cls, architecture: Architecture, seeds: Sequence[int]) -> ScoreEnsemble:
        """Untrained networks in float32, one a seed, each from its own generator."""
        networks = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            network = {}
            for name, shape in architecture.shapes.items():
                fan_in = architecture.width if name == "bias" else shape[0]
                bound = 1 / np.sqrt(fan_in)
                network[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            networks.append(network)
        stacked = {name: torch.stack([n[name] for n in networks]) for name in architecture.shapes}
        return cls.from_state_dict(architecture, stacked)

    @classmethod
    def concatenate(cls, ensembles: Sequence[ScoreEnsemble]) -> ScoreEnsemble:
        """All networks of several ensembles of one architecture, in order."""
        names = ensembles[0].weights
        weights = {name: torch.cat([e.weights[name] for e in ensembles]) for name in names}
        return cls(ensembles[0].architecture, weights)

    def __len__(self) -> int:
        return self.weights["bias"].shape[0]

    def __getitem__(self, block: slice) -> ScoreEnsemble:
        """The networks of a slice, sharing their memory."""
        return ScoreEnsemble(self.architecture, {k: w[block] for k, w in self.weights.items()})

    def to(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> ScoreEnsemble:
        """The same networks on a device or in a floating-point type."""
        weights = {k: w.to(device=device, dtype=dtype) for k, w in self.weights.items()}
        return ScoreEnsemble(self.architecture, weights)

    def time_features(self, t: Tensor) -> Tensor:
        """[sin(τω), cos(τω)] at τ = time_scale · t/T.

        Parameters
        ----------
        t : Tensor, shape (..., )

        Returns
        -------
        Tensor, shape (..., time_width)
            In the type and on the device of the weights.
        """
        like = self.weights["bias"]
        half = self.architecture.time_width // 2
        frequencies = torch.as_tensor(10000.0 ** (-np.arange(half) / half)).to(like)
        scale = self.architecture.time_scale / self.architecture.horizon
        angle = (scale * t).to(like)[..., None] * frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Scores s_θ(t, x).

        Parameters
        ----------
        x : Tensor, shape (R, n, d)
        t : float, or Tensor of shape (R, n)
            A float is one time for all rows: its branch of the network is computed
            once, not once a row.

        Returns
        -------
        Tensor, shape (R, n, d)
        """
        if isinstance(t, Tensor):
            features = self.time_features(t)
        else:
            features = self.time_features(torch.full((len(self), 1), t, dtype=torch.float64))
        block = self.architecture.networks_per_pass
        if len(self) <= block:
            return self.evaluate(x, features)
        starts = range(0, len(self), block)
        blocks = [slice(start, start + block) for start in starts]
        return torch.cat([self[b].evaluate(x[b], features[b]) for b in blocks])

    def evaluate(self, x: Tensor, features: Tensor) -> Tensor:
        """Scores of all networks in one pass, given the time features of the rows.

        Parameters
        ----------
        x : Tensor, shape (R, n, d)
        features : Tensor, shape (R, n, time_width) or (R, 1, time_width)

        Returns
        -------
        Tensor, shape (R, n, d)
        """
        weights, d = self.weights, self.architecture.dimension
        excess = self.architecture.padded_dimension - d
        padded = torch.nn.functional.pad(x, (0, excess)) if excess else x
        embedding = torch.bmm(features, weights["time"]).relu_()
        shifts = torch.bmm(embedding, weights["time_layers"]).chunk(self.architecture.layers, -1)
        h = torch.bmm(padded, weights["input"])
        for layer, shift in enumerate(shifts):
            h = h + torch.baddbmm(shift, h, weights[f"layer_{layer}"]).relu_()
        net = torch.baddbmm(weights["bias"][:, None, :], h, weights["output"])[..., :d]
        if self.architecture.output == "relative":
            return net - x / self.architecture.variance
        return net

    def state_dict(self) -> dict[str, Tensor]:
        """Weights without padding, shapes (R, *architecture.shapes[name])."""
        d, cut = self.architecture.dimension, dict(self.weights)
        cut["input"] = cut["input"][:, :d]
        cut["output"] = cut["output"][..., :d]
        cut["bias"] = cut["bias"][:, :d]
        return cut

    def save(self, path: Path) -> None:
        """Write all networks, their architecture and a SHA-256 to one safetensors file.

        Raises
        ------
        OSError
            If it can't be written.
        """
        tensors = {name: w.detach().cpu().contiguous() for name, w in self.state_dict().items()}
        architecture = json.dumps(asdict(self.architecture))
        digest = _digest(architecture, tensors)
        path.write_bytes(save(tensors, {"architecture": architecture, "sha256": digest}))

    @classmethod
    def load(cls, path: Path) -> ScoreEnsemble:
        """Read networks that `save` wrote; the format holds data alone, never code.

        Raises
        ------
        ValueError
            If they can't be read or are damaged; the message names the file. The format
            carries no checksum of its own; files without ours are taken as they are.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            architecture = Architecture(**json.loads(metadata["architecture"]))
            if metadata.get("sha256") not in (None, _digest(metadata["architecture"], state)):
                raise ValueError("its SHA-256 is not that of its weights")
            if not architecture.layers < len(state):  # before `shapes` counts up to it
                raise ValueError(f"layers = {architecture.layers}: must be those it has")
            if not {w.dtype for w in state.values()} <= {torch.float32, torch.float64}:
                raise ValueError("its weights are not all float32 or float64")
            return cls.from_state_dict(architecture, state)
        except MemoryError:
            raise
        except Exception as error:  # on a broken file, libraries raise more than they document
            raise ValueError(
                f"{path}: not a readable network file ({error}): delete it, and the next run "
                "makes it again"
            ) from error


def _digest(architecture: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of an architecture and all weights, with their names, types and shapes."""
    digest = hashlib.sha256(architecture.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def affine_score_fn(
    score: GaussianScore, dtype: torch.dtype, device: torch.device
) -> Callable[[Tensor, float], Tensor]:
    """An affine score of NumPy as a `ScoreFn` of torch: s(t, x) = U(A ∘ Uᵀx + b).

    Parameters
    ----------
    score : GaussianScore
    dtype : torch.dtype
        The coefficients are computed in float64 and cast once a stage.
    device : torch.device

    Returns
    -------
    callable
        (x of shape (..., d), t a float) → scores of shape (..., d).
    """
    basis = score.law.basis
    diagonal = np.array_equal(basis, np.eye(basis.shape[0]))
    d = score.law.dimension
    excess = -d % ALIGNMENT

    @cache  # a stage's time comes again with every chunk
    def coefficients(t: float) -> tuple[Tensor, Tensor]:
        slope, intercept = score.coefficients(t)
        factor = slope if diagonal else np.pad((basis * slope) @ basis.T, (0, excess))
        shift = basis @ intercept
        return torch.as_tensor(factor).to(device, dtype), torch.as_tensor(shift).to(device, dtype)

    def evaluate(x: Tensor, t: float) -> Tensor:
        factor, shift = coefficients(t)
        if diagonal:
            return x * factor + shift
        rows = torch.nn.functional.pad(x.reshape(-1, *x.shape[-2:]), (0, excess))
        product = torch.bmm(rows, factor.expand(len(rows), -1, -1))[..., :d]
        return product.reshape(x.shape) + shift

    return evaluate


def score_fn(
    score: Callable[[npt.NDArray[np.float64], float], npt.NDArray[np.float64]],
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[Tensor, float], Tensor]:
    """Any score of NumPy as a `ScoreFn` of torch; evaluated in float64 on the CPU.

    Parameters
    ----------
    score : callable
        (x of shape (..., d), t) → scores of shape (..., d), such as `sgm.scores.DensityScore`.
    dtype : torch.dtype
    device : torch.device

    Returns
    -------
    callable
        (x of shape (..., d), t a float) → scores of shape (..., d).
    """

    def evaluate(x: Tensor, t: float) -> Tensor:
        return torch.as_tensor(score(x.double().cpu().numpy(), t)).to(device, dtype)

    return evaluate
