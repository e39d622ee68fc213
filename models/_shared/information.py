"""Criteria that charge a maximum of the likelihood for its parameters: approximate log evidences in nats."""

import math

from jaxtyping import Float
from torch import Tensor


def bic(log_likelihood: Float[Tensor, "*batch n"], num_parameters: int) -> Float[Tensor, "*batch"]:
    """Return log p(x | maximum of the likelihood) - (num_parameters / 2) log n, in nats: higher is better.

    Schwarz (1978), Estimating the dimension of a model, Annals of Statistics 6. Many programs print -2 times this.
    """
    return log_likelihood.sum(-1) - num_parameters / 2 * math.log(log_likelihood.shape[-1])


def icl(log_joint: Float[Tensor, "*batch n k"], num_parameters: int) -> Float[Tensor, "*batch"]:
    """Return `bic` of a mixture less the entropy of its rows' components, in nats: higher is better.

    Biernacki, Celeux and Govaert (2000), Assessing a mixture model for clustering with the integrated completed
    likelihood, IEEE PAMI 22, with responsibilities in place of the most probable components, as in McLachlan and Peel
    (2000), section 6.10.3. Components that overlap cost their entropy, so that it counts clusters.

    Parameters
    ----------
    log_joint : Tensor, shape (..., n, k)
        log p(row, component) at the maximum of the likelihood.
    num_parameters : int
    """
    responsibilities, total = log_joint.softmax(-1), log_joint.logsumexp(-1)
    certain = (responsibilities * (log_joint - total.unsqueeze(-1)).clamp(min=-1e300)).sum((-1, -2))
    return bic(total, num_parameters) + certain
