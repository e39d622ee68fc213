"""Gibbs sampling of a Gaussian mixture: the rows' components, then all parameters at once given them."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Chi2, Dirichlet

from .._shared.steps import GibbsSteps, Params
from .conjugate import statistics, update
from .covariance import Covariance, Form, align, form_of
from .e_step import Rows, prepare
from .em import start
from .exact import log_joint
from .model import scale_tril_at
from .prior import Prior

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
        Default: `default_prior` of the data.

    Returns
    -------
    GibbsSteps
        Every chain begins at k-means with different seeds. The state is ``weights``, ``loc``, ``covariance`` and
        ``component``, shape (chain, n).
    """
    form = form_of(covariance)

    def rows_of(x: Tensor | Rows) -> Rows:
        return prepare(x, num_components, covariance)

    def init(num_chains: int, x: Tensor | Rows) -> Params:
        rows = rows_of(x)
        chains = [start(0, rows, num_components, form) for _ in range(num_chains)]
        state = {name: torch.stack([chain[name] for chain in chains]) for name in SITES}
        return state | draw_components(state, rows)

    def draw_components(state: Params, x: Tensor | Rows) -> Params:
        logits = log_joint({name: state[name] for name in SITES}, rows_of(x).x)
        return {"component": Categorical(logits=logits).sample()}

    def draw_parameters(state: Params, x: Tensor | Rows) -> Params:
        rows = rows_of(x)
        given = prior or rows.prior
        member = torch.nn.functional.one_hot(state["component"], num_components).to(rows.x).mT
        found = statistics(member, rows.x, form)
        posterior = update(found, given, form)
        return draw_posterior({"concentration": given.concentration + found.counts, **posterior._asdict()}, form)

    return GibbsSteps(init, (draw_components, draw_parameters), SITES, prepare=lambda x: (rows_of(x),))


def draw_posterior(params: Params, form: Form) -> Params:
    """Draw weights, means and covariances from each conjugate posterior, whatever the leading dimensions."""
    weights = Dirichlet(params["concentration"]).sample()
    scale = form.blocks(params["scale"])
    df, size = align(params["df"], scale[..., 0, 0]).expand(scale.shape[:-2]), scale.shape[-1]
    degrees = df.unsqueeze(-1) - size + 1 + torch.arange(size, dtype=df.dtype, device=df.device)
    upper = torch.randn(*df.shape, size * (size - 1) // 2, dtype=df.dtype, device=df.device)
    scale_tril = scale_tril_at(Chi2(degrees).sample(), upper, scale)
    sigma = (scale_tril @ scale_tril.mT).reshape(params["scale"].shape)
    mean = params["mean"]
    noise = torch.randn_like(mean) / params["mean_strength"].sqrt().unsqueeze(-1)
    loc = mean + form.times(form.root(sigma), noise.unsqueeze(-1)).squeeze(-1)
    return {"weights": weights, "loc": loc, "covariance": sigma}
