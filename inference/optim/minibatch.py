"""Minibatches for any model with a plate over its rows: batches of rows, and the scale that makes up for the rest."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ..traces.params import trace_at
from ..traces.sites import Scale, is_latent, nodes

MAX_ROWS = 1_000_000  # that are gone through in epochs; of more rows, only batches and an example are ever read


def _is_within(plates: set[str], site: Mapping[str, Any]) -> bool:
    return any(frame.name in plates for frame in site["cond_indep_stack"])


def row_scale(model: Callable, data: tuple, batch_size: int, *, autoguide: bool) -> Scale:
    """Return the scale of all that is in plates over the rows of ``data``, if batches can stand for all rows."""
    rows = len(data[0])
    if not 1 <= batch_size <= rows:
        raise ValueError(f"svi: batch_size must lie between 1 and the number of rows, {rows}; got {batch_size}")
    more = min(rows, 2 * batch_size)
    with torch.random.fork_rng():
        trace, part = (poutine.trace(model).get_trace(*_first(data, size)) for size in (more, batch_size))
    plates = _plates(trace, more) & _plates(part, batch_size)
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
    return Scale(lambda site: _is_within(plates, site), rows / batch_size)


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


class RowIndex(NamedTuple):
    """Batches of one tensor's rows that have not been gathered yet."""

    data: Tensor  # (n, …)
    rows: Tensor  # (count, batch): indices


def gather(values: Tensor | RowIndex) -> Tensor:
    """Return the rows indexed, shape (count, batch, …); a tensor as it is."""
    if isinstance(values, Tensor):
        return values
    data, rows = values
    return data.index_select(0, rows.flatten()).view(*rows.shape, *data.shape[1:])


class Batches:
    """Endless batches: shuffled epochs; the last incomplete batch is dropped.

    Batches of more than `MAX_ROWS` rows are drawn independently, so that cost and memory do not grow with the rows.
    ``positions`` are those of the data that have one entry per row; the others are the same in every batch.
    """

    def __init__(self, data: tuple, batch_size: int) -> None:
        self._data, self._batch_size, self._rows = data, batch_size, len(data[0])
        self.positions = [position for position, value in enumerate(data) if is_row_data(value, self._rows)]
        self._order, self._at = torch.empty(0, dtype=torch.long), 0

    def __iter__(self) -> Iterator[tuple]:
        return self

    def __next__(self) -> tuple:
        batch = list(self._data)
        for position, index in zip(self.positions, self.take(1), strict=True):
            batch[position] = gather(index)[0]
        return tuple(batch)

    def take(self, count: int) -> list[RowIndex]:
        """Return the next ``count`` batches of the data with rows."""
        if self._rows > MAX_ROWS:
            index = torch.randint(self._rows, (count, self._batch_size), device=self._data[0].device)
        else:
            index = torch.stack([self._next_rows() for _ in range(count)])
        return [RowIndex(self._data[position], index) for position in self.positions]

    def state(self) -> Any:
        """Return the order of the rows in this epoch, and how many have been taken."""
        return {"order": self._order, "at": self._at}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch."""
        self._order, self._at = state["order"].to(self._data[0].device), state["at"]

    def _next_rows(self) -> Tensor:
        if self._at + self._batch_size > len(self._order):
            self._order, self._at = torch.randperm(self._rows, device=self._data[0].device), 0
        self._at += self._batch_size
        return self._order[self._at - self._batch_size : self._at]


def _first(data: tuple, size: int) -> tuple:
    return tuple(value[:size] if is_row_data(value, len(data[0])) else value for value in data)


def _plates(trace: Trace, size: int) -> set[str]:
    frames = (frame for site in nodes(trace).values() if site["type"] == "sample" for frame in site["cond_indep_stack"])
    return {frame.name for frame in frames if frame.size == size}
