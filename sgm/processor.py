"""The processor that this process runs on; known to both wings, imports nothing of them.

PyTorch multiplies float32 matrices by its BLAS, which on x86 is MKL. On AMD's processors
MKL takes its AVX2 kernels, 256 bits wide. From Zen 5 on (family 26) the AVX-512 units are
twice that, and oneDNN uses them: docs/performance.md has the rates. On Zen 4, which does
AVX-512 in two halves, both are equally fast.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["Products", "fastest_products"]

Products = Literal["BLAS", "oneDNN"]
"""A library of matrix products."""

_ZEN_5 = 26


@cache
def fastest_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> Products:
    """The library that multiplies float32 matrices fastest, without gradients.

    It is chosen by what the processor is, never by the clock: a rerun on the machine must
    give the same bits, whatever else it is doing. Where it can't be told, it is the BLAS.

    Parameters
    ----------
    cpuinfo : path
        As Linux writes it.
    """
    try:
        lines = cpuinfo.read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return "BLAS"
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = (
        told.get("vendor_id") == "AuthenticAMD"
        and int(told.get("cpu family", 0)) >= _ZEN_5
        and "avx512f" in told.get("flags", "").split()
    )
    return "oneDNN" if wide else "BLAS"
