"""A page a published study: what it asks, its answers, all its figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pages import indented, title, write
from sphinx.application import Sphinx

from sgm.published import PUBLISHED, studies

CONFIG = Path(__file__).parents[2] / "config/studies"


def _said(study: str) -> str:
    """What the study's file says at its head."""
    said = []
    for line in (CONFIG / f"{study}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            said.append(line.lstrip("# "))
    return " ".join(said)


def _image(path: Path, folder: Path, alt: str) -> str:
    return f".. image:: {os.path.relpath(path, folder)}\n   :alt: {alt}\n"


def _page(study: str, folder: Path) -> str:
    own = PUBLISHED / study
    made = json.loads((own / "provenance.json").read_text(encoding="utf-8"))
    hours = sum(stage["clock"] for stage in made["hours"].values())
    parts = [
        title(study),
        _said(study) + "\n",
        f"{made['runs']['done']} runs, {made['runs']['failed']} failed; "
        f"{hours:.2g} hours of jobs in all, on {made['processor']}; commit "
        f"``{made['commit'][:10]}``. To open the grid, and to redraw the figures:\n",
        f'.. code-block:: python\n\n   import sgm\n\n   grid = sgm.load_published("{study}")\n',
        f".. code-block:: sh\n\n   make figures STUDY={study}\n",
    ]
    answers = (own / "tables/answers.txt").read_text(encoding="utf-8").strip().splitlines()
    if answers := [line for line in answers if not line.startswith("Figures: ")]:
        parts.append(title("Answers", "-"))
        said = indented("\n\n".join(answers))
        parts.append(f".. code-block:: text\n   :class: wrapped\n\n{said}\n")
    kinds: dict[str, list[Path]] = {}
    for path in sorted((own / "figures").rglob("*.png")):
        kind = path.relative_to(own / "figures").parts[0].removesuffix(".png")
        kinds.setdefault(kind, []).append(path)
    for kind, paths in kinds.items():
        parts.append(title(kind.replace("_", " "), "-"))
        for path in paths:
            target = "" if path.stem == kind else f", {path.stem}"
            parts.append(_image(path, folder, f"{kind}{target}, study {study}"))
    return "\n".join(parts)


def _front(study: str) -> Path:
    """The figure that stands for a study."""
    figures = PUBLISHED / study / "figures"
    for kind in ("coverage.png", "calibration.png", "comparison", "leaderboard", "map", "elbo",
                 "horizon", "theory", "kl", "w2"):  # fmt: skip
        path = figures / kind
        if path.is_file():
            return path
        if path.is_dir():
            return sorted(path.glob("*.png"))[0]
    return sorted(figures.rglob("*.png"))[0]


def generate(app: Sphinx) -> None:
    folder = Path(app.srcdir, "gallery")
    parts = [
        title("Gallery"),
        "Finished studies that come with the repository, in ``published/``: the grid, figures, "
        "tables and config of each, and the code and machine that made it.\n",
    ]
    for study in studies():
        write(folder / f"{study}.rst", _page(study, folder))
        parts.append(title(study, "-"))
        parts.append(f"{_said(study)} :doc:`All figures <gallery/{study}>`.\n")
        parts.append(_image(_front(study), Path(app.srcdir), f"A figure of the study {study}"))
    tree = "\n".join(f"   gallery/{study}" for study in studies())
    parts.append(f".. toctree::\n   :hidden:\n\n{tree}\n")
    write(Path(app.srcdir, "gallery.rst"), "\n".join(parts))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
