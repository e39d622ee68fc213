"""The Pyro models of latent Dirichlet allocation, and documents simulated from it."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.ops.indexing import Vindex
from pyro.poutine.runtime import InferDict
from torch import Tensor

from .._shared.steps import Params
from .cavi import cavi_steps
from .corpus import check_options, read
from .distributions import BagOfWords, draw_words


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
        The counts, dense or sparse: see `as_counts`. Drawn from the model where left out; ``num_rows``,
        ``num_features`` and ``totals`` must be given then.
    num_topics : int
        K.
    alpha, eta : float
        Concentrations of the priors over a document's topics and over a topic's words.
    num_rows, num_features : int, optional
        Documents and words of the corpus to draw where ``x`` is left out.
    totals : Tensor, shape (num_rows,), or float, optional
        Tokens of each document to draw.

    Returns
    -------
    Tensor, shape (n, v)
        The counts.

    Raises
    ------
    ValueError
        If an option is out of range, or the data are no counts.
    """
    rows, columns, totals = _sizes(x, num_topics, alpha, eta, num_rows, num_features, totals)
    documents = pyro.plate("rows", rows, dim=-1)
    words, weights = _sample_sites(x, documents, columns, num_topics, alpha, eta)
    with documents:
        return pyro.sample("x", BagOfWords(weights, words, totals), obs=x)


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

    The words of the tokens, document by document, are the observed site ``w``. It takes t v numbers, so that it is for
    small corpora. Arguments, result and errors as for `model`.
    """
    rows, columns, totals = _sizes(x, num_topics, alpha, eta, num_rows, num_features, totals)
    documents = pyro.plate("rows", rows, dim=-1)
    words, weights = _sample_sites(x, documents, columns, num_topics, alpha, eta)
    if x is None:
        assert totals is not None
        document, word = torch.arange(rows).repeat_interleave(totals.long()), None
    else:
        document, word = read(x).tokens()
    with pyro.plate("tokens", len(document), dim=-1):
        z = pyro.sample("z", dist.Categorical(weights.index_select(-2, document)), infer={"enumerate": "parallel"})
        word = pyro.sample("w", dist.Categorical(Vindex(words)[..., z, :]), obs=word)
    if x is not None:
        return x
    counts = words.new_zeros(*word.shape[:-1], rows * columns)
    return counts.scatter_add_(-1, document * columns + word, torch.ones_like(word).to(words)).unflatten(-1, (rows, -1))


def posterior_predictive(sites: Params, x: Any, *, seed: int = 0) -> Float[Tensor, "*batch n v"]:
    """One simulated corpus for each draw of the sites, documents of the same lengths.

    Parameters
    ----------
    sites : dict
        ``topic_weights`` (…, n, k) and ``topic_words`` (…, k, v), with any dimensions on the left.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        The data.
    seed : int
    """
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
    """Documents of the model itself; float64.

    Parameters
    ----------
    num_rows : int
        Documents.
    num_topics : int
        K.
    num_features : int
        Words of the vocabulary.
    mean_total : float
        Expected tokens of a document, at least 1; every document has one at least.
    alpha, eta : float
        Concentrations of the priors over a document's topics and over a topic's words.

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


def _sizes(
    x: Tensor | None,
    num_topics: int,
    alpha: float,
    eta: float,
    num_rows: int | None,
    num_features: int | None,
    totals: Tensor | float | None,
) -> tuple[int, int, Tensor | None]:
    """Documents and words, given or to be drawn, and the lengths of documents to be drawn."""
    check_options(num_topics, alpha, eta)
    if x is not None:
        return x.shape[0], x.shape[1], None
    if num_rows is None or num_features is None or totals is None:
        raise ValueError("lda: to draw documents, give num_rows=, num_features= and totals=")
    return num_rows, num_features, torch.as_tensor(totals).expand(num_rows)


def _sample_sites(
    x: Tensor | None, documents: pyro.plate, columns: int, num_topics: int, alpha: float, eta: float
) -> tuple[Tensor, Tensor]:
    """Draw topics and documents' weights; fits to data start both where coordinate ascent does."""
    like = torch.zeros(()) if x is None else x
    like = like.new_ones((), dtype=like.dtype if like.is_floating_point() else torch.float64, layout=torch.strided)
    start = functools.cache(lambda: _start(x, num_topics, alpha, eta))
    prior = dist.Dirichlet(eta * like.expand(columns)).expand_by([num_topics]).to_event(1)
    words = pyro.sample("topic_words", prior, infer=_infer(x, lambda: start()["topic_words"]))
    with documents:
        prior = dist.Dirichlet(alpha * like.expand(num_topics))
        return words, pyro.sample("topic_weights", prior, infer=_infer(x, lambda: start()["topic_weights"]))


def _infer(x: Tensor | None, start: Callable[[], Tensor]) -> InferDict:
    return {} if x is None else {"init": start}  # pyright: ignore[reportReturnType] (Pyro passes on keys of others)


def _start(x: Any, num_topics: int, alpha: float, eta: float) -> Params:
    """Means of the sites under the q at which coordinate ascent starts."""
    with torch.no_grad():
        params = cavi_steps(num_topics, alpha, eta).init(0, x)
        named = {name: params[f"{name}.concentration"] for name in ("topic_words", "topic_weights")}
        return {name: value / value.sum(-1, keepdim=True) for name, value in named.items()}
