"""How well an autoencoder describes each row: the ELBO, the log likelihood by importance sampling, and units in use.

With weights w[k] = p(x, z[k]) / q(z[k] | x) at draws from q, E[mean log w] is the ELBO and E[log mean w] rises with the
number of draws from there to log p(x); both equal it, without noise, where q is the exact posterior.

References
----------
1. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR: theorem 1, and active units.
2. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR, appendix B: the divergence in closed form.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor

from .networks import decoder_of, encoded, observation

MOST_NUMBERS = 5_000_000  # that a layer puts out at once


@torch.no_grad()
def log_likelihood(
    params: Mapping[str, Tensor],
    x: Float[Tensor, "n d"],
    *,
    num_samples: int = 1000,
    guide: Callable | None = None,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """Estimate of log p(x[n]) by importance sampling with the encoder, in nats: in expectation a lower bound.

    It rises with ``num_samples`` (Burda et al. 2016, equation 8 and theorem 1). Samples are made and weighed in parts,
    so that memory does not grow with their number.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit.
    x : Tensor, shape (n, d)
        Rows, of the fit or new.
    num_samples : int
        k: draws of q for each row.
    guide : callable, optional
        The guide that the parameters belong to; needed unless it is ``guides.vae.encoder`` or
        ``full_covariance_encoder``.
    seed : int
        The global generators are left as they were.

    Raises
    ------
    ValueError
        If ``num_samples`` is out of range, or the parameters lack a decoder or what q needs.
    """
    total = x.new_full((len(x),), -math.inf)
    for weights in _log_weights(params, x, num_samples, guide, seed):
        total = torch.logaddexp(total, weights.logsumexp(0))
    return total - math.log(num_samples)


@torch.no_grad()
def elbo(
    params: Mapping[str, Tensor],
    x: Float[Tensor, "n d"],
    *,
    num_samples: int = 100,
    guide: Callable | None = None,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """E_q[log p(x[n], z) - log q(z | x[n])] by Monte Carlo, in nats; arguments and errors as for `log_likelihood`."""
    total = x.new_zeros(len(x))
    for weights in _log_weights(params, x, num_samples, guide, seed):
        total = total + weights.sum(0)
    return total / num_samples


def kl_per_unit(params: Mapping[str, Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, " q"]:
    """KL(q(z[j] | x) ‖ p(z[j])) of each factor, averaged over the rows, in nats: near zero for units not in use.

    ½ (μ² + σ² - 1 - log σ²) by Kingma and Welling (2014), appendix B. Of a full-covariance encoder it is the divergence
    of each factor's own marginal, and the factors' sum falls short of the whole.

    Parameters
    ----------
    params : mapping
        As for `encode`.
    x : Tensor, shape (n, d)

    Raises
    ------
    ValueError
        If there is no encoder of normals.
    """
    z = encoded(params, x)
    return 0.5 * (z.mean.square() + z.variance - 1 - z.variance.log()).mean(0)


def _log_weights(
    params: Mapping[str, Tensor], x: Tensor, num_samples: int, guide: Callable | None, seed: int
) -> Iterator[Tensor]:
    """Parts of log w, shape (part, n), of ``num_samples`` in all."""
    if num_samples < 1:
        raise ValueError(f"vae: num_samples must be at least 1, got {num_samples}")
    decoder = decoder_of(params)
    widest = max(value.numel() for name, value in decoder.items() if name.endswith(".bias"))
    part = max(1, MOST_NUMBERS // (len(x) * widest))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [min(part, num_samples - start) for start in range(0, num_samples, part)]
        for size in sizes:
            z, log_q = _propose(params, x, size, guide)
            prior = -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
            yield prior + observation(decoder, z).log_prob(x) - log_q


def _propose(params: Mapping[str, Tensor], x: Tensor, size: int, guide: Callable | None) -> tuple[Tensor, Tensor]:
    """Draws of q, (size, n, q), and their log densities, (size, n)."""
    if guide is None:
        proposal = encoded(params, x)
        z = proposal.sample((size,))
        return z, proposal.log_prob(z)
    store = pyro.get_param_store()
    with store.scope(), pyro.plate("samples", size, dim=-2):
        for name, value in params.items():
            store[name] = value.detach()  # the store would ask for gradients of the caller's own tensor
        trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    site: dict[str, Any] = dict(trace.nodes["z"])
    return site["value"], site["log_prob"]
