"""Guides of the mixture of counts: Dirichlet × gamma or Dirichlet × Dirichlet, and one with the rows' components.

    weights   ~ Dirichlet                                        (starts at the clusters of k-means)
    rate      ~ Gamma, entry by entry                            (Poisson; starts there too)
    probs     ~ Dirichlet, component by component                (multinomial; likewise)
    z[n]      ~ Categorical(p(component | row, weights, rate))   (`structured` alone)

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.
2. Hoffman and Blei (2015), Structured stochastic variational inference, AISTATS: local variables given the global.
"""

import functools
from collections.abc import Callable

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from ..models.mixture import Family, log_joint
from ..models.mixture.prior import counts_of
from ..models.mixture.start import cluster


def mean_field(x: Tensor, *, num_components: int = 4, family: Family = "poisson") -> dict[str, Tensor]:
    """Draw the sites of ``models.mixture.model`` independently, each on its own support, and return them.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    num_components : int
        K, as given to the model.
    family : {"poisson", "multinomial"}
        As given to the model.
    """
    x = counts_of(x)
    clusters = functools.cache(lambda: [found.to(x) + 1 for found in cluster(x, num_components, family, tries=10)])

    def positive(name: str, start: Callable[[], Tensor]) -> Tensor:
        return pyro.param(name, start, constraint=constraints.positive)

    weights = pyro.sample("weights", dist.Dirichlet(positive("weights.concentration", lambda: clusters()[0])))
    if family == "multinomial":
        probs = dist.Dirichlet(positive("probs.concentration", lambda: clusters()[1])).to_event(1)
        return {"weights": weights, "probs": pyro.sample("probs", probs)}
    concentration = positive("rate.concentration", lambda: clusters()[1])
    mean = positive("rate.mean", lambda: clusters()[1] / clusters()[0].unsqueeze(-1))
    rate = pyro.sample("rate", dist.Gamma(concentration, concentration / mean).to_event(2))
    return {"weights": weights, "rate": rate}


def structured(x: Tensor, *, num_components: int = 4, family: Family = "poisson") -> None:
    """`mean_field`, and the component of each row from its exact conditional: for ``models.mixture.latent_model``.

    Train it with ``TraceEnum_ELBO(max_plate_nesting=1)``, which sums over ``z``. As q(z | sites) is exact, the bound is
    the one that `mean_field` has under the model with ``z`` summed out. Arguments as for `mean_field`.
    """
    logits = log_joint(mean_field(x, num_components=num_components, family=family), x)
    if logits.dim() > 2:  # parameters drawn under a plate on the left have a dimension of one where the rows go
        logits = logits.squeeze(-3)
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
