"""Score networks: an ensemble of independent networks, evaluated together.

What a network computes stands in `sgm.architectures`. Of ours only the last map has a bias;
weights start as PyTorch's `Linear` does, U(±1/√fan_in). The paper's authors have an MLP whose
embedding takes the raw time (time_scale = T).

The R networks of an ensemble share an architecture and nothing else. Their weights
are stacked along a leading axis. Ours meet their data in batched matrix products; a
network's numbers don't depend on its neighbours, bit for bit on a CPU: widths are
multiples of 16, and what the data fix (dimension, pixels and number of patches) is padded
to one with zeros, so that each network's matrices start on a cache line and the BLAS takes
the same path for all. A user's module runs one network at a time, with the weights of each put
into it: `torch.vmap` can't take every module nor keep a network's numbers its own, and on a CPU
saves an MLP a third of the time at most, and a U-Net none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from sgm.architectures import (
    ALIGNMENT,
    MLP,
    Architecture,
    Built,
    Layered,
    Mixer,
    build_architecture,
    from_keys,
)
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
    "finished",
    "pass_size",
    "require_module",
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


def pass_size(architecture: Architecture, device: torch.device) -> int:
    """How many networks to run in one batched pass: a matter of speed alone.

    As many as the architecture says on a CPU; all on CUDA, where the launches of small
    kernels cost more than the kernels.
    """
    return architecture.networks_per_pass if device.type == "cpu" else sys.maxsize


@cache
def _frequencies(half: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Frequencies of the time's features, kept: a copy to CUDA at each step holds up its queue."""
    return torch.as_tensor(10000.0 ** (-np.arange(half) / half)).to(device, dtype)


