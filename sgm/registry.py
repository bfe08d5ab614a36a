"""What a family says of itself, in one place: the decorator above its function or class.

A config names a family and gives its parameters; a family is built from them and from what
its kind may ask for by name (`CONTEXT`). The decorator is the same for ours and for those of
a user's file, named under `extensions` in the config::

    from sgm.registry import Positive, register
    from sgm.schedules import NumericalSchedule

    @register("schedule", axes=["exponent"])
    def power(horizon, *, exponent: float, beta_min: Positive, beta_max: Positive):
        slope = beta_max - beta_min
        return NumericalSchedule(horizon, lambda t: beta_min + slope * (t / horizon) ** exponent)

Every other argument is a parameter: its annotation says what a config may give, a default makes
it optional, and its entry in the docstring's section Parameters becomes its description. Such
parameters of a user's family are keyword-only, so that a misspelt argument is none of them.

Ours are found by the module that `HOMES` names for their kind; it is imported when the kind is
first asked for. A job gets the address of what it must build, never a name to look up.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Ge, Interval, MultipleOf

from sgm.variables import GRID, REPLICATE, Variable

__all__ = [
    "CONTEXT",
    "HOMES",
    "REPLICATE",
    "Count",
    "Dimension",
    "Entry",
    "Fraction",
    "Positive",
    "Real",
    "Variable",
    "Width",
    "families",
    "line_of",
    "load_extension",
    "lookup",
    "register",
    "use_extensions",
]

# --- ranges --------------------------------------------------------------------------

#: Magnitudes that double precision leaves room for: squares, exponentials and products of
#: them stay normal numbers. Larger counts would fill a memory or take years.
Real = Annotated[float, Interval(ge=-1e9, le=1e9)]
Positive = Annotated[float, Interval(ge=1e-15, le=1e9)]
NonNegative = Annotated[float, Interval(ge=0, le=1e9)]
Fraction = Annotated[float, Interval(gt=0, lt=1)]
Count = Annotated[int, Interval(ge=1, le=10**6)]
Index = Annotated[int, Ge(0)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
Dimension = Annotated[int, Interval(ge=1, le=10**4)]
Width = Annotated[int, Interval(ge=16, le=2**14), MultipleOf(16)]

# --- kinds ---------------------------------------------------------------------------

#: Module or package that exports our families of each kind, without torch.
HOMES = {
    "target": "sgm.targets",
    "schedule": "sgm.schedules",
    "process": "sgm.processes",
    "score": "sgm.scores",
    "sampler": "sgm.samplers",
    "time_grid": "sgm.timegrids",
    "divergence": "sgm.measures",
    "bound": "sgm.measures",
}

#: What a family may ask for by name, by kind; all other arguments are its parameters.
CONTEXT: dict[str, tuple[str, ...]] = {
    "target": (),
    "schedule": ("horizon", "variance"),
    "process": ("schedule",),
    "score": ("process", "law"),
    "sampler": ("process", "times"),
    "time_grid": ("horizon", "n_steps"),
    "divergence": ("sample", "generated", "reference", "target", "train", "heldout", "control"),
    "bound": (
        "process",
        "law",
        "times",
        "score_mse",
        "score_mse_standard_error",
        "score_cross",
        "score_draws",
        "score_mse_generated",
    ),
}
#: The same of what goes with a divergence or a bound.
EXACT_CONTEXT = ("law", "generated")
OBJECTION_CONTEXT = ("law", "variance", "sampler", "total")

Law = Literal["gaussian", "density", "unknown"]
Needs = Literal["", "law", "gaussian", "density", "data"]


@dataclass(frozen=True)
class Entry:
    """What is known of a family.

    Parameters
    ----------
    kind : str
    name : str
        The `family` of a config.
    build : str
        Address of the builder, ``"module:name"`` or ``"path/file.py:name"``.
    builder : callable, optional
        The function or class itself; None where its module imports torch.
    axes : tuple of str
        Parameters that may be a list in the config, one cell a value; they are part of the
        label, as in ``beta_a=-10``.
    label : str
        First part of the label when the config gives no `name`.
    law : {"gaussian", "density", "unknown"}
        Of a target, what is known of it: a Gaussian law, so that the laws of samplers are
        exact; a density and the scores of its noised versions; or its data alone.
    needs : {"", "law", "gaussian", "density", "data"}
        Of a score, a divergence or a bound, what a target must have for it: nothing, a known
        law, a Gaussian one, one that is not, or held-out data.
    variables : tuple of Variable
        Of a divergence or a bound: the grid variables it computes.
    exact : str
        Of a divergence: address of the same between two laws, for affine scores.
    objection : str
        Of a bound: address of what says where it is no theorem.
    stationary : bool
        Of a bound: whether it needs a process with a stationary law, VP.
    require : callable, optional
        What its parameters must satisfy together, where building it would not say so.
    """

    kind: str
    name: str
    build: str
    builder: Callable[..., Any] | None = None
    axes: tuple[str, ...] = ()
    label: str = ""
    law: Law = "gaussian"
    needs: Needs = ""
    variables: tuple[Variable, ...] = ()
    exact: str = ""
    objection: str = ""
    stationary: bool = False
    require: Callable[..., None] | None = None

    def __hash__(self) -> int:
        return hash((self.kind, self.name, self.build))

    @property
    def declared(self) -> tuple[Variable, ...]:
        """Of a divergence or a bound: its variables, with what is found beside them.

        That are the floors that are measured, and the verdicts of its objection.
        """
        own = self.variables
        verdicts = (v for variable in own if self.objection for v in variable.verdicts)
        return (*own, *verdicts, *(variable.floor for variable in own if variable.measured_floor))

    @property
    def promised(self) -> dict[str, tuple[str, ...]]:
        """Of a divergence or a bound: name and axes of each variable that it must return."""
        return {v.name: v.axes for v in self.variables if not (self.exact and v.axes == GRID)}

    @property
    def promised_exactly(self) -> dict[str, tuple[str, ...]]:
        """Of a divergence: the same of its `exact`."""
        return {v.name: v.axes for v in self.variables if self.exact and v.axes == GRID}

    @property
    def along_chain(self) -> bool:
        """Of a bound: whether it depends on the sampler, by the error along its chain."""
        return any("sampler" in variable.axes for variable in self.variables)

    @property
    def coupled(self) -> bool:
        """Of a divergence: whether it has an estimate from a control chain."""
        return any("coupled" in variable.about for variable in self.variables)

    @property
    def law_known(self) -> bool:
        """Of a target: whether its density is known."""
        return self.law != "unknown"

    def suits(self, target: Entry) -> bool:
        """Whether a target has what this score, divergence or bound needs."""
        match self.needs:
            case "law":
                return target.law_known
            case "gaussian" | "density":
                return target.law == self.needs
            case "data":
                return not target.law_known
        return True


# --- rows ----------------------------------------------------------------------------

_BUILT_IN: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}
# its module imports torch, and its recipe is a document of its own
_BUILT_IN["score"]["trained"] = Entry("score", "trained", "sgm.networks:ScoreEnsemble")
#: The families of the users' files that are in use.
_EXTENSIONS: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}
#: What the import of each user's file declared.
_OWN: dict[str, list[Callable[[], Entry]]] = {}
#: The users' files whose import is under way.
_IMPORTING: list[str] = []

Builder = TypeVar("Builder", bound=Callable[..., Any])


def families(kind: str) -> dict[str, Entry]:
    """The families of a kind, by name: ours, then those of the users' files in use."""
    importlib.import_module(HOMES[kind])
    return _BUILT_IN[kind] | _EXTENSIONS[kind]


