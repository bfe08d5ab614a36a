"""The grid's variables: their names, axes, units, and what views may know of them.

A variable says of itself how it is drawn: `about` becomes its attributes in the grid, so
that figures and tables read the grid alone and treat a user's divergence like ours. Keys:

    role              "divergence" or "bound": there is a figure of it
    figure, label     the figure's name, and the label of its axis
    floor, floor_sd, exact, unbiased, standard_error, bound
                      of a divergence: the variables that belong beside it
    ranks             "0" if less is not better, so that no schedule is best by it
    coupled           the estimate below the floor, with a chain of known law beside the sampler's
    shared_error      of a coupled estimate: the part of its error that all seeds share
    floor_power       p if exact^p + floor^p is what the estimator shows, to the power p
    parts, refined    of a bound: its terms from the bottom of the stack, and other totals;
                      of a part: a sharper form of it
    objection         of a total: the variable that says where its hypotheses fail
    divergence        of a bound: the variable that it bounds
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgm.store.axes import GRID, OWN_AXES, REPLICATE

__all__ = ["GRID", "REPLICATE", "RUN", "THEORY", "VERDICT", "Variable"]

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
    "ranks", "floor_power", "parts", "refined", "objection", "divergence",
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
        long_name = f"{self.long_name}, between two independent true samples"
        return Variable(f"{self.name}_floor", RUN, long_name, self.units)

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the variable in the grid."""
        own = {"long_name": self.long_name, "units": self.units, **self.about}
        return own | ({"floor": self.floor.name} if self.measured_floor else {})


def divergence(figure: str, label: str, **companions: str) -> dict[str, str]:
    """What a divergence says of itself."""
    return {"role": "divergence", "figure": figure, "label": label, **companions}


def coupled(name: str, long_name: str, units: str = "nat") -> tuple[Variable, ...]:
    """A divergence estimated with a chain of known law beside the sampler's, its error and gain."""
    return (
        Variable(
            f"{name}_coupled",
            REPLICATE,
            f"{long_name}, coupled",
            units,
            {"shared_error": f"{name}_coupled_reference_error"},
        ),
        Variable(
            f"{name}_coupled_standard_error",
            REPLICATE,
            f"standard error of {name}_coupled in one run",
            units,
        ),
        Variable(
            f"{name}_coupled_reference_error",
            REPLICATE,
            "part of it that all seeds share, that of the reference run; 0 for a known law",
            units,
        ),
        Variable(
            f"{name}_coupled_gain",
            REPLICATE,
            f"variance of the plain estimate over that of {name}_coupled; 1: the plain stands",
            "1",
        ),
    )


