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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from annotated_types import Ge, Interval, MultipleOf

from sgm.variables import GRID, REPLICATE, Variable

__all__ = [
    "CONTEXT",
    "GRID",
    "HOMES",
    "REPLICATE",
    "Count",
    "Dimension",
    "Entry",
    "Fraction",
    "Index",
    "NonNegative",
    "Positive",
    "Real",
    "Seed",
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

#: Modules or packages that export our families of each kind, without torch; the innermost first,
#: as addresses name them.
HOMES = {
    "target": ["sgm.targets"],
    "schedule": ["sgm.schedules.levels", "sgm.schedules.knots", "sgm.schedules"],
    "process": ["sgm.processes", "sgm.kinetic"],
    "score": ["sgm.scores", "sgm.learned", "sgm.guidance", "sgm.particles"],
    "sampler": ["sgm.samplers"],
    "time_grid": ["sgm.timegrids", "sgm.bounds.ddpm_times"],
    "divergence": ["sgm.measures.divergences", "sgm.measures.coverage"],
    "bound": ["sgm.measures.bounds"],
}

#: What a family may ask for by name, by kind, and what goes with a divergence or a bound; all
#: other arguments are its parameters.
CONTEXT: dict[str, tuple[str, ...]] = {
    "target": (),
    "schedule": ("horizon", "variance"),
    "process": ("schedule",),
    "score": ("process", "law", "train", "generator"),
    "sampler": ("process", "times"),
    "time_grid": ("process", "horizon", "n_steps", "law", "stop"),
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
        "score_mse_evaluations",
        "steps",
        "target",
        "heldout",
        "levelled",
    ),
    "exact": ("law", "generated"),
    "objection": ("law", "variance", "sampler", "total"),
}
NEEDING = ["time_grid", "score", "divergence", "bound"]

Law = Literal["gaussian", "density", "unknown"]
Needs = Literal["", "law", "gaussian", "density", "data", "posterior", "tilted", "conditional"]
OfPrior = Literal["", "posterior", "tilted", "conditional"]


