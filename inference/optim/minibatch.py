"""Minibatches for any model that puts its rows in a plate: batches of rows, and the scale that makes up for them."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..traces.draws import is_latent, nodes

SHUFFLED = 1_000_000  # rows, at most, that are gone through in epochs


class RowScale(Messenger):
    """Multiplies the log density of every site within the given plates, so that a batch stands for all rows."""

    def __init__(self, plates: set[str], scale: float) -> None:
        super().__init__()
        self.plates, self.scale = plates, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if any(frame.name in self.plates for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.scale


def is_row_data(value: Any, rows: int) -> bool:
    """Whether an argument is a tensor with a row for each datum."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows


def row_scale(model: Callable, data: tuple, batch_size: int, *, autoguide: bool) -> RowScale:
    """Find the model's plates over the rows of ``data``, and check that batches of rows can stand for all of them.

    Raises
    ------
    ValueError
        If ``batch_size`` is out of range, no plate has as many entries as the data has rows, an autoguide would
        have to give every row parameters of its own, or the prior itself depends on the data.
    """
    rows = len(data[0])
    if not 1 <= batch_size <= rows:
        raise ValueError(f"svi: batch_size must lie between 1 and the number of rows, {rows}; got {batch_size}")
    more = min(rows, 2 * batch_size)
    with torch.random.fork_rng():
        trace, part = (poutine.trace(model).get_trace(*_first(data, rows, size)) for size in (more, batch_size))
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
    again = poutine.trace(poutine.condition(model, data=values)).get_trace(*_first(data, rows, batch_size))
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


def glimpse(data: tuple, batch_size: int | None) -> tuple:
    """What stands for the data where something has to be done once, outside of the steps.

    All of them, unless a fit in minibatches has more than `SHUFFLED` rows: then a hundredth of that, evenly spaced.
    """
    if batch_size is None or len(data[0]) <= SHUFFLED:
        return data
    rows = len(data[0])
    return tuple(value[:: 100 * rows // SHUFFLED] if is_row_data(value, rows) else value for value in data)


class Picked(NamedTuple):
    """Batches of one tensor's rows, gathered when they are needed.

    Attributes
    ----------
    data : Tensor, shape (n, …)
    rows : Tensor, shape (count, batch)
        Their indices.
    """

    data: Tensor
    rows: Tensor


def gathered(values: Tensor | Picked) -> Tensor:
    """The rows that were picked, shape (count, batch, …); a tensor as it is."""
    if isinstance(values, Tensor):
        return values
    data, rows = values
    return data.index_select(0, rows.flatten()).view(*rows.shape, *data.shape[1:])


class Batches:
    """Endless batches: epochs of freshly shuffled rows, of which the last that fill no batch are left out.

    Of more than `SHUFFLED` rows each batch is drawn by itself, so that cost and memory do not grow with their number.

    Attributes
    ----------
    positions : list of int
        Which of the data have a row for each datum; the rest is in every batch as it is.
    """

    def __init__(self, data: tuple, batch_size: int) -> None:
        self._data, self._batch_size, self._rows = data, batch_size, len(data[0])
        self.positions = [position for position, value in enumerate(data) if is_row_data(value, self._rows)]
        self._epochs = self._shuffled()

    def __next__(self) -> tuple:
        batch = list(self._data)
        for position, picked in zip(self.positions, self.take(1), strict=True):
            batch[position] = gathered(picked)[0]
        return tuple(batch)

    def take(self, count: int) -> list[Picked]:
        """That many batches of what has rows."""
        if self._rows > SHUFFLED:
            index = torch.randint(self._rows, (count, self._batch_size), device=self._data[0].device)
        else:
            index = torch.stack(list(islice(self._epochs, count)))
        return [Picked(self._data[position], index) for position in self.positions]

    def _shuffled(self) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(self._rows, device=self._data[0].device)
            yield from order[: len(order) - len(order) % self._batch_size].split(self._batch_size)


def _first(data: tuple, rows: int, size: int) -> tuple:
    return tuple(value[:size] if is_row_data(value, rows) else value for value in data)


def _plates(trace: poutine.Trace, size: int) -> set[str]:
    frames = (frame for site in nodes(trace).values() if site["type"] == "sample" for frame in site["cond_indep_stack"])
    return {frame.name for frame in frames if frame.size == size}
