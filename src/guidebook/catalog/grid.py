"""The catalogue as a grid: for a terminal, as JSON, and as Markdown for the documents."""

from typing import Any

from guidebook.catalog import ALIASES, FAMILIES, METHODS, ROWS
from guidebook.workflow.resolve import methods_of, options_of


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
    for title, cells in (("Methods", _methods()), ("Guides of svi", _guides())):
        table = Table(title=title, title_justify="left")
        table.add_column("", no_wrap=True, min_width=max(map(len, cells)))
        for row in ROWS.values():
            table.add_column(row.name, justify="center")
        for name, marks in cells.items():
            table.add_row(name, *marks)
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


def models_markdown() -> str:
    """Return the models, with their data and methods, as the README's table."""
    lines = ["| model | | default data | methods |", "|---|---|---|---|"]
    for row in ROWS.values():
        lines.append(f"| `{row.name}` | {row.title} | {row.data.name} | {', '.join(methods_of(row))} |")
    return "\n".join(lines)


def grid_markdown() -> str:
    """Return the grid as a Markdown table."""
    heads = " | ".join(f"`{name}`" for name in ROWS)
    lines = [f"| | {heads} |", "|---|" + ":-:|" * len(ROWS)]
    lines.append(f"| | {' | '.join(row.title for row in ROWS.values())} |")
    lines.append(f"| default data | {' | '.join(row.data.name for row in ROWS.values())} |")
    lines += [f"| `{name}` | {' | '.join(marks)} |" for name, marks in _methods().items()]
    lines += [f"| guide `{name}` | {' | '.join(marks)} |" for name, marks in _guides().items()]
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


def _methods() -> dict[str, list[str]]:
    return {name: [_mark(name not in row.unavailable) for row in ROWS.values()] for name in (*METHODS, *ALIASES)}


def _guides() -> dict[str, list[str]]:
    names = dict.fromkeys([*FAMILIES, *(guide for row in ROWS.values() for guide in row.guides)])
    return {name: [_mark(name in row.guides) for row in ROWS.values()] for name in names}


def _mark(has: bool) -> str:
    return "●" if has else "–"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