@dataclass(frozen=True)
class Entry:
    """What is known of a family: its kind and name, its builder, and what it says of itself.

    Parameters
    ----------
    kind : str
        A key of `HOMES`.
    name : str
        The `family` of a config.
    builder : callable or str
        The function or class; its address where its module imports torch.
    label : str
        First part of its label in a study that gives none, by default its name.
    axes : sequence of str, or mapping of str to str
        Numbers that may be a list in the config, one cell a value: they are part of the label, as
        in ``beta_a=-10``, and coordinates of the grid. As a mapping, with the symbol of each.
    law : {"gaussian", "density", "unknown"}
        Of a target, what is known of it: a Gaussian law, so that the laws of samplers are
        exact; a density and the scores of its noised versions; or its data alone.
    needs : {"", "law", "gaussian", "density", "data", "posterior", "tilted", "conditional"}
        Of a time grid, a score, a divergence or a bound, what a target must have for it:
        nothing, a known law, a Gaussian one, one that is not, held-out data, a prior and an
        observation, a prior and one of its components, or a prior and one of its classes.
    of_prior : {"", "posterior", "tilted", "conditional"}
        Of a target, what its law is of its parameter `prior`, another target, of whose kind it is
        then.
    variables : sequence of Variable
        Of a divergence or a bound: the grid variables it computes.
    exact : callable, optional
        Of a divergence: the same between two laws, for affine scores.
    objection : callable, optional
        Of a bound: what says where it is no theorem.
    stationary : bool
        Of a bound: whether it needs a process with a stationary law, VP.
    process : str
        Of a sampler: the process that it is a scheme of, by its family; by default vp and ve.
    require : callable, optional
        What its parameters must satisfy together, where building it would not say so.

    Raises
    ------
    ValueError
        If it says what its kind can't have: what is misspelt would be ignored.
    """

    kind: str
    name: str
    builder: Callable[..., Any] | str = ""
    label: str = ""
    axes: Sequence[str] | Mapping[str, str] = ()
    law: Law = "gaussian"
    needs: Needs = ""
    of_prior: OfPrior = ""
    variables: Sequence[Variable] = ()
    exact: Callable[..., Any] | None = None
    objection: Callable[..., Any] | None = None
    stationary: bool = False
    process: str = ""
    require: Callable[..., None] | None = None

    def __hash__(self) -> int:
        return hash((self.kind, self.name, self.builder))

    def __post_init__(self) -> None:
        kind, measure = self.kind, self.kind in ("divergence", "bound")

        def require(holds: bool, said: str, allowed: str) -> None:
            if not holds:
                raise ValueError(f"{said}: must be {allowed}")

        require(kind in HOMES, f"kind = {kind!r}", f"one of {', '.join(HOMES)}")
        require(not isinstance(self.axes, str), f"axes = {self.axes!r}", "a list of names")
        for symbol in self.symbols.values():
            right = isinstance(symbol, str) and bool(symbol) and "$" not in symbol
            require(
                right, f"axes = {self.axes!r}: symbol {symbol!r}", "a text without $, such as 'p'"
            )
        choices = (
            ("law", Law, ["target"]),
            ("of_prior", OfPrior, ["target"]),
            ("needs", Needs, NEEDING),
        )
        for key, values, own in choices:
            said, known = getattr(self, key), get_args(values)
            usual = getattr(Entry, key)
            allowed = f"one of {', '.join(map(repr, known))}"
            if kind not in own:
                known, allowed = (usual,), f"left out, but for a {', a '.join(own)}"
            require(said in known, f"{key} = {said!r} of a {kind}", allowed)
        allowed = "left out, but for a sampler"
        require(kind == "sampler" or not self.process, f"process of a {kind}", allowed)
        listed = isinstance(self.variables, Sequence)
        listed = listed and all(isinstance(variable, Variable) for variable in self.variables)
        require(listed, f"variables = {self.variables!r}", "a list of Variable")
        allowed = "what it computes, one Variable or more" if measure else "left out"
        require(bool(self.variables) == measure, f"variables of a {kind}", allowed)
        for key, owner in (
            ("exact", "divergence"),
            ("objection", "bound"),
            ("stationary", "bound"),
        ):
            said = getattr(self, key)
            require(kind == owner or not said, f"{key} of a {kind}", f"left out, but for a {owner}")
            named = said is None or said.__class__ is bool or said.__qualname__.isidentifier()
            require(named, f"{key} = {said!r}", "a function of the file, by its name")
        if self.exact:
            twin = any(variable.axes == GRID for variable in self.variables)
            require(twin, "exact: the axes of one of the variables", ", ".join(GRID))
        if self.learns:
            said = f"needs = {self.needs!r} of a score that learns from `train`"
            require(self.needs == "gaussian", said, "'gaussian', for the law of what it leads to")
        if self.objection:
            said = {f"{v.name}_objection": v.about.get("objection") for v in self.variables}
            judged = {key: value for key, value in said.items() if value}
            right = bool(judged) and all(key == value for key, value in judged.items())
            require(right, "about: objection of a total", "its name with _objection")
        object.__setattr__(self, "variables", tuple(self.variables))

    @property
    def symbols(self) -> Mapping[str, str]:
        """The symbol of each parameter that is an axis, by default its name."""
        axes = self.axes
        return axes if isinstance(axes, Mapping) else {name: name for name in axes}

    @property
    def build(self) -> str:
        """Address of the builder, ``"module:name"`` or ``"path/file.py:name"``."""
        return self.builder if isinstance(self.builder, str) else self.address(self.builder)

    def address(self, function: Callable[..., Any]) -> str:
        """Address of a function: where ours is exported, the file of a user's, seen from here."""
        module = function.__module__
        if module.startswith("sgm."):
            home = (place for place in HOMES[self.kind] if f"{module}.".startswith(f"{place}."))
            return f"{next(home, module)}:{function.__name__}"
        source = inspect.getsourcefile(inspect.unwrap(function)) or ""
        return f"{_portable(source)}:{function.__name__}"

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
    def of_sampler(self) -> bool:
        """Of a bound: whether all of it does, so that nothing can be said without a sampler."""
        return all("sampler" in variable.axes for variable in self.variables)

    @property
    def coupled(self) -> bool:
        """Of a divergence: whether it has an estimate from a control chain."""
        return any("coupled" in variable.about for variable in self.variables)

    @property
    def is_network(self) -> bool:
        """Of a score: whether it is a network's, of which the error is estimated from draws."""
        return self.kind == "score" and isinstance(self.builder, str)

    @property
    def learns(self) -> bool:
        """Of a score: whether it is fitted to the training rows of each seed, without a network."""
        if self.kind != "score" or self.is_network:
            return False
        return "train" in inspect.signature(self.builder).parameters  # type: ignore[arg-type]

    @property
    def interacts(self) -> bool:
        """Of a score: whether it moves particles that are weighed against each other."""
        if self.kind != "score" or self.is_network:
            return False
        return "particles" in inspect.signature(self.builder).parameters  # type: ignore[arg-type]

    @property
    def law_known(self) -> bool:
        """Of a target: whether its density is known."""
        return self.law != "unknown"

    def suits(self, target: Entry) -> bool:
        """Whether a target has what this time grid, score or measure needs."""
        match self.needs:
            case "law":
                return target.law_known
            case "gaussian" | "density":
                return target.law == self.needs
            case "data":
                return not target.law_known
            case "posterior" | "tilted" | "conditional":
                return target.of_prior == self.needs
        return True