def lookup(kind: str, family: str) -> Entry:
    """What is known of a family.

    Raises
    ------
    ValueError
        If the kind has no such family; the message lists those it has.
    """
    known = families(kind)
    if family not in known:
        raise ValueError(
            f"family = {family[:64]!r}: unknown {kind}; known: {', '.join(sorted(known))}"
        )
    return known[family]


def register(
    kind: str,
    *,
    name: str = "",
    label: str = "",
    axes: Sequence[str] = (),
    law: Law = "gaussian",
    needs: Needs = "",
    variables: Sequence[Variable] = (),
    exact: Callable[..., Any] | None = None,
    objection: Callable[..., Any] | None = None,
    stationary: bool = False,
    require: Callable[..., None] | None = None,
) -> Callable[[Builder], Builder]:
    """Decorator: declare a function or class as a family.

    Parameters
    ----------
    kind : str
        A key of `HOMES`.
    name : str, optional
        The `family` of a config, by default the name of the function or class.
    label : str, optional
        First part of its label in a study that gives none, by default its name.
    axes : sequence of str
        Parameters that a config may give as a list.
    law, needs, variables, stationary, require
        See `Entry`.
    exact, objection : callable
        What stands at the addresses of `Entry`; see docs/extend.md for what they may ask for.

    Raises
    ------
    ValueError
        If the kind is unknown, the name is taken, or what is said makes no sense for the kind.
    """
    if kind not in HOMES:
        raise ValueError(f"kind = {kind!r}: must be one of {', '.join(HOMES)}")
    _require_facts(kind, axes, law, needs, variables, exact, objection, stationary)

    def add(builder: Builder) -> Builder:
        family = name or builder.__name__

        def declare() -> Entry:
            """The row; addresses of a user's file depend on the folder that it is seen from."""
            return Entry(
                kind, family, _address(kind, builder), builder, tuple(axes), label,
                law, needs, tuple(variables), _address(kind, exact), _address(kind, objection),
                stationary, require,
            )  # fmt: skip

        if builder.__module__.startswith("sgm."):  # tests hold what is asked of a user's below
            _BUILT_IN[kind][family] = declare()
            return builder
        if kind == "process":
            raise ValueError(f"kind = {kind!r}: is not open to extensions")
        _require_arguments(kind, builder, axes, exact, objection)
        _add(declare())
        if _IMPORTING:
            _OWN[_IMPORTING[-1]].append(declare)
        return builder

    return add


