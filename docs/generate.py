"""Write what pages include, the explorer and the colours of figures: ``conf.py`` calls it before each build."""

import re
import shutil
from pathlib import Path

import fragments

from guidebook.catalog import ALIASES, METHODS, ROWS
from guidebook.plots.colours import PALETTE
from guidebook.report import write_explorer
from guidebook.workflow.stored import read_stored


def write_all(docs: Path) -> None:
    """Write ``generated/`` and ``_static/palette.css`` anew."""
    generated = docs / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    for row in ROWS.values():
        write_fragments(generated / "models" / row.name, fragments.of_model(row))
    for method in (*METHODS, *ALIASES):
        write_fragments(generated / "methods" / method, fragments.of_method(method))
    contributing = (docs.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    without_links = re.sub(r"\[([^\]]+)\]\((?!https:)[^)]+\)", r"\1", contributing)
    write_fragments(generated, {"contributing": without_links, "course": fragments.course(docs.parent / "tutorials")})
    found = read_stored([docs / "compared"])
    in_order = sorted(found.comparisons, key=lambda record: list(ROWS).index(record["model"]))
    noted = [record | {"headline": f"{record['headline']} {record['note']}"} for record in in_order]
    write_explorer(noted, generated / "extra" / "explorer.html", ladders=found.fits)
    (docs / "_static" / "palette.css").write_text(palette(), encoding="utf-8")


def write_fragments(folder: Path, found: dict[str, str]) -> None:
    """Write fragments into a folder, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")


def palette() -> str:
    """Return the colours of figures as CSS variables, light and dark, as furo switches them."""
    light, dark = (" ".join(f"--{name}: {colour[shade]};" for name, colour in PALETTE.items()) for shade in (0, 1))
    return f"""body {{ {light} }}
body[data-theme="dark"] {{ {dark} }}
@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) {{ {dark} }} }}
"""
