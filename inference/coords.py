"""Names of the entries of a model's sites: which dimensions run over a matrix's columns, or over categories.

That is not guessed from sizes: the model is run without the last column, or the last category, and a dimension that is
then one shorter runs over them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .traces.arguments import as_arguments, names_of
from .traces.dtypes import in_one_dtype
from .traces.isolate import isolated
from .traces.keywords import check_names, split, with_keywords
from .traces.run import first_run
from .traces.sites import is_deterministic, is_latent, nodes

Shapes = dict[str, torch.Size]


def coords(model: Callable, *data: Any, model_kwargs: Mapping[str, Any] | None = None) -> dict[str, list[list[str]]]:
    """Return names of the entries of a model's sites, by the columns of data frames and the categories of series.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    *data
        Its arguments: frames and series of categories have names.
    model_kwargs : mapping, optional
        Further arguments by name.

    Returns
    -------
    dict
        By site, names along its dimensions, as `compare` takes them for its ``coords``. Sites that do not become
        shorter with a column or a category less are left out, as those whose size is an option.

    Raises
    ------
    ValueError
        If data cannot be tensors, or the model has no argument of a name.
    """
    by_name = dict(model_kwargs or {})
    check_names("coords", model, list(by_name))
    positions = [f"argument {place} of the data" for place in range(1, len(data) + 1)]
    args = as_arguments("coords", data, positions)
    values = as_arguments("coords", list(by_name.values()), [f"argument {name!r}" for name in by_name])
    tensors, keywords = split(dict(zip(by_name, values, strict=True)))
    given = dict(zip(positions, data, strict=True)) | {name: by_name[name] for name in tensors}
    names = {argument: known for argument, value in given.items() if (known := names_of(value))}
    return entry_names(with_keywords(model, list(tensors), keywords), (*args, *tensors.values()), list(given), names)


def entry_names(
    model: Callable, args: tuple, arguments: Sequence[str], names: Mapping[str, Sequence[str]]
) -> dict[str, list[list[str]]]:
    """Return names of entries by site, as `compare` takes them for its ``coords``.

    Parameters
    ----------
    model : callable
    args : tuple
        Its arguments.
    arguments : sequence of str
        What they are called.
    names : mapping
        Argument -> names of a matrix's columns, or of the categories that whole numbers stand for.
    """
    if not names or (whole := _shapes(model, args)) is None:
        return {}
    found: dict[str, list[list[str]]] = {}
    for argument, known in names.items():
        place = arguments.index(argument)
        part = _shapes(model, (*args[:place], _shortened(args[place], len(known)), *args[place + 1 :]))
        if part is None or len(known) < 2:
            continue
        for site, shape in whole.items():
            shorter = part.get(site, ())
            if len(shorter) != len(shape):
                continue
            for dim, (size, less) in enumerate(zip(shape, shorter, strict=True)):
                if size == len(known) and less == size - 1:
                    found.setdefault(site, [[str(at) for at in range(length)] for length in shape])
                    found[site][dim] = list(known)
    return found


def _shortened(value: Tensor, count: int) -> Tensor:
    """Return a matrix without its last column, or codes without the last one."""
    return value[..., :-1] if value.dim() > 1 and value.shape[-1] == count else value.clamp(max=count - 2)


def _shapes(model: Callable, args: tuple) -> Shapes | None:
    """Return the shapes of latent and deterministic sites; None if the model does not run on these arguments."""
    try:
        data, dtype, _ = in_one_dtype("run", model, None, args, lambda data: data)
        with isolated(0, dtype):
            trace = first_run("run", model, data)
    except ValueError:
        return None
    return {n: s["value"].shape for n, s in nodes(trace).items() if is_latent(s) or is_deterministic(s)}
