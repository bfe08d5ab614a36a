"""Transport between samples against the assignment problem, POT and closed forms."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import betaln, log_ndtr

from sgm import divergences
from sgm.divergences import SlicedW2, transport
from sgm.gaussian import Gaussian, wasserstein2

Array = npt.NDArray[np.float64]


def draws(n: int, d: int, seed: int, *, shift: float = 0.0, scale: float = 1.0) -> Array:
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def assigned_w2(x: Array, y: Array) -> float:
    """W₂ of samples of equal size is a permutation's cost (Birkhoff)."""
    cost = np.sum((x[:, None] - y) ** 2, axis=-1)
    return np.sqrt(np.mean(cost[linear_sum_assignment(cost)]))


@pytest.mark.parametrize("d", [1, 2, 10, 50])
def test_sample_w2_solves_the_assignment_problem(d: int) -> None:
    x, y = draws(120, d, 1), draws(120, d, 2, shift=0.5, scale=1.3)
    assert divergences.sample_w2(x, y) == pytest.approx(assigned_w2(x, y), rel=1e-12)


def test_sample_w2_of_unequal_sizes_splits_the_rows() -> None:
    x, y = draws(30, 3, 1), draws(75, 3, 2)
    # 150 rows a side with the same weights
    expected = assigned_w2(np.repeat(x, 5, axis=0), np.repeat(y, 2, axis=0))
    assert divergences.sample_w2(x, y) == pytest.approx(expected, rel=1e-12)
    assert divergences.sample_w2(x, np.concatenate([x, x])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [2, 10, 50])
def test_sample_w2_of_a_shift_is_exact_above_the_floor(d: int) -> None:
    """W₂²(x, y + c) = W₂²(x, y) + |c|² + 2 c·(ȳ − x̄): the floor of squares is the whole bias."""
    shift, replicates, n = np.full(d, 0.5), 20, 60
    excess = []
    for seed in range(replicates):
        x, y = draws(n, d, 2 * seed), draws(n, d, 2 * seed + 1)
        near, far = divergences.sample_w2(x, y), divergences.sample_w2(x, y + shift)
        cross = 2 * shift @ (y.mean(axis=0) - x.mean(axis=0))
        assert far**2 == pytest.approx(near**2 + shift @ shift + cross, rel=1e-10)
        excess.append(far**2 - near**2)
    # the cross term has mean 0 and variance 8|c|²/n
    error = np.sqrt(8 * (shift @ shift) / n / replicates)
    assert np.mean(excess) == pytest.approx(shift @ shift, abs=4.5 * error)


@pytest.mark.parametrize("d", [2, 10, 50])
def test_sample_w2_is_biased_upwards(d: int) -> None:
    """By convexity E W₂² is at least the truth, here √d·.2, and far above it in d = 50."""
    values = np.array(
        [
            divergences.sample_w2(draws(100, d, seed), draws(100, d, seed + 50, scale=1.2))
            for seed in range(10)
        ]
    )
    assert np.mean(values**2) > d * 0.2**2
    if d == 50:
        assert np.mean(values) > 5 * np.sqrt(d) * 0.2


def centred(
    d: int, *, shift: float = 0.0, scale: float = 1.0, n: int = 120, replicates: int = 60
) -> Array:
    """Squares, standard errors and visible shares over independent pairs of samples."""
    pairs = (
        (draws(n, d, 2 * seed, shift=shift, scale=scale), draws(n, d, 2 * seed + 1))
        for seed in range(replicates)
    )
    found = [divergences.centred_w2(x, y) for x, y in pairs]
    return np.array([(one.square, one.standard_error, one.visible) for one in found]).T


def test_centred_w2_takes_off_what_samples_of_one_law_show() -> None:
    x, y = draws(41, 3, 1), draws(30, 3, 2, shift=0.3, scale=1.2)
    halves, others = (x[:20], x[20:40]), (y[:15], y[15:])
    between = [divergences.sample_w2(a, b) ** 2 for a in halves for b in others]
    within = [assigned_w2(*halves) ** 2, assigned_w2(*others) ** 2]
    found = divergences.centred_w2(x, y)
    assert found.square == pytest.approx(np.mean(between) - np.mean(within), rel=1e-12)
    spread = 2 * np.trace(np.cov(y.T))
    assert found.visible == pytest.approx(1 - within[1] / spread, rel=1e-12)


