"""Targets: known eigenvalues, sample moments, the digits' round trip, refusals."""

import numpy as np
import pytest

from sgm import targets
from sgm.gaussian import Gaussian

BUILT = {
    "isotropic": targets.isotropic(dimension=6, mean=1.0, variance=0.5),
    "slides": targets.heteroscedastic_slides(dimension=7, mean=-1.0),
    "blocks": targets.heteroscedastic_blocks(dimension=10, mean=1.0),
    "correlated": targets.correlated(dimension=6, mean=1.0, offset=1.0),
    "digits_gaussian": targets.digits_gaussian(),
}
DIGITS = targets.digits(heldout_fraction=0.25)


def test_diagonal_targets_have_the_printed_variances():
    np.testing.assert_array_equal(BUILT["slides"].law.eigenvalues, [10] * 5 + [0.1] * 2)
    blocks = [1, 1, 0.01, 0.01, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(BUILT["blocks"].law.eigenvalues, blocks)
    np.testing.assert_array_equal(BUILT["isotropic"].law.eigenvalues, 0.5)
    np.testing.assert_array_equal(BUILT["slides"].law.mean, -1.0)


@pytest.mark.parametrize("offset", [0.3, 1.0, 2.0])
def test_correlated_covariance_entry_by_entry(offset):
    law = targets.correlated(dimension=5, mean=0.0, offset=offset).law
    entries = [[1 / np.sqrt(abs(i - j) + offset) for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(law.covariance, entries, rtol=1e-12)


@pytest.mark.parametrize(("dimension", "negative"), [(3, 1), (50, 20)])
def test_the_literal_matrix_of_the_slides_is_refused_with_the_reason(dimension, negative):
    with pytest.raises(ValueError, match=f"offset = 0.*indefinite .{negative} of {dimension}"):
        targets.correlated(dimension=dimension, mean=1.0, offset=0)


def test_the_literal_matrix_is_singular_in_the_plane():
    with pytest.raises(ValueError, match=r"offset = 0.*singular in dimension = 2"):
        targets.correlated(dimension=2, mean=1.0, offset=0)


@pytest.mark.parametrize("name", BUILT)
def test_gaussian_samples_have_the_moments_of_the_law(name):
    target, n = BUILT[name], 20_000
    x = target.sample(n, np.random.default_rng(0))
    assert target.reference is target.law
    assert x.shape == (n, target.dimension)
    # whitened, so that one tolerance fits all coordinates
    z = target.law.rotate(x - target.law.mean) / np.sqrt(target.law.eigenvalues)
    assert np.max(np.abs(z.mean(axis=0))) < 5 / np.sqrt(n)
    assert np.max(np.abs(np.cov(z, rowvar=False) - np.eye(target.dimension))) < 5 * np.sqrt(2 / n)


def test_digits_are_standardised_and_return_to_pixels():
    from sklearn.datasets import load_digits

    pixels = load_digits().data
    assert DIGITS.dimension == 61
    assert DIGITS.law is None
    np.testing.assert_allclose(DIGITS.rows.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(DIGITS.rows.std(axis=0), 1, rtol=1e-12)
    restored = DIGITS.restore(DIGITS.rows)
    np.testing.assert_array_equal(np.floor(restored + 1e-9), pixels)
    np.testing.assert_allclose(DIGITS.standardise(restored), DIGITS.rows, atol=1e-12)
    assert restored.reshape(-1, 8, 8).shape == (1797, 8, 8)
    assert np.sum(~DIGITS.kept) == 3
    np.testing.assert_array_equal(restored[:, ~DIGITS.kept], 0)


def test_digits_are_one_data_set_whatever_the_split():
    again = targets.digits(heldout_fraction=0.1)
    np.testing.assert_array_equal(again.rows, DIGITS.rows)


def test_digits_reference_has_the_moments_of_all_rows():
    reference = DIGITS.reference
    np.testing.assert_allclose(
        reference.covariance, np.cov(DIGITS.rows, rowvar=False), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        BUILT["digits_gaussian"].law.covariance, reference.covariance, rtol=1e-12
    )


def test_split_partitions_the_rows_and_sample_is_its_training_part():
    train, heldout = DIGITS.split(np.random.default_rng(4))
    assert len(heldout) == round(0.25 * 1797)
    together = np.concatenate([train, heldout])
    order = lambda rows: rows[np.lexsort(rows.T)]  # noqa: E731
    np.testing.assert_array_equal(order(together), order(DIGITS.rows))
    sample = DIGITS.sample(100, np.random.default_rng(4))
    np.testing.assert_array_equal(sample, train[:100])
    other, _ = DIGITS.split(np.random.default_rng(5))
    assert not np.array_equal(other, train)


def test_constant_columns_are_dropped_and_restored():
    original = np.array([[1.0, 7.0, 2.0], [3.0, 7.0, 2.5], [8.0, 7.0, 0.0], [9.0, 7.0, 1.0]])
    target = targets.EmpiricalTarget.from_rows(original, heldout_fraction=0.5)
    assert target.dimension == 2
    np.testing.assert_allclose(target.restore(target.rows), original)


def test_gaussian_file_round_trip(tmp_path):
    law = BUILT["correlated"].law
    np.savez(tmp_path / "law.npz", mean=law.mean, covariance=law.covariance)
    loaded = targets.gaussian_file(tmp_path / "law.npz").law
    np.testing.assert_allclose(loaded.covariance, law.covariance, rtol=1e-12)
    np.testing.assert_array_equal(loaded.mean, law.mean)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(2)}, r"lacks \['covariance'\]"),
        ({"mean": np.zeros(2), "covariance": np.eye(3)}, r"covariance has shape \(3, 3\)"),
        ({"mean": np.zeros((2, 2)), "covariance": np.eye(2)}, r"mean has shape \(2, 2\)"),
        ({"mean": np.zeros(2), "covariance": -np.eye(2)}, "2 of 2 negative"),
        ({"mean": np.array([{}]), "covariance": np.eye(1)}, "allow_pickle=False"),
        ({"mean": np.array(["a"]), "covariance": np.eye(1)}, "could not convert"),
    ],
)
def test_gaussian_file_names_what_is_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / "law.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        targets.gaussian_file(tmp_path / "law.npz")
    assert "law.npz" in str(error.value)


