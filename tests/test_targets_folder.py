"""PNG and JPEG files as a target, against Pillow and the arrays that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgm import targets
from sgm.run.check import check
from sgm.run.schedule import _from_data
from sgm.store.content import content_of
from tests.test_targets_images import image_study

SHAPES = {"L": (5, 4), "RGB": (5, 4, 3)}  # height, width


def write(folder: Path, n: int, mode: str = "L", suffix: str = "png") -> np.ndarray:
    """Write pictures of noise in folders of four, and return their pixels."""
    pixels = np.random.default_rng(3).integers(0, 256, (n, *SHAPES[mode]), dtype=np.uint8)
    for k, picture in enumerate(pixels):
        place = folder / f"part_{k // 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{k % 4}.{suffix}")
    return pixels


def levels(target: targets.ImageTarget) -> np.ndarray:
    """Grey levels of all rows, in pictures."""
    rows = target.restore(target.take(np.arange(target.n_rows)))
    assert ((rows >= 0) & (rows < 256)).all()
    return np.floor(rows).reshape(-1, *target.image_shape)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_png_files_are_read_pixel_by_pixel(tmp_path: Path, mode: str) -> None:
    pixels = write(tmp_path, 30, mode)
    target = targets.image_folder(tmp_path, heldout_rows=7)
    assert target.image_shape == ((5, 4) if mode == "L" else (3, 5, 4))
    assert (target.levels, target.n_rows, target.train.count) == (256, 30, 23)
    expected = pixels if mode == "L" else np.moveaxis(pixels, 3, 1)
    found = levels(target)
    # each picture once, in an order that is the same for all who look
    assert {p.tobytes() for p in found.astype(np.uint8)} == {p.tobytes() for p in expected}
    np.testing.assert_array_equal(found, levels(targets.image_folder(tmp_path, heldout_rows=7)))
    assert not np.array_equal(found, expected)
    # held-out rows are those of every seed, and fewer training rows leave them as they are
    fewer = targets.image_folder(tmp_path, heldout_rows=7, rows=4)
    np.testing.assert_array_equal(levels(fewer)[-7:], found[-7:])
    np.testing.assert_array_equal(levels(fewer)[:4], found[:4])
    moments = target.reference
    flat = expected.reshape(30, -1).astype(float)
    np.testing.assert_allclose(target.restore(moments.mean[None])[0], flat.mean(0) + 0.5)


def test_jpeg_files_are_what_pillow_decodes_and_colours_can_be_converted(tmp_path: Path) -> None:
    write(tmp_path, 8, "RGB", "JPG")
    decoded = [np.asarray(Image.open(path)) for path in tmp_path.rglob("*.JPG")]
    target = targets.image_folder(tmp_path, heldout_rows=2)
    found = {p.tobytes() for p in levels(target).astype(np.uint8)}
    assert found == {np.moveaxis(p, 2, 0).tobytes() for p in decoded}
    grey = targets.image_folder(tmp_path, heldout_rows=2, colours="grey")
    expected = [np.asarray(Image.open(path).convert("L")) for path in tmp_path.rglob("*.JPG")]
    assert grey.image_shape == (5, 4)
    assert {p.tobytes() for p in levels(grey).astype(np.uint8)} == {p.tobytes() for p in expected}


def test_a_study_and_the_best_schedule_read_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "p", 30)
    family = {"family": "image_folder", "path": str(tmp_path / "p"), "heldout_rows": 5}
    check(image_study(family, n_samples=30))
    before = content_of(tmp_path / "p")
    Image.new("L", (4, 5)).save(tmp_path / "p/part_0/0.png")
    assert content_of(tmp_path / "p") != before
    assert _from_data(tmp_path / "p").family == "image_folder"


def test_folders_are_refused(tmp_path: Path) -> None:
    def refuse(message: str, **parameters: object) -> None:
        with pytest.raises(ValueError, match=message):
            targets.image_folder(tmp_path / "p", **{"heldout_rows": 2, **parameters})

    refuse(r"path = '.*p': must be a folder of pictures \(\.png, \.jpg, \.jpeg\)")
    (tmp_path / "p").mkdir()
    refuse(r"heldout_rows = 2: must be below 0, the number of pictures")
    write(tmp_path / "p", 6)
    refuse(r"heldout_rows = 6: must be below 6", heldout_rows=6)
    refuse(r"rows = 5: must be at most 4", rows=5)
    Image.new("RGB", (4, 5)).save(tmp_path / "p/z.png")
    refuse(r"of one size and one mode; 0.png is 4×5 L, z.png 4×5 RGB")
    targets.image_folder(tmp_path / "p", heldout_rows=2, colours="colour")
    Image.new("L", (5, 4)).save(tmp_path / "p/z.png")
    refuse(r"0.png is 4×5 L, z.png 5×4 L", colours="grey")
    (tmp_path / "p/z.png").write_bytes(b"no picture")
    refuse(r"z.png: must be a readable PNG or JPEG file")
    for path in (tmp_path / "p").rglob("*.png"):
        Image.new("RGBA", (4, 5)).save(path)
    refuse(r"have Pillow's mode 'RGBA': must be L or RGB, or say colours: grey or colours: colour")
    # a header that promises more than there is
    whole = (tmp_path / "p/z.png").read_bytes()
    (tmp_path / "p/z.png").write_bytes(whole[:42])
    target = targets.image_folder(tmp_path / "p", heldout_rows=2, colours="grey")
    with pytest.raises(ValueError, match=r"z.png: must be a readable picture"):
        target.take(np.arange(target.n_rows))
