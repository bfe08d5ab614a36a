"""The parameters of a study that are coordinates of its grid: one for each axis of a family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgm.study.config import Item

__all__ = ["Coordinate", "coordinates"]


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
