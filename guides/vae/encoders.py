"""Encoders: one network for all rows, which gives the normal distribution of a row's factors."""

import pyro
from torch import Tensor

from ...models import vae
from ...models._shared.inputs import rows_of
from ...models.vae import Hidden, Network


def encoder(x: Tensor, *, latent_dim: int = 2, network: Network = "mlp", hidden: Hidden = None) -> None:
    """Independent normals, whose means and scales a network gives.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows, or a batch of them.
    latent_dim, network, hidden
        As for ``models.vae.model``; "conv" convolves square images.

    Raises
    ------
    ValueError
        If a network option is out of range, or "conv" is given rows that are not square images.
    """
    _sample(rows_of("vae", x), encoder_params(x, latent_dim, network, hidden))


def full_covariance_encoder(x: Tensor, *, latent_dim: int = 2, network: Network = "mlp", hidden: Hidden = None) -> None:
    """Normals with any covariance, whose means and Cholesky factors a network gives; otherwise as `encoder`."""
    _sample(rows_of("vae", x), encoder_params(x, latent_dim, network, hidden, "mean_scale_tril"))


def _sample(x: Tensor, params: dict[str, Tensor]) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", vae.encoded(params, x))  # pyright: ignore[reportArgumentType] (a distribution of Pyro's)


def encoder_params(
    x: Tensor, latent_dim: int, network: Network, hidden: Hidden, head: vae.Head = "mean_scale"
) -> dict[str, Tensor]:
    """Return an encoder's parameters, by ``pyro.param``; the constants among them are detached."""
    x = rows_of("vae", x)
    start = vae.encoder_start(x, latent_dim, network, hidden, head)
    params = {name: pyro.param(name, value) for name, value in start.items()}
    return params | {name: params[name].detach() for name in ("encoder.centre", "encoder.spread")}
