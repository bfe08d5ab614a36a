"""Data sets: the digits' round trip, tables, the user's files in every format, refusals."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import zarr

from sgm import targets

Array = npt.NDArray[np.float64]

DIGITS = targets.digits(heldout_fraction=0.25)
TABLE = np.random.default_rng(7).normal(size=(9, 3)) @ np.diag([1.0, 30.0, 1e-3]) + 1 / 3


def test_digits_are_standardised_and_return_to_pixels() -> None:
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
    assert np.sum(~DIGITS.transform.kept) == 3
    np.testing.assert_array_equal(restored[:, ~DIGITS.transform.kept], 0)


def test_digits_are_one_data_set_whatever_the_split() -> None:
    again = targets.digits(heldout_fraction=0.1)
    np.testing.assert_array_equal(again.rows, DIGITS.rows)


def test_digits_as_they_are_differ_by_the_transform_alone() -> None:
    raw = targets.digits(heldout_fraction=0.25, standardise=False)
    np.testing.assert_allclose(raw.restore(raw.rows), DIGITS.restore(DIGITS.rows), atol=1e-12)
    assert (DIGITS.rows.shape, raw.image_shape) == (raw.rows.shape, (8, 8))
    assert raw.rows.max() > 15


def test_digits_reference_has_the_moments_of_all_rows() -> None:
    reference = DIGITS.reference
    np.testing.assert_allclose(
        reference.covariance, np.cov(DIGITS.rows, rowvar=False), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        targets.digits_gaussian().law.covariance, reference.covariance, rtol=1e-12
    )


def test_split_partitions_the_rows_and_sample_is_its_training_part() -> None:
    train, heldout = DIGITS.split(np.random.default_rng(4))
    assert len(heldout) == round(0.25 * 1797)
    together = np.concatenate([train, heldout])
    order = lambda rows: rows[np.lexsort(rows.T)]  # noqa: E731
    np.testing.assert_array_equal(order(together), order(DIGITS.rows))
    sample = DIGITS.sample(100, np.random.default_rng(4))
    np.testing.assert_array_equal(sample, train[:100])
    other, _ = DIGITS.split(np.random.default_rng(5))
    assert not np.array_equal(other, train)


@pytest.mark.parametrize("standardise", [True, False])
def test_constant_columns_are_dropped_and_restored(standardise: bool) -> None:
    original = np.array([[1.0, 7.0, 2.0], [3.0, 7.0, 2.5], [8.0, 7.0, 0.0], [9.0, 7.0, 1.0]])
    target = targets.EmpiricalTarget.from_rows(original, 0.5, standardise)
    assert target.dimension == 2
    np.testing.assert_allclose(target.restore(target.rows), original)
    if not standardise:
        np.testing.assert_array_equal(target.rows, original[:, [0, 2]])


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "whole"),
    [
        ("breast_cancer", (569, 30), []),
        ("diabetes", (442, 10), [0, 1, 4, 9]),
        ("wine", (178, 13), [4, 12]),
    ],
)
def test_tables_return_to_their_columns(
    name: str, shape: tuple[int, int], whole: list[int], standardise: bool
) -> None:
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    original = getattr(datasets, f"load_{name}")(**options).data
    target = getattr(targets, name)(heldout_fraction=0.25, standardise=standardise)
    assert target.rows.shape == shape
    restored = target.restore(target.rows)
    decimals = np.setdiff1d(np.arange(shape[1]), whole)
    np.testing.assert_allclose(restored[:, decimals], original[:, decimals], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.floor(restored[:, whole] + 1e-9), original[:, whole])
    assert all(len(np.unique(column)) == shape[0] for column in target.rows[:, whole].T)
    moments = target.reference
    np.testing.assert_allclose(moments.mean, target.rows.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.diag(moments.covariance), target.rows.var(axis=0, ddof=1))
    if standardise:
        np.testing.assert_allclose(target.rows.std(axis=0), 1, rtol=1e-12)


def test_one_column_has_a_reference() -> None:
    rows = np.array([[0.0], [1.0], [5.0]])
    reference = targets.EmpiricalTarget(rows, heldout_fraction=0.3).reference
    np.testing.assert_allclose(reference.covariance, [[7.0]])  # (4 + 1 + 9)/2


def test_gaussian_file_round_trip(tmp_path: Path) -> None:
    law = targets.correlated(dimension=6, mean=1.0, offset=1.0).law
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
        ({"mean": np.array(["a"]), "covariance": np.eye(1)}, "must be real numbers"),
    ],
)
def test_gaussian_file_names_what_is_wrong(
    tmp_path: Path, arrays: dict[str, Array], message: str
) -> None:
    np.savez(tmp_path / "law.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        targets.gaussian_file(tmp_path / "law.npz")
    assert "law.npz" in str(error.value)


def test_gaussian_file_refuses_other_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2))
    (tmp_path / "text.npz").write_text("mean,covariance")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("a.npy", "text.npz", "broken.npz", "empty.npz", "absent.npz"):
        with pytest.raises(ValueError, match=f"path = .*{name}.: must be"):
            targets.gaussian_file(tmp_path / name)


def write(path: Path, values: npt.ArrayLike) -> Path:
    """`values` in the format of the suffix, as other programs write it."""
    names = [f"x{j}" for j in range(np.atleast_2d(values).shape[-1])]
    if path.suffix == ".csv":
        pd.DataFrame(values, columns=names).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(values, columns=names).to_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, values)
    else:
        # text has no settled type in format 3
        zarr.create_array(path, data=values, zarr_format=2 if values.dtype.kind == "U" else 3)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "npz", "zarr"])
def test_a_table_is_read_digit_by_digit(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", TABLE)
    target = targets.data_file(path, heldout_fraction=0.3, standardise=False)
    np.testing.assert_array_equal(target.rows, TABLE)
    assert target.image_shape is None
    standardised = targets.data_file(str(path), heldout_fraction=0.3, standardise=True)
    np.testing.assert_allclose(standardised.rows.std(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(standardised.restore(standardised.rows), TABLE, rtol=1e-12)


@pytest.mark.parametrize("suffix", ["npy", "npz", "zarr"])
def test_shapes_of_arrays(tmp_path: Path, suffix: str) -> None:
    line = np.random.default_rng(0).normal(size=12)
    target = targets.data_file(write(tmp_path / f"line.{suffix}", line), 0.5, False)
    np.testing.assert_array_equal(target.rows, line[:, None])
    images = np.random.default_rng(0).integers(0, 256, size=(9, 2, 3), dtype=np.uint8)
    images[:, 1, 1] = 4
    target = targets.data_file(write(tmp_path / f"images.{suffix}", images), 0.5, True)
    assert (target.dimension, target.image_shape) == (5, (2, 3))
    pictures = target.restore(target.rows).reshape(-1, *target.image_shape)
    np.testing.assert_allclose(pictures, images, atol=1e-10)
    noisy = targets.data_file(tmp_path / f"images.{suffix}", 0.5, True, dequantise=True)
    np.testing.assert_array_equal(np.floor(noisy.restore(noisy.rows) + 1e-9), images.reshape(9, 6))
    assert np.ptp(noisy.restore(noisy.rows) - images.reshape(9, 6)) > 0.5
    coloured = np.random.default_rng(0).normal(size=(9, 2, 1, 3))
    target = targets.data_file(write(tmp_path / f"coloured.{suffix}", coloured), 0.5, False)
    np.testing.assert_array_equal(target.rows, np.moveaxis(coloured, 3, 1).reshape(9, 6))
    assert target.image_shape == (3, 2, 1)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,5\n-4,1e-3\n", [[1, 2], [3, 5], [-4, 1e-3]]),
        ("\ufeffa,b\n1,2\n3,5\n-4,.5\n", [[1, 2], [3, 5], [-4, 0.5]]),
        ('\r\n"a, b",c\r\n1,2\r\n3,5\r\n-4,.5', [[1, 2], [3, 5], [-4, 0.5]]),
        ("x\n1\n3\n", [[1], [3]]),
        ("flag,x\nTrue,2\nFalse,5\nTrue,3", [[1, 2], [0, 5], [1, 3]]),
        (" 1, 2\n3, 5\n4, 7.1\n", [[1, 2], [3, 5], [4, 7.1]]),
    ],
)
def test_csv_with_and_without_a_header(tmp_path: Path, text: str, rows: list[list[float]]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode())
    target = targets.data_file(path, heldout_fraction=0.5, standardise=False)
    np.testing.assert_array_equal(target.rows, rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns"),
        ("a,b\n", "No columns"),
        ("a,b,c\n1,x,2\n2,y,z\n", "not numeric: 'b', 'c'"),
        ("a;b\n1;2\n3;4\n", "not numeric: 'a;b'"),
        ("1,x\n2,y\n", r"mixes names and numbers: \['1', 'x'\]"),
        (",a\n0,1\n1,2\n2,4\n", "has no name: place 0"),
        ("a,b\n1,2,3\n4,5,6\n", "header has 2 names for 3 columns"),
        ("1,2\n3,4,5\n", "Expected 2 fields in line 2, saw 3"),
        ("a,b\n1,2\n3,\n4,NA\n", r"2 values, in 2 of 3 rows and 1 of 2 .* original\[1, 1\]"),
        (",2\n3,4\n5,7\n", r"original\[0, 0\]"),
        ("1,2\n3,inf\n5,7\n", "missing or infinite: 1 values"),
        ("a,b\n1,2\n1,2\n1,2\n", "all 2 columns are constant"),
        ("1,2\n3,4\n", "rows: must be more than d = 2 .* there are 2"),
        ("1e200,2\n2e200,1\n1e200,0\n5e200,7\n", "column 0, of values up to 5e\\+200"),
        ("1e-200,2\n2e-200,1\n1e-200,0\n", "column 0, of values up to 2e-200"),
        ("1,2,3\n3,1,4\n2,0,2\n5,7,12\n", "1 of 3 columns are linear combinations"),
        ("1,2,3\n3,6,9\n2,4,6\n5,10,15\n", "2 of 3 columns are linear combinations"),
        ("1\n2\n\x80", "not numeric"),
    ],
)
def test_a_csv_that_will_not_do_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s)path = .*rows.csv.*{message}"):
        targets.data_file(path, heldout_fraction=0.5, standardise=True)


def test_parquet_columns_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "name": list("abc"), "day": pd.NaT, "n": [1, 0, 5]})
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="not numeric: 'name', 'day'"):
        targets.data_file(tmp_path / "rows.parquet", 0.5, True)
    frame["n"] = frame["n"].astype("Int64").where(frame["n"] > 0)
    frame[["x", "n"]].to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"infinite: 1 values, .* the first original\[1, 1\]"):
        targets.data_file(tmp_path / "rows.parquet", 0.5, True)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "npz", "zarr"])
@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY PK\x03\x04 \xff no such format"])
def test_unreadable_files_are_one_error(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    path = tmp_path / f"rows.{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"path = .*rows.{suffix}.: must be a readable .{suffix}"):
        targets.data_file(path, heldout_fraction=0.5, standardise=True)


@pytest.mark.parametrize("suffix", ["parquet", "npy", "npz"])
def test_truncated_files_are_one_error(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", TABLE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"path = .*rows.{suffix}.: must be a readable"):
        targets.data_file(path, heldout_fraction=0.5, standardise=True)


@pytest.mark.parametrize("suffix", ["npy", "npz", "zarr"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["a", "b"]), "its values are of type"),
        (np.array([1j, 2, 3]), "its values are of type complex128"),
        (np.zeros((0, 3)), r"array of shape \(0, 3\)"),
        (np.float64(3.0), r"array of shape \(\)"),
        (np.array([[1.0, np.nan], [2.0, 3.0], [3.0, 5.0]]), "infinite: 1 values"),
        (np.eye(3), "must be more than d = 3"),
    ],
)
def test_arrays_that_will_not_do_are_one_error(
    tmp_path: Path, suffix: str, values: float | Array, message: str
) -> None:
    path = write(tmp_path / f"rows.{suffix}", values)
    with pytest.raises(ValueError, match=f"path = .*rows.{suffix}.*{message}"):
        targets.data_file(path, heldout_fraction=0.5, standardise=False)


def test_one_array_of_several_is_asked_for_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", a=TABLE, b=2 * TABLE)
    group = zarr.open_group(tmp_path / "rows.zarr", mode="w")
    group.create_array("a", data=TABLE)
    group.create_group("inner").create_array("b", data=2 * TABLE)
    for name, label in (("rows.npz", "b"), ("rows.zarr", "inner/b")):
        target = targets.data_file(tmp_path / name, 0.5, False, array=label)
        np.testing.assert_array_equal(target.rows, 2 * TABLE)
        for wrong in (None, "c"):
            with pytest.raises(ValueError, match=f"array = {wrong!r}: must name one .*'{label}'"):
                targets.data_file(tmp_path / name, 0.5, False, array=wrong)
    del group["inner"]
    np.testing.assert_array_equal(targets.data_file(tmp_path / "rows.zarr", 0.5, False).rows, TABLE)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "number.zarr", "text.zarr"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, name: str) -> None:
    path, mark = tmp_path / name, tmp_path / "executed"
    trap = np.array([Trap(mark)], dtype=object)
    if path.suffix == ".zarr":
        # an array whose chunks are said to be compressed by pickle
        kind, filters = ("<f8", None) if name == "number.zarr" else ("|O", [{"id": "vlen-utf8"}])
        metadata = {"shape": [3], "chunks": [3], "dtype": kind, "fill_value": None, "order": "C"}
        codecs = {"filters": filters, "compressor": {"id": "pickle"}, "zarr_format": 2}
        path.mkdir()
        (path / ".zarray").write_text(json.dumps(metadata | codecs))
        (path / "0").write_bytes(pickle.dumps(Trap(mark)))
    else:
        (np.save if path.suffix == ".npy" else np.savez)(path, trap)
    with pytest.raises(ValueError, match=f"path = .*{name}"):
        targets.data_file(path, heldout_fraction=0.5, standardise=False)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: targets.digits(0.0), "heldout_fraction = 0.0: must lie"),
        (lambda: targets.wine(1.0, True), "heldout_fraction = 1.0: must lie"),
        (lambda: targets.digits(1e-5), "heldout_fraction = 1e-05: must leave"),
        (lambda: DIGITS.sample(1500, np.random.default_rng(0)), "n = 1500: must be at most 1348"),
        (
            lambda: targets.EmpiricalTarget.from_rows(TABLE * [1e-9, 1, 1e6], 0.5, False),
            "rows: must be standardised, their units differ",
        ),
        (lambda: targets.EmpiricalTarget(np.zeros(4), 0.5), r"rows has shape \(4,\)"),
        (
            lambda: targets.EmpiricalTarget(TABLE, 0.5, targets.Transform.identity(2)),
            "coordinates: must be .* with 3 nonzero scales",
        ),
        (
            lambda: targets.EmpiricalTarget.from_rows(TABLE, 0.5, image_shape=(2, 2)),
            r"image_shape = \(2, 2\): must hold 3 pixels",
        ),
        (lambda: targets.EmpiricalTarget.from_rows(TABLE[0], 0.5), r"original has shape \(3,\)"),
        (lambda: targets.data_file("x.txt", 0.5, True), "path = 'x.txt': must end in one of .csv"),
        (lambda: targets.data_file("x.csv", 1.5, True), "heldout_fraction = 1.5: must lie"),
        (lambda: targets.data_file("x.csv", 0.5, True, array="a"), "array = 'a': must be left out"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


ROWS = np.random.default_rng(3).normal(size=(40, 3))
FRAME = pd.DataFrame(ROWS, columns=list("abc"))


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (lambda p: pd.DataFrame(ROWS).to_csv(p, index=False), {"header": True}, "header: true"),
        (
            lambda p: FRAME.set_axis([2019, 2020, 2021], axis=1).to_csv(p, index=False),
            {"header": True},
            "first line .* is whole numbers and no other is",
        ),
        (
            lambda p: pd.DataFrame(ROWS).to_csv(p),
            {"header": True, "columns": ["0", "1", "2"]},
            "numbers the columns, and its first column the rows",
        ),
        (FRAME.to_csv, {"columns": ["a", "b", "c"]}, "a column has no name: place 0"),
        (
            lambda p: FRAME.reset_index(names="Unnamed: 0").to_csv(p, index=False),
            {"columns": [1, 2, 3]},
            "a saved index 'Unnamed: 0'",
        ),
        (
            lambda p: FRAME.reset_index(names="id").to_csv(p, index=False),
            {"columns": ["a", "b", "c"]},
            "column 'id' numbers the rows",
        ),
        (
            lambda p: p.write_text(FRAME.to_csv(index=False).replace("\n", ",\n")),
            {"columns": [0, 1, 2]},
            "a column has no name: place 3",
        ),
        (
            lambda p: FRAME.to_csv(p, index=False, sep=";", decimal=","),
            {"decimal": ","},
            "begins with 0: if commas are decimal signs, say decimal",
        ),
        (
            lambda p: FRAME.to_csv(p, index=False, sep="\t"),
            {"delimiter": "\t"},
            r"not numeric.*read with delimiter: ','",
        ),
        (lambda p: np.savetxt(p, ROWS), {"delimiter": " "}, "not numeric.*delimiter"),
        (
            lambda p: FRAME.set_axis(list("aab"), axis=1).to_csv(p, index=False),
            {"columns": [0, 1, 2]},
            "two columns have one name 'a'",
        ),
        (
            lambda p: FRAME.assign(who="x").to_csv(p, index=False),
            {"columns": ["a", 1, 2]},
            "not numeric: 'who'",
        ),
    ],
)
def test_what_a_csv_leaves_open_is_asked_for_and_can_be_said(
    tmp_path: Path, write: Callable[[Path], object], options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "rows.csv"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        targets.data_file(path, 0.3, False)
    assert "\n" not in str(error.value)
    np.testing.assert_allclose(targets.data_file(path, 0.3, False, **options).rows, ROWS)


def test_decimal_commas_are_not_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("10,00\n9,11\n10,06\n")
    with pytest.raises(ValueError, match=r"'00' begins with 0: .* say decimal"):
        targets.data_file(path, 0.3, False)
    target = targets.data_file(path, 0.3, False, decimal=",")
    np.testing.assert_array_equal(target.rows, [[10.0], [9.11], [10.06]])
    assert targets.data_file(path, 0.3, False, decimal=".").dimension == 2


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_packed_zarr_array_is_unpacked(tmp_path: Path, zarr_format: int) -> None:
    import xarray as xr

    encoding = {"dtype": "i2", "scale_factor": 1e-3, "add_offset": 5.0, "_FillValue": -32768}
    xr.Dataset({"x": (("n", "d"), ROWS)}).to_zarr(
        tmp_path / "rows.zarr",
        zarr_format=zarr_format,
        encoding={"x": encoding},
        consolidated=False,
    )
    target = targets.data_file(tmp_path / "rows.zarr", 0.3, False)
    np.testing.assert_allclose(target.rows, ROWS, atol=6e-4)
    zarr.create_array(tmp_path / "bare.zarr", data=ROWS, attributes={"scale_factor": 0.1})
    with pytest.raises(ValueError, match=r"its values are packed \(scale_factor\)"):
        targets.data_file(tmp_path / "bare.zarr", 0.3, False)


def test_missing_chunks_are_no_zeros(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "rows.zarr", shape=(40, 3), chunks=(10, 3), dtype="f8")
    array[:10] = ROWS[:10]
    with pytest.raises(ValueError, match="3 of its 4 chunks are missing"):
        targets.data_file(tmp_path / "rows.zarr", 0.3, False)
    array[10:] = ROWS[10:]
    np.testing.assert_array_equal(targets.data_file(tmp_path / "rows.zarr", 0.3, False).rows, ROWS)


def test_what_float64_has_no_place_for_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(40)[:, None] ** 2 + 2**53)
    with pytest.raises(ValueError, match="2\\^53"):
        targets.data_file(tmp_path / "rows.npy", 0.3, False)
    with pytest.raises(ValueError, match="must be real"):
        targets.EmpiricalTarget.from_rows(ROWS + 1j, 0.3)
    np.savez(tmp_path / "law.npz", mean=np.zeros(2), covariance=np.eye(2) + 0j)
    with pytest.raises(ValueError, match="complex128: must be real numbers"):
        targets.gaussian_file(tmp_path / "law.npz")


def test_an_index_of_a_parquet_file_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    FRAME.set_index("a").to_parquet(path)
    with pytest.raises(ValueError, match=r"the index \['a'\] beside the columns \['b', 'c'\]"):
        targets.data_file(path, 0.3, False)
    target = targets.data_file(path, 0.3, False, columns=["a", "b", "c"])
    np.testing.assert_array_equal(target.rows, ROWS)


@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_columns_constant_up_to_rounding_are_dropped(
    stored: type[np.float32] | type[np.float64],
) -> None:
    rows = ROWS.astype(stored)
    rows[:, 1] = stored(0.3)
    rows[::2, 1] = stored(0.1) + stored(0.2)
    rows[::3, 1] = np.nextafter(stored(0.3), stored(1))
    assert targets.EmpiricalTarget.from_rows(rows, 0.3).dimension == 2


@pytest.mark.parametrize("name", ["rows.csv", "rows.npy", "rows.zarr"])
def test_a_pipe_and_a_device_are_not_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero{name}"):
        with pytest.raises(ValueError, match="it is a pipe or a device"):
            targets.data_file(path, 0.3, False)
        with pytest.raises(ValueError, match="it is a pipe or a device"):
            targets.gaussian_file(path)


@pytest.mark.parametrize("place", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_an_array_are_found_or_said(tmp_path: Path, place: int, channels: int) -> None:
    first = np.random.default_rng(0).integers(0, 256, (60, channels, 4, 2), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", np.moveaxis(first, 1, place))
    options = {"dequantise": True, "levels": 256}
    target = targets.data_file(tmp_path / "rows.npy", 0.3, False, **options)
    assert target.image_shape == ((3, 4, 2) if channels == 3 else (4, 2))
    assert (target.levels, target.span) == (256, pytest.approx(2.0))
    assert (target.rows.min() >= -1, target.rows.max() < 1) == (True, True)
    levels = np.floor(target.restore(target.rows) + 1e-9)
    np.testing.assert_array_equal(levels, first.reshape(60, -1))
    np.savetxt(tmp_path / "rows.csv", first.reshape(60, -1), delimiter=",", fmt="%d")
    said = targets.data_file(tmp_path / "rows.csv", 0.3, True, True, image_shape=target.image_shape)
    assert (said.image_shape, said.levels) == (target.image_shape, None)
    with pytest.raises(ValueError, match=r"levels = 200: must be .* whole numbers from 0"):
        targets.data_file(tmp_path / "rows.npy", 0.3, False, dequantise=True, levels=200)
    with pytest.raises(ValueError, match="levels = 256: needs dequantise"):
        targets.data_file(tmp_path / "rows.npy", 0.3, False, levels=256)