@pytest.mark.parametrize("d", [2, 10, 50])
def test_centred_w2_of_equal_laws_is_zero_within_its_standard_error(d: int) -> None:
    squares, errors, _ = centred(d)
    sd = squares.std(ddof=1)
    assert abs(squares.mean()) < 4 * sd / np.sqrt(len(squares))
    # the potentials are noise here: the error is on the safe side, within a factor of two
    assert 0.9 < np.sqrt(np.mean(errors**2)) / sd < 2.2
    assert np.mean(np.abs(squares) < 1.96 * errors) >= 0.93


@pytest.mark.parametrize("d", [2, 10, 50])
@pytest.mark.parametrize(("shift", "scale"), [(0.2, 1.0), (0.0, 0.8), (0.1, 1.3)])
def test_centred_w2_shows_a_shift_whole_and_of_a_scale_the_visible_share(
    d: int, shift: float, scale: float
) -> None:
    squares, errors, visible = centred(d, shift=shift, scale=scale)
    expected = d * (shift**2 + (scale - 1) ** 2 * visible.mean())
    sd = squares.std(ddof=1)
    assert squares.mean() == pytest.approx(expected, abs=4 * sd / np.sqrt(len(squares)))
    assert 0.75 < np.sqrt(np.mean(errors**2)) / sd < 2.2
    truth = wasserstein2(
        Gaussian.diagonal(np.full(d, shift), np.full(d, scale**2)),
        Gaussian.diagonal(np.zeros(d), np.ones(d)),
    )
    plain = divergences.sample_w2(draws(60, d, 1, shift=shift, scale=scale), draws(60, d, 2))
    if d > 2:  # the bias of the plain estimate is many times its own
        assert abs(expected - truth**2) < 0.1 * (plain**2 - truth**2)


def test_signed_roots_carry_the_error_of_their_square() -> None:
    assert divergences.signed_root(4.0, 0.4) == (2.0, 0.1)
    assert divergences.signed_root(-4.0, 0.4) == (-2.0, 0.1)
    assert divergences.signed_root(0.0, 0.25) == (0.0, 0.5)
    assert divergences.signed_root(0.0, 0.0) == (0.0, 0.0)
    for square, error in ((4.0, 0.4), (-4.0, 0.4), (0.01, 0.25), (0.0, 0.0), (-0.0001, 9.0)):
        back = divergences.squared(*divergences.signed_root(square, error))
        assert back == pytest.approx((square, error), rel=1e-14)


def test_sample_w2_that_did_not_converge_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_PIVOTS", 3)
    with pytest.raises(RuntimeError, match="exact W2 of 50 and 50 rows: numItermax"):
        divergences.sample_w2(draws(50, 2, 1), draws(50, 2, 2))


@pytest.mark.parametrize("d", [1, 3, 50])
def test_projections_are_orthonormal_blocks(d: int) -> None:
    directions = divergences.projections(d, 120, seed=4)
    assert directions.shape == (d, 120)
    for start in range(0, 120, d):
        block = directions[:, start : start + d]
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-13)
    # a longer set begins with a shorter one
    shorter = divergences.projections(d, 70, seed=4)
    np.testing.assert_allclose(directions[:, :70], shorter, atol=1e-13)
    assert not np.allclose(directions, divergences.projections(d, 120, seed=5))


