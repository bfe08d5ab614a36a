"""What a config may say of each family: its parameters, their types and ranges.

One class a family, one table row (`sgm.study.registry`) that says what it builds.
Nothing here imports what it names: a config is validated without NumPy or torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

__all__ = ["Parameters", "Recipe", "format_number"]


def format_number(value: float) -> str:
    """A number as it stands in labels and paths: 12 significant digits, 1.0 as ``1``."""
    return f"{value + 0.0:.12g}"


def as_labelled(value: float) -> float:
    """The number that a label names: what is computed is what the label says."""
    return float(format_number(value))


def _not_periodic(name: str) -> str:
    """Snakemake takes twenty repetitions in a path for a rule that calls itself for ever."""
    if re.search(r"(.+?)\1{19}$", name):
        raise PydanticCustomError("periodic", "must not end in 20 repetitions of the same letters")
    return name


#: Magnitudes that double precision leaves room for: squares, exponentials and products of
#: them stay normal numbers. Larger counts would fill a memory or take years.
Real = Annotated[float, Field(ge=-1e9, le=1e9)]
Positive = Annotated[float, Field(ge=1e-15, le=1e9)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Dimension = Annotated[int, Field(ge=1, le=10**4)]
Width = Annotated[int, Field(ge=16, le=2**14, multiple_of=16)]
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]*$", max_length=64),
    AfterValidator(_not_periodic),
]


def _takes(annotation: Any, *kinds: type) -> bool:
    """Whether a type is one of some kinds, or made of one."""
    return annotation in kinds or any(_takes(part, *kinds) for part in get_args(annotation))


def _truths(value: Any, depth: int = 2) -> Iterator[bool]:
    """The booleans among the numbers of a parameter, which are at most lists of lists."""
    if isinstance(value, bool):
        yield value
    elif isinstance(value, list) and depth:
        for part in value:
            yield from _truths(part, depth - 1)


def _plain(text: str) -> str:
    """A path as one writes it: ``./rows.csv`` and ``rows.csv`` are one file."""
    path = Path(text)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


UserPath = Annotated[str, AfterValidator(_plain)]


def _without_negative_zero(value: Any) -> Any:
    """Equal numbers as equal texts: −0.0 is 0.0."""
    if isinstance(value, tuple):
        return tuple(map(_without_negative_zero, value))
    return value + 0.0 if isinstance(value, float) else value


class Strict(BaseModel):
    """Closed: an unknown key is an error that names it. Frozen. No NaN, no infinity.

    And no truth value, which pydantic takes for 1 or 0, where a number is due.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    _zero = field_validator("*")(_without_negative_zero)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, raw: Any) -> Any:
        """Pydantic takes `true` for 1 and 1 for `true`."""
        for key, field in cls.model_fields.items():
            value = raw.get(key) if isinstance(raw, dict) else None
            if _takes(field.annotation, bool):
                if isinstance(value, int | float | str) and not isinstance(value, bool):
                    raise ValueError(f"{key} = {str(value)[:64]!r}: must be true or false")
            elif _takes(field.annotation, int, float):
                for truth in _truths(value):
                    raise ValueError(f"{key} = {truth}: must be a number, not true or false")
        return raw


