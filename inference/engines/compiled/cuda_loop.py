"""Compiled steps one after another on a GPU, at one launch a step: a CUDA graph that fetches what is its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...optim.minibatch import Picked, gathered

WARM_UP = 3  # calls before the one that is captured: kernels choose their settings, libraries their workspaces


def cuda_graph(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture what a function launches; returns what launches it again, all at once.

    Raises
    ------
    RuntimeError
        If it does something that cannot be captured, such as waiting for the device.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            body()
    return graph.replay


class Captured:
    """Takes steps in a row, as `Player` does on a CPU.

    What changes from step to step lies on the device for a block of steps, and so does the number of the step: the
    graph picks its rows, writes its loss down and counts on.

    Parameters
    ----------
    run : callable
        The compiled step.
    inputs : sequence of Tensor
        Its arguments: the state, then the rest.
    states : int
        How many of the arguments a step gives anew, behind its loss.
    streams : sequence of int
        Positions of the arguments that change from step to step.
    capture : callable
        `cuda_graph`, or what does as it does.

    Raises
    ------
    RuntimeError
        If the step cannot be captured.
    """

    def __init__(
        self,
        run: Callable[..., Sequence[Tensor]],
        inputs: Sequence[Tensor],
        states: int,
        streams: Sequence[int],
        capture: Callable[[Callable[[], None], torch.device], Callable[[], None]] = cuda_graph,
    ) -> None:
        self.state = [value.clone() for value in inputs[:states]]
        self._run, self._rest, self._streams = run, list(inputs[states:]), [at - states for at in streams]
        self._capture = capture
        self._now = torch.zeros(1, dtype=torch.long, device=self.state[0].device)
        self._prepare([inputs[position].unsqueeze(0) for position in streams])

    def play(self, streams: Sequence[Tensor | Picked]) -> Tensor:
        """Take a step for each row of the streams, shaped (step, …); returns the losses (step,)."""
        fresh = list(map(gathered, streams))
        count = len(fresh[0])
        if count > len(self._losses):
            self._prepare(fresh)
        for rows, new in zip(self._rows, fresh, strict=True):
            rows[:count] = new
        self._now.zero_()
        for _ in range(count):
            self._replay()
        return self._losses[:count].clone()

    def _prepare(self, streams: Sequence[Tensor]) -> None:
        """Make room for the rows and capture a step on them, which leaves the state as it was."""
        before = [value.clone() for value in self.state]
        self._rows = [rows.clone() for rows in streams]
        self._losses = self.state[0].new_empty(len(streams[0]))
        self._replay = self._capture(self._step, self._now.device)
        for value, old in zip(self.state, before, strict=True):
            value.copy_(old)

    def _step(self) -> None:
        for position, rows in zip(self._streams, self._rows, strict=True):
            self._rest[position] = rows.index_select(0, self._now).squeeze(0)
        loss, *after = self._run(*self.state, *self._rest)
        for value, new in zip(self.state, after, strict=True):
            value.copy_(new)
        self._losses.index_copy_(0, self._now, loss.reshape(1).to(self._losses))
        self._now.add_(1).remainder_(len(self._losses))
