"""Score networks: an ensemble of independent networks, evaluated together.

What a network computes stands in `sgm.architectures`. Only the last map has a bias; weights
start as PyTorch's `Linear` does, U(±1/√fan_in). The paper's authors have an MLP whose
embedding takes the raw time (time_scale = T).

The R networks of an ensemble share an architecture and nothing else. Their weights
are stacked along a leading axis and meet their data in batched matrix products. A
network's numbers don't depend on its neighbours, bit for bit on a CPU: widths are
multiples of 16, and what the data fix (dimension, pixels and number of patches) is padded
to one with zeros, so that each network's matrices start on a cache line and the BLAS takes
the same path for all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sgm.architectures import ALIGNMENT, MLP, Architecture, Mixer, from_keys
from sgm.processes import Process, matching_times
from sgm.processor import Products, fastest_products
from sgm.scores import GaussianScore

__all__ = [
    "FORWARD",
    "PRECISIONS",
    "Arithmetic",
    "Condition",
    "ScoreEnsemble",
    "ScoreFn",
    "affine_score_fn",
    "resolve_device",
    "score_fn",
]


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


@dataclass(frozen=True, eq=False)
class Condition:
    """What the times of rows say to networks, tensors of shape (R, n), or (R, 1) for one time.

    Parameters
    ----------
    angle : Tensor
        The time variable τ.
    inward, gain, divisor : Tensor or None
        See `sgm.architectures.Preconditioner`.
    """

    angle: Tensor
    inward: Tensor | None
    gain: Tensor | None
    divisor: Tensor | None

    def __getitem__(self, index: slice | tuple[slice, slice]) -> Condition:
        """That of some networks, or of some rows of them."""
        parts = (self.inward, self.gain, self.divisor)
        return Condition(self.angle[index], *(p if p is None else p[index] for p in parts))


class Product(Protocol):
    """Products of each network's rows with its matrix."""

    def __call__(
        self, x: Tensor, weights: Tensor, /, shift: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        """x W + shift, or its positive part.

        Of shapes (R, n, k), (R, k, m) and (R, n, m), or (R, 1, m) for all rows alike.
        """
        ...


def _batched(
    x: Tensor, weights: Tensor, /, shift: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """All networks in one call, with gradients."""
    out = torch.bmm(x, weights) if shift is None else torch.baddbmm(shift, x, weights)
    return out.relu_() if relu else out


def _onednn(
    x: Tensor, weights: Tensor, /, shift: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """A network at a time, without gradients; sums don't depend on the rows beside them."""
    # one shift for all rows, and the positive part after it, cost no pass of their own
    bias = shift[:, 0] if shift is not None and shift.shape[1] == 1 else None
    apart = shift if bias is None else None
    after = "relu" if relu and apart is None else "none"
    parts = [
        torch.ops.mkldnn._linear_pointwise(
            rows, weights[r].t(), None if bias is None else bias[r], after, [], ""
        )
        for r, rows in enumerate(x)
    ]
    out = parts[0][None] if len(parts) == 1 else torch.stack(parts)
    if apart is None:
        return out
    out += apart
    return out.relu_() if relu else out


PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
"""Types in which trained networks may be sampled, by name; None leaves the weights' own."""

# Networks of a pass up to which oneDNN, a network at a time, is the faster one: width 128.
_FEW = 4


@dataclass(frozen=True)
class Arithmetic:
    """How networks multiply their states by their weights.

    Parameters
    ----------
    product : Product
    dtype : torch.dtype or None
        Type in which F is computed, that of the weights by default.
    """

    product: Product = _batched
    dtype: torch.dtype | None = None


class ScoreEnsemble:
    """R networks of one architecture; called as a `ScoreFn` once bound to a process.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of Tensor, shapes (R, *architecture.padded_shapes[name])
        See `from_state_dict`.
    process : Process, optional
        What the networks are scores of: it makes their output a score, see `bind`.
    arithmetic : Arithmetic, optional
        How the products are computed, see `for_sampling`.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: dict[str, Tensor],
        process: Process | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.architecture = architecture
        self.weights = weights
        self.process = process
        self.arithmetic = arithmetic or Arithmetic()

    @classmethod
    def from_state_dict(cls, architecture: Architecture, state: dict[str, Tensor]) -> ScoreEnsemble:
        """Networks from weights without padding, shapes (R, *architecture.shapes[name])."""
        expected = {name: (len(state["bias"]), *s) for name, s in architecture.shapes.items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != expected:
            raise ValueError(f"weights of shapes {found}: must be {expected}")
        padded = architecture.padded_shapes
        return cls(architecture, {name: _padded(w, padded[name]) for name, w in state.items()})

    @classmethod
    def initial(cls, architecture: Architecture, seeds: Sequence[int]) -> ScoreEnsemble:
        """Untrained networks in float32, one a seed, each from its own generator."""
        networks = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            network = {}
            for name, shape in architecture.shapes.items():
                fan_in = architecture.shapes["output" if name == "bias" else name][0]
                bound = 1 / np.sqrt(fan_in)
                network[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            networks.append(network)
        stacked = {name: torch.stack([n[name] for n in networks]) for name in architecture.shapes}
        return cls.from_state_dict(architecture, stacked)

    @classmethod
    def concatenate(cls, ensembles: Sequence[ScoreEnsemble]) -> ScoreEnsemble:
        """All networks of several ensembles of one architecture, in order; bound to no process."""
        architecture, names = ensembles[0].architecture, ensembles[0].weights
        if any(ensemble.architecture != architecture for ensemble in ensembles):
            raise ValueError("ensembles: must share one architecture")
        weights = {name: torch.cat([e.weights[name] for e in ensembles]) for name in names}
        return cls(architecture, weights)

    def bind(self, process: Process) -> ScoreEnsemble:
        """The same networks as scores of a process: that which they were trained for.

        Raises
        ------
        ValueError
            If the architecture's output is no score of such a process.
        """
        self.architecture.require(process, process.horizon)
        return ScoreEnsemble(self.architecture, self.weights, process, self.arithmetic)

    def __len__(self) -> int:
        return self.weights["bias"].shape[0]

    def __getitem__(self, block: slice) -> ScoreEnsemble:
        """The networks of a slice, sharing their memory."""
        weights = {k: w[block] for k, w in self.weights.items()}
        return ScoreEnsemble(self.architecture, weights, self.process, self.arithmetic)

    def to(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> ScoreEnsemble:
        """The same networks on a device or in a floating-point type."""
        weights = {k: w.to(device=device, dtype=dtype) for k, w in self.weights.items()}
        return ScoreEnsemble(self.architecture, weights, self.process, self.arithmetic)

    def for_sampling(
        self, precision: str = "float32", products: Products | None = None
    ) -> ScoreEnsemble:
        """The same networks, evaluated as fast as the processor can, without gradients.

        Parameters
        ----------
        precision : str
            A name of `PRECISIONS`. In bfloat16, F has weights, activations and output of 8
            significant bits, and sums in float32; the time's branch, the states and what
            makes F a score stay as they are.
        products : {"BLAS", "oneDNN"}, optional
            Library of the products in float32, on a CPU. By default the fastest: what
            `sgm.processor.fastest_products` says, but for narrow networks the BLAS, which
            multiplies many in one call.

        Raises
        ------
        ValueError
            If the precision is unknown.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision = {precision!r}: must be one of {', '.join(PRECISIONS)}")
        if products is None:
            narrow = self.architecture.networks_per_pass > _FEW
            products = "BLAS" if narrow else fastest_products()
        dtype = PRECISIONS[precision]  # torch has oneDNN do all its products in bfloat16
        on_cpu = self.weights["bias"].device.type == "cpu"
        own = products == "oneDNN" and on_cpu and dtype is None
        arithmetic = Arithmetic(_onednn if own else _batched, dtype)
        return ScoreEnsemble(self.architecture, self.weights, self.process, arithmetic)

    def condition(self, t: npt.NDArray[np.floating[Any]]) -> Condition:
        """What times say to the networks.

        Parameters
        ----------
        t : ndarray, shape (R, n) or (R, 1)

        Returns
        -------
        Condition
            Computed in float64 but for the fraction t/T, which keeps the type of t; cast to
            the type and device of the weights.

        Raises
        ------
        ValueError
            If the networks are not bound to a process, or have no score at t = 0.
        """
        if self.process is None:
            raise ValueError("the networks must be bound to a process: see ScoreEnsemble.bind")
        like, architecture = self.weights["bias"], self.architecture
        angle = torch.as_tensor(architecture.angle(self.process, t)).to(like)
        parts = architecture.preconditioner(self.process, t)
        return Condition(
            angle, *(None if part is None else torch.as_tensor(part).to(like) for part in parts)
        )

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

        Raises
        ------
        ValueError
            See `condition`.
        """
        times = t.cpu().numpy() if isinstance(t, Tensor) else np.full((len(self), 1), t)
        condition = self.condition(times)
        block = self.architecture.networks_per_pass
        if len(self) <= block:
            return self.evaluate(x, condition)
        starts = range(0, len(self), block)
        blocks = [slice(start, start + block) for start in starts]
        return torch.cat([self[b].evaluate(x[b], condition[b]) for b in blocks])

    def evaluate(self, x: Tensor, condition: Condition) -> Tensor:
        """Scores of all networks in one pass.

        Parameters
        ----------
        x : Tensor, shape (R, n, d)
        condition : Condition
            Of the rows' times.

        Returns
        -------
        Tensor, shape (R, n, d)
        """
        architecture, weights = self.architecture, self.weights
        half = architecture.time_width // 2
        frequencies = torch.as_tensor(10000.0 ** (-np.arange(half) / half)).to(condition.angle)
        angle = condition.angle[..., None] * frequencies
        features = torch.cat([angle.sin(), angle.cos()], dim=-1)
        embedding = torch.bmm(features, weights["time"]).relu_()
        shifts = list(torch.bmm(embedding, weights["time_layers"]).chunk(architecture.layers, -1))
        inner = x if condition.inward is None else x * condition.inward[..., None]
        dtype = self.arithmetic.dtype
        if dtype is not None:
            weights = {name: w.to(dtype) for name, w in weights.items()}
            inner, shifts = inner.to(dtype), [shift.to(dtype) for shift in shifts]
        forward = FORWARD[architecture.name]
        score = forward(architecture, weights, inner, shifts, self.arithmetic.product).to(x)
        if condition.gain is not None:
            score = score * condition.gain[..., None]
        if condition.divisor is not None:
            score = score - x / condition.divisor[..., None]
        return score

    def state_dict(self) -> dict[str, Tensor]:
        """Weights without padding, shapes (R, *architecture.shapes[name])."""
        shapes = self.architecture.shapes
        return {
            name: w[(slice(None), *(slice(side) for side in shapes[name]))]
            for name, w in self.weights.items()
        }

    def save(self, path: Path, spec: str = "") -> None:
        """Write all networks, their architecture, what made them and a SHA-256 to one file.

        Raises
        ------
        OSError
            If it can't be written.
        """
        tensors = {name: w.detach().cpu().contiguous() for name, w in self.state_dict().items()}
        metadata = {"architecture": json.dumps(self.architecture.keys()), "spec": spec}
        path.write_bytes(save(tensors, metadata | {"sha256": _digest(metadata, tensors)}))

    @classmethod
    def load(cls, path: Path) -> ScoreEnsemble:
        """Read networks that `save` wrote, to be bound to their process.

        The format (safetensors) holds data alone, never code.

        Raises
        ------
        ValueError
            If they can't be read or are damaged; the message names the file. The format
            carries no checksum of its own; files without ours are taken as they are.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata())
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            digest = metadata.pop("sha256", None)
            if digest not in (None, _digest(metadata, state)):
                raise ValueError("its SHA-256 is not that of its weights")
            keys = json.loads(metadata["architecture"])
            if "architecture" not in keys:  # older files: an MLP, with its process's T and σ²
                old = {key: keys[key] for key in keys if key not in ("horizon", "variance")}
                keys = {"architecture": "mlp", **old}
            architecture = from_keys(keys)
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


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of metadata and all weights, with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of shape (..., *small) with zeros up to (..., *shape)."""
    if tuple(shape) == tensor.shape[-len(shape) :]:
        return tensor
    sizes = zip(reversed(shape), reversed(tensor.shape), strict=False)
    return torch.nn.functional.pad(tensor, [n for size, own in sizes for n in (0, size - own)])


def _mlp(
    architecture: Architecture,
    weights: dict[str, Tensor],
    x: Tensor,
    shifts: Sequence[Tensor],
    product: Product,
) -> Tensor:
    """See `sgm.architectures.MLP`."""
    d = x.shape[-1]
    h = product(_padded(x, weights["input"].shape[1:2]), weights["input"])
    assert isinstance(architecture, MLP)
    relu = architecture.activation == "relu"
    for layer, shift in enumerate(shifts):
        inner = product(h, weights[f"layer_{layer}"], shift, relu=relu)
        h = h + (inner if relu else torch.nn.functional.silu(inner))
    return product(h, weights["output"], weights["bias"][:, None, :])[..., :d]


def _mixer(
    architecture: Architecture,
    weights: dict[str, Tensor],
    x: Tensor,
    shifts: Sequence[Tensor],
    product: Product,
) -> Tensor:
    """See `sgm.architectures.Mixer`."""
    assert isinstance(architecture, Mixer)
    gelu, normed = torch.nn.functional.gelu, torch.nn.functional.layer_norm
    networks, n, d = x.shape
    colours, down, across = architecture.grid
    patch, channels, tokens = architecture.patch, architecture.channels, down * across
    pixels = colours * patch**2
    patches = x.reshape(networks, n, colours, down, patch, across, patch)
    patches = patches.permute(0, 1, 3, 5, 2, 4, 6).reshape(networks, n * tokens, pixels)
    h = product(_padded(patches, weights["input"].shape[1:2]), weights["input"])
    for layer, shift in enumerate(shifts):
        columns = normed(h, (channels,)).reshape(networks, n, tokens, channels).transpose(2, 3)
        columns = columns.reshape(networks, n * channels, tokens)
        inward = weights[f"tokens_in_{layer}"]
        hidden = gelu(product(_padded(columns, inward.shape[1:2]), inward))
        columns = product(hidden, weights[f"tokens_out_{layer}"])[..., :tokens]
        columns = columns.reshape(networks, n, channels, tokens).transpose(2, 3)
        h = h + columns.reshape(networks, n * tokens, channels)
        hidden = product(normed(h, (channels,)), weights[f"channels_in_{layer}"])
        hidden = hidden.reshape(networks, n, tokens, -1) + shift[:, :, None]
        hidden = gelu(hidden).reshape(networks, n * tokens, -1)
        h = product(hidden, weights[f"channels_out_{layer}"], h)
    patches = product(h, weights["output"], weights["bias"][:, None, :])[..., :pixels]
    patches = patches.reshape(networks, n, down, across, colours, patch, patch)
    return patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(networks, n, d)


FORWARD: dict[
    str, Callable[[Architecture, dict[str, Tensor], Tensor, Sequence[Tensor], Product], Tensor]
] = {"mlp": _mlp, "mixer": _mixer}
"""F by architecture: from weights, states (R, n, d), the layers' terms in time and the product."""


def affine_score_fn(
    score: GaussianScore, dtype: torch.dtype, device: torch.device
) -> Callable[[Tensor, float], Tensor]:
    """An affine score of NumPy as a `ScoreFn` of torch: s(t, x) = U(A ∘ Uᵀx + b).

    Parameters
    ----------
    score : GaussianScore
    dtype : torch.dtype
        The coefficients are computed in float64 and cast.
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


class ReusedScore:
    """A score that was learned under one noise schedule, as that of a process of another.

    Called as a `ScoreFn`, at times of the process that is sampled.

    Parameters
    ----------
    score_fn : ScoreFn
        Score at the times of `trained`, such as a bound `ScoreEnsemble`.
    trained, process : Process
        Under which it was learned, and of which it is to be the score.

    Raises
    ------
    ValueError
        As `sgm.processes.matching_times`, which says why this is the same score.
    """

    def __init__(self, score_fn: Any, trained: Process, process: Process) -> None:
        self.score_fn = score_fn
        self.trained = trained
        self.process = process
        self._times = matching_times(process, trained)

    def __getitem__(self, block: slice) -> ReusedScore:
        """The networks of a slice."""
        return ReusedScore(self.score_fn[block], self.trained, self.process)

    def to(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> ReusedScore:
        """The same networks on a device or in a floating-point type."""
        return ReusedScore(self.score_fn.to(device, dtype), self.trained, self.process)

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Scores, as `ScoreFn`; times in float64, which small ones need."""
        if isinstance(t, Tensor):
            times: Any = torch.as_tensor(self._times(t.cpu().double().numpy()), device=t.device)
        else:
            times = float(self._times(t))
        found: Tensor = self.score_fn(x, times)
        return found
