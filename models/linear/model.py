"""The Pyro model of linear regression, what its weights imply for rows, and simulated data."""

import math

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.init import init
from .._shared.scores import scores, scores_of_draws
from .conjugate import statistics, update
from .prior import (
    BIAS_SCALE,
    NOISE_SHAPE,
    Noise,
    Prior,
    Units,
    centre_and_scale,
    check_noise,
    check_positive,
    check_prior,
    check_share,
    check_varies,
    conjugate_prior,
    data_of,
    measured,
)


def model(
    x: Tensor,
    y: Tensor | None = None,
    *,
    noise: Noise = "normal",
    df: float = 4.0,
    prior: Prior = "normal",
    prior_scale: float = 1.0,
    relevant_share: float = 0.25,
    units: Units | None = None,
) -> Tensor:
    """Pyro model of a continuous target given features.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        Features; standardise them, since all weights share one prior scale. No column of ones: the bias is added.
    y : Tensor, shape (n,), optional
        The target. Default: draw it.
    noise : {"normal", "student"}
        Student's t has heavy tails, so that rows far off have little influence.
    df : float
        ν: degrees of freedom of Student noise.
    prior : {"normal", "horseshoe"}
        Of the weights: one scale for all; or a scale for each, for many features of which few matter (the regularised
        horseshoe of Piironen and Vehtari 2017, section 2.3). Its site z has about unit scale both where a weight
        is shrunk, as in a non-centred form, and where it follows the data, as in a centred one: in either form alone
        some weights make transitions of NUTS diverge.
    prior_scale : float
        s: prior standard deviation of a weight, in the noise's standard deviation; of the horseshoe, scale of its slab.
    relevant_share : float
        q: what share of the features the horseshoe expects to matter, between 0 and 1; Piironen and Vehtari (2017),
        equation 3.12.
    units : Units, optional
        Default: `units_of` the target; mean 0 and sd 1 if there is none. Minibatches should share those of all rows.

    Returns
    -------
    Tensor, shape (n,)

    Raises
    ------
    ValueError
        If an option is unknown or out of range, or the data are no finite rows with a number each; when fitted, if the
        target does not vary.
    """
    check_noise(noise, df)
    check_prior(prior)
    check_positive(prior_scale=prior_scale)
    check_share(relevant_share)
    x, y = data_of(x, y)
    rows, features = x.shape
    if units is None:
        units = Units(x.new_zeros(()), x.new_ones(()), rows) if y is None else measured(y)
    start = init(None if y is None else lambda: start_values(x, y, prior_scale, units))
    # Globals.
    expected = dist.InverseGamma(units.sd.new_full((), NOISE_SHAPE), NOISE_SHAPE * units.sd.square())
    noise_variance = pyro.sample("noise_variance", expected, infer=start("noise_variance"))
    sd = noise_variance.sqrt().unsqueeze(-1)
    if prior == "normal":
        centre, scale = centre_and_scale(units, features, prior_scale)
        w = pyro.sample("w", dist.Normal(centre, sd * scale).to_event(1), infer=start("w"))
    else:
        normal = dist.Normal(units.mean, BIAS_SCALE * prior_scale * noise_variance.sqrt())
        bias = pyro.sample("bias", normal, infer=start("bias"))
        expected_scale = relevant_share / (1 - relevant_share) / units.num_rows**0.5
        global_scale = pyro.sample("global_scale", dist.HalfCauchy(x.new_full((), expected_scale)))
        local_scale = pyro.sample("local_scale", dist.HalfCauchy(x.new_ones(features)).to_event(1))
        slab_variance = pyro.sample("slab_variance", dist.InverseGamma(x.new_full((), 2.0), 2 * prior_scale**2))
        free, slab = (global_scale.unsqueeze(-1) * local_scale).square(), slab_variance.unsqueeze(-1)
        variance = slab * free / (slab + free)  # of a weight, in that of the noise
        informed = 1 + units.num_rows * variance
        z = pyro.sample("z", dist.Normal(torch.zeros_like(informed), informed.sqrt()).to_event(1))
        weights = sd * z * (variance / informed).sqrt()
        w = pyro.deterministic("w", torch.cat([bias.unsqueeze(-1), weights], -1), event_dim=1)
    if noise == "student":
        pyro.deterministic("df", torch.full_like(noise_variance, df))
    # Locals.
    mean = scores(w, x)
    with pyro.plate("rows", rows):
        spread = noise_variance.sqrt()
        likelihood = dist.Normal(mean, spread) if noise == "normal" else dist.StudentT(df, mean, spread)
        return pyro.sample("y", likelihood, obs=y)


