"""Where fits of a mixture of counts start: clusters of rows."""

import warnings

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .._shared.blocks import Blocks, held
from .._shared.row_weights import random_rows
from .._shared.steps import Params
from .conjugate import factors, posterior
from .prior import Family, Prior

MAX_ROWS = 100_000  # for k-means


def start_values(x: Tensor, num_components: int, family: Family, prior: Prior) -> Params:
    """Return where a fit may start, by site: even weights, and the posterior mean given clusters of k-means."""
    counts, sums = (found.to(x) for found in cluster(x, num_components, family, tries=10))
    even = torch.full_like(counts, 1 / num_components)  # a component that starts small may be lost
    return {name: q.mean for name, q in factors(posterior(prior, counts, sums)).items()} | {"weights": even}


def cluster(
    x: Float[Tensor, "n d"] | Blocks,
    num_components: int,
    family: Family,
    tries: int = 1,
    row_weights: Float[Tensor, " n"] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cluster at most 100,000 random rows by k-means, with torch's random numbers.

    Distances are between square roots, of counts or of a row's proportions, whose variance hardly depends on the mean.
    One try in five splits a segment and merges two others: the best of ``tries`` is returned. ``row_weights`` say how
    many times each row counts; default: once.

    Returns
    -------
    counts : Tensor, shape (k,)
        Rows per cluster, in float64.
    sums : Tensor, shape (k, d)
        Their sums, in float64.
    """
    if len(x) > MAX_ROWS:
        chosen = torch.randint(len(x), (MAX_ROWS,), device=x.device)
        x, row_weights = x[chosen], None if row_weights is None else row_weights[chosen]
    x = held(x).detach().double()
    scaled = x / x.sum(-1, keepdim=True).clamp(min=1) if family == "multinomial" else x
    seed = int(torch.randint(2**31 - 1, ()))
    k_means = KMeans(num_components, n_init=tries, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        times = None if row_weights is None else row_weights.cpu().numpy()
        labels = k_means.fit(scaled.sqrt().cpu().numpy(), sample_weight=times).labels_
    member = torch.nn.functional.one_hot(torch.as_tensor(labels, device=x.device).long(), num_components).to(x)
    member = member if row_weights is None else row_weights.unsqueeze(-1) * member
    return member.sum(0), member.mT @ x


def pick(
    x: Float[Tensor, "n d"] | Blocks, num_components: int, row_weights: Float[Tensor, " n"] | None = None
) -> tuple[Tensor, Tensor]:
    """Return clusters of one random row each, as `cluster` does."""
    chosen = random_rows(x, num_components, row_weights).double()
    return chosen.new_ones(num_components), chosen
