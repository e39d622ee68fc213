"""A guide of the autoregressive model, which has no latent variables: it decides what its weights maximise.

Without a guide of its own, a family of `guidebook.guides.families` draws nothing, and the ELBO is log p(x, weights).
"""

import pyro
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from ..models import autoregressive
from ..models._shared.inputs import rows_of
from ..models.autoregressive import Hidden, Network, Order


def maximum_likelihood(
    x: Tensor,
    *,
    network: Network = "made",
    hidden: Hidden = None,
    order: Order = "raster",
    prior_scale: float | None = None,
) -> None:
    """A point that ignores the prior of the weights: its density is that of the prior, which the ELBO subtracts.

    What is left of log p(x | weights) + log p(weights) is the likelihood. With ``map_point``, which subtracts nothing,
    the weights maximise the posterior density.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows, or a batch of them.
    network, hidden, order, prior_scale
        As for ``models.autoregressive.model``.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    x = rows_of("autoregressive", x)
    start = autoregressive.starts(x, network, hidden, order, x.shape[1])
    params = {name: pyro.param(name, value) for name, value in start.items()}
    if prior_scale is not None and am_i_wrapped():  # outside of inference Pyro warns of factors
        pyro.factor("network.without_prior", autoregressive.log_prior(params, prior_scale), has_rsample=True)
