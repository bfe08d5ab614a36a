"""What a config may say of each family: a model made of what the family says of itself.

`model_of` reads the signature of a family (`sgm.registry`): what it does not ask of its context
are its parameters, with their types, ranges and defaults. What all families of a kind have in
common, and what is no family, a recipe, a likelihood, pictures, stands here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PydanticSchemaGenerationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sgm.axes import as_labelled
from sgm.registry import CONTEXT, Count, Entry, Fraction, NonNegative, Positive, Width, lookup
from sgm.shipped import located

__all__ = ["Parameters", "Recipe", "model_of"]


def _not_periodic(name: str) -> str:
    """Snakemake takes twenty repetitions in a path for a rule that calls itself for ever."""
    if re.search(r"(.+?)\1{19}$", name):
        raise PydanticCustomError("periodic", "must not end in 20 repetitions of the same letters")
    return name


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
    """A path as one writes it: ``./rows.csv`` and ``rows.csv`` are one file; or a shipped one."""
    path = located(text)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


UserPath = Annotated[str, AfterValidator(_plain)]


def _without_negative_zero(value: Any) -> Any:
    """Equal numbers as equal texts: −0.0 is 0.0."""
    if isinstance(value, list | tuple):
        return type(value)(map(_without_negative_zero, value))
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
        See `sgm.registry.Entry`.
    context : tuple of str
        Keys of the config that say where a family is used, not what it is; they are
        not passed to what it builds.
    changes : tuple of str
        Keys that change what was built: they stand beside its parameters in a spec.
    """

    axes: ClassVar[Mapping[str, str]] = {}
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


# --- what the families of a kind have in common --------------------------------------


class Rescale(Strict):
    """A change of coordinates, (x − c)/s, in which everything is computed; it is stored."""

    center: Annotated[bool, Field(description="c is the mean; else 0")]
    scale: Annotated[
        Positive | Literal["unit_variance", "unit_spectrum"],
        Field(description="s: a number, or the root of the mean variance or largest eigenvalue"),
    ]


class KnownTarget(Parameters):
    """A data distribution of known density."""

    changes = ("rescale",)
    rescale: Rescale | None = None


class Schedule(Parameters):
    """A noise schedule β, stretched with T; or, with `full_horizon`, cut at T."""

    changes = ("full_horizon",)
    full_horizon: Annotated[
        Positive | None,
        Field(description="β is that of this horizon, stopped at T; null stretches it to T"),
    ] = None


class TimeGrid(Parameters):
    """A time grid of the solver; it ends at 0, or at `early_stop`."""

    changes = ("early_stop",)
    early_stop: Annotated[
        Positive | None, Field(description="last time, below every T; null is 0, the data")
    ] = None

    @model_validator(mode="after")
    def _ends_once(self) -> TimeGrid:
        if getattr(self, "end", None) == "stop" and self.early_stop is not None:
            raise ValueError(
                f"early_stop = {self.early_stop}: must be null with end = 'stop', where the grid "
                "stops at its smallest noise level"
            )
        return self


def _nested(kind: str) -> Any:
    """Type of a parameter that is a family of its own, such as the prior of a posterior."""

    def parse(raw: Any) -> Parameters:
        raw = {"family": raw} if isinstance(raw, str) else raw
        if not isinstance(raw, Mapping) or not isinstance(raw.get("family"), str):
            raise ValueError(f"must be the name of a {kind} or a mapping with the key 'family'")
        return model_of(lookup(kind, raw["family"])).model_validate(raw)

    return Annotated[
        Any,
        PlainValidator(parse),
        PlainSerializer(lambda parameters: parameters.model_dump(mode="json")),
        WithJsonSchema({"type": "object", "definition": kind}),
    ]


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


class Learned(Score):
    """Fitted to the training rows of each seed, in closed form: nothing is sampled."""

    sampled: ClassVar[bool] = False


_BASES: dict[str, type[Parameters]] = {"schedule": Schedule, "time_grid": TimeGrid, "score": Affine}


