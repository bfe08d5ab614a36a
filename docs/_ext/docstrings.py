"""Docstrings are written for a terminal: their formulas are text, not markup."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

#: What stands in backticks, which is kept; and bars, stars and underscores at the end of a word,
#: which are |x|, β* and p_.
MARKUP = re.compile(r"``.+?``|`[^`\n]+`|(?P<mark>\||\*|(?<=\w)_(?!\w))", re.DOTALL)
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
#: Sections of names and types, each with what is said of it below, indented.
LISTED = {"Parameters", "Returns", "Raises", "Attributes", "Class attributes"}


def _escaped(text: str) -> str:
    return MARKUP.sub(lambda match: f"\\{match[0]}" if match["mark"] else match[0], text)


def _prose(text: str) -> str:
    """Paragraphs; of what is indented below one, a formula or an example, a literal block."""
    parts = []
    for part in re.split(r"\n\n(?=\S)", text):
        said, gap, shown = part.partition("\n\n ")
        marked = said if said.endswith("::") or not gap else f"{said}\n\n::"
        parts.append(_escaped(marked) + (f"{gap}{shown}" if gap else ""))
    return "\n\n".join(parts)


def _listed(text: str) -> str:
    lines = []
    for line in text.split("\n"):
        name, colon, kind = line.partition(" : ")
        lines.append(_escaped(line) if line.startswith(" ") else name + colon + _escaped(kind))
    return "\n".join(lines)


def as_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mark what is markup, before napoleon reads the sections."""
    head, *sections = SECTION.split("\n".join(lines))
    text = _prose(head)
    for section, body in zip(sections[::2], sections[1::2], strict=True):
        own = _listed(body) if section in LISTED else _prose(body)
        text += f"{section}\n{'-' * len(section)}\n{own}"
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", as_text, priority=100)  # napoleon's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
