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
import warnings

import pyro
import pyro.distributions as dist
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.distributions import constraints


def mean_field(x: Tensor, *, num_components: int = 4, family: str = "poisson") -> None:
    """Independent distributions over the sites of ``models.mixture.model``, each with the support of its site.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    num_components : int
        K, as given to the model.
    family : {"poisson", "multinomial"}
        As given to the model.
    """
    _sample_globals(x, num_components, family)


def structured(x: Tensor, *, num_components: int = 4, family: str = "poisson") -> None:
    """`mean_field`, and the component of each row from its exact conditional: for ``models.mixture.latent_model``.

    Train it with ``TraceEnum_ELBO(max_plate_nesting=1)``, which sums over ``z``. As q(z | sites) is exact, the bound is
    the one that `mean_field` has under the model with ``z`` summed out. Arguments as for `mean_field`.
    """
    weights, intensity = _sample_globals(x, num_components, family)
    logs = intensity.clamp(min=torch.finfo(x.dtype).tiny).log()
    logits = torch.einsum("...d,...kd->...k", x, logs) + weights.log()
    if family == "poisson":
        logits = logits - intensity.sum(-1)
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def _sample_globals(x: Tensor, num_components: int, family: str) -> tuple[Tensor, Tensor]:
    """Draw the weights, and the rates or probabilities."""
    clusters = functools.cache(lambda: _clusters(x, num_components, family))  # one for all parameters, if they are new

    def counts() -> Tensor:
        return clusters()[0] + 1

    def sums() -> Tensor:
        return clusters()[1] + 1

    concentration = pyro.param("weights.concentration", counts, constraint=constraints.positive)
    weights = pyro.sample("weights", dist.Dirichlet(concentration))
    if family == "multinomial":
        concentration = pyro.param("probs.concentration", sums, constraint=constraints.positive)
        return weights, pyro.sample("probs", dist.Dirichlet(concentration).to_event(1))
    concentration = pyro.param("rate.concentration", sums, constraint=constraints.positive)
    mean = pyro.param("rate.mean", lambda: sums() / counts()[:, None], constraint=constraints.positive)
    return weights, pyro.sample("rate", dist.Gamma(concentration, concentration / mean).to_event(2))


def _clusters(x: Tensor, num_components: int, family: str) -> tuple[Tensor, Tensor]:
    """Rows in each cluster, (k,), and their sums, (k, d), by k-means on square roots of counts or of proportions."""
    scaled = x / x.sum(-1, keepdim=True).clamp(min=1) if family == "multinomial" else x
    seed = int(torch.randint(2**31 - 1, ()))
    k_means = KMeans(num_components, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        labels = k_means.fit(scaled.detach().sqrt().cpu().numpy()).labels_
    member = torch.nn.functional.one_hot(torch.as_tensor(labels, device=x.device).long(), num_components).to(x)
    return member.sum(0), member.mT @ x
