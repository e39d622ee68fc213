"""Densities of a Gaussian mixture at given parameters, and data drawn at them."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from .._shared import information
from .._shared.steps import Params
from .covariance import Covariance, as_matrices, cholesky, form_of
from .model import scale_tril_at
from .prior import Prior, remembered_prior


def log_joint(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "... n k"]:
    """Return log p(x[n], component k) for every row and component; nan for a component with a singular covariance.

    Parameters
    ----------
    sites : dict
        ``weights``, ``loc`` and ``covariance``, shaped as the sites of `model` after any leading dimensions.
    x : Tensor, shape (n, d)
    """
    loc, dim = sites["loc"], x.shape[1]
    scale_tril = cholesky(as_matrices(sites["covariance"], loc))
    centred = (x - loc.unsqueeze(-2)).mT  # (..., k, d, n)
    whitened = torch.linalg.solve_triangular(scale_tril, centred, upper=False)
    log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_density = -0.5 * (whitened.square().sum(-2) + dim * math.log(2 * math.pi)) - log_det[..., None]
    return log_density.mT + sites["weights"].log().unsqueeze(-2)


def log_joint_at(
    sites: Params,
    x: Float[Tensor, "n d"],
    *,
    num_components: int = 3,
    covariance: Covariance = "full",
    prior: Prior | None = None,
) -> Float[Tensor, "... n k"]:
    """Return `log_joint` at the sites that `model` samples, with Σ as its Bartlett factor or as precisions.

    Parameters
    ----------
    sites : dict
        ``weights``, ``loc``, and ``bartlett_diagonal`` with ``bartlett_upper``, or ``precision``.
    x : Tensor, shape (n, d)
    num_components, covariance, prior
        As for `model`.
    """
    if form_of(covariance).matrices:
        scale = (prior or remembered_prior(x, num_components)).scale
        scale_tril = scale_tril_at(sites["bartlett_diagonal"], sites.get("bartlett_upper"), scale)
        sigma = scale_tril @ scale_tril.mT
    else:
        sigma = 1 / sites["precision"]
    return log_joint({"weights": sites["weights"], "loc": sites["loc"], "covariance": sigma}, x)


def log_likelihood(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return log p(x[n]) for every row, in nats, the component summed out; arguments as for `log_joint`."""
    return log_joint(sites, x).logsumexp(-1)


def responsibilities(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "... n k"]:
    """Return p(component | row), Bishop (2006), equation 9.13; arguments as for `log_joint`."""
    return log_joint(sites, x).softmax(-1)


def num_parameters(sites: Params) -> int:
    """Return the number of free parameters of the mixture with these sites, as `log_joint` takes them."""
    num_components, dim = sites["loc"].shape[-2:]
    sigma, of_loc = sites["covariance"], sites["loc"].dim()
    is_matrix = sigma.dim() > of_loc
    free = sigma.shape[-3] * dim * (dim + 1) // 2 if is_matrix else sigma.shape[of_loc - 2 :].numel()
    return num_components - 1 + num_components * dim + free


def bic(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "..."]:
    """Return the Bayesian information criterion in nats, higher is better: Schwarz (1978).

    ``sites`` (as for `log_joint`) should be the maximum of the likelihood that `em` finds. scikit-learn's ``bic`` is -2
    times this.
    """
    return information.bic(log_likelihood(sites, x), num_parameters(sites))


def icl(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "..."]:
    """Return the integrated completed likelihood in nats, higher is better: Biernacki, Celeux and Govaert (2000).

    `bic` less the entropy of the rows' components; arguments as there.
    """
    return information.icl(log_joint(sites, x), num_parameters(sites))


def posterior_predictive(sites: Params, num_rows: int, *, seed: int = 0) -> Shaped[Tensor, "... n d"]:
    """Draw new rows from the mixture at every draw of its parameters.

    Parameters
    ----------
    sites : dict
        As for `log_joint`.
    num_rows : int
        Rows per draw.
    seed : int

    Returns
    -------
    Tensor, shape (..., num_rows, d)
    """
    loc = sites["loc"]
    normal = MultivariateNormal(loc, as_matrices(sites["covariance"], loc))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MixtureSameFamily(Categorical(sites["weights"]), normal).sample((num_rows,)).movedim(0, -2)
