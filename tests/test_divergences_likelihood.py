"""Likelihood-based divergences on laws whose value is known, and their floors by simulation."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2, kstest, norm

from sgm import divergences
from sgm.divergences import likelihood
from sgm.gaussian import Gaussian, kl_divergence

Array = npt.NDArray[np.float64]


def log_density(law: Gaussian, x: Array) -> Array:
    white = law.rotate(x - law.mean) / np.sqrt(law.eigenvalues)
    constant = np.sum(np.log(2 * np.pi * law.eigenvalues))
    return -(constant + np.sum(white**2, axis=-1)) / 2


@pytest.mark.parametrize("d", [2, 10, 50])
def test_cross_entropy_is_that_of_gaussians(d: int) -> None:
    """H(q, p) = KL(q ‖ p) + H(q), and its standard error is the spread over samples."""
    p = Gaussian.diagonal(np.zeros(d), np.geomspace(0.5, 2, d))
    q = Gaussian.diagonal(np.full(d, 0.2), np.full(d, 1.1))
    rng, n, replicates = np.random.default_rng(d), 200, 400
    results = [
        divergences.cross_entropy(log_density(p, q.sample(n, rng))) for _ in range(replicates)
    ]
    entropy = d / 2 * np.log(2 * np.pi * np.e * 1.1)
    values = np.array([result.value for result in results])
    errors = np.array([result.standard_error for result in results])
    spread = values.std(ddof=1)
    truth = float(kl_divergence(q, p)) + entropy
    assert values.mean() == pytest.approx(truth, abs=4.5 * spread / np.sqrt(replicates))
    # the empirical deviation is known to 4.5/√(2R) = 16 %
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.16)


def test_cross_entropy_rewards_a_collapse() -> None:
    """Documented: a sampler that keeps to the mode has less than the entropy."""
    p = Gaussian.diagonal([0.0, 0.0], [1.0, 1.0])
    result = divergences.cross_entropy(log_density(p, np.zeros((9, 2))))
    assert result.value == pytest.approx(np.log(2 * np.pi), rel=1e-14)
    assert result.value < np.log(2 * np.pi * np.e)
    assert result.standard_error == 0


@pytest.mark.parametrize("lost", [np.nan, -np.inf])
def test_cross_entropy_of_a_lost_row_is_infinite(lost: float) -> None:
    result = divergences.cross_entropy([-1.0, lost, -2.0])
    assert result.value == np.inf
    assert np.isnan(result.standard_error)


CELLS = np.array([0.05, 0.1, 0.15, 0.3, 0.4])


def test_partition_kl_of_counts_by_hand() -> None:
    result = divergences.partition_kl([0, 2, 2, 2], [0.25, 0.25, 0.5])
    assert result.value == pytest.approx(0.75 * np.log(0.75 / 0.5), rel=1e-14)
    assert (result.floor, result.floor_sd) == (2 / 8, 2 / 8)


@pytest.mark.parametrize("n", [200, 5000])
def test_partition_kl_of_a_perfect_sampler_is_chi_squared(n: int) -> None:
    rng, replicates = np.random.default_rng(n), 2000
    results = [
        divergences.partition_kl(rng.choice(5, size=n, p=CELLS), CELLS) for _ in range(replicates)
    ]
    values = np.array([result.value for result in results])
    floor, sd = results[0].floor, results[0].floor_sd
    # the mean's next term: (Σ 1/p − 1)/(12 n²)
    second = (np.sum(1 / CELLS) - 1) / (12 * n**2)
    assert values.mean() == pytest.approx(floor + second, abs=4.5 * sd / np.sqrt(replicates))
    # the variance of χ²₄ has the relative standard error √((2 + 12/4)/R) = 5 %
    assert values.std() == pytest.approx(sd, rel=4.5 * 0.05 / 2)
    assert kstest(2 * n * values, chi2(4).cdf).pvalue > 1e-4


@pytest.mark.parametrize("d", [2, 10, 50])
def test_partition_kl_sees_a_known_shift(d: int) -> None:
    """Twenty equiprobable bins of x₁, and a sampler that is off by .3 in every coordinate."""
    n, replicates, bins = 2000, 300, 20
    cuts = norm.ppf(np.arange(1, bins) / bins)
    shifted = np.diff(norm.cdf(cuts - 0.3), prepend=0, append=1)
    truth = np.sum(shifted * np.log(shifted * bins))
    assert truth < d * 0.3**2 / 2  # below the KL of the whole laws: data processing
    rng = np.random.default_rng(d)
    sampled = Gaussian.diagonal(np.full(d, 0.3), np.ones(d))
    values = [
        divergences.partition_kl(
            np.searchsorted(cuts, sampled.sample(n, rng)[:, 0]), np.full(bins, 1 / bins)
        ).value
        for _ in range(replicates)
    ]
    bias = (bins - 1) / (2 * n)
    error = np.std(values, ddof=1) / np.sqrt(replicates)
    assert np.mean(values) == pytest.approx(truth + bias, abs=4.5 * error + 0.02 * bias)


def test_partition_kl_of_forbidden_cells_is_infinite() -> None:
    certain = [0.5, 0.5, 0.0]
    assert divergences.partition_kl([0, 1, 1], certain).value < np.inf
    assert divergences.partition_kl([0, 1, 2], certain).value == np.inf
    assert divergences.partition_kl([0, 1, -1], certain).value == np.inf
    # the forbidden cell is no degree of freedom
    assert divergences.partition_kl([0, 1, 1], certain).floor == 1 / 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: divergences.cross_entropy(np.zeros((3, 1))), r"log_densities has shape \(3, 1\)"),
        (lambda: divergences.cross_entropy([0.0]), r"log_densities has shape \(1,\)"),
        (lambda: divergences.partition_kl([0.0, 1.0], CELLS), r"must be \(n,\) integers"),
        (lambda: divergences.partition_kl([], CELLS), r"labels has shape \(0,\)"),
        (
            lambda: divergences.partition_kl([0, 5], CELLS),
            "labels = 0..5: must lie between -1",
        ),
        (lambda: divergences.partition_kl([-2, 1], CELLS), "labels = -2..1: must lie"),
        (lambda: divergences.partition_kl([0], [0.4, 0.5]), "probabilities must be .* of sum 1"),
        (lambda: divergences.partition_kl([0], [-0.5, 1.5]), "probabilities must be"),
        (lambda: divergences.partition_kl([0], [np.nan, 0.5]), "probabilities must be"),
        (lambda: gap(components=0), "components = 0: must be an integer, at least 1"),
        (lambda: gap(components=51), "components = 51: must lie between 1 and 50"),
        (lambda: gap(components=2.0), r"components = 2\.0: must be an integer"),
        (lambda: gap(regularisation=0.0), "regularisation = 0.0: must be"),
        (lambda: gap(regularisation=np.nan), "regularisation = nan: must be"),
        (lambda: gap(heldout=np.full((9, 2), np.nan)), "heldout must be finite"),
        (lambda: divergences.cross_entropy(["a", "b"]), "log_densities = list: must be an array"),
        (lambda: gap(heldout=np.zeros((9, 3))), r"heldout has shape \(9, 3\): must be \(n, 2\)"),
        (lambda: gap(generated=np.zeros(9)), r"generated has shape \(9,\)"),
    ],
)
def test_values_out_of_range_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


MODES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def mixture(n: int, seed: int, modes: Array = MODES, width: float = 0.3) -> Array:
    rng = np.random.default_rng(seed)
    return modes[rng.integers(len(modes), size=n)] + width * rng.standard_normal((n, 2))


def gap(
    generated: Array | None = None,
    heldout: Array | None = None,
    components: int = 3,
    regularisation: float = 1e-3,
) -> divergences.HeldoutGap:
    generated = mixture(200, 3) if generated is None else generated
    heldout = mixture(300, 2) if heldout is None else heldout
    return divergences.heldout_nll_gap(
        generated,
        mixture(400, 1),
        heldout,
        components=components,
        regularisation=regularisation,
    )


def test_heldout_gap_of_a_perfect_sampler_is_within_its_noise() -> None:
    result = gap(generated=mixture(400, 4))
    assert abs(result.value) < 4.5 * (result.standard_error + result.floor)
    assert 0 < result.floor < 0.1


def test_heldout_gap_sees_what_moments_do_not() -> None:
    """A Gaussian with the mixture's own moments, and a lost mode with the right mean."""
    train = mixture(400, 1)
    rng = np.random.default_rng(5)
    smooth = rng.multivariate_normal(train.mean(axis=0), np.cov(train, rowvar=False), 400)
    for wrong in (smooth, mixture(400, 6, MODES[:2]), mixture(400, 6, width=0.6)):
        result = gap(generated=wrong)
        assert result.value > 10 * result.floor
        assert result.value > 5 * result.standard_error


