"""The Pyro model of a Gaussian mixture, its conjugate prior, and data simulated from it."""

import functools
import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.ops.indexing import Vindex
from pyro.poutine.runtime import InferDict
from sklearn.cluster import KMeans
from torch import Tensor

from .._shared.responsibilities import moments

Covariance = Literal["full", "tied", "diagonal", "isotropic"]

MOST_ROWS = 100_000  # among which k-means looks for centres


class Prior(NamedTuple):
    """Conjugate prior of a Gaussian mixture.

    Attributes
    ----------
    concentration : float
        c: of the symmetric Dirichlet over the weights.
    mean : Tensor, shape (d,)
        m: centre of the components' means, in the data's units.
    mean_strength : float
        κ: how many observations the prior of a mean is worth.
    df : float
        ν: degrees of freedom of the covariances; more than d - 1.
    scale : Tensor, shape (d, d)
        Λ: scale of the covariances, in squared units of the data; their prior mean where ν = d + 2.
    """

    concentration: float
    mean: Tensor
    mean_strength: float
    df: float
    scale: Tensor


def default_prior(x: Float[Tensor, "n d"], num_components: int) -> Prior:
    """Weakly informative prior in the data's own units.

    κ = .01, ν = d + 2 and m the data's mean, as Fraley and Raftery (2007, section 3) have it. They take Λ to be the
    data's covariance over K^(2/d), as for components that divide a ball; here Λ is diagonal, the data's variances
    over K², as for components that divide a line: a large Λ lets one wide component take the place of two. The
    Dirichlet's concentration is 5, so that no component starves.

    Raises
    ------
    ValueError
        If a column is constant or has no finite variance, or the columns are linearly dependent.
    """
    return _default_prior(x, num_components, x.dtype)


def remembered_prior(x: Tensor, num_components: int, dtype: torch.dtype | None = None) -> Prior:
    """`default_prior`, in ``dtype`` or x's own, worked out once for a tensor, as a model runs often."""
    return _remembered_prior(x, x._version, num_components, dtype or x.dtype)


@functools.lru_cache(maxsize=4)
def _remembered_prior(x: Tensor, version: int, num_components: int, dtype: torch.dtype) -> Prior:
    """``version`` counts x's changes."""
    return _default_prior(x, num_components, dtype)


def _default_prior(x: Tensor, num_components: int, dtype: torch.dtype) -> Prior:
    mean, covariance = moments(x)
    variance, dim = covariance.diagonal(), len(mean)
    if not torch.isfinite(variance).all():
        column = int((~torch.isfinite(variance)).nonzero()[0])
        raise ValueError(f"gmm: column {column} has no finite variance: it holds nan, inf or numbers past 1e150")
    if not (variance > 0).all():
        raise ValueError(f"gmm: column {int((variance <= 0).nonzero()[0])} is constant: leave it out")
    sd = variance.sqrt()
    if torch.linalg.eigvalsh(covariance / (sd * sd[:, None]))[0] < 100 * dim * torch.finfo(dtype).eps:
        raise ValueError("gmm: the columns are linearly dependent (or there are fewer rows than columns)")
    return Prior(5.0, mean.to(dtype), 0.01, dim + 2.0, torch.diag(variance / num_components**2).to(dtype))


def model(
    x: Tensor | None = None,
    *,
    num_components: int = 3,
    covariance: Covariance = "full",
    prior: Prior | None = None,
    num_rows: int | None = None,
) -> Tensor:
    """Pyro model of rows from a Gaussian mixture, the component's index summed out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data. Drawn from the model where left out; ``num_rows`` and ``prior`` must be given then.
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
        A matrix each, one matrix shared, a variance a feature each, one variance each.
    prior : Prior, optional
        `default_prior` of the data where left out.
    num_rows : int, optional
        How many rows to draw where ``x`` is left out.

    Returns
    -------
    Tensor, shape (n, d)
        The data.

    Raises
    ------
    ValueError
        For an unknown covariance, more components than rows, or a column without spread.
    """
    like, rows, prior = _given(x, num_components, covariance, prior, num_rows)
    weights, loc, scale = _components(like, x, num_components, covariance, prior)
    component = _normal(loc, scale, covariance)
    with pyro.plate("rows", rows):
        return pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), component), obs=x)


