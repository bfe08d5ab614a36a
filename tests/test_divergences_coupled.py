"""Coupled estimates against exact laws: bias, coverage, gain, and a control that is no help."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from sgm import divergences, laws, networks, samplers, scores, targets, timegrids
from sgm.divergences import Control, Coupled, Moments, ReferenceRun
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.measures import divergences as measures
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.simulation import simulate_reverse
from sgm.training import Recipe, train_networks

Array = npt.NDArray[np.float64]

D, ROWS, SEEDS = 5, 300, 40
PROCESS = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
LAW = targets.correlated(D, 1.0, 1.0).law
TIMES = timegrids.uniform(1.0, 30)
SAMPLERS = {
    "modified": samplers.exponential_integrator_modified,
    "euler": samplers.euler_maruyama,
    "flow": samplers.probability_flow_euler,
    "corrector": lambda p, t: samplers.predictor_corrector(p, t, 1, 0.001),
}


class Run:
    """Chains of a score 3 % too large and of the exact one, on the same noise."""

    def __init__(self, sampler: str) -> None:
        self.sampler = sampler
        steps, prior = SAMPLERS[sampler](PROCESS, TIMES), PROCESS.prior(D)
        exact, wrong = scores.exact(PROCESS, LAW), scores.scaled(PROCESS, LAW, 0.03)
        self.law = laws.sampler_law(steps, wrong, prior)
        control = laws.sampler_law(steps, exact, prior)
        place, double = torch.device("cpu"), torch.float64
        self.samples, rows = (
            simulate_reverse(
                steps, networks.affine_score_fn(score, double, place), 1.0, ROWS, D, 3,
                list(range(SEEDS)), {"target": "t"}, double, place,
            ).numpy()
            for score in (wrong, exact)
        )  # fmt: skip
        self.controls = [Control(chain, control) for chain in rows]
        rng = np.random.default_rng(0)
        self.references = [LAW.sample(ROWS, rng) for _ in range(SEEDS)]

    def __iter__(self) -> Iterator[tuple[Array, Array, Array]]:
        return iter(zip(self.samples, self.controls, self.references, strict=True))


@pytest.fixture(scope="module", params=SAMPLERS)
def run(request: pytest.FixtureRequest) -> Run:
    return Run(request.param)


def squared(estimate: Coupled) -> tuple[float, float]:
    """A signed root's square and its error."""
    return estimate.value * abs(estimate.value), 2 * abs(estimate.value) * estimate.standard_error


def assert_resolves(
    found: list[tuple[float, float]], plain: list[float], truth: float, ratio: float = 0.5
) -> None:
    """Unbiased within its noise, of honest standard error, and less noisy than the plain one."""
    values, errors = np.transpose(found)
    sd = values.std(ddof=1)
    assert values.mean() == pytest.approx(truth, abs=4 * sd / np.sqrt(len(values)) + 1e-9)
    assert sd < ratio * np.std(plain, ddof=1)
    # 2.1 of t with 19 degrees: 95 %. Without noise the coupled value is exact, up to rounding
    covered = np.sum(np.abs(values - truth) < 2.1 * errors + 1e-9)
    assert covered >= stats.binom.ppf(1e-3, len(values), 0.93)


def test_kl(run: Run) -> None:
    estimates = [divergences.coupled_kl(LAW, x, control, 1000) for x, control, _ in run]
    plain = [divergences.unbiased_kl(LAW, Moments.of(x)) for x, _, _ in run]
    truth = float(kl_divergence(LAW, run.law))
    assert_resolves([(e.value, e.standard_error) for e in estimates], plain, truth)
    assert np.median([e.gain for e in estimates]) > 4
    # the paper's estimator of many more rows than were simulated
    mean, sd = divergences.plugin_kl_moments(LAW, run.law, 1000)
    means = np.array([e.plugin_mean for e in estimates])
    assert means.mean() == pytest.approx(mean, abs=4 * means.std() / np.sqrt(SEEDS) + 1e-9)
    assert np.mean([e.plugin_sd for e in estimates]) == pytest.approx(sd, rel=0.1)


