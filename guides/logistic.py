"""Guides of Bayesian logistic regression written out: readable twins of the families `mean_field` and `full_rank`.

Both are normals over ``w``; Bishop (2006), Pattern Recognition and Machine Learning, section 10.1.1, and
Kucukelbir et al. (2017), Automatic differentiation variational inference, section 2.5.
"""

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions.constraints import lower_cholesky, positive

from ..models._shared.inputs import rows_of


def mean_field(x: Tensor, y: Tensor | None = None, *, init_scale: float = 0.1) -> None:
    """Independent normals: w ~ Normal(mean, diag(scale²)).

    Parameters
    ----------
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,), optional
    init_scale : float
        Initial standard deviation.
    """
    x = rows_of("logistic", x)
    size = x.shape[1] + 1
    mean = pyro.param("w.mean", lambda: x.new_zeros(size))
    scale = pyro.param("w.scale", lambda: x.new_full((size,), init_scale), constraint=positive)
    pyro.sample("w", dist.Normal(mean, scale).to_event(1))


def cholesky(x: Tensor, y: Tensor | None = None, *, init_scale: float = 0.1) -> None:
    """One normal: w ~ Normal(mean, L Lᵀ), L lower triangular; parameters as for `mean_field`."""
    x = rows_of("logistic", x)
    size = x.shape[1] + 1
    mean = pyro.param("w.mean", lambda: x.new_zeros(size))
    root = pyro.param("w.scale_tril", lambda: x.new_full((size,), init_scale).diag(), constraint=lower_cholesky)
    pyro.sample("w", dist.MultivariateNormal(mean, scale_tril=root))