def latent_model(
    x: Tensor | None = None,
    *,
    num_components: int = 3,
    covariance: Covariance = "full",
    prior: Prior | None = None,
    num_rows: int | None = None,
) -> Tensor:
    """The same model with each row's component explicit, as site ``z``, shape (n): for enumeration.

    Arguments, result and errors as for `model`.
    """
    like, rows, prior = _given(x, num_components, covariance, prior, num_rows)
    weights, loc, scale = _components(like, x, num_components, covariance, prior)
    with pyro.plate("rows", rows):
        z = pyro.sample("z", dist.Categorical(weights))
        loc = Vindex(loc)[..., z, :]
        if covariance == "tied":
            scale = scale.squeeze(-3)
        else:
            scale = Vindex(scale)[..., z, :, :] if covariance == "full" else Vindex(scale)[..., z, :]
        return pyro.sample("x", _normal(loc, scale, covariance), obs=x)


def _given(
    x: Tensor | None, num_components: int, covariance: str, prior: Prior | None, num_rows: int | None
) -> tuple[Tensor, int, Prior]:
    """A tensor of the data's kind, the number of rows, and the prior, default or given."""
    if x is None:
        if prior is None or num_rows is None:
            raise ValueError("gmm: to draw data, give prior= and num_rows=")
        like, rows = prior.mean, num_rows
    else:
        like, rows = x, len(x)
    check(num_components, covariance, rows)
    return like, rows, prior or remembered_prior(like, num_components)


def _components(
    like: Tensor, x: Tensor | None, num_components: int, covariance: Covariance, prior: Prior
) -> tuple[Tensor, Tensor, Tensor]:
    """The global sites: weights, means, and Cholesky factors or, entry by entry, standard deviations."""
    even = like.new_full((num_components,), 1 / num_components)  # a start with few rows to one component may lose it
    start: Any = {"init": lambda: even}
    concentration = like.new_full((num_components,), prior.concentration)
    weights = pyro.sample("weights", dist.Dirichlet(concentration), infer=start)
    if covariance in ("full", "tied"):
        scale = _sample_scale_tril(prior, num_components if covariance == "full" else 1, x, num_components)
        pyro.deterministic("covariance", scale @ scale.mT, event_dim=3)
        centres = prior.mean.expand(num_components, -1)
        spread = dist.MultivariateNormal(centres, scale_tril=scale / math.sqrt(prior.mean_strength))
    else:
        rate = prior.scale.diagonal() if covariance == "diagonal" else prior.scale.diagonal().mean()
        shape = [num_components, *rate.shape]
        gamma = dist.Gamma(prior.df / 2, rate / 2).expand_by([num_components]).to_event(len(shape))
        precision = pyro.sample("precision", gamma, infer=_start(f"{covariance} precision", x, num_components, prior))
        pyro.deterministic("covariance", 1 / precision, event_dim=len(shape))
        scale = precision.rsqrt() if covariance == "diagonal" else precision.rsqrt().unsqueeze(-1)
        spread = dist.Normal(prior.mean, scale / math.sqrt(prior.mean_strength)).to_event(1)
    loc = pyro.sample("loc", spread.to_event(1), infer=_start("loc", x, num_components, prior))
    return weights, loc, scale


