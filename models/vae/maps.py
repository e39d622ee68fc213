"""From factors to rows and back, by the parameters of a fit."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .model import draw
from .networks import MOST_NUMBERS, ParamMap, decoder_of, encoded, latent_dim_of, observation, widest


class Moments(NamedTuple):
    """Mean and standard deviation of each entry of x given z, or of z given x.

    Attributes
    ----------
    mean : Tensor, shape (..., q) or (..., d)
    scale : Tensor, of the same shape
    """

    mean: Tensor
    scale: Tensor


def decode(params: ParamMap, z: Float[Tensor, "*batch q"]) -> Moments:
    """Return the moments of p(x | z), (..., d); of a Bernoulli decoder the mean is the probability of a one.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit, the decoder's at least.
    z : Tensor, shape (..., q)

    Raises
    ------
    ValueError
        If the parameters hold no decoder.
    """
    rows = observation(decoder_of(params), z)
    return Moments(rows.mean, rows.variance.sqrt())


def encode(params: ParamMap, x: Float[Tensor, "*batch d"]) -> Moments:
    """Return the marginal moments of q(z | x), (..., q), of ``guides.vae.encoder`` or ``full_covariance_encoder``.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit.
    x : Tensor, shape (..., d)

    Raises
    ------
    ValueError
        If the parameters hold no encoder of normals.
    """
    z = encoded(params, x)
    return Moments(z.mean, z.variance.sqrt())


def reconstruct(params: ParamMap, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Return the mean of p(x | z) at the mean of q(z | x). Arguments and errors as for `encode`."""
    return decode(params, encode(params, x).mean).mean


def generate(params: ParamMap, num_rows: int, *, noise: bool = True, seed: int = 0) -> Float[Tensor, "n d"]:
    """Return new rows, decoded from draws of the factors' prior.

    Parameters
    ----------
    params : mapping
        As for `decode`.
    num_rows : int
    noise : bool
        Whether to draw from p(x | z) rather than return its mean, as is often done to show images.
    seed : int
        The global generator is not used.
    """
    z, generator = _prior_draws(params, num_rows, seed)
    rows = observation(decoder_of(params), z)
    return draw(rows, generator) if noise else rows.mean


def generated_moments(params: ParamMap, *, num_draws: int = 4096, seed: int = 0) -> dict[str, Tensor]:
    """Return ``x_mean`` (d) and ``x_sd`` (d), moments of each column of generated rows, to compare decoders by.

    The factors of two fits cannot be compared, but a rotation of them does not change these moments. They are averages
    over ``num_draws`` of z from its prior, which are the same for every decoder with as many factors. Other arguments
    as for `generate`.
    """
    mean, scale = decode(params, _prior_draws(params, num_draws, seed)[0])
    return {"x_mean": mean.mean(0), "x_sd": (mean.var(0, correction=0) + scale.square().mean(0)).sqrt()}


def manifold(params: ParamMap, grid: int = 15) -> Float[Tensor, "rows columns d"]:
    """Return decoded means over the plane of two factors, at quantiles of their prior: Kingma and Welling, figure 4.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit with ``latent_dim=2``.
    grid : int
        Points per side, at the probabilities (i + ½) / grid. The first factor grows from left to right, the second
        from bottom to top.

    Raises
    ------
    ValueError
        If there are not two factors, or no points.
    """
    decoder = decoder_of(params)
    if latent_dim_of(decoder) != 2 or grid < 1:
        raise ValueError(f"vae: a manifold needs latent_dim 2 and a point, got {latent_dim_of(decoder)} and {grid}")
    like = next(iter(decoder.values()))
    at = torch.special.ndtri((torch.arange(grid, dtype=like.dtype, device=like.device) + 0.5) / grid)
    second, first = torch.meshgrid(at.flip(0), at, indexing="ij")
    return decode(decoder, torch.stack([first, second], -1)).mean


def identify(draws: ParamMap, anchor: ParamMap | None = None) -> dict[str, Tensor]:
    """Return decoded means, which no rotation or bend of the factors that the decoder undoes can change.

    Parameters
    ----------
    draws : mapping
        Draws of ``z``, shape (..., n, q), and the decoder's parameters without leading dimensions:
        ``{**posterior.draws, **posterior.params}``.
    anchor : mapping, optional
        Not used: the columns of the data are in order.

    Returns
    -------
    dict
        ``x_mean`` (..., n, d): the mean of p(x | z) at each draw.
    """
    decoder = decoder_of(draws)
    z = draws["z"]
    parts = z.reshape(-1, *z.shape[-2:]).split(max(1, MOST_NUMBERS // (z.shape[-2] * widest(decoder))))
    means = torch.cat([decode(decoder, part).mean for part in parts])
    return {"x_mean": means.reshape(*z.shape[:-1], -1)}


def _prior_draws(params: ParamMap, count: int, seed: int) -> tuple[Tensor, torch.Generator]:
    """Factors from their prior, (count, q), and the generator that drew them."""
    decoder = decoder_of(params)
    like = next(iter(decoder.values()))
    generator = torch.Generator(like.device).manual_seed(seed)
    shape = (count, latent_dim_of(decoder))
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device), generator
