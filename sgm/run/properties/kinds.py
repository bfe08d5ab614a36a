"""Find a family by its name, and test the properties of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from sgm.registry import families, lookup, use_extensions
from sgm.run.properties import bounds, divergences, samplers, schedules, scores, targets, timegrids
from sgm.run.properties.findings import Finding, findings
from sgm.study import Item, Study
from sgm.study.document import read_config, read_mapping
from sgm.study.families import model_of

__all__ = ["KINDS", "examine", "items_in", "items_of"]

#: The module of each kind: its `PROPERTIES`, and the `subjects` that they are tested on.
KINDS: dict[str, ModuleType] = {
    "target": targets,
    "schedule": schedules,
    "score": scores,
    "sampler": samplers,
    "time_grid": timegrids,
    "divergence": divergences,
    "bound": bounds,
}
#: The smallest study in which a family can stand, so that a config's own checks read it.
BARE: dict[str, Any] = {
    "study": "check",
    "study_seed": 0,
    "seeds": 1,
    "process": {"family": "vp", "variance": 1.0},
    "horizons": [1.0],
    "targets": [{"family": "isotropic", "dimension": 2, "mean": 1.0, "variance": 0.5}],
    "schedules": [{"family": "constant", "rate": 2.0}],
    "scores": [{"family": "exact", "sampled": False}],
    "samplers": ["exponential_integrator_modified"],
    "time_grids": ["uniform"],
    "n_steps": [10],
    "n_train": 2,
    "n_samples": 2,
    "n_score_error": 2,
    "divergences": [{"family": "mmd", "rows": 4}],
    "bounds": [],
}


def kind_of(name: str, kind: str = "") -> str:
    """The kind that a family of this name is of.

    Raises
    ------
    ValueError
        If there is none, or several and `kind` does not say which.
    """
    if kind and kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: must be one of {', '.join(KINDS)}")
    found = [own for own in ([kind] if kind else KINDS) if name in families(own)]
    if "score" in found and families("score")[name].is_network:
        raise ValueError(
            f"name = {name!r}: networks are part of a study; there is none to check alone"
        )
    if name in families("process") and not found:
        raise ValueError(
            f"name = {name!r}: a process is fixed by the study; there is none to check alone"
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"name = {name!r}: is a {' and a '.join(found)}; say which with `kind`")
    known = "; ".join(f"{own}: {', '.join(sorted(families(own)))}" for own in KINDS)
    raise ValueError(f"name = {name!r}: no family has this name. Known of each kind: {known}")


def items_of(name: str, file: str = "", parameters: str = "", kind: str = "") -> list[Item]:
    """The family with the parameters of a YAML mapping, one item a value on its axes.

    Parameters
    ----------
    name : str
    file : str
        Of the user's families; empty for a built-in one.
    parameters : str
        Such as ``"exponent: 2, beta_min: 0.1"``.
    kind : str
        Where the name does not say.

    Raises
    ------
    ValueError
        If there is no such family, or its parameters are missing, unknown or out of range.
    """
    use_extensions([file] if file else [])
    kind = kind_of(name, kind)
    given = {"family": name, **read_mapping(parameters, "parameters")}
    if kind == "score" and not lookup(kind, name).learns:
        given = {"sampled": False, **given}
    key = f"{kind}s"
    config = BARE | {key: [given], "extensions": [file] if file else []}
    try:
        items: tuple[Item, ...] = getattr(Study.parse(config), key)
    except ValueError as error:
        sentence = str(error).removeprefix("the config is not valid\n")
        allowed = _parameters(kind, name)
        raise ValueError(f"{sentence}. `parameters` may give: {allowed}") from None
    return list(items)


def _parameters(kind: str, name: str) -> str:
    """What a family takes, in words; those without a default are required."""
    model = model_of(lookup(kind, name))
    fields = {key: field for key, field in model.model_fields.items() if key not in model.context}
    return ", ".join(
        key if field.is_required() else f"{key} (else {field.default})"
        for key, field in fields.items()
    ) or "nothing"  # fmt: skip


def items_in(name: str, config: str, kind: str = "") -> list[Item]:
    """The items of a study that are of this family, or have this label.

    Raises
    ------
    ValueError
        If the study is not valid, or has none.
    """
    study = Study.parse(read_config(config))
    kinds = [kind_of(name, kind)] if kind else list(KINDS)
    every: Sequence[Item] = [item for own in kinds for item in getattr(study, f"{own}s")]
    found = [item for item in every if name in (item.family, item.label)]
    found = [item for item in found if not item.entry.is_network]
    if not found:
        labels = ", ".join(item.label for item in every if not item.entry.is_network)
        raise ValueError(f"name = {name!r}: must be a family or label of {config}: {labels}")
    return found


def examine(item: Item, n_cells: int = bounds.CELLS) -> Iterator[Finding]:
    """Test all properties of an item, one after the other.

    Parameters
    ----------
    item : Item
    n_cells : int
        Random cells of a bound.
    """
    module = KINDS[item.kind]
    told: Mapping[str, Any] = {"n_cells": n_cells} if item.kind == "bound" else {}
    yield from findings(module.PROPERTIES, module.subjects(item, **told))
