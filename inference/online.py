"""Online learning: parameters moved by batches of rows that are read once, by steps that decay.

A model's own updates (`optim/by_updates.py`) or gradients of the ELBO (`optim/by_gradients.py`) learn from each batch.

Robbins and Monro (1951), A stochastic approximation method, Annals of Mathematical Statistics 22; Hoffman, Blei and
Bach (2010), Online learning for latent Dirichlet allocation, NeurIPS; Cappé and Moulines (2009), On-line
expectation-maximization algorithm for latent data models, JRSS B 71; Hoffman, Blei, Wang and Paisley (2013), Stochastic
variational inference, JMLR 14.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from .checkpoints import Place, states_of
from .info import OnlineInfo
from .optim.by_gradients import OFFSET as OFFSET_OF_GRADIENTS
from .optim.by_gradients import ByGradients
from .optim.by_updates import ByUpdates
from .optim.warm_start import Init
from .options import at_least_one, options_by_name
from .posterior import Posterior
from .progress import Progress
from .streams import Stream, stream
from .streams.batches import StreamBatches
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import OnlineSteps

OFFSET = 10.0  # of a model's own steps, which are fractions of the way


@options_by_name
def online(
    model: "OnlineSteps | Callable",
    *data: Any,
    guide: Callable | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    num_epochs: int = 1,
    num_rows: int | None = None,
    decay: float = 0.7,
    offset: float | None = None,
    lr: float | None = None,
    optim: Callable[..., torch.optim.Optimizer] | Mapping[str, Any] | None = None,
    init: Init | None = None,
    num_draws: int = 1000,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[OnlineInfo]:
    """Learn from batches of rows, each of which is read once; go on later with more.

    ``online(model, guide, rows)`` takes one gradient step of the ELBO per batch, for any Pyro model with a
    ``pyro.plate`` over its rows and any guide that computes the rows' latent variables, if there are any, from the
    rows, as an encoder does. Its answer is an average of the iterates, late ones weighing more
    (`guidebook.inference.optim.by_gradients`). ``online(steps, rows)`` updates a model's own statistics.

    Step t has size (offset + t)^-decay, t counted over all fits that went on from one another: Robbins and Monro's
    conditions hold for decays above .5.

    Parameters
    ----------
    model : callable or OnlineSteps
        A Pyro model; or steps, as a model's ``online_steps(**options)`` returns them: `gmm`, `mixture` and `lda` of
        `guidebook.models` have some.
    *data
        The guide or guide family of a Pyro model, as in `svi`; then the rows, a `Stream` or whatever
        `guidebook.inference.streams.stream` takes.
    guide : callable, optional
        The guide, by name instead.
    model_kwargs : mapping, optional
        Options of the model and the guide, by name.
    batch_size : int, optional
        Rows per step. Default: what the source says, or 1,000, or all if they are fewer.
    num_epochs : int
        How often all rows are gone through.
    num_rows : int, optional
        How many rows there are in all, of which these may be a part: topics, and other latent variables that are not of
        rows, are learned as if there were so many. Default: as many as are given.
    decay : float
        Between .5, exclusive, and 1.
    offset : float, optional
        At least 0: a larger one slows the first steps down. Default: 10, and 100 for gradient steps.
    lr : float, optional
        What the sizes of gradient steps are multiplied by. Default: 0.75, so that they begin at .03, and are .004 after
        2,000.
    optim : type, functools.partial or dict, optional
        How gradients, which are per row, become steps: `torch.optim.Adam`, RMSprop or SGD, with other arguments as in
        `svi`. Default: Adam, which divides them by their running root mean square, so that one ``lr`` suits parameters
        of any scale. SGD is the method of Robbins and Monro, and needs an ``lr`` of its own.
    init : Posterior or dict of Tensor, optional
        Where to go on: a fit by these steps, or by `em` or `cavi` with the same parameters; a fit of the same guide, or
        its ``params``, or another posterior, as in `svi`. Of a fit by `online`, the count of steps, the average and the
        optimiser's memory go on, too. Default: a start from the first batch, which should have many rows per component.
    num_draws : int
        Draws from the guide, but for the rows' own latent variables; or from q, for steps that have one.
    seed : int
        The noise of gradient step t depends on this and on t alone: rows that come in a given order lead to the same
        numbers, to the bit, in one fit and in several that go on from one another.
    device : str or torch.device, optional
        Where to learn a guide, such as "cuda"; default: where the data are.
    progress : bool
        Whether to show a bar.
    checkpoint, every
        As in `svi`.

    Returns
    -------
    Posterior
        ``info`` (`OnlineInfo`) says how well each batch was predicted before it was learned from.

    Raises
    ------
    ValueError
        If an option is out of range, or the data are of a kind that cannot be read in batches, or batches cannot stand
        for all rows under the model and the guide.
    ArithmeticError
        If the parameters stop being numbers, as where a component loses all its rows.
    """
    at_least_one("online", batch_size=batch_size, num_epochs=num_epochs, num_rows=num_rows, num_draws=num_draws)
    if not 0.5 < decay <= 1:
        raise ValueError(f"online: decay must lie between 0.5, exclusive, and 1, got {decay}")
    if offset is None:
        offset = OFFSET_OF_GRADIENTS if callable(model) else OFFSET
    if not offset >= 0:
        raise ValueError(f"online: offset must be at least 0, got {offset}")
    if not data or (isinstance(data[0], Stream) and len(data) > 1):
        raise ValueError("online: give the rows, after a model and its guide or after steps, and no more data")
    begin = time.perf_counter()
    rows = stream(data[0] if len(data) == 1 else data)  # those given by name are no stream yet
    size = min(batch_size or rows.batch_size or 1000, len(rows))
    in_all, total = num_rows or len(rows), num_epochs * (len(rows) // size)
    before = init.info if isinstance(init, Posterior) else None
    steps_before, rows_before = getattr(before, "num_batches", 0), getattr(before, "num_rows", 0)
    of_gradients = {"lr": lr, "optim": optim, "device": device}
    if callable(model):
        assert guide is not None  # what stands before the rows
        learner = ByGradients(model, guide, rows, in_all, init, batch_size=size, seed=seed, **of_gradients)
    else:
        learner = ByUpdates(model, rows, in_all, init, guide=guide, **of_gradients)
    states, scores = states_of(checkpoint), list[float]()
    with isolated(seed, learner.dtype), Progress("online", total, progress) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # the error below says where
        batches = StreamBatches(rows, size, learner.like)
        first = next(batches)
        learner.begin(first)
        states.add(batches=batches, learner=learner)
        if (saved := states.take("batches")) is not None:
            scores = saved.tolist()
        for batch in range(len(scores), total):
            number = steps_before + batch + 1
            scores.append(learner.learn((offset + number) ** -decay, number, next(batches) if batch else first))
            if not math.isfinite(scores[-1]):
                raise ArithmeticError(f"online: the score is {scores[-1]} at batch {batch}{learner.cause()}")
            states.offer("batches", lambda: torch.tensor(scores, dtype=torch.float64))
            bar.update(batch + 1, f"{scores[-1]:.4f} nats")
        found = learner.learned(num_draws, torch.tensor(scores, dtype=torch.float64))
    info = OnlineInfo(
        seconds=time.perf_counter() - begin,
        seed=seed,
        converged=True,
        message=f"read {total:,} batches of {size:,} rows",
        scores=torch.tensor(scores, dtype=torch.float64),
        num_batches=steps_before + total,
        num_rows=rows_before + total * size,
        streamed=rows.held(),
        **found.info,
    )
    return Posterior(draws=found.draws, params=found.params, info=info)
