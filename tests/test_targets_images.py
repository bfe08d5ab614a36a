"""Images: the published formats read byte by byte, their noise, moments, bits, and refusals."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from sgm import targets
from sgm.gaussian import Gaussian
from sgm.likelihood import bits_per_dimension
from sgm.registry import lookup
from sgm.run.check import check
from sgm.run.jobs.stages import data, floors
from sgm.store.cells import read_cells
from sgm.study import Plan, Study

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(11)
TRAIN = RNG.integers(0, 256, (30, 3, 4), dtype=np.uint8)
TRAIN[:, 0, 0] = 7  # a constant pixel
TEST = RNG.integers(0, 256, (8, 3, 4), dtype=np.uint8)
BATCHES = [RNG.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for n in (3, 1, 2, 4, 2, 5)]


def idx(images: np.ndarray, magic: int = 2051) -> bytes:
    return struct.pack(">4I", magic, *images.shape) + images.tobytes()


def write_mnist(folder: Path, form: str = "{}-images-idx3-ubyte") -> Path:
    for part, images in (("train", TRAIN), ("t10k", TEST)):
        content, path = idx(images), folder / form.format(part)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def write_cifar(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for k, images in enumerate(BATCHES, start=1):
        labels = np.full((len(images), 1), k, dtype=np.uint8)
        records = np.hstack([labels, images.reshape(len(images), -1)])
        name = "test_batch.bin" if k == len(BATCHES) else f"data_batch_{k}.bin"
        (folder / name).write_bytes(records.tobytes())
    return folder


def whole_levels(target: targets.ImageTarget, numbers: Any) -> np.ndarray:
    """The pixels of some rows: float32 leaves each in its level."""
    return np.floor(target.restore(target.take(np.asarray(numbers))))


@pytest.mark.parametrize(
    "form",
    [
        "{}-images-idx3-ubyte",
        "{}-images-idx3-ubyte.gz",
        "{}-images.idx3-ubyte",
        "{}-images.idx3-ubyte.gz",
    ],
)
def test_mnist_is_read_byte_by_byte(tmp_path: Path, form: str) -> None:
    target = targets.mnist(write_mnist(tmp_path, form))
    assert (target.dimension, target.image_shape, target.law) == (12, (3, 4), None)
    both = np.concatenate([TRAIN, TEST]).reshape(38, 12)
    np.testing.assert_array_equal(whole_levels(target, np.arange(38)), both)
    shuffled = RNG.permutation(38).reshape(2, 19)
    np.testing.assert_array_equal(whole_levels(target, shuffled), both[shuffled])
    assert target.take(shuffled).dtype == np.float32


@pytest.mark.parametrize("name", ["", "cifar-10-batches-bin"])
def test_cifar_is_read_across_its_files(tmp_path: Path, name: str) -> None:
    write_cifar(tmp_path / name)
    target = targets.cifar10(tmp_path)
    assert (target.dimension, target.image_shape, target.n_rows) == (3072, (3, 32, 32), 17)
    both = np.concatenate(BATCHES)
    order = RNG.permutation(17)
    pictures = whole_levels(target, order).reshape(-1, *target.image_shape)
    np.testing.assert_array_equal(pictures, both[order])


def test_rows_lie_in_their_level_scaled_to_minus_one_and_one(tmp_path: Path) -> None:
    target = targets.mnist(write_mnist(tmp_path))
    rows = target.take(np.arange(30))
    assert rows.min() >= -1
    assert rows.max() < 1
    np.testing.assert_allclose(target.standardise(TRAIN.reshape(30, 12)), rows, atol=1 / 128 + 1e-6)
    noise = 128 * (rows.astype(float) + 1) - TRAIN.reshape(30, 12)
    # 360 uniform draws: mean 1/2 ± 4 standard errors
    assert abs(noise.mean() - 0.5) < 4 / np.sqrt(12 * noise.size)
    assert len(np.unique(noise.round(4))) > 350


def test_the_noise_of_an_image_depends_on_nothing_else(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    target = targets.mnist(tmp_path)
    rows = target.take(np.arange(38))
    for numbers in ([5], [37, 0, 5], [[5, 36], [29, 30]]):
        np.testing.assert_array_equal(target.take(np.array(numbers)), rows[numbers])
    fewer = targets.mnist(tmp_path, rows=10, heldout_rows=3)
    np.testing.assert_array_equal(fewer.take(np.arange(10)), rows[:10])
    np.testing.assert_array_equal(fewer.take(np.arange(10, 13)), rows[30:33])
    noise = rows - target.standardise(np.concatenate([TRAIN, TEST]).reshape(38, 12))
    assert len({tuple(row) for row in noise.round(6)}) == 38


def test_the_test_files_are_held_out_whatever_the_seed(tmp_path: Path) -> None:
    target = targets.mnist(write_mnist(tmp_path))
    train, heldout = target.partition(np.random.default_rng(1))
    other, same = target.partition(np.random.default_rng(2))
    np.testing.assert_array_equal(heldout, same)
    np.testing.assert_array_equal(heldout, np.arange(30, 38))
    assert (train != other).any()
    np.testing.assert_array_equal(np.sort(train), np.arange(30))
    sample = target.sample(4, np.random.default_rng(1))
    np.testing.assert_array_equal(sample, target.take(train[:4]))
    np.testing.assert_array_equal(sample, target.split(np.random.default_rng(1))[0][:4])
    with pytest.raises(ValueError, match="n = 31: must be at most 30"):
        target.sample(31, np.random.default_rng(1))


def test_the_reference_has_the_moments_of_images_and_noise(tmp_path: Path) -> None:
    target = targets.mnist(write_mnist(tmp_path))
    pixels = np.concatenate([TRAIN, TEST]).reshape(38, 12)
    # by Monte Carlo over the noise: 4,000 noisy copies of each image
    noisy = target.standardise(np.repeat(pixels, 4000, axis=0) + RNG.random((152_000, 12)))
    reference = target.reference
    np.testing.assert_allclose(reference.mean, noisy.mean(axis=0), atol=4e-5)
    expected = np.cov(pixels / 128, rowvar=False) + np.cov(
        noisy - np.repeat(target.standardise(pixels), 4000, axis=0), rowvar=False
    )
    np.testing.assert_allclose(reference.covariance, expected, atol=4e-7)
    constant_in_train = targets.mnist(tmp_path, rows=2, heldout_rows=1).reference
    # three images in twelve dimensions: ten directions have the noise's variance alone
    floor = np.sort(constant_in_train.eigenvalues)[:10] * 128**2
    np.testing.assert_allclose(floor, 1 / 12, rtol=1e-6)


@pytest.mark.parametrize("standardise", [False, True])
def test_digits_images_keep_all_pixels(standardise: bool) -> None:
    from sklearn.datasets import load_digits

    target = targets.digits_images(0.25, standardise)
    assert (target.dimension, target.levels, target.image_shape) == (64, 17, (8, 8))
    restored = target.restore(target.rows)
    np.testing.assert_array_equal(np.floor(restored + 1e-9), load_digits().data)
    assert np.ptp(restored, axis=0).min() > 0.9
    if standardise:
        np.testing.assert_allclose(target.rows.std(axis=0), 1)
    else:
        assert target.rows.min() >= -1
        assert target.rows.max() < 1


def test_bits_per_dimension_are_of_the_levels_whatever_the_coordinates(tmp_path: Path) -> None:
    """Against a Gaussian of the grey levels themselves, bins of width 1."""
    plain, standard = (targets.digits_images(0.25, choice) for choice in (False, True))
    images = targets.mnist(write_mnist(tmp_path))
    assert plain.span == pytest.approx(2, rel=1e-12)
    assert images.span == pytest.approx(2, rel=1e-12)
    assert targets.digits(0.25).span is targets.isotropic(3, 0.0, 1.0).levels is None
    for target in (plain, standard, images):
        d, numbers = target.dimension, np.arange(20)
        rows = np.asarray(target.take(numbers), dtype=float)
        levels = target.restore(rows)
        factor = RNG.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
        law = Gaussian.from_covariance(np.full(d, 8.0), 9 * factor @ factor.T)
        expected = -law.log_density(levels) / (d * np.log(2))
        # the same law in working coordinates x = (levels − center)/scale
        center, scale = target.transform
        moved = Gaussian.from_covariance(
            (law.mean - center) / scale, law.covariance / np.outer(scale, scale)
        )
        bits = bits_per_dimension(moved.log_density(rows), d, target.levels, span=target.span)
        np.testing.assert_allclose(bits, expected, rtol=1e-9)
        uniform = bits_per_dimension(
            -np.sum(np.log(target.levels / scale)), d, target.levels, span=target.span
        )
        assert uniform == pytest.approx(np.log2(target.levels))


def test_few_rows_are_read_and_a_check_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, folder = 2000, tmp_path / "many"
    folder.mkdir()
    content = RNG.integers(0, 256, (count, 3073), dtype=np.uint8).tobytes()
    for name in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
        (folder / name).write_bytes(content)
    tracemalloc.start()
    target = targets.cifar10(folder)
    built = tracemalloc.get_traced_memory()[1]
    target.take(np.array([3, 9_000, 10_500]))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # what is mapped from the disk is not counted; 1 row is 25 kB in float64
    assert built < 100_000
    assert taken < 1_000_000
    monkeypatch.setattr(targets.images.ImageFile, "records", property(lambda self: 1 / 0))
    check(image_study({"family": "cifar10", "path": str(folder)}, n_samples=3075))
    with pytest.raises(ZeroDivisionError):
        target.take(np.array([0]))


def image_study(*family: dict[str, Any], **changes: Any) -> Study:
    config = yaml.safe_load((ROOT / "tests/data/tiny.yaml").read_text())
    scores = [
        {**score, "recipe": score["recipe"] | {"objective": "denoising", "weight": "variance"}}
        for score in config["scores"]
        if score["family"] == "trained"
    ]
    for score in scores:
        score.pop("targets", None)
    config |= {"targets": list(family), "scores": scores, "pictures": None}
    return Study.parse(config | changes)


def test_data_and_floors_of_a_study(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    study = image_study({"family": "mnist", "path": str(tmp_path)}, n_train=6)
    plan = Plan(study, tmp_path / "results")
    target = targets.mnist(tmp_path)
    spec = {
        "study_seed": 0,
        "n_train": 6,
        "target": {**plan.axes["target"]["mnist"].spec, "label": "mnist"},
    }
    data(spec, range(3), {}, {"data": tmp_path / "data.npz"}, "cpu")
    cells = read_cells(tmp_path / "data.npz")
    assert cells["train"].shape == (3, 6, 12)
    assert cells["train"].dtype == np.float32
    np.testing.assert_array_equal(cells["heldout"], target.take(np.arange(30, 38))[None])
    assert (cells["train"][0] != cells["train"][1]).any()
    measure = {
        "build": "sgm.measures.divergences:sliced_w2",
        "parameters": {"projections": 20, "projection_seed": 0},
        "variables": lookup("divergence", "sliced_w2").promised,
    }
    spec |= {"n_samples": 6, "divergences": [measure], "floors": {"sliced_w2": "floor"}}
    floors(spec, range(3), {"data": tmp_path / "data.npz"}, {"floors": tmp_path / "f.npz"}, "cpu")
    floor = read_cells(tmp_path / "f.npz")["floor"]
    # every seed has a floor, between its own training rows and the one held-out part
    assert len(set(floor)) == 3
    assert (floor > 0).all()


def test_a_folder_is_known_by_the_content_of_its_files(tmp_path: Path) -> None:
    study = image_study({"family": "cifar10", "path": str(write_cifar(tmp_path / "c"))})

    def spec() -> str:
        plan = Plan(study, tmp_path / "results")
        return plan.spec("data", SimpleNamespace(**next(plan.cells("data"))))

    before = spec()
    for path in (tmp_path / "c").iterdir():
        path.touch()
    assert spec() == before
    (tmp_path / "c" / "inner").mkdir()
    (tmp_path / "c" / "inner" / "x").touch()
    assert spec() != before


def spoil(folder: Path, name: str, change: Any) -> Path:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", None, r"path = .*: must hold train-images-idx3-ubyte or train"),
        ("t10k-images-idx3-ubyte", None, r"path = .*: must hold t10k-images-idx3-ubyte or t10k"),
        (
            "train-images-idx3-ubyte",
            lambda _: idx(TRAIN, magic=2049),
            "train-images-idx3-ubyte: its magic number is 2049: must be 2051",
        ),
        (
            "t10k-images-idx3-ubyte",
            lambda c: c[:-1],
            "must be 112 bytes long for the 8 images of 3",
        ),
        ("t10k-images-idx3-ubyte", lambda c: c + b"x", "announces; it is 113"),
        ("t10k-images-idx3-ubyte", lambda c: c[:9], "it ends within the header"),
        ("t10k-images-idx3-ubyte", lambda _: b"", "it ends within the header"),
        ("t10k-images-idx3-ubyte", lambda _: idx(TEST[:0]), "for the 0 images"),
        ("t10k-images-idx3-ubyte", lambda _: idx(TEST[:, :2]), r"of one shape; .*\(3, 4\).*\(2, 4"),
    ],
)
def test_mnist_refuses(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes] | None, message: str
) -> None:
    write_mnist(tmp_path)
    if change is None:
        (tmp_path / name).unlink()
    else:
        spoil(tmp_path, name, change)
    with pytest.raises(ValueError, match=message):
        targets.mnist(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-9], "must be a readable idx file"),
        (lambda c: c[:20], "must be a readable idx file"),
        (lambda _: b"no gzip at all, but long enough", "must be a readable idx file"),
        (lambda _: b"", "it ends within the header"),
        (lambda _: gzip.compress(idx(TRAIN)[:-5]), "must be 376 bytes long .* it is 371"),
        (lambda _: gzip.compress(idx(TRAIN, magic=2052)), "its magic number is 2052"),
    ],
)
def test_compressed_mnist_refuses(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    write_mnist(tmp_path, "{}-images-idx3-ubyte.gz")
    spoil(tmp_path, "train-images-idx3-ubyte.gz", change)
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte.gz: .*{message}|{message}"):
        targets.mnist(tmp_path)


def test_a_broken_stream_of_the_right_length_is_one_error(tmp_path: Path) -> None:
    write_mnist(tmp_path, "{}-images-idx3-ubyte.gz")
    spoil(tmp_path, "train-images-idx3-ubyte.gz", lambda c: c[:200] + b"\0" * 50 + c[250:])
    with pytest.raises(ValueError, match=r"ubyte.gz: must be a readable idx file"):
        targets.mnist(tmp_path)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_the_pickled_version_is_refused_and_not_executed(tmp_path: Path, inner: str) -> None:
    folder, mark = tmp_path / inner, tmp_path / "executed"
    folder.mkdir(exist_ok=True)
    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ValueError, match=r"binary version .* \(cifar-10-binary.tar.gz"):
        targets.cifar10(tmp_path)
    assert not mark.exists()


def test_cifar_refuses(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    spoil(tmp_path, "data_batch_3.bin", lambda c: c[:-1])
    with pytest.raises(ValueError, match=r"3.bin: must be whole .* it is 1 records and 3072 bytes"):
        targets.cifar10(tmp_path)
    spoil(tmp_path, "data_batch_3.bin", lambda _: b"")
    with pytest.raises(ValueError, match=r"data_batch_3.bin: must be whole records"):
        targets.cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"path = .*: must hold data_batch_3.bin"):
        targets.cifar10(tmp_path)


@pytest.mark.parametrize("build", [targets.mnist, targets.cifar10])
def test_a_folder_that_is_none_and_counts_out_of_range(
    tmp_path: Path, build: Callable[[Path], targets.ImageTarget]
) -> None:
    for wrong in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match=r"path = .*: must be a folder that holds"):
            build(wrong)
    write_cifar(write_mnist(tmp_path))
    for key, value in (("rows", 0), ("rows", 31), ("heldout_rows", 9)):
        with pytest.raises(ValueError, match=f"{key} = {value}: must lie between 1 and"):
            build(tmp_path, **{key: value})


def test_a_study_that_names_no_such_folder_is_one_error() -> None:
    study = image_study({"family": "mnist", "path": "no/such"})
    with pytest.raises(ValueError, match="targets: mnist: path = 'no/such': must be a folder"):
        check(study)
    with pytest.raises(ValueError, match="rows = 0"):
        image_study({"family": "mnist", "path": "no/such", "rows": 0})


@pytest.mark.parametrize("shape", [(12,), (1, 3, 4), (2, 2, 3), (1, 1, 3, 4)])
def test_other_shapes_are_refused(
    shape: tuple[int, int, int, int] | tuple[int, int, int] | tuple[int],
) -> None:
    with pytest.raises(ValueError, match=r"image_shape = .*: must be \(height, width\) or \(3, h"):
        targets.EmpiricalTarget(RNG.normal(size=(20, 12)), 0.5, image_shape=shape)


@pytest.mark.parametrize("inner", ["MNIST/raw", "raw"])
def test_the_layout_of_torchvision_is_found(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(parents=True)
    write_mnist(tmp_path / inner)
    assert targets.mnist(tmp_path).n_rows == 38


def test_a_gz_of_several_members_is_one_file(tmp_path: Path) -> None:
    write_mnist(tmp_path, "{}-images-idx3-ubyte.gz")
    content = idx(TRAIN)
    spoil(
        tmp_path,
        "train-images-idx3-ubyte.gz",
        lambda _: gzip.compress(content[:100]) + gzip.compress(content[100:]),
    )
    target = targets.mnist(tmp_path)
    np.testing.assert_array_equal(whole_levels(target, np.arange(30)), TRAIN.reshape(30, 12))


def test_data_of_another_scale_than_the_prior_is_refused_before_any_job(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (200, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "raw.npy", pixels)
    family = {"family": "data_file", "path": str(tmp_path / "raw.npy"), "heldout_fraction": 0.3}
    raw = family | {"standardise": False, "dequantise": True}
    with pytest.raises(ValueError, match="target 'data_file': its rows have root mean square 1"):
        check(image_study(raw, n_samples=20))
    check(image_study(raw | {"levels": 256}, n_samples=20))
    check(image_study(raw | {"standardise": True}, n_samples=20))


def test_braces_in_a_path_are_one_error(tmp_path: Path) -> None:
    family = {"family": "mnist", "path": "images{1}"}
    with pytest.raises(ValueError, match=r"path = 'images\{1\}': must have no braces"):
        check(image_study(family))