def test_w2(run: Run) -> None:
    estimates = [divergences.coupled_w2(LAW, x, control) for x, control, _ in run]
    plain = [divergences.w2_unbiased(LAW, Moments.of(x)) for x, _, _ in run]
    truth = float(wasserstein2(LAW, run.law))
    assert_resolves([squared(e) for e in estimates], [u * abs(u) for u in plain], truth**2)
    # the coupling bounds the distance of the two laws from above
    control = run.controls[0].law
    assert control is not None
    between = float(wasserstein2(run.law, control))
    distances = [divergences.coupling_distance(x, c.rows) for x, c, _ in run]
    assert np.mean(distances) + 4 * np.std(distances) / np.sqrt(SEEDS) >= between


def test_cross_entropy(run: Run) -> None:
    def entropy(law: Gaussian) -> float:
        own = np.sum(np.log(2 * np.pi * np.e * law.eigenvalues)) / 2
        return float(kl_divergence(law, LAW) + own)

    estimates, plain = [], []
    for x, control, _ in run:
        assert control.law is not None
        pair = LAW.log_density(x), LAW.log_density(control.rows)
        estimates.append(divergences.coupled_cross_entropy(*pair, entropy(control.law)))
        plain.append(divergences.cross_entropy(pair[0]).value)
    found = [(e.value, e.standard_error) for e in estimates]
    assert_resolves(found, plain, entropy(run.law))


@pytest.mark.parametrize("name", ["sliced_w2", "mmd"])
def test_differences(run: Run, name: str) -> None:
    directions = divergences.projections(D, 20, 0)
    statistic: Callable[..., float]
    exact: Callable[[Gaussian], float]
    if name == "mmd":
        statistic = lambda x, y: divergences.mmd(x, y, 2.0)  # noqa: E731
        exact = lambda law: divergences.gaussian_mmd(LAW, law, 2.0)  # noqa: E731
    else:
        statistic = lambda x, y: divergences.sliced_w2(x, y, directions).value ** 2  # noqa: E731
        exact = lambda law: (  # noqa: E731
            divergences.gaussian_sliced_w2(LAW, law, directions).value ** 2
        )
    found, plain = [], []
    for x, control, reference in run:
        assert control.law is not None
        estimate = divergences.coupled_difference(
            statistic, x, reference, control, exact(control.law), root=name != "mmd"
        )
        found.append(squared(estimate) if name != "mmd" else
                     (estimate.value, estimate.standard_error))  # fmt: skip
        plain.append(statistic(x, reference))
    truth = exact(run.law)
    # where the exact score's own error is large too, as that of few Euler steps of the flow, most
    # of the noise is that of the difference of the two laws
    assert_resolves(found, plain, truth, ratio=1.0 if run.sampler == "flow" else 0.6)


TARGET = targets.correlated(D, 1.0, 1.0)
MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "kl": lambda x, _, c, t: measures.gaussian_kl(x, t, c, 1000),
    "w2": lambda x, _, c, t: measures.gaussian_w2(x, t, c),
    "nll": lambda x, _, c, t: measures.nll(x, t, c),
    "sliced_w2": lambda x, y, c, t: measures.sliced_w2(x, y, t, c, 20, 0),
}
PLAIN = {"kl": "kl_unbiased", "w2": "w2_unbiased"}


def found_by(name: str, values: dict[str, float]) -> tuple[float, float, float]:
    """A coupled estimate, its error and the plain one: of squares where values are roots."""
    value, error = values[f"{name}_coupled"], values[f"{name}_coupled_standard_error"]
    plain = values[PLAIN.get(name, name)]
    if name in ("w2", "sliced_w2"):
        return value * abs(value), 2 * abs(value) * error, plain * abs(plain)
    return value, error, plain