EXACT_LAW = (
    Variable("kl_exact", GRID, "KL(target || exact law of the sampler's output)"),
    Variable("kl_reverse_exact", GRID, "KL(exact law of the sampler's output || target)"),
    Variable("w2_exact", GRID, "W2(target, exact law of the sampler's output)", "1"),
)
GAUSSIAN_KL = (
    Variable(
        "kl_plugin",
        REPLICATE,
        "KL(target || Gaussian fitted to the sample), plug-in",
        about=divergence(
            "kl",
            "KL(data ‖ generated), by moments",
            floor="kl_floor",
            floor_power="1",
            floor_sd="kl_floor_sd",
            exact="kl_exact",
            unbiased="kl_unbiased",
            standard_error="kl_standard_error",
            coupled="kl_coupled",
            bound="kl_bound",
        ),
    ),
    *coupled("kl", "KL(target || Gaussian of the generated law's moments)"),
    Variable(
        "kl_plugin_expected",
        REPLICATE,
        "mean of the plug-in KL over samples of plugin_rows rows, from the coupled moments",
    ),
    Variable(
        "kl_plugin_expected_sd",
        REPLICATE,
        "standard deviation of the plug-in KL over samples of plugin_rows rows",
    ),
    Variable("kl_unbiased", REPLICATE, "the same, its finite-sample bias removed"),
    Variable("kl_standard_error", REPLICATE, "standard error of the KL estimate of one run"),
    Variable("kl_floor", ("target",), "expected plug-in KL of a true sample of the same size"),
    Variable("kl_floor_sd", ("target",), "standard deviation of that"),
)
GAUSSIAN_W2 = (
    Variable(
        "w2_plugin",
        REPLICATE,
        "W2 between the Gaussians of the target's and the sample's moments, plug-in",
        "1",
        divergence(
            "w2",
            "W2(data, generated), by moments",
            floor="w2_floor",
            floor_power="2",
            exact="w2_exact",
            unbiased="w2_unbiased",
            standard_error="w2_standard_error",
            coupled="w2_coupled",
            bound="w2_bound",
        ),
    ),
    *coupled("w2", "W2 between the Gaussians of the target's and the generated law's moments", "1"),
    Variable(
        "w2_coupling",
        REPLICATE,
        "root mean square distance to the exact-score chain: bounds W2 to its law from above",
        "1",
    ),
    Variable(
        "w2_coupling_bound",
        REPLICATE,
        "upper bound on W2(target, generated): that of the exact-score chain, plus w2_coupling",
        "1",
    ),
    Variable("w2_unbiased", REPLICATE, "signed root of its square less its first-order bias", "1"),
    Variable("w2_standard_error", REPLICATE, "standard error of the W2 estimate of one run", "1"),
    Variable("w2_floor", ("target",), "root of its expected square for a perfect sampler", "1"),
)
SAMPLE_W2 = (
    Variable(
        "w2_sample",
        REPLICATE,
        "signed root of W2 squared between generated and true rows, less that within each",
        "1",
        divergence(
            "w2_sample",
            "W2 between samples, centred",
            exact="w2_exact",
            standard_error="w2_sample_standard_error",
            coupled="w2_sample_coupled",
            bound="w2_bound",
        ),
        measured_floor=True,
    ),
    *coupled("w2_sample", "W2 between samples, centred", "1"),
    Variable("w2_sample_standard_error", REPLICATE, "standard error of w2_sample in one run", "1"),
    Variable(
        "w2_sample_visible",
        RUN,
        "share of W2 squared that w2_sample shows of a difference in scale alone",
        "1",
    ),
)
SLICED_W2 = (
    Variable(
        "sliced_w2",
        REPLICATE,
        "sliced W2 to an independent true sample",
        "1",
        divergence(
            "sliced_w2",
            "sliced W2",
            exact="sliced_w2_exact",
            coupled="sliced_w2_coupled",
            bound="w2_bound",
        ),
        measured_floor=True,
    ),
    *coupled("sliced_w2", "sliced W2 between the target and the generated law", "1"),
    Variable(
        "max_sliced_w2",
        REPLICATE,
        "W2 in the worst of the stored directions",
        "1",
        divergence("max_sliced_w2", "largest W2 over the directions"),
        measured_floor=True,
    ),
    Variable("sliced_w2_exact", GRID, "sliced W2 of the exact law, same directions", "1"),
)
SLICED_W2_AUTHORS = (
    Variable(
        "sliced_w2_authors",
        REPLICATE,
        "sliced W2 to the training sample, the authors' convention",
        "1",
        divergence("sliced_w2_authors", "sliced W2 to the training sample", bound="w2_bound"),
        measured_floor=True,
    ),
)
NLL = (
    Variable(
        "nll",
        REPLICATE,
        "mean negative log-likelihood of the sample under the target",
        about=divergence(
            "nll",
            "NLL of the sample under the target",
            exact="nll_exact",
            standard_error="nll_standard_error",
            coupled="nll_coupled",
            ranks="0",
        ),
        measured_floor=True,
    ),
    *coupled("nll", "mean negative log-likelihood of the generated law under the target"),
    Variable("nll_standard_error", REPLICATE, "standard error of that"),
    Variable("nll_exact", GRID, "the same of the exact law of the sampler's output"),
)
PARTITION_KL = (
    Variable(
        "partition_kl",
        REPLICATE,
        "KL(sample || target) over cells of known probability, plug-in: a lower bound",
        about=divergence(
            "partition_kl",
            "KL over cells (modes, or x₁)",
            floor="partition_kl_floor",
            floor_sd="partition_kl_floor_sd",
        ),
    ),
    Variable("partition_kl_floor", ("target",), "its expectation for a true sample"),
    Variable("partition_kl_floor_sd", ("target",), "standard deviation of that"),
)
MMD = (
    Variable(
        "mmd",
        REPLICATE,
        "squared maximum mean discrepancy, Gaussian kernel, unbiased",
        "1",
        divergence("mmd", "squared MMD", exact="mmd_exact", coupled="mmd_coupled"),
        measured_floor=True,
    ),
    *coupled("mmd", "squared MMD between the target and the generated law", "1"),
    Variable("mmd_exact", GRID, "the same of the exact law of the sampler's output", "1"),
)
HELDOUT_NLL = (
    Variable(
        "heldout_nll_gap",
        REPLICATE,
        "held-out NLL, fitted to generated minus to true data",
        about=divergence(
            "heldout_nll",
            "held-out NLL gap",
            floor="heldout_nll_floor",
            standard_error="heldout_nll_standard_error",
        ),
    ),
    Variable("heldout_nll_standard_error", REPLICATE, "standard error of that"),
    Variable("heldout_nll_floor", RUN, "the same between halves of the true data"),
)
HISTOGRAM = (
    Variable(
        "sample_density",
        (*REPLICATE, "bin"),
        "density of one coordinate of the generated rows, mean over each bin",
        "1",
    ),
    Variable("target_density", ("target", "bin"), "the same of the target, exact", "1"),
)
COVERAGE = tuple(
    variable
    for name, long_name, units in (
        ("kl", "KL(data ‖ generated), by moments", "nat"),
        ("w2", "W2², by moments", "1"),
        ("sliced_w2", "sliced W2²", "1"),
        ("w2_sample", "W2² between samples, centred", "1"),
        ("mmd", "squared MMD", "1"),
        ("nll", "NLL of the sample under the target", "nat"),
    )
    for variable in (
        Variable(
            f"coverage_{name}_truth",
            REPLICATE,
            f"{long_name}, coupled, of all rows",
            units,
            {"label": long_name, "coupled": f"coverage_{name}_error"},
        ),
        Variable(
            f"coverage_{name}_error",
            (*REPLICATE, "rows"),
            f"root mean square error of the coupled {long_name}, of so many rows",
            units,
        ),
        Variable(
            f"coverage_{name}_stated",
            (*REPLICATE, "rows"),
            f"standard error that the coupled {long_name} states, root mean square",
            units,
        ),
        Variable(
            f"coverage_{name}_plain",
            (*REPLICATE, "rows"),
            f"root mean square error of the plain {long_name}, of so many rows",
            units,
        ),
        Variable(
            f"coverage_{name}_share",
            (*REPLICATE, "rows"),
            f"share of intervals ± 1.96 standard errors that hold the {long_name} of all rows",
            "1",
        ),
    )
)
KL_TERMINAL = Variable("kl_terminal", SCHEDULE, "KL(p_T || prior), exact")
LIKELIHOOD = (
    KL_TERMINAL,
    Variable("data_log_density", ("target",), "E log p_0(X_0), exact"),
    Variable("terminal_log_density", SCHEDULE, "E log p_T(X_T), exact"),
    Variable("elbo_r", SCHEDULE, "R from the cutoff on, exact"),
    Variable("elbo_k", SCHEDULE, "K from the cutoff on, exact"),
    Variable("elbo_difference", SCHEDULE, "R - K from the cutoff on, exact"),
    Variable("reverse_sde_kl", SCHEDULE, "KL(target || backward SDE with the exact score)"),
    Variable("score_gap", LEARNED, "G, half the integral of the score's squared error"),
    Variable("score_gap_standard_error", LEARNED, "Monte-Carlo standard error of G"),
    Variable("elbo", LEARNED, "evidence bound E log p - G - KL(p_T || prior)"),
    Variable("denoising_elbo", LEARNED, "the same from losses of denoising, by Monte Carlo"),
    Variable("denoising_elbo_standard_error", LEARNED, "Monte-Carlo standard error of that"),
    Variable("flow_log_likelihood", LEARNED, "mean log-likelihood under the probability flow"),
    Variable("flow_log_likelihood_standard_error", LEARNED, "standard error over its rows"),
    Variable("bits_per_dimension", LEARNED, "bits per dimension of the data's own levels", "bit"),
    Variable("flow_evaluations", LEARNED, "evaluations of the score by the solver (NFE)", "1"),
    Variable("flow_seconds", LEARNED, "wall time of the flow of all rows", "s"),
    Variable(
        "optimal_horizon",
        ("target", "schedule", "score"),
        "the horizon of the largest evidence bound, exact",
        "1",
    ),
    Variable(
        "optimal_horizon_interior",
        ("target", "schedule", "score"),
        "1 where it is not an end of the horizons considered",
        "1",
    ),
)
KL_BOUND = (
    KL_TERMINAL,
    Variable("kl_bound_mixing", SCHEDULE, "E1, mixing term", about={"label": "E1 mixing"}),
    Variable(
        "kl_bound_score",
        THEORY,
        "E2, score-approximation term",
        about={"label": "E2 score error"},
    ),
    Variable("kl_bound_score_standard_error", THEORY, "Monte-Carlo standard error of E2"),
    Variable(
        "kl_bound_score_draws", THEORY, "Monte-Carlo draws a time for E2, their mean; 0: exact", "1"
    ),
    Variable(
        "kl_bound_discretization",
        SOLVER,
        "E3, discretisation term",
        about={"label": "E3 discretization", "refined": "kl_bound_discretization_refined"},
    ),
    Variable(
        "kl_bound_discretization_refined",
        SOLVER,
        "E3 without telescoping the steps",
        about={"label": "E3 refined"},
    ),
    Variable(
        "kl_bound",
        THEORY,
        "upper bound on KL(target || generated), E1 + E2 + E3",
        about={
            "role": "bound",
            "label": "upper bound E1 + E2 + E3",
            "parts": "kl_bound_discretization kl_bound_score kl_bound_mixing",
            "refined": "kl_bound_refined kl_path",
            "objection": "kl_bound_objection",
            "divergence": "kl_plugin",
        },
    ),
    Variable(
        "kl_bound_refined",
        THEORY,
        "E1 + E2 + E3 refined",
        about={"label": "refined bound E1 + E2 + E3 refined"},
    ),
    Variable(
        "kl_path",
        THEORY,
        "KL(p_T || prior) plus the Girsanov path term",
        about={"label": "path KL (Girsanov)"},
    ),
    Variable("kl_bound_objection", VERDICT, "why the KL bound is not a theorem here", "1"),
    Variable("kl_bound_applicable", VERDICT, "1 where the KL bound is a theorem", "1"),
)
W2_BOUND = (
    Variable("w2_bound_mixing", SCHEDULE, "mixing term", "1", {"label": "mixing"}),
    Variable(
        "w2_bound_discretization",
        SOLVER,
        "discretisation term, the paper's Lipschitz constant",
        "1",
        {"label": "discretization"},
    ),
    Variable(
        "w2_bound_discretization_sharp",
        SOLVER,
        "discretisation term, the sharp Lipschitz constant",
        "1",
        {"label": "discretization, sharp"},
    ),
    Variable(
        "w2_bound_discretization_safe",
        SOLVER,
        "discretisation term, a Lipschitz constant that holds for any spectrum",
        "1",
        {"label": "discretization, safe"},
    ),
    Variable(
        "w2_bound_time",
        SOLVER,
        "time-regularity term M h T sup β (1 + 2B)",
        "1",
        {"label": "time regularity"},
    ),
    Variable(
        "w2_bound_score",
        REPLICATE,
        "score term, largest error along the generated chain",
        "1",
        {"label": "score error"},
    ),
    Variable(
        "w2_bound_score_forward",
        THEORY,
        "score term, largest error along the forward process",
        "1",
        {"label": "score error, forward"},
    ),
    Variable(
        "w2_bound",
        REPLICATE,
        "upper bound on W2(target, generated)",
        "1",
        {
            "role": "bound",
            "label": "upper bound on W2",
            "parts": "w2_bound_time w2_bound_discretization w2_bound_score w2_bound_mixing",
            "refined": "w2_bound_sharp w2_bound_safe w2_bound_forward",
            "objection": "w2_bound_objection",
            "divergence": "w2_plugin",
        },
    ),
    Variable(
        "w2_bound_sharp",
        REPLICATE,
        "the same with the sharp Lipschitz constant",
        "1",
        {"label": "sharp Lipschitz constant", "objection": "w2_bound_sharp_objection"},
    ),
    Variable(
        "w2_bound_safe",
        REPLICATE,
        "the same with the safe Lipschitz constant",
        "1",
        {"label": "safe Lipschitz constant", "objection": "w2_bound_safe_objection"},
    ),
    Variable(
        "w2_bound_forward",
        THEORY,
        "the same with the score error along the forward process, the authors' choice",
        "1",
        {
            "label": "score error along the forward process",
            "objection": "w2_bound_forward_objection",
        },
    ),
    Variable("w2_constant_m", SOLVER, "M, regularity of the score in time", "1"),
    Variable("w2_constant_b", ("target",), "B, root of E|X₀|² + σ²d", "1"),
    *(
        variable
        for total in ("w2_bound", "w2_bound_sharp", "w2_bound_safe", "w2_bound_forward")
        for variable in (
            Variable(f"{total}_objection", VERDICT, f"why {total} is not a theorem here", "1"),
            Variable(f"{total}_applicable", VERDICT, f"1 where {total} is a theorem", "1"),
        )
    ),
)
W2_ONE_STEP = (
    Variable(
        "w2_one_step_mixing", GRID, "share of the start at the prior", "1", {"label": "mixing"}
    ),
    Variable(
        "w2_one_step_discretization",
        GRID,
        "share of the steps' discretisation",
        "1",
        {"label": "discretization"},
    ),
    Variable(
        "w2_one_step_score",
        REPLICATE,
        "share of the score's errors along the generated chain",
        "1",
        {"label": "score error"},
    ),
    Variable(
        "w2_one_step",
        REPLICATE,
        "one-step upper bound on W2(target, generated)",
        "1",
        {
            "role": "bound",
            "label": "one-step bound on W2",
            "parts": "w2_one_step_discretization w2_one_step_score w2_one_step_mixing",
            "objection": "w2_one_step_objection",
            "divergence": "w2_plugin",
        },
    ),
    Variable("w2_one_step_objection", VERDICT, "why the one-step bound is not a theorem here", "1"),
    Variable("w2_one_step_applicable", VERDICT, "1 where the one-step bound is a theorem", "1"),
)
TRAINING = (
    Variable(
        "train_loss",
        LEARNED,
        "training loss, mean over the last epoch",
        "1",
    ),
    Variable(
        "train_seconds",
        LEARNED,
        "training time of one network",
        "s",
    ),
)
CURVES = tuple(
    Variable(f"schedule_{name}", ("schedule", "horizon", "time_fraction"), long_name, "1")
    for name, long_name in {
        "beta": "beta(t)",
        "mean_scale": "m(t), mean scale of X_t given X_0",
        "std": "sigma_t, standard deviation of X_t given X_0",
    }.items()
)

#: Names that every grid gives a meaning of its own.
RESERVED = {
    *AXES, "status", "target_family", "dimension", "law_known", "family", "full_horizon",
    "score_family", "recipe", *(variable.name for variable in (*EXACT_LAW, *TRAINING, *CURVES)),
}  # fmt: skip
