"""Stamps: what a grid, its figures or its tables were made of, and of which bytes they are.

A stamp is a small file ``views/<view>.json``, written last. It is what Snakemake deletes before a
job, so the grid stays where it is until a better one is written; and it tells whether what stands
there is what the study asks for, without Snakemake's own record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgm.store.cells import canonical, digest, written_whole

if TYPE_CHECKING:
    from sgm.study import Plan  # slow to import, and every job's command line imports this module

__all__ = ["is_stale", "write_stamp"]


def write_stamp(path: Path, spec: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Write the stamp of a view.

    Parameters
    ----------
    path : Path
        ``<root>/views/<view>.json``.
    spec : mapping
        What the job was told.
    files : iterable of Path
        What it wrote, below ``<root>``.
    """
    root = path.parents[1]
    written = {file.relative_to(root).as_posix(): _sha256(file) for file in files}
    with written_whole(path) as aside:
        aside.write_text(json.dumps({"spec": digest(canonical(spec)), "files": written}, indent=1))


def is_stale(plan: Plan, view: str) -> bool:
    """Whether a view has a stamp, but not that of the study's spec and of the files it names."""
    path = Path(plan.stamp(view))
    if not path.exists():
        return False
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        return stamp["spec"] != digest(plan.view_spec(view)) or any(
            _sha256(plan.root / name) != sha256 for name, sha256 in stamp["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True  # it is damaged, or a file that it names is gone


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
