"""One registry a kind: from a family's name in a config to what it builds.

A row says where the builder lives (``"module:name"``, or ``"file.py:name"`` for an
extension), which parameters a config may give, and the few facts that planning needs
before anything is imported. Names resolve here once, when the config is read; a job
gets the address of what it must build, never a name to look up.

A user adds a row from one file, named under `extensions` in the config::

    from sgm.schedules import NumericalSchedule
    from sgm.study import register

    @register("schedule", axes=["exponent"])
    def power(horizon, *, exponent: float, beta_min: float, beta_max: float):
        slope = beta_max - beta_min
        return NumericalSchedule(horizon, lambda t: beta_min + slope * (t / horizon) ** exponent)

Keyword-only arguments are the parameters that the config must give.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import create_model

from sgm.study import families, variables
from sgm.study.variables import GRID, VERDICT, Variable

__all__ = [
    "KINDS",
    "Entry",
    "Variable",
    "line_of",
    "load_extension",
    "lookup",
    "register",
    "use_extensions",
]

Law = Literal["gaussian", "density", "unknown"]
Needs = Literal["", "law", "gaussian", "density", "data"]


@dataclass(frozen=True)
class Entry:
    """A row of the registry.

    Parameters
    ----------
    build : str
        Address of the builder, ``"module:name"`` or ``"path/file.py:name"``.
    parameters : type
        Model of what a config may give.
    law : {"gaussian", "density", "unknown"}
        Of a target, what is known of it: a Gaussian law, so that the laws of samplers are
        exact; a density and the scores of its noised versions; or its data alone.
    needs : {"", "law", "gaussian", "density", "data"}
        Of a time grid, a score, a divergence or a bound, what a target must have for it:
        nothing, a known law, a Gaussian one, one that is not, or held-out data.
    variables : tuple of Variable
        Of a divergence or a bound: the grid variables it computes.
    exact : str
        Of a divergence: address of the same between two laws, for affine scores.
    objection : str
        Of a bound: address of what says where it is no theorem.
    stationary : bool
        Of a bound: whether it needs a process with a stationary law, VP.
    """

    build: str
    parameters: type[families.Parameters]
    law: Law = "gaussian"
    needs: Needs = ""
    variables: tuple[Variable, ...] = ()
    exact: str = ""
    objection: str = ""
    stationary: bool = False

    @property
    def terms(self) -> tuple[Variable, ...]:
        """Of a bound: its variables, but for the verdict on its hypotheses."""
        return tuple(variable for variable in self.variables if variable.axes != VERDICT)

    @property
    def declared(self) -> tuple[Variable, ...]:
        """Of a divergence or a bound: its variables, with the floors that are measured."""
        own = self.variables
        return (*own, *(variable.floor for variable in own if variable.measured_floor))

    @property
    def promised(self) -> dict[str, tuple[str, ...]]:
        """Of a divergence or a bound: name and axes of each variable that it must return."""
        return {v.name: v.axes for v in self.terms if not (self.exact and v.axes == GRID)}

    @property
    def promised_exactly(self) -> dict[str, tuple[str, ...]]:
        """Of a divergence: the same of its `exact`."""
        return {v.name: v.axes for v in self.variables if self.exact and v.axes == GRID}

    @property
    def along_chain(self) -> bool:
        """Of a bound: whether it depends on the sampler, by the error along its chain."""
        return any("sampler" in variable.axes for variable in self.terms)

    @property
    def coupled(self) -> bool:
        """Of a divergence: whether it has an estimate from a control chain."""
        return any("coupled" in variable.about for variable in self.variables)

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
        return True


def _measure(name: str) -> str:
    return f"sgm.run.measures:{name}"


KINDS: dict[str, dict[str, Entry]] = {
    "target": {
        "isotropic": Entry("sgm.targets:isotropic", families.Isotropic),
        "heteroscedastic_slides": Entry(
            "sgm.targets:heteroscedastic_slides", families.HeteroscedasticSlides
        ),
        "heteroscedastic_blocks": Entry(
            "sgm.targets:heteroscedastic_blocks", families.HeteroscedasticBlocks
        ),
        "correlated": Entry("sgm.targets:correlated", families.Correlated),
        "gaussian_file": Entry("sgm.targets:gaussian_file", families.GaussianFile),
        "digits_gaussian": Entry("sgm.targets:digits_gaussian", families.DigitsGaussian),
        "funnel": Entry("sgm.targets:funnel", families.Funnel, law="density"),
        "two_modes": Entry("sgm.targets:two_modes", families.TwoModes, law="density"),
        "grid_mixture": Entry("sgm.targets:grid_mixture", families.GridMixture, law="density"),
        "ring_mixture": Entry("sgm.targets:ring_mixture", families.RingMixture, law="density"),
        "mixture": Entry("sgm.targets:mixture", families.Mixture, law="density"),
        "data_file": Entry("sgm.targets:data_file", families.DataFile, law="unknown"),
        "mnist": Entry("sgm.targets:mnist", families.ImageFolder, law="unknown"),
        "cifar10": Entry("sgm.targets:cifar10", families.ImageFolder, law="unknown"),
    }
    | {
        name: Entry(f"sgm.targets:{name}", families.ShippedData, law="unknown")
        for name in ("digits", "digits_images", "breast_cancer", "diabetes", "wine")
    },
    "schedule": {
        "beta_a": Entry("sgm.schedules:BetaSchedule", families.Beta),
        "constant": Entry("sgm.schedules:ConstantSchedule", families.Constant),
        "cosine": Entry("sgm.schedules:CosineSchedule", families.Cosine),
        "geometric": Entry("sgm.schedules:GeometricSchedule", families.Geometric),
        "polynomial": Entry("sgm.schedules:PolynomialSchedule", families.Polynomial),
        "sigmoid": Entry("sgm.schedules.levels:SigmoidSchedule", families.Sigmoid),
        "power_cosine": Entry("sgm.schedules.levels:PowerCosineSchedule", families.PowerCosine),
        "laplace": Entry("sgm.schedules.levels:LaplaceSchedule", families.Laplace),
        "edm": Entry("sgm.schedules.levels:EDMSchedule", families.EDM),
        "discrete_cosine": Entry(
            "sgm.schedules.levels:DiscreteCosineSchedule", families.DiscreteCosine
        ),
        "piecewise_linear": Entry(
            "sgm.schedules.knots:PiecewiseLinearSchedule", families.RateKnots
        ),
        "spline": Entry("sgm.schedules.knots:SplineSchedule", families.RateKnots),
        "integral_spline": Entry("sgm.schedules.knots:IntegralSplineSchedule", families.LevelKnots),
        "schedule_file": Entry("sgm.schedules.knots:schedule_file", families.ScheduleFile),
    },
    "process": {
        "vp": Entry("sgm.processes:VPProcess", families.VP),
        "ve": Entry("sgm.processes:VEProcess", families.VE),
    },
    "score": {
        "exact": Entry("sgm.scores:exact", families.Affine, needs="law"),
        "scaled": Entry("sgm.scores:scaled", families.Perturbed, needs="law"),
        "biased": Entry("sgm.scores:biased", families.Perturbed, needs="law"),
        "plugin": Entry("sgm.scores:plugin", families.Perturbed, needs="gaussian"),
        "trained": Entry("sgm.networks:ScoreEnsemble", families.Trained),
    },
    "sampler": {
        name: Entry(f"sgm.samplers:{name}", families.Sampler)
        for name in (
            "exponential_integrator_modified",
            "exponential_integrator",
            "euler_maruyama",
            "euler_arrival",
            "probability_flow_euler",
            "ancestral",
            "ancestral_small",
            "heun",
            "dpm_solver_2s",
            "dpm_solver_pp_2s",
            "unipc",
            "exponential_runge_kutta",
            "exponential_runge_kutta_modified",
        )
    }
    | {
        "ddim": Entry("sgm.samplers:ddim", families.DDIM),
        "predictor_corrector": Entry(
            "sgm.samplers:predictor_corrector", families.PredictorCorrector
        ),
        "predictor_corrector_snr": Entry(
            "sgm.samplers:predictor_corrector_snr", families.PredictorCorrectorSNR
        ),
        "annealed_langevin": Entry("sgm.samplers:annealed_langevin", families.AnnealedLangevin),
        "edm": Entry("sgm.samplers:edm", families.Churn),
        "randomised_midpoint": Entry(
            "sgm.samplers:randomised_midpoint", families.RandomisedMidpoint
        ),
        "restart": Entry("sgm.samplers:restart", families.Restart),
        "dpm_solver_pp_2m": Entry("sgm.samplers:dpm_solver_pp_2m", families.DPMSolverPP2M),
        "deis": Entry("sgm.samplers:deis", families.DEIS),
    },
    "time_grid": {
        "uniform": Entry("sgm.timegrids:uniform", families.TimeGrid),
        "quadratic": Entry("sgm.timegrids:quadratic", families.TimeGrid),
        "beta_quantiles": Entry("sgm.timegrids:beta_quantiles", families.BetaQuantiles),
        "linear_steps": Entry("sgm.timegrids:linear_steps", families.LinearSteps),
        "log_snr": Entry("sgm.timegrids:log_snr", families.Levels),
        "karras": Entry("sgm.timegrids:karras", families.Karras),
        "arctangent": Entry("sgm.timegrids:arctangent", families.Arctangent),
        "cosine": Entry("sgm.timegrids:cosine", families.CosineLevels),
        "sigmoid": Entry("sgm.timegrids:sigmoid", families.SigmoidLevels),
        "laplace": Entry("sgm.timegrids:laplace", families.LaplaceLevels),
        "dmn": Entry("sgm.timegrids:dmn", families.DMN),
        "gaussian_geometric": Entry(
            "sgm.timegrids:gaussian_geometric", families.GaussianGeometric, needs="gaussian"
        ),
        "entropic": Entry("sgm.timegrids:entropic", families.Levels, needs="law"),
        "entropic_rescaled": Entry(
            "sgm.timegrids:entropic_rescaled", families.TimeGrid, needs="law"
        ),
        "score_optimal": Entry(
            "sgm.timegrids:score_optimal", families.ScoreOptimal, needs="gaussian"
        ),
        "constant_rate": Entry("sgm.timegrids:constant_rate", families.ConstantRate, needs="law"),
    },
    "divergence": {
        "gaussian_kl": Entry(
            _measure("gaussian_kl"), families.GaussianKL, variables=variables.GAUSSIAN_KL
        ),
        "gaussian_w2": Entry(
            _measure("gaussian_w2"), families.Divergence, variables=variables.GAUSSIAN_W2
        ),
        "sample_w2": Entry(
            _measure("sample_w2"), families.Subsampled, variables=variables.SAMPLE_W2
        ),
        "sliced_w2": Entry(
            _measure("sliced_w2"),
            families.Projected,
            variables=variables.SLICED_W2,
            exact=_measure("sliced_w2_exact"),
        ),
        "sliced_w2_authors": Entry(
            _measure("sliced_w2_authors"),
            families.Projected,
            variables=variables.SLICED_W2_AUTHORS,
        ),
        "nll": Entry(
            _measure("nll"),
            families.Divergence,
            needs="law",
            variables=variables.NLL,
            exact=_measure("nll_exact"),
        ),
        "partition_kl": Entry(
            _measure("partition_kl"),
            families.Divergence,
            needs="density",
            variables=variables.PARTITION_KL,
        ),
        "mmd": Entry(
            _measure("mmd"),
            families.Subsampled,
            variables=variables.MMD,
            exact=_measure("mmd_exact"),
        ),
        "heldout_nll": Entry(
            _measure("heldout_nll"),
            families.HeldoutNLL,
            needs="data",
            variables=variables.HELDOUT_NLL,
        ),
        "coverage": Entry(
            _measure("coverage"),
            families.Coverage,
            needs="gaussian",
            variables=variables.COVERAGE,
        ),
        "histogram": Entry(
            _measure("histogram"), families.Histogram, variables=variables.HISTOGRAM
        ),
    },
    "bound": {
        "kl": Entry(
            _measure("kl_bound"),
            families.Parameters,
            needs="law",
            variables=variables.KL_BOUND,
            objection=_measure("kl_objection"),
            stationary=True,
        ),
        "w2": Entry(
            _measure("w2_bound"),
            families.Parameters,
            needs="law",
            variables=variables.W2_BOUND,
            objection=_measure("w2_objection"),
            stationary=True,
        ),
        "w2_one_step": Entry(
            _measure("w2_one_step"),
            families.Parameters,
            needs="gaussian",
            variables=variables.W2_ONE_STEP,
            objection=_measure("w2_one_step_objection"),
        ),
    },
}

_BASES: dict[str, type[families.Parameters]] = {
    "target": families.KnownTarget,
    "schedule": families.Schedule,
    "sampler": families.Sampler,
    "time_grid": families.TimeGrid,
    "score": families.Affine,
    "divergence": families.Divergence,
    "bound": families.Parameters,
}

#: What the arguments of a builder that are not keyword-only may be, by kind.
CONTEXT: dict[str, tuple[str, ...]] = {
    "target": (),
    "schedule": ("horizon", "variance"),
    "sampler": ("process", "times"),
    "time_grid": ("process", "horizon", "n_steps", "law", "stop"),
    "score": ("process", "law"),
    "divergence": ("sample", "generated", "reference", "target", "train", "heldout"),
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
    ),
}

#: What the import of each user's file registered: kind, file of the builder, row.
_OWN: dict[str, list[tuple[str, Path, Entry]]] = {}
#: The users' files whose import is under way.
_IMPORTING: list[str] = []

Builder = TypeVar("Builder", bound=Callable[..., Any])


def lookup(kind: str, family: str) -> Entry:
    """The row of a family.

    Raises
    ------
    ValueError
        If the kind has no such family; the message lists those it has.
    """
    rows = KINDS[kind]
    if family not in rows:
        raise ValueError(
            f"family = {family[:64]!r}: unknown {kind}; known: {', '.join(sorted(rows))}"
        )
    return rows[family]


def register(
    kind: str,
    *,
    axes: Sequence[str] | Mapping[str, str] = (),
    variables: Sequence[Variable] = (),
    law: Law = "gaussian",
    needs: Needs = "",
) -> Callable[[Builder], Builder]:
    """Decorator for extensions: add a function or class as a family of its own name.

    Parameters
    ----------
    kind : str
        One of `target`, `schedule`, `score`, `sampler`, `time_grid`, `divergence`, `bound`.
    axes : sequence of str, or mapping of str to str
        Numbers that a config may give as a list, which become coordinates of the grid; as a
        mapping, with the symbol of each: ``{"exponent": "p"}``.
    variables : sequence of Variable
        Of a divergence or a bound: what it computes.
    law, needs : str
        See `Entry`.

    Raises
    ------
    ValueError
        If the kind is unknown, the name is taken, or what the row says makes no sense for it.
    """
    if kind not in _BASES:
        raise ValueError(f"kind = {kind!r}: must be one of {', '.join(_BASES)}")
    _require_row(kind, axes, variables, law, needs)

    def add(builder: Builder) -> Builder:
        name = builder.__name__
        hints = get_type_hints(builder if inspect.isfunction(builder) else builder.__init__)
        fields: Mapping[str, Any] = {
            parameter.name: (
                hints.get(parameter.name, float),
                ... if parameter.default is parameter.empty else parameter.default,
            )
            for parameter in inspect.signature(builder).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        for parameter in inspect.signature(builder).parameters.values():
            asked = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            needed = parameter.default is parameter.empty
            if asked and needed and parameter.name not in CONTEXT[kind]:
                raise ValueError(
                    f"{parameter.name}: not among what a {kind} may ask for: "
                    f"{', '.join(CONTEXT[kind]) or 'nothing'}; parameters of the config are "
                    f"keyword-only arguments of {name}, after a *"
                )
        missing = set(axes) - set(fields)
        if missing:
            raise ValueError(f"axes = {sorted(missing)}: not keyword-only arguments of {name}")
        for key in axes:
            if fields[key][0] not in (int, float):
                raise ValueError(f"axes = {key!r} of {name}: must be a number, float or int")
        base = _BASES[kind]
        if kind == "target" and law == "unknown":
            base = families.Target
        model = create_model(name, __base__=base, __doc__=builder.__doc__, **fields)
        model.axes = dict(axes) if isinstance(axes, Mapping) else dict(zip(axes, axes, strict=True))
        source = Path(inspect.getsourcefile(builder) or "").resolve()
        entry = Entry(name, model, law, needs, tuple(variables))
        _add(kind, source, entry)
        if _IMPORTING:
            _OWN[_IMPORTING[-1]].append((kind, source, entry))
        return builder

    return add


def _require_row(kind: str, axes: Any, variables: Sequence[Variable], law: str, needs: str) -> None:
    """Refuse a row that its kind can't have: what is misspelt would be ignored."""
    measure = kind in ("divergence", "bound")
    if isinstance(axes, str):
        raise ValueError(f"axes = {axes!r}: must be a list of names")
    for symbol in axes.values() if isinstance(axes, Mapping) else ():
        if not (isinstance(symbol, str) and symbol and "$" not in symbol):
            raise ValueError(f"axes = {axes!r}: a symbol must be a text without $, such as 'p'")
    if law not in get_args(Law) or (law != "gaussian" and kind != "target"):
        allowed = ", ".join(get_args(Law)) if kind == "target" else "left out, but for a target"
        raise ValueError(f"law = {law!r} of a {kind}: must be {allowed}")
    of_target = measure or kind in ("score", "time_grid")
    if needs not in get_args(Needs) or (needs and not of_target):
        allowed = "left out, but for a time grid, a score, a divergence or a bound"
        if of_target:
            allowed = f"one of {', '.join(map(repr, get_args(Needs)))}"
        raise ValueError(f"needs = {needs!r} of a {kind}: must be {allowed}")
    if not (isinstance(variables, Sequence) and all(isinstance(v, Variable) for v in variables)):
        raise ValueError(f"variables = {variables!r}: must be a list of Variable")
    if bool(variables) != measure:
        allowed = "what it computes, one Variable or more" if measure else "left out"
        raise ValueError(f"variables of a {kind}: must be {allowed}")


def _add(kind: str, source: Path, entry: Entry) -> None:
    """Add a row of a user's file, under its address seen from here."""
    name = entry.parameters.__name__
    entry = replace(entry, build=f"{_portable(source)}:{name}")
    taken = KINDS[kind].get(name)
    if taken is not None and taken.build != entry.build:
        place = taken.build.rpartition(":")[0]
        raise ValueError(f"{kind} {name!r} of {source} is already registered, by {place}")
    KINDS[kind][name] = entry


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
    for own in _OWN.values():
        for kind, _, entry in own:
            KINDS[kind].pop(entry.parameters.__name__, None)
    for path in paths:
        for kind, source, entry in _OWN[load_extension(path).__name__]:
            try:
                _add(kind, source, entry)
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
        for kind, _, entry in _OWN.pop(name):
            KINDS[kind].pop(entry.parameters.__name__, None)
        raise ValueError(f"extensions: {str(path)!r}: {type(error).__name__}: {error}") from error
    finally:
        _IMPORTING.pop()
    return module
