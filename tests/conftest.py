"""One thread a process, as in the workflow's jobs: numbers are then bit-identical. No display.

A `make` that a test calls is one of its own, also where another `make` runs the tests.
Families that a test registers are gone after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.workflow import Workflow

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and torch are imported
os.environ["MPLBACKEND"] = "agg"
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)

from sgm.registry import use_extensions  # noqa: E402


@pytest.fixture(autouse=True)
def _own_families() -> Iterator[None]:
    modules = set(sys.modules)
    yield
    use_extensions([])
    for module in set(sys.modules) - modules:
        if module.startswith("extension:"):
            del sys.modules[module]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tiny study, run to its end once; for the tests of xdist's group `workflow`."""
    from tests.workflow import Workflow, tiny

    workflow = Workflow(tmp_path_factory.mktemp("study") / "base")
    workflow.make(tiny())
    return workflow
