"""The catalogue as a grid: for a terminal, as JSON, and as Markdown for the README."""

from typing import Any

from guidebook.catalog import METHODS, ROWS, SHORT, Row, methods_of


def grid_json() -> list[dict[str, Any]]:
    """A record a model: what it is, its guides, methods, options, default data, and the reasons for empty cells."""
    return [
        {
            "model": row.name,
            "title": row.title,
            "data": row.data,
            "methods": methods_of(row),
            "guides": list(row.guides),
            "options": {name: {"default": o.default, "help": o.help} for name, o in options_of(row).items()},
            "empty": row.empty,
        }
        for row in ROWS.values()
    ]


def options_of(row: Row) -> dict[str, Any]:
    """The model's options and those of the methods that can fit it."""
    return row.options | {k: o for method in methods_of(row) for k, o in METHODS.get(method, {}).items()}


def print_grid() -> None:
    """Print the grid for a person."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Models and methods", title_justify="left")
    table.add_column("model", no_wrap=True)
    for column in ("default data", *METHODS):
        table.add_column(column, justify="left" if column == "default data" else "center")
    for row in ROWS.values():
        table.add_row(row.name, row.data, *("yes" if method not in row.empty else "–" for method in METHODS))
    console.print(table)
    for row in ROWS.values():
        console.print(f"[bold]{row.name}[/bold]: {row.title}")
        console.print(f"  guides of svi: {', '.join(row.guides)}")
        options = ", ".join(f"{k}={o.default}" for k, o in options_of(row).items() if o.default is not None)
        console.print(f"  options: {options}", highlight=False)
        for cell, reason in row.empty.items():
            console.print(f"  no {cell}: {reason}", highlight=False)
    console.print(f"map and laplace are short for svi with the guide {' or '.join(SHORT.values())}.", highlight=False)


def grid_markdown() -> str:
    """The grid as the README shows it; a test holds the two together."""
    lines = ["| model | default data | methods | guides of svi |", "|---|---|---|---|"]
    for row in ROWS.values():
        own = [guide for guide in row.guides if guide.endswith("_by_hand")]
        methods = ", ".join(f"`{m}`" for m in methods_of(row))
        families = ", ".join(f"`{g}`" for g in row.guides if g not in own)
        lines.append(f"| `{row.name}`: {row.title} | {row.data} | {methods} | {families}; {_code(own)} |")
    return "\n".join(lines)


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
