"""Formulas as MathML, which browsers draw by themselves: no script, and nothing to fetch from a network."""

import re
import xml.etree.ElementTree as ET
from html import escape
from typing import Any

from docutils import nodes
from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
_SPACE = "http://www.w3.org/1998/Math/MathML"
_ACCENTS = {"~", "ˆ", "ˉ", "˙", "⃗"}
_APPLY = "\u2061"  # stands between a function's name and its argument
_REWRITTEN = {  # what docutils does not read, in words that it does
    r"\\(big|Big|bigg|Bigg)(?![a-zA-Z])": r"\\\1l",
    r"\\(dots|dotsc|dotsb)(?![a-zA-Z])": r"\\ldots",
    r"\\([td]?frac)(\d)(\d)": r"\\\1{\2}{\3}",
    r"\\textstyle(?![a-zA-Z])": "",
}


def as_mathml(tex: str, is_block: bool) -> str:
    """Return a formula as a ``<math>`` element; MathError if it cannot be read."""
    for pattern, replacement in _REWRITTEN.items():
        tex = re.sub(pattern, replacement, tex)
    if is_block and "\\\\" in tex and "\\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    ET.register_namespace("", _SPACE)
    math = ET.fromstring(tex2mathml(tex.strip(), as_block=is_block).replace("&ApplyFunction;", _APPLY))
    for parent in list(math.iter()):
        _put_subscripts_right(parent)
        _space_functions(parent)
    return ET.tostring(math, encoding="unicode")


def _put_subscripts_right(element: ET.Element) -> None:
    """Make x̃ₙ of what has the accent above x and n below."""
    if not element.tag.endswith("munderover") or (element[2].text or "").strip() not in _ACCENTS:
        return
    base, subscript, accent = list(element)
    element.tag, element[:] = f"{{{_SPACE}}}msub", []
    ET.SubElement(element, f"{{{_SPACE}}}mover", accent="true").extend([base, accent])
    element.append(subscript)


def _space_functions(parent: ET.Element) -> None:
    """Put thin spaces around names of functions, as TeX does, but before brackets and after operators."""
    children, thin = list(parent), {"width": "0.17em"}
    for place, child in enumerate(children):
        if child.text == _APPLY and child.tag.endswith("mo"):
            after = children[place + 1] if place + 1 < len(children) else child
            if after.get("stretchy") != "false" and after.get("form") != "prefix":
                child.tag, child.text = f"{{{_SPACE}}}mspace", None
                child.attrib |= thin
            if place > 1 and not children[place - 2].tag.endswith("mo"):
                parent.insert(
                    list(parent).index(children[place - 1]), ET.Element(f"{{{_SPACE}}}mspace", width="0.17em")
                )


def _markup(node: nodes.Element, is_block: bool) -> str:
    try:
        return as_mathml(node.astext(), is_block)
    except MathError as error:
        logger.warning("formula cannot be shown: %s", error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def _visit_inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(_markup(node, False))
    raise SkipNode


def _visit_block(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<div class="formula">{_markup(node, True)}</div>\n')
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
