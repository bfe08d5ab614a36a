"""The axes of a grid: one row each, and the labels that stand on them.

Whatever lists, names or orders the axes reads this table: the plan and its paths, variables, the
gather, figures and tables. An axis of items has families of one kind, told apart by labels; one of
numbers is told by them. A parameter that a family declares as an axis is part of the label and a
coordinate of the grid, one and the same float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "AXES",
    "GRID",
    "OWN_AXES",
    "REPLICATE",
    "SETTING",
    "Axis",
    "as_labelled",
    "format_number",
    "label_of",
    "label_without",
]


@dataclass(frozen=True)
class Axis:
    """An axis of the grid.

    Parameters
    ----------
    name : str
        Dimension of the grid, field of the paths, and of an axis of items their kind of family.
    key : str
        Key of the config that says what is on it.
    about : str
        What is on it.
    symbol : str
        Of an axis of numbers.
    """

    name: str
    key: str
    about: str
    symbol: str = ""

    @property
    def of_numbers(self) -> bool:
        return bool(self.symbol)


AXES = {
    axis.name: axis
    for axis in (
        Axis("target", "targets", "data distribution"),
        Axis("schedule", "schedules", "noise schedule"),
        Axis("horizon", "horizons", "diffusion time", symbol="T"),
        Axis("score", "scores", "score: exact, perturbed or trained"),
        Axis("sampler", "samplers", "scheme of the backward simulation"),
        Axis("time_grid", "time_grids", "times of the solver's steps"),
        Axis("n_steps", "n_steps", "solver steps", symbol="N"),
        Axis("seed", "seeds", "replicate", symbol="seed"),
    )
}

#: All axes, those of an exact law, and those of a set of cells that differ in schedule and seed.
REPLICATE = tuple(AXES)
GRID = REPLICATE[:-1]
SETTING = tuple(name for name in GRID if name != "schedule")

#: Axes of one family of divergences alone, whose parameters say how long they are.
OWN_AXES = {"bin": "centre of the bin", "rows": "rows of an estimate"}


def format_number(value: float) -> str:
    """A number as it stands in labels and paths: 12 significant digits, 1.0 as ``1``."""
    return f"{value + 0.0:.12g}"


def as_labelled(value: float) -> float:
    """The number that a label names: what is computed is what the label says."""
    return float(format_number(value))


def label_of(name: str, parameters: Mapping[str, float]) -> str:
    """Label of an item, such as ``beta_a=-10``: its name, and its parameters that are axes."""
    return name + "".join(_part(key, value) for key, value in parameters.items())


def label_without(label: str, parameter: str, value: float) -> str:
    """What items have in common that differ in one parameter: a label without it."""
    return re.sub(re.escape(_part(parameter, value)) + "(?=_|$)", "", label, count=1)


def _part(parameter: str, value: float) -> str:
    return f"_{parameter}={format_number(value)}"
