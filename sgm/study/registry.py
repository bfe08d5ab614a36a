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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import create_model

from sgm.study import families

__all__ = ["KINDS", "Entry", "Variable", "load_extension", "lookup", "register"]

GRID = ("target", "schedule", "horizon", "score", "sampler", "time_grid", "n_steps")
REPLICATE = (*GRID, "seed")
THEORY = ("target", "schedule", "horizon", "score", "time_grid", "n_steps", "seed")


@dataclass(frozen=True)
class Variable:
    """A variable of the grid: its name, its axes, units and a long name."""

    name: str
    axes: tuple[str, ...]
    long_name: str
    units: str = "nat"


@dataclass(frozen=True)
class Entry:
    """A row of the registry.

    Parameters
    ----------
    build : str
        Address of the builder, ``"module:name"`` or ``"path/file.py:name"``.
    parameters : type
        Model of what a config may give.
    law_known : bool
        Of a target: whether its law is known, so that scores, laws and bounds are exact.
    variables : tuple of Variable
        Of a divergence or a bound: the grid variables it computes.
    """

    build: str
    parameters: type[families.Parameters]
    law_known: bool = True
    variables: tuple[Variable, ...] = ()


GAUSSIAN_KL = (
    Variable("kl_plugin", REPLICATE, "KL(target || Gaussian fitted to the sample), plug-in"),
    Variable("kl_unbiased", REPLICATE, "the same, its finite-sample bias removed"),
    Variable("kl_standard_error", REPLICATE, "standard error of the KL estimate of one run"),
    Variable("kl_floor", ("target",), "expected plug-in KL of a true sample of the same size"),
    Variable("kl_floor_sd", ("target",), "standard deviation of that"),
)
HELDOUT_NLL = (
    Variable("heldout_nll_gap", REPLICATE, "held-out NLL, fitted to generated minus to true data"),
    Variable("heldout_nll_standard_error", REPLICATE, "standard error of that"),
    Variable("heldout_nll_floor", ("target", "seed"), "the same between halves of the true data"),
)
EXACT_LAW = (
    Variable("kl_exact", GRID, "KL(target || exact law of the sampler's output)"),
    Variable("kl_reverse_exact", GRID, "KL(exact law of the sampler's output || target)"),
    Variable("w2_exact", GRID, "W2(target, exact law of the sampler's output)", "1"),
)
KL_BOUND = (
    Variable("kl_terminal", ("target", "schedule", "horizon"), "KL(p_T || prior), exact"),
    Variable("kl_bound_mixing", ("target", "schedule", "horizon"), "E1, mixing term"),
    Variable("kl_bound_score", THEORY, "E2, score-approximation term"),
    Variable("kl_bound_score_standard_error", THEORY, "Monte-Carlo standard error of E2"),
    Variable(
        "kl_bound_discretization",
        ("target", "schedule", "horizon", "time_grid", "n_steps"),
        "E3, discretisation term",
    ),
    Variable(
        "kl_bound_discretization_refined",
        ("target", "schedule", "horizon", "time_grid", "n_steps"),
        "E3 without telescoping the steps",
    ),
    Variable("kl_bound", THEORY, "upper bound on KL(target || generated), E1 + E2 + E3"),
    Variable("kl_path", THEORY, "KL(p_T || prior) plus the Girsanov path term"),
)

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
        "digits": Entry("sgm.targets:digits", families.Digits, law_known=False),
    },
    "schedule": {
        "beta_a": Entry("sgm.schedules:BetaSchedule", families.Beta),
        "constant": Entry("sgm.schedules:ConstantSchedule", families.Constant),
        "cosine": Entry("sgm.schedules:CosineSchedule", families.Cosine),
    },
    "process": {"vp": Entry("sgm.processes:VPProcess", families.VP)},
    "score": {
        "exact": Entry("sgm.scores:exact", families.Affine),
        "scaled": Entry("sgm.scores:scaled", families.Perturbed),
        "biased": Entry("sgm.scores:biased", families.Perturbed),
        "plugin": Entry("sgm.scores:plugin", families.Perturbed),
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
        )
    }
    | {"ddim": Entry("sgm.samplers:ddim", families.DDIM)}
    | {
        "predictor_corrector": Entry(
            "sgm.samplers:predictor_corrector", families.PredictorCorrector
        )
    },
    "time_grid": {
        "uniform": Entry("sgm.timegrids:uniform", families.TimeGrid),
        "quadratic": Entry("sgm.timegrids:quadratic", families.TimeGrid),
    },
    "divergence": {
        "gaussian_kl": Entry(
            "sgm.run.measures:gaussian_kl", families.Parameters, variables=GAUSSIAN_KL
        ),
        "heldout_nll": Entry(
            "sgm.run.measures:heldout_nll", families.HeldoutNLL, variables=HELDOUT_NLL
        ),
    },
    "bound": {
        "kl": Entry("sgm.run.measures:kl_bound", families.Parameters, variables=KL_BOUND),
    },
}

_BASES: dict[str, type[families.Parameters]] = {
    "target": families.Target,
    "schedule": families.Schedule,
    "sampler": families.Sampler,
    "time_grid": families.TimeGrid,
    "score": families.Affine,
    "divergence": families.Parameters,
    "bound": families.Parameters,
}

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
        raise ValueError(f"family = {family!r}: unknown {kind}; known: {', '.join(sorted(rows))}")
    return rows[family]


def register(
    kind: str,
    *,
    axes: Sequence[str] = (),
    variables: Sequence[Variable] = (),
    law_known: bool = True,
) -> Callable[[Builder], Builder]:
    """Decorator for extensions: add a function or class as a family of its own name.

    Parameters
    ----------
    kind : str
        One of `target`, `schedule`, `score`, `sampler`, `time_grid`, `divergence`, `bound`.
    axes : sequence of str
        Parameters that a config may give as a list.
    variables : sequence of Variable
        Of a divergence or a bound: what it computes.
    law_known : bool
        Of a target: whether `law` is known.

    Raises
    ------
    ValueError
        If the kind is unknown, or the name is taken.
    """
    if kind not in _BASES:
        raise ValueError(f"kind = {kind!r}: must be one of {', '.join(_BASES)}")

    def add(builder: Builder) -> Builder:
        name = builder.__name__
        address = f"{_portable(inspect.getsourcefile(builder) or '')}:{name}"
        if name in KINDS[kind] and KINDS[kind][name].build != address:
            raise ValueError(f"{kind} {name!r} is already registered")
        hints = get_type_hints(builder if inspect.isfunction(builder) else builder.__init__)
        fields: Mapping[str, Any] = {
            parameter.name: (
                hints.get(parameter.name, float),
                ... if parameter.default is parameter.empty else parameter.default,
            )
            for parameter in inspect.signature(builder).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        missing = set(axes) - set(fields)
        if missing:
            raise ValueError(f"axes = {sorted(missing)}: not keyword-only arguments of {name}")
        model = create_model(name, __base__=_BASES[kind], __doc__=builder.__doc__, **fields)
        model.axes = tuple(axes)
        KINDS[kind][name] = Entry(address, model, law_known, tuple(variables))
        return builder

    return add


def _portable(path: str | Path) -> Path:
    """`path` relative to the working directory where it lies below it."""
    path = Path(path).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def load_extension(path: str | Path) -> Any:
    """Import a user's file once, which registers what it defines; return the module.

    Raises
    ------
    ValueError
        If the file does not exist.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"extensions: {str(path)!r} is not a file")
    name = f"extension:{path}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
