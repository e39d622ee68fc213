"""Names of the entries of a model's sites: which dimensions run over a matrix's columns, over categories or rows.

That is not guessed from sizes: the model is run without the last column, category or row, and a dimension that is then
one shorter runs over them; where none is, by which entries the data's density depends on which columns or categories.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from .datatree.names import event_dim, plates_of
from .traces.arguments import as_arguments, index_of, names_of
from .traces.belonging import belonging
from .traces.dtypes import in_one_dtype
from .traces.isolate import isolated
from .traces.keywords import check_names, split, with_keywords
from .traces.run import first_run
from .traces.sites import is_deterministic, is_latent, nodes

Shapes = dict[str, torch.Size]


def coords(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    plates: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[list[str]]]:
    """Return names of the entries of a model's sites, by what data frames, series and plates are called.

    Those along a matrix's columns are the frame's columns, those along codes the categories of the series, and those
    along rows the index of the first frame or series that has words or dates there.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    *data
        Its arguments: frames and series have names.
    model_kwargs : mapping, optional
        Further arguments by name.
    plates : mapping, optional
        Names of the entries of plates, by plate: ``{"schools": ["Choate", …]}``.

    Returns
    -------
    dict
        By site, names along its dimensions, as `compare` takes them for its ``coords``. Sites of which it cannot be
        told are left out.

    Raises
    ------
    ValueError
        If data cannot be tensors, the model has no argument of a name, or no plate of a name and so many entries.
    """
    by_name = dict(model_kwargs or {})
    check_names("coords", model, list(by_name))
    positions = [f"argument {place} of the data" for place in range(1, len(data) + 1)]
    args = as_arguments("coords", data, positions)
    values = as_arguments("coords", list(by_name.values()), [f"argument {name!r}" for name in by_name])
    tensors, keywords = split(dict(zip(by_name, values, strict=True)))
    given = dict(zip(positions, data, strict=True)) | {name: by_name[name] for name in tensors}
    names = {argument: known for argument, value in given.items() if (known := names_of(value))}
    rows = next((known for value in given.values() if (known := index_of(value))), ())
    bound, every = with_keywords(model, list(tensors), keywords), (*args, *tensors.values())
    found: dict[str, Any] = dict(entry_names(bound, every, list(given), names, rows))
    if not plates:
        return found
    if (trace := _trace(bound, every)) is None:
        raise ValueError("coords: the model does not run on these data, so that its plates are not known")
    of_plates = by_site("coords", plates, trace)
    if missing := [name for name in plates if name in of_plates]:
        raise ValueError(f"coords: the model has no plate {missing[0]!r}")
    return found | of_plates


def by_site(method: str, given: Mapping[str, Any], trace: Trace) -> dict[str, Any]:
    """Return names by site from such by site or by plate, whose sites then have them along the plate's dimension.

    Names of what is neither stay as they are. A ValueError, in the method's name, says if a plate has another number
    of entries.
    """
    sites = {name: site for name, site in nodes(trace).items() if is_latent(site) or is_deterministic(site)}
    plates = plates_of(trace, ())
    found: dict[str, Any] = {}
    for name, known in given.items():
        inside = {site: plate for site in sites for plate in plates.get(site, ()) if plate.name == name}
        if name in sites or not inside:
            found[name] = known
            continue
        for site, plate in inside.items():
            if len(known) != plate.size:
                raise ValueError(
                    f"{method}: coords has {len(known)} names for the plate {name!r}, which has {plate.size} entries"
                )
            shape, dim = sites[site]["value"].shape, plate.dim - event_dim(sites[site])
            if -dim <= len(shape) and shape[dim] == plate.size and site not in given:
                found.setdefault(site, _numbers(shape))[dim] = list(known)
    return found


def entry_names(
    model: Callable,
    args: tuple,
    arguments: Sequence[str],
    names: Mapping[str, Sequence[str]],
    rows: Sequence[str] = (),
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
    rows : sequence of str
        Names of the rows, if they have any.
    """
    names = {argument: known for argument, known in names.items() if len(set(known)) == len(known) > 1}
    has_rows = len(set(rows)) == len(rows) > 1
    if not (names or has_rows) or (trace := _trace(model, args)) is None:
        return {}
    whole, found = _shapes_in(trace), dict[str, list[list[str]]]()
    for argument, known in names.items():
        place, count = arguments.index(argument), len(known)
        shorter = (*args[:place], _shortened(args[place], count), *args[place + 1 :])
        along = _shorter_dims(whole, _shapes(model, shorter) or {}, count)
        if not along:
            along = _with_plates(trace, belonging(model, args, place, count, found))
        for site, dim in along:
            found.setdefault(site, _numbers(whole[site]))[dim] = list(known)
    if has_rows:
        shorter = tuple(_without_last(value, len(rows)) for value in args)
        for site, dim in _shorter_dims(whole, _shapes(model, shorter) or {}, len(rows)):
            found.setdefault(site, _numbers(whole[site]))[dim] = list(rows)
    return found


def _shorter_dims(whole: Shapes, part: Shapes, count: int) -> list[tuple[str, int]]:
    """Return the dimensions of sites that have ``count`` entries, and one less in part."""
    return [
        (site, dim)
        for site, shape in whole.items()
        if len(part.get(site, ())) == len(shape)
        for dim, size in enumerate(shape)
        if size == count and part[site][dim] == size - 1
    ]


def _with_plates(trace: Trace, dims: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the dimensions of sites, and those of the others that lie in the same plates along them."""
    found = set(dims.items())
    shapes, plates = _shapes_in(trace), plates_of(trace, ())
    for site, dim in dims.items():
        own = [p for p in plates.get(site, ()) if p.dim - event_dim(nodes(trace)[site]) == dim - len(shapes[site])]
        for other, shape in shapes.items():
            for plate in (plate for plate in plates.get(other, ()) if plate in own):
                at = len(shape) + plate.dim - event_dim(nodes(trace)[other])
                found |= {(other, at)} if at >= 0 and shape[at] == plate.size else set()
    return sorted(found)


def _numbers(shape: Sequence[int]) -> list[list[str]]:
    return [[str(at) for at in range(length)] for length in shape]


def _without_last(value: Any, count: int) -> Any:
    """Return an argument without its last row, if it has so many."""
    return value[:-1] if isinstance(value, Tensor) and value.dim() and len(value) == count else value


def _shortened(value: Tensor, count: int) -> Tensor:
    """Return a matrix without its last column, or codes without the last one."""
    return value[..., :-1] if value.dim() > 1 and value.shape[-1] == count else value.clamp(max=count - 2)


def _shapes(model: Callable, args: tuple) -> Shapes | None:
    """Return the shapes of latent and deterministic sites; None if the model does not run on these arguments."""
    trace = _trace(model, args)
    return None if trace is None else _shapes_in(trace)


def _shapes_in(trace: Trace) -> Shapes:
    return {n: s["value"].shape for n, s in nodes(trace).items() if is_latent(s) or is_deterministic(s)}


def _trace(model: Callable, args: tuple) -> Trace | None:
    try:
        data, dtype, _ = in_one_dtype("run", model, None, args, lambda data: data)
        with isolated(0, dtype):
            return first_run("run", model, data)
    except ValueError:
        return None
