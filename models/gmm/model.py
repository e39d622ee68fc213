"""The Pyro models of a Gaussian mixture, where fits of them start, and data simulated from it.

The generative story, the symbols and the sources are in the package's docstring, the prior's default numbers in
`prior.py`.
"""

import functools
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from sklearn import config_context
from sklearn.cluster import KMeans
from torch import Tensor

from .._shared.blocks import Blocks, held
from .._shared.init import Start, init
from .._shared.inputs import rows_of
from .._shared.steps import Params
from .covariance import Covariance, Form, as_matrices, form_of
from .prior import Prior, check, remembered_prior

MAX_ROWS = 100_000  # for k-means


def model(
    x: Tensor | None = None,
    *,
    num_components: int = 3,
    covariance: Covariance = "full",
    prior: Prior | None = None,
    num_rows: int | None = None,
    marginal: bool = True,
) -> Tensor:
    """Pyro model of rows from a Gaussian mixture, the component's index summed out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data. Default: drawn from the model, which needs ``num_rows`` and ``prior``.
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
        One matrix per component, one matrix for all, one variance per component and feature, one per component.
    prior : Prior, optional
        Default: `default_prior` of the data.
    num_rows : int, optional
        How many rows to draw if there is no ``x``.
    marginal : bool
        Whether to sum the component's index out; else it is a site, as in `latent_model`.

    Returns
    -------
    Tensor, shape (n, d)
        The data.

    Raises
    ------
    ValueError
        For an unknown covariance, more components than rows, or a column without spread.
    """
    form = form_of(covariance)
    if x is not None:
        x = rows_of("gmm", x)
        num_rows = x.shape[0]  # pyright: ignore[reportOptionalMemberAccess]
    elif prior is None or num_rows is None:
        raise ValueError("gmm: to draw data, give prior= and num_rows=")
    check(num_components, num_rows)
    prior = prior or remembered_prior(x, num_components)
    start = init(None if x is None else lambda: start_values(x, num_components, prior, form))

    # Globals.
    concentration = (prior.mean if x is None else x).new_full((num_components,), prior.concentration)
    weights = pyro.sample("weights", dist.Dirichlet(concentration), infer=start("weights"))
    if form.matrices:
        scale = sample_scale_tril(prior, 1 if form.tied else num_components, start)
        pyro.deterministic("covariance", scale @ scale.mT, event_dim=3)
    else:
        rate = form.project(prior.scale) / 2
        gamma = dist.Gamma(prior.df / 2, rate).expand_by([num_components]).to_event(rate.dim() + 1)
        precision = pyro.sample("precision", gamma, infer=start("precision"))
        scale = form.root(pyro.deterministic("covariance", 1 / precision, event_dim=rate.dim() + 1))
    centre, spread = prior.mean.expand(num_components, -1), scale / prior.mean_strength**0.5
    loc = pyro.sample("loc", _normal(centre, spread, form).to_event(1), infer=start("loc"))

    # Locals.
    with pyro.plate("rows", num_rows):
        if marginal:
            component = _normal(loc, scale, form)
            return pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), component), obs=x)
        z = pyro.sample("z", dist.Categorical(weights))
        return pyro.sample("x", _normal(*_at(z, loc, scale, form), form), obs=x)


latent_model = functools.partial(model, marginal=False)
"""`model` with each row's component explicit, as site ``z``, shape (n): for enumeration."""


def _normal(loc: Tensor, scale: Tensor, form: Form) -> Any:
    """Normals with Cholesky factors or, column by column, standard deviations ``scale``."""
    return dist.MultivariateNormal(loc, scale_tril=scale) if form.matrices else dist.Normal(loc, scale).to_event(1)