class Parameters(Strict):
    """Base of all families.

    Class attributes
    ----------------
    axes : tuple of str
        Parameters that may be a list in the config, one cell a value; they are part
        of the label, as in ``beta_a=-10``.
    default_name : str
        First part of the label when the config gives no `name`; the family if empty.
    context : tuple of str
        Keys of the config that say where a family is used, not what it is; they are
        not passed to what it builds.
    changes : tuple of str
        Keys that change what was built: they stand beside its parameters in a spec.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    default_name: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("family", "name")
    changes: ClassVar[tuple[str, ...]] = ()

    family: str
    name: Name | None = None

    @field_validator("*")
    @classmethod
    def _as_labelled(cls, value: Any, info: ValidationInfo) -> Any:
        on_axis = info.field_name in cls.axes and isinstance(value, float)
        return as_labelled(value) if on_axis else value


# --- targets -------------------------------------------------------------------------


class Rescale(Strict):
    """A change of coordinates, (x − c)/s, in which everything is computed; it is stored."""

    center: Annotated[bool, Field(description="c is the mean; else 0")]
    scale: Annotated[
        Positive | Literal["unit_variance", "unit_spectrum"],
        Field(description="s: a number, or the root of the mean variance or largest eigenvalue"),
    ]


class Target(Parameters):
    """A data distribution."""


class KnownTarget(Target):
    """A data distribution of known density."""

    changes = ("rescale",)
    rescale: Rescale | None = None


class DataTarget(Target):
    """A data set; a fraction of its rows is held out, and columns may be standardised."""

    heldout_fraction: Annotated[float, Field(gt=0, lt=1)]
    standardise: bool


class Isotropic(KnownTarget):
    """N(mean·1, variance·I)."""

    dimension: Dimension
    mean: Real
    variance: Positive


class HeteroscedasticSlides(KnownTarget):
    """Diagonal: variance 10 on the first five coordinates, 0.1 elsewhere."""

    dimension: Annotated[Dimension, Field(ge=5)]
    mean: Real


class HeteroscedasticBlocks(KnownTarget):
    """Diagonal: five equal blocks of variance 1, 0.01, 1, 1, 1."""

    dimension: Annotated[Dimension, Field(ge=5, multiple_of=5)]
    mean: Real


class Correlated(KnownTarget):
    """Covariance 1/√(|j − j′| + offset)."""

    dimension: Dimension
    mean: Real
    offset: Annotated[Real, Field(ge=0)]


class GaussianFile(KnownTarget):
    """Mean and covariance from an .npz file with arrays `mean` and `covariance`."""

    path: UserPath


class DigitsGaussian(KnownTarget):
    """Gaussian with the mean and covariance of the standardised digits."""


class Funnel(KnownTarget):
    """Neal's funnel: x₁ ~ N(0, spread²), x_j | x₁ ~ N(0, exp(2 slope x₁))."""

    dimension: Annotated[Dimension, Field(ge=2)]
    spread: Positive
    slope: Positive


class TwoModes(KnownTarget):
    """0.3 N(1, 0.1²) + 0.7 N(3, 0.5²), in one dimension."""


class GridMixture(KnownTarget):
    """side² equal modes on a square grid of step 1, and dimension − 2 Gaussian coordinates."""

    dimension: Annotated[Dimension, Field(ge=2)]
    side: Annotated[int, Field(ge=1, le=1000)]
    variance: Positive
    rest_variance: Positive


class RingMixture(KnownTarget):
    """Equal modes on a circle, in two dimensions."""

    modes: Count
    radius: Positive
    variance: Positive


class Mixture(KnownTarget):
    """A Gaussian mixture with diagonal components; numbers for one dimension, lists for more."""

    weights: tuple[Positive, ...]
    means: tuple[Real | tuple[Real, ...], ...]
    variances: tuple[Positive | tuple[Positive, ...], ...]


class ShippedData(DataTarget):
    """A data set that scikit-learn ships: digits, breast cancer, diabetes or wine."""


class DataFile(DataTarget):
    """Rows of a .csv, .npy, .npz, .zarr or .parquet file of the user's."""

    path: UserPath
    dequantise: bool
    array: Annotated[str | None, Field(description="of an .npz or .zarr file of several")] = None
    delimiter: Annotated[
        Literal[",", ";", "\t", "|", " "] | None,
        Field(description="of a .csv file; null is a comma, or ; where the decimal is a comma"),
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None, Field(description="sign of a .csv file; null is a point")
    ] = None
    header: Annotated[
        bool | None, Field(description="whether a .csv file names its columns; null finds it")
    ] = None
    columns: Annotated[
        tuple[str | int, ...] | None,
        Field(min_length=1, description="to be read, by name or place from 0; null is all"),
    ] = None
    image_shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Field(description="[height, width] or [3, height, width]; null is that of the array"),
    ] = None
    levels: Annotated[
        int | None, Field(ge=2, description="L of whole numbers 0, …, L − 1; null if others")
    ] = None


class ImageFolder(Target):
    """Images in a local folder, as published; the test files are the held-out rows."""

    path: UserPath
    rows: Count | None = None
    heldout_rows: Count | None = None


# --- schedules -----------------------------------------------------------------------


class Schedule(Parameters):
    """A noise schedule β, stretched with T; or, with `full_horizon`, cut at T."""

    changes = ("full_horizon",)
    full_horizon: Annotated[
        Positive | None,
        Field(description="β is that of this horizon, stopped at T; null stretches it to T"),
    ] = None


class Beta(Schedule):
    """The family β_a; `a` is an axis."""

    axes = ("a",)
    default_name = "beta"
    a: Real
    beta_min: Positive
    beta_max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Beta:
        if self.beta_max < self.beta_min:
            raise ValueError(
                f"beta_max = {self.beta_max}: must be at least beta_min = {self.beta_min}"
            )
        return self


class Constant(Schedule):
    """β(t) = rate."""

    rate: Positive


