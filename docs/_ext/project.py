"""CONTRIBUTING and CHANGELOG, which stand at the top of the repository, as pages."""

from __future__ import annotations

import re
from pathlib import Path

from pages import write
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
NAMES = ("CONTRIBUTING", "CHANGELOG")


def generate(app: Sphinx) -> None:
    for name in NAMES:
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\(docs/", "](../", text)
        for other in NAMES:
            text = text.replace(f"]({other}.md)", f"]({other.lower()}.md)")
        write(Path(app.srcdir, "project", f"{name.lower()}.md"), text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
