"""Which library multiplies matrices: by the processor alone, and beside every result."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgm.processor import fastest_products
from sgm.store.cells import read_versions, write_cells

ZEN_5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nflags\t\t: fpu avx512f\n"


@pytest.mark.parametrize(
    ("cpuinfo", "products"),
    [
        (ZEN_5, "oneDNN"),
        (f"{ZEN_5}\n{ZEN_5.replace('26', '25')}", "oneDNN"),  # the first of all processors
        (ZEN_5.replace("26", "25"), "BLAS"),  # Zen 4
        (ZEN_5.replace("avx512f", "avx2"), "BLAS"),  # a virtual machine that hides it
        (ZEN_5.replace("AuthenticAMD", "GenuineIntel"), "BLAS"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "BLAS"),  # ARM
        ("", "BLAS"),
    ],
)
def test_products_are_chosen_by_the_processor(cpuinfo: str, products: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert fastest_products(tmp_path / "cpuinfo") == products


def test_where_the_processor_is_not_told_products_are_the_blas(tmp_path: Path) -> None:
    assert fastest_products(tmp_path / "none") == "BLAS"


def test_a_cell_says_whose_products_it_has(tmp_path: Path) -> None:
    write_cells(tmp_path / "a.npz", {"x": 1.0}, {})
    assert read_versions(tmp_path / "a.npz")["products"] == fastest_products()