def test_heldout_gap_estimates_a_known_divergence() -> None:
    """One component, many rows: the gap tends to KL(data ‖ output) of Gaussian laws."""
    data, output = Gaussian.diagonal([0, 0], [1, 1]), Gaussian.diagonal([0.5, 0], [1, 2])
    rng = np.random.default_rng(0)
    train, heldout, generated = (law.sample(20_000, rng) for law in (data, data, output))
    result = divergences.heldout_nll_gap(
        generated, train, heldout, components=1, regularisation=1e-6
    )
    assert result.value == pytest.approx(
        float(kl_divergence(data, output)), abs=4.5 * (result.standard_error + result.floor)
    )


def test_heldout_gap_is_blind_to_memorisation() -> None:
    """Documented: returning the training rows scores as well as the truth."""
    assert gap(generated=mixture(400, 1)).value == 0.0


def test_heldout_gap_of_a_lost_sample_is_infinite() -> None:
    generated = mixture(200, 3)
    generated[0, 0] = np.nan
    result = gap(generated=generated)
    assert result.value == np.inf
    assert np.isfinite(result.floor)


def test_heldout_gap_fits_the_true_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven of the eight fits are of true rows, which the samples of all schedules share."""
    fits, fit = [], likelihood._mixture_nll
    monkeypatch.setattr(likelihood, "_FITTED", {})
    monkeypatch.setattr(likelihood, "_mixture_nll", lambda *own: (fits.append(own), fit(*own))[1])
    first = gap()
    assert len(fits) == 8
    assert gap() == first
    assert len(fits) == 9
    other = gap(heldout=mixture(300, 7)), gap(components=2), gap(generated=mixture(150, 3))
    assert len(fits) == 9 + 3 * 8
    assert len({first.floor, *(result.floor for result in other[:2])}) == 3
