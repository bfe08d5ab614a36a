"""What a config may say of each family: its parameters, their types and ranges.

One class a family, one table row (`sgm.study.registry`) that says what it builds.
Nothing here imports what it names: a config is validated without NumPy or torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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

from sgm.store.axes import as_labelled

__all__ = ["Parameters", "Recipe"]


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
    axes : mapping of str to str
        Numbers that may be a list in the config, one cell a value, and the symbol of each, empty
        for its name. They are part of the label, as in ``beta_a=-10``, and coordinates of the grid.
    default_name : str
        First part of the label when the config gives no `name`; the family if empty.
    context : tuple of str
        Keys of the config that say where a family is used, not what it is; they are
        not passed to what it builds.
    changes : tuple of str
        Keys that change what was built: they stand beside its parameters in a spec.
    """

    axes: ClassVar[Mapping[str, str]] = {}
    default_name: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("family", "name")
    changes: ClassVar[tuple[str, ...]] = ()

    family: str
    name: Name | None = None

    @field_validator("*")
    @classmethod
    def _as_labelled(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name not in cls.axes:
            return value
        if isinstance(value, int) and as_labelled(value) != value:
            raise ValueError(f"{value}: must have at most 12 digits, as labels do")
        return as_labelled(value) if isinstance(value, float) else value


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
    """The family β_a."""

    axes: ClassVar[Mapping[str, str]] = {"a": "a"}
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


class Polynomial(Schedule):
    """β_min + (β_max − β_min) (t/T)^exponent."""

    axes: ClassVar[Mapping[str, str]] = {"exponent": "p"}
    exponent: Annotated[float, Field(ge=0.01, le=1000)]
    beta_min: Positive
    beta_max: Positive


class Sigmoid(Schedule):
    """m² a sigmoid of the time between start/tau and end/tau, clipped."""

    axes: ClassVar[Mapping[str, str]] = {"tau": "τ"}
    start: Real
    end: Real
    tau: Positive
    clip: Positive


class PowerCosine(Schedule):
    """m² a cosine to the power of 2 tau between two angles, clipped."""

    axes: ClassVar[Mapping[str, str]] = {"tau": "τ"}
    start: Annotated[float, Field(ge=0, le=1, description="of a quarter turn")]
    end: Annotated[float, Field(ge=0, le=1, description="of a quarter turn")]
    tau: Annotated[float, Field(ge=0.01, le=100)]
    clip: Positive


class Laplace(Schedule):
    """Log-SNR of a Laplace law of some location and scale, clipped."""

    axes: ClassVar[Mapping[str, str]] = {"scale": "b"}
    location: Annotated[float, Field(ge=-100, le=100)]
    scale: Annotated[float, Field(ge=0.01, le=10)]
    clip: Positive


class EDM(Schedule):
    """Noise levels uniform in sigma^(1/rho)."""

    axes: ClassVar[Mapping[str, str]] = {"rho": "ρ"}
    sigma_min: Annotated[float, Field(ge=0, le=1e9)]
    sigma_max: Positive
    rho: Annotated[float, Field(ge=0.5, le=1000)]


class DiscreteCosine(Schedule):
    """The cosine schedule as a chain of `steps` steps, each clipped at `max_beta`."""

    offset: Positive
    steps: Count
    max_beta: Annotated[float, Field(gt=0, lt=1)]


Knots = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...],
    Field(min_length=2, description="times as fractions of T, from 0 to 1"),
]


class RateKnots(Schedule):
    """β through `rates` at `knots`: linear between them, or a monotone spline."""

    knots: Knots
    rates: Annotated[tuple[Positive, ...], Field(min_length=2)]


class LevelKnots(Schedule):
    """B a monotone spline through `levels` at `knots`."""

    knots: Knots
    levels: Annotated[tuple[Annotated[float, Field(ge=0, le=1e9)], ...], Field(min_length=2)]


class ScheduleFile(Schedule):
    """Knots from a .csv, .json or .npz file: columns time and beta, or time and integral."""

    path: UserPath
    interpolation: Literal["linear", "monotone"]


# --- processes, time grids, samplers -------------------------------------------------


class Process(Parameters):
    """A forward process."""


class VP(Process):
    """Variance preserving, with stationary law N(0, variance·I)."""

    variance: Positive = 1.0


class VE(Process):
    """Variance exploding: Brownian motion in the time ∫β, without a stationary law."""


