"""The Pyro models of latent Dirichlet allocation, and documents simulated from them."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.ops.indexing import Vindex
from torch import Tensor

from .._shared.init import init
from .._shared.steps import Params
from .cavi import cavi_steps
from .distributions import BagOfWords, draw_words
from .inputs import check_options, check_size, counts_of, read


def model(
    x: Tensor | None = None,
    *,
    num_topics: int = 20,
    alpha: float = 0.1,
    eta: float = 0.01,
    num_rows: int | None = None,
    num_features: int | None = None,
    totals: Tensor | float | None = None,
) -> Tensor:
    """Pyro model of documents as counts of words, the topic of each token summed out.

    Parameters
    ----------
    x : Tensor, shape (n, v), optional
        The counts, dense or sparse: see `as_counts`. Default: draw them, which needs ``num_rows``, ``num_features``
        and ``totals``.
    num_topics : int
        K.
    alpha, eta : float
        Concentrations of the priors over a document's topics and over a topic's words.
    num_rows, num_features : int, optional
        Documents and words of the corpus to draw.
    totals : Tensor, shape (num_rows,), or float, optional
        Tokens of each document to draw, also in place of those of ``x``.

    Returns
    -------
    Tensor, shape (n, v)

    Raises
    ------
    ValueError
        If an option is out of range, or the data are not counts.
    """
    x = None if x is None else counts_of(x)
    one, rows, columns, totals = _check(x, num_topics, alpha, eta, num_rows, num_features, totals)
    start = init(None if x is None else lambda: start_values(x, num_topics, alpha, eta))
    # Globals.
    concentration = one.new_full((num_topics, columns), eta)
    topic_words = pyro.sample("topic_words", dist.Dirichlet(concentration).to_event(1), infer=start("topic_words"))
    # Locals.
    with pyro.plate("rows", rows, dim=-1):
        concentration = one.new_full((num_topics,), alpha)
        topic_weights = pyro.sample("topic_weights", dist.Dirichlet(concentration), infer=start("topic_weights"))
        return pyro.sample("x", BagOfWords(topic_weights, topic_words, totals), obs=x)


def latent_model(
    x: Tensor | None = None,
    *,
    num_topics: int = 20,
    alpha: float = 0.1,
    eta: float = 0.01,
    num_rows: int | None = None,
    num_features: int | None = None,
    totals: Tensor | float | None = None,
) -> Tensor:
    """The same with the topic of every token as a site, ``z``, for ``TraceEnum_ELBO(max_plate_nesting=1)``.

    The words of the tokens, document by document, are the observed site ``w``. Memory is t v numbers, so it is for
    small corpora. Parameters, result and errors are those of `model`.
    """
    x = None if x is None else counts_of(x)
    one, rows, columns, totals = _check(x, num_topics, alpha, eta, num_rows, num_features, totals)
    start = init(None if x is None else lambda: start_values(x, num_topics, alpha, eta))
    # Globals.
    concentration = one.new_full((num_topics, columns), eta)
    topic_words = pyro.sample("topic_words", dist.Dirichlet(concentration).to_event(1), infer=start("topic_words"))
    # Locals.
    with pyro.plate("rows", rows, dim=-1):
        concentration = one.new_full((num_topics,), alpha)
        topic_weights = pyro.sample("topic_weights", dist.Dirichlet(concentration), infer=start("topic_weights"))
    if x is None:
        assert totals is not None
        document, word = torch.arange(rows).repeat_interleave(totals.long()), None
    else:
        document, word = read(x).tokens
    with pyro.plate("tokens", len(document), dim=-1):
        mixed = topic_weights.index_select(-2, document)
        z = pyro.sample("z", dist.Categorical(mixed), infer={"enumerate": "parallel"})
        word = pyro.sample("w", dist.Categorical(Vindex(topic_words)[..., z, :]), obs=word)
    if x is not None:
        return x
    counts = topic_words.new_zeros(*word.shape[:-1], rows * columns)
    counts.scatter_add_(-1, document * columns + word, torch.ones_like(word).to(counts))
    return counts.unflatten(-1, (-1, columns))


def start_values(x: Any, num_topics: int, alpha: float, eta: float) -> Params:
    """Return the means of the sites under the q at which coordinate ascent starts."""
    params = cavi_steps(num_topics, alpha, eta).init(0, x)
    return {name.removesuffix(".concentration"): value / value.sum(-1, keepdim=True) for name, value in params.items()}


def posterior_predictive(sites: Params, x: Any, *, seed: int = 0) -> Float[Tensor, "*batch n v"]:
    """Simulate one corpus per draw of the sites, with the data's document lengths; inputs as for `log_likelihood`."""
    weights = sites["topic_weights"]
    generator = torch.Generator(weights.device).manual_seed(seed)
    return draw_words(weights @ sites["topic_words"], read(x).totals.expand(weights.shape[:-1]), generator)


def simulate(
    num_rows: int = 200,
    *,
    num_topics: int = 5,
    num_features: int = 50,
    mean_total: float = 60.0,
    alpha: float = 0.1,
    eta: float = 0.1,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Simulate documents from the model; float64.

    Parameters
    ----------
    num_rows, num_features : int
        Numbers of documents and of words in the vocabulary.
    mean_total : float
        Expected tokens per document, at least 1; every document has at least one.
    num_topics, alpha, eta
        As for `model`.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``topic_words`` (num_topics, num_features) and ``topic_weights`` (num_rows, num_topics).
    """
    check_options(num_topics, alpha, eta)
    if not mean_total >= 1 or num_features < 1 or num_rows < 1:
        raise ValueError("lda: simulate needs mean_total >= 1, num_features >= 1 and num_rows >= 1")
    rng = np.random.default_rng(seed)
    words = rng.dirichlet(np.full(num_features, eta), size=num_topics)
    weights = rng.dirichlet(np.full(num_topics, alpha), size=num_rows)
    x = rng.multinomial(1 + rng.poisson(mean_total - 1, size=num_rows), weights @ words)
    truth = {"topic_words": torch.tensor(words), "topic_weights": torch.tensor(weights)}
    return torch.tensor(x, dtype=torch.float64), truth


def _check(
    x: Tensor | None,
    num_topics: int,
    alpha: float,
    eta: float,
    num_rows: int | None,
    num_features: int | None,
    totals: Tensor | float | None,
) -> tuple[Tensor, int, int, Tensor | None]:
    """Return a one of the sites' dtype and device, the numbers of documents and words, and the lengths to draw."""
    check_options(num_topics, alpha, eta)
    if x is not None:
        check_size(num_topics, *x.shape)
        dtype = x.dtype if x.is_floating_point() else torch.float64
        totals = None if totals is None else torch.as_tensor(totals).expand(x.shape[0])
        return x.new_ones((), dtype=dtype, layout=torch.strided), x.shape[0], x.shape[1], totals
    if num_rows is None or num_features is None or totals is None:
        raise ValueError("lda: to draw documents, give num_rows=, num_features= and totals=")
    return torch.ones(()), num_rows, num_features, torch.as_tensor(totals).expand(num_rows)