# --- rows ----------------------------------------------------------------------------

_BUILT_IN: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}
# their modules import torch, and a recipe is a document of its own
_BUILT_IN["score"] |= {
    "trained": Entry("score", "trained", "sgm.networks:ScoreEnsemble"),
    "module_file": Entry("score", "module_file", "sgm.networks:finished"),
    "trained_class_guidance": Entry(
        "score", "trained_class_guidance", "sgm.guided:class_guidance", needs="tilted"
    ),
    "trained_classifier_free": Entry(
        "score",
        "trained_classifier_free",
        "sgm.guided:classifier_free",
        axes={"weight": "w"},
        needs="conditional",
    ),
    "trained_dps": Entry(
        "score", "trained_dps", "sgm.guided:dps", axes={"weight": "w"}, needs="posterior"
    ),
    "trained_pigdm": Entry(
        "score", "trained_pigdm", "sgm.guided:pigdm", axes={"weight": "w"}, needs="posterior"
    ),
    "trained_replacement": Entry(
        "score", "trained_replacement", "sgm.guided:replacement", needs="posterior"
    ),
}
#: The families of the users' files that are in use.
_EXTENSIONS: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}
#: What the import of each user's file declared.
_OWN: dict[str, list[Entry]] = {}
#: The users' files whose import is under way.
_IMPORTING: list[str] = []

Builder = TypeVar("Builder", bound=Callable[..., Any])


def families(kind: str) -> dict[str, Entry]:
    """The families of a kind, by name: ours, then those of the users' files in use."""
    for home in HOMES[kind]:
        importlib.import_module(home)
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


def register(kind: str, *, name: str = "", **facts: Any) -> Callable[[Builder], Builder]:
    """Decorator: declare a function or class as a family.

    Parameters
    ----------
    kind, name, **facts
        See `Entry`; by default the name is that of the function or class.

    Raises
    ------
    ValueError
        If the kind is unknown, the name is taken, or what is said makes no sense for the kind.
    """
    told = Entry(kind, name, **facts)

    def add(builder: Builder) -> Builder:
        entry = replace(told, name=name or builder.__name__, builder=builder)
        if builder.__module__.startswith("sgm."):
            _BUILT_IN[kind][entry.name] = entry
            return builder
        _require_arguments(entry, builder)
        _add(entry)
        if _IMPORTING:
            _OWN[_IMPORTING[-1]].append(entry)
        return builder

    return add


def _require_arguments(entry: Entry, builder: Callable[..., Any]) -> None:
    """Refuse a kind that is not open to users, and arguments that nobody gives."""
    if entry.kind == "process":
        raise ValueError("kind = 'process': is not open to extensions")
    kind, given, context = entry.kind, set(), CONTEXT[entry.kind]
    for argument in inspect.signature(builder).parameters.values():
        if argument.name in context:
            continue
        if argument.kind is argument.KEYWORD_ONLY:
            given.add(argument.name)
        elif _is_needed(argument):
            raise ValueError(
                f"{argument.name}: not among what a {kind} may ask for: "
                f"{', '.join(context) or 'nothing'}; parameters of the config are "
                f"keyword-only arguments of {builder.__name__}, after a *"
            )
    if missing := set(entry.axes) - given:
        raise ValueError(
            f"axes = {sorted(missing)}: must be keyword-only arguments of {builder.__name__}, and "
            f"not what a {kind} may ask for: {', '.join(context) or 'nothing'}"
        )
    hints = get_type_hints(builder if inspect.isfunction(builder) else builder.__init__)
    for key in entry.axes:
        if hints.get(key, float) not in (int, float):
            raise ValueError(
                f"axes = {key!r} of {builder.__name__}: must be a number, float or int"
            )
    for key, function, passed in (
        ("exact", entry.exact, given),
        ("objection", entry.objection, {"total"}),
    ):
        arguments = inspect.signature(function).parameters if function else {}
        needed = {name for name, argument in arguments.items() if _is_needed(argument)}
        if wrong := sorted(needed - passed - {*CONTEXT[key]}):
            raise ValueError(
                f"{wrong[0]}: not among what {key} may ask for: {', '.join(CONTEXT[key])}"
            )
        if function and passed - arguments.keys():
            raise ValueError(f"{key}: must have the arguments {', '.join(sorted(passed))}")


def _is_needed(argument: inspect.Parameter) -> bool:
    named = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    return named and argument.default is argument.empty


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
        for entry in _OWN[load_extension(path).__name__]:
            try:
                _add(entry)
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
        for entry in _OWN.pop(name):
            _EXTENSIONS[entry.kind].pop(entry.name, None)
        raise ValueError(f"extensions: {str(path)!r}: {type(error).__name__}: {error}") from error
    finally:
        _IMPORTING.pop()
    return module