def _normal(loc: Tensor, scale: Tensor, covariance: str) -> Any:
    if covariance in ("full", "tied"):
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def simulate(
    num_rows: int = 300,
    *,
    num_components: int = 3,
    num_features: int = 2,
    covariance: Covariance = "full",
    separation: float = 6.0,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows from a random mixture whose components have standard deviations near one; float64.

    Parameters
    ----------
    separation : float
        Standard deviation of the components' means around the origin.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``weights``, ``loc``, ``covariance`` and ``component``, the true index of each row.
    """
    check(num_components, covariance, num_rows)
    rng = np.random.default_rng(seed)
    dim = num_features
    weights = rng.dirichlet(np.full(num_components, 5.0))
    loc = separation * rng.normal(size=(num_components, dim))
    if covariance in ("full", "tied"):
        factor = np.eye(dim) + 0.5 * rng.normal(size=(num_components if covariance == "full" else 1, dim, dim))
        sigma = factor @ factor.swapaxes(-1, -2)
    else:
        sigma = rng.gamma(5.0, 0.2, size=(num_components, dim) if covariance == "diagonal" else num_components)
    component = rng.choice(num_components, size=num_rows, p=weights)
    matrices = as_matrices(torch.tensor(sigma), torch.tensor(loc)).expand(num_components, dim, dim)
    roots = torch.linalg.cholesky(matrices)[component]
    noise = torch.tensor(rng.normal(size=(num_rows, dim, 1)))
    x = torch.tensor(loc)[component] + (roots @ noise).squeeze(-1)
    truth = {"weights": torch.tensor(weights), "loc": torch.tensor(loc), "covariance": torch.tensor(sigma)}
    return x, truth | {"component": torch.tensor(component)}


def check(num_components: int, covariance: str, rows: int) -> None:
    """Raise ValueError for options that no mixture of this many rows can have."""
    if covariance not in get_args(Covariance):
        raise ValueError(f"gmm: covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}")
    if not 1 <= num_components <= rows:
        raise ValueError(f"gmm: num_components must lie between 1 and the number of rows, {rows}; got {num_components}")


def _sample_scale_tril(prior: Prior, copies: int, x: Tensor | None, num_components: int) -> Tensor:
    """Cholesky factors of Σ, shape (…, copies, d, d): L A⁻ᵀ, with Λ = L Lᵀ and A the Bartlett factor's sites."""
    dim = len(prior.mean)
    df = prior.df - dim + 1 + torch.arange(dim, dtype=prior.scale.dtype, device=prior.scale.device)
    square = dist.Chi2(df).expand_by([copies]).to_event(2)
    diagonal = pyro.sample("bartlett_diagonal", square, infer=_start("bartlett_diagonal", x, num_components, prior))
    upper = None
    if dim > 1:
        normal = dist.Normal(df.new_zeros(()), 1.0).expand_by([copies, dim * (dim - 1) // 2]).to_event(2)
        upper = pyro.sample("bartlett_upper", normal, infer=_start("bartlett_upper", x, num_components, prior))
    return scale_tril_at(diagonal, upper, prior.scale)


def scale_tril_at(diagonal: Tensor, upper: Tensor | None, scale: Tensor) -> Tensor:
    """Cholesky factor of Σ, (…, d, d), from the squared diagonal of A, (…, d), its upper triangle, and Λ, (…, d, d)."""
    factor = torch.diag_embed(diagonal.sqrt())
    if upper is not None:
        row, column = torch.triu_indices(factor.shape[-2], factor.shape[-1], 1, device=factor.device)
        factor[..., row, column] = upper
    root = torch.linalg.cholesky(scale).expand_as(factor)
    return torch.linalg.solve_triangular(factor.mT, root, upper=False, left=False)


def start_loc(x: Tensor, num_components: int) -> Tensor:
    """Centres of k-means from k-means++ seeds, among at most 100,000 rows at random; the randomness is torch's."""
    if len(x) > MOST_ROWS:
        x = x[torch.randint(len(x), (MOST_ROWS,), device=x.device)]
    return _cluster(x, num_components)[0]


def _k_means(x: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """Centres, shape (k, d), and the covariance within clusters, all clusters pooled, shape (d, d)."""
    centres, labels = _cluster(x, num_components)
    residuals = x - centres[labels]
    return centres, residuals.mT @ residuals / len(x)


def _cluster(x: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """Centres of k-means, and to which of them each row is nearest."""
    seed = int(torch.randint(2**31 - 1, ()))
    k_means = KMeans(num_components, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
    fitted = k_means.fit(x.detach().cpu().numpy())
    centres = torch.as_tensor(fitted.cluster_centers_, dtype=x.dtype, device=x.device)
    return centres, torch.as_tensor(fitted.labels_, device=x.device).long()


def _start(site: str, x: Tensor | None, num_components: int, prior: Prior) -> InferDict:
    """Where a fit to data may start, as a site's ``infer``: k-means' centres, and one covariance for all of them."""
    if x is None:
        return {}

    def value() -> Tensor:
        centres, within = _k_means(x, num_components)
        if site == "loc":
            return centres
        within = within + 1e-3 * prior.scale  # clusters without spread in some direction
        if site == "diagonal precision":
            return 1 / within.diagonal()
        if site == "isotropic precision":
            return 1 / within.diagonal().mean()
        factor = torch.linalg.solve_triangular(
            torch.linalg.cholesky(within), torch.linalg.cholesky(prior.scale), upper=False
        ).mT
        row, column = torch.triu_indices(len(within), len(within), 1)
        return factor.diagonal().square() if site == "bartlett_diagonal" else factor[row, column]

    return {"init": value}  # pyright: ignore[reportReturnType] (Pyro passes keys on that InferDict does not list)


def as_matrices(covariance: Tensor, loc: Tensor) -> Tensor:
    """The covariance of each component as a matrix, (k, d, d), or (1, d, d) if tied; leading dimensions pass through.

    Of the four shapes only isotropic has one dimension less than ``loc``, and diagonal as many.
    """
    if covariance.dim() == loc.dim() - 1:
        covariance = covariance.unsqueeze(-1).expand_as(loc)
    return torch.diag_embed(covariance) if covariance.dim() == loc.dim() else covariance