def _at(z: Tensor, loc: Tensor, scale: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Location and scale of each row's component z."""
    if form.matrices:
        return Vindex(loc)[..., z, :], Vindex(scale.expand(*loc.shape, loc.shape[-1]))[..., z, :, :]
    return Vindex(loc)[..., z, :], Vindex(scale)[..., z, :]


def sample_scale_tril(prior: Prior, copies: int, start: Start) -> Tensor:
    """Sample Cholesky factors of Σ, (…, copies, d, d): L A⁻ᵀ, with Λ = L Lᵀ and A the Bartlett factor's sites."""
    dim = len(prior.mean)
    df = prior.df - dim + 1 + torch.arange(dim, dtype=prior.scale.dtype, device=prior.scale.device)
    square = dist.Chi2(df).expand_by([copies]).to_event(2)
    diagonal = pyro.sample("bartlett_diagonal", square, infer=start("bartlett_diagonal"))
    upper = None
    if dim > 1:
        normal = dist.Normal(df.new_zeros(()), 1.0).expand_by([copies, dim * (dim - 1) // 2]).to_event(2)
        upper = pyro.sample("bartlett_upper", normal, infer=start("bartlett_upper"))
    return scale_tril_at(diagonal, upper, prior.scale)


def scale_tril_at(diagonal: Tensor, upper: Tensor | None, scale: Tensor) -> Tensor:
    """Cholesky factor of Σ, (…, d, d), from the squared diagonal of A, (…, d), its upper triangle, and Λ, (…, d, d)."""
    factor = torch.diag_embed(diagonal.sqrt())
    if upper is not None:
        row, column = torch.triu_indices(factor.shape[-2], factor.shape[-1], 1, device=factor.device)
        factor[..., row, column] = upper
    root = torch.linalg.cholesky(scale).expand_as(factor)
    return torch.linalg.solve_triangular(factor.mT, root, upper=False, left=False)


def start_values(x: Tensor, num_components: int, prior: Prior, form: Form) -> Params:
    """Return where a fit may start, by site: even weights, k-means' centres, and one covariance for all of them."""
    centres, within = k_means(x, num_components)
    within = within + 1e-3 * prior.scale  # clusters without spread in some direction
    even = x.new_full((num_components,), 1 / num_components)  # a component that starts small may be lost
    values = {"weights": even, "loc": centres}
    if not form.matrices:
        return values | {"precision": 1 / form.project(within)}
    root, scale_root = torch.linalg.cholesky(within), torch.linalg.cholesky(prior.scale)
    factor = torch.linalg.solve_triangular(root, scale_root, upper=False).mT
    row, column = torch.triu_indices(len(factor), len(factor), 1)
    return values | {"bartlett_diagonal": factor.diagonal().square(), "bartlett_upper": factor[row, column]}


def k_means(x: Tensor | Blocks, num_components: int, row_weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cluster at most 100,000 random rows by k-means from k-means++ seeds, with torch's random numbers.

    ``row_weights``, (n,), say how many times each row counts; default: once.

    Returns
    -------
    centres : Tensor, shape (k, d)
    within : Tensor, shape (d, d)
        Covariance within clusters, all clusters pooled.
    """
    if len(x) > MAX_ROWS:
        chosen = torch.randint(len(x), (MAX_ROWS,), device=x.device)
        x, row_weights = x[chosen], None if row_weights is None else row_weights[chosen]
    x, seed = held(x), int(torch.randint(2**31 - 1, ()))
    times = None if row_weights is None else row_weights.cpu().numpy()
    clustering = KMeans(num_components, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
    with config_context(assume_finite=True, skip_parameter_validation=True):  # both are checked already
        fitted = clustering.fit(x.detach().cpu().numpy(), sample_weight=times)
    centres = torch.as_tensor(fitted.cluster_centers_, dtype=x.dtype, device=x.device)
    residuals = x - centres[torch.as_tensor(fitted.labels_, device=x.device).long()]
    if row_weights is None:
        return centres, residuals.mT @ residuals / len(x)
    return centres, (row_weights * residuals.mT) @ residuals / row_weights.sum()


def simulate(
    num_rows: int = 300,
    *,
    num_components: int = 3,
    num_features: int = 2,
    covariance: Covariance = "full",
    separation: float = 6.0,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Simulate rows from a random mixture whose components have standard deviations near one; float64.

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
    form = form_of(covariance)
    check(num_components, num_rows)
    rng = np.random.default_rng(seed)
    dim = num_features
    weights = rng.dirichlet(np.full(num_components, 5.0))
    loc = separation * rng.normal(size=(num_components, dim))
    if form.matrices:
        factor = np.eye(dim) + 0.5 * rng.normal(size=(1 if form.tied else num_components, dim, dim))
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