class TimeGrid(Parameters):
    """A time grid of the solver; it ends at 0, or at `early_stop`."""

    changes = ("early_stop",)
    early_stop: Annotated[
        Positive | None, Field(description="last time, below every T; null is 0, the data")
    ] = None


class BetaQuantiles(TimeGrid):
    """Quantiles of the law Beta(alpha, beta) on [0, T]."""

    alpha: Positive
    beta: Positive


class LinearSteps(TimeGrid):
    """Steps of B that grow linearly, by the factor `ratio` from the data to the noise."""

    axes: ClassVar[Mapping[str, str]] = {"ratio": ""}
    ratio: Positive


class Levels(TimeGrid):
    """Noise levels down to `sigma_min`, and a last step to 0 or none."""

    sigma_min: Annotated[Positive, Field(description="smallest noise-to-signal ratio")]
    end: Annotated[
        Literal["zero", "stop"],
        Field(description="whether a last step leads from sigma_min to 0, or the grid stops there"),
    ] = "zero"

    @model_validator(mode="after")
    def _ends_once(self) -> Levels:
        if self.end == "stop" and self.early_stop is not None:
            raise ValueError(
                f"early_stop = {self.early_stop}: must be null with end = 'stop', where the grid "
                "stops at sigma_min"
            )
        return self


class Karras(Levels):
    """Equal steps in σ^(1/rho)."""

    axes: ClassVar[Mapping[str, str]] = {"rho": "ρ"}
    rho: Positive


class DMN(Levels):
    """Levels that minimise an error bound of a multistep solver of some order."""

    order: Literal[1, 2, 3]
    exponent: Positive
    scale: Positive


class Arctangent(TimeGrid):
    """Equal steps in arctan(σ/scale)."""

    axes: ClassVar[Mapping[str, str]] = {"scale": ""}
    scale: Positive


class CosineLevels(TimeGrid):
    """The noise levels of the cosine schedule, σ in units of `scale`."""

    offset: Annotated[float, Field(ge=0, le=1e9)]
    scale: Positive


class SigmoidLevels(TimeGrid):
    """The noise levels of the sigmoid schedule, σ in units of `scale`."""

    start: Real
    finish: Real
    temperature: Positive
    scale: Positive


class LaplaceLevels(TimeGrid):
    """Quantiles of a Laplace law of the log-SNR."""

    location: Real
    width: Positive


class GaussianGeometric(TimeGrid):
    """Noise levels in geometric sequence, down to one that depends on Tr Σ and N."""

    end: Literal["zero", "stop"] = "zero"


class ScoreOptimal(TimeGrid):
    """Equal Fisher divergences between neighbours, with the velocity 1 or σ."""

    velocity: Literal["unit", "noise"]


class ConstantRate(TimeGrid):
    """Equal changes of the law, measured by W2 of its moments; σ in units of `scale`."""

    exponent: Annotated[float, Field(ge=0, le=100)]
    scale: Positive


class Sampler(Parameters):
    """A scheme of the backward simulation."""


class DDIM(Sampler):
    """DDIM, from the deterministic sampler (eta = 0) to the ancestral one (eta = 1)."""

    axes: ClassVar[Mapping[str, str]] = {"eta": "η"}
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0


class PredictorCorrector(Sampler):
    """Euler-Maruyama with Langevin corrector steps."""

    axes: ClassVar[Mapping[str, str]] = {"corrector_steps": "L", "step_size": "δ"}
    corrector_steps: Count
    step_size: Positive


class PredictorCorrectorSNR(Sampler):
    """Euler-Maruyama with Langevin corrector steps set by a signal-to-noise ratio."""

    axes: ClassVar[Mapping[str, str]] = {"corrector_steps": "L", "snr": "r"}
    corrector_steps: Count
    snr: Positive


class AnnealedLangevin(Sampler):
    """Langevin steps at each level of the grid, of a size in units of the noise's variance."""

    axes: ClassVar[Mapping[str, str]] = {"langevin_steps": "L", "step_size": "δ"}
    langevin_steps: Count
    step_size: Positive