def test_gaussian_file_refuses_other_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(2))
    (tmp_path / "text.npz").write_text("mean,covariance")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("a.npy", "text.npz", "broken.npz", "empty.npz", "absent.npz"):
        with pytest.raises(ValueError, match=f"path = .*{name}.: must be"):
            targets.gaussian_file(tmp_path / name)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: targets.isotropic(0, 1.0, 0.5), "dimension = 0: must be at least 1"),
        (lambda: targets.isotropic(2, np.nan, 0.5), "mean = nan: must be"),
        (lambda: targets.isotropic(2, 1.0, 0.0), "variance = 0.0: must be"),
        (lambda: targets.heteroscedastic_slides(4, 1.0), "dimension = 4: must be at least 5"),
        (lambda: targets.heteroscedastic_blocks(0, 1.0), "dimension = 0: must be at least 5"),
        (lambda: targets.heteroscedastic_blocks(7, 1.0), "dimension = 7: must be a multiple of 5"),
        (lambda: targets.correlated(5, 1.0, -1.0), "offset = -1.0: must be"),
        (lambda: targets.correlated(0, 1.0, 1.0), "dimension = 0: must be"),
        (lambda: targets.digits(0.0), "heldout_fraction = 0.0: must lie"),
        (lambda: targets.digits(1.0), "heldout_fraction = 1.0: must lie"),
        (lambda: targets.digits(1e-5), "heldout_fraction = 1e-05: must leave"),
        (lambda: DIGITS.sample(1500, np.random.default_rng(0)), "n = 1500: must be at most 1348"),
        (
            lambda: targets.EmpiricalTarget(np.zeros((4, 3)), np.zeros(3), np.ones(2), 0.5),
            r"rows has shape \(4, 3\)",
        ),
    ],
)
def test_values_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_known_laws_are_gaussian():
    assert all(isinstance(target.law, Gaussian) for target in BUILT.values())
