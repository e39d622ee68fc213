"""How well an autoencoder describes each row: the ELBO, the log likelihood by importance sampling, and units in use.

With weights w[k] = p(x, z[k]) / q(z[k] | x) at draws from q, E[mean log w] is the ELBO. E[log mean w] rises with the
number of draws from there to log p(x). If q is the exact posterior, both equal log p(x) without noise. For any model,
not only this one, see `guidebook.inference.evidence`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor

from .networks import MOST_NUMBERS, ParamMap, decoder_of, encoded, observation, widest


@torch.no_grad()
def log_likelihood(
    params: ParamMap, x: Float[Tensor, "n d"], *, num_draws: int = 1000, guide: Callable | None = None, seed: int = 0
) -> Float[Tensor, " n"]:
    """Estimate log p(x[n]) by importance sampling with the encoder, in nats: in expectation a lower bound.

    It rises with ``num_draws`` (Burda et al. 2016, equation 8 and theorem 1). Draws are made and weighed in parts, so
    that memory does not grow with their number.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit.
    x : Tensor, shape (n, d)
        Rows, of the fit or new.
    num_draws : int
        k: draws of q per row.
    guide : callable, optional
        The guide with these parameters. Default: ``guides.vae.encoder`` or ``full_covariance_encoder``, as fitted.
    seed : int
        The global generators keep their state.

    Raises
    ------
    ValueError
        If ``num_draws`` is out of range, or the parameters hold no decoder or encoder.
    """
    total = x.new_full((len(x),), -math.inf)
    for weights in _log_weights(params, x, num_draws, guide, seed):
        total = torch.logaddexp(total, weights.logsumexp(0))
    return total - math.log(num_draws)


@torch.no_grad()
def elbo(
    params: ParamMap, x: Float[Tensor, "n d"], *, num_draws: int = 100, guide: Callable | None = None, seed: int = 0
) -> Float[Tensor, " n"]:
    """Estimate E_q[log p(x[n], z) - log q(z | x[n])] by draws, in nats; arguments as for `log_likelihood`."""
    total = x.new_zeros(len(x))
    for weights in _log_weights(params, x, num_draws, guide, seed):
        total = total + weights.sum(0)
    return total / num_draws


def kl_per_unit(params: ParamMap, x: Float[Tensor, "n d"]) -> Float[Tensor, " q"]:
    """Return KL(q(z[j] | x) ‖ p(z[j])) of each factor, averaged over the rows, in nats: near zero for unused units.

    ½ (μ² + σ² - 1 - log σ²) by Kingma and Welling (2014), appendix B. For a full-covariance encoder it is the
    divergence of each factor's marginal; their sum is less than the joint divergence. Arguments as for `encode`.
    """
    z = encoded(params, x)
    return 0.5 * (z.mean.square() + z.variance - 1 - z.variance.log()).mean(0)


def _log_weights(params: ParamMap, x: Tensor, num_draws: int, guide: Callable | None, seed: int) -> Iterator[Tensor]:
    """Parts of log w, shape (part, n), of ``num_draws`` in all."""
    if num_draws < 1:
        raise ValueError(f"vae: num_draws must be at least 1, got {num_draws}")
    decoder = decoder_of(params)
    part = max(1, MOST_NUMBERS // (len(x) * widest(decoder)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for done in range(0, num_draws, part):
            z, log_q = _propose(params, x, min(part, num_draws - done), guide)
            prior = -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
            yield prior + observation(decoder, z).log_prob(x) - log_q


def _propose(params: ParamMap, x: Tensor, size: int, guide: Callable | None) -> tuple[Tensor, Tensor]:
    """Draws of q, (size, n, q), and their log densities, (size, n)."""
    if guide is None:
        proposal = encoded(params, x)
        z = proposal.sample((size,))
        return z, proposal.log_prob(z)
    store = pyro.get_param_store()
    with store.scope(), pyro.plate("draws", size, dim=-2):
        for name, value in params.items():
            store[name] = value.detach()  # the store would require gradients of the caller's tensor
        trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    site: dict[str, Any] = dict(trace.nodes["z"])
    return site["value"], site["log_prob"]
