"""The grid's variables: their names, axes, units, and what views may know of them.

A variable says of itself how it is drawn: `about` becomes its attributes in the grid, so
that figures and tables read the grid alone and treat a user's divergence like ours. Keys:

    role              "divergence" or "bound": there is a figure of it
    figure, label     the figure's name, and the label of its axis
    floor, floor_sd, exact, unbiased, standard_error, bound
                      of a divergence: the variables that belong beside it
    closed            "1" if each run is a closed form, with no sample and no estimator
    ranks             "0" if less is not better, so that no schedule is best by it
    coupled           the estimate below the floor, with a chain of known law beside the sampler's
    shared_error      of a coupled estimate: the part of its error that all seeds share
    floor_power       p if exact^p + floor^p is what the estimator shows, to the power p
    parts, refined    of a bound: its terms from the bottom of the stack, and other totals;
                      of a part: a sharper form of it
    budget            of a bound: its shares over time, from the bottom of the stack
    objection         of a total: the variable that says where its hypotheses fail
                      (`<name>_objection` if its family has an `objection`)
    divergence        of a bound: the variable that it bounds
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgm.axes import GRID, OWN_AXES, REPLICATE

__all__ = ["GRID", "REPLICATE", "RUN", "SCHEDULE", "SOLVER", "THEORY", "VERDICT", "Variable"]

AXES = (*REPLICATE, "time_fraction", *OWN_AXES)
THEORY = ("target", "schedule", "horizon", "score", "time_grid", "n_steps", "seed")
RUN = ("target", "seed")
SCHEDULE = ("target", "schedule", "horizon")
LEARNED = (*SCHEDULE, "score", "seed")
SOLVER = (*SCHEDULE, "time_grid", "n_steps")
VERDICT = ("target", "sampler")
#: Keys of `about`, see the module.
ABOUT = (
    "role", "figure", "label", "floor", "floor_sd", "exact", "unbiased", "standard_error",
    "coupled", "shared_error", "bound",
    "closed", "ranks", "floor_power", "parts", "refined", "budget", "objection", "divergence",
)  # fmt: skip


@dataclass(frozen=True)
class Variable:
    """A variable of the grid.

    Parameters
    ----------
    name : str
    axes : tuple of str
        Its axes, in the order of `REPLICATE`.
    long_name, units : str
    about : mapping
        Further attributes, see the module.
    measured_floor : bool
        Of a divergence: its floor, ``<name>_floor`` over (target, seed), is the same
        divergence of an independent true sample of the same size.
    """

    name: str
    axes: tuple[str, ...]
    long_name: str
    units: str = "nat"
    about: Mapping[str, str] = field(default_factory=dict)
    measured_floor: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"name = {self.name!r} of a variable: must be letters, digits and _")
        own = self.axes if isinstance(self.axes, tuple) else ()
        if own != self.axes or list(own) != [axis for axis in AXES if axis in own]:
            raise ValueError(
                f"axes = {self.axes!r} of {self.name}: must be a tuple of some of "
                f"{', '.join(AXES)}, in this order"
            )
        for key, value in (("long_name", self.long_name), ("units", self.units)):
            if not isinstance(value, str):
                raise ValueError(f"{key} = {value!r} of {self.name}: must be a text")
        for key, value in self.about.items():
            if key not in ABOUT:
                raise ValueError(
                    f"about = {key!r} of {self.name}: must be one of {', '.join(ABOUT)}"
                )
            if not isinstance(value, str):
                raise ValueError(f"{key} = {value!r} of {self.name}: must be a text")
        role, figure = self.about.get("role"), self.about.get("figure", "")
        if role not in (None, "divergence", "bound"):
            raise ValueError(f"role = {role!r} of {self.name}: must be 'divergence' or 'bound'")
        # it stands in the paths of the figures
        if role == "divergence" and not re.fullmatch(r"[\w.-]*\w[\w.-]*", figure):
            raise ValueError(
                f"figure = {figure!r} of {self.name}: must be letters, digits, ., - and _"
            )
        power = self.about.get("floor_power", "1")
        if not re.fullmatch(r"[1-9]\d*", power):
            raise ValueError(f"floor_power = {power!r} of {self.name}: must be a whole number")

    @property
    def floor(self) -> Variable:
        """The variable of the measured floor."""
        long_name = f"floor of {self.name}: its value for a true sample of the same size"
        return Variable(f"{self.name}_floor", RUN, long_name, self.units)

    @property
    def verdicts(self) -> tuple[Variable, ...]:
        """Of a total of a bound with an `objection`: why it does not apply, and where it does."""
        if "objection" not in self.about:
            return ()
        why = Variable(
            self.about["objection"], VERDICT, f"why the theorem of {self.name} does not apply", "1"
        )
        where = why.name.replace("_objection", "_applicable")
        return why, Variable(where, VERDICT, f"1 where the theorem of {self.name} applies", "1")

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the variable in the grid."""
        own = {"long_name": self.long_name, "units": self.units, **self.about}
        return own | ({"floor": self.floor.name} if self.measured_floor else {})


#: Of the bound of KL and of the evidence bound alike: the very same variable is one number.
KL_TERMINAL = Variable("kl_terminal", SCHEDULE, "KL(p_T || prior), exact")
