"""Minibatches for any model with a plate over its rows: batches of rows, and the scale that makes up for the rest."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..traces.sites import is_latent, nodes

MAX_ROWS = 1_000_000  # that are gone through in epochs; of more rows, only batches and an example are ever read


class RowScale(Messenger):
    """Multiplies the log density of every site within the given plates, so that a batch stands for all rows."""

    def __init__(self, plates: set[str], scale: float) -> None:
        super().__init__()
        self.plates, self.scale = plates, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if any(frame.name in self.plates for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.scale


def row_scale(model: Callable, data: tuple, batch_size: int, *, autoguide: bool) -> RowScale:
    """Find the model's plates over the rows of ``data``, and check that batches of rows can stand for all of them.

    Raises
    ------
    ValueError
        If ``batch_size`` is out of range, no plate has as many entries as the data has rows, an autoguide would
        need parameters for every row, or the prior itself depends on the data.
    """
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
    local = [n for n, site in latent.items() if any(f.name in plates for f in site["cond_indep_stack"])]
    if local and autoguide:
        raise ValueError(
            f"svi: site {local[0]!r} has a value for each row, so an autoguide cannot be fitted in minibatches: "
            "leave batch_size out, or write a guide that computes it from the row"
        )
    values = {name: site["value"] for name, site in latent.items() if name not in local}
    again = poutine.trace(poutine.condition(model, data=values)).get_trace(*_first(data, batch_size))
    trace.compute_log_prob()
    again.compute_log_prob()
    for name in values:
        before, after = nodes(trace)[name]["log_prob_sum"], nodes(again)[name]["log_prob_sum"]
        if not torch.allclose(before, after, rtol=1e-4):
            raise ValueError(
                f"svi: the prior of {name!r} changes with the rows given, so minibatches would fit another model: "
                "give the prior explicitly"
            )
    return RowScale(plates, rows / batch_size)


def is_large(data: tuple, batch_size: int | None) -> bool:
    """Whether the data are too many to evaluate at once: a fit in minibatches of more than `MAX_ROWS` rows."""
    return batch_size is not None and len(data[0]) > MAX_ROWS


def example_rows(data: tuple) -> tuple:
    """Return a hundredth of `MAX_ROWS`, evenly spaced, for one-off work on large data (initialisation, tracing)."""
    rows = len(data[0])
    return tuple(value[:: 100 * rows // MAX_ROWS] if is_row_data(value, rows) else value for value in data)


def is_row_data(value: Any, rows: int) -> bool:
    """Whether an argument is a tensor with one entry per row."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows


class RowIndex(NamedTuple):
    """Batches of one tensor's rows that have not been gathered yet.

    Attributes
    ----------
    data : Tensor, shape (n, …)
    rows : Tensor, shape (count, batch)
        Indices of the rows.
    """

    data: Tensor
    rows: Tensor


def gather(values: Tensor | RowIndex) -> Tensor:
    """Return the rows indexed, shape (count, batch, …); a tensor as it is."""
    if isinstance(values, Tensor):
        return values
    data, rows = values
    return data.index_select(0, rows.flatten()).view(*rows.shape, *data.shape[1:])


class Batches:
    """Endless batches: shuffled epochs; the last incomplete batch is dropped.

    Batches of more than `MAX_ROWS` rows are drawn independently, so that cost and memory do not grow with the rows.

    Attributes
    ----------
    positions : list of int
        Which of the data have one entry per row; the others are the same in every batch.
    """

    def __init__(self, data: tuple, batch_size: int) -> None:
        self._data, self._batch_size, self._rows = data, batch_size, len(data[0])
        self.positions = [position for position, value in enumerate(data) if is_row_data(value, self._rows)]
        self._epochs = self._shuffled()

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
            index = torch.stack(list(islice(self._epochs, count)))
        return [RowIndex(self._data[position], index) for position in self.positions]

    def _shuffled(self) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(self._rows, device=self._data[0].device)
            yield from order[: len(order) - len(order) % self._batch_size].split(self._batch_size)


def _first(data: tuple, size: int) -> tuple:
    return tuple(value[:size] if is_row_data(value, len(data[0])) else value for value in data)


def _plates(trace: Trace, size: int) -> set[str]:
    frames = (frame for site in nodes(trace).values() if site["type"] == "sample" for frame in site["cond_indep_stack"])
    return {frame.name for frame in frames if frame.size == size}
