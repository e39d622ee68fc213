"""The four models by hand in NumPyro, in the form that runs fastest there, and where its runs of them start."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_uniform, init_to_value
from sklearn.cluster import KMeans


def logistic(x: Any, y: Any) -> None:
    w: Any = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1] + 1]).to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=w[0] + x @ w[1:]), obs=y)


def gmm(x: Any, mean: Any, scale: Any, num_components: int = 3) -> None:
    """The full covariance through the Bartlett factor A of its inverse: Σ⁻¹ = L⁻ᵀ A Aᵀ L⁻¹ with L Lᵀ = ``scale``."""
    dim, components = x.shape[1], num_components
    weights: Any = numpyro.sample("weights", dist.Dirichlet(jnp.full(components, 5.0)))
    df = dim + 2.0 - dim + 1 + jnp.arange(dim)
    square = numpyro.sample("bartlett_diagonal", dist.Gamma(df / 2, 0.5).expand([components, dim]).to_event(2))
    normal = dist.Normal(0.0, 1.0).expand([components, dim * (dim - 1) // 2]).to_event(2)
    upper = numpyro.sample("bartlett_upper", normal)
    row, column = np.triu_indices(dim, 1)
    factor = (jnp.sqrt(square)[..., None] * jnp.eye(dim)).at[..., row, column].set(upper)
    root = jnp.broadcast_to(jnp.linalg.cholesky(scale), factor.shape)
    tril = jax.lax.linalg.triangular_solve(jnp.swapaxes(factor, -2, -1), root, left_side=False, lower=True)
    numpyro.deterministic("covariance", tril @ jnp.swapaxes(tril, -2, -1))
    loc = numpyro.sample("loc", dist.MultivariateNormal(mean, scale_tril=tril / 0.1).to_event(1))
    with numpyro.plate("rows", len(x)):
        parts = dist.MultivariateNormal(loc, scale_tril=tril)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=x)


def ppca(x: Any, latent_dim: int = 2) -> None:
    columns = x.shape[1]
    W = numpyro.sample("W", dist.Normal(0.0, 1.0).expand([columns, latent_dim]).to_event(2))
    loc = numpyro.sample("loc", dist.Normal(0.0, 10.0).expand([columns]).to_event(1))
    noise = numpyro.sample("noise_variance", dist.InverseGamma(1.0, 0.1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.LowRankMultivariateNormal(loc, W, jnp.full(columns, noise)), obs=x)


def schools(error: Any, effect: Any) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(error)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def prepared(name: str, data: tuple[np.ndarray, ...]) -> tuple[Callable[..., None], tuple[Any, ...], Any]:
    """Model, its arguments and where chains start: a mixture at k-means' centres and even weights, as ours."""
    model = {"logistic": logistic, "gmm": gmm, "ppca": ppca, "schools": schools}[name]
    arguments = tuple(jnp.asarray(value) for value in data)
    if name != "gmm":
        return model, arguments, init_to_uniform
    (x,) = data
    centres = KMeans(3, random_state=0).fit(x).cluster_centers_
    prior = jnp.asarray(x.mean(0)), jnp.asarray(np.diag(x.var(0) / 9))
    start = {"loc": jnp.asarray(centres), "weights": jnp.full(3, 1 / 3)}
    return model, (*arguments, *prior), init_to_value(values=start)
