"""Formulas as MathML, which browsers draw themselves: no script, no font, no host."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _mathml(node: nodes.Element, *, block: bool) -> str:
    try:
        text = str(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logger.warning("a formula that can't be read: %s", error, location=node)
        return ""
    # bars of |x| and KL(P ‖ Q) that neither grow with what stands beside them nor keep away
    text = text.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')
    return text.replace('<mo stretchy="false">|', '<mo stretchy="false" lspace="0" rspace="0">|')


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