def test_projections_are_uniform() -> None:
    """Every column alike: E θ_1² = 1/d, E θ_1⁴ = 3/(d(d + 2)), and no preferred sign."""
    d, count = 4, 40_000
    theta = divergences.projections(d, count, seed=0)
    for column in range(d):
        first = theta[0, column::d]
        for power, moment in {1: 0.0, 2: 1 / d, 3: 0.0, 4: 3 / (d * (d + 2))}.items():
            values = first**power
            assert values.mean() == pytest.approx(
                moment, abs=4.5 * values.std() / np.sqrt(len(values))
            )


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 200), (300, 7), (2, 301)])
def test_sliced_w2_is_pots(n: int, m: int) -> None:
    import ot

    x, y = draws(n, 5, 1), draws(m, 5, 2, shift=0.2, scale=0.8)
    directions = divergences.projections(5, 20, seed=0)
    result = divergences.sliced_w2(x, y, directions)
    value = ot.sliced_wasserstein_distance(x, y, projections=directions)
    largest = ot.max_sliced_wasserstein_distance(x, y, projections=directions)
    assert result.value == pytest.approx(float(value), rel=1e-9)
    assert result.largest == pytest.approx(float(largest), rel=1e-9)


def test_sliced_w2_on_the_line_is_w2() -> None:
    x, y = draws(80, 1, 1), draws(50, 1, 2, shift=1.0)
    expected = divergences.sample_w2(x, y)
    result = divergences.sliced_w2(x, y, np.ones((1, 1)))
    assert [result.value, result.largest] == pytest.approx([expected] * 2, rel=1e-12)


def test_sliced_w2_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(80, 3, 1), draws(50, 3, 2)
    directions = divergences.projections(3, 40, seed=0)
    whole = divergences.sliced_w2(x, y, directions)
    monkeypatch.setattr(transport, "CHUNK_ENTRIES", 7 * 130)
    parts = divergences.sliced_w2(x, y, directions)
    assert parts.value == pytest.approx(whole.value, rel=1e-13)
    assert parts.largest == pytest.approx(whole.largest, rel=1e-13)


def laws(d: int) -> tuple[Gaussian, Gaussian]:
    rng = np.random.default_rng(d)
    half = rng.standard_normal((d, d)) / np.sqrt(d)
    p = Gaussian.diagonal(np.zeros(d), np.geomspace(0.5, 2, d))
    return p, Gaussian.from_covariance(np.full(d, 0.1), half @ half.T + 0.5 * np.eye(d))


@pytest.mark.parametrize("d", [1, 2, 10, 50])
def test_sliced_w2_is_below_w2(d: int) -> None:
    """SW₂² ≤ W₂²/d over orthonormal bases, with equality for a shift; every direction ≤ W₂."""
    p, q = laws(d)
    directions = divergences.projections(d, 4 * d, seed=1)
    w2 = float(wasserstein2(p, q))
    exact = divergences.gaussian_sliced_w2(p, q, directions)
    assert exact.value * np.sqrt(d) <= w2 * (1 + 1e-12)
    assert exact.value <= exact.largest <= w2 * (1 + 1e-12)
    moved = Gaussian(p.mean + 0.3, p.eigenvalues, p.basis)
    shift = divergences.gaussian_sliced_w2(p, moved, directions)
    assert shift.value == pytest.approx(0.3, rel=1e-12)
    # and of samples
    x, y = p.sample(50, np.random.default_rng(2)), q.sample(50, np.random.default_rng(3))
    sliced = divergences.sliced_w2(x, y, directions)
    assert sliced.value * np.sqrt(d) <= divergences.sample_w2(x, y) * (1 + 1e-12)


def test_gaussian_sliced_w2_is_w2_of_the_marginals() -> None:
    p, q = laws(3)
    directions = divergences.projections(3, 5, seed=2)
    squares = [
        wasserstein2(
            Gaussian.diagonal([theta @ p.mean], [theta @ p.covariance @ theta]),
            Gaussian.diagonal([theta @ q.mean], [theta @ q.covariance @ theta]),
        )
        ** 2
        for theta in directions.T
    ]
    result = divergences.gaussian_sliced_w2(p, q, directions)
    assert result.value == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-12)
    assert result.largest == pytest.approx(np.sqrt(np.max(squares)), rel=1e-12)


def mean_square_score(n: int) -> float:
    """Σ m_i²/n, m_i = E of the i-th order statistic of n standard normal numbers."""
    z, i = np.linspace(-9, 9, 2001), np.arange(1, n + 1)[:, None]
    logarithm = (i - 1) * log_ndtr(z) + (n - i) * log_ndtr(-z) - z**2 / 2 - betaln(i, n - i + 1)
    scores = np.exp(logarithm) @ z * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    return np.mean(scores**2)


