"""Guide families: each takes a model and returns a guide of the same data, so that one argument swaps the guide.

All but `map_point` put a normal distribution, or a transformation of one, on the unconstrained latent variables. A
``model`` is any Pyro model with continuous latent variables, ``init_scale`` the initial standard deviation of a normal.

References
----------
1. Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), Automatic differentiation variational inference, JMLR 18.
2. Ong, Nott and Smith (2018), Gaussian variational approximation with a factor covariance structure, JCGS 27.
3. Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation, NeurIPS.
4. MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapter 27: Laplace's method.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.distributions.transforms import affine_autoregressive, iterated
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
)

Model = Callable[..., Any]
Guide = Callable[..., Any]


def guide_family(build: Callable[..., Guide]) -> Callable[..., Guide]:
    """Mark a function as a guide family, ``model -> guide``, which distinguishes it from a guide."""
    build.is_guide_family = True  # pyright: ignore[reportFunctionMemberAccess]
    return build


@guide_family
def mean_field(model: Model, *, init_scale: float = 0.1) -> Guide:
    """Independent normals on the unconstrained latent variables."""
    return AutoNormal(model, init_scale=init_scale)


@guide_family
def low_rank(model: Model, *, rank: int | None = None, init_scale: float = 0.1) -> Guide:
    """A normal with covariance D + F Fᵀ on the unconstrained latent variables, D diagonal and F of ``rank`` columns.

    Parameters
    ----------
    rank : int, optional
        Columns of F; default: the square root of the number of latent variables.
    """
    return AutoLowRankMultivariateNormal(model, rank=rank, init_scale=init_scale)


@guide_family
def full_rank(model: Model, *, init_scale: float = 0.1) -> Guide:
    """A normal with any covariance on the d unconstrained latent variables: d(d + 1)/2 parameters for it."""
    return AutoMultivariateNormal(model, init_scale=init_scale)


@guide_family
def flow(model: Model, *, num_transforms: int = 2, hidden: int | None = None) -> Guide:
    """A standard normal pushed through affine autoregressive transformations to the unconstrained latent variables.

    Parameters
    ----------
    num_transforms : int
        Number of transformations, composed.
    hidden : int, optional
        Units of each transformation's hidden layer; default: Pyro's, from the number of latent variables.
    """
    transform = partial(affine_autoregressive, hidden_dims=None if hidden is None else [hidden])
    return _Flow(model, partial(iterated, num_transforms, transform))


@guide_family
def laplace(model: Model) -> Guide:
    """Laplace's approximation: a normal at the posterior mode on the unconstrained scale, with the curvature there."""
    return AutoLaplaceApproximation(model)


@guide_family
def map_point(model: Model) -> Guide:
    """A point at the mode of the posterior density on the constrained scale, without a spread or an ELBO."""
    return AutoDelta(model)


class _Flow(AutoNormalizingFlow):
    """Pyro's flow guide with its networks in the latent variables' dtype and on their device."""

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        if self.transform is None:
            sites: dict[str, Any] = dict(self.prototype_trace.iter_stochastic_nodes())  # pyright: ignore[reportOptionalMemberAccess]
            like = next(iter(sites.values()))["value"]
            self.transform = self._init_transform_fn(self.latent_dim).to(like)
            self._prototype_tensor = like.detach()
        return super().get_posterior(*args, **kwargs)
