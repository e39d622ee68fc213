"""Guide families: each takes a model and returns a guide of the same data, so that one argument swaps the guide.

All but `map_point` put a normal distribution, or a transformation of one, on the unconstrained latent variables. A
``model`` is any Pyro model with continuous latent variables, ``init_scale`` the initial standard deviation of a normal:
`svi` starts it elsewhere, at a normal fitted at fixed draws, if there are no more than 200 latent numbers
(`guidebook.inference.optim.unit_scale`).

References
----------
1. Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), Automatic differentiation variational inference, JMLR 18.
2. Ong, Nott and Smith (2018), Gaussian variational approximation with a factor covariance structure, JCGS 27.
3. Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
4. MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapter 27: Laplace's method.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

from .real_nvp import RealNvp

Model = Callable[..., Any]
Guide = Callable[..., Any]


def guide_family(build: Callable[..., Guide], **preferred: Any) -> Callable[..., Guide]:
    """Mark a function as a guide family, ``model -> guide``, which distinguishes it from a guide.

    ``preferred`` are options that `svi` takes where the caller gives none: ``loss``, by name, and ``num_particles``.
    """
    build.is_guide_family, build.preferred = True, preferred  # pyright: ignore[reportFunctionMemberAccess]
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


@partial(guide_family, loss="sticking", num_particles=4)
def full_rank(model: Model, *, init_scale: float = 0.1) -> Guide:
    """A normal with any covariance on the d unconstrained latent variables: d(d + 1)/2 parameters for it.

    Unless told otherwise, `svi` fits it by the loss "sticking", whose gradient has no noise where the posterior is such
    a normal, four draws at each step.
    """
    return AutoMultivariateNormal(model, init_scale=init_scale)


@partial(guide_family, loss="sticking", num_particles=16)
def flow(model: Model, *, num_transforms: int = 6, hidden: int | None = None, init_scale: float = 0.1) -> Guide:
    """A normalising flow, real NVP: bent margins and affine couplings, then a normal's affine map.

    It can be any normal that `full_rank` can. Unless told otherwise, `svi` fits it by the loss "sticking", 16 draws at
    each step.

    Parameters
    ----------
    num_transforms : int
        Number of couplings; of a single latent variable, of bends of its margin.
    hidden : int, optional
        Units of each of the two hidden layers of a coupling's network; default: twice the number of latent variables,
        between 16 and 64.
    """
    return RealNvp(model, num_transforms=num_transforms, hidden=hidden, init_scale=init_scale)


@guide_family
def laplace(model: Model) -> Guide:
    """Laplace's approximation: a normal at the posterior mode on the unconstrained scale, with the curvature there."""
    return AutoLaplaceApproximation(model)


@guide_family
def map_point(model: Model) -> Guide:
    """A point at the mode of the posterior density on the constrained scale, without a spread or an ELBO."""
    return AutoDelta(model)
