"""What stands on the axes of a study: items, and those of their numbers that are coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import Any

from sgm.registry import Entry, lookup
from sgm.study.families import Parameters

__all__ = ["Coordinate", "Item", "coordinates", "resolved"]


@dataclass(frozen=True)
class Item:
    """One value of an axis of the study, such as the schedule ``beta_a=-10``.

    Parameters
    ----------
    kind : str
        Kind of family, such as ``schedule``.
    label : str
        Unique on its axis; stands in paths and in the grid.
    parameters : Parameters
        As validated from the config.
    entry : Entry
        Row of its family.
    """

    kind: str
    label: str
    parameters: Parameters
    entry: Entry

    @property
    def family(self) -> str:
        return self.parameters.family

    @property
    def numbers(self) -> dict[str, float]:
        """The parameters that are axes, as the label has them."""
        return {key: float(getattr(self.parameters, key)) for key in self.parameters.axes}

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What a job needs to build it: an address and keyword arguments."""
        changes = set(self.parameters.changes)
        exclude: dict[str, Any] = dict.fromkeys((*changes, *self.parameters.context), True)
        exclude["recipe"] = {"name"}  # shown, and no more
        parameters = self.parameters.model_dump(mode="json", exclude=exclude)
        for name, value in self.parameters:
            if isinstance(value, Parameters):
                parameters[name] = Item(self.kind, "", value, lookup(self.kind, value.family)).spec
        return {
            "build": self.entry.build,
            "parameters": parameters,
            **({"variables": self.entry.promised} if self.entry.variables else {}),
            **self.parameters.model_dump(mode="json", include=changes, exclude_none=True),
        }


def resolved(entry: Entry, parameters: Parameters) -> Entry:
    """The row of a family, in which what is made of a prior has the kind of law that this has."""
    if not entry.of_prior:
        return entry
    prior: Parameters = parameters.prior  # type: ignore[attr-defined]
    law = resolved(lookup("target", prior.family), prior).law
    if entry.of_prior == "conditional" and law == "density":
        law = "gaussian"  # a component of a mixture
    return replace(entry, law=law)


@dataclass(frozen=True)
class Coordinate:
    """A number along a dimension of the grid.

    Parameters
    ----------
    name : str
        The parameter's; with the dimension before it where two dimensions have one of that name.
    dimension, parameter, symbol : str
    families : tuple of str
        Which have the parameter.
    values : tuple of float
        Of each item, NaN where it has no such parameter.
    """

    name: str
    dimension: str
    parameter: str
    symbol: str
    families: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def varies(self) -> bool:
        """Whether two items differ in it."""
        return len({value for value in self.values if value == value}) > 1

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the coordinate in the grid."""
        long_name = f"{self.parameter} of {', '.join(self.families)}"
        own = {"parameter": self.parameter, "symbol": self.symbol}
        return {"long_name": long_name, "units": "1", **own}


def coordinates(axes: Mapping[str, Sequence[Item]]) -> list[Coordinate]:
    """The coordinates of the items on each dimension, in the order of the grid."""
    symbols: dict[tuple[str, str], str] = {}
    for dimension, items in axes.items():
        for item in items:
            for parameter, symbol in item.parameters.axes.items():
                symbols.setdefault((dimension, parameter), symbol)
    dimensions = Counter(parameter for _, parameter in symbols)
    return [
        Coordinate(
            parameter if dimensions[parameter] == 1 else f"{dimension}_{parameter}",
            dimension,
            parameter,
            symbol,
            tuple(
                dict.fromkeys(
                    item.family for item in axes[dimension] if parameter in item.parameters.axes
                )
            ),
            tuple(item.numbers.get(parameter, nan) for item in axes[dimension]),
        )
        for (dimension, parameter), symbol in symbols.items()
    ]