@dataclass(frozen=True, eq=False)
class Condition:
    """What the times and classes of rows say to networks.

    Tensors of shape (R, n), or (R, 1) for one time.

    Parameters
    ----------
    angle : Tensor
        The time variable τ.
    inward, gain, divisor : Tensor or None
        See `sgm.architectures.Preconditioner`.
    labels : Tensor or None
        Classes c of the rows, whole numbers; None for networks that know no classes.
    """

    angle: Tensor
    inward: Tensor | None
    gain: Tensor | None
    divisor: Tensor | None
    labels: Tensor | None = None

    def __getitem__(self, index: slice | tuple[slice, slice]) -> Condition:
        """That of some networks, or of some rows of them."""
        parts = (self.inward, self.gain, self.divisor, self.labels)
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
        replicates = len(next(iter(state.values()), ()))
        expected = {name: (replicates, *s) for name, s in architecture.shapes.items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != expected:
            raise ValueError(f"weights of shapes {found}: must be {expected}")
        padded = architecture.padded_shapes
        return cls(architecture, {name: _padded(w, padded[name]) for name, w in state.items()})

    @classmethod
    def initial(cls, architecture: Architecture, seeds: Sequence[int]) -> ScoreEnsemble:
        """Untrained networks in float32, one a seed, each from its own generator."""
        draw = INITIAL[architecture.name]
        networks = [draw(architecture, seed) for seed in seeds]
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
        return self._like.shape[0]

    @property
    def _like(self) -> Tensor:
        """One of the weights: all have its device and type."""
        return next(iter(self.weights.values()))

    def __getitem__(self, block: slice) -> ScoreEnsemble:
        """The networks of a slice, sharing their memory."""
        weights = {k: w[block] for k, w in self.weights.items()}
        return ScoreEnsemble(self.architecture, weights, self.process, self.arithmetic)

    def repeated(self, n: int) -> ScoreEnsemble:
        """One network n times, sharing its memory."""
        weights = {k: w.expand(n, *w.shape[1:]) for k, w in self.weights.items()}
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
        on_cpu = self._like.device.type == "cpu"
        own = products == "oneDNN" and on_cpu and dtype is None
        arithmetic = Arithmetic(_onednn if own else _batched, dtype)
        return ScoreEnsemble(self.architecture, self.weights, self.process, arithmetic)

    def differentiable(self) -> ScoreEnsemble:
        """The same networks in float64, by products that have gradients."""
        weights = {k: w.double() for k, w in self.weights.items()}
        return ScoreEnsemble(self.architecture, weights, self.process)

    def condition(
        self,
        t: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.integer[Any]] | int | None = None,
    ) -> Condition:
        """What times and classes say to the networks.

        Parameters
        ----------
        t : ndarray, shape (R, n) or (R, 1)
        labels : ndarray of int of the shape of t, or int, optional
            Classes from 0 to K − 1; K and None are no class.

        Returns
        -------
        Condition
            Computed in float64 but for the fraction t/T, which keeps the type of t; cast to
            the type and device of the weights.

        Raises
        ------
        ValueError
            If the networks are not bound to a process, have no score at t = 0, or have no such
            class.
        """
        if self.process is None:
            raise ValueError("the networks must be bound to a process: see ScoreEnsemble.bind")
        like, architecture = self._like, self.architecture
        angle = torch.as_tensor(architecture.angle(self.process, t)).to(like)
        inward, gain, divisor = (
            None if part is None else torch.as_tensor(part).to(like)
            for part in architecture.preconditioner(self.process, t)
        )
        return Condition(angle, inward, gain, divisor, self._labels(labels, t.shape))

    def _labels(
        self, labels: npt.NDArray[np.integer[Any]] | int | None, shape: tuple[int, ...]
    ) -> Tensor | None:
        classes = self.architecture.classes
        given = np.asarray(classes if labels is None else labels)
        if not np.all((given >= 0) & (given <= classes)):
            raise ValueError(
                f"labels from {given.min()} to {given.max()}: must be from 0 to {classes - 1}, or "
                f"{classes} for none"
            )
        if not classes:
            return None
        return torch.as_tensor(np.broadcast_to(given, shape).copy(), device=self._like.device)

    def __call__(self, x: Tensor, t: float | Tensor, label: int | None = None) -> Tensor:
        """Scores s_θ(t, x), or s_θ(t, x, c) of a class.

        Parameters
        ----------
        x : Tensor, shape (R, n, d)
        t : float, or Tensor of shape (R, n)
            A float is one time for all rows: its branch of the network is computed
            once, not once a row.
        label : int, optional
            c of all rows.

        Returns
        -------
        Tensor, shape (R, n, d)

        Raises
        ------
        ValueError
            See `condition`.
        """
        times = t.cpu().numpy() if isinstance(t, Tensor) else np.full((len(self), 1), t)
        condition = self.condition(times, label)
        block = pass_size(self.architecture, x.device)
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
        inner = x if condition.inward is None else x * condition.inward[..., None]
        forward = FORWARD[self.architecture.name]
        score = forward(self.architecture, self.weights, inner, condition, self.arithmetic)
        score = score.to(x)
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
    def load(cls, path: Path, builder: str | None = None) -> ScoreEnsemble:
        """Read networks that `save` wrote, to be bound to their process.

        The format (safetensors) holds data alone, never code. What builds a user's module is run
        only if it is the expected one.

        Parameters
        ----------
        path : Path
        builder : str, optional
            Of the module that the networks must be; None for ours.

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
            found = getattr(architecture, "builder", None)
            if found != builder:
                raise ValueError(f"its builder is {found!r}: must be {builder!r}")
            if isinstance(architecture, Layered) and not architecture.layers < len(state):
                # before `shapes` counts up to it
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


def finished(
    path: str | Path,
    *,
    dimension: int,
    image_shape: tuple[int, ...] | None,
    **parameters: Any,
) -> ScoreEnsemble:
    """A finished model of the user's, from a file of its weights.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file, or a state_dict that `torch.save` wrote; one that holds anything
        but tensors is refused, and executes nothing.
    dimension : int
        d.
    image_shape : tuple of int or None
    **parameters
        The others of `sgm.architectures.ModuleFile`.

    Returns
    -------
    ScoreEnsemble
        Of one network.

    Raises
    ------
    ValueError
        If it can't be built, or the file is no such file, or its weights are not those of the
        module, or not finite.
    """
    architecture = build_architecture(
        {"architecture": "module_file", **parameters}, dimension, image_shape
    )
    assert isinstance(architecture, Built)
    state = _read_state(Path(path))
    try:
        architecture.module.load_state_dict(state)
    except RuntimeError as error:  # missing, unexpected, of another shape
        lines = str(error).splitlines()[1:]
        raise ValueError(
            f"path = {str(path)!r}: its weights must be those of builder = "
            f"{architecture.builder!r}: {' '.join(' '.join(lines).split())}"
        ) from None
    tensors = architecture.tensors(architecture.module)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"path = {str(path)!r}: {name!r} must be finite; it has NaN or inf")
    weights = {name: tensor.detach().float()[None] for name, tensor in tensors.items()}
    return ScoreEnsemble(architecture, weights)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a file that can't execute code."""
    if not path.is_file():
        raise ValueError(f"path = {str(path)!r}: must be a file of weights; there is none")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # on a broken file, libraries raise more than they document
        raise ValueError(
            f"path = {str(path)!r}: must be a .safetensors file, or a state_dict that torch.save "
            f"wrote; what else may execute code is not read: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        keys = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"path = {str(path)!r}: must hold a state_dict, tensors by name, and nothing else; it "
            f"holds {keys}: save the model's state_dict() alone"
        )
    return state