class Cosine(Schedule):
    """Cosine schedule with offset s, clipped."""

    offset: Positive
    clip: Positive


class Geometric(Schedule):
    """Noise of standard deviation sigma_min (sigma_max/sigma_min)^(t/T), that of VE."""

    sigma_min: Positive
    sigma_max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Geometric:
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                f"sigma_max = {self.sigma_max}: must exceed sigma_min = {self.sigma_min}"
            )
        return self


# --- processes, time grids, samplers -------------------------------------------------


class Process(Parameters):
    """A forward process."""


class VP(Process):
    """Variance preserving, with stationary law N(0, variance·I)."""

    variance: Positive


class VE(Process):
    """Variance exploding: Brownian motion in the time ∫β, without a stationary law."""


class TimeGrid(Parameters):
    """A time grid of the solver."""


class Sampler(Parameters):
    """A scheme of the backward simulation."""


class DDIM(Sampler):
    """DDIM, from the deterministic sampler (eta = 0) to the ancestral one (eta = 1)."""

    eta: Annotated[float, Field(ge=0, le=1)]


class PredictorCorrector(Sampler):
    """Euler-Maruyama with Langevin corrector steps."""

    corrector_steps: Count
    step_size: Positive


class PredictorCorrectorSNR(Sampler):
    """Euler-Maruyama with Langevin corrector steps set by a signal-to-noise ratio."""

    axes = ("corrector_steps", "snr")
    corrector_steps: Count
    snr: Positive


class AnnealedLangevin(Sampler):
    """Langevin steps at each level of the grid, of a size in units of the noise's variance."""

    axes = ("langevin_steps", "step_size")
    langevin_steps: Count
    step_size: Positive


class EDM(Sampler):
    """EDM's stochastic Heun: noise is added between two levels before each step."""

    axes = ("s_churn",)
    s_churn: Annotated[Real, Field(ge=0)]
    s_tmin: Annotated[Real, Field(ge=0, description="level √v/m below which none is added")] = 0.0
    s_tmax: Annotated[Positive | None, Field(description="and above which; null is no limit")] = (
        None
    )
    s_noise: Annotated[Positive, Field(description="factor of the noise that is added")] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> EDM:
        if self.s_tmax is not None and self.s_tmax < self.s_tmin:
            raise ValueError(f"s_tmax = {self.s_tmax}: must be at least s_tmin = {self.s_tmin}")
        return self


class Restart(Sampler):
    """Heun, an interval of times gone through again and again."""

    axes = ("restarts",)
    restarts: Annotated[int, Field(ge=0, le=10**4)]
    low: Annotated[float, Field(ge=0, le=1, description="end of the interval, as a fraction of T")]
    high: Annotated[float, Field(ge=0, le=1, description="its start")]

    @model_validator(mode="after")
    def _ordered(self) -> Restart:
        if not self.high > self.low:
            raise ValueError(f"high = {self.high}: must exceed low = {self.low}")
        return self


class RandomisedMidpoint(Sampler):
    """Exponential integrator with the score at a random time in each step."""

    axes = ("times_seed",)
    times_seed: Annotated[int, Field(ge=0, lt=2**32)]


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M), from the probability flow (eta = 0) to the backward SDE (eta = 1)."""

    axes = ("eta",)
    eta: Annotated[float, Field(ge=0, le=1)]


class DEIS(Sampler):
    """Exponential Adams-Bashforth in the noise level."""

    axes = ("order",)
    order: Annotated[int, Field(ge=1, le=3)]


# --- scores --------------------------------------------------------------------------


class Score(Parameters):
    """A score; `targets` restricts it to some targets of the study."""

    context: ClassVar[tuple[str, ...]] = ("family", "name", "targets")
    targets: tuple[str, ...] | None = None


class Affine(Score):
    """The exact score, or a controlled perturbation of it: its sampler's law is exact.

    `sampled` says whether Monte-Carlo replicates are run beside the exact law.
    """

    context = ("family", "name", "targets", "sampled")
    sampled: bool


class Perturbed(Affine):
    """A perturbation of size `eps`, which is an axis."""

    axes = ("eps",)
    eps: Real


class Recipe(Strict):
    """How a network is built and trained; see `sgm.training.Recipe`.

    Keys with a default came later than the first studies.
    """

    name: Name
    objective: Literal["explicit", "denoising"]
    weight: Literal["unit", "variance", "variance_squared"]
    layers: Annotated[int, Field(ge=1, le=1000)]
    time_width: Width
    time_scale: Positive
    time_input: Literal["fraction", "log_noise"] = "fraction"
    output: Literal["score", "relative", "noise", "preconditioned"]
    data_std: Positive = 1.0
    batch_size: Count
    steps: Annotated[int, Field(ge=1, le=10**9)]
    learning_rate: Positive
    learning_rate_schedule: Literal["constant", "cosine"]
    ema: Annotated[float, Field(ge=0, lt=1)]
    time_sampling: Literal["uniform", "stratified", "early"]
    time_min: Annotated[float, Field(ge=0, lt=1)]


class MLPRecipe(Recipe):
    """A residual MLP; see `sgm.architectures.MLP`."""

    architecture: Literal["mlp"] = "mlp"
    width: Width


class MixerRecipe(Recipe):
    """An MLP-mixer for images; see `sgm.architectures.Mixer`."""

    architecture: Literal["mixer"]
    patch: Count
    channels: Width
    token_width: Width
    channel_width: Width


def _with_architecture(raw: Any) -> Any:
    """A recipe that names no architecture is an MLP's."""
    return {"architecture": "mlp"} | raw if isinstance(raw, dict) else raw


