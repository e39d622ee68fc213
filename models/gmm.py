"""Gaussian mixture: each row comes from one of K normal components, and which one is not known.

    weights            ~ Dirichlet(c, …, c)
    Σ[k]               ~ InverseWishart(ν, Λ)                 (tied: one Σ; diagonal, isotropic: inverse gammas)
    loc[k] | Σ[k]      ~ Normal(m, Σ[k] / κ)
    x[n]               ~ Σ_k weights[k] Normal(loc[k], Σ[k])  (the component's index is summed out)

The prior is conjugate, so that EM, coordinate ascent, Gibbs sampling and NUTS can all aim at one posterior.
An inverse Wishart cannot be a site under NUTS: Σ is written through the Bartlett factor of its inverse,
Σ⁻¹ = C A Aᵀ Cᵀ with C Cᵀ = Λ⁻¹ and A upper triangular, A[i, i]² ~ χ²(ν - d + 1 + i), A[i, j] ~ Normal(0, 1).

============  =====================  ==============  ===================================================
symbol        site                   shape           support
============  =====================  ==============  ===================================================
π             ``weights``            (k)             simplex
A[i, i]²      ``bartlett_diagonal``  (k, d)          positive; full, and tied with one for k
A[i, j]       ``bartlett_upper``     (k, d(d-1)/2)   real; likewise; absent if d = 1
1/σ²          ``precision``          (k, d) or (k)   positive; diagonal or isotropic
μ             ``loc``                (k, d)          real
Σ             ``covariance``         (k, d, d)       deterministic; tied (1, d, d), diagonal (k, d), isotropic (k)
x             ``x``                  (n, d)          real
============  =====================  ==============  ===================================================

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, sections 9.2 and 10.2.
2. Fraley and Raftery (2007), Bayesian regularization for normal mixture estimation and model-based clustering,
   Journal of Classification 24: the default prior.
3. Anderson (2003), An Introduction to Multivariate Statistical Analysis, section 7.2: the Bartlett factor.
4. Stephens (2000), Dealing with label switching in mixture models, JRSS B 62: matching the components.
"""

import functools
import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

from .steps import Params, Steps

Covariance = Literal["full", "tied", "diagonal", "isotropic"]


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
    """Weakly informative prior in the data's own units (Fraley and Raftery 2007, section 3).

    κ = .01, ν = d + 2, m the mean and Λ the covariance of the data over K^(2/d). The Dirichlet's
    concentration is 2, so that a component without data has density zero.

    Raises
    ------
    ValueError
        If a column is constant or the columns are linearly dependent.
    """
    rows, dim = x.shape
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.mT @ centred / rows
    if not (covariance.diagonal() > 0).all():
        column = int((covariance.diagonal() <= 0).nonzero()[0])
        raise ValueError(f"gmm: column {column} is constant: leave it out")
    if torch.linalg.cholesky_ex(covariance).info:
        raise ValueError("gmm: the columns are linearly dependent (or there are fewer rows than columns)")
    return Prior(2.0, mean, 0.01, dim + 2.0, covariance / num_components ** (2 / dim))


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
    if x is None:
        if prior is None or num_rows is None:
            raise ValueError("gmm: to draw data, give prior= and num_rows=")
        like, rows = prior.mean, num_rows
    else:
        like, rows = x, len(x)
    _check(num_components, covariance, rows)
    prior = prior or default_prior(like, num_components)
    dim = len(prior.mean)

    weights = pyro.sample("weights", dist.Dirichlet(like.new_full((num_components,), prior.concentration)))
    if covariance in ("full", "tied"):
        scale_tril = _sample_scale_tril(prior, num_components if covariance == "full" else 1)
        pyro.deterministic("covariance", scale_tril @ scale_tril.mT, event_dim=3)
        spread = dist.MultivariateNormal(prior.mean, scale_tril=scale_tril / math.sqrt(prior.mean_strength))
        spread = spread.expand([*scale_tril.shape[:-3], num_components])
    else:
        rate = prior.scale.diagonal() if covariance == "diagonal" else prior.scale.diagonal().mean()
        shape = [num_components, *rate.shape]
        precision = pyro.sample("precision", dist.Gamma(prior.df / 2, rate / 2).expand(shape).to_event(len(shape)))
        pyro.deterministic("covariance", 1 / precision, event_dim=len(shape))
        scale = precision.rsqrt() if covariance == "diagonal" else precision.rsqrt().unsqueeze(-1)
        spread = dist.Normal(prior.mean, scale / math.sqrt(prior.mean_strength)).to_event(1)
    start = {} if x is None else {"init": functools.partial(_start_loc, x, num_components)}
    loc = pyro.sample("loc", spread.to_event(1), infer=start)
    if covariance in ("full", "tied"):
        component = dist.MultivariateNormal(loc, scale_tril=scale_tril)
    else:
        component = dist.Normal(loc, scale).to_event(1)
    with pyro.plate("rows", rows):
        return pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), component), obs=x)


