"""The table of the lectures leads to notebooks and headings that exist."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "lectures.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| section")]
LINK = re.compile(r"\[(\d\d)\]\(tutorials/(\d\d)_(\w+)\.ipynb\)([^;|]*)")


def headings(notebook: Path) -> set[str]:
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "markdown"]
    lines = "".join("".join(cell["source"]) + "\n" for cell in cells).splitlines()
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


def test_every_section_leads_to_a_notebook_and_a_heading_of_it() -> None:
    assert len(ROWS) > 100
    for row in ROWS:
        found = LINK.findall(row)
        assert found, row
        for number, prefix, name, heading in found:
            notebook = ROOT / "tutorials" / f"{prefix}_{name}.ipynb"
            assert number == prefix, row
            assert notebook.exists(), notebook.name
            assert not heading.strip() or heading.strip() in headings(notebook), f"{notebook.name} has no {heading}"


def test_every_link_of_the_page_leads_to_a_file() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / path).exists(), path
