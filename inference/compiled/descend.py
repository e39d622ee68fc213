"""The loop around a compiled step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..graph import Untraceable
from ..optimise import schedule
from ..progress import Progress
from .optimisers import RULES
from .program import compiled, no_compiler
from .record import record
from .tidy import lean

UNROLL = 4  # steps in a row, where that pays
WORTH_UNROLLING = 100_000  # steps of a fit from which it does: each step of the row is compiled anew
LARGEST_UNROLLED = 200  # nodes of a graph: in larger ones what a call costs beside the step is little
CHECKS = 3  # draws, and minibatches, at which the graph must give the eager loss and gradient
LOOK = 100  # calls after which the losses are looked at
NOISE = 1_000_000  # numbers drawn at once, at most


def minimise_compiled(
    loss: Any,
    model: Callable,
    guide: Callable,
    leaves: Sequence[Tensor],
    data: tuple,
    stream: Iterator[tuple] | None,
    *,
    optim: type[torch.optim.Optimizer],
    lr: float,
    num_steps: int,
    bar: Progress,
) -> Tensor:
    """Take gradient steps as `optimise.minimise` does, compiled; leaves the average of the last iterates in ``leaves``.

    Parameters
    ----------
    loss : pyro.infer.ELBO
    model, guide : callable
        With their parameters made.
    leaves : sequence of Tensor
        Unconstrained parameters, of one type and on one device.
    data : tuple
        Arguments of model and guide.
    stream : iterator or None
        Minibatches; None where every step takes ``data``.
    optim, lr, num_steps, bar
        As for `optimise.minimise`; ``optim`` must be one of `optimisers.RULES`.

    Returns
    -------
    Tensor, shape (num_steps,)
        The losses.

    Raises
    ------
    Untraceable
        If the step cannot be recorded or compiled; nothing has changed then.
    FloatingPointError
        At a loss that is not finite; ``leaves`` hold the parameters of a step shortly before.
    """
    if missing := no_compiler():
        raise Untraceable(missing)
    if optim not in RULES:
        raise Untraceable(f"{optim.__name__} is none of {', '.join(rule.__name__ for rule in RULES)}")
    if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
        raise Untraceable("its parameters are of several types, or on several devices")
    bar.update(0, "compiling")
    rule = RULES[optim]
    for leaf in leaves:
        leaf.grad = None
    samples = [data if stream is None else next(stream) for _ in range(CHECKS)]
    rows = [] if stream is None else [p for p, value in enumerate(data) if isinstance(value, Tensor)]
    changing = [samples[0][position] for position in rows]
    graph = record(loss, model, guide, leaves, samples, rows)
    step = lean(graph, [*(leaf.detach() for leaf in leaves), *changing])
    pays = not rows and num_steps >= WORTH_UNROLLING and len(step.graph.graph.nodes) <= LARGEST_UNROLLED
    unroll = UNROLL if pays else 1
    run = compiled(step, rule, leaves, changing, unroll)

    parameters = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
    state = [parameters, torch.zeros_like(parameters), *(torch.zeros_like(parameters) for _ in range(rule.states))]
    plan = [(*rule.numbers(t + 1, rate), weight) for t, (rate, weight) in enumerate(schedule(lr, num_steps))]
    plan += [(*(0.0 for _ in plan[0][:-1]), 0.0)] * (-num_steps % unroll)  # steps that do nothing
    table = torch.tensor(plan, dtype=parameters.dtype, device=parameters.device).split(unroll)
    calls = len(table)
    noise = _noise(parameters, calls, unroll, step.noise)
    losses = []
    for start in range(0, calls, LOOK):
        before, found = state[0], []
        with torch.no_grad():
            for numbers in table[start : start + LOOK]:
                batch = () if stream is None else next(stream)
                part = [batch[position] for position in rows]
                value, *state = run(*state, numbers, *next(noise), *step.constants, *part)
                found.append(value)
        losses.append(torch.cat(found).double().cpu())
        if not torch.isfinite(losses[-1]).all():
            _spread(before, leaves)
            bad = int((~torch.isfinite(losses[-1])).nonzero()[0])
            raise FloatingPointError(f"the loss is {float(losses[-1][bad])} at step {start * unroll + bad}")
        bar.update(min((start + LOOK) * unroll, num_steps), f"ELBO {-float(losses[-1].mean()):.2f}")
    _spread(state[1], leaves)
    return torch.cat(losses)[:num_steps]


def _noise(like: Tensor, calls: int, unroll: int, sizes: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Standard normal and uniform numbers for each call, shapes (unroll, size), drawn for many calls at once."""
    block = max(1, min(256, NOISE // (unroll * max(1, sum(sizes)))))
    for start in range(0, calls, block):
        shape = (min(block, calls - start), unroll)
        normal, uniform = like.new_empty(*shape, sizes[0]).normal_(), like.new_empty(*shape, sizes[1]).uniform_()
        yield from zip(normal.unbind(), uniform.unbind(), strict=True)


def _spread(vector: Tensor, leaves: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for part, leaf in zip(vector.split([leaf.numel() for leaf in leaves]), leaves, strict=True):
            leaf.copy_(part.view(leaf.shape))