@pytest.mark.parametrize("d", [2, 10, 50])
def test_sliced_w2_has_the_expected_mean(d: int) -> None:
    """Truth + 2 σ_x σ_y (1 − Σ m_i²/n) along each direction, both laws and the null."""
    n, replicates = 100, 200
    p, q = laws(d)
    directions = divergences.projections(d, 60, seed=3)
    sds = [np.sqrt(np.sum(directions * (law.covariance @ directions), axis=0)) for law in (p, q)]
    excess = 2 * (1 - mean_square_score(n))
    rng = np.random.default_rng(d)
    for other, sd in ((q, sds[1]), (p, sds[0])):
        squares = [
            divergences.sliced_w2(p.sample(n, rng), other.sample(n, rng), directions).value ** 2
            for _ in range(replicates)
        ]
        truth = divergences.gaussian_sliced_w2(p, other, directions).value ** 2
        error = np.std(squares, ddof=1) / np.sqrt(replicates)
        bias = excess * np.mean(sds[0] * sd)
        assert np.mean(squares) == pytest.approx(truth + bias, abs=4.5 * error)


@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e200])
def test_lost_samples_are_infinitely_far(lost: float) -> None:
    x, y = draws(20, 3, 1), draws(20, 3, 2)
    x[3, 1] = lost
    directions = divergences.projections(3, 6, seed=0)
    for pair in ((x, y), (y, x)):
        assert divergences.sample_w2(*pair) == np.inf
        assert divergences.centred_w2(*pair).square == np.inf
        assert divergences.sliced_w2(*pair, directions) == SlicedW2(np.inf, np.inf)


SQUARE = np.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: divergences.sample_w2(np.zeros(4), np.zeros((4, 2))), r"x has shape \(4,\)"),
        (
            lambda: divergences.centred_w2(np.zeros((9, 2)), np.zeros((3, 2))),
            "y has 3 rows: must have at least 4",
        ),
        (
            lambda: divergences.sample_w2(np.zeros((4, 3)), np.zeros((4, 2))),
            r"y has shape \(4, 2\): must be \(n, 3\) with n >= 2",
        ),
        (
            lambda: divergences.sliced_w2(np.zeros((4, 3)), np.zeros((1, 3)), SQUARE),
            r"y has shape \(1, 3\)",
        ),
        (
            lambda: divergences.sliced_w2(np.zeros((4, 2)), np.zeros((4, 2)), SQUARE),
            r"projections has shape \(3, 3\): must be \(2, count\)",
        ),
        (
            lambda: divergences.sliced_w2(np.zeros((4, 3)), np.zeros((4, 3)), 2 * SQUARE),
            "projections must have unit columns",
        ),
        (lambda: divergences.projections(0, 5, 0), "dimension = 0: must be an integer, at least 1"),
        (lambda: divergences.projections(5, 0, 0), "count = 0: must be an integer, at least 1"),
        (lambda: divergences.projections(5, 2, -1), "seed = -1: must be"),
        (
            lambda: divergences.sliced_w2(np.zeros((4, 3)), np.zeros((4, 3)), SQUARE[:, :0]),
            r"projections has shape \(3, 0\)",
        ),
        (
            lambda: divergences.gaussian_sliced_w2(  # type: ignore[call-arg]
                *(Gaussian.diagonal(np.zeros(d), np.ones(d)) for d in (3, 2)), SQUARE
            ),
            "q: dimension = 2: must be 3, that of p",
        ),
    ],
)
def test_values_out_of_range_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_gaussian_sliced_w2_of_a_law_that_overflowed_is_infinite() -> None:
    law, lost = (
        Gaussian.diagonal(np.full(3, m), np.full(3, v)) for m, v in ((0, 1), (np.inf,) * 2)
    )
    for pair in ((law, lost), (lost, law), (lost, lost)):
        assert divergences.gaussian_sliced_w2(*pair, SQUARE).value == np.inf
