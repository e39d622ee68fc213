"""Online learning: estimates, or topics, moved by batches of rows that are read once, with a decaying step.

Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NeurIPS; Cappé and Moulines (2009),
On-line expectation-maximization algorithm for latent data models, JRSS B 71.
"""

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .checkpoints import Place, states_of
from .info import OnlineInfo
from .options import at_least_one, options_by_name
from .posterior import Posterior, point_draws
from .progress import Progress
from .streams.batches import StreamBatches
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import OnlineSteps


@options_by_name
def online(
    steps: "OnlineSteps",
    *data: Any,
    batch_size: int | None = None,
    num_epochs: int = 1,
    num_rows: int | None = None,
    decay: float = 0.7,
    offset: float = 10.0,
    init: Posterior | None = None,
    num_draws: int = 1000,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[OnlineInfo]:
    """Learn from batches of rows, each of which is read once; go on later with more.

    Step t has size (offset + t)^-decay, t counted over all fits that went on from one another: Robbins and Monro's
    conditions hold for decays above .5.

    Parameters
    ----------
    steps : OnlineSteps
        As a model's ``online_steps(**options)`` returns them: `gmm`, `mixture` and `lda` of `guidebook.models` have
        some.
    *data : Stream, or whatever `guidebook.inference.streams.stream` takes
        The rows.
    batch_size : int, optional
        Rows per step. Default: what the source says, or 1,000, or all if they are fewer.
    num_epochs : int
        How often all rows are gone through.
    num_rows : int, optional
        How many rows there are in all, of which these may be a part: topics are learned as if there were so many
        documents. Default: as many as are given.
    decay : float
        Between .5, exclusive, and 1.
    offset : float
        At least 0: a larger one slows the first steps down.
    init : Posterior, optional
        Where to go on: a fit by these steps, or by `em` or `cavi` with the same parameters. Default: a start from the
        first batch, which should have many rows per component.
    num_draws : int
        Draws from q, for steps that have one.
    seed : int
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
        If an option is out of range, or the data are of a kind that cannot be read in batches.
    ArithmeticError
        If the parameters stop being numbers, as where a component loses all its rows.
    """
    at_least_one("online", batch_size=batch_size, num_epochs=num_epochs, num_rows=num_rows, num_draws=num_draws)
    if not 0.5 < decay <= 1:
        raise ValueError(f"online: decay must lie between 0.5, exclusive, and 1, got {decay}")
    if not offset >= 0:
        raise ValueError(f"online: offset must be at least 0, got {offset}")
    if len(data) != 1:
        raise ValueError("online: give the rows, after the steps")
    begin = time.perf_counter()
    rows = data[0]
    size = min(batch_size or rows.batch_size or 1000, len(rows))
    states = states_of(checkpoint)
    before, seen, params = 0, 0, None
    if init is not None:
        params = dict(init.params)
        before, seen = getattr(init.info, "num_batches", 0), getattr(init.info, "num_rows", 0)
    total, scores = num_epochs * (len(rows) // size), []
    with isolated(seed), torch.no_grad(), Progress("online", total, progress) as bar:
        batches = StreamBatches(rows, size, rows.first)
        states.add(batches=batches)
        if (saved := states.take("batches")) is not None:
            params, scores = saved["params"], saved["scores"].tolist()
        for batch in range(len(scores), total):
            x = next(batches)
            params = steps.init(*x) if params is None else params
            rate = min(1.0, (offset + before + batch + 1) ** -decay)
            params, score = steps.update(params, rate, num_rows or len(rows), *x)
            scores.append(float(score))
            if not math.isfinite(scores[-1]):
                raise ArithmeticError(
                    f"online: the score is {scores[-1]} at batch {batch}: take larger batches, or a larger offset"
                )
            states.offer("batches", partial(_stand, params, scores))
            bar.update(batch + 1, f"{scores[-1]:.4f} nats")
        assert params is not None
        if not all(bool(value.isfinite().all()) for value in params.values()):  # which no later batch has noticed
            raise ArithmeticError("online: the last batch led to parameters that are not finite: take larger batches")
        draws = point_draws({name: value for name, value in params.items() if name != "totals"})
        if steps.draw is not None:
            draws = {name: value[None] for name, value in steps.draw(params, num_draws).items()}
    info = OnlineInfo(
        seconds=time.perf_counter() - begin,
        seed=seed,
        converged=True,
        message=f"read {total:,} batches of {size:,} rows",
        is_point=steps.draw is None,
        scores=torch.tensor(scores, dtype=torch.float64),
        num_batches=before + total,
        num_rows=seen + total * size,
        streamed=rows.held(),
    )
    return Posterior(draws=draws, params=params, info=info)


def _stand(params: dict[str, torch.Tensor], scores: list[float]) -> dict[str, Any]:
    return {"params": params, "scores": torch.tensor(scores, dtype=torch.float64)}
