"""What a fit by gradient steps begins with: the parameters, made by a first step, and the batches of the data."""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from ..distributed.ranks import Ranks
from ..distributed.streams import RankBatches
from ..streams import Stream
from ..streams.batches import StreamBatches
from ..traces.errors import explained
from ..traces.guides import is_point
from ..traces.log_joint import LogJoint
from ..traces.params import trace_pair, unconstrained_params
from ..traces.validation import unvalidated
from .losses import loss_and_grads
from .minibatch import Batches, batches_of, row_scale


class Job(NamedTuple):
    """What is fitted to what."""

    loss: Any
    model: Callable
    guide: Callable
    owner: Callable  # the model as it was given, which may be a module
    joint: LogJoint  # of the owner
    data: tuple
    example: tuple  # all rows, or some of them
    source: Stream | None  # of data that are read in blocks


class First(NamedTuple):
    """Parameters, and what estimates their gradients."""

    params: list[Tensor]  # unconstrained leaves
    model: Callable  # of a batch, scaled up to all rows
    guide: Callable
    stream: Batches | StreamBatches | None  # None: all rows in every step
    batches: Iterator[tuple]  # endless
    estimate: Callable[..., Any]  # of a batch: the loss; the gradient is added to that of the parameters
    point: bool  # whether the guide is one
    traces: tuple[Trace, Trace]  # of guide and model


def first_step(job: Job, batch_size: int | None, ranks: Ranks) -> First:
    """Make the parameters of guide and model; ValueError, with the site and the row, if either cannot be run."""
    job.guide(*job.example)  # creates the guide's parameters
    stream, model, guide = None, job.model, job.guide
    if batch_size is not None:
        rows = len(job.data[0]) if job.source is None else len(job.source)
        is_auto = isinstance(guide, AutoGuide)
        scale = row_scale(model, job.data, batch_size, autoguide=is_auto, num_rows=rows)
        alone = ranks.size == 1
        stream = batches_of(job.source, job.data, batch_size) if alone else RankBatches(job.data, batch_size, ranks)
        model, guide = scale(model), scale(guide)
    batches = repeat(job.data) if stream is None else stream

    def estimate(*batch: Any) -> Any:
        return loss_and_grads(job.loss, model, guide, batch)

    try:
        estimate(*next(batches))  # creates the model's parameters, and validates once what every step repeats
    except (ValueError, RuntimeError) as error:
        raise ValueError(explained("svi", error, "step")) from None
    params = unconstrained_params(job.owner, job.guide)
    with torch.random.fork_rng(), torch.no_grad(), unvalidated():  # at another draw than that which was validated
        point, traces = is_point(job.guide, job.example), trace_pair(job.model, job.guide, job.example)
    return First(params, model, guide, stream, batches, estimate, point, traces)
