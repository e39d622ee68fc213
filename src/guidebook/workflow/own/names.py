"""Names of the entries of a user's sites: which dimensions run over a matrix's columns, or over categories.

That is not guessed from sizes: the model is run without the last column, or the last category, and a dimension that is
then one shorter runs over them.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from guidebook.inference.traces.dtypes import in_one_dtype
from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.run import first_run
from guidebook.inference.traces.sites import is_deterministic, is_latent, nodes

Shapes = dict[str, torch.Size]


def entry_names(
    model: Callable, args: tuple[Tensor, ...], arguments: Sequence[str], names: Mapping[str, Sequence[str]]
) -> dict[str, list[list[str]]]:
    """Return names of entries by site, as `compare` takes them for its ``coords``.

    Parameters
    ----------
    model : callable
    args : tuple of Tensor
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


def _shapes(model: Callable, args: tuple[Tensor, ...]) -> Shapes | None:
    """Return the shapes of latent and deterministic sites; None if the model does not run on these arguments."""
    try:
        data, dtype, _ = in_one_dtype("run", model, None, args, lambda data: data)
        with isolated(0, dtype):
            trace = first_run("run", model, data)
    except ValueError:
        return None
    return {n: s["value"].shape for n, s in nodes(trace).items() if is_latent(s) or is_deterministic(s)}
