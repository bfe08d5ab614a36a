"""Writing generated pages: only what changed, so that a second build reads nothing again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["indented", "table", "title", "write"]


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * (len(text) + 2)}\n"


def indented(text: str, by: int = 3) -> str:
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A list-table, whose cells may be any markup."""
    cells = [(row, place) for row in (head, *rows) for place in range(len(row))]
    body = "\n".join(f"   {' ' if place else '*'} - {row[place]}" for row, place in cells)
    return f".. list-table::\n   :header-rows: 1\n\n{body}\n"
