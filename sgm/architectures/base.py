"""What all architectures have in common: times, and how the output is a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.processes import Process

__all__ = [
    "OUTPUTS",
    "TIME_INPUTS",
    "Architecture",
    "Preconditioner",
    "Trainable",
    "positive_variance",
    "preconditioned",
    "require_positive",
]

Array = npt.NDArray[np.float64]
Times = npt.NDArray[np.floating[Any]]


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


def positive_variance(process: Process, t: Times) -> Array:
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
    v = positive_variance(process, t)
    total = v + (process.mean_scale(t) * data_std) ** 2
    return Preconditioner(inward=total**-0.5, gain=-(v**-0.5))


def _data(process: Process, t: Array, data_std: float) -> Preconditioner:
    v, m = positive_variance(process, t), process.mean_scale(t)
    return Preconditioner(inward=(v + (m * data_std) ** 2) ** -0.5, gain=m / v, divisor=v)


def preconditioned(process: Process, t: Array, data_std: float) -> Preconditioner:
    """Coefficients of EDM's preconditioning, for data of standard deviation `data_std`."""
    v, data = positive_variance(process, t), process.mean_scale(t) * data_std
    total = v + data**2
    gain = data / np.sqrt(v * total)
    return Preconditioner(inward=total**-0.5, gain=gain, divisor=total)


OUTPUTS: dict[str, Callable[[Process, Array, float], Preconditioner]] = {
    "score": lambda process, t, data_std: Preconditioner(),
    "relative": _relative,
    "noise": _noise,
    "data": _data,
    "preconditioned": preconditioned,
}
"""What a network's output is, by name: from process, t and s_d to the coefficients."""

TIME_INPUTS: dict[str, Callable[[Process, Times, float], Times]] = {
    "fraction": lambda process, t, time_scale: float(time_scale / process.horizon) * t,
    # −log m = B/(2σ²), also where m underflows
    "log_noise": lambda process, t, time_scale: (
        (np.log(positive_variance(process, t)) + process.schedule.integral(t) / process.variance)
        * (time_scale / 8)
    ),
}
"""The time variable τ by name, from process, t and time_scale."""


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """All that fixes a network but its weights and the process whose score it is.

    Parameters
    ----------
    dimension : int
        d.
    classes : int
        K, of a network that is told the class of a row, c from 0 to K − 1, or K for none; 0 of one
        that knows no classes.

    Raises
    ------
    ValueError
        If a value is out of range; the message names it.
    """

    name: ClassVar[str]

    dimension: int
    classes: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "dimension")
        if self.classes < 0:
            raise ValueError(f"classes = {self.classes!r}: must be at least 0")

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one network's weights."""

    @property
    def padded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes in which they are kept."""
        return self.shapes

    @property
    def fixed(self) -> frozenset[str]:
        """Names of those that are not trained."""
        return frozenset()

    @property
    @abstractmethod
    def networks_per_pass(self) -> int:
        """How many networks to run in one batched pass: a matter of speed alone."""

    @property
    def smooth(self) -> bool:
        """Whether the derivative in x does not jump."""
        return True

    @abstractmethod
    def angle(self, process: Process, t: Times) -> Times:
        """τ(t), of the shape of t."""

    @abstractmethod
    def preconditioner(self, process: Process, t: Times) -> Preconditioner:
        """Coefficients in float64 that make the output a score at times t."""

    def require(self, process: Process, t: float) -> None:
        """Raise a ValueError for a process, or a time, at which the output is no score."""
        at = np.asarray(t, dtype=np.float64)
        self.preconditioner(process, at)
        self.angle(process, at)

    def keys(self) -> dict[str, Any]:
        """The architecture as plain values, from which `from_keys` makes it again."""
        return {"architecture": self.name} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trainable(Architecture):
    """A network that is trained here: its output and its time variable are chosen.

    Parameters
    ----------
    time_scale : float
        Factor of the time variable.
    time_input : str
        A name of `TIME_INPUTS`.
    output : str
        A name of `OUTPUTS`.
    data_std : float
        s_d > 0, for the outputs "noise", "data" and "preconditioned".
    """

    time_scale: float
    output: str
    time_input: str = "fraction"
    data_std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "time_scale", "data_std")
        names: dict[str, list[str]] = {"output": list(OUTPUTS), "time_input": list(TIME_INPUTS)}
        for key, allowed in names.items():
            value = getattr(self, key)
            if value not in allowed:
                raise ValueError(f"{key} = {value!r}: must be one of {', '.join(allowed)}")

    def angle(self, process: Process, t: Times) -> Times:
        """τ(t), of the shape of t; float64, but for "fraction", which keeps the type of t."""
        return TIME_INPUTS[self.time_input](process, t, self.time_scale)

    def preconditioner(self, process: Process, t: Times) -> Preconditioner:
        return OUTPUTS[self.output](process, np.asarray(t, dtype=np.float64), self.data_std)


def require_positive(owner: Any, *keys: str) -> None:
    """Raise a ValueError that names a key of `owner` which is no positive, finite number."""
    for key in keys:
        value = getattr(owner, key)
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{key} = {value!r}: must be positive and finite")
