"""Options that say how a file is read, given to every command that reads data."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

_NAMES = {"metavar": "NAME,…", "show_default": False}
TABLE_OPTIONS: dict[str, Any] = {
    "target": Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Column of a file that holds the labels.")
    ],
    "columns": Annotated[
        str | None, typer.Option(**_NAMES, help="Columns of a file to use; default: all that nothing else is said of.")
    ],
    "drop": Annotated[str | None, typer.Option(**_NAMES, help="Columns of a file to leave out.")],
    "id": Annotated[
        str | None, typer.Option(**_NAMES, help="Columns that identify the rows: kept for rows.csv, not modelled.")
    ],
    "categories": Annotated[
        str | None, typer.Option(**_NAMES, help="Columns of numbers that are categories; text is taken as such.")
    ],
    "text": Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Column with documents, whose words are counted."),
    ],
    "missing": Annotated[
        str | None,
        typer.Option(
            metavar="refuse|drop|impute",
            show_default="refuse",
            help="What to do about missing values: refuse them, drop their rows, or impute them by the model.",
        ),
    ],
}


def reads_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, which it gets among its ``settings``, as if by ``--set name=value``."""
    given = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in TABLE_OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        options = {name: values.pop(name) for name in TABLE_OPTIONS}
        settings = [f"{name}={value}" for name, value in options.items() if value is not None]
        command(**values | {"settings": [*(values["settings"] or []), *settings]})

    parameters = [*given.parameters.values(), *added]
    wrapped.__signature__ = given.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped
