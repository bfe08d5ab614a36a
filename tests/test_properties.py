"""Every property holds for the built-in families, and fails for one that breaks it."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sgm import samplers, scores, targets
from sgm.cli import main
from sgm.densities import GaussianMixture
from sgm.densities.base import Partition
from sgm.gaussian import Gaussian
from sgm.measures.bounds import kl_bound
from sgm.processes import VPProcess
from sgm.registry import families, lookup
from sgm.run.build import build
from sgm.run.properties import KINDS, InapplicableError, examine, kinds
from sgm.run.properties import bounds as bounds_kind
from sgm.run.properties import divergences as divergences_kind
from sgm.run.properties import samplers as samplers_kind
from sgm.run.properties import schedules as schedules_kind
from sgm.run.properties import scores as scores_kind
from sgm.run.properties import targets as targets_kind
from sgm.run.properties import timegrids as timegrids_kind
from sgm.schedules import ConstantSchedule, NoiseSchedule
from sgm.scores import DensityScore, GaussianScore
from sgm.study import Variable
from sgm.study.variables import CURVES, EXACT_LAW, LEARNED_LAW, LIKELIHOOD, TRAINING
from sgm.targets import EmpiricalTarget, LawTarget
from sgm.variables import REPLICATE
from tests.workflow import tiny

# --- what we ship ------------------------------------------------------------------------

PARAMETERS = {
    "target": {
        "isotropic": "dimension: 2, mean: 1, variance: 0.5",
        "heteroscedastic_slides": "dimension: 6, mean: 1",
        "heteroscedastic_blocks": "dimension: 5, mean: 1",
        "correlated": "dimension: 4, mean: 1, offset: 1",
        "funnel": "dimension: 3, spread: 1, slope: 0.5",
        "grid_mixture": "dimension: 2, side: 2, variance: 0.02, rest_variance: 1",
        "ring_mixture": "modes: 5, radius: 2, variance: 0.05",
        "mixture": "weights: [0.3, 0.7], means: [0, 2], variances: [0.1, 1]",
        "tilted": "component: 1, weight: 2, "
        "prior: {family: mixture, weights: [1, 1], means: [-1, 1], variances: [0.2, 0.3]}",
        "conditional": "label: [0, 1], "
        "prior: {family: mixture, weights: [1, 2], means: [-1, 1], variances: [0.2, 0.3]}",
        "inpainting": "observed: [3, 4, 5], noise: 0.1, row: 7, neighbours: 60, "
        "prior: {family: breast_cancer, heldout_fraction: 0.3, standardise: true}",
        "posterior": "prior: {family: correlated, dimension: 3, mean: 1, offset: 1}, "
        "observed: [1], noise: 0.1",
        **dict.fromkeys(
            ("digits", "digits_images", "breast_cancer", "diabetes", "wine"),
            "heldout_fraction: 0.3, standardise: true",
        ),
    },
    "schedule": {
        "beta_a": "a: [-700, -3, 0, 3, 30], beta_min: 0.1, beta_max: 20",
        "constant": "rate: 3",
        "cosine": "offset: 0.008, clip: 20",
        "geometric": "sigma_min: 0.01, sigma_max: 50",
        "polynomial": "exponent: [0.5, 3], beta_min: 0.1, beta_max: 20",
        "sigmoid": "start: -3, end: 3, tau: 0.9, clip: 20",
        "power_cosine": "start: 0, end: 1, tau: 1, clip: 20",
        "laplace": "location: 0, scale: 0.5, clip: 20",
        "edm": "sigma_min: 0.002, sigma_max: 80, rho: 7",
        "discrete_cosine": "offset: 0.008, steps: 1000, max_beta: 0.999",
        "piecewise_linear": "knots: [0, 0.5, 1], rates: [0.8, 2.4, 28]",
        "spline": "knots: [0, 0.5, 1], rates: [0.8, 2.4, 28]",
        "integral_spline": "knots: [0, 0.5, 1], levels: [0, 0.8, 5.3]",
        "schedule_file": "path: config/studies/schedules/optimal-isotropic-20.csv, "
        "interpolation: monotone",
    },
    "time_grid": {
        "beta_quantiles": "alpha: 0.6, beta: 0.6",
        "linear_steps": "ratio: 200",
        "log_snr": "sigma_min: 0.01",
        "karras": "rho: 7, sigma_min: 0.01",
        "arctangent": "scale: 1",
        "cosine": "offset: 0.008, scale: 1",
        "sigmoid": "start: -3, finish: 3, temperature: 1, scale: 1",
        "laplace": "location: 0, width: 0.5",
        "dmn": "order: 3, exponent: 2, scale: 1, sigma_min: 0.01",
        "entropic": "sigma_min: 0.01",
        "score_optimal": "velocity: unit",
        "constant_rate": "exponent: 1, scale: 1",
    },
    "score": {
        "scaled": "eps: [0.1, -0.3]",
        "biased": "eps: 0.2",
        "plugin": "eps: 0.2",
        "affine": "n_rows: [100, 1000]",
        "affine_sgd": "n_rows: 1000, steps: 50, learning_rate: 0.01",
        "classifier_free": "weight: [0, 2]",
        "twisted_smc": "guidance: dps, particles: 2",
    },
    "sampler": {
        "ddim": "eta: 0.5",
        "edm": "s_churn: 5",
        "restart": "restarts: 1, low: 0.1, high: 0.3",
        "dpm_solver_pp_2m": "eta: [0, 1]",
        "deis": "order: 3",
        "er_sde": "order: 3",
        "randomised_midpoint": "times_seed: 0",
    },
    "divergence": {
        "sample_w2": "rows: 100",
        "sliced_w2": "projections: 10, projection_seed: 0",
        "sliced_w2_authors": "projections: 10, projection_seed: 0",
        "mmd": "rows: 300",
        "heldout_nll": "components: 1, regularisation: 0.001",
        "coverage": "rows: [40], sets: 2, subsample: 40, projections: 5, projection_seed: 0",
        "histogram": "coordinate: 0, bins: 10, low: -3, high: 3",
    },
}
"""Parameters of the built-in families that need some."""

ELSEWHERE = {
    "gaussian_file", "data_file", "mnist", "cifar10",  # read a file of the user's
    "image_folder",  # reads files of the user's
    "trained", "module_file",  # are no closed form
    "trained_class_guidance", "trained_classifier_free",  # are made of networks
    "trained_dps", "trained_pigdm", "trained_replacement",
    "w2_one_step_mixture",  # of no Gaussian: see test_bounds_lipschitz
    "nll_ddpm",  # of data: see test_bounds_ddpm_rows
    # steps of a fixed size have an error of their own, see below
    "predictor_corrector", "predictor_corrector_snr", "annealed_langevin",
    "langevin",
}  # fmt: skip
BUILT_IN = [
    (kind, name)
    for kind in KINDS
    for name, entry in families(kind).items()
    if entry.build.startswith("sgm.") and name not in ELSEWHERE
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=lambda word: word)
def test_every_property_of_a_built_in_family_holds(kind: str, name: str) -> None:
    parameters = PARAMETERS.get(kind, {}).get(name, "")
    for item in kinds.items_of(name, parameters=parameters, kind=kind):
        found = list(examine(item, n_cells=200))
        assert not [finding for finding in found if finding.verdict == "fails"]
        assert sum(finding.verdict == "holds" for finding in found) >= 2


def test_a_corrector_of_a_fixed_step_keeps_its_own_error() -> None:
    (item,) = kinds.items_of(
        "predictor_corrector", parameters="corrector_steps: 1, step_size: 0.01"
    )
    failed = {f.statement: f.sentence for f in examine(item) if f.verdict == "fails"}
    assert any("started at p_T" in statement for statement in failed)
    assert all("does not vanish" in s or "nor is it" in s for s in failed.values()), failed


def test_the_order_is_measured() -> None:
    (item,) = kinds.items_of("euler_maruyama")
    words = samplers_kind.is_consistent(samplers_kind.Scheme(item.spec))
    assert words.startswith(("weak order 1.0", "weak order 0.99")), words


def test_a_long_name_stands_alone() -> None:
    """Of all variables, each has its own, and none speaks of "that" or "the same"."""
    every = [*CURVES, *EXACT_LAW, *LEARNED_LAW, *LIKELIHOOD, *TRAINING]
    for kind, name in ((k, n) for k in ("divergence", "bound") for n in families(k)):
        for variable in lookup(kind, name).variables:
            floor = [variable.floor] if variable.measured_floor else []
            every += [variable, *floor, *variable.verdicts]
    said = {variable.name: variable.long_name for variable in every}
    assert len(set(said.values())) == len(said) > 100
    unclear = r"^(its?|the same)\b|\bof (it|that)\b|\bthe same (of|with|from)\b"
    assert not [text for text in said.values() if re.search(unclear, text)]


# --- what breaks each property -----------------------------------------------------------


@dataclass(frozen=True)
class Made(NoiseSchedule):
    """β = 1 + t and its B, but for what is given otherwise."""

    rate: Any = None
    whole: Any = None
    inverse: Any = None
    checked: bool = True

    def beta(self, t: Any) -> Any:
        t = self.times(t) if self.checked else np.asarray(t)
        return 1 + t if self.rate is None else self.rate(t)

    def integral(self, t: Any) -> Any:
        t = self.times(t) if self.checked else np.asarray(t)
        return t + t**2 / 2 if self.whole is None else self.whole(t)

    def inverse_integral(self, b: Any) -> Any:
        return super().inverse_integral(b) if self.inverse is None else self.inverse(b)


class Wrong(Gaussian):
    """N(1, 1/2), with some of its functions replaced."""

    changes: dict[str, Any]

    @classmethod
    def of(cls, **changes: Any) -> Gaussian:
        law = cls.diagonal([1.0], [0.5])
        object.__setattr__(law, "changes", changes)
        return law

    def sample(self, n: int, generator: Any) -> Any:
        return super().sample(n, generator) + self.changes.get("shift", 0.0)

    def log_density(self, x: Any, scale: Any = 1.0, variance: Any = 0.0) -> Any:
        noise = np.asarray(variance) * self.changes.get("noise", 1.0)
        return super().log_density(x, scale, noise) + self.changes.get("mass", 0.0)

    def score(self, x: Any, scale: Any = 1.0, variance: Any = 0.0) -> Any:
        factor = np.where(np.asarray(variance) > 0, self.changes.get("score", 1.0), 1.0)
        return super().score(x, scale, variance) * factor

    def negentropy(self, noise: Any) -> Any:
        return super().negentropy(noise) + self.changes.get("negentropy", 0.0)

    def fisher_information(self, scale: Any = 1.0, variance: Any = 0.0) -> Any:
        return super().fisher_information(scale, variance) * self.changes.get("fisher", 1.0)

    def partition(self) -> Partition:
        halves = np.array([0.5 + self.changes["cell"], 0.5 - self.changes["cell"]])
        return Partition("halves", lambda x: (x[:, 0] > 1).astype(np.intp), halves)


def known(**changes: Any) -> targets_kind.Known:
    law = Wrong.of(**changes)
    return targets_kind.Known(LawTarget(law), "gaussian", law)


class Fixed(LawTarget):
    """Equal rows, whatever the generator."""

    def sample(self, n: int, generator: Any) -> Any:
        return self.law.sample(n, np.random.default_rng(0))


class Displaced(LawTarget):
    def standardise(self, original: Any) -> Any:
        return super().standardise(original) + 1e-3


class Leaking(EmpiricalTarget):
    """Its first held-out row is a training row too."""

    def partition(self, generator: Any) -> Any:
        train, heldout = super().partition(generator)
        return train, np.append(train[:1], heldout[1:])


def leaking() -> targets_kind.Rows:
    rows = np.random.default_rng(0).standard_normal((20, 2))
    target = Leaking(rows, 0.5)
    return targets_kind.Rows(target, "unknown", target)


def wrong_rate(process: Any, times: Any) -> samplers.Steps:
    """Euler-Maruyama of 1.1 β: the score's factor is wrong, and the noise's."""
    schedule = ConstantSchedule(process.horizon, 3.0)
    if np.isinf(process.variance):
        return samplers.euler_maruyama(type(process)(schedule), times)
    return samplers.euler_maruyama(VPProcess(schedule, process.variance), times)


def too_late(process: Any, times: Any) -> samplers.Steps:
    return samplers.euler_maruyama(
        VPProcess(ConstantSchedule(2 * process.horizon, 3.0), process.variance), 2 * times
    )


def two_laws(process: Any, times: Any) -> samplers.Steps:
    """Coefficients beside the denoiser that are not those beside the score."""
    steps = samplers.ancestral(process, times)
    return replace(steps, kept=1.1 * steps.kept)


def scheme(name: str) -> samplers_kind.Scheme:
    return samplers_kind.Scheme({"build": f"{__name__}:{name}", "parameters": {}})


class WithoutData(GaussianScore):
    def __call__(self, x: Any, t: Any) -> Any:
        return super().__call__(x, t) * (np.nan if np.all(np.asarray(t) == 0) else 1.0)


class OtherCoefficients(GaussianScore):
    def coefficients(self, t: Any) -> Any:
        slope, offset = super().coefficients(t)
        return 1.01 * slope, offset

    def __call__(self, x: Any, t: Any) -> Any:
        return scores.exact(self.process, self.law)(x, t)


class SmallError(DensityScore):
    def error_moments(self, law: Any, t: Any) -> Any:
        mse, cross = super().error_moments(law, t)
        return 0.8 * mse, cross


def case(cls: Any, kind: str, **changes: Any) -> scores_kind.Case:
    process, law = scores_kind.PROCESSES["VP"], scores_kind.LAWS[kind]
    return scores_kind.Case(cls(process, law, **changes), process, law)


def distance(name: str = "distance", **about: str) -> tuple[Variable, ...]:
    shown = {"role": "divergence", "figure": name, "label": name}
    return (Variable(name, REPLICATE, name, "1", shown | about),)


def of_means(sample: Any, reference: Any) -> float:
    return float(np.sum((sample.mean(axis=0) - reference.mean(axis=0)) ** 2))


def biased(sample: Any, reference: Any) -> dict[str, float]:
    return {"distance": 0.1 + of_means(sample, reference)}


def nameless(sample: Any, reference: Any) -> dict[str, float]:
    return {"other": of_means(sample, reference)}


def infinite(sample: Any) -> dict[str, float]:
    return {"distance": np.inf}


def blind(sample: Any) -> dict[str, float]:
    return {"distance": 0.0}


def reversed_(sample: Any, reference: Any) -> dict[str, float]:
    """Smaller for a shifted sample, larger for others."""
    return {"distance": float(np.var(sample)) - 100 * of_means(sample, reference)}


def singular(sample: Any) -> dict[str, float]:
    return {
        "distance": float(np.linalg.inv(np.cov(sample.T) if len(sample) > 1 else np.eye(3)).sum())
    }


def measure(name: str) -> divergences_kind.Measure:
    variables = distance()
    spec = {
        "build": f"{__name__}:{name}",
        "parameters": {},
        "variables": {v.name: v.axes for v in variables},
    }
    return divergences_kind.Measure(spec, variables, "")


KL_TERMS = tuple(lookup("bound", "kl").variables)


@functools.wraps(kl_bound)
def smaller_kl_bound(**told: Any) -> dict[str, Any]:
    """10 % too small."""
    return {name: 0.9 * value for name, value in kl_bound(**told).items()}


@functools.wraps(kl_bound)
def averaged_kl_bound(**told: Any) -> dict[str, Any]:
    """Of several networks the mean of all."""
    found = kl_bound(**told)
    return {name: np.mean(value) + 0 * np.asarray(value) for name, value in found.items()}


@functools.wraps(kl_bound)
def shorter_kl_bound(**told: Any) -> dict[str, Any]:
    found = kl_bound(**told)
    del found["kl_path"]
    return found


def bound(name: str) -> bounds_kind.Bound:
    promised = {v.name: v.axes for v in KL_TERMS}
    spec = {"build": f"{__name__}:{name}", "parameters": {}, "variables": promised}
    return bounds_kind.Bound(spec, KL_TERMS, "sgm.measures.bounds:kl_objection", False, n_cells=400)


def grid(times: list[float], horizon: float = 1.0) -> timegrids_kind.Grid:
    return timegrids_kind.Grid(np.array(times), horizon, 2)


BREAKS: list[tuple[Any, Any, str]] = [
    (schedules_kind.rate_is_positive, Made(1.0, lambda t: 1 - 3 * t), r"β\(0\.334\) = -0\.002"),
    (schedules_kind.rate_is_positive, Made(1.0, lambda t: 1 / (1 - t)), r"β\(1\) = inf"),
    (schedules_kind.rate_is_positive, Made(1.0, lambda t: np.array(1.0)), "beta.* has shape"),
    (
        schedules_kind.integral_increases_from_zero,
        Made(1.0, whole=lambda t: t + 0.1),
        r"B\(0\) = 0.1",
    ),
    (
        schedules_kind.integral_increases_from_zero,
        Made(1.0, whole=lambda t: np.sin(4 * t)),
        r"B\(T\) = -0\.75",
    ),
    (
        schedules_kind.integral_increases_from_zero,
        Made(1.0, whole=lambda t: np.sin(3 * t)),
        r"B\(0\.524\) = 0\.99999\d*, but B\(0\.525\)",
    ),
    (
        schedules_kind.integral_is_that_of_the_rate,
        Made(1.0, whole=lambda t: (1 + 1e-5) * (t + t**2 / 2)),
        r"B\(0\.0001\) − B\(0\) = 0\.000100006\d*, but ∫β = 0\.000100005",
    ),
    (
        schedules_kind.rate_is_the_slope_of_the_integral,
        Made(1.0, whole=lambda t: t + t**2 / 2 + 1e-3 * np.sin(20 * np.pi * t)),
        r"B′\(0\.0013\) = 1\.06",
    ),
    (
        schedules_kind.inverse_undoes_the_integral,
        Made(1.0, inverse=lambda b: b / 1.5),
        r"inverse_integral\(B\(1e-06\)\)",
    ),
    (schedules_kind.times_outside_are_refused, Made(1.0, checked=False), r"beta\(-0\.001\) = 0.99"),
    (
        schedules_kind.supremum_bounds_the_rate,
        Made(1.0, lambda t: 2 - t),
        r"supremum = 1, but β\(0\) = 2",
    ),
    (timegrids_kind.has_n_steps, grid([1.0, 0.0]), r"shape \(2,\): must be \(2 \+ 1,\)"),
    (timegrids_kind.starts_at_the_horizon, grid([0.99, 0.5, 0.0]), r"τ₀ = .*0\.99"),
    (timegrids_kind.decreases, grid([1.0, 0.5, 0.5]), r"τ_1 = 0\.5, but τ_2 = 0\.5"),
    (timegrids_kind.decreases, grid([1.0, 0.5, -0.1]), r"τ_2 = -0\.1"),
    (samplers_kind.is_consistent, scheme("wrong_rate"), "it does not vanish"),
    (samplers_kind.tends_to_a_known_limit, scheme("wrong_rate"), "neither: .*; nor is it"),
    (samplers_kind.is_consistent_for_ve, scheme("wrong_rate"), "it does not vanish"),
    (samplers_kind.asks_the_score_within_the_horizon, scheme("too_late"), r"t = 2\.6 in eval"),
    (samplers_kind.simulation_has_the_exact_law, scheme("two_laws"), r"mean\[0\] = .*draws"),
    (
        targets_kind.is_what_it_is_registered_as,
        replace(known(), registered="density"),
        "'density' is registered, but the target has 'gaussian'",
    ),
    (targets_kind.rows_are_drawn, replace(known(), target=Fixed(known().law)), "ignores its gen"),
    (
        targets_kind.coordinates_are_restored,
        replace(known(), target=Displaced(known().law)),
        "in column 0 comes back as",
    ),
    (targets_kind.moments_are_those_of_the_draws, known(shift=0.1), r"mean\[0\] = 1, but 20000"),
    (targets_kind.score_is_the_gradient, known(score=1.001), r"m = 0\.9, v = 0\.025: ⟨score, u⟩"),
    (targets_kind.density_has_mass_one, known(mass=0.01), r"∫ p = 1\.0100"),
    (targets_kind.noising_is_a_convolution, known(noise=1.5), r"density at \("),
    (targets_kind.information_is_that_of_the_draws, known(negentropy=0.05), "entropy by neg"),
    (targets_kind.information_is_that_of_the_draws, known(fisher=1.1), "fisher_information at"),
    (targets_kind.cells_have_their_probabilities, known(cell=0.05), r"cell 0 has prob.* 0\.55"),
    (targets_kind.rows_are_held_out, leaking(), "row .* is in both parts"),
    (scores_kind.is_finite, case(WithoutData, "gaussian"), "at t = 0 coordinate 0 is nan"),
    (
        scores_kind.coefficients_are_those_of_the_score,
        case(OtherCoefficients, "gaussian"),
        r"at t = 1\.3 s = .*, but A Uᵀx \+ b",
    ),
    (
        scores_kind.error_is_as_stated,
        case(SmallError, "density", scale=1.3),
        r"mse at t = 1\.3 = .*, but 5000 draws",
    ),
    (divergences_kind.returns_what_it_declares, measure("nameless"), "returned other: must be"),
    (divergences_kind.returns_what_it_declares, measure("infinite"), "distance = inf of pair 0"),
    (divergences_kind.vanishes_at_equality, measure("biased"), "neither zero, nor at its floor"),
    (divergences_kind.sees_a_difference, measure("blind"), "sees none of a shift"),
    (divergences_kind.sees_a_difference, measure("reversed_"), "of a sample shifted by one"),
    (divergences_kind.says_where_rows_are_too_few, measure("singular"), "of n = .*: must be NaN"),
    (bounds_kind.returns_what_it_declares, bound("shorter_kl_bound"), "must be the variables"),
    (bounds_kind.takes_several_networks, bound("averaged_kl_bound"), "of network 0 among two"),
    (
        bounds_kind.lies_above_the_exact_error,
        bound("smaller_kl_bound"),
        r"kl_bound is below kl_exact in \d+ of 400 cells, first .*d = .*N = .*, sampler = exp",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("prop", "subject", "message"), BREAKS, ids=lambda part: getattr(part, "__name__", "-")
)
def test_a_property_fails_for_what_breaks_it(
    prop: Any, subject: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the study's own check of the times comes before the property
    monkeypatch.setattr(
        samplers_kind,
        "build_steps",
        lambda spec, process, times: build(spec, process=process, times=times),
    )
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        prop(subject)


def test_every_property_is_broken_by_something() -> None:
    every = {prop for kind in KINDS.values() for prop in kind.PROPERTIES}
    assert {prop for prop, _, _ in BREAKS} == every


def test_what_is_broken_alone_is_whole_otherwise() -> None:
    """The laws that break the properties above fail them by their changes alone."""
    for prop in targets_kind.PROPERTIES:
        try:
            prop(known(cell=0.0))
        except InapplicableError:
            continue
    for prop in schedules_kind.PROPERTIES:
        prop(Made(1.0))


def test_a_mixture_of_small_width_has_mass_one() -> None:
    law = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [3.0, 3.0]], [[1.0, 1e-6], [1e-6, 1.0]])
    subject = targets_kind.Known(LawTarget(law), "density", law)
    targets_kind.density_has_mass_one(subject)


def test_tails_too_heavy_for_moments_are_left_out() -> None:
    law = targets.funnel(dimension=4, spread=3.0, slope=0.5).law
    words = targets_kind.moments_are_those_of_the_draws(
        targets_kind.Known(LawTarget(law), "density", law)
    )
    assert "coordinates have too heavy tails" in words


def test_a_grid_of_many_steps_may_be_refused(own: Path) -> None:
    words = "from sgm.study import register\nimport numpy as np\n\n\n@register('time_grid')\n"
    words += "def few(horizon, n_steps):\n    if n_steps > {most}:\n"
    words += "        raise ValueError('too many')\n"
    words += "    return np.linspace(horizon, 0, n_steps + 1)\n"
    for most, verdict, sentence in (
        (
            64,
            "holds",
            "T = 1, N = 20, and 8 more; refused: T = 1, N = 500: few of few64.py: too many",
        ),
        (10, "fails", "T = 1, N = 20: few of few10.py: too many"),
    ):
        Path(f"few{most}.py").write_text(words.format(most=most))
        (item,) = kinds.items_of("few", f"few{most}.py")
        built, *others = examine(item)
        assert (built.verdict, built.sentence) == (verdict, sentence)
        assert all(found.verdict == "holds" for found in others)


# --- the command -------------------------------------------------------------------------

OWN = """
import numpy as np
from sgm.schedules import NoiseSchedule
from sgm.study import register
from dataclasses import dataclass


