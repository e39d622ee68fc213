"""Rows dealt into folds, and log likelihoods of rows at a fit's draws."""

import numpy as np
import torch
from torch import Tensor

from guidebook.catalog import Row
from guidebook.inference import Posterior, log_likelihood
from guidebook.inference.choice.loo import rows_of
from guidebook.inference.info import INFO_TYPES
from guidebook.inference.traces.hidden import observed_rows
from guidebook.workflow.fit import Task, make_task

_AT_ONCE = 2**16  # log likelihoods of one row at one draw


def fold_of_row(number: int, num_rows: int, labels: Tensor | None, seed: int) -> np.ndarray:
    """Return the fold of each row, (n,), of equal sizes up to one row, at random; classes are spread evenly.

    ValueError if there are fewer than two folds, or fewer rows than folds.
    """
    if not 2 <= number <= num_rows:
        raise ValueError(f"choose: --folds must lie between 2 and the number of rows, {num_rows}; got {number}")
    key = np.random.default_rng(seed).random(num_rows)
    order = np.argsort(key if labels is None else key + labels.numpy())
    folds = np.empty(num_rows, int)
    folds[order] = np.arange(num_rows) % number
    return folds


def is_point(row: Row, method: str, guide: str | None) -> bool:
    """Whether a method estimates the model's parameters by a point, which leave-one-out weights cannot start from."""
    if method == "closed_form":
        return not row.is_exact
    return INFO_TYPES[method].is_point or guide == "map_point"


def num_rows(task: Task) -> int:
    """Return how many rows there are to deal; of a user's own model, ValueError if that is not clear."""
    return observed_rows("choose", task.model, task.args).number if task.own else len(task.data.x)


def without_rows(task: Task, out: np.ndarray) -> Task:
    """Return a task without some of the rows: without their density, if the model is a user's own."""
    if task.own:
        hidden = observed_rows("choose", task.model, task.args).hidden(task.model, torch.from_numpy(out))
        return task._replace(model=hidden, latent_model=hidden)
    rows, data = torch.from_numpy(np.flatnonzero(~out)), task.data
    part = data._replace(x=data.x[rows], y=None if data.y is None else data.y[rows])
    return make_task(task.row, part, task.options)


def densities(task: Task, posterior: Posterior, out: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return log densities in nats, averaged over a fit's draws: of the rows held out, and of those fitted."""
    if task.own:
        rows = _mean(rows_of("choose", log_likelihood(task.model, posterior, *task.args)))
        return rows[out], rows[~out]
    parts = (without_rows(task, left) for left in (~out, out))
    held_out, fitted = (_mean(pointwise(part, posterior, part.args)) for part in parts)
    return held_out, fitted


def _mean(log_likelihood: Tensor) -> Tensor:
    """Log of the mean over draws, (n,), of (chain, draw, n)."""
    flat = log_likelihood.flatten(0, 1)
    return flat.logsumexp(0) - np.log(len(flat))


def pointwise(task: Task, posterior: Posterior, args: tuple[Tensor, ...]) -> Tensor:
    """Return log p(row | draw) in nats, (chain, draw, n), in parts that fit in memory.

    Of a user's own model everything that it observes is a row; ValueError if that is a single one.
    """
    if task.row.log_likelihood is None:
        return _of_all_observed(log_likelihood(task.model, posterior, *args))
    draws = {name: value.double() for name, value in posterior.draws.items()}
    params = {name: value.double() for name, value in posterior.params.items() if name not in draws}
    if not draws:
        draws, params = {name: value[None, None] for name, value in params.items()}, {}
    data = tuple(value.double() for value in args)
    chains, length = next(iter(draws.values())).shape[:2]
    size = max(1, _AT_ONCE // (chains * len(data[0])))
    parts = []
    with torch.no_grad():
        for begin in range(0, length, size):
            sites = params | {name: value[:, begin : begin + size] for name, value in draws.items()}
            parts.append(task.row.log_likelihood(sites, *data).cpu())
    return torch.cat(parts, 1)


def _of_all_observed(found: dict[str, Tensor]) -> Tensor:
    rows = torch.cat([value.reshape(*value.shape[:2], -1) for value in found.values()], -1)
    if rows.shape[2] < 2:
        raise ValueError(f"choose: {', '.join(found)} has one density for all rows, so that none can be left out")
    return rows