def require_module(
    architecture: Architecture,
    process: Process,
    path: str | None = None,
    *,
    in_float64: bool = False,
) -> None:
    """Run a user's module once, on a few rows.

    Parameters
    ----------
    architecture : Module or ModuleFile
    process : Process
        Whose score it is to be.
    path : str, optional
        Of the weights of a finished model.
    in_float64 : bool
        Whether it must also run in float64, as likelihoods need.

    Raises
    ------
    ValueError
        If it can't be built or run, or does what training and sampling rely on not being done:
        drawing weights from another generator than torch's, noise of its own, a batch norm, rows
        that depend on each other.
    """
    assert isinstance(architecture, Built)
    said = f"builder = {architecture.builder!r}"
    if path is None:
        _require_trainable(architecture, said)
        networks = ScoreEnsemble.initial(architecture, [0])
    else:
        keys = {key: value for key, value in architecture.keys().items() if key != "architecture"}
        networks = finished(path, **keys)
    networks = networks.bind(process)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, architecture.dimension), generator=generator)
    dtypes = [torch.float32, torch.float64] if in_float64 else [torch.float32]
    labels = [None, 0] if architecture.classes else [None]
    for dtype, label in itertools.product(dtypes, labels):
        own, rows = networks.to(dtype=dtype), x.to(dtype)
        try:
            with torch.no_grad():
                whole, again, alone = (
                    own(part, process.horizon, label) for part in (rows, rows, rows[:, :1])
                )
        except (MemoryError, ValueError):
            raise
        except Exception as error:
            raise ValueError(
                f"{said}: its module must run on rows in {dtype}: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        if whole.dtype != dtype or not bool(whole.isfinite().all()):
            raise ValueError(f"{said}: its module must return finite numbers for finite rows")
        if not torch.equal(whole, again):
            raise ValueError(f"{said}: its module must return the same numbers for the same rows")
        size = float(whole.abs().max())
        if not bool(((whole[:, :1] - alone).abs() <= 1e-3 * size).all()):
            raise ValueError(
                f"{said}: its module must treat each row by itself; the first of three rows has "
                "another output than alone"
            )


def _require_trainable(architecture: Built, said: str) -> None:
    """Refuse a module that can't be trained as others are."""
    for name, part in architecture.module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{said}: {name!r} is a batch norm, which makes rows depend on each other: must be "
                "replaced, by a group norm for instance"
            )
        if isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0:
            raise ValueError(
                f"{said}: {name!r} is a dropout of p = {part.p}: must be 0; modules are trained as "
                "they are evaluated, and the noise of a training has streams of its own"
            )
    if not architecture.shapes.keys() - architecture.fixed:
        raise ValueError(f"{said}: its module must have parameters that can be trained")
    first, again = (_module_weights(architecture, 0) for _ in range(2))
    if not all(torch.equal(first[name], again[name]) for name in first):
        raise ValueError(f"{said}: must draw its weights from torch's own generator alone")


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