@cache
def model_of(entry: Entry) -> type[Parameters]:
    """The model of a family's parameters, as its signature declares them.

    Raises
    ------
    ValueError
        If an annotation says nothing of what a config may give.
    """
    builder, known = entry.builder, entry.kind == "target" and entry.law_known
    if isinstance(builder, str):
        return _NETWORKS[entry.name]
    hints = get_type_hints(
        builder if inspect.isfunction(builder) else builder.__init__, include_extras=True
    )
    said = _described(inspect.getdoc(builder) or "")
    fields: dict[str, Any] = {}
    for argument in inspect.signature(builder).parameters.values():
        if argument.name in CONTEXT[entry.kind] or argument.kind is argument.VAR_KEYWORD:
            continue
        kind = UserPath if argument.name == "path" else hints.get(argument.name, float)
        if entry.of_prior and argument.name == "prior":
            kind = _nested("target")
        default = ... if argument.default is argument.empty else argument.default
        text = Field(description=said.get(argument.name))
        fields[argument.name] = Annotated[kind, text], default
    base = KnownTarget if known else _BASES.get(entry.kind, Parameters)
    base = Learned if entry.learns else base
    try:
        model = create_model(
            entry.name,
            __base__=base,
            __doc__=said[""],
            __validators__={"_together": _together(entry)} if entry.require else None,
            **fields,
        )
    except PydanticSchemaGenerationError as error:
        raise ValueError(
            f"{entry.build}: an annotation against which a config can't be checked: {error.message}"
        ) from error
    model.axes = entry.symbols
    return model


def _together(entry: Entry) -> Any:
    """A validator of the parameters that a family looks at together."""

    def holds(self: Parameters) -> Parameters:
        assert entry.require is not None
        asked = inspect.signature(entry.require).parameters
        entry.require(**{name: getattr(self, name) for name in asked})
        return self

    return model_validator(mode="after")(holds)


def _described(doc: str) -> dict[str, str]:
    """What a NumPy docstring says: of all in its first paragraph, and of each parameter."""
    said = {"": " ".join(doc.split("\n\n")[0].split())}
    section = re.search(r"^Parameters\n-+\n((?:\w.*\n|[ \t]+.*\n?|\n(?!\w.*\n-))*)", doc, re.M)
    items = section[1] if section else ""
    for names, text in re.findall(r"^(\w[\w, ]*).*\n((?:[ \t]+.+\n?)+)", items, re.M):
        said |= dict.fromkeys(names.strip().split(", "), " ".join(text.split()))
    return said


# --- recipes -------------------------------------------------------------------------


#: Objectives that take derivatives of the score in x; their networks must have some.
DIFFERENTIATING = ("implicit", "sliced")
#: Weights that are zero where there is no noise.
VANISHING = ("variance", "variance_squared", "min_snr", "hybrid")


class Recipe(Strict):
    """How a network is built and trained; see `sgm.training.Recipe`."""

    name: Annotated[Name, Field(description="shown, and no more")] = "default"
    objective: Annotated[
        Literal["explicit", "denoising", "implicit", "sliced"],
        Field(description="the loss; all but explicit take any target"),
    ] = "denoising"
    weight: Annotated[
        Literal["unit", "variance", "variance_squared", "beta", "min_snr", "information", "hybrid"],
        Field(
            description="of the loss in time; information needs a target of known law, hybrid the "
            "process kinetic"
        ),
    ] = "variance"
    probes: Annotated[
        int,
        Field(
            ge=0,
            le=10**4,
            description="random directions a row, of implicit and sliced; 0: the exact divergence",
        ),
    ] = 0
    probe: Annotated[
        Literal["rademacher", "gaussian"], Field(description="law of the random directions")
    ] = "rademacher"
    time_scale: Annotated[Positive, Field(description="factor of the time input")] = 1000.0
    time_input: Annotated[
        Literal["fraction", "log_noise"], Field(description="what is embedded")
    ] = "fraction"
    output: Annotated[
        Literal["score", "relative", "noise", "data", "preconditioned"],
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
        Literal["uniform", "stratified", "early", "earliest", "start"],
        Field(description="law of the training times; start: time_min alone"),
    ] = "early"
    time_min: Annotated[
        float, Field(ge=0, lt=1, description="shortest training time, a fraction of T")
    ] = 1e-5
    label_dropout: Annotated[
        Fraction | None,
        Field(
            exclude_if=lambda value: value is None,
            description="how often a row is shown without its class, such as 0.1, for one network "
            "of s(t, x, c) and s(t, x); null: a network that knows no classes",
        ),
    ] = None

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        """What the loss asks of the other keys; see `sgm.training`."""
        if self.label_dropout is not None and self.objective == "explicit":
            raise ValueError(
                f"label_dropout = {self.label_dropout}: must be null for objective = 'explicit', "
                "which fits the score of all classes together"
            )
        if self.objective in DIFFERENTIATING:
            if self.objective == "sliced" and not self.probes:
                raise ValueError(
                    "probes = 0: must be at least 1 for objective = 'sliced'; 'implicit' takes 0"
                )
        elif self.probes:
            raise ValueError(
                f"probes = {self.probes}: must be 0 for objective = {self.objective!r}, which "
                "draws no directions"
            )
        if self.probe != "rademacher" and not self.probes:
            raise ValueError(f"probe = {self.probe!r}: needs probes of at least 1, and not 0")
        if self.time_sampling == "start" and self.time_min == 0:
            if self.objective == "denoising":
                raise ValueError(
                    "time_min = 0: must be positive for objective = 'denoising' with "
                    "time_sampling = 'start': without noise there is nothing to denoise"
                )
            if self.weight in VANISHING:
                raise ValueError(
                    f"weight = {self.weight!r}: must be 'unit' or 'beta' with time_sampling = "
                    "'start' and time_min = 0, where the noise vanishes"
                )
        return self