@pytest.mark.parametrize("run", ["modified"], indirect=True)
@pytest.mark.parametrize("name", MEASURES)
def test_a_long_run_says_what_the_known_law_does(run: Run, name: str) -> None:
    """Of a Gaussian, whose law is withheld; each seed has a run of its own, so that they vary."""
    rng = np.random.default_rng(7)
    known, long, plain = [], [], []
    for x, control, reference in run:
        assert isinstance(control.law, Gaussian)
        rows, true = (law.sample(8 * ROWS, rng) for law in (control.law, LAW))
        withheld = Control(control.rows, ReferenceRun(rows, true))
        values = MEASURES[name](x, reference, withheld, TARGET)
        known.append(found_by(name, MEASURES[name](x, reference, control, TARGET)))
        long.append(found_by(name, values))
        plain.append(long[-1][2])
        assert 0 <= values[f"{name}_coupled_reference_error"] <= (
            values[f"{name}_coupled_standard_error"]
        )  # fmt: skip
    truth = np.mean([value for value, _, _ in known])
    assert_resolves([(value, error) for value, error, _ in long], plain, truth, ratio=1.0)
    errors = np.array([error for _, error, _ in long])
    apart = np.abs([a[0] - b[0] for a, b in zip(long, known, strict=True)])
    assert np.mean(apart < 2.1 * errors + 1e-9) > 0.85


def test_a_long_run_covers_the_truth_of_a_mixture() -> None:
    """Truth: the same divergence of many rows of the scaled score's chain, without a control."""
    for name, (values, plain, truth, error) in mixture_estimates().items():
        own = np.hypot(values[:, 1], error)
        assert values[:, 0].mean() == pytest.approx(
            truth, abs=4 * np.hypot(values[:, 0].std(ddof=1) / np.sqrt(len(values)), error)
        ), name
        assert values[:, 0].std(ddof=1) < 0.8 * np.std(plain, ddof=1), name
        covered = np.sum(np.abs(values[:, 0] - truth) < 2.1 * own)
        assert covered >= stats.binom.ppf(1e-3, len(values), 0.93), name


def mixture_estimates() -> dict[str, tuple[np.ndarray, list[float], float, float]]:
    """Coupled estimates with their errors, plain ones, and the truth with its error, by name."""
    target = targets.ring_mixture(8, 2.0, 0.05)
    assert target.law is not None
    steps = samplers.exponential_integrator_modified(PROCESS, timegrids.uniform(1.0, 15))
    place, double = torch.device("cpu"), torch.float64

    def chain(score: object, rows: int, seeds: int, name: str) -> np.ndarray:
        fn = networks.score_fn(score, double, place)
        seen = list(range(seeds)), {"target": name}
        return simulate_reverse(steps, fn, 1.0, rows, 2, 3, *seen, double, place).numpy()

    exact, wrong = scores.exact(PROCESS, target.law), scores.scaled(PROCESS, target.law, 0.05)
    samples, chains = (chain(score, ROWS, SEEDS, "t") for score in (wrong, exact))
    runs = chain(exact, 5 * ROWS, SEEDS, "run")
    (long,) = chain(wrong, 60_000, 1, "long")
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in MEASURES}
    for x, y, rows in zip(samples, chains, runs, strict=True):
        control = Control(y, ReferenceRun(rows, target.sample(len(rows), rng)))
        reference = target.sample(ROWS, rng)
        for name, measure in MEASURES.items():
            found[name].append(found_by(name, measure(x, reference, control, target)))
    whole = ReferenceRun(long, target.sample(len(long), rng))
    pieces = np.array_split(long, 20)
    law, directions = target.reference, divergences.projections(2, 20, 0)
    by_pieces: dict[str, Callable[[np.ndarray], float]] = {
        "kl": lambda x: divergences.unbiased_kl(law, Moments.of(x)),
        "w2": lambda x: divergences.w2_unbiased(law, Moments.of(x)) ** 2,
        "nll": lambda x: -target.law.log_density(x).mean(),
    }
    truths = {
        name: (np.mean(v := [of(x) for x in pieces]), np.std(v, ddof=1) / np.sqrt(20))
        for name, of in by_pieces.items()
    }
    truths["sliced_w2"] = divergences.unbiased_sliced_w2_squared(
        whole.rows, whole.truth, directions, 20
    )
    return {
        name: (np.array(v)[:, :2], [plain for _, _, plain in v], *map(float, truths[name]))
        for name, v in found.items()
    }


