"""Mean-field guide of the Gaussian mixture: Dirichlet × normal × precision, site by site.

    weights                        ~ Dirichlet
    bartlett_diagonal, precision   ~ Gamma, entry by entry     (whichever the covariance has)
    bartlett_upper                 ~ Normal, entry by entry
    loc                            ~ Normal, entry by entry    (starts at the centres of k-means)

Bishop (2006), Pattern Recognition and Machine Learning, section 10.2, with the precision's factor in entries.
"""

import pyro
import pyro.distributions as dist
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.distributions import constraints


def mean_field(x: Tensor, *, num_components: int = 3, covariance: str = "full") -> None:
    """Independent distributions over the sites of ``models.gmm.model``, each with the support of its site.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    num_components : int
        K, as given to the model.
    covariance : {"full", "tied", "diagonal", "isotropic"}
        As given to the model.
    """
    rows, dim = x.shape
    share = rows / num_components

    def positive(name: str, start: Tensor) -> Tensor:
        return pyro.param(name, start, constraint=constraints.positive)

    pyro.sample("weights", dist.Dirichlet(positive("weights.concentration", x.new_full((num_components,), share))))

    if covariance in ("full", "tied"):
        copies = num_components if covariance == "full" else 1
        gamma_site, shape, mean = "bartlett_diagonal", (copies, dim), x.new_full((copies, dim), dim + 2.0)
    else:
        shape = (num_components, dim) if covariance == "diagonal" else (num_components,)
        variance = x.var(0) if covariance == "diagonal" else x.var(0).mean()
        gamma_site, mean = "precision", (num_components ** (2 / dim) / variance).expand(shape)
    concentration = positive(f"{gamma_site}.concentration", x.new_full(shape, share / 2))
    mean = positive(f"{gamma_site}.mean", mean)
    pyro.sample(gamma_site, dist.Gamma(concentration, concentration / mean).to_event(len(shape)))
    if gamma_site == "bartlett_diagonal" and dim > 1:
        shape = (shape[0], dim * (dim - 1) // 2)
        upper = pyro.param("bartlett_upper.mean", x.new_zeros(shape))
        scale = positive("bartlett_upper.scale", x.new_full(shape, 0.1))
        pyro.sample("bartlett_upper", dist.Normal(upper, scale).to_event(2))

    centre = pyro.param("loc.mean", lambda: _centres(x, num_components))
    scale = positive("loc.scale", x.std(0).expand(num_components, dim) / share**0.5)
    pyro.sample("loc", dist.Normal(centre, scale).to_event(2))


def _centres(x: Tensor, num_components: int) -> Tensor:
    seed = int(torch.randint(2**31 - 1, ()))
    k_means = KMeans(num_components, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
    fitted = k_means.fit(x.detach().cpu().numpy())
    return torch.as_tensor(fitted.cluster_centers_, dtype=x.dtype, device=x.device)
