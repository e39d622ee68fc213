"""Options of models, methods and data: which values they take, and how ``--set name=value`` is read."""

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One option of a model, a method or the data."""

    kind: type  # int, float, bool or str
    default: Any  # None leaves the default to the function that takes the option
    help: str
    low: float | None = None  # lower bound, included if closed
    closed: bool = True
    choices: tuple[str, ...] = ()  # values allowed for a str; empty for any


DATA_OPTIONS = {
    "standardize": Option(bool, None, "whether to z-score the features"),
    "vocabulary": Option(str, None, "text file with the names of a file's columns, one per line"),
    "target": Option(str, None, "column of a file that holds the labels; it is not used as a feature"),
    "columns": Option(str, None, "columns of a file to use, separated by commas"),
    "drop": Option(str, None, "columns of a file to leave out"),
    "id": Option(str, None, "columns of a file that identify the rows"),
    "categories": Option(str, None, "columns of numbers that are categories"),
    "text": Option(str, None, "column of a file with documents, whose words are counted"),
    "stop_words": Option(str, "english", "common words to leave out of documents", choices=("english", "none")),
    "missing": Option(str, "refuse", "what to do about missing values", choices=("refuse", "drop", "impute")),
}

OWN_DATA_OPTIONS = {name: DATA_OPTIONS[name] for name in ("columns", "drop", "id", "categories", "missing")}


def parse(settings: Iterable[str], known: dict[str, Option], of: str) -> dict[str, Any]:
    """Read ``option=value`` texts into values, defaults for the rest; ``of``: the model's name, for error messages."""
    values = {name: option.default for name, option in known.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes option=value, got {setting!r}")
        if name not in known:
            raise ValueError(unknown(f"option of {of}", name, known))
        values[name] = _value(name, text, known[name])
    return values


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence: the name is unknown, these are the nearest, and these there are."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"unknown {kind} {name!r}: {hint}there is {', '.join(known)}"


def _value(name: str, text: str, option: Option) -> Any:
    if option.kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    if option.kind is str:
        if option.choices and text not in option.choices:
            raise ValueError(unknown(name, text, option.choices))
        return text
    try:
        value = option.kind(text)
    except ValueError:
        what = "a whole number" if option.kind is int else "a number"
        raise ValueError(f"{name} must be {what}, got {text!r}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be finite, got {text!r}")
    if option.low is not None and (value < option.low or (value == option.low and not option.closed)):
        raise ValueError(f"{name} must be {'at least' if option.closed else 'more than'} {option.low}, got {text}")
    return value