def test_the_squared_distance_of_two_long_samples_is_unbiased() -> None:
    """Between Gaussians, near and apart, against the closed form; and 0 of one law."""
    rng = np.random.default_rng(3)
    directions = divergences.projections(D, 20, 0)
    for shift in (0.0, 0.05, 0.3):
        other = Gaussian(LAW.mean + shift, LAW.eigenvalues * (1 + shift), LAW.basis)
        truth = divergences.gaussian_sliced_w2(LAW, other, directions).value ** 2
        values, errors = np.transpose(
            [
                divergences.unbiased_sliced_w2_squared(
                    LAW.sample(2000, rng), other.sample(2000, rng), directions, 20
                )
                for _ in range(40)
            ]
        )
        sd = values.std(ddof=1)
        assert values.mean() == pytest.approx(truth, abs=4 * sd / np.sqrt(40))
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(sd, rel=0.4)
        plugin = divergences.sliced_w2(LAW.sample(2000, rng), other.sample(2000, rng), directions)
        assert shift or values.mean() < 0.2 * plugin.value**2


def test_the_error_of_a_run_is_part_of_that_of_every_seed() -> None:
    """As many rows as the sample: half the sampling error is left, and the run's own with it."""
    rng = np.random.default_rng(4)
    y, rows = LAW.sample(ROWS, rng), LAW.sample(ROWS, rng)
    x = y + 1e-3 * rng.standard_normal(y.shape)
    same = divergences.coupled_law(
        x, y, Gaussian.from_covariance(rows.mean(0), np.cov(rows.T)), 0.5
    )
    np.testing.assert_allclose(same.mean, (y.mean(0) + rows.mean(0)) / 2, atol=1e-3)
    densities = LAW.log_density(x), LAW.log_density(y)
    own = divergences.cross_entropy(LAW.log_density(rows))
    found = divergences.coupled_cross_entropy(*densities, own.value, own.standard_error)
    assert found.gain == pytest.approx(2, rel=0.2)
    assert found.reference_error < found.standard_error
    none = divergences.coupled_cross_entropy(*densities, own.value, 1e6)
    assert none.standard_error == pytest.approx(
        divergences.cross_entropy(densities[0]).standard_error, rel=1e-2
    )


@pytest.mark.parametrize("d", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_standard_errors_cover_the_truth_at_250_rows(d: int) -> None:
    """Each coupled estimate over 60 independent sets of rows: X = α Y + b + ε Z, of known law.

    Of 60 intervals of 95 %, by Student's t of the groups or blocks, fewer than 49 hold the truth
    once in ten thousand times. The root mean square of the stated errors is the standard deviation
    of the estimates, which 60 of them fix to 9 %; that of W2 between samples may be too large.
    """
    sets, n, mean = 60, 250, np.full(d, 0.5)
    law = Gaussian.diagonal(mean, np.ones(d))
    output = Gaussian.diagonal(1.1 * mean + 0.1, np.full(d, 1.1**2 + 0.2**2))
    directions, bandwidth = divergences.projections(d, 20, 0), float(np.sqrt(2 * d))
    rng = np.random.default_rng(d)
    visible: list[float] = []

    def centred(x: np.ndarray, y: np.ndarray) -> float:
        return divergences.centred_w2(x, y).square

    def entropy(q: Gaussian) -> float:
        return float(kl_divergence(q, law) + np.sum(np.log(2 * np.pi * np.e * q.eigenvalues)) / 2)

    found: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("kl", "w2", "nll", "sliced", "mmd", "sample")
    }
    for _ in range(sets):
        y, reference = law.sample(n, rng), law.sample(n, rng)
        x = 1.1 * y + 0.1 + 0.2 * rng.standard_normal((n, d))
        control = Control(y, law)
        of_w2 = divergences.coupled_w2(law, x, control)
        found["w2"].append(divergences.squared(of_w2.value, of_w2.standard_error))
        estimates = {
            "kl": divergences.coupled_kl(law, x, control, 1000),
            "nll": divergences.coupled_cross_entropy(
                law.log_density(x), law.log_density(y), entropy(law)
            ),
            "sliced": divergences.coupled_difference(
                lambda a, b: divergences.sliced_w2(a, b, directions).value ** 2,
                x, reference, control, 0.0,
            ),
            "mmd": divergences.coupled_difference(
                lambda a, b: divergences.mmd(a, b, bandwidth), x, reference, control, 0.0
            ),
            "sample": divergences.coupled_difference(centred, x, reference, control, 0.0),
        }  # fmt: skip
        visible.append(divergences.centred_w2(x, reference).visible)
        for name, estimate in estimates.items():
            found[name].append((estimate.value, estimate.standard_error))
    scale = np.sqrt(1.1**2 + 0.2**2)
    truths = {
        "kl": float(kl_divergence(law, output)),
        "w2": float(wasserstein2(law, output)) ** 2,
        "nll": entropy(output),
        "sliced": divergences.gaussian_sliced_w2(law, output, directions).value ** 2,
        "mmd": divergences.gaussian_mmd(law, output, bandwidth),
        # a shift, and the visible share of a scale: tests/test_divergences_transport.py
        "sample": np.sum((output.mean - mean) ** 2) + d * (scale - 1) ** 2 * np.mean(visible),
    }
    for name, truth in truths.items():
        values, errors = np.transpose(found[name])
        degrees = {"kl": 19, "w2": 19, "nll": n - 2}.get(name, 9)
        covered = np.sum(np.abs(values - truth) < stats.t.ppf(0.975, degrees) * errors)
        assert covered >= stats.binom.ppf(1e-4, sets, 0.95), name
        ratio = np.sqrt(np.mean(errors**2)) / values.std(ddof=1)
        assert 0.7 < ratio < (1.8 if name == "sample" else 1.35), (name, ratio)


