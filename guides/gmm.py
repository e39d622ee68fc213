"""Guides of the Gaussian mixture written out: Dirichlet × normal × precision, site by site, and z given all of them.

    weights                        ~ Dirichlet
    bartlett_diagonal, precision   ~ Gamma, entry by entry     (whichever the covariance has)
    bartlett_upper                 ~ Normal, entry by entry
    loc                            ~ Normal, entry by entry    (starts at the centres of k-means)
    z[n] | all of these            ~ Categorical(p(z[n] | x[n], all of these))    (structured, for latent_model)

Bishop (2006), Pattern Recognition and Machine Learning, section 10.2, with the precision's factor in entries.
"""

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from ..models._shared.inputs import rows_of
from ..models.gmm import Covariance, Prior, log_joint_at
from ..models.gmm.model import k_means


def mean_field(x: Tensor, *, num_components: int = 3, covariance: Covariance = "full") -> dict[str, Tensor]:
    """Draw the sites of ``models.gmm.model`` independently, each on its own support, and return them.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    num_components : int
        K, as given to the model.
    covariance : {"full", "tied", "diagonal", "isotropic"}
        As given to the model.
    """
    x = rows_of("gmm", x)
    rows, dim = x.shape
    share = rows / num_components

    def positive(name: str, start: Tensor) -> Tensor:
        return pyro.param(name, start, constraint=constraints.positive)

    concentration = positive("weights.concentration", x.new_full((num_components,), share))
    sites = {"weights": pyro.sample("weights", dist.Dirichlet(concentration))}
    if covariance in ("full", "tied"):
        copies = num_components if covariance == "full" else 1
        gamma_site, shape, mean = "bartlett_diagonal", (copies, dim), x.new_full((copies, dim), dim + 2.0)
    else:
        shape = (num_components, dim) if covariance == "diagonal" else (num_components,)
        variance = x.var(0) if covariance == "diagonal" else x.var(0).mean()
        gamma_site, mean = "precision", (num_components ** (2 / dim) / variance).expand(shape)
    concentration = positive(f"{gamma_site}.concentration", x.new_full(shape, share / 2))
    mean = positive(f"{gamma_site}.mean", mean)
    sites[gamma_site] = pyro.sample(gamma_site, dist.Gamma(concentration, concentration / mean).to_event(len(shape)))
    if gamma_site == "bartlett_diagonal" and dim > 1:
        shape = (shape[0], dim * (dim - 1) // 2)
        upper = pyro.param("bartlett_upper.mean", x.new_zeros(shape))
        scale = positive("bartlett_upper.scale", x.new_full(shape, 0.1))
        sites["bartlett_upper"] = pyro.sample("bartlett_upper", dist.Normal(upper, scale).to_event(2))

    centre = pyro.param("loc.mean", lambda: k_means(x, num_components)[0])
    scale = positive("loc.scale", x.std(0).expand(num_components, dim) / share**0.5)
    sites["loc"] = pyro.sample("loc", dist.Normal(centre, scale).to_event(2))
    return sites


def structured(
    x: Tensor, *, num_components: int = 3, covariance: Covariance = "full", prior: Prior | None = None
) -> None:
    """`mean_field` over the parameters, and the components' exact distribution given them, for ``latent_model``.

    Train it by ``TraceEnum_ELBO(max_plate_nesting=1)``, which sums z out: the bound is that of `mean_field`.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    num_components, covariance, prior
        As given to the model.
    """
    sites = mean_field(x, num_components=num_components, covariance=covariance)
    logits = log_joint_at(sites, x, num_components=num_components, covariance=covariance, prior=prior)
    if logits.dim() > 2:  # parameters drawn under a plate on the left have a dimension of one where the rows go
        logits = logits.squeeze(-3)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
