"""Write the names of models, methods, guides and options: ``python -m guidebook.catalog.write_names``."""

import json
from pathlib import Path
from typing import Any

from guidebook.catalog import ALIASES, METHODS, ROWS, Row
from guidebook.datasets import FETCHED, names
from guidebook.datasets.table import KINDS
from guidebook.workflow.names import FILE
from guidebook.workflow.options import Option
from guidebook.workflow.own.file import SHOWN, OwnFunction
from guidebook.workflow.own.model import make_row


def names_json() -> dict[str, Any]:
    """Return what `guidebook.workflow.names` reads."""
    own = make_row(OwnFunction(SHOWN, Path(), "FUNCTION", b""), lambda: None)
    return {
        "aliases": ALIASES,
        "data": list(names()),
        "fetched": list(FETCHED),
        "kinds": KINDS,
        "methods": {name: _options(method.options) for name, method in METHODS.items()},
        "models": {name: _row(row) for name, row in ROWS.items()},
        "own": _row(own),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "options": _options(row.options),
        "guides": list(row.guides),
        "unavailable": {cell: list(reason) for cell, reason in row.unavailable.items()},
        "default_methods": list(row.default_methods),
        "default_method": row.default_method,
        "default_guide": row.default_guide,
        "incomparable": dict(row.choosing.incomparable),
        "standardize": row.data.standardize,
    }


def _options(options: dict[str, Option]) -> dict[str, list[Any]]:
    return {name: [option.kind.__name__, *option[1:-1], list(option.choices)] for name, option in options.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(names_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