def _address(kind: str, function: Callable[..., Any] | None) -> str:
    """Address of a function: of ours where its kind is exported, of a user's its file."""
    if function is None:
        return ""
    module, home = function.__module__, HOMES[kind]
    if module.startswith("sgm."):
        return f"{home if module.startswith(home) else module}:{function.__name__}"
    return f"{_portable(_source(function))}:{function.__name__}"


def _source(function: Callable[..., Any]) -> str:
    return inspect.getsourcefile(inspect.unwrap(function)) or ""


def _require_facts(
    kind: str,
    axes: Sequence[str],
    law: str,
    needs: str,
    variables: Sequence[Variable],
    exact: Callable[..., Any] | None,
    objection: Callable[..., Any] | None,
    stationary: bool,
) -> None:
    """Refuse what a kind can't have: what is misspelt would be ignored."""
    measure = kind in ("divergence", "bound")
    if isinstance(axes, str):
        raise ValueError(f"axes = {axes!r}: must be a list of names")
    if law not in get_args(Law) or (law != "gaussian" and kind != "target"):
        allowed = ", ".join(get_args(Law)) if kind == "target" else "left out, but for a target"
        raise ValueError(f"law = {law!r} of a {kind}: must be {allowed}")
    if needs not in get_args(Needs) or (needs and not (measure or kind == "score")):
        allowed = "left out, but for a score, a divergence or a bound"
        if measure or kind == "score":
            allowed = f"one of {', '.join(map(repr, get_args(Needs)))}"
        raise ValueError(f"needs = {needs!r} of a {kind}: must be {allowed}")
    if not (isinstance(variables, Sequence) and all(isinstance(v, Variable) for v in variables)):
        raise ValueError(f"variables = {variables!r}: must be a list of Variable")
    if bool(variables) != measure:
        allowed = "what it computes, one Variable or more" if measure else "left out"
        raise ValueError(f"variables of a {kind}: must be {allowed}")
    for key, value, owner in (
        ("exact", exact, "divergence"),
        ("objection", objection, "bound"),
        ("stationary", stationary or None, "bound"),
    ):
        if value is not None and kind != owner:
            raise ValueError(f"{key} of a {kind}: must be left out, but for a {owner}")
    for key, function in (("exact", exact), ("objection", objection)):
        if function is not None and not getattr(function, "__qualname__", "<").isidentifier():
            raise ValueError(f"{key} = {function!r}: must be a function of the file, by its name")
    if exact is not None and not any(variable.axes == GRID for variable in variables):
        raise ValueError(f"exact: one of the variables must have the axes {', '.join(GRID)}")
    if objection is not None:
        judged = [v for v in variables if "objection" in v.about]
        wrong = [v for v in judged if v.about["objection"] != f"{v.name}_objection"]
        if wrong or not judged:
            raise ValueError(
                "objection: `about` of a total must have the key objection, with its name and "
                "_objection" + (f", {wrong[0].name}_objection" if wrong else "")
            )


def _arguments(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Arguments that have a name."""
    for argument in inspect.signature(function).parameters.values():
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            yield argument


def _require_arguments(
    kind: str,
    builder: Callable[..., Any],
    axes: Sequence[str],
    exact: Callable[..., Any] | None,
    objection: Callable[..., Any] | None,
) -> None:
    """Refuse arguments of a user's functions that nobody gives."""
    name, given = builder.__name__, set()
    for argument in _arguments(builder):
        if argument.kind is argument.KEYWORD_ONLY:
            given.add(argument.name)
        elif argument.default is argument.empty and argument.name not in CONTEXT[kind]:
            raise ValueError(
                f"{argument.name}: not among what a {kind} may ask for: "
                f"{', '.join(CONTEXT[kind]) or 'nothing'}; parameters of the config are "
                f"keyword-only arguments of {name}, after a *"
            )
    if missing := set(axes) - given:
        raise ValueError(f"axes = {sorted(missing)}: not keyword-only arguments of {name}")
    for key, function, context, passed in (
        ("exact", exact, EXACT_CONTEXT, given),
        ("objection", objection, OBJECTION_CONTEXT, {"total"}),
    ):
        if function is None:
            continue
        arguments = {argument.name: argument for argument in _arguments(function)}
        needed = {n for n, a in arguments.items() if a.default is a.empty}
        if wrong := sorted(needed - passed - {*context}):
            raise ValueError(f"{wrong[0]}: not among what {key} may ask for: {', '.join(context)}")
        if lacking := sorted(passed - arguments.keys()):
            raise ValueError(f"{key} of {name}: must have the arguments {', '.join(lacking)}")


# --- users' files --------------------------------------------------------------------


def _add(entry: Entry) -> None:
    """Add a family of a user's file."""
    taken = families(entry.kind).get(entry.name)
    if taken is not None and taken.build != entry.build:
        place, source = (row.build.rpartition(":")[0] for row in (taken, entry))
        raise ValueError(
            f"{entry.kind} {entry.name!r} of {source} is already registered, by {place}"
        )
    _EXTENSIONS[entry.kind][entry.name] = entry


def _portable(path: str | Path) -> Path:
    """`path` relative to the working directory where it lies below it."""
    path = Path(path).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def use_extensions(paths: Sequence[str]) -> None:
    """Make the families of some users' files known, and those of no others.

    Each study has its own: files of two studies may use one name.

    Raises
    ------
    ValueError
        If a file can't be imported, or two of them define one family.
    """
    for own in _EXTENSIONS.values():
        own.clear()
    for path in paths:
        for declare in _OWN[load_extension(path).__name__]:
            try:
                _add(declare())
            except ValueError as error:
                raise ValueError(f"extensions: {path!r}: {error}") from None


def line_of(error: BaseException) -> str:
    """The line of a user's file in which an error arose; empty if none had a part in it."""
    files = {name.removeprefix("extension:") for name in _OWN}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f"{_portable(frame.filename)}, line {frame.lineno}, in {frame.name}"
    return ""


def load_extension(path: str | Path) -> Any:
    """Import a user's file once, which registers what it defines; return the module.

    Raises
    ------
    ValueError
        If the file does not exist, or fails when it is imported.
    """
    try:
        path = Path(path).resolve()
        found = path.suffix == ".py" and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise ValueError(f"extensions: {str(path)!r} is not a file of Python (.py)")
    name = f"extension:{path}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _OWN[name] = []
    _IMPORTING.append(name)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]  # half a module must not be taken for the whole one
        for declare in _OWN.pop(name):
            row = declare()
            _EXTENSIONS[row.kind].pop(row.name, None)
        raise ValueError(f"extensions: {str(path)!r}: {type(error).__name__}: {error}") from error
    finally:
        _IMPORTING.pop()
    return module
