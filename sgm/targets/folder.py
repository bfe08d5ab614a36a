"""PNG and JPEG files in a local folder; π_data is unknown.

They become rows as the images of `sgm.targets.images` do: all pixels, dequantised, in [−1, 1).
Building a target reads headers alone; a file is decoded when its row is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sgm.random import stream
from sgm.registry import Count, register
from sgm.targets.base import Transform
from sgm.targets.empirical import Numbers
from sgm.targets.images import LEVELS, Images, ImageTarget, Pixels

__all__ = ["Pictures", "image_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {"grey": "L", "colour": "RGB"}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Files of pictures of one size, a row each: colours, then rows of pixels.

    Parameters
    ----------
    paths : tuple of Path
    mode : str
        Pillow's, "L" or "RGB".
    size : tuple of int
        (width, height).
    """

    paths: tuple[Path, ...]
    mode: str
    size: tuple[int, int]

    @property
    def count(self) -> int:
        return len(self.paths)

    @property
    def dimension(self) -> int:
        return prod(self.size) * len(self.mode)

    def read(self, numbers: Numbers) -> Pixels:
        return np.stack([self._decoded(self.paths[number]) for number in numbers.tolist()])

    def _decoded(self, path: Path) -> npt.NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert(self.mode), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's, of a broken file
            raise ValueError(f"{path}: must be a readable picture: {error}") from error
        return np.moveaxis(pixels, -1, 0).ravel() if self.mode == "RGB" else pixels.ravel()


@register("target", law="unknown")
def image_folder(
    path: str | Path,
    heldout_rows: Count,
    rows: Count | None = None,
    colours: Literal["grey", "colour"] | None = None,
) -> ImageTarget:
    """Pictures of one size below a folder: .png, .jpg, .jpeg.

    Parameters
    ----------
    path : str or Path
        Folder; those in folders below it count too.
    heldout_rows : int
        How many are held out: the first ones in an order that is drawn once for their names.
    rows : int, optional
        How many of the others are for training; all by default.
    colours : {"grey", "colour"}, optional
        What all are converted to. By default they must all be grey of 8 bits, or all RGB.

    Returns
    -------
    ImageTarget
        Of image shape (height, width), or (3, height, width).

    Raises
    ------
    ValueError
        If there are too few, one can't be read, or they differ in size or colours.
    """
    folder = Path(path)
    said = f"path = {str(path)!r}"
    if not folder.is_dir():
        raise ValueError(f"{said}: must be a folder of pictures ({', '.join(SUFFIXES)})")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    others = len(found) - heldout_rows
    if others < 1:
        raise ValueError(
            f"heldout_rows = {heldout_rows!r}: must be below {len(found)}, the number of pictures "
            f"({', '.join(SUFFIXES)}) in {str(path)!r}"
        )
    if rows is not None and rows > others:
        raise ValueError(f"rows = {rows!r}: must be at most {others}, those that are not held out")
    first, *rest = kinds = [_kind(place) for place in found]
    for place, own in zip(found[1:], rest, strict=True):
        if own[0] != first[0] or (colours is None and own != first):
            raise ValueError(
                f"{said}: must be pictures of one size and one mode; {found[0].name} is "
                f"{_said(first)}, {place.name} {_said(own)}"
            )
    size, mode = kinds[0]
    mode = MODES[colours] if colours else mode
    if mode not in MODES.values():
        raise ValueError(
            f"{said}: its pictures have Pillow's mode {mode!r}: must be L or RGB, or say "
            "colours: grey or colours: colour, to which they are converted"
        )
    order = stream(0, "image_folder").permutation(len(found))
    parts = order[:heldout_rows], order[heldout_rows:][:rows]
    held, train = (Pictures(tuple(found[number] for number in part), mode, size) for part in parts)
    width, height = size
    return ImageTarget(
        Images("train", (train,), train.count),
        Images("heldout", (held,), held.count),
        Transform.symmetric(LEVELS, train.dimension),
        (height, width) if mode == "L" else (3, height, width),
    )


def _kind(path: Path) -> tuple[tuple[int, int], str]:
    """(width, height) and mode of a file, from its header."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            return picture.size, picture.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: must be a readable PNG or JPEG file: {error}") from error


def _said(kind: tuple[tuple[int, int], str]) -> str:
    (width, height), mode = kind
    return f"{width}×{height} {mode}"
