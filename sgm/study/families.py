"""What a config may say of each family: its parameters, their types and ranges.

One class a family, one table row (`sgm.study.registry`) that says what it builds.
Nothing here imports what it names: a config is validated without NumPy or torch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Parameters", "Recipe"]

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]*$", max_length=64)]


class Strict(BaseModel):
    """Closed: an unknown key is an error that names it. Frozen. No NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    """

    axes: ClassVar[tuple[str, ...]] = ()
    default_name: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("family", "name")

    family: str
    name: Name | None = None


# --- targets -------------------------------------------------------------------------


class Target(Parameters):
    """A data distribution."""


class Isotropic(Target):
    """N(mean·1, variance·I)."""

    dimension: Annotated[int, Field(ge=1)]
    mean: float
    variance: Positive


class HeteroscedasticSlides(Target):
    """Diagonal: variance 10 on the first five coordinates, 0.1 elsewhere."""

    dimension: Annotated[int, Field(ge=5)]
    mean: float


class HeteroscedasticBlocks(Target):
    """Diagonal: five equal blocks of variance 1, 0.01, 1, 1, 1."""

    dimension: Annotated[int, Field(ge=5, multiple_of=5)]
    mean: float


class Correlated(Target):
    """Covariance 1/√(|j − j′| + offset)."""

    dimension: Annotated[int, Field(ge=1)]
    mean: float
    offset: Annotated[float, Field(ge=0)]


class GaussianFile(Target):
    """Mean and covariance from an .npz file with arrays `mean` and `covariance`."""

    path: str


class DigitsGaussian(Target):
    """Gaussian with the mean and covariance of the standardised digits."""


class Digits(Target):
    """The handwritten digits themselves; their law is unknown."""

    heldout_fraction: Annotated[float, Field(gt=0, lt=1)]


# --- schedules -----------------------------------------------------------------------


class Schedule(Parameters):
    """A noise schedule β."""


class Beta(Schedule):
    """The family β_a; `a` is an axis."""

    axes = ("a",)
    default_name = "beta"
    a: float
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


# --- processes, time grids, samplers -------------------------------------------------


class Process(Parameters):
    """A forward process."""


class VP(Process):
    """Variance preserving, with stationary law N(0, variance·I)."""

    variance: Positive


class TimeGrid(Parameters):
    """A time grid of the solver."""


class Sampler(Parameters):
    """A scheme of the backward simulation."""


class DDIM(Sampler):
    """DDIM, from the deterministic sampler (eta = 0) to the ancestral one (eta = 1)."""

    eta: Annotated[float, Field(ge=0, le=1)]


class PredictorCorrector(Sampler):
    """Euler-Maruyama with Langevin corrector steps."""

    corrector_steps: Annotated[int, Field(ge=1)]
    step_size: Positive


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
    eps: float


class Recipe(Strict):
    """How a network is built and trained; see `sgm.training.Recipe`."""

    name: Name
    objective: Literal["explicit", "denoising"]
    weight: Literal["unit", "variance", "variance_squared"]
    width: Annotated[int, Field(ge=16, multiple_of=16)]
    layers: Annotated[int, Field(ge=1)]
    time_width: Annotated[int, Field(ge=16, multiple_of=16)]
    time_scale: Positive
    output: Literal["score", "relative"]
    batch_size: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Positive
    learning_rate_schedule: Literal["constant", "cosine"]
    ema: Annotated[float, Field(ge=0, lt=1)]
    time_sampling: Literal["uniform", "stratified", "early"]
    time_min: Annotated[float, Field(ge=0, lt=1)]


class Trained(Score):
    """Networks trained per (target, schedule, horizon, seed)."""

    recipe: Recipe


# --- divergences ---------------------------------------------------------------------


class HeldoutNLL(Parameters):
    """Held-out log-likelihood under a density fitted to the sample."""

    components: Annotated[int, Field(ge=1)]
    regularisation: Positive
