"""The documentation site: it builds without a warning, has a page a family, asks no host."""

from __future__ import annotations

import ast
import html
import importlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_type_hints
from urllib.parse import unquote, urlsplit

import pytest

from sgm.registry import HOMES, families
from sgm.study.families import model_of
from tests.test_docs import ALONE, EXTENSION, blocks, one
from tests.workflow import ROOT

EXT = ROOT / "docs/_ext"
#: What a browser loads by itself, by element; links that a reader follows are none of it.
LOADED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "form": ("action",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}


class Page(HTMLParser):
    """What a page loads, where it leads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.places: set[str] = set()
        self._in: str = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {key: value or "" for key, value in attrs}
        self._in = tag
        self.places |= {said[key] for key in ("id", "name") if key in said}
        self.loads += [said[key].split()[0] for key in LOADED.get(tag, ()) if said.get(key)]
        self.loads += re.findall(r"url\(([^)]*)\)", said.get("style", ""))
        if tag == "a" and "href" in said:
            self.leads.append(said["href"])

    def handle_data(self, data: str) -> None:
        if self._in == "style":
            self.loads += sheet_loads(data)


def sheet_loads(text: str) -> list[str]:
    """What a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    imports = re.findall(r"@import\s+(?:url\()?[\"']?([^\"')\s;]+)", text)
    return imports + [hit.strip("\"' ") for hit in re.findall(r"url\(([^)]*)\)", text)]


def foreign(address: str) -> bool:
    """Whether an address is of another host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/mathjax.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/css">',
        '<link rel="preconnect" href="https://fonts.example.org">',
        '<img src="http://example.org/pixel.png">',
        "<style>@import 'https://example.org/a.css';</style>",
        "<style>a { background: url(https://example.org/a.png) }</style>",
        '<p style="background: url(https://example.org/a.png)">',
    ],
)
def test_a_request_to_a_host_is_seen(text: str) -> None:
    assert [address for address in Page(text).loads if foreign(address)]


def test_what_the_site_itself_holds_is_no_request() -> None:
    text = '<img src="a.png"><a href="https://example.org">x</a><img src="data:image/png;base64,">'
    assert not [address for address in Page(text).loads if foreign(address)]


def make_docs(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` in a folder; what is installed is not installed again."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "-f", f"{ROOT}/Makefile", "-o", ".venv/docs.stamp", "docs"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )


def _printed(text: str) -> str:
    """As HTML, whose apostrophes are those of print."""
    return html.escape(text, quote=False).replace("'", "’")


@pytest.mark.slow
def test_the_site_builds_and_asks_no_host(tmp_path: Path) -> None:
    generated = shutil.ignore_patterns("api", "families", "gallery", "gallery.rst", "project")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=generated)
    for name in ("config", "published", "CHANGELOG.md", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    built = make_docs(tmp_path)
    assert built.returncode == 0, built.stderr
    site = tmp_path / "build/site"
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 100
    loads = [(path, address) for path, page in pages.items() for address in page.loads]
    for path in site.rglob("*.css"):
        loads += [(path, address) for address in sheet_loads(path.read_text())]
    assert len(loads) > 1000
    for path, address in loads:
        assert not foreign(address), (path, address)
        if not address.startswith(("data:", "#")):
            assert (path.parent / unquote(urlsplit(address).path)).exists(), (path, address)
    for path, page in pages.items():
        for address in page.leads:
            if not foreign(address):
                parts = urlsplit(address)
                there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                assert there.exists(), (path, address)
                if parts.fragment and there in pages:
                    assert unquote(parts.fragment) in pages[there].places, (path, address)
    for kind in HOMES:
        for name, entry in families(kind).items():
            text = (site / "families" / kind / f"{name}.html").read_text()
            for key in set(model_of(entry).model_fields) - {"family", "name"}:
                assert f">{key}</span>" in text, (kind, name, key)
            if entry.objection:
                for code in get_type_hints(entry.objection)["return"]:
                    assert not code or _printed(code.reason) in text, (name, code)
    assert "<mfrac>" in (site / "mathematics.html").read_text()

    with (tmp_path / "docs/start.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    broken = make_docs(tmp_path)
    assert broken.returncode != 0
    assert "nowhere" in broken.stderr


def test_what_the_documentation_imports_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name stands in the ``__all__`` of a module that the site documents."""
    monkeypatch.syspath_prepend(str(EXT))
    modules = importlib.import_module("api").MODULES
    internal = {("docs/extend.md", "One job by hand")}  # says what the workflow does
    texts = [one(page, "python", heading) for page, heading in ALONE - internal]
    texts += [b.text for b in blocks("docs/extend.md", "python") if b.heading in EXTENSION]
    seen = set()
    for node in (node for text in texts for node in ast.walk(ast.parse(text))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module == "sgm":
            seen |= {f"sgm.{alias.name}" for alias in node.names}
        elif node.module.startswith("sgm."):
            seen.add(node.module)
            exported = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(exported), node.module
    assert len(seen) > 10
    assert seen <= set(modules), seen - set(modules)


def test_formulas_of_docstrings_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXT))
    docstrings = importlib.import_module("docstrings")
    lines = [
        "E|s| is β* of `p_t`, q_.", "", "    x = |y|*z", "", "Then.", "",
        "Parameters", "----------", "a_ : int", "    |a| ≤ 1.",
    ]  # fmt: skip
    docstrings.as_text(None, "function", "f", None, None, lines)
    assert lines == [
        r"E\|s\| is β\* of `p_t`, q\_.", "", "::", "", "    x = |y|*z", "", "Then.", "",
        "Parameters", "----------", "a_ : int", r"    \|a\| ≤ 1.",
    ]  # fmt: skip
