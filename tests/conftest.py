"""One thread a process, as in the workflow's jobs: numbers are then bit-identical. No display.

Families that a test registers are gone after it.
"""

import os
import sys
from collections.abc import Iterator

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and torch are imported
os.environ["MPLBACKEND"] = "agg"

from sgm.registry import use_extensions  # noqa: E402


@pytest.fixture(autouse=True)
def _own_families() -> Iterator[None]:
    modules = set(sys.modules)
    yield
    use_extensions([])
    for module in set(sys.modules) - modules:
        if module.startswith("extension:"):
            del sys.modules[module]
