"""What a user's own model was fitted to, as plain JSON, and new data that are read in the same way."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook.catalog import Row
from guidebook.datasets.table import shown
from guidebook.inference.traces.generate import generative, is_data, same_values
from guidebook.inference.traces.keywords import parameters_of, with_keywords
from guidebook.inference.traces.sites import nodes
from guidebook.workflow.own.data import read_arguments
from guidebook.workflow.own.model import own_selection

METHOD = "predict"


class Argument(NamedTuple):
    """A tensor that the model got.

    Attributes
    ----------
    dtype : str
        As torch calls it, such as "float64", "int64" and "bool".
    shape : list of int
    names : list of str or None
        Of a matrix's columns, or of the categories behind codes.
    top : int or None
        The largest of whole numbers, which are indices.
    observed : bool
        Whether it is what the model observes.
    """

    dtype: str
    shape: list[int]
    names: list[str] | None
    top: int | None
    observed: bool


class Inputs(NamedTuple):
    """What a fit was made from: the model's tensors by argument, and the names of the sites that it observed."""

    arguments: dict[str, Argument]
    sites: list[str]

    @property
    def num_rows(self) -> int | None:
        """Rows of what was observed, or else of the first argument; None without tensors."""
        shapes = [value.shape for value in self.arguments.values() if value.shape and value.observed]
        shapes += [value.shape for value in self.arguments.values() if value.shape]
        return shapes[0][0] if shapes else None

    def has_rows(self, name: str) -> bool:
        """Whether an argument has a value, or several, for each row."""
        return name in self.arguments and self.arguments[name].shape[:1] == [self.num_rows]

    def as_record(self) -> dict[str, Any]:
        """Return the inputs as plain JSON."""
        return {"arguments": {name: value._asdict() for name, value in self.arguments.items()}, "sites": self.sites}


class NewData(NamedTuple):
    """A model as a function of tensors by position, and these by name, in order.

    ``rows`` are their places in the file, ``ids`` what identifies them and ``left_out`` the number of those with gaps
    that were left out, as in `OwnData`.
    """

    model: Callable
    tensors: dict[str, Tensor]
    rows: Sequence[int] = ()
    ids: Mapping[str, Sequence[str]] = MappingProxyType({})
    left_out: int = 0

    @property
    def args(self) -> tuple[Tensor, ...]:
        """What the model takes by position."""
        return tuple(self.tensors.values())


def inputs_of(
    model: Callable,
    args: Sequence[Tensor],
    arguments: Sequence[str],
    names: Mapping[str, Sequence[str]],
    params: Mapping[str, Tensor],
) -> Inputs:
    """Return what a model was fitted to; ``names`` as in `OwnData`, ``params`` those that it learned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* are at their initial values")  # which the fit has said
        trace = generative(METHOD, model, tuple(args), params).trace
    sites = {name: site for name, site in nodes(trace).items() if is_data(site)}
    found = {}
    for name, value in zip(arguments, args, strict=True):
        is_index = not value.is_floating_point() and value.dtype != torch.bool and value.numel() > 0
        found[name] = Argument(
            dtype=str(value.dtype).removeprefix("torch."),
            shape=list(value.shape),
            names=list(names[name]) if name in names else None,
            top=int(value.max()) if is_index else None,
            observed=any(same_values(value, site["value"]) for site in sites.values()),
        )
    return Inputs(found, list(sites))


def read_inputs(record: Any) -> Inputs:
    """Return the inputs in a saved record; ValueError if it holds none."""
    try:
        return Inputs({name: Argument(**value) for name, value in record["arguments"].items()}, list(record["sites"]))
    except (AttributeError, KeyError, TypeError):
        raise ValueError("the record does not say what the model was fitted to: fit it anew") from None


def new_data(
    row: Row, options: Mapping[str, Any], inputs: Inputs, params: Mapping[str, Tensor], source: str
) -> NewData:
    """Read new rows for a fitted model; what it observes is None, unless it runs only with that.

    Parameters
    ----------
    row : Row
    options : mapping
        Values of all options.
    inputs : Inputs
        Of the fit.
    params : mapping
        Those that the fit learned.
    source : str
        File with the new rows.

    Raises
    ------
    ValueError
        If an argument has no data or data of another kind, rows differ in number, or the model cannot be run.
    """
    observed = [name for name, value in inputs.arguments.items() if value.observed]
    unseen = _read(row, options, inputs, source, observed)
    try:
        generative(METHOD, unseen.model, unseen.args, params)
    except ValueError as error:
        try:
            seen = _read(row, options, inputs, source, [])
            generative(METHOD, seen.model, seen.args, params)
        except ValueError:
            if not observed:
                raise error from None
            without = ", ".join(f"{name}=None" for name in observed)
            why = str(error).removeprefix(f"{METHOD}: ")
            raise ValueError(f"{METHOD}: {row.name} does not run on {shown(source)} with {without}: {why}") from None
        return seen
    return unseen


def _read(row: Row, options: Mapping[str, Any], inputs: Inputs, source: str, hidden: Sequence[str]) -> NewData:
    taken = parameters_of(row.model)
    names = [name for name, p in taken.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    known = {name: value.names for name, value in inputs.arguments.items() if value.names is not None}
    wanted = [name for name in names if name not in hidden]
    read = read_arguments(source, wanted, known, own_selection(row, options), is_new=True)
    found, where = read.values, f"{METHOD}: {shown(source)}"
    for name in names:
        if taken[name].default is taken[name].empty and name not in found and name not in hidden:
            raise ValueError(f"{where} has no data for the argument {name!r} of {row.name}")
    values = {name: options[name] for name in row.options} | found | dict.fromkeys(hidden)
    tensors = {}
    for name in names:
        if name in inputs.arguments and values.get(name) is not None:
            tensors[name] = _like(f"{where}: {name!r}", values[name], inputs.arguments[name], read.names.get(name))
        elif isinstance(values.get(name), Tensor):
            raise ValueError(f"{where} has data for {name!r} of {row.name}, which the fit had none for")
    lengths = {name: len(tensors[name]) for name in tensors if inputs.has_rows(name)}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{where}: arguments have different numbers of rows: {words}")
    if 0 in lengths.values():
        raise ValueError(f"{where} has no rows")
    keywords = {name: value for name, value in values.items() if name not in tensors}
    return NewData(with_keywords(row.model, list(tensors), keywords), tensors, read.rows, read.ids, read.left_out)


def _like(what: str, value: Any, known: Argument, names: Sequence[str] | None) -> Tensor:
    """Return a value of the kind that the fit had, with its names if it has any; ValueError if it is of another."""
    dtype = getattr(torch, known.dtype)
    if not isinstance(value, Tensor) or value.dim() != len(known.shape) or value.shape[1:] != tuple(known.shape[1:]):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
        raise ValueError(f"{what} has {got}, and the fit had shape {tuple(known.shape)}, rows first")
    is_text = names is not None and known.names is None and not value.is_floating_point()
    if is_text or not torch.can_cast(value.dtype, dtype):
        raise ValueError(f"{what} holds {'text' if is_text else _kind(value.dtype)}, and {_kind(dtype)} in the fit")
    return value.to(dtype)


def _kind(dtype: torch.dtype) -> str:
    return "truth values" if dtype == torch.bool else "numbers" if dtype.is_floating_point else "whole numbers"
