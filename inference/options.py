"""What methods do with their options and data before they begin; an error names the method and the option."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from inspect import BoundArguments, signature
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from .digests import fitted_sha256
from .distributed.ranks import ranks_of
from .posterior import Posterior
from .streams import Stream, is_source, stream
from .traces.alone import alone
from .traces.arguments import as_arguments, index_of, names_of
from .traces.keywords import check_names, split, with_keywords

SINGULAR = (
    "a matrix could not be factorised: columns may be linearly dependent, too far from 0 for their spread, or far from "
    "unit scale: standardise the data"
)

STREAMED = ("svi", "em", "cavi", "online")  # methods that read data in blocks

P = ParamSpec("P")
T = TypeVar("T")


def options_by_name(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method take arrays, frames and lists as data, and ``model_kwargs`` as the model's arguments by name.

    Of a keyword that it does not take, it says where data and a model's own options go. Calls by several threads wait
    for one another. A folder given as ``checkpoint`` is opened, and a fit that has ended there is returned. A posterior
    records the digest of its data.
    """
    made = signature(method)

    @wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in made.parameters:
                by_name = f", or by name, in model_kwargs={{{name!r}: …}}" if "model_kwargs" in made.parameters else ""
                raise TypeError(
                    f"{method.__name__}: there is no option {name!r}: data go by position, after the model{by_name}, "
                    f"and a model's keyword arguments are bound to it, by functools.partial(model, {name}=…)"
                )
        try:
            call = made.bind(*args, **kwargs)
        except TypeError:
            return method(*args, **kwargs)  # which says what is missing
        _take_data(method.__name__, call)
        with alone():
            if method.__name__ == "svi":
                _check_places(call.arguments.get("checkpoint"))
            try:
                if call.arguments.get("checkpoint") is None:
                    return _with_digest(method(*call.args, **call.kwargs), call)
                from .checkpoints import opened  # which needs posteriors

                with opened(method.__name__, call) as kept:
                    return _with_digest(kept.result or kept.keep(method(*call.args, **call.kwargs)), call)
            except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
                raise FloatingPointError(f"{method.__name__}: {SINGULAR}") from None

    return checked


def _check_places(checkpoint: Any) -> None:
    """Raise ValueError unless all ranks name the same checkpoint: they open it together."""
    if (ranks := ranks_of("svi")).size > 1:
        from .distributed.steps import check_same  # which needs posteriors

        check_same(ranks, checkpoint=None if checkpoint is None else str(checkpoint))


def _with_digest(found: T, call: BoundArguments) -> T:
    """Return a posterior with the digest of its data in its record; anything else as it is."""
    if not isinstance(found, Posterior):
        return found
    return replace(found, info=replace(found.info, data_sha256=fitted_sha256(call.arguments["data"])))


def _take_data(method: str, call: BoundArguments) -> None:
    """Turn the data of a call into tensors, and arguments of the model by name into such by position.

    Where ``coords`` are taken and not given, they are the names that come with frames and series.
    """
    given = call.arguments
    if method == "online":
        _take_guide(given)
    data = _in_blocks(method, tuple(given.get("data", ())), given)
    named: Mapping[str, Any] = given.pop("model_kwargs", None) or {}
    names = (
        "coords" in call.signature.parameters and given.get("coords") is None and not callable(given.get("identify"))
    )
    if names and any(names_of(value) or index_of(value) for value in (*data, *named.values())):
        from .coords import coords  # which needs what imports this file

        as_arguments(method, data, [f"argument {place} of the data" for place in range(1, len(data) + 1)])
        given["coords"] = coords(given["model"], *data, model_kwargs=named)
    given["data"] = as_arguments(method, data, [f"argument {place} of the data" for place in range(1, len(data) + 1)])
    if not named:
        return
    check_names(method, given["model"], list(named))
    converted = as_arguments(method, list(named.values()), [f"argument {name!r}" for name in named])
    tensors, keywords = split(dict(zip(named, converted, strict=True)))
    given["data"] += tuple(tensors.values())
    for name in ("model", "guide", "posterior_or_guide"):
        if name in given:
            given[name] = with_keywords(given[name], list(tensors), keywords)


def _take_guide(given: dict[str, Any]) -> None:
    """Give the guide of `online`, which stands before the rows if there is a model, its name."""
    if callable(given["model"]):
        if given.get("guide") is None and given.get("data"):
            given["guide"], *given["data"] = given["data"]
    elif given.get("model_kwargs"):
        raise ValueError("online: model_kwargs belong to a model and its guide, and a model's own steps were given")


def _in_blocks(method: str, data: tuple, given: Mapping[str, Any]) -> tuple:
    """Return data with what is to be read in blocks as a stream; ValueError if the method needs all rows at once.

    That is what cannot be read otherwise, and what would not fit in memory or would have to become dense there.
    """
    if method not in STREAMED:
        if any(isinstance(value, Stream) for value in data):
            raise ValueError(f"{method}: all rows are needed at once; in blocks they are read by {', '.join(STREAMED)}")
        return data
    steps = given["model"] if method == "online" else given.get("steps")
    sparse = getattr(steps, "sparse", False)
    if method == "online" and data:
        return (stream(data[0] if len(data) == 1 else data).rows_for(sparse=sparse),)
    by_blocks = getattr(steps, "by_blocks", False) and not sparse  # topics say less of documents read in blocks
    large: tuple[type, ...] = (np.memmap,) if by_blocks else ()
    sparse_too = by_blocks or (method == "svi" and given.get("batch_size") is not None and len(data) == 1)
    return tuple(
        stream(value).rows_for(sparse=sparse)
        if is_source(value) or isinstance(value, large) or (sparse_too and hasattr(value, "tocsr"))
        else value
        for value in data
    )


def at_least_one(method: str, **counts: int | None) -> None:
    """Raise ValueError for the first count below one; None stands for an option that was not given."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")


def positive(method: str, **values: float) -> None:
    """Raise ValueError for the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{method}: {name} must be positive, got {value}")


def to_device(method: str, data: tuple, device: str | torch.device | None) -> tuple[Any, ...]:
    """Return the data with its tensors on ``device``; unchanged for None. ValueError if there is no such device."""
    if device is None:
        return data
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{method}: device {str(device)!r} is not available: torch finds no GPU; leave device out")
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)


def device_of(data: tuple) -> torch.device:
    """Return the device of the data: of the first tensor that is not on the CPU, if there is one."""
    devices = (value.device for value in data if isinstance(value, Tensor) and value.device.type != "cpu")
    return next(devices, torch.device("cpu"))


def size_of(data: tuple) -> int:
    """Return how many numbers the tensors of the data have."""
    return sum(value.numel() for value in data if isinstance(value, Tensor))


def as_double(data: tuple) -> tuple:
    """Return floating-point tensors in float64, all others as they are."""
    return tuple(value.double() if isinstance(value, Tensor) and value.is_floating_point() else value for value in data)