@register("schedule", axes=["exponent"])
@dataclass(frozen=True, kw_only=True)
class falling(NoiseSchedule):
    exponent: float
    height: float = 1.0

    def beta(self, t):
        return self.height - self.times(t) ** self.exponent

    def integral(self, t):
        return self.height * self.times(t) - self.times(t) ** (self.exponent + 1)


@register("sampler")
def exact(process, times):
    raise KeyError("times")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_a_wrong_family_is_reported(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["falling", "--file", "own.py", "--parameters", "exponent: [1, 2], height: 2"]
    assert main(["check", *words]) == 1
    out = capsys.readouterr().out
    assert out.count("schedule falling_exponent=") == 2
    assert "holds  Times outside [0, T] are a ValueError" in out
    assert "FAILS  β is finite and at least 0, positive inside (0, T)" in out
    assert "T = 10, σ² = 0.5: β(" in out
    assert "FAILS  B(t) − B(s) is the integral of β from s to t, by quadrature: T = 1" in out
    assert out.splitlines()[-1].startswith("Properties: ")


def test_an_error_of_a_family_is_a_finding(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "exact", "--file", "own.py", "--kind", "sampler"]) == 1
    out = capsys.readouterr().out
    assert (
        "FAILS  It can be built: T = 1.3: exact of own.py: KeyError: 'times' (own.py, line" in out
    )


