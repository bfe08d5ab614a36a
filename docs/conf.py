"""The documentation site: `make docs` builds it, with warnings as errors.

Pages are Markdown that a git host shows too. What the program knows of itself is generated
before they are read: a page a family (`_ext/families.py`), the published studies
(`_ext/gallery.py`). The site asks no host for anything: formulas are MathML.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import sgm  # noqa: E402

project = "sgm"
author = "The sgm developers"
version = release = sgm.__version__
project_copyright = "The sgm developers, MIT licence"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "mathml",
    "docstrings",
    "families",
    "gallery",
    "api",
    "project",
]
exclude_patterns = ["_ext", "_static"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3
math_numfig = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Sources", ("Class attributes", "params_style")]

html_title = "sgm"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which a browser refuses to a file
