"""Pages from their templates."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..plots.colours import PALETTE
from ..plots.style import JUDGEMENTS
from .made import HEADING, as_text

_KEPT = re.compile("[kR]\u0302 (?:=|>|at most|up to) [\\d.,]+|\\d[\\d.,]* (?:sds?|s|nats|%)(?!\\w)")
_OPTION = re.compile(r"--\w[\w-]*")


def render(
    template: str,
    *,
    title: str,
    made: Mapping[str, str],
    run: Mapping[str, Any] | None = None,
    headline: str = "",
    facts: Sequence[tuple[str, str]] = (),
    contents: Sequence[str] = (),
    **values: Any,
) -> str:
    """Fill in a template; values are escaped, and a missing one is an error.

    ``contents`` are the headings of the page, which links lead to if there are many; ``made`` says how it was made,
    ``run`` is the record of the command that made it.
    """
    environment = Environment(
        loader=PackageLoader("guidebook.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": slug, "unbroken": unbroken}
    frame = {"title": title, "headline": headline.removesuffix("."), "facts": facts, "contents": [*contents, HEADING]}
    frame |= {
        "made": made.items(),
        "made_heading": HEADING,
        "palette": PALETTE,
        "badge_colours": JUDGEMENTS,
        "run": as_text(run),
    }
    return environment.get_template(template).render(frame | values)


def slug(heading: str) -> str:
    """Return a heading as the name of its anchor."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def unbroken(sentence: str) -> Markup:
    """Return a sentence in which no line ends in an option, or between a symbol and its figure or that and its unit."""
    kept = _KEPT.sub(lambda found: found[0].replace(" ", "\u00a0"), sentence)
    return Markup(_OPTION.sub(r'<span class="option">\g<0></span>', str(escape(kept))))
