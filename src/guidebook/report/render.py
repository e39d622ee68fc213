"""Pages from their templates."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..plots.style import JUDGEMENTS


def render(template: str, **values: Any) -> str:
    """Fill in a template; values are escaped, and a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("guidebook.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(badge_colours=JUDGEMENTS, **values)