class LayeredRecipe(Recipe):
    """What our own networks have in common; see `sgm.architectures.Layered`."""

    layers: Annotated[int, Field(ge=1, le=1000, description="residual blocks")] = 3
    time_width: Annotated[Width, Field(description="width of the embedding of the time")] = 64


class MLPRecipe(LayeredRecipe):
    """A residual MLP; see `sgm.architectures.MLP`."""

    architecture: Annotated[
        Literal["mlp"], Field(description="mlp; mixer and module have keys of their own")
    ] = "mlp"
    width: Annotated[Width, Field(description="of the hidden layers, of mlp")] = 128
    activation: Annotated[
        Literal["relu", "silu"],
        Field(description="of the hidden layers, of mlp; implicit and sliced need silu"),
    ] = "relu"

    @model_validator(mode="after")
    def _smooth(self) -> MLPRecipe:
        if self.objective in DIFFERENTIATING and self.activation == "relu":
            raise ValueError(
                f"activation = 'relu': must be 'silu' for objective = {self.objective!r}, which "
                "differentiates the score: the derivative of a ReLU network jumps"
            )
        return self


class MixerRecipe(LayeredRecipe):
    """An MLP-mixer for images; see `sgm.architectures.Mixer`."""

    architecture: Literal["mixer"]
    patch: Count
    channels: Width
    token_width: Width
    channel_width: Width


def _builder(address: str) -> str:
    """The address of a builder, its file as one writes it."""
    place, _, name = address.rpartition(":")
    if not (place and name.isidentifier()):
        raise ValueError(f"builder = {address!r}: must be file.py:name or package.module:name")
    return f"{_plain(place) if place.endswith('.py') else place}:{name}"


Builder = Annotated[str, AfterValidator(_builder)]


class BuiltModule(Strict):
    """A `torch.nn.Module` of the user's; see `sgm.architectures.Built`."""

    builder: Annotated[
        Builder,
        Field(
            description="what builds it: file.py:name, of a file in extensions, or "
            "package.module:name"
        ),
    ]
    options: Annotated[dict[str, Any], Field(description="its keyword arguments")] = {}
    images: Annotated[
        bool, Field(description="whether it takes (n, colours, height, width) or (n, d)")
    ] = False


class ModuleRecipe(BuiltModule, Recipe):
    """A module of the user's that is trained here; see `sgm.architectures.Module`."""

    architecture: Literal["module"]


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
        MLPRecipe | MixerRecipe | ModuleRecipe,
        Field(discriminator="architecture"),
        BeforeValidator(_with_architecture),
    ] = MLPRecipe()


class ProcessLevels(Strict):
    """A model that was trained for the process of the study, and is told the time as ours are."""

    kind: Literal["process"]
    input: Annotated[Literal["fraction", "log_noise"], Field(description="its time variable")]
    scale: Annotated[Positive, Field(description="factor of the time variable")] = 1.0