def test_a_control_that_is_no_help_does_no_harm() -> None:
    """A chain of other noise: the plain estimate stands, or is no worse."""
    rng = np.random.default_rng(1)
    output = Gaussian(LAW.mean * 0.9, LAW.eigenvalues * 1.2, LAW.basis)
    kl, plain = [], []
    for _ in range(60):
        x = output.sample(ROWS, rng)
        control = Control(LAW.sample(ROWS, rng), LAW)
        estimate = divergences.coupled_kl(LAW, x, control, 1000)
        unbiased = divergences.unbiased_kl(LAW, Moments.of(x))
        assert estimate.gain >= 1
        if estimate.gain == 1:
            assert estimate.value == unbiased
        kl.append(estimate.value)
        plain.append(unbiased)
    assert np.std(kl) < 1.15 * np.std(plain)
    truth = float(kl_divergence(LAW, output))
    assert np.mean(kl) == pytest.approx(truth, abs=4 * np.std(kl) / np.sqrt(60))


def test_a_covariance_that_is_not_positive_definite_leaves_the_plain_estimate() -> None:
    rng = np.random.default_rng(2)
    y = LAW.sample(20, rng)
    narrow = Gaussian(LAW.mean, LAW.eigenvalues * 1e-6, LAW.basis)  # far from what the rows show
    with pytest.raises(ValueError, match="positive definite"):
        divergences.coupled_law(y, y, narrow.__class__(LAW.mean, LAW.eigenvalues * 0, LAW.basis))
    x = y + 1e-9 * rng.standard_normal(y.shape)
    estimate = divergences.coupled_kl(LAW, x, Control(y, narrow), 1000)
    if estimate.gain == 1:
        assert estimate.value == divergences.unbiased_kl(LAW, Moments.of(x))
    assert np.isfinite(estimate.value)


X = LAW.sample(30, np.random.default_rng(5))
Y = LAW.sample(30, np.random.default_rng(6))
CONTROL = Control(Y, LAW)
PLANE = Gaussian.diagonal(np.zeros(2), np.ones(2))


