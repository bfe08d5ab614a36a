"""Tiny folders of images in the formats in which MNIST and CIFAR-10 are published."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

ROWS = {"train": 160, "t10k": 60}


def write_mnist(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for part, n in ROWS.items():
        pixels = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        header = struct.pack(">4I", 2051, *pixels.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())


def write_cifar10(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        n = ROWS["t10k"] if name.startswith("test") else ROWS["train"] // 5
        (folder / name).write_bytes(generator.integers(0, 256, (n, 3073), np.uint8).tobytes())


def with_images(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config whose image targets read tiny files, written to `folder`."""
    writers = {"mnist": write_mnist, "cifar10": write_cifar10}
    for target in config["targets"]:
        if isinstance(target, dict) and target["family"] in writers:
            writers[target["family"]](folder)
            target["path"] = str(folder)
    return config