class Trained(Score):
    """Networks trained per (target, schedule, horizon, seed)."""

    recipe: Annotated[
        MLPRecipe | MixerRecipe,
        Field(discriminator="architecture"),
        BeforeValidator(_with_architecture),
    ]


# --- divergences ---------------------------------------------------------------------


class Divergence(Parameters):
    """A divergence between a generated sample and the target."""


class HeldoutNLL(Divergence):
    """Held-out log-likelihood under a density fitted to the sample."""

    components: Count
    regularisation: Positive


class GaussianKL(Divergence):
    """KL of the first two moments, and what the plug-in of `plugin_rows` rows would show."""

    plugin_rows: Annotated[int, Field(ge=2)] = 10_000


class Subsampled(Divergence):
    """A divergence between the first `rows` rows of two samples; its cost grows as rows²."""

    rows: Annotated[int, Field(ge=4, le=20000)]


class Projected(Divergence):
    """A divergence over a stored set of random directions."""

    projections: Count
    projection_seed: Annotated[int, Field(ge=0, lt=2**32)]


class Coverage(Projected):
    """Coupled estimates of few rows against those of all, for networks on Gaussian targets."""

    rows: Annotated[
        tuple[Annotated[int, Field(ge=40, le=10**6)], ...],
        Field(min_length=1, description="of the estimates that are held against all rows"),
    ]
    sets: Annotated[int, Field(ge=2, le=10**4, description="disjoint, of so many rows, at most")]
    subsample: Annotated[
        int, Field(ge=40, le=20000, description="rows at most where the cost grows as rows²")
    ]


class Histogram(Divergence):
    """Frequencies of one coordinate over equal bins, in the target's original units."""

    coordinate: Annotated[int, Field(ge=0)]
    bins: Annotated[int, Field(ge=2, le=1000)]
    low: Real
    high: Real

    @model_validator(mode="after")
    def _ordered(self) -> Histogram:
        if not self.high > self.low:
            raise ValueError(f"high = {self.high}: must exceed low = {self.low}")
        return self


# --- likelihoods -----------------------------------------------------------------------


class Likelihood(Strict):
    """How the evidence bound and the likelihood of the probability flow are computed."""

    rows: Annotated[int, Field(ge=2, le=10**6, description="true rows of a run, and draws a node")]
    nodes: Annotated[int, Field(ge=1, le=512, description="nodes in time of the evidence bound")]
    cutoff: Annotated[Positive, Field(description="the time at which both stop, below every T")]
    divergence: Annotated[Literal["exact", "hutchinson"], Field(description="of a network's score")]
    directions: Annotated[Count, Field(description="random signs a row, of hutchinson")]
    method: Annotated[Literal["RK45", "DOP853"], Field(description="the solver of the flow")]
    rtol: Positive
    atol: Annotated[Positive, Field(description="of the coordinates")]
    atol_nats: Annotated[Positive, Field(description="of the log-likelihood")]


# --- pictures ------------------------------------------------------------------------


class Pictures(Strict):
    """Trajectories of a few rows at chosen times, drawn for seed 0."""

    schedules: Annotated[tuple[str, ...], Field(min_length=1, description="their labels")]
    rows: Annotated[int, Field(ge=1, le=512)]
    times: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1)], ...],
        Field(min_length=1, description="fractions of T"),
    ]
    coordinates: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1, max_length=2, description="which are drawn, images apart"),
    ]

    @field_validator("coordinates")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{list(value)}: must be distinct")
        return value