def first_mean(x: np.ndarray, y: np.ndarray) -> float:
    return float(x[:, 0].mean() - y[:, 0].mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Control(Y, PLANE), "law: dimension = 2: must be 5, that of rows"),
        (lambda: Control(Y[0], LAW), r"rows has shape \(5,\): must be"),
        (lambda: Control(Y, Y), "law = ndarray: must be a Gaussian"),
        (lambda: divergences.coupled_law(X, Y[1:], LAW), r"control has shape \(29, 5\): must be"),
        (lambda: divergences.coupled_law(X, Y, PLANE), "law: dimension = 2: must be 5"),
        (lambda: divergences.coupled_kl(LAW, X[1:], CONTROL, 99), r"control has shape \(30, 5\)"),
        (
            lambda: divergences.coupled_kl(LAW, X[:, 1:], CONTROL, 99),
            r"control has shape \(30, 5\)",
        ),
        (lambda: divergences.coupled_kl(LAW, X, Y, 99), "control = ndarray: must be a Control"),
        (
            lambda: divergences.coupled_kl(LAW, X, Control(Y, None), 99),
            r"control\.law = None: must",
        ),
        (lambda: divergences.coupled_kl(LAW, X, CONTROL, 7), "n = 7: must exceed d . 2 = 7"),
        (
            lambda: divergences.coupled_kl(LAW, X[:19], Control(Y[:19], LAW), 99),
            "sample has 19 rows",
        ),
        (lambda: divergences.coupled_kl(PLANE, X, CONTROL, 99), "moments are of dimension 5"),
        (lambda: divergences.coupled_w2(LAW, X[1:], CONTROL), r"control has shape \(30, 5\)"),
        (lambda: divergences.coupled_w2(LAW, X[:19], Control(Y[:19], LAW)), "sample has 19 rows"),
        (
            lambda: divergences.coupled_difference(first_mean, X[1:], Y, CONTROL, 0.0),
            r"control has shape \(30, 5\): must be \(29, 5\)",
        ),
        (
            lambda: divergences.coupled_difference(first_mean, X, Y[:19], CONTROL, 0.0),
            "reference has 19 rows: must have at least 20",
        ),
        (
            lambda: divergences.coupled_difference(first_mean, X, Y, CONTROL, np.nan),
            "exact = nan: must",
        ),
        (
            lambda: divergences.coupled_cross_entropy(X[:, 0], Y[1:, 0], 1.0),
            r"control_log_densities has shape \(29,\): must be \(30,\)",
        ),
        (
            lambda: divergences.coupled_cross_entropy(X, Y, 1.0),
            r"log_densities has shape \(30, 5\)",
        ),
        (lambda: divergences.coupled_cross_entropy(X[:, 0], Y[:, 0], np.nan), "exact = nan"),
        (lambda: ReferenceRun(X, Y[1:]), r"run\.truth has shape \(29, 5\): must be \(30, 5\)"),
        (lambda: ReferenceRun(X, Y), r"run\.rows has 30 rows: must have at least 40"),
        (
            lambda: ReferenceRun(np.full((40, D), np.nan), np.zeros((40, D))),
            "run.rows: must be finite",
        ),
        (
            lambda: Control(Y, ReferenceRun(X.repeat(2, 0)[:, 1:], Y.repeat(2, 0)[:, 1:])),
            "law: dimension = 4: must be 5",
        ),
        (
            lambda: divergences.unbiased_sliced_w2_squared(X, Y[1:], np.eye(D), 20),
            r"y has shape \(29, 5\): must be \(30, 5\)",
        ),
        (
            lambda: divergences.unbiased_sliced_w2_squared(X, Y, np.eye(D), 2),
            "groups = 2: must be",
        ),
        (lambda: divergences.coupling_distance(X, Y[1:]), r"control has shape \(29, 5\)"),
    ],
)
def test_a_control_of_another_sample_and_too_few_rows_are_refused(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_sample_that_diverged_is_infinitely_far_and_such_a_control_no_help(lost: float) -> None:
    broken = X.copy()
    broken[3, 1] = lost
    directions = divergences.projections(D, 5, 0)
    estimates = [
        lambda x, y: divergences.coupled_kl(LAW, x, Control(y, LAW), 99),
        lambda x, y: divergences.coupled_w2(LAW, x, Control(y, LAW)),
        lambda x, y: divergences.coupled_difference(
            lambda a, b: divergences.sliced_w2(a, b, directions).value ** 2,
            x, Y[::-1], Control(y, LAW), 0.0, root=True,
        ),
        lambda x, y: divergences.coupled_cross_entropy(x[:, 1], y[:, 1], 1.0),
    ]  # fmt: skip
    for estimate in estimates:
        assert estimate(broken, Y).value == np.inf
        plain = estimate(X, broken)
        assert plain.gain == 1
        assert np.isfinite([plain.value, plain.standard_error]).all()
    assert divergences.coupling_distance(broken, Y) == np.inf


def test_a_measure_pairs_the_rows_it_uses_with_their_own_control() -> None:
    """MMD of the first rows: the rest of the control is of other noise, and too few have none."""
    target = targets.correlated(D, 1.0, 1.0)
    found = measures.mmd(X, Y[::-1], target, CONTROL, rows=25)
    expected = measures.mmd(X[:25], Y[::-1][:25], target, Control(Y[:25], LAW), rows=25)
    assert found == expected
    assert np.isfinite(found["mmd_coupled"])
    assert np.isnan(measures.mmd(X, Y, target, CONTROL, rows=19)["mmd_coupled"])
    few = measures.gaussian_kl(X[:19], target, Control(Y[:19], LAW), 99)
    assert np.isfinite(few["kl_plugin"])
    assert np.isnan(few["kl_coupled"])


@pytest.mark.slow
@pytest.mark.parametrize("a", [-5.0, 5.0])
def test_few_coupled_rows_of_a_network_say_what_10_000_plain_rows_show(a: float) -> None:
    """The paper's estimator of KL: its mean and its noise, of a network's rows, not Gaussian."""
    d, sets = 10, 10
    process, law = VPProcess(BetaSchedule(1.0, a, 0.1, 20.0), 1.0), targets.correlated(d, 1, 1).law
    recipe = Recipe(
        objective="explicit", weight="unit",
        network={"architecture": "mlp", "width": 64, "layers": 2, "time_width": 64,
                 "time_input": "fraction", "time_scale": 1000.0, "output": "relative"},
        batch_size=64, steps=400, learning_rate=0.004, learning_rate_schedule="cosine",
        ema=0.0, time_sampling="stratified", time_min=1e-5,
    )  # fmt: skip
    rows = law.sample(10_000, np.random.default_rng(0))
    exact, place = scores.exact(process, law), torch.device("cpu")
    network = train_networks(recipe, process, rows[None], exact, 1, [0], {}, "cpu").networks
    steps = samplers.exponential_integrator_modified(process, timegrids.uniform(1.0, 50))

    def chains(score: Callable[..., object], n: int, dtype: torch.dtype, name: str) -> np.ndarray:
        found = [
            simulate_reverse(steps, score, 1.0, n, d, seed, [0], {"target": name}, dtype, place)
            for seed in range(sets)
        ]
        return np.concatenate([part.double().numpy() for part in found])

    plain = [
        divergences.plugin_kl(law, Moments.of(x))
        for x in chains(network, 10_000, torch.float32, "plain")
    ]
    control = laws.sampler_law(steps, exact, process.prior(d))
    coupled = [
        divergences.coupled_kl(law, x, Control(y, control), 10_000)
        for x, y in zip(
            chains(network, 1000, torch.float32, "coupled"),
            chains(
                networks.affine_score_fn(exact, torch.float64, place),
                1000,
                torch.float64,
                "coupled",
            ),
            strict=True,
        )
    ]
    mean, sd = np.mean(plain), np.std(plain, ddof=1)
    expected = np.array([e.plugin_mean for e in coupled])
    error = np.hypot(sd, expected.std(ddof=1)) / np.sqrt(sets)
    assert expected.mean() == pytest.approx(mean, abs=4 * error)
    assert 0.4 < np.mean([e.plugin_sd for e in coupled]) / sd < 2.0  # ten sets: to a quarter
    assert mean > divergences.plugin_kl_floor(d, 10_000)[0] + 3 * error  # not the floor alone
