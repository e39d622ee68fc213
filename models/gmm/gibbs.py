"""Gibbs sampling of a Gaussian mixture: the rows' components, then all parameters at once given them."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Chi2, Dirichlet, Gamma

from .._shared.steps import GibbsSteps, Params
from .conjugate import statistics, update
from .em import start
from .exact import log_joint
from .model import Covariance, Prior, remembered_prior, scale_tril_at

SITES = ("weights", "loc", "covariance")


def gibbs_steps(num_components: int = 3, covariance: Covariance = "full", prior: Prior | None = None) -> GibbsSteps:
    """Full conditionals of two blocks: components given parameters, and parameters given components.

    Diebolt and Robert (1994), Estimation of finite mixture distributions through Bayesian sampling, JRSS B 56.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    prior : Prior, optional
        `default_prior` of the data where left out.

    Returns
    -------
    GibbsSteps
        Every chain begins at k-means from seeds of its own. The state is ``weights``, ``loc``, ``covariance`` and
        ``component``, shape (chain, n).
    """

    def init(num_chains: int, x: Tensor) -> Params:
        chains = [start(0, x, num_components, covariance) for _ in range(num_chains)]
        state = {name: torch.stack([chain[name] for chain in chains]) for name in SITES}
        return state | draw_components(state, x)

    def draw_components(state: Params, x: Tensor) -> Params:
        return {"component": Categorical(logits=log_joint({name: state[name] for name in SITES}, x)).sample()}

    def draw_parameters(state: Params, x: Tensor) -> Params:
        the_prior = prior or remembered_prior(x, num_components)
        shares = torch.nn.functional.one_hot(state["component"], num_components).to(x)
        shared = statistics(shares, x, covariance)
        posterior = update(shared, the_prior, covariance)
        return draw_posterior(
            {"concentration": the_prior.concentration + shared.counts, **posterior._asdict()}, covariance
        )

    return GibbsSteps(init, (draw_components, draw_parameters), SITES)


def draw_posterior(params: Params, covariance: Covariance) -> Params:
    """One draw of weights, means and covariances from each conjugate posterior, whatever the leading dimensions."""
    weights = Dirichlet(params["concentration"]).sample()
    mean, df, scale = params["mean"], params["df"], params["scale"]
    dim = mean.shape[-1]
    noise = torch.randn_like(mean) / params["mean_strength"].sqrt().unsqueeze(-1)
    if covariance in ("full", "tied"):
        degrees = df.unsqueeze(-1) - dim + 1 + torch.arange(dim, dtype=df.dtype, device=df.device)
        upper = torch.randn(*df.shape, dim * (dim - 1) // 2, dtype=df.dtype, device=df.device)
        scale_tril = scale_tril_at(Chi2(degrees).sample(), upper, scale)
        loc = mean + (scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        return {"weights": weights, "loc": loc, "covariance": scale_tril @ scale_tril.mT}
    shape = df.unsqueeze(-1).expand_as(scale) if covariance == "diagonal" else df
    sigma = 1 / Gamma(shape / 2, scale / 2).sample()
    sd = sigma.sqrt() if covariance == "diagonal" else sigma.sqrt().unsqueeze(-1)
    return {"weights": weights, "loc": mean + sd * noise, "covariance": sigma}