def _uniform(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """Weights of one of our networks as PyTorch's `Linear` draws them."""
    generator = torch.Generator().manual_seed(seed)
    network = {}
    for name, shape in architecture.shapes.items():
        fan_in = architecture.shapes["output" if name == "bias" else name][0]
        bound = 1 / np.sqrt(fan_in)
        network[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return network


def _module_weights(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """What a user's builder makes, of torch's generator at this seed."""
    assert isinstance(architecture, Built)
    tensors = architecture.tensors(architecture.build(seed))
    return {name: tensor.detach().float().clone() for name, tensor in tensors.items()}


INITIAL: dict[str, Callable[[Architecture, int], dict[str, Tensor]]] = {
    "mlp": _uniform,
    "mixer": _uniform,
    "module": _module_weights,
}
"""Untrained weights of one network by architecture: from a seed, without padding."""


def _embedded(
    architecture: Architecture,
    weights: dict[str, Tensor],
    x: Tensor,
    condition: Condition,
    dtype: torch.dtype | None,
) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Weights, states, and what embedded time and class add to each layer, in the type of F."""
    assert isinstance(architecture, Layered)
    half, angle = architecture.time_width // 2, condition.angle
    frequencies = _frequencies(half, angle.dtype, angle.device)
    angles = angle[..., None] * frequencies
    features = torch.cat([angles.sin(), angles.cos()], dim=-1)
    embedding = torch.bmm(features, weights["time"])
    if condition.labels is not None:
        known = torch.arange(architecture.classes, device=angle.device)
        chosen = (condition.labels[..., None] == known).to(angle)  # no class: none of them
        chosen = _padded(chosen, weights["classes"].shape[1:2])
        embedding = embedding + torch.bmm(chosen, weights["classes"])
    embedding = embedding.relu_()
    shifts = list(torch.bmm(embedding, weights["time_layers"]).chunk(architecture.layers, -1))
    if dtype is None:
        return weights, x, shifts
    cast = {name: w.to(dtype) for name, w in weights.items()}
    return cast, x.to(dtype), [shift.to(dtype) for shift in shifts]


def _mlp(
    architecture: Architecture,
    weights: dict[str, Tensor],
    x: Tensor,
    condition: Condition,
    arithmetic: Arithmetic,
) -> Tensor:
    """See `sgm.architectures.MLP`."""
    product, d = arithmetic.product, x.shape[-1]
    weights, x, shifts = _embedded(architecture, weights, x, condition, arithmetic.dtype)
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
    condition: Condition,
    arithmetic: Arithmetic,
) -> Tensor:
    """See `sgm.architectures.Mixer`."""
    assert isinstance(architecture, Mixer)
    product = arithmetic.product
    weights, x, shifts = _embedded(architecture, weights, x, condition, arithmetic.dtype)
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


def _module(
    architecture: Architecture,
    weights: dict[str, Tensor],
    x: Tensor,
    condition: Condition,
    arithmetic: Arithmetic,
) -> Tensor:
    """See `sgm.architectures.Built`."""
    assert isinstance(architecture, Built)
    networks, n, d = x.shape
    shape = architecture.colour_shape if architecture.images else None
    rows = x.reshape(networks, n, *(shape or (d,)))
    parts = (condition.angle, condition.labels)
    told = [part.expand(networks, n) for part in parts if part is not None]
    module, dtype = architecture.module.to(x.device), arithmetic.dtype
    found = []
    with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
        for own in range(networks):
            # copies start on a cache line, as they do alone: the BLAS takes the same path
            state = {name: w[own].clone() for name, w in weights.items()}
            given = [rows[own].clone(), *(part[own].clone() for part in told)]
            out = torch.func.functional_call(module, state, tuple(given))
            if not isinstance(out, Tensor) or out.shape != rows[own].shape:
                said = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise ValueError(
                    f"builder = {architecture.builder!r}: its module must return a tensor of the "
                    f"shape of its first argument, {tuple(rows[own].shape)}, not {said}"
                )
            found.append(out.reshape(n, d))
    return torch.stack(found)


FORWARD: dict[
    str, Callable[[Architecture, dict[str, Tensor], Tensor, Condition, Arithmetic], Tensor]
] = {"mlp": _mlp, "mixer": _mixer, "module": _module, "module_file": _module}
"""F by architecture: from weights, states (R, n, d), what times and classes say, and how to
multiply."""


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

    def differentiable(self) -> ReusedScore:
        """The same networks in float64, by products that have gradients."""
        return ReusedScore(self.score_fn.differentiable(), self.trained, self.process)

    def __call__(self, x: Tensor, t: float | Tensor, label: int | None = None) -> Tensor:
        """Scores, as `ScoreEnsemble`; times in float64, which small ones need."""
        if isinstance(t, Tensor):
            times: Any = torch.as_tensor(self._times(t.cpu().double().numpy()), device=t.device)
        else:
            times = float(self._times(t))
        given = () if label is None else (label,)
        found: Tensor = self.score_fn(x, times, *given)
        return found
