"""Gibbs sampling of a mixture of counts: the rows' components, then all parameters at once given them."""

import torch
from torch import Tensor

from .._shared.steps import GibbsSteps, Params
from .conjugate import Rows, factors, posterior, prepare
from .exact import responsibilities
from .prior import Family, Prior
from .start import cluster


def gibbs_steps(num_components: int = 4, family: Family = "poisson", prior: Prior | None = None) -> GibbsSteps:
    """Full conditionals of two blocks: components given parameters, and parameters given components.

    Diebolt and Robert (1994), Estimation of finite mixture distributions through Bayesian sampling, JRSS B 56.

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}
    prior : Prior, optional
        Default: `default_prior` of the data.

    Returns
    -------
    GibbsSteps
        Two blocks; the second draws the weights and the components' parameters at once. Each chain starts at a draw
        given clusters of k-means, the best of ten tries per chain. The state has ``z`` (chain, n), ``weights``
        (chain, k) and ``rate`` or ``probs`` (chain, k, d).
    """
    site = "rate" if family == "poisson" else "probs"

    def rows_of(x: Tensor | Rows) -> Rows:
        return prepare(x, num_components, family, prior)

    def init(num_chains: int, x: Tensor | Rows) -> Params:
        rows = rows_of(x)
        clusters = [cluster(rows.x, num_components, family, tries=10) for _ in range(num_chains)]
        counts, sums = (torch.stack(values) for values in zip(*clusters, strict=True))
        state = draw_sites(counts, sums, rows.prior)
        return state | draw_z(state, rows)

    def draw_z(state: Params, x: Tensor | Rows) -> Params:
        sites = {name: state[name] for name in ("weights", site)}
        cumulative = responsibilities(sites, rows_of(x).x).cumsum(-1)
        uniform = torch.rand_like(cumulative[..., :1])
        return {"z": (uniform > cumulative[..., :-1]).sum(-1)}

    def draw_parameters(state: Params, x: Tensor | Rows) -> Params:
        rows = rows_of(x)
        member = torch.nn.functional.one_hot(state["z"], num_components).to(rows.x)
        return draw_sites(member.sum(-2), member.mT @ rows.x, rows.prior)

    return GibbsSteps(init, (draw_z, draw_parameters), ("weights", site), prepare=lambda x: (rows_of(x),))


def draw_sites(counts: Tensor, sums: Tensor, prior: Prior) -> Params:
    """Draw the weights and the components' parameters given rows per component and their sums."""
    return {name: q.sample() for name, q in factors(posterior(prior, counts, sums)).items()}
