"""The row of a user's own model, and its task: a function of data by position, its options bound."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook.catalog.entry import Choosing, Data, Guide, Row, Unavailable
from guidebook.catalog.methods import FAMILIES
from guidebook.datasets import Dataset, Selection
from guidebook.datasets.table import listed
from guidebook.inference.coords import entry_names
from guidebook.inference.traces.keywords import parameters_of, with_keywords
from guidebook.workflow.options import OWN_DATA_OPTIONS
from guidebook.workflow.own.data import read_arguments
from guidebook.workflow.own.file import OwnFunction, find_function, load_function, options_of
from guidebook.workflow.own.values import OwnData
from guidebook.workflow.own.whole import with_indices

NO_STEPS = "its steps are mathematics, which is written by hand for each model of the collection"


class OwnTask(NamedTuple):
    """What a file, a model's options and its data come to."""

    model: Callable  # of ``args``, by position
    args: tuple[Tensor, ...]
    arguments: tuple[str, ...]  # names of ``args``
    keywords: dict[str, Any]  # arguments that are no tensors
    data: Dataset
    coords: dict[str, list[list[str]]]
    names: dict[str, tuple[str, ...]]  # as in `OwnData`


def own_selection(row: Row, options: Mapping[str, Any]) -> Selection:
    """Return what is asked of a file's columns; the model's own options of these names are its own.

    ValueError if gaps are to be imputed, which nothing is known of in a user's model.
    """
    selection = Selection.of({name: options[name] for name in OWN_DATA_OPTIONS if name not in row.options})
    if selection.missing == "impute":
        raise ValueError(f"{row.name}: cannot impute missing values: --missing drop leaves their rows out")
    return selection


def own_row(given: str) -> Row:
    """Return the row of ``FILE.py:FUNCTION``; the file is run, once per process.

    Raises
    ------
    ValueError
        If there is no such file or function, or the file cannot be run.
    """
    own = find_function(given)
    return make_row(own, load_function(own))


def make_row(own: OwnFunction, model: Callable) -> Row:
    """Return the row of a function that has been found, and of the model that it is."""
    return Row(
        name=own.given,
        title=own.name,
        model=model,
        data=Data(""),
        options=options_of({name: p.default for name, p in parameters_of(model).items()}, own.name),
        guides=dict(FAMILIES),
        identify=None,
        log_likelihood=None,
        default_methods=("dadvi", "svi:mean_field", "laplace"),
        unavailable={name: Unavailable(NO_STEPS, "dadvi") for name in ("em", "closed_form", "cavi", "gibbs")},
        steps={},
        choosing=Choosing("nuts"),
        latent_model=model,
        default_options={"svi": {"local_draws": None}},
        default_method="dadvi",
        ladder=(),
        own=own,
    )


def own_guide(given: str) -> Guide:
    """Return the guide ``FILE.py:GUIDE`` of a user's file: a function, a module, or a guide family."""
    return Guide(load_function(find_function(given)))


def own_task(row: Row, source: str | None, options: Mapping[str, Any], given: Iterable[str]) -> OwnTask:
    """Return the task of a user's model.

    Parameters
    ----------
    row : Row
    source : str or None
        File with its data.
    options : mapping
        Values of all options.
    given : iterable of str
        Those of them that the user gave: data may set the others.

    Raises
    ------
    ValueError
        If an argument has no data, or data have no argument.
    """
    taken, chosen = parameters_of(row.model), set(given)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    names = [name for name, p in taken.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    selection = own_selection(row, options)
    found = OwnData({}, {}, ()) if source is None else read_arguments(source, names, selection=selection)
    _check(row, source, taken, found, chosen, takes_all)
    values = {name: options[name] for name in row.options} | found.values
    tensors = {name: values[name] for name in taken if isinstance(values.get(name), Tensor)}
    keywords = {name: value for name, value in values.items() if name not in tensors}
    model = with_keywords(row.model, list(tensors), keywords)
    args = with_indices(model, tuple(tensors.values()))
    x = next((value for value in args if value.dim()), torch.zeros(0))
    dataset = Dataset(
        source or "no data", x, None, (), None, False, ids=found.ids, rows=found.rows, left_out=found.left_out
    )
    rows = [" ".join(words) for words in zip(*found.ids.values(), strict=True)]
    coords = entry_names(model, args, tuple(tensors), found.names, rows)
    return OwnTask(model, args, tuple(tensors), keywords, dataset, coords, found.names)


def _check(
    row: Row,
    source: str | None,
    taken: Mapping[str, inspect.Parameter],
    found: OwnData,
    chosen: set[str],
    takes_all: bool,
) -> None:
    """Raise ValueError unless data and arguments go together; say what is left out."""
    where, empty = source or "no file", inspect.Parameter.empty
    missing = [
        name
        for name, p in taken.items()
        if p.default is empty and name not in found.values and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    unseen = [name for name, p in taken.items() if p.default is None and name not in found.values]
    unused = f"it holds {listed(found.unused)}, which is no argument of {row.title}"
    if missing and source is None:
        raise ValueError(f"{row.name} takes {', '.join(missing)}: give --data FILE, with them by name")
    if missing:
        besides = f"; {unused}" if found.unused else ""
        raise ValueError(f"{where} has no data for the argument {missing[0]!r} of {row.name}{besides}")
    if unseen and found.unused and not takes_all:
        raise ValueError(f"{where} has no data for the argument {unseen[0]!r} of {row.name}; {unused}")
    if found.unused and source is not None and not source.lower().endswith(".csv"):
        raise ValueError(f"{where}: {unused}, which takes {', '.join(taken)}")
    if twice := sorted(chosen & found.values.keys()):
        raise ValueError(f"{twice[0]} is given twice: by --set and by {where}")
    if found.unused:
        warnings.warn(f"data: {where} has columns that are not used: {listed(found.unused)}", stacklevel=2)
    if unseen:
        words = "has no data and stays" if len(unseen) == 1 else "have no data and stay"
        warnings.warn(f"data: {', '.join(unseen)} of {row.name} {words} None", stacklevel=2)
