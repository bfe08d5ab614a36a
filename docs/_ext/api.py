"""A page a public module, from its ``__all__``."""

from __future__ import annotations

import importlib
from pathlib import Path

from pages import title, write
from sphinx.application import Sphinx

#: What `import sgm` offers, and what families of one's own are made of, in the order of the page.
MODULES = (
    "sgm",
    "sgm.registry",
    "sgm.variables",
    "sgm.schedules",
    "sgm.schedules.levels",
    "sgm.schedules.knots",
    "sgm.processes",
    "sgm.kinetic",
    "sgm.targets",
    "sgm.densities",
    "sgm.gaussian",
    "sgm.scores",
    "sgm.learned",
    "sgm.guidance",
    "sgm.particles",
    "sgm.timegrids",
    "sgm.samplers",
    "sgm.laws",
    "sgm.line",
    "sgm.bounds",
    "sgm.bounds.objection",
    "sgm.divergences",
    "sgm.measures.divergences",
    "sgm.measures.coverage",
    "sgm.measures.bounds",
    "sgm.elbo",
    "sgm.optimal_horizon",
    "sgm.priors",
    "sgm.optimal_schedule",
    "sgm.bounds.ddpm_times",
    "sgm.published",
    "sgm.reading",
    "sgm.ranking",
    "sgm.comparison",
    "sgm.leaderboard",
    "sgm.plot",
)


def generate(app: Sphinx) -> None:
    folder = Path(app.srcdir, "api")
    rows = []
    for name in MODULES:
        module = importlib.import_module(name)
        text = f"{title(name)}\n.. automodule:: {name}\n   :members:\n"
        write(folder / f"{name}.rst", text)
        first = (module.__doc__ or "").split("\n\n")[0].replace("|", "\\|")
        rows.append(f":doc:`{name} <{name}>`\n   {' '.join(first.split())}\n")
    tree = "\n".join(f"   {name}" for name in MODULES)
    write(
        folder / "index.rst",
        f"{title('API')}\nThis is the public API. Everything else may change without notice.\n\n"
        + "\n".join(rows)
        + f"\n.. toctree::\n   :hidden:\n\n{tree}\n",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
