"""Sphinx's settings."""

import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

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
default_role = "py:obj"  # names in single backticks
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
        escaped = "``".join(parts)
        lines[i] = re.sub(r"(?<=  )\((\w)\)(?=  | ?$) ?", r"\\(\1)", escaped)  # a shape in a table is no list
    if what == "module":  # the generative story is indented: keep its lines apart
        story = next((i for i, line in enumerate(lines) if line.startswith("    ") and not lines[i - 1].strip()), None)
        if story is not None:
            lines[story:story] = ["::", ""]


def without_types_of_words(app: Sphinx, doctree: nodes.document) -> None:
    """Leave "shape" in "Tensor, shape (n, d)" a word: Sphinx takes it for the attribute of that name."""
    for reference in list(doctree.findall(pending_xref)):
        if reference["reftarget"] == "shape" and reference.get("refspecific"):
            reference.replace_self(reference.children)


def by_last_name(
    app: Sphinx, env: BuildEnvironment, reference: pending_xref, words: nodes.TextElement
) -> nodes.reference | None:
    """Lead from `compare` to the function of that name in the module of that name, or to the only object so called."""
    if reference.get("reftype") != "obj" or not reference.get("refdoc"):
        return None
    domain, target = env.domains.python_domain, reference["reftarget"]
    known = [name for name, entry in domain.objects.items() if entry.objtype != "module"]
    found = [name for name in known if name.endswith(f".{target}")]
    found = [name for name in found if name.endswith(f".{target}.{target}")] or found
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, reference["refdoc"], app.builder, "obj", found[0], reference, words)


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("config-inited", generate)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", typeset)
    app.connect("doctree-read", without_types_of_words)
    app.connect("missing-reference", by_last_name)
