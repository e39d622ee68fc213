"""Sphinx's settings."""

import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

import guidebook

sys.path.insert(0, str(Path(__file__).parent))

project = "Guidebook"
author = "The Guidebook developers"
copyright = author
version = release = guidebook.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["build", "generated"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["palette.css", "pages.css"]
html_extra_path = ["generated/extra"]
html_math_renderer = "mathml"
html_title = "Guidebook"
nb_execution_mode = "off"  # the notebooks carry their outputs, and `make test` runs them
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types and shapes
autodoc_default_options = {"members": True}


def generate(app: Sphinx, config: Config) -> None:
    """Lay the notebooks beside the pages, and write what pages include."""
    from generate import write_all

    root = Path(app.srcdir)
    shutil.rmtree(root / "tutorials", ignore_errors=True)  # a notebook that was renamed must not stay behind
    (root / "tutorials").mkdir()
    for notebook in (root.parent / "tutorials").glob("*.ipynb"):
        shutil.copy(notebook, root / "tutorials")
    write_all(root)


def skip_fields(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples: the class's own text describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def typeset(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Show shapes such as (draw, *site) and a model's story as they stand in the source."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"(?<=[(\s])\*(?=\w+[\s,)])", r"\\*", part) for part in parts[::2]]
        lines[i] = "``".join(parts)
    if what == "module":  # the generative story is indented: keep its lines apart
        story = next((i for i, line in enumerate(lines) if line.startswith("    ") and not lines[i - 1].strip()), None)
        if story is not None:
            lines[story:story] = ["::", ""]


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("config-inited", generate)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", typeset)
