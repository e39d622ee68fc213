"""What a fit says of each row: its segment, factors, topics or prediction, at the posterior's draws."""

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, StudentT

from guidebook.datasets import Dataset
from guidebook.inference import Posterior
from guidebook.inference.traces.isolate import isolated
from guidebook.models import autoregressive, lda, linear, linear_gaussian, logistic, vae

Columns = dict[str, Any]  # name -> (n,) values of a column of rows.csv
MOST_DRAWS = 200  # that rows are described by, spread over all
_NOISE = 1000  # draws of noise behind an interval of predictions, at least
_TOPIC_DRAWS = 20  # documents' weights are inferred anew at each
_AT_ONCE = 2**22  # numbers


def thinned(sites: Mapping[str, Tensor], most: int = MOST_DRAWS) -> dict[str, Tensor]:
    """Return at most so many draws, (draw, *site), in float64 on the CPU, evenly spread over those of all chains."""
    length = next(iter(sites.values())).shape[:2].numel()
    chosen = torch.linspace(0, length - 1, min(most, length)).round().long()
    return {name: value.flatten(0, 1)[chosen].detach().cpu().double() for name, value in sites.items()}


def segments(module: ModuleType) -> Callable[[Posterior, Dataset, Mapping[str, Any]], Columns]:
    """Return what says the segment of each row of a mixture, as numbered in the parameters, and how probable it is."""

    def per_row(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
        draws = thinned(module.identify(dict(posterior.draws)))
        probability, density = memberships(module.log_joint, draws, data.x.double())
        best = probability.max(-1)
        found: Columns = {"segment": best.indices, "probability": best.values}
        found |= {f"probability_{k}": column for k, column in enumerate(probability.unbind(-1))}
        return found | {"log_density": density}

    return per_row


def memberships(
    log_joint: Callable[[dict[str, Tensor], Tensor], Tensor], draws: dict[str, Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return p(component | row), (n, k), and log p(row) in nats, (n,), averaged over a mixture's draws.

    ``log_joint`` is that of the mixture's module: ``(draws, rows) -> (draw, rows, k)``.
    """
    weights = draws["weights"]
    size = max(1, _AT_ONCE // (len(weights) * weights.shape[1] * x.shape[1]))
    joints = [log_joint(draws, part) for part in x.split(size)]
    probability = torch.cat([part.softmax(-1).mean(0) for part in joints])
    density = torch.cat([part.logsumexp((0, 2)) for part in joints]) - math.log(len(weights))
    return probability, density


def factors(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the factors of each row of PPCA or factor analysis, along principal axes, and their standard deviations."""
    draws, x = along_axes(posterior), data.x.double()
    found = [linear_gaussian.posterior(at, x) for at in _each(draws)]
    means = torch.stack([each.mean for each in found])
    within = torch.stack([each.covariance.diagonal(dim1=-2, dim2=-1) for each in found]).mean(0)
    sd = (means.var(0, correction=0) + within).sqrt()
    columns = {f"factor_{k}": value for k, value in enumerate(means.mean(0).unbind(-1))}
    columns |= {f"factor_{k}_sd": value for k, value in enumerate(sd.unbind(-1))}
    density = torch.stack([linear_gaussian.log_likelihood(at, x) for at in _each(draws)])
    return columns | {"log_density": density.logsumexp(0) - math.log(len(density))}


def along_axes(posterior: Posterior) -> dict[str, Tensor]:
    """Return draws whose loadings are all rotated towards the principal axes of the last one's.

    The factors of the last draw are ordered by the variance that they explain, and each is positive where its largest
    loading is; the others are turned to it by orthogonal Procrustes rotations.
    """
    draws = thinned({name: posterior.draws[name] for name in ("W", "loc", "noise_variance")})
    _, _, turn = torch.linalg.svd(draws["W"][-1], full_matrices=False)
    axes = draws["W"][-1] @ turn.mT
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    left, _, right = torch.linalg.svd(draws["W"].mT @ axes)
    return draws | {"W": draws["W"] @ (left @ right)}


def topics(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the topics of each document: the most prominent one, its weight, and the weights of all."""
    draws = thinned(lda.identify({"topic_words": posterior.draws["topic_words"]}), _TOPIC_DRAWS)
    weights = lda.transform(draws, data.x, alpha=options["alpha"]).mean(0)
    best = weights.max(-1)
    found: Columns = {"topic": best.indices, "weight": best.values}
    return found | {f"topic_{k}": column for k, column in enumerate(weights.unbind(-1))}


def labels(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the probability of class 1 for each row, with the central 90 % of its posterior, and the likelier class."""
    draws = thinned({"w": posterior.draws["w"]})
    probability = torch.cat([logistic.predict(draws, part.double()) for part in data.x.split(4096)], 1)
    zero, one = (data.encoding and data.encoding.classes) or ("0", "1")
    mean = probability.mean(0)
    found: Columns = {"prediction": [one if value > 0.5 else zero for value in mean.tolist()]}
    found[f"probability_of_{one}"] = mean
    if len(draws["w"]) > 1:
        low, high = torch.quantile(probability, torch.tensor([0.05, 0.95]).double(), dim=0)
        found |= {"low": low, "high": high}
    return found


def targets(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the target of each row: its mean, and the central 90 % of predictions, noise included."""
    draws = thinned({site: posterior.draws[site] for site in ("w", "noise_variance", "df") if site in posterior.draws})
    copies = -(-_NOISE // len(draws["w"]))
    draws = {site: value.repeat_interleave(copies, 0) for site, value in draws.items()}
    with isolated(0):
        kind = StudentT(draws["df"]) if "df" in draws else Normal(torch.zeros_like(draws["noise_variance"]), 1.0)
        noise = kind.sample() * draws["noise_variance"].sqrt()
    found: list[Tensor] = []
    for part in data.x.double().split(max(1, _AT_ONCE // len(noise))):
        means = linear.predict(draws, part)
        bounds = torch.quantile(means + noise[:, None], torch.tensor([0.05, 0.95]).double(), 0)
        found.append(torch.stack([means.mean(0), *bounds]))
    mean, low, high = torch.cat(found, 1)
    return {"prediction": mean, "low": low, "high": high}


def codes(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the factors of each row of an autoencoder, as its encoder has them; ValueError if it has none."""
    x = data.x.to(next(iter(posterior.params.values())))
    found = [vae.encode(posterior.params, part) for part in x.split(4096)]
    mean, sd = (torch.cat(parts) for parts in zip(*found, strict=True))
    columns = {f"factor_{k}": value for k, value in enumerate(mean.unbind(-1))}
    return columns | {f"factor_{k}_sd": value for k, value in enumerate(sd.unbind(-1))}


def pixel_likelihoods(posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> Columns:
    """Say the exact log likelihood of each row under an autoregressive network, in nats."""
    params = posterior.params
    return {"log_density": autoregressive.log_likelihood(params, data.x.to(params["network.logits.bias"]))}


def _each(draws: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{name: value[k] for name, value in draws.items()} for k in range(len(draws["loc"]))]
