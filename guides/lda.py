"""Guides of latent Dirichlet allocation: Dirichlets for everything, or documents' weights from a network.

    topic_words[k]   ~ Dirichlet                                (both guides)
    topic_weights[n] ~ Dirichlet                                (`mean_field`: one per document)
    topic_weights[n] ~ softmax(Normal(m(x[n]), s(x[n])²), 0)    (`encoder`: m and s from one network)

Dirichlets start where coordinate ascent does.

References
----------
1. Blei, Ng and Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5.4.
2. Srivastava and Sutton (2017), Autoencoding variational inference for topic models, ICLR.
3. Aitchison and Shen (1980), Logistic-normal distributions: some properties and uses, Biometrika 67.
"""

import functools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import pad, softplus

from ..models.lda import as_counts
from ..models.lda.cavi import start


def mean_field(x: Tensor, *, num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> None:
    """Independent Dirichlets over topics and over each document's weights, for ``models.lda.model``.

    With the loss "mean_field" (`TraceMeanField_ELBO`) divergences from the prior are in closed form. The tokens' topics
    are summed out in the model, so the best bound is above that of coordinate ascent.

    Parameters
    ----------
    x : Tensor, shape (n, v)
        All documents; a batch is refused, since it does not say which documents it holds.
    num_topics, alpha, eta
        As given to the model.

    Raises
    ------
    ValueError
        If the number of documents has changed since the first call.
    """
    rows, init = x.shape[0], functools.cache(lambda: start(x, num_topics, alpha, eta))
    words, weights = (
        pyro.param(name, lambda name=name: init()[name], constraint=constraints.positive)
        for name in ("topic_words.concentration", "topic_weights.concentration")
    )
    if len(weights) != rows:
        raise ValueError(
            f"mean_field: the guide has parameters for {len(weights)} documents and was given {rows}: "
            "fit all of them at once, or take encoder"
        )
    pyro.sample("topic_words", dist.Dirichlet(words).to_event(1))
    with pyro.plate("rows", rows, dim=-1):
        pyro.sample("topic_weights", dist.Dirichlet(weights))


def encoder(x: Tensor, *, num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01, hidden_dim: int = 100) -> None:
    """Dirichlets over topics; documents' weights logistic-normal, by a network with one hidden layer.

    The network sees log(1 + x), scaled to length one. Its normal has K - 1 dimensions, so that weights on the simplex
    have a density; the last topic's logit is zero.

    Parameters
    ----------
    x : Tensor, shape (n, v)
        All documents, or a batch of them.
    num_topics, alpha, eta
        As given to the model.
    hidden_dim : int
        Units of the hidden layer.

    Raises
    ------
    ValueError
        If there is only one topic.
    """
    if num_topics < 2:
        raise ValueError(f"encoder: with {num_topics} topic there is nothing to infer: take mean_field")
    name = "topic_words.concentration"
    words = pyro.param(name, lambda: start(x, num_topics, alpha, eta)[name], constraint=constraints.positive)
    pyro.sample("topic_words", dist.Dirichlet(words).to_event(1))
    logs = as_counts(x).to_dense().log1p()
    logs = logs / logs.norm(dim=-1, keepdim=True).clamp(min=1)
    hidden = softplus(_linear("hidden", logs, hidden_dim))
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
        return pad(x, (0, 1)).softmax(-1).clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1].log() - y[..., -1:].log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log of the change of volume, shape (…)."""
        return pad(x, (0, 1)).log_softmax(-1).sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:  # noqa: D102
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:  # noqa: D102
        return (*shape[:-1], shape[-1] - 1)


def _linear(name: str, x: Tensor, out: int) -> Tensor:
    """Map the last dimension affinely, with parameters of Pyro; weights start small enough to keep the scale."""
    width = x.shape[-1]
    weight = pyro.param(f"encoder.{name}.weight", lambda: torch.randn(out, width).to(x) / width**0.5)
    return x @ weight.mT + pyro.param(f"encoder.{name}.bias", lambda: x.new_zeros(out))
