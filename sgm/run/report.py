"""Write report pages: ``python -m sgm.run.report``, which `make report` and `make reports` call.

study     of a config that has run or its results, or of a published study's name
all       of every published study, and an index over these and the reports in results
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["MPLBACKEND"] = "agg"  # Jupyter exports one that is importable in its kernel alone

from sgm.published import PUBLISHED, studies  # noqa: E402
from sgm.report import of_published, of_results, write_index, write_report  # noqa: E402

__all__ = ["main", "report", "reports"]

RESULTS = Path("results")
PAGE, INDEX = "report.html", "index.html"


def report(study: str, folder: Path = PUBLISHED, results: Path = RESULTS) -> Path:
    """Write the page of one study.

    Parameters
    ----------
    study : str
        The path of a config or of ``results/<study>``, or the name of a published study.
    folder, results : Path
        Where studies are published, and where they run.

    Returns
    -------
    Path
        ``<results>/<study>/report.html``, or of a published study
        ``<results>/published/<study>/report.html``.

    Raises
    ------
    ValueError
        If there is no such study, or its grid is missing or damaged.
    """
    if Path(study, "grid.zarr").exists():
        return write_report(of_results(Path(study)), Path(study, PAGE))
    if study.endswith((".yaml", ".yml", ".json")):
        from sgm.study.document import read_config  # slow to import, and no job needs it

        root = results / str(read_config(study).get("study"))
        return write_report(of_results(root), root / PAGE)
    name = study.removeprefix("published/")
    return write_report(of_published(name, folder), results / "published" / name / PAGE)


def reports(folder: Path = PUBLISHED, results: Path = RESULTS) -> Path:
    """Write the pages of all published studies, and an index over them and the other reports.

    Returns
    -------
    Path
        ``<results>/index.html``.
    """
    gallery = [report(name, folder, results) for name in studies(folder)]
    own = sorted(path for path in results.glob(f"*/{PAGE}") if path.parent.name != "published")
    return write_index({"Your studies": own, "Published studies": gallery}, results / INDEX)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write pages; exit status 1 with one line on a study that has none."""
    parser = argparse.ArgumentParser(prog="python -m sgm.run.report", description=__doc__)
    about = "a config, results/NAME or a published study's name; else all"
    parser.add_argument("study", nargs="?", help=about)
    parser.add_argument("--folder", type=Path, default=PUBLISHED, help="of published studies")
    options = parser.parse_args(arguments)
    try:
        written = (
            report(options.study, options.folder) if options.study else reports(options.folder)
        )
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"The report is {written}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
