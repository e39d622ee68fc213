"""Compiled steps, one call from Python each: for programs that neither a C++ loop nor a CUDA graph can run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...optim.minibatch import RowIndex, gather


class PythonLoop:
    """Take steps in a row, as `CppLoop` does; its parameters are the same but for the compiled step itself."""

    def __init__(
        self, step: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], states: int, streams: Sequence[int]
    ) -> None:
        self.state = list(inputs[:states])
        self._step, self._inputs, self._streams = step, list(inputs), streams

    def run(self, streams: Sequence[Tensor | RowIndex]) -> Tensor:
        """Take one step per row of the streams; returns the losses (step,)."""
        losses = []
        for rows in zip(*map(gather, streams), strict=True):
            for position, row in zip(self._streams, rows, strict=True):
                self._inputs[position] = row
            loss, *self.state = self._step(*self.state, *self._inputs[len(self.state) :])
            losses.append(loss)
        return torch.stack(losses)
