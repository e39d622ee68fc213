"""Draw the tables of README.md and docs/grid.md anew from the catalogue: ``make tables``."""

import re
from pathlib import Path

from guidebook.catalog.grid import empty_markdown, grid_markdown, models_markdown

ROOT = Path(__file__).parents[1]


def renew(file: Path, *tables: str) -> None:
    """Put tables in place of those with as many columns that begin alike, up to the first name in backticks."""
    text = file.read_text()
    for table in tables:
        begins = re.escape(table.splitlines()[0].partition("`")[0])
        text, found = re.subn(rf"^{begins}.*(?:\n\|.*)*", lambda _, table=table: table, text, flags=re.MULTILINE)
        if found != 1:
            raise SystemExit(f"{file}: {found} tables begin with {table.splitlines()[0]!r}, and one is needed")
    file.write_text(text)


if __name__ == "__main__":
    renew(ROOT / "README.md", models_markdown())
    renew(ROOT / "docs" / "grid.md", grid_markdown(), empty_markdown())
