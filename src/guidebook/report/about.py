"""The sections on the model and the data."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .. import plots
from ..inference.compare import Comparison
from ..inference.traces.keywords import argument_names, by_position
from ..plots import Section
from ..plots.graphs.figure import MOST_NODES


def facts(comparison: Comparison, model: Callable[..., Any] | None, data: tuple | None) -> list[tuple[str, str]]:
    """Return terms and their values for the head of the page."""
    found = {
        "Model": " ".join(name_and_options(model)).strip(),
        "Data": _shapes(model, data or ()),
        "Quantities": f"{len(comparison.numbered):,}",
    }
    return [(term, words) for term, words in found.items() if words]


def bound(
    method: str, model: Callable[..., Any] | None, data: tuple | None, model_kwargs: Mapping[str, Any] | None
) -> tuple[Callable[..., Any] | None, tuple | None]:
    """Return a model and its data as tensors by position; unchanged without a model, or without data."""
    if model is None or (data is None and not model_kwargs):
        return model, data
    return by_position(method, model, data or (), model_kwargs)


def name_and_options(model: Callable[..., Any] | None) -> tuple[str, str]:
    """Return a model's name and, in parentheses, its bound options; empty strings for None."""
    if model is None:
        return "", ""
    options: dict[str, Any] = getattr(model, "keywords", {})
    function: Any = model
    while hasattr(function, "func"):
        function = function.func
    function = function if hasattr(function, "__qualname__") else type(function)
    between = ":" if function.__module__.endswith(".py") else "."  # of a user's own file
    name = f"{function.__module__}{between}{function.__qualname__}".removeprefix("__main__.")
    name = re.sub(r"^guidebook\.models\.(\w+)\.(?:\w+\.)*", r"\1.", name)
    words = [f"{option}={value}" for option, value in options.items() if isinstance(value, str | int | float | bool)]
    return name, f"({', '.join(words)})" if words else ""


def _shapes(model: Callable[..., Any] | None, data: tuple) -> str:
    names = argument_names(model, len(data)) if model else [f"argument {i + 1}" for i in range(len(data))]
    tensors = [(name, value) for name, value in zip(names, data, strict=False) if isinstance(value, Tensor)]
    return ", ".join(f"{name}: {' × '.join(map(str, value.shape)) or 'a number'}" for name, value in tensors)


def graph(model: Callable[..., Any] | None, data: tuple | None) -> Section | None:
    """Show the model's graph, or say why there is none."""
    if model is None or data is None:
        return None
    title = "The model's graph"
    try:
        found = plots.model_graph(model, data)
    except Exception as error:  # users' models can fail in any way
        return Section(title, f"It could not be traced: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    if not found.nodes:
        return None
    if len(found.nodes) > MOST_NODES:
        return Section(title, f"The model has {len(found.nodes)} sites, too many to draw.")
    text = (
        "Each ellipse is a site with its distribution; arrows lead to a site from what its distribution depends on. "
        "Shaded sites are observed, white ones latent, dashed ones computed from others; a box is a plate, repeated as "
        "often as it says."
    )
    if "parameter" in dict(found.nodes.values()):
        text += " Names without an ellipse are parameters."
    parents = {child: [p for p, c in found.edges if c == child] for child in found.nodes}
    lines = [f"{child} depends on {', '.join(above)}" for child, above in parents.items() if above]
    description = "Graph of the model: " + ("; ".join(lines) or ", ".join(found.nodes))
    return Section(title, text, [plots.to_svg(plots.plot_graph(found), description, "graph")], wide=True)
