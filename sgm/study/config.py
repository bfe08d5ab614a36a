"""The study: what a config file says, validated once and closed at every level.

A study is a grid: the product of its targets, schedules, horizons, scores, samplers,
time grids, numbers of steps and seeds. `Study.parse` turns a config into a value, or
into one error that names every wrong key, its value and what is allowed.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property, partial
from reprlib import Repr
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from sgm import registry
from sgm.axes import AXES, as_labelled, format_number, label_of
from sgm.registry import HOMES, lookup, use_extensions
from sgm.store.cells import canonical
from sgm.study import families
from sgm.study.families import Name, model_of
from sgm.study.items import Coordinate, Item, coordinates, resolved
from sgm.study.variables import LIKELIHOOD, RESERVED

__all__ = ["Item", "Study", "canonical", "format_number", "json_schema", "parse_item"]


#: What a time grid may need of a target, in words.
_NEEDED = {
    "law": "a known law",
    "gaussian": "a Gaussian law",
    "density": "a known law that is not Gaussian",
    "data": "held-out rows",
    "posterior": "a prior and an observation",
    "tilted": "a prior and a component of it",
    "conditional": "a prior and a class of it",
}
#: Keys of a recipe whose value needs a target of known law, and what does without.
_OF_KNOWN_LAWS = (("objective", "explicit", "denoising"), ("weight", "information", "beta"))
#: Kinds that a study may do without.
MAY_BE_EMPTY = {"bound"}


def _expand(kind: str, raw: Any) -> list[Item]:
    """The items of one line of the config: several where an axis parameter is a list."""
    raw = {"family": raw} if isinstance(raw, str) else raw
    if not isinstance(raw, Mapping) or not isinstance(raw.get("family"), str):
        raise ValueError(
            f"{shown(raw)}: must be a family's name or a mapping with the key 'family'"
        )
    entry = lookup(kind, raw["family"])
    axes = [key for key in entry.axes if isinstance(raw.get(key), list)]
    items = []
    for values in itertools.product(*(raw[key] for key in axes)):
        try:
            parameters = model_of(entry).model_validate(
                {**raw, **dict(zip(axes, values, strict=True))}
            )
        except ValidationError as error:
            raise ValueError(f"{raw['family']}: {_sentence(error)}") from None
        name = parameters.name or entry.label or entry.name
        numbers = {key: getattr(parameters, key) for key in entry.axes}
        label = label_of(name, numbers)
        items.append(Item(kind, label, parameters, resolved(entry, parameters)))
    return items


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlevel = 3  # a few lines of YAML aliases unfold to gigabytes


def shown(value: Any) -> str:
    """A value of the config in an error: as Python writes it, cut where it is long."""
    return _REPR.repr(value)


def _duplicates(values: Iterable[Hashable]) -> list[Hashable]:
    return [value for value, times in Counter(values).items() if times > 1]


def _axis(kind: str) -> Any:
    """Type of a config key that lists families of one kind."""

    def parse(raw: Any) -> tuple[Item, ...]:
        raw = raw if isinstance(raw, list) else [raw]
        items = [item for line in raw for item in _expand(kind, line)]
        if not items and kind not in MAY_BE_EMPTY:
            raise ValueError("must have at least one value")
        # labels are file names, and some file systems don't tell A from a
        twice = _duplicates(item.label.casefold() for item in items)
        if twice:
            raise ValueError(
                f"{twice[0]!r} is given twice: values on an axis must differ "
                "(families that differ in other parameters need a `name`)"
            )
        return tuple(items)

    return Annotated[
        tuple[Item, ...],
        PlainValidator(parse),
        PlainSerializer(lambda items: [item.parameters.model_dump(mode="json") for item in items]),
        WithJsonSchema({"definition": f"{kind}_axis"}),
    ]


def parse_item(kind: str, raw: Any) -> Item:
    """The item of a family's name, or of a mapping with its keys.

    Raises
    ------
    ValueError
        If there is no such family, a key is wrong, or a parameter has several values.
    """
    items = _expand(kind, raw)
    if len(items) != 1:
        raise ValueError(f"must be one {kind}, not {len(items)}")
    return items[0]


def _one(kind: str) -> Any:
    """Type of a config key that holds one family."""
    return Annotated[
        Item,
        PlainValidator(partial(parse_item, kind)),
        PlainSerializer(lambda item: item.parameters.model_dump(mode="json")),
        WithJsonSchema({"definition": kind}),
    ]


Numbers = Annotated[tuple[registry.Positive, ...], Field(min_length=1)]
Counts = Annotated[tuple[registry.Count, ...], Field(min_length=1)]


def _default(value: Any, description: str) -> Any:
    """A key that a config may leave out, and what holds then; it is validated like any other."""
    return Field(default=value, validate_default=True, description=description)


class Study(families.Strict):
    """A validated study. What has no default here is required: what the study is about."""

    study: Annotated[Name, Field(description="name of the study and of its folder in results/")]
    targets: Annotated[_axis("target"), Field(description="laws and data sets to be learnt")]  # type: ignore[valid-type]
    schedules: Annotated[_axis("schedule"), Field(description="noise schedules")]  # type: ignore[valid-type]
    scores: Annotated[_axis("score"), Field(description="exact, perturbed and trained scores")]  # type: ignore[valid-type]
    process: _one("process") = _default("vp", "vp, ve or kinetic")  # type: ignore[valid-type]
    horizons: Numbers = _default([1.0], "values of T")
    samplers: _axis("sampler") = _default(  # type: ignore[valid-type]
        ["exponential_integrator_modified"], "schemes of the backward simulation"
    )
    time_grids: _axis("time_grid") = _default(["uniform"], "times of their steps")  # type: ignore[valid-type]
    n_steps: Counts = _default([500], "numbers of solver steps N")
    divergences: _axis("divergence") = _default(  # type: ignore[valid-type]
        ["gaussian_kl"], "what is measured between samples and target"
    )
    bounds: _axis("bound") = _default([], "theorems beside it, kl and w2 for vp")  # type: ignore[valid-type]
    likelihood: Annotated[
        families.Likelihood | None,
        Field(description="evidence bound and likelihood of every score, or null for none"),
    ] = None
    priors: Annotated[
        families.Priors | None,
        Field(description="other laws at which the backward process may start, or null for none"),
    ] = None
    pictures: Annotated[
        families.Pictures | None, Field(description="trajectories to draw, or null for none")
    ] = None
    figures: Annotated[families.Figures, Field(description="what figures show")] = (
        families.Figures()
    )
    seeds: Annotated[int, Field(ge=1, le=10**5, description="number of replicates: 0 … n − 1")] = 10
    study_seed: Annotated[int, Field(ge=0, description="seed of all random streams")] = 0
    n_train: Annotated[
        int, Field(ge=2, le=10**8, description="training sample of each network")
    ] = 10_000
    n_samples: Annotated[int, Field(ge=2, le=10**8, description="generated sample of each run")] = (
        2000
    )
    n_score_error: Annotated[
        int,
        Field(
            ge=2,
            le=10**7,
            description="Monte-Carlo points per time, E2; the most of them; of a data set the "
            "held-out rows whose loss is taken",
        ),
    ] = 500
    score_error_tolerance: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="relative standard error of E2 at which its points suffice, and with the "
            "bound w2 of the largest error; null takes n_score_error",
        ),
    ] = None
    n_reference: Annotated[
        Annotated[int, Field(ge=1000, le=10**7)] | None,
        Field(
            description="rows of a long run of each exact-score chain whose law is not known, for "
            "coupled estimates; null for none"
        ),
    ] = 10_000
    seeds_per_job: Annotated[
        int, Field(ge=1, description="replicates in one job; numbers don't depend on it")
    ] = 10
    schedules_per_job: Annotated[
        int, Field(ge=1, description="schedules in one job; numbers don't depend on it")
    ] = 1
    keep_samples: Annotated[bool, Field(description="keep the generated samples on disk")] = False
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="where networks run")] = (
        "auto"
    )
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="type in which trained networks are sampled; float32 by default"),
    ] = "float32"
    extensions: Annotated[
        tuple[str, ...], Field(description="files of the user's own families")
    ] = ()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Study:
        """Validate a config.

        Parameters
        ----------
        config : mapping
            As read from a YAML file.

        Raises
        ------
        ValueError
            One sentence a wrong key, with its value and what is allowed.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"the config is not valid\n{shown(config)}: must be a mapping")
        extensions = config.get("extensions")
        listed = extensions if isinstance(extensions, list) else ()
        use_extensions(
            [path for path in listed if isinstance(path, str)]
        )  # the model says the rest
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            raise ValueError(f"the config is not valid\n{_sentence(error)}") from None

    @field_validator("horizons", "n_steps")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        values = tuple(as_labelled(v) if isinstance(v, float) else v for v in values)
        twice = _duplicates(values)
        if twice:
            raise ValueError(f"{twice[0]:g} is given twice: values on an axis must differ")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [target.label for target in self.targets]
        for score in self.scores:
            unknown = sorted(set(score.parameters.targets or ()) - set(names))
            if unknown:
                raise ValueError(
                    f"scores: targets = {unknown[0]!r} of {score.label!r} is not a target of the "
                    f"study; its targets: {', '.join(names)}"
                )
            recipe = getattr(score.parameters, "recipe", None)
            for key, asking, other in _OF_KNOWN_LAWS:
                if getattr(recipe, key, None) != asking:
                    continue
                for target in self.targets:
                    if not target.entry.law_known and self.runs(target, score):
                        raise ValueError(
                            f"scores: {key} = {asking!r} of {score.label!r} needs the exact "
                            f"score, which target {target.label!r} does not have; use {other!r} "
                            "there, "
                            "or list under `targets` those it is meant for"
                        )
            recipe = getattr(score.parameters, "recipe", score.parameters)
            place = getattr(recipe, "builder", "").rpartition(":")[0]
            if place.endswith(".py") and place not in self.extensions:
                raise ValueError(
                    f"scores: builder = {recipe.builder!r} of {score.label!r}: its file must be "
                    f"one of `extensions`, which are {', '.join(self.extensions) or 'none'}"
                )
            self._require_network(score)
            label = getattr(score.parameters, "train_schedule", None)
            if label is not None and label not in [item.label for item in self.schedules]:
                raise ValueError(
                    f"scores: train_schedule = {label!r} of {score.label!r} is not a schedule of "
                    f"the study; its schedules: {', '.join(item.label for item in self.schedules)}"
                )
        for time_grid in self.time_grids:
            for target in self.targets:
                if not time_grid.entry.suits(target.entry):
                    raise ValueError(
                        f"time_grids: {time_grid.label!r} needs {_NEEDED[time_grid.entry.needs]}, "
                        f"which target {target.label!r} does not have: must be in a study of "
                        "other targets"
                    )
        histograms = [item.label for item in self.divergences if item.family == "histogram"]
        if len(histograms) > 1:
            raise ValueError(f"divergences: {histograms}: a study can have one histogram")
        for bound in self.bounds:
            if bound.entry.stationary and self.process.family != "vp":
                raise ValueError(
                    f"bounds: {bound.label!r} needs the stationary law of the process vp, which "
                    f"{self.process.family} does not have; `likelihood` gives its evidence bound"
                )
        self._require_distinct_names()
        self._require_x()
        if self.likelihood and not self.likelihood.cutoff < min(self.horizons):
            raise ValueError(
                f"likelihood: cutoff = {self.likelihood.cutoff}: must be below every horizon, "
                f"the shortest of which is {min(self.horizons)}"
            )
        if self.priors and "mixture" in self.priors.families:
            most = self.n_train // 4
            if self.priors.components > most:
                raise ValueError(
                    f"priors: components = {self.priors.components}: must be at most {most}, a "
                    f"quarter of n_train = {self.n_train}"
                )
        schedules = [schedule.label for schedule in self.schedules]
        for label in self.pictures.schedules if self.pictures else ():
            if label not in schedules:
                raise ValueError(
                    f"pictures: schedules = {label!r} is not a schedule of the study; its "
                    f"schedules: {', '.join(schedules)}"
                )
        return self

    @property
    def items(self) -> dict[str, tuple[Item, ...]]:
        """What is on the axes of items, by their names."""
        return {axis.name: getattr(self, axis.key) for axis in AXES.values() if not axis.of_numbers}

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The parameters that are coordinates of the grid."""
        return tuple(coordinates(self.items))

    def _require_distinct_names(self) -> None:
        """Refuse two measures that would write one variable of the grid, or a coordinate that is.

        The very same `Variable` of two families is one number, such as KL(p_T ‖ prior).
        """
        owners = {variable.name: ("", "likelihood", variable) for variable in LIKELIHOOD}
        for key, items in (("divergences", self.divergences), ("bounds", self.bounds)):
            for item in items:
                for variable in item.entry.declared:
                    owner = owners.setdefault(variable.name, (item.family, item.label, variable))
                    shared = owner[0] != item.family and owner[2] == variable
                    if variable.name in RESERVED or not (owner[1] == item.label or shared):
                        taken = "the grid itself" if variable.name in RESERVED else repr(owner[1])
                        raise ValueError(
                            f"{key}: {item.label!r} ({item.entry.build}) declares the variable "
                            f"{variable.name!r}, which is already one of {taken}: names must differ"
                        )
        names = {name: repr(label) for name, (_, label, _) in owners.items()}
        names |= dict.fromkeys(RESERVED, "the grid itself")
        for own in self.coordinates:
            key = f"the parameter {own.parameter!r} of {own.families[0]!r}"
            if own.name in names:
                raise ValueError(
                    f"{AXES[own.dimension].key}: {key} would be the coordinate {own.name!r} of the "
                    f"grid, which is already that of {names[own.name]}: names must differ"
                )
            names[own.name] = key

    def _require_x(self) -> None:
        """Refuse an x-axis of figures that is no number which varies in the study."""
        axes = (AXES["horizon"], AXES["n_steps"])
        varying = [axis.name for axis in axes if len(getattr(self, axis.key)) > 1]
        own = [coordinate for coordinate in self.coordinates if coordinate.varies]
        varying += [coordinate.name for coordinate in own if coordinate.dimension != "target"]
        varying += ["nfe"] * (len(self.n_steps) > 1)
        if self.figures.x not in (None, *varying):
            known = ", ".join(varying) or "none does"
            raise ValueError(
                f"figures: x = {self.figures.x!r}: must be a number that varies in the study, "
                f"{known}"
            )

    def _require_network(self, score: Item) -> None:
        """Refuse a score of networks that the study does not train on its targets' priors."""
        label = getattr(score.parameters, "network", None)
        if label is None:
            return
        trained = [item for item in self.scores if item.family == "trained"]
        network = next((item for item in trained if item.label == label), None)
        if network is None:
            raise ValueError(
                f"scores: network = {label!r} of {score.label!r}: must be the label of a trained "
                f"score of the study: {', '.join(item.label for item in trained) or 'it has none'}"
            )
        by_class = score.entry.needs != "posterior"
        if by_class and network.parameters.recipe.label_dropout is None:
            raise ValueError(
                f"scores: network = {label!r} of {score.label!r}: its recipe must have a "
                "label_dropout, such as 0.1, for networks that know classes"
            )
        for target in self.targets:
            if not self.runs(target, score):
                continue
            prior = self.prior_of(target)
            if prior is None or not self.runs(prior, network):
                raise ValueError(
                    f"scores: network = {label!r} of {score.label!r}: the prior of target "
                    f"{target.label!r} must be a target of the study on which {label!r} is "
                    "trained, with the same keys"
                )
            if by_class and getattr(target.parameters, "rescale", None):
                raise ValueError(
                    f"targets: rescale of {target.label!r}: must be null for {score.label!r}, "
                    "whose networks are trained in the coordinates of the prior, which may have one"
                )

    def prior_of(self, target: Item) -> Item | None:
        """The target of the study that is the prior of another one."""
        prior = target.spec["parameters"].get("prior")
        return next((item for item in self.targets if item.spec == prior), None)

    @staticmethod
    def runs(target: Item, score: Item) -> bool:
        """Whether a score is meant for a target, and exists for it."""
        named: tuple[str, ...] | None = getattr(score.parameters, "targets", None)
        if named is not None and target.label not in named:
            return False
        return score.entry.suits(target.entry)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical config."""
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode()).hexdigest()


def _sentence(error: ValidationError) -> str:
    """One line a mistake: key, value, what is allowed."""
    lines = []
    mistakes = error.errors(include_url=False)
    for mistake in mistakes:
        deeper = [m for m in mistakes if m["loc"][:-1] == mistake["loc"] and m["loc"]]
        if mistake["type"] == "too_short" and deeper:
            continue  # short only because its wrong entries were left out
        key = ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        message = re.sub(r"^\w+ should ", "must ", message)  # of pydantic, as all others say it
        if mistake["type"] == "extra_forbidden":
            message = "unknown key"
        if mistake["type"] == "missing":
            lines.append(f"{key}: this key is required")
        elif mistake["type"] == "value_error" or not key:
            lines.append(f"{key}: {message}" if key else message)
        else:
            lines.append(f"{key} = {shown(mistake['input'])}: {message}")
    return "; ".join(lines)


def json_schema() -> dict[str, Any]:
    """JSON schema of a config with the built-in families, for editors and for checks."""
    schema = Study.model_json_schema(mode="validation")
    for value in schema["properties"].values():
        if "definition" in value:
            value["$ref"] = f"#/$defs/{value.pop('definition')}"
    definitions = schema.setdefault("$defs", {})
    for kind in HOMES:
        options = []
        # in an order of their own: they are declared in that in which modules happen to load
        for family, entry in sorted(registry.families(kind).items()):
            model = model_of(entry).model_json_schema(ref_template="#/$defs/{model}")
            definitions.update(model.pop("$defs", {}))
            model["properties"]["family"] = {"const": family}
            for key, value in model["properties"].items():
                if "definition" in value:  # in a new mapping: this one is the annotation's own
                    own = {
                        name: value[name] for name in value if name not in ("definition", "type")
                    }
                    model["properties"][key] = {**own, "$ref": f"#/$defs/{value['definition']}"}
            for key in entry.axes:
                value = model["properties"][key]
                model["properties"][key] = {"anyOf": [value, {"type": "array", "items": value}]}
            definitions[f"{kind}_{family}"] = model
            options.append({"$ref": f"#/$defs/{kind}_{family}"})
            if not set(model["required"]) - {"family"}:
                options.append({"const": family})
        item = {"$ref": f"#/$defs/{kind}"}
        definitions[kind] = {"anyOf": options}
        definitions[f"{kind}_axis"] = {
            "anyOf": [
                item,
                {"type": "array", "items": item, "minItems": int(kind not in MAY_BE_EMPTY)},
            ]
        }
    schema["title"] = "sgm study"
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "config whose keys hold where this has none: its path from this file, "
        "or the name of a shipped study",
    }
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema.pop("required")}]
    return schema
