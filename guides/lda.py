"""Guides of latent Dirichlet allocation: Dirichlets for everything, or documents' weights from a network.

    topic_words[k]   ~ Dirichlet                                (both guides; starts at a few iterations of EM)
    topic_weights[n] ~ Dirichlet                                (`mean_field`: parameters of each document's own)
    topic_weights[n] ~ softmax(Normal(m(x[n]), s(x[n])²), 0)    (`encoder`: m and s from one network)

References
----------
1. Blei, Ng and Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5.4.
2. Srivastava and Sutton (2017), Autoencoding variational inference for topic models, ICLR.
3. Aitchison and Shen (1980), Logistic-normal distributions: some properties and uses, Biometrika 67.
4. Hofmann (1999), Probabilistic latent semantic indexing, SIGIR: the EM that gives the starts.
"""

import functools
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

_ITERATIONS = 30  # of EM, before a fit starts at its expectations


def mean_field(x: Tensor, *, num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> None:
    """Independent Dirichlets over topics and over each document's weights, for ``models.lda.model``.

    With the loss "mean_field" (`TraceMeanField_ELBO`) divergences from the prior are in closed form. The tokens' topics
    are summed out in the model, so that the best bound is above that of coordinate ascent.

    Parameters
    ----------
    x : Tensor, shape (n, v)
        All documents: a batch would need to say which.
    num_topics, alpha, eta
        As given to the model.

    Raises
    ------
    ValueError
        If the number of documents has changed since the first call.
    """
    rows, start = x.shape[0], functools.cache(lambda: _tokens_by_topic(x, num_topics))
    weights = pyro.param("topic_weights.concentration", lambda: alpha + start()[0], constraint=constraints.positive)
    if len(weights) != rows:
        raise ValueError(
            f"mean_field: the guide has parameters for {len(weights)} documents and was given {rows}: "
            "fit all of them at once, or take encoder"
        )
    _sample_topics(start, eta)
    with pyro.plate("rows", rows, dim=-1):
        pyro.sample("topic_weights", dist.Dirichlet(weights))


def encoder(x: Tensor, *, num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01, hidden_dim: int = 100) -> None:
    """Dirichlets over topics; documents' weights logistic-normal, by a network with one hidden layer.

    The network sees log(1 + x), scaled to length one. Its normal has K - 1 dimensions, so that weights on the simplex
    have a density; a zero stands for the last topic's logit.

    Parameters
    ----------
    x : Tensor, shape (n, v)
        All documents, or a batch of them.
    num_topics, alpha, eta
        As given to the model.
    hidden_dim : int
        Units of the hidden layer.
    """
    if num_topics < 2:
        raise ValueError(f"encoder: with {num_topics} topic there is nothing to infer: take mean_field")
    _sample_topics(lambda: _tokens_by_topic(x, num_topics), eta)
    logs = _dense(x).log1p()
    hidden = torch.nn.functional.softplus(
        _linear("hidden", logs / logs.norm(dim=-1, keepdim=True).clamp(min=1), hidden_dim)
    )
    loc = _linear("loc", hidden, num_topics - 1)
    scale = _linear("log_scale", hidden, num_topics - 1).exp()
    with pyro.plate("rows", x.shape[0], dim=-1):
        base = dist.Normal(loc, scale).to_event(1)
        pyro.sample("topic_weights", dist.TransformedDistribution(base, [AdditiveLogRatio()]))


class AdditiveLogRatio(Transform):
    """y = softmax(x, 0): from K - 1 real numbers to a simplex of K, Aitchison and Shen (1980).

    The Jacobian is that of the first K - 1 coordinates, in which Dirichlet densities are written: Π_k y_k.
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdditiveLogRatio)

    def __hash__(self) -> int:
        return hash(AdditiveLogRatio)

    def _call(self, x: Tensor) -> Tensor:
        return _with_last(x).softmax(-1).clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1].log() - y[..., -1:].log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Logarithm of the volume's change, shape (…)."""
        return _with_last(x).log_softmax(-1).sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y for that of x."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for that of y."""
        return (*shape[:-1], shape[-1] - 1)


def _sample_topics(start: Callable[[], tuple[Tensor, Tensor]], eta: float) -> None:
    """Draw the topics."""
    concentration = pyro.param("topic_words.concentration", lambda: eta + start()[1], constraint=constraints.positive)
    pyro.sample("topic_words", dist.Dirichlet(concentration).to_event(1))


def _linear(name: str, x: Tensor, out: int) -> Tensor:
    """An affine map of the last dimension, its parameters Pyro's; weights start small enough to keep the scale."""
    width = x.shape[-1]
    weight = pyro.param(f"encoder.{name}.weight", lambda: torch.randn(out, width).to(x) / width**0.5)
    return x @ weight.mT + pyro.param(f"encoder.{name}.bias", lambda: x.new_zeros(out))


def _tokens_by_topic(x: Tensor, num_topics: int) -> tuple[Tensor, Tensor]:
    """Expected tokens of documents (n, k) and of words (k, v) by topic, where parameters start.

    A few iterations of EM without a prior (probabilistic latent semantic analysis), from documents drawn one after the
    other with probabilities proportional to the squared distance from those before, 1 - Σ_v √(p_v q_v).
    """
    x = _dense(x)
    ones = x.new_ones(len(x))
    root, affinity, seeds = (x / x.sum(1, keepdim=True).clamp(min=1)).sqrt(), torch.zeros_like(ones), []
    for _ in range(num_topics):
        chance = torch.where(x.sum(1) > 0, (1 - affinity).clamp(min=0) ** 2, 0)
        seeds.append(torch.multinomial(chance if chance.sum() > 0 else ones, 1))
        affinity = torch.maximum(affinity, root @ root[seeds[-1][0]])
    words = (x[torch.cat(seeds)] + x.mean(0)) * (torch.rand(num_topics, x.shape[1]).to(x) + 9)
    weights = x.new_ones(x.shape[0], num_topics)
    for _ in range(_ITERATIONS):
        words, weights = (value / value.sum(-1, keepdim=True).clamp(min=1) for value in (words, weights))
        ratio = x / (weights @ words).clamp(min=torch.finfo(x.dtype).tiny)
        weights, words = weights * (ratio @ words.mT), words * (weights.mT @ ratio)
    return weights, words


def _dense(x: Tensor) -> Tensor:
    x = x.to_dense() if x.is_sparse else x
    return x if x.is_floating_point() else x.double()


def _with_last(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x, (0, 1))
