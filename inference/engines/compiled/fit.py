"""The loop around a compiled step."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...optim.minibatch import Batches
from ...optim.sgd import schedule
from ...progress import Progress
from ..graph import CannotCompile
from .optimisers import RULES
from .program import compiled, no_compiler
from .record import record
from .tidy import lean

CHECKS = 3  # draws, and minibatches, at which the graph must give the eager loss and gradient
LOOK = 200  # steps after which the losses are looked at
WORK = 20_000_000  # numbers that steps may read, about, before they can be interrupted
NUMBERS = 1_000_000  # of noise and data, at most, that are made ready for steps to come


def fit_compiled(
    loss: Any,
    model: Callable,
    guide: Callable,
    leaves: Sequence[Tensor],
    data: tuple,
    stream: Batches | None,
    *,
    optim: type[torch.optim.Optimizer],
    lr: float,
    num_steps: int,
    bar: Progress,
) -> Tensor:
    """Take gradient steps as `optimise.minimise` does, compiled; leaves the average of the last iterates in ``leaves``.

    Parameters
    ----------
    loss : pyro.infer.ELBO or callable
        The same at every call.
    model, guide : callable
        With their parameters made.
    leaves : sequence of Tensor
        Unconstrained parameters, of one type and on one device.
    data : tuple
        Arguments of model and guide.
    stream : Batches or None
        Minibatches; None where every step takes ``data``.
    optim, lr, num_steps, bar
        As for `optimise.minimise`; ``optim`` must be one of `optimisers.RULES`.

    Returns
    -------
    Tensor, shape (num_steps,)
        The losses.

    Raises
    ------
    CannotCompile
        If the step cannot be recorded or compiled; nothing has changed then.
    FloatingPointError
        At a loss that is not finite; ``leaves`` hold the parameters of a step shortly before.
    """
    if missing := no_compiler():
        raise CannotCompile(missing)
    if optim not in RULES:
        raise CannotCompile(f"{optim.__name__} is none of {', '.join(rule.__name__ for rule in RULES)}")
    if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
        raise CannotCompile("its parameters are of several types, or on several devices")
    bar.update(0, "compiling")
    rule = RULES[optim]
    for leaf in leaves:
        leaf.grad = None
    samples = [data if stream is None else next(stream) for _ in range(CHECKS)]
    rows = [] if stream is None else stream.positions
    changing = [samples[0][position] for position in rows]
    with _without_collecting():
        graph = record(loss, model, guide, leaves, samples, rows)
        step = lean(graph, [*(leaf.detach() for leaf in leaves), *changing])
        steps = compiled(step, rule, leaves, changing)

    rates, weights = schedule(lr, num_steps)
    like = steps.state[0]
    table = torch.stack([*rule.numbers(torch.arange(1, num_steps + 1), rates), weights], 1).to(like)
    fresh = sum(step.noise) + sum(value.numel() for value in changing)
    read = 1 + fresh + sum(value.numel() for value in step.constants)
    block = max(1, min(LOOK, NUMBERS // (1 + fresh), WORK // read))
    losses = []
    for numbers in table.split(block):
        count, before = len(numbers), steps.state[0].clone()
        normal = like.new_empty(count, step.noise[0]).normal_()
        uniform = like.new_empty(count, step.noise[1]).uniform_()
        with torch.no_grad():
            found = steps.play([numbers, normal, uniform, *([] if stream is None else stream.take(count))])
        losses.append(found.double().cpu())
        done = block * len(losses)
        if not torch.isfinite(losses[-1]).all():
            _spread(before, leaves)
            bad = int((~torch.isfinite(losses[-1])).nonzero()[0])
            raise FloatingPointError(f"the loss is {float(losses[-1][bad])} at step {done - block + bad}")
        bar.update(min(done, num_steps), f"ELBO {-float(losses[-1].mean()):.2f}")
    _spread(steps.state[1], leaves)
    return torch.cat(losses)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Graphs are many small objects, none of which is garbage before all are: the collector would take a third."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _spread(vector: Tensor, leaves: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for part, leaf in zip(vector.split([leaf.numel() for leaf in leaves]), leaves, strict=True):
            leaf.copy_(part.view(leaf.shape))
