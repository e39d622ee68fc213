"""Fit the parameters of guide and model by compiled steps."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import NOT_KEPT, Checkpoint
from ...optim.callback import WatchedPlan
from ...optim.minibatch import Batches
from ...optim.retry import GuardedPlan
from ...optim.rules import not_compiled, rule_of
from ...optim.stopping import AnyPlan
from ...progress import Progress
from ...streams.batches import StreamBatches
from ...traces.moments import put
from ..graph import CannotCompile, without_garbage_collection
from .compile_step import compile_step, no_compiler
from .functionalise import functionalise
from .trace_step import trace_step

CHECKS = 3  # draws, and minibatches, at which the graph must agree with the eager loss and gradient
MAX_BLOCK = 200  # steps per call, after which the losses are checked
MAX_READ = 20_000_000  # numbers that a call may read, so that it can be interrupted soon
MAX_PREPARED = 1_000_000  # numbers of noise and data that are drawn per call


def fit_compiled(
    loss: Any,
    model: Callable,
    guide: Callable,
    leaves: Sequence[Tensor],
    data: tuple,
    stream: Batches | StreamBatches | None,
    *,
    optim: Callable[..., torch.optim.Optimizer],
    plan: AnyPlan | WatchedPlan | GuardedPlan,
    bar: Progress,
    states: Checkpoint = NOT_KEPT,
) -> Tensor:
    """Take the steps of a plan as the eager loop of `svi` does; return the losses (step,), in nats.

    The parameters exist already; ``leaves``, the unconstrained ones, get the average of the last iterates, or the last
    one if steps ended before they were averaged. Without a ``stream`` of minibatches every step uses ``data``. After a
    `CannotCompile` nothing has changed; after a FloatingPointError, for a loss that is not finite, ``leaves`` hold the
    parameters of a step shortly before.
    """
    if missing := no_compiler():
        raise CannotCompile(missing)
    if (rule := rule_of(optim)) is None:
        raise CannotCompile(not_compiled(optim))
    if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
        raise CannotCompile("its parameters have several dtypes, or are on several devices")
    bar.update(0, "compiling")
    for leaf in leaves:
        leaf.grad = None
    samples = [data if stream is None else next(stream) for _ in range(CHECKS)]
    rows = [] if stream is None else stream.positions
    changing = [samples[0][position] for position in rows]
    with without_garbage_collection():
        graph = trace_step(loss, model, guide, leaves, samples, rows)
        step = functionalise(graph, [*(leaf.detach() for leaf in leaves), *changing])
        loop = compile_step(step, rule, leaves, changing)

    like = loop.state[0]
    fresh = sum(step.noise) + sum(value.numel() for value in changing)
    read = 1 + fresh + sum(value.numel() for value in step.constants)
    most = max(1, min(MAX_BLOCK, MAX_PREPARED // (1 + fresh), MAX_READ // read))
    losses, done, averaged = [], 0, False
    states.add(plan=plan)
    if (saved := states.take("compiled")) is not None:
        losses, done, averaged = [saved["losses"]], len(saved["losses"]), saved["averaged"]
        for value, kept in zip(loop.state, saved["state"], strict=True):
            value.copy_(kept)
    while (block := plan.next(most)) is not None:
        count, before = len(block.rates), loop.state[0].clone()
        counted = torch.arange(done + 1, done + count + 1)
        numbers = torch.stack([*rule.numbers(counted, block.rates), block.weights], 1).to(like)
        normal = like.new_empty(count, step.noise[0]).normal_()
        uniform = like.new_empty(count, step.noise[1]).uniform_()
        with torch.no_grad():
            found = loop.run([numbers, normal, uniform, *([] if stream is None else stream.take(count))])
        losses.append(found.double().cpu())
        if not torch.isfinite(losses[-1]).all():
            put(before, leaves)
            bad = int((~torch.isfinite(losses[-1])).nonzero()[0])
            raise FloatingPointError(f"the loss is {float(losses[-1][bad])} at step {done + bad}")
        done += count
        averaged = bool(block.weights[-1])
        plan.note(loop.state[0], losses[-1])
        states.offer("compiled", partial(_stand, loop.state, losses, averaged))
        bar.update(done, f"ELBO {-float(losses[-1].mean()):.2f}")
    put(loop.state[1 if averaged else 0], leaves)
    return torch.cat(losses)


def _stand(state: list[Tensor], losses: list[Tensor], averaged: bool) -> dict[str, Any]:
    """Return what a checkpoint keeps after a block of steps."""
    return {"state": state, "losses": torch.cat(losses), "averaged": averaged}