class DiscreteLevels(Strict):
    """A model of K steps β_k (DDPM), asked between them too: it is told k, a real number."""

    kind: Literal["discrete"]
    steps: Annotated[int, Field(ge=2, le=10**5, description="K")] = 1000
    beta_start: Annotated[Fraction, Field(description="the first β_k; not of cosine")] = 0.0001
    beta_end: Annotated[Fraction, Field(description="the last one")] = 0.02
    curve: Annotated[
        Literal["linear", "scaled_linear", "cosine"],
        Field(description="β_k, or its root, equally spaced; or Nichol and Dhariwal's"),
    ] = "linear"


class ContinuousLevels(Strict):
    """A VP model of linear β on [0, 1] (score_sde), told scale · t."""

    kind: Literal["continuous"]
    beta_min: Positive = 0.1
    beta_max: Positive = 20.0
    scale: Annotated[Positive, Field(description="factor of t, such as 999")] = 1.0


class SigmaLevels(Strict):
    """A model of X₀ + σ Z (EDM), told σ or log(σ)/4."""

    kind: Literal["sigma"]
    input: Literal["sigma", "log_sigma"] = "sigma"


class ModuleFile(BuiltModule, Score):
    """A finished model of the user's, from a file of its weights, for evaluation alone."""

    path: Annotated[
        UserPath,
        Field(description="its weights: .safetensors, or a state_dict that torch.save wrote"),
    ]
    predicts: Annotated[
        Literal["score", "noise", "data", "velocity", "edm"],
        Field(description="∇log p, Z, X₀, m Z − √v X₀, or F of Karras et al.'s preconditioning"),
    ]
    levels: Annotated[
        ProcessLevels | DiscreteLevels | ContinuousLevels | SigmaLevels,
        Field(discriminator="kind", description="how it is told the noise level"),
    ]
    data_std: Annotated[Positive, Field(description="σ_data of edm")] = 1.0


class Guided(Score):
    """A score made of networks that another score of the study trains on the target's prior."""

    context: ClassVar[tuple[str, ...]] = (*Score.context, "network")
    network: Annotated[
        str,
        Field(
            description="label of the trained score whose networks these are; the prior of each "
            "target must be a target of the study on which it is trained"
        ),
    ]


class TrainedClassGuidance(Guided):
    """Guidance by networks with the weight of a target `tilted`; see `sgm.guided`."""


class TrainedClassifierFree(Guided):
    """(1 + w) s(t, x, c) − w s(t, x), c the class of a target `conditional`; see `sgm.guided`."""

    axes = {"weight": "w"}
    weight: Annotated[NonNegative, Field(description="w; 0 is no guidance")] = 0.0


class TrainedDPS(Guided):
    """A network's score, guided as `dps` and `pigdm` do; see `sgm.guided`."""

    axes = {"weight": "w"}
    weight: Annotated[
        NonNegative, Field(description="w; 1 is the formula as it is derived, 0 samples the prior")
    ] = 1.0


class TrainedReplacement(Guided):
    """A network's score, the observed coordinates as `replacement` has them; see `sgm.guided`."""


#: What is no function whose signature says its parameters.
_NETWORKS: dict[str, type[Score]] = {
    "trained": Trained,
    "module_file": ModuleFile,
    "trained_class_guidance": TrainedClassGuidance,
    "trained_classifier_free": TrainedClassifierFree,
    "trained_dps": TrainedDPS,
    "trained_pigdm": TrainedDPS,
    "trained_replacement": TrainedReplacement,
}


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


# --- priors ---------------------------------------------------------------------------


class Priors(Strict):
    """Other laws at which the backward process may start, beside N(0, w I)."""

    families: Annotated[
        tuple[Literal["moments", "mixture"], ...],
        Field(min_length=1, description="moments: the Gaussian of X_T's; mixture: a fitted one"),
    ] = ("moments", "mixture")
    components: Annotated[
        int, Field(ge=1, le=1000, description="of mixture, with full covariances")
    ] = 8
    rows: Annotated[
        int, Field(ge=2, le=10**6, description="of X_T, for terms that are no closed form")
    ] = 10_000

    @field_validator("families")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{list(value)}: must be distinct")
        return value


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
        Field(description="the number on the x-axis, such as a, eta or nfe; null: what varies"),
    ] = None
    only: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Field(description="kinds of figures, such as leaderboard or kl; null: all"),
    ] = None