class Churn(Sampler):
    """EDM's stochastic Heun: noise is added between two levels before each step."""

    axes: ClassVar[Mapping[str, str]] = {"s_churn": "S"}
    s_churn: Annotated[Real, Field(ge=0)]
    s_tmin: Annotated[Real, Field(ge=0, description="level √v/m below which none is added")] = 0.0
    s_tmax: Annotated[Positive | None, Field(description="and above which; null is no limit")] = (
        None
    )
    s_noise: Annotated[Positive, Field(description="factor of the noise that is added")] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Churn:
        if self.s_tmax is not None and self.s_tmax < self.s_tmin:
            raise ValueError(f"s_tmax = {self.s_tmax}: must be at least s_tmin = {self.s_tmin}")
        return self


class Restart(Sampler):
    """Heun, an interval of times gone through again and again."""

    axes: ClassVar[Mapping[str, str]] = {"restarts": "K"}
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

    axes: ClassVar[Mapping[str, str]] = {"times_seed": ""}
    times_seed: Annotated[int, Field(ge=0, lt=2**32)]


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M), from the probability flow (eta = 0) to the backward SDE (eta = 1)."""

    axes: ClassVar[Mapping[str, str]] = {"eta": "η"}
    eta: Annotated[float, Field(ge=0, le=1)]


class DEIS(Sampler):
    """Exponential Adams-Bashforth in the noise level."""

    axes: ClassVar[Mapping[str, str]] = {"order": "p"}
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
    """A perturbation of size `eps`."""

    axes: ClassVar[Mapping[str, str]] = {"eps": "ε"}
    eps: Real


class Recipe(Strict):
    """How a network is built and trained; see `sgm.training.Recipe`."""

    name: Annotated[Name, Field(description="shown, and no more")] = "default"
    objective: Annotated[
        Literal["explicit", "denoising"], Field(description="the loss; denoising takes any target")
    ] = "denoising"
    weight: Annotated[
        Literal["unit", "variance", "variance_squared"], Field(description="of the loss in time")
    ] = "variance"
    layers: Annotated[int, Field(ge=1, le=1000, description="residual blocks")] = 3
    time_width: Annotated[Width, Field(description="width of the embedding of the time")] = 64
    time_scale: Annotated[Positive, Field(description="factor of the time input")] = 1000.0
    time_input: Annotated[
        Literal["fraction", "log_noise"], Field(description="what is embedded")
    ] = "fraction"
    output: Annotated[
        Literal["score", "relative", "noise", "preconditioned"],
        Field(description="what the network says of the score; relative is refused for VE"),
    ] = "relative"
    data_std: Annotated[
        Positive, Field(description="root mean square of a coordinate of the data")
    ] = 1.0
    batch_size: Annotated[Count, Field(description="rows of a step")] = 64
    steps: Annotated[int, Field(ge=1, le=10**9, description="steps of training")] = 2000
    learning_rate: Annotated[Positive, Field(description="of Adam, at its start")] = 0.002
    learning_rate_schedule: Annotated[
        Literal["constant", "cosine"], Field(description="its course")
    ] = "cosine"
    ema: Annotated[
        float, Field(ge=0, lt=1, description="decay of the average of the weights; 0: none")
    ] = 0.0
    time_sampling: Annotated[
        Literal["uniform", "stratified", "early"], Field(description="law of the training times")
    ] = "early"
    time_min: Annotated[
        float, Field(ge=0, lt=1, description="shortest training time, a fraction of T")
    ] = 1e-5


class MLPRecipe(Recipe):
    """A residual MLP; see `sgm.architectures.MLP`."""

    architecture: Annotated[
        Literal["mlp"], Field(description="mlp, or mixer with keys of its own")
    ] = "mlp"
    width: Annotated[Width, Field(description="of the hidden layers, of mlp")] = 128


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
    """Networks trained per (target, schedule, horizon, seed).

    Or, with a `train_schedule`, per (target, horizon, seed) under that schedule alone.
    """

    context = (*Score.context, "train_schedule")
    train_schedule: Annotated[
        str | None,
        Field(
            description="label of the study's schedule under which the networks of all are "
            "trained; null trains under each"
        ),
    ] = None
    recipe: Annotated[
        MLPRecipe | MixerRecipe,
        Field(discriminator="architecture"),
        BeforeValidator(_with_architecture),
    ] = MLPRecipe()


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


# --- figures -------------------------------------------------------------------------


class Figures(Strict):
    """What the figures of a study show."""

    x: Annotated[
        str | None,
        Field(description="the number on the x-axis, such as a, horizon or eta; null: what varies"),
    ] = None
