"""Minibatches for any model with a plate over its rows: batches of rows, and the scale that makes up for the rest."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ..streams import Stream
from ..streams.batches import StreamBatches
from ..streams.order import MAX_ROWS, Order, RowIndex, gather
from ..streams.transfer import moved
from ..traces.params import trace_at
from ..traces.prepare import Prepared, subsampled_plate
from ..traces.sites import Scale, is_latent, nodes


def _is_within(plates: set[str], site: Mapping[str, Any]) -> bool:
    return any(frame.name in plates for frame in site["cond_indep_stack"])


def in_batches(data: tuple, batch_size: int | None) -> tuple[Stream | None, tuple, int | None]:
    """Return the stream among the data, if there is one, example rows in its place, and the size of batches.

    A ValueError says if a stream is not all the data, or no size of batches is known.
    """
    if not any(isinstance(value, Stream) for value in data):
        return None, data, batch_size
    if len(data) != 1:
        raise ValueError(
            "svi: data read in blocks hold all arguments of the model: give a stream of tuples, and no more"
        )
    source: Stream = data[0]
    batch_size = source.batch_size if batch_size is None else batch_size
    if batch_size is None:
        raise ValueError("svi: data read in blocks need a batch_size")
    if not 1 <= batch_size <= len(source):
        raise ValueError(_out_of_range(batch_size, len(source)))
    return source, source.example(2 * batch_size), batch_size


def batches_of(source: Stream | None, data: tuple, batch_size: int) -> "Batches | StreamBatches":
    """Return endless batches of a stream, in the dtypes and on the devices of ``data``, or of the data themselves."""
    return Batches(data, batch_size) if source is None else StreamBatches(source, batch_size, data)


def in_parts(prepared: Prepared, source: Stream | None, batch_size: int) -> tuple[Scale, Iterator[tuple]]:
    """Return what chooses the sites that belong to rows, and all rows in order, as many at a time as were shown.

    A ValueError says if the model scales for rows that it is not given by itself.
    """
    data, size = prepared.data, len(prepared.rows[0])
    if name := subsampled_plate(prepared.trace):
        raise ValueError(
            f"svi: the curvature at the mode needs all rows, and plate {name!r} of the model scales for others by "
            "itself: give it the rows as they are, or another family of guides"
        )
    if source is not None:
        count, parts = len(source), (moved(block, data) for block in source.blocks(size))
    else:
        count = len(data[0])
        parts = (
            tuple(value[start : start + size] if is_row_data(value, count) else value for value in data)
            for start in range(0, count, size)
        )
    return row_scale(prepared.model, data, batch_size, autoguide=True, num_rows=count), parts


def row_scale(model: Callable, data: tuple, batch_size: int, *, autoguide: bool, num_rows: int | None = None) -> Scale:
    """Return the scale of all that is in plates over the rows of ``data``, if batches can stand for all rows.

    ``num_rows`` says how many these are, if ``data`` are only some of them.
    """
    rows = num_rows or len(data[0])
    if not 1 <= batch_size <= rows:
        raise ValueError(_out_of_range(batch_size, rows))
    more = min(len(data[0]), 2 * batch_size)
    with torch.random.fork_rng():
        trace, part = (poutine.trace(model).get_trace(*_first(data, size)) for size in (more, batch_size))
    plates = _plates(trace, more) & _plates(part, batch_size)
    scaled = {name for name in plates if _subsamples(part, name)}  # by the plate itself: once is enough
    if not plates:
        raise ValueError(f"svi: batch_size needs a pyro.plate over the {rows} rows of the data, and the model has none")
    latent = {name: site for name, site in nodes(trace).items() if is_latent(site)}
    local = [name for name, site in latent.items() if _is_within(plates, site)]
    if local and autoguide:
        raise ValueError(
            f"svi: site {local[0]!r} has a value for each row, so an autoguide cannot be fitted in minibatches: "
            "leave batch_size out, or write a guide that computes it from the row"
        )
    values = {name: site["value"] for name, site in latent.items() if name not in local}
    again = trace_at(model, values, _first(data, batch_size))
    trace.compute_log_prob()
    for name in values:
        before, after = nodes(trace)[name]["log_prob_sum"], nodes(again)[name]["log_prob_sum"]
        if not torch.allclose(before, after, rtol=1e-4):
            raise ValueError(
                f"svi: the prior of {name!r} changes with the rows given, so minibatches would fit another model: "
                "give the prior explicitly"
            )
    return Scale(lambda site: _is_within(plates - scaled, site), rows / batch_size)


def is_large(data: tuple, batch_size: int | None) -> bool:
    """Whether the data are too many to evaluate at once: a fit in minibatches of more than `MAX_ROWS` rows.

    A ValueError says if the data have no rows from which to take minibatches.
    """
    if batch_size is not None and not (data and isinstance(data[0], Tensor) and data[0].dim()):
        given = type(data[0]).__name__ if data else "none"
        raise ValueError(
            f"svi: batch_size takes rows of tensors, and the first argument of the model is {given}: convert it, by "
            "torch.as_tensor(frame.to_numpy()) for a data frame"
        )
    return batch_size is not None and len(data[0]) > MAX_ROWS


def example_rows(data: tuple) -> tuple:
    """Return a hundredth of `MAX_ROWS`, evenly spaced, for one-off work on large data (initialisation, tracing)."""
    rows = len(data[0])
    return tuple(value[:: 100 * rows // MAX_ROWS] if is_row_data(value, rows) else value for value in data)


def is_row_data(value: Any, rows: int) -> bool:
    """Whether an argument is a tensor with one entry per row."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows


class Batches:
    """Endless batches: shuffled epochs; the last incomplete batch is dropped.

    ``positions`` are those of the data that have one entry per row; the others are the same in every batch.
    """

    def __init__(self, data: tuple, batch_size: int) -> None:
        self._data, rows = data, len(data[0])
        self.positions = [position for position, value in enumerate(data) if is_row_data(value, rows)]
        self._order = Order(rows, batch_size, data[0].device)

    def __iter__(self) -> Iterator[tuple]:
        return self

    def __next__(self) -> tuple:
        batch = list(self._data)
        for position, index in zip(self.positions, self.take(1), strict=True):
            batch[position] = gather(index)[0]
        return tuple(batch)

    def take(self, count: int) -> list[RowIndex]:
        """Return the next ``count`` batches of the data with rows."""
        index = self._order.take(count)
        return [RowIndex(self._data[position], index) for position in self.positions]

    def state(self) -> Any:
        """Return the order of the rows in this epoch, and how many have been taken."""
        return self._order.state()

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch."""
        self._order.restore(state)


def _out_of_range(batch_size: int, rows: int) -> str:
    return f"svi: batch_size must lie between 1 and the number of rows, {rows}; got {batch_size}"


def _first(data: tuple, size: int) -> tuple:
    return tuple(value[:size] if is_row_data(value, len(data[0])) else value for value in data)


def _subsamples(trace: Trace, plate: str) -> bool:
    """Whether a plate stands for more rows than it has, and scales by itself."""
    fn = nodes(trace)[plate]["fn"]
    return (fn.subsample_size or fn.size) < fn.size


def _plates(trace: Trace, size: int) -> set[str]:
    frames = (frame for site in nodes(trace).values() if site["type"] == "sample" for frame in site["cond_indep_stack"])
    return {frame.name for frame in frames if frame.size == size}