def start_values(x: Tensor, y: Tensor, prior_scale: float, units: Units) -> dict[str, Tensor]:
    """Return where fits start: at the posterior's means under normal noise and a normal prior."""
    check_varies(y)
    before = conjugate_prior(units, x.shape[1], prior_scale)
    after = update(before, statistics(before, x, y, torch.ones_like(y)))
    return {"w": after.mean, "bias": after.mean[0], "noise_variance": after.rate / after.shape}


def predict(sites: dict[str, Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return the mean of the target for each row under each draw.

    Parameters
    ----------
    sites : dict
        ``w``, shape (…, d + 1).
    x : Tensor, shape (n, d)

    Returns
    -------
    Tensor, shape (…, n)
        In the target's units.
    """
    return scores_of_draws(sites, x)


def log_likelihood(sites: dict[str, Tensor], x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> Float[Tensor, "... n"]:
    """Return log p(y[n] | x[n], sites) for each row under each draw, in nats.

    Parameters
    ----------
    sites : dict
        ``w``, shape (…, d + 1), ``noise_variance``, shape (…), and ``df``, shape (…), if the noise is Student's.
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (…, n)
    """
    sd = sites["noise_variance"].sqrt().unsqueeze(-1)
    square = ((y - predict(sites, x)) / sd).square()
    if "df" not in sites:
        return -0.5 * square - sd.log() - 0.5 * math.log(2 * math.pi)
    df = sites["df"].unsqueeze(-1)
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (math.pi * df).log()
    return constant - sd.log() - (df + 1) / 2 * torch.log1p(square / df)


def posterior_predictive(sites: dict[str, Tensor], x: Float[Tensor, "n d"], *, seed: int = 0) -> Float[Tensor, "... n"]:
    """Simulate one target for each row of ``x`` per draw; sites as for `log_likelihood`.

    Student's t is drawn from two uniforms: Bailey (1994), Mathematics of Computation 62.
    """
    mean, sd = predict(sites, x), sites["noise_variance"].sqrt().unsqueeze(-1)
    generator = torch.Generator(mean.device).manual_seed(seed)
    if "df" not in sites:
        return mean + sd * torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    u, v = torch.rand(2, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    df = sites["df"].unsqueeze(-1)
    radius = (df * torch.expm1(-2 / df * torch.log1p(-u))).sqrt()
    return mean + sd * radius * torch.cos(2 * math.pi * v)


def simulate(
    num_rows: int = 300,
    *,
    num_features: int = 5,
    noise: Noise = "normal",
    df: float = 4.0,
    prior_scale: float = 1.0,
    noise_sd: float = 1.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Simulate features from N(0, 1), weights from the normal prior around 0 and a target from the model; float64.

    Parameters
    ----------
    num_rows, num_features : int
    noise, df, prior_scale
        As for `model`.
    noise_sd : float
        Standard deviation of normal noise, scale of Student noise.
    seed : int

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    y : Tensor, shape (num_rows,)
    truth : dict
        ``w``, shape (num_features + 1,), ``noise_variance`` and, with Student noise, ``df``.
    """
    check_noise(noise, df)
    check_positive(prior_scale=prior_scale, noise_sd=noise_sd)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_features, generator=generator, dtype=torch.float64)
    zero = x.new_zeros(())
    _, scale = centre_and_scale(Units(zero, zero + 1, num_rows), num_features, prior_scale)
    w = noise_sd * scale * torch.randn(num_features + 1, generator=generator, dtype=torch.float64)
    truth = {"w": w, "noise_variance": zero + noise_sd**2} | ({"df": zero + df} if noise == "student" else {})
    return x, posterior_predictive(truth, x, seed=seed + 1), truth


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the weights and the noise's standard deviation (scale, of Student noise); nothing is to be relabelled."""
    return {"w": draws["w"], "noise_sd": draws["noise_variance"].sqrt()}
