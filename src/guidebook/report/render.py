"""Pages from their templates."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..plots.style import JUDGEMENTS
from .repeat import as_text


def render(template: str, *, run: Mapping[str, Any] | None = None, **values: Any) -> str:
    """Fill in a template; values are escaped, and a missing one is an error. ``run`` is the record of a command."""
    environment = Environment(
        loader=PackageLoader("guidebook.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(badge_colours=JUDGEMENTS, run=as_text(run), **values)
