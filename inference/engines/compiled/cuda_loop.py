"""Compiled steps on a GPU, one launch each: a CUDA graph that fetches its own inputs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...streams.order import RowIndex, gather

WARM_UP = 3  # calls before the captured one: kernels choose their settings, libraries allocate workspaces


def cuda_graph(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture the kernels that a function launches; returns a function that launches them all at once.

    A function that does something that cannot be captured, such as waiting for the device, is a RuntimeError.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another may be reading the next batches
            body()
    return graph.replay


class CudaGraphLoop:
    """Take steps in a row, as `CppLoop` does on a CPU.

    The inputs of a block of steps lie on the device, and so does the number of the step: the graph selects its rows,
    stores its loss and increments the number. ``capture`` is `cuda_graph`, or a stand-in for it.
    """

    def __init__(
        self,
        step: Callable,
        inputs: Sequence[Tensor],
        states: int,
        streams: Sequence[int],
        capture: Callable = cuda_graph,
    ) -> None:
        self.state = [value.clone() for value in inputs[:states]]
        self._step, self._rest, self._streams = step, list(inputs[states:]), [at - states for at in streams]
        self._capture = capture
        self._number = torch.zeros(1, dtype=torch.long, device=self.state[0].device)
        self._allocate([inputs[position].unsqueeze(0) for position in streams])

    def run(self, streams: Sequence[Tensor | RowIndex]) -> Tensor:
        """Take one step per row of the streams, shaped (step, …); returns the losses (step,)."""
        fresh = list(map(gather, streams))
        count = len(fresh[0])
        if count > len(self._losses):
            self._allocate(fresh)
        for rows, new in zip(self._rows, fresh, strict=True):
            rows[:count] = new
        self._number.zero_()
        for _ in range(count):
            self._launch()
        return self._losses[:count].clone()

    def _allocate(self, streams: Sequence[Tensor]) -> None:
        """Allocate memory for the rows and capture a step on it; the state stays as it was."""
        before = [value.clone() for value in self.state]
        self._rows = [rows.clone() for rows in streams]
        self._losses = self.state[0].new_empty(len(streams[0]))
        self._launch = self._capture(self._body, self._number.device)
        for value, old in zip(self.state, before, strict=True):
            value.copy_(old)

    def _body(self) -> None:
        for position, rows in zip(self._streams, self._rows, strict=True):
            self._rest[position] = rows.index_select(0, self._number).squeeze(0)
        loss, *after = self._step(*self.state, *self._rest)
        for value, new in zip(self.state, after, strict=True):
            value.copy_(new)
        self._losses.index_copy_(0, self._number, loss.reshape(1).to(self._losses))
        self._number.add_(1).remainder_(len(self._losses))
