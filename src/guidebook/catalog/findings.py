"""The few figures of a fit that matter, in sentences with the data's own names."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guidebook.catalog.outcomes import along_axes, thinned
from guidebook.datasets import Dataset
from guidebook.inference import Posterior
from guidebook.models import autoregressive, gmm, lda, mixture, vae

MOST_COLUMNS = 4  # named of a component, factor or topic
MOST_LINES = 20

Findings = Callable[[Posterior, Dataset, Mapping[str, Any]], list[str]]


def normal_segments(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say the share of each component of a Gaussian mixture, and the columns in which it is farthest from the mean."""
    sites = gmm.identify({name: posterior.draws[name] for name in ("weights", "loc", "covariance")})
    weights, loc = (sites[name].double().mean((0, 1)) for name in ("weights", "loc"))
    distance = (loc - data.x.mean(0)) / data.x.std(0).clamp(min=1e-300)
    return _segments(weights, loc, distance, data, lambda k, column: "high" if distance[k, column] > 0 else "low")


def count_segments(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say the share of each component of a mixture of counts, and the columns that it has unusually many or few of."""
    site = "rate" if "rate" in posterior.draws else "probs"
    sites = mixture.identify({name: posterior.draws[name] for name in ("weights", site)})
    weights, values = (sites[name].double().mean((0, 1)) for name in ("weights", site))
    average = (weights @ values).clamp(min=1e-300)
    ratio = values / average
    surprise = (values - average) / average.sqrt()
    return _segments(weights, values, surprise, data, lambda k, column: f"{ratio[k, column]:.2g} × the average")


def factor_loadings(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say how much of the variance each factor explains, and the columns that load on it most."""
    draws = along_axes(posterior)
    noise = draws["noise_variance"]
    noise = noise.unsqueeze(-1).expand_as(draws["loc"]) if noise.dim() == 1 else noise
    squares = draws["W"].square().sum(1)  # (draw, q)
    share = (squares / (squares.sum(-1) + noise.sum(-1)).unsqueeze(-1)).mean(0)
    W = draws["W"].mean(0)
    return [
        f"factor {k}: {_share(share[k])} of the variance; "
        + ", ".join(f"{data.columns[column]} {_signed(W[column, k])}" for column in _farthest(W[:, k]))
        for k in range(W.shape[1])
    ][:MOST_LINES]


def topic_words(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say the most probable words of each topic, and its weight averaged over documents."""
    kept = {name: posterior.draws[name] for name in ("topic_words", "topic_weights") if name in posterior.draws}
    sites = lda.identify(kept)
    best = lda.topics({"topic_words": sites["topic_words"].mean((0, 1))}, data.columns, 8)
    if "topic_weights" not in sites:
        return [f"topic {k}: {', '.join(words)}" for k, words in enumerate(best)]
    share = sites["topic_weights"].double().mean((0, 1, 2))
    lines = [f"topic {k} ({_share(share[k])}): {', '.join(words)}" for k, words in enumerate(best)]
    return [lines[k] for k in share.argsort(descending=True).tolist()][:MOST_LINES]


def odds(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say which columns raise or lower the odds most surely, and how many of the labels the fit predicts."""
    w = thinned({"w": posterior.draws["w"]})["w"]
    mean, sd = w.mean(0), w.std(0, correction=0)
    one = (data.classes or ("0", "1"))[1]
    unit = "each standard deviation of" if data.standardized else "each unit of"
    surest = _farthest((mean / sd.clamp(min=1e-12))[1:] if len(w) > 1 else mean[1:])
    lines = []
    for column in surest:
        low, high = torch.quantile(w[:, column + 1].exp(), torch.tensor([0.05, 0.95]).double()).tolist()
        interval = f" ({low:.2g} to {high:.2g})" if len(w) > 1 else ""
        factor = math.exp(float(mean[column + 1]))
        lines.append(f"{unit} {data.columns[column]} multiplies the odds of {one} by {factor:.2g}{interval}")
    if data.y is not None:
        probability = torch.sigmoid(mean[0] + data.x.double() @ mean[1:])
        right = float(((probability > 0.5) == (data.y > 0.5)).double().mean())
        lines.append(f"{_share(right)} of the labels fitted are predicted correctly")
    return lines


def effects(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say by how much the surest columns raise or lower the target, and what share of its variance the fit explains."""
    w = thinned({"w": posterior.draws["w"]})["w"]
    mean, sd = w.mean(0), w.std(0, correction=0)
    unit = "each standard deviation of" if data.standardized else "each unit of"
    lines = []
    for column in _farthest((mean / sd.clamp(min=1e-12))[1:] if len(w) > 1 else mean[1:]):
        low, high = torch.quantile(w[:, column + 1], torch.tensor([0.05, 0.95]).double())
        interval = f" ({_figure(low)} to {_figure(high)})" if len(w) > 1 else ""
        change = mean[column + 1]
        verb = "raises" if change > 0 else "lowers"
        lines.append(f"{unit} {data.columns[column]} {verb} the target by {_figure(change.abs())}{interval}")
    if data.y is not None:
        rest = data.y.double() - mean[0] - data.x.double() @ mean[1:]
        lines.append(f"the fit explains {_share(1 - rest.var() / data.y.double().var())} of the target's variance")
    return lines


def used_factors(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say how much each factor of an autoencoder tells of a row; nothing if there is no encoder."""
    try:
        nats = vae.kl_per_unit(posterior.params, data.x.to(next(iter(posterior.params.values()))))
    except ValueError:
        return []
    return [f"factor {k} tells {float(value):.2f} nats of a row" for k, value in enumerate(nats)][:MOST_LINES]


def nats_per_row(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> list[str]:
    """Say the mean log likelihood of a row under an autoregressive network, beside that of independent pixels."""
    x = data.x.to(posterior.params["network.logits.bias"])
    reached = float(autoregressive.log_likelihood(posterior.params, x).mean())
    alone = float(autoregressive.independent(x).mean())
    return [
        f"log likelihood {reached:.2f} nats per row fitted; pixels independent of one another would have {alone:.2f}",
        "guidebook choose gives that of rows held out",
    ]


def _segments(
    weights: Tensor, values: Tensor, unusual: Tensor, data: Dataset, words: Callable[[int, int], str]
) -> list[str]:
    """Say of each component its share, and the columns whose values (k, d) are most ``unusual``, in words."""
    lines = []
    for k, weight in enumerate(weights):
        columns = [f"{data.columns[c]} {_figure(values[k, c])} ({words(k, c)})" for c in _farthest(unusual[k])]
        lines.append(f"segment {k}: {_share(weight)} of rows; {', '.join(columns)}")
    return lines[:MOST_LINES]


def _farthest(values: Tensor) -> Sequence[int]:
    return values.abs().topk(min(MOST_COLUMNS, len(values))).indices.tolist()


def _figure(value: Tensor | float) -> str:
    return f"{float(value):.3g}".replace("-", "−")


def _signed(value: Tensor | float) -> str:
    return f"{float(value):+.2f}".replace("-", "−")


def _share(value: Tensor | float) -> str:
    return f"{100 * float(value):.0f} %"
