"""Write report pages: of one study, or of all published ones with an index over them."""

from __future__ import annotations

from pathlib import Path

from sgm.published import PUBLISHED, studies
from sgm.report import of_published, of_results, write_index, write_report

__all__ = ["report", "reports"]

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
    if (results / study / "grid.zarr").exists():
        return write_report(of_results(results / study), results / study / PAGE)
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