REFUSED = {
    "falling --file own.py": "exponent: this key is required. .*may give: .*exponent, height .else",
    "falling --file own.py --parameters {exponent:1}": "'exponent:1' has no value",
    "falling --file own.py --parameters {exponent:\\ 1,hight:\\ 2}": "hight = 2: unknown key",
    "falling --file own.py --parameters exponent": "must be 'name: value, …'; 'exponent' has no",
    "falling --file own.py --parameters [1": r"parameters = '\[1': must be 'name: value, …'",
    "faling --file own.py": "name = 'faling': no family has this name. .*schedule: .*falling",
    "exact --file own.py": "name = 'exact': is a score and a sampler; say which with `kind`",
    "kl --kind bounds": "kind = 'bounds': must be one of target, schedule",
    "vp": "name = 'vp': a process is fixed by the study",
    "trained": "name = 'trained': networks are part",
    "falling --file none.py": "extensions: .*none.py' is not a file",
    "kl --cells 0": "cells = 0: must be at least 1",
    "beta_a --study study.yaml --file own.py": "study and file: must be one of them",
    "cosine --study study.yaml": "name = 'cosine': must be a family or label of study.yaml: .*beta",
    "beta_a --study none.yaml": "'none.yaml' is not there",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items())
def test_what_can_t_be_checked_is_named(
    own: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    Path("study.yaml").write_text(yaml.safe_dump(tiny()))
    assert main(["check", *shlex.split(line)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


def test_a_label_of_a_study_is_found(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text(yaml.safe_dump(tiny(time_grids=["uniform", "quadratic"])))
    assert main(["check", "quadratic", "--study", "study.yaml"]) == 0
    assert capsys.readouterr().out.startswith("time_grid quadratic, sgm.timegrids:quadratic\n")
