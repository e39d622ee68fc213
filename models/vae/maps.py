"""From factors to rows and back, by what a fit has learned."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .model import draw
from .networks import decoder_of, encoded, latent_dim_of, observation

ParamMap = Mapping[str, Tensor]


class Moments(NamedTuple):
    """Mean and standard deviation, entry by entry, of one of the two conditional distributions.

    Attributes
    ----------
    mean : Tensor, shape (..., q) or (..., d)
    scale : Tensor, of the same shape
    """

    mean: Tensor
    scale: Tensor


def decode(params: ParamMap, z: Float[Tensor, "*batch q"]) -> Moments:
    """Moments of p(x | z); of a Bernoulli decoder the mean is the probability of a one.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit; the decoder's are looked at.
    z : Tensor, shape (..., q)

    Returns
    -------
    Moments
        Of shape (..., d).

    Raises
    ------
    ValueError
        If there is no decoder among the parameters.
    """
    rows = observation(decoder_of(params), z)
    return Moments(rows.mean, rows.variance.sqrt())


def encode(params: ParamMap, x: Float[Tensor, "*batch d"]) -> Moments:
    """Moments of q(z | x), where the guide was ``guides.vae.encoder`` or ``full_covariance_encoder``.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit.
    x : Tensor, shape (..., d)

    Returns
    -------
    Moments
        Of shape (..., q); the scales are those of each factor by itself.

    Raises
    ------
    ValueError
        If there is no encoder of normals among the parameters.
    """
    z = encoded(params, x)
    return Moments(z.mean, z.variance.sqrt())


def reconstruct(params: ParamMap, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Mean of p(x | z) at the mean of q(z | x). Arguments and errors as for `encode`."""
    return decode(params, encode(params, x).mean).mean


def generate(params: ParamMap, num_rows: int, *, noise: bool = True, seed: int = 0) -> Float[Tensor, "n d"]:
    """New rows, from the prior of the factors through the decoder.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit; the decoder's are looked at.
    num_rows : int
        n.
    noise : bool
        Whether to draw from p(x | z), rather than to return its mean, which is what images are often shown as.
    seed : int
        Of a generator of its own.
    """
    decoder = decoder_of(params)
    like = next(iter(decoder.values()))
    generator = torch.Generator(like.device).manual_seed(seed)
    shape = (num_rows, latent_dim_of(decoder))
    z = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    rows = observation(decoder, z)
    return draw(rows, generator) if noise else rows.mean


def generated_moments(params: ParamMap, *, num_samples: int = 4096, seed: int = 0) -> dict[str, Tensor]:
    """Mean and standard deviation of each column of a generated row: what two decoders can be compared by.

    Factors mean nothing from one fit to the next, and a turn of them changes nothing here. The moments of p(x | z) are
    averaged over draws of z, the same for every decoder with as many factors.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit; the decoder's are looked at.
    num_samples : int
        Draws of z from the prior.
    seed : int
        Of a generator of its own.

    Returns
    -------
    dict
        ``x_mean`` (d) and ``x_sd`` (d).
    """
    decoder = decoder_of(params)
    like = next(iter(decoder.values()))
    generator = torch.Generator(like.device).manual_seed(seed)
    shape = (num_samples, latent_dim_of(decoder))
    mean, scale = decode(decoder, torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device))
    return {"x_mean": mean.mean(0), "x_sd": (mean.var(0, correction=0) + scale.square().mean(0)).sqrt()}


def interpolate(
    params: ParamMap, x_a: Float[Tensor, "*batch d"], x_b: Float[Tensor, "*batch d"], num_steps: int = 8
) -> Float[Tensor, "*batch steps d"]:
    """Decoded means along the straight line between the encoded means of two rows, both ends included.

    Parameters
    ----------
    params : mapping
        As for `encode`.
    x_a, x_b : Tensor, shape (..., d)
    num_steps : int
        Two or more.

    Raises
    ------
    ValueError
        If there are fewer steps, or no encoder of normals.
    """
    if num_steps < 2:
        raise ValueError(f"vae: num_steps must be at least 2, got {num_steps}")
    start, end = (encode(params, x).mean.unsqueeze(-2) for x in (x_a, x_b))
    share = torch.linspace(0, 1, num_steps, dtype=start.dtype, device=start.device).unsqueeze(-1)
    return decode(params, start + share * (end - start)).mean


def manifold(params: ParamMap, grid: int = 15) -> Float[Tensor, "rows columns d"]:
    """Decoded means over the plane of two factors, at the quantiles of their prior (Kingma and Welling 2014, figure 4).

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit with ``latent_dim=2``.
    grid : int
        Points a side, at the probabilities (i + ½) / grid. The first factor grows from left to right, the second from
        bottom to top.

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
    """What the factors say about the data: they themselves mean nothing from one fit to the next.

    A turn or a bend of the factors that the decoder undoes changes nothing. Decoded means are free of it.

    Parameters
    ----------
    draws : mapping
        Draws of ``z``, shape (..., n, q), and beside them the decoder's parameters as in `Posterior.params`, without
        leading dimensions: ``{**posterior.draws, **posterior.params}``.
    anchor : mapping, optional
        Not needed: columns of the data are in order.

    Returns
    -------
    dict
        ``x_mean`` (..., n, d): the mean of p(x | z) at each draw.

    Raises
    ------
    ValueError
        If there is no decoder beside the draws.
    """
    decoder = decoder_of(draws)
    z = draws["z"]
    size = max(1, 10_000_000 // (math.prod(z.shape[-2:-1]) * max(value.numel() for value in decoder.values())))
    rows = z.reshape(-1, *z.shape[-2:]).split(size)
    means = torch.cat([decode(decoder, part).mean for part in rows])
    return {"x_mean": means.reshape(*z.shape[:-1], -1)}
