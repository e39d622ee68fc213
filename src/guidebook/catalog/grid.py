"""The catalogue as a grid: for a terminal, as JSON, and as Markdown for the documents."""

from collections.abc import Iterable
from typing import Any

from guidebook.catalog import ALIASES, FAMILIES, METHODS, ROWS, Row
from guidebook.workflow.resolve import methods_of, options_of

MARK = "●"


def grid_json() -> list[dict[str, Any]]:
    """Return one record per model: its methods, guides, options and default data, and reasons for empty cells."""
    return [
        {
            "model": row.name,
            "title": row.title,
            "data": row.data.name,
            "methods": methods_of(row),
            "guides": list(row.guides),
            "options": {name: {"default": o.default, "help": o.help} for name, o in options_of(row).items()},
            "empty": {cell: empty._asdict() for cell, empty in row.unavailable.items()},
        }
        for row in ROWS.values()
    ]


def print_grid() -> None:
    """Print the grid for a person."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, names, of in (("Methods", [*METHODS, *ALIASES], methods_of), ("Guides of svi", _guides(), _guides_of)):
        table = Table(title=title, title_justify="left")
        table.add_column("", no_wrap=True, min_width=max(map(len, names)))
        for row in ROWS.values():
            table.add_column(row.name, justify="center")
        for name, cells in _cells(names, of):
            table.add_row(name, *cells)
        console.print(table)
    for row in ROWS.values():
        console.print(f"\n[bold]{row.name}[/bold]: {row.title}; default data: {row.data.name}", highlight=False)
        options = ", ".join(f"{k}={_text(o.default)}" for k, o in row.options.items())
        console.print(f"  options: {options}", highlight=False)
        for cell, (reason, nearest) in row.unavailable.items():
            console.print(f"  no {cell}: {reason}; nearest is {nearest}", highlight=False)
    console.print()
    for name, method in METHODS.items():
        if method.options:
            console.print(f"options of {name}: {', '.join(method.options)}", highlight=False)
    console.print(f"map and laplace are svi with the guides {' and '.join(ALIASES.values())}.", highlight=False)


def grid_markdown() -> str:
    """Return the grid as a Markdown table."""
    heads = " | ".join(f"`{name}`" for name in ROWS)
    lines = [f"| | {heads} |", "|---|" + ":-:|" * len(ROWS)]
    lines.append(f"| | {' | '.join(row.title for row in ROWS.values())} |")
    lines.append(f"| default data | {' | '.join(row.data.name for row in ROWS.values())} |")
    lines += [f"| `{name}` | {' | '.join(cells)} |" for name, cells in _cells([*METHODS, *ALIASES], methods_of)]
    lines += [f"| guide `{name}` | {' | '.join(cells)} |" for name, cells in _cells(_guides(), _guides_of)]
    return "\n".join(lines)


def empty_markdown() -> str:
    """Return a Markdown table: why each empty cell is empty, and the nearest one that is not."""
    lines = ["| model | cell | reason | nearest |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{cell}` | {reason} | `{nearest}` |"
        for row in ROWS.values()
        for cell, (reason, nearest) in row.unavailable.items()
    ]
    return "\n".join(lines)


def _guides() -> list[str]:
    """Return the guides of all models, families first, each once."""
    return list(dict.fromkeys([*FAMILIES, *(guide for row in ROWS.values() for guide in row.guides)]))


def _guides_of(row: Row) -> list[str]:
    return list(row.guides)


def _cells(names: Iterable[str], of: Any) -> Iterable[tuple[str, list[str]]]:
    for name in names:
        yield name, [MARK if name in of(row) else "–" for row in ROWS.values()]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