class Expectations(NamedTuple):
    """What the E-step hands on.

    Attributes
    ----------
    responsibilities : Tensor, shape (n, k)
        p(component | row).
    log_likelihood : Tensor, scalar
        log p(x), in nats; nan where a covariance is singular.
    """

    responsibilities: Tensor
    log_likelihood: Tensor


def log_joint(params: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """log p(x[n], component k) for every row and component; nan for a component with a singular covariance.

    Parameters
    ----------
    params : dict
        ``weights``, ``loc`` and ``covariance``, shaped as the sites of `model`.
    x : Tensor, shape (n, d)
    """
    loc, dim = params["loc"], x.shape[1]
    scale_tril, info = torch.linalg.cholesky_ex(_as_matrices(params["covariance"], loc))
    scale_tril = torch.where((info == 0)[:, None, None], scale_tril, torch.nan)
    centred = (x - loc.unsqueeze(1)).mT  # (k, d, n)
    whitened = torch.linalg.solve_triangular(scale_tril, centred, upper=False)
    log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_density = -0.5 * (whitened.square().sum(1) + dim * math.log(2 * math.pi)) - log_det[:, None]
    return log_density.mT + params["weights"].log()


def responsibilities(params: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """p(component | row), Bishop (2006), equation 9.13; arguments as for `log_joint`."""
    return log_joint(params, x).softmax(-1)


def em_steps(num_components: int = 3, covariance: Covariance = "full", floor: float = 1e-6) -> Steps:
    """Expectation maximisation of the likelihood, Bishop (2006), section 9.2.2.

    The likelihood is unbounded: a component that shrinks onto a few rows, or onto a plane, gains without end.
    Such parameters are no optimum: a full covariance with d rows or fewer to its name, or any covariance with an
    eigenvalue below ``floor`` in units in which the whole data set has covariance one.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    floor : float
        Smallest eigenvalue of a component's covariance, relative to that of the data.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows with the data's covariance.
        Parameters are ``weights``, ``loc`` and ``covariance``.
    """

    def init(restart: int, x: Tensor) -> Params:
        _check(num_components, covariance, len(x))
        prior = default_prior(x, num_components)
        if restart % 2 == 0:
            loc = _start_loc(x, num_components)
        else:
            loc = x[torch.randperm(len(x))[:num_components]]
        scale = prior.scale
        start = {
            "full": lambda: scale.expand(num_components, -1, -1),
            "tied": lambda: scale[None],
            "diagonal": lambda: scale.diagonal().expand(num_components, -1),
            "isotropic": lambda: scale.diagonal().mean().expand(num_components),
        }
        weights = x.new_full((num_components,), 1 / num_components)
        return {"weights": weights, "loc": loc, "covariance": start[covariance]()}

    def e_step(params: Params, x: Tensor) -> Expectations:
        joint = log_joint(params, x)
        evidence = joint.logsumexp(-1, keepdim=True)
        return Expectations((joint - evidence).exp(), evidence.sum())

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        r = expectations.responsibilities
        counts = r.sum(0)
        loc = (r.mT @ x) / counts[:, None]
        centred = x - loc.unsqueeze(1)  # (k, n, d)
        if covariance in ("full", "tied"):
            scatter = (r.mT.unsqueeze(-1) * centred).mT @ centred
            sigma = scatter / counts[:, None, None] if covariance == "full" else scatter.sum(0, keepdim=True) / len(x)
        else:
            sigma = (r.mT.unsqueeze(-1) * centred.square()).sum(1) / counts[:, None]
            sigma = sigma if covariance == "diagonal" else sigma.mean(-1)
        return {"weights": counts / len(x), "loc": loc, "covariance": sigma}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood

    def flaw(params: Params, expectations: Expectations, x: Tensor) -> str | None:
        counts, dim = expectations.responsibilities.sum(0), x.shape[1]
        if covariance == "full" and not (counts > dim).all():
            return f"a component holds {float(counts.min()):.1f} rows, and a full covariance needs more than {dim}"
        root = torch.linalg.cholesky(torch.cov(x.mT, correction=0).reshape(dim, dim))
        sigma = _as_matrices(params["covariance"], params["loc"])
        if not torch.isfinite(sigma).all():
            return "a component holds no row"
        half = torch.linalg.solve_triangular(root, sigma, upper=False)
        relative = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).min()
        if relative < floor:
            return f"a covariance has collapsed: relative eigenvalue {float(relative):.1e}, below the floor {floor:g}"
        return None

    return Steps(init, e_step, m_step, objective, flaw)


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Quantities of a mixture that do not depend on the order of its components.

    The components of every draw are put in the order that brings them closest to the anchor's: the assignment of
    least total symmetric Kullback-Leibler divergence between normals (Stephens 2000, section 5, with that cost).

    Parameters
    ----------
    draws : dict
        ``weights``, ``loc``, ``covariance``, each (chain, draw, …) and then shaped as the sites of `model`.
    anchor : dict, optional
        The result of an earlier call, whose order is taken over. Where left out, the draws are matched to one of
        themselves, and then to their own mean until no draw changes.

    Returns
    -------
    dict
        ``weights`` (chain, draw, k), ``loc`` (chain, draw, k, d), ``scale``: standard deviations of the
        components, (chain, draw, k, d), 1 for k if tied, without d if isotropic; ``correlation``: entries above
        the diagonal, (chain, draw, k, d(d-1)/2), for full and tied covariances of more than one feature.
    """
    loc = draws["loc"]
    chains, length, num_components, dim = loc.shape
    quantities = {"weights": draws["weights"], "loc": loc} | _scale_and_correlation(draws["covariance"])
    flat = {name: value.flatten(0, 1) for name, value in quantities.items()}
    if num_components == 1:
        return quantities

    def matched(target: dict[str, Tensor]) -> Tensor:
        ours = flat["loc"], _rebuild(flat, dim)
        theirs = target["loc"].to(loc), _rebuild(target, dim).to(loc)
        return _assign(_divergence(*ours, *theirs))

    def reorder(order: Tensor) -> dict[str, Tensor]:
        rows = torch.arange(len(order))[:, None]
        return {name: value if value.shape[1] == 1 else value[rows, order] for name, value in flat.items()}

    if anchor is not None:
        order = matched({name: value.flatten(0, 1).mean(0) for name, value in anchor.items()})
    else:
        order = matched({name: value[-1] for name, value in flat.items()})
        for _ in range(20):
            last, order = order, matched({name: value.mean(0) for name, value in reorder(order).items()})
            if torch.equal(order, last):
                break
    return {name: value.unflatten(0, (chains, length)) for name, value in reorder(order).items()}


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
    _check(num_components, covariance, num_rows)
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
    matrices = _as_matrices(torch.tensor(sigma), torch.tensor(loc)).expand(num_components, dim, dim)
    roots = torch.linalg.cholesky(matrices)[component]
    noise = torch.tensor(rng.normal(size=(num_rows, dim, 1)))
    x = torch.tensor(loc)[component] + (roots @ noise).squeeze(-1)
    truth = {"weights": torch.tensor(weights), "loc": torch.tensor(loc), "covariance": torch.tensor(sigma)}
    return x, truth | {"component": torch.tensor(component)}


def _check(num_components: int, covariance: str, rows: int) -> None:
    if covariance not in get_args(Covariance):
        raise ValueError(f"gmm: covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}")
    if not 1 <= num_components <= rows:
        raise ValueError(f"gmm: num_components must lie between 1 and the number of rows, {rows}; got {num_components}")


def _sample_scale_tril(prior: Prior, copies: int) -> Tensor:
    """Cholesky factors of Σ, shape (…, copies, d, d): L A⁻ᵀ, with Λ = L Lᵀ and A the Bartlett factor's sites."""
    dim = len(prior.mean)
    df = prior.df - dim + 1 + torch.arange(dim, dtype=prior.scale.dtype, device=prior.scale.device)
    diagonal = pyro.sample("bartlett_diagonal", dist.Chi2(df).expand([copies, dim]).to_event(2))
    factor = torch.diag_embed(diagonal.sqrt())
    if dim > 1:
        entries = dim * (dim - 1) // 2
        upper = pyro.sample(
            "bartlett_upper", dist.Normal(df.new_zeros(()), 1.0).expand([copies, entries]).to_event(2)
        )
        row, column = torch.triu_indices(dim, dim, 1, device=df.device)
        factor[..., row, column] = upper
    root = torch.linalg.cholesky(prior.scale).expand_as(factor)
    return torch.linalg.solve_triangular(factor.mT, root, upper=False, left=False)


def _start_loc(x: Tensor, num_components: int) -> Tensor:
    """Centres of k-means from k-means++ seeds; the randomness is torch's."""
    seed = int(torch.randint(2**31 - 1, ()))
    centres = KMeans(num_components, n_init=1, random_state=seed).fit(x.detach().cpu().numpy()).cluster_centers_
    return torch.as_tensor(centres, dtype=x.dtype, device=x.device)


def _as_matrices(covariance: Tensor, loc: Tensor) -> Tensor:
    """The covariance of each component as a matrix, (k, d, d), or (1, d, d) if tied; leading dimensions pass through.

    Of the four shapes only isotropic has one dimension less than ``loc``, and diagonal as many.
    """
    if covariance.dim() == loc.dim() - 1:
        covariance = covariance.unsqueeze(-1).expand_as(loc)
    return torch.diag_embed(covariance) if covariance.dim() == loc.dim() else covariance


def _scale_and_correlation(covariance: Tensor) -> dict[str, Tensor]:
    """Split covariances (chain, draw, …) into standard deviations and correlations above the diagonal."""
    if covariance.dim() < 5:
        return {"scale": covariance.sqrt()}
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    dim = scale.shape[-1]
    if dim == 1:
        return {"scale": scale}
    row, column = torch.triu_indices(dim, dim, 1)
    return {"scale": scale, "correlation": covariance[..., row, column] / (scale[..., row] * scale[..., column])}


def _rebuild(quantities: dict[str, Tensor], dim: int) -> Tensor:
    """Covariance matrices (…, k, d, d) from standard deviations and correlations."""
    loc, scale = quantities["loc"], quantities["scale"]
    matrices = _as_matrices(scale, loc).expand(*loc.shape, dim)
    if "correlation" in quantities:
        correlation = torch.eye(dim).to(scale).repeat(*quantities["correlation"].shape[:-1], 1, 1)
        row, column = torch.triu_indices(dim, dim, 1)
        correlation[..., row, column] = correlation[..., column, row] = quantities["correlation"]
        return matrices @ correlation @ matrices
    return matrices.square()


def _divergence(loc: Tensor, covariance: Tensor, other_loc: Tensor, other_covariance: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence between normals: (s, k, …) against (k, …) gives (s, k, k)."""
    precision, other_precision = torch.linalg.inv(covariance), torch.linalg.inv(other_covariance)
    gap = loc.unsqueeze(2) - other_loc  # (s, k, k, d)
    both = precision.unsqueeze(2) + other_precision
    quadratic = torch.einsum("sjki,sjkil,sjkl->sjk", gap, both, gap)
    traces = torch.einsum("kil,sjli->sjk", other_precision, covariance)
    traces = traces + torch.einsum("sjil,kli->sjk", precision, other_covariance)
    return 0.5 * (quadratic + traces) - loc.shape[-1]


def _assign(cost: Tensor) -> Tensor:
    """For each draw, the order of its components that puts them beside the anchor's: (s, k, k) gives (s, k)."""
    return torch.tensor(np.stack([linear_sum_assignment(c)[1] for c in cost.mT.cpu().numpy()]))
