"""Rows of the autoencoders."""

import math
from typing import Any

import torch
from torch import Tensor

from guidebook import guides
from guidebook.catalog.entry import Empty, Row
from guidebook.models import vae
from guidebook.workflow.options import Option

_NO_DECODER = "the decoder is a network: no step over it has a closed form"
_MANY_FACTORS = "it would be one distribution over the factors of all rows together"
_MEMORISES = Empty(
    "points for the factors let the decoder memorise the rows; prior_scale gives the weights' MAP", "svi"
)


def _pixels(x: Tensor, options: dict[str, Any]) -> Tensor:
    """Ones and zeros for a Bernoulli decoder, values without gaps for a Gaussian one."""
    whole = bool((x == x.floor()).all()) and float(x.min()) >= 0
    if options["likelihood"] == "gaussian":
        return vae.dequantise(x, int(x.max()) + 1) if whole else x
    if float(x.min()) < 0:
        raise ValueError(
            "vae: the Bernoulli likelihood takes intensities from 0 up; --set likelihood=gaussian takes any"
        )
    top = float(x.max())
    return vae.binarise(x / top if top > 0 else x, options["binarise"])


def _decoded_likelihood(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Importance-sampled log likelihood of each row with the encoder as proposal; NaN where there is none."""
    try:
        return vae.log_likelihood(params, x, num_draws=200)
    except ValueError:
        return torch.full((1,), math.nan)


VAE = Row(
    name="vae",
    title="variational autoencoder",
    model=vae.model,
    data="digits",
    supervised=False,
    standardize=False,
    options={
        "latent_dim": Option(int, 2, "number of factors", 1),
        "likelihood": Option(str, "bernoulli", "of a row given its factors", choices=("bernoulli", "gaussian")),
        "network": Option(str, "mlp", "kind of decoder and encoder", choices=("mlp", "conv", "linear")),
        "hidden": Option(int, None, "units of the hidden layer", 1),
        "shared_variance": Option(bool, False, "whether one variance serves all columns of gaussian"),
        "prior_scale": Option(float, None, "prior standard deviation of the decoder's weights", 0, False),
        "binarise": Option(str, "threshold", "how grey becomes 0 or 1", choices=("threshold", "fixed")),
    },
    guides={},
    identify=lambda draws, anchor=None: {name: draws[name] for name in ("x_mean", "x_sd")},
    log_likelihood=_decoded_likelihood,
    compared=("svi:encoder", "svi:full_covariance_encoder", "svi:flow_encoder"),
    empty={
        "em": Empty(_NO_DECODER, "mcem"),
        "closed_form": Empty("only a linear decoder has one, and that is ppca", "svi"),
        "cavi": Empty(_NO_DECODER, "svi"),
        "gibbs": Empty(_NO_DECODER, "mcem"),
        **dict.fromkeys(("nuts", "hmc", "metropolis"), Empty("its weights are parameters without a prior", "mcem")),
        "map": _MEMORISES,
        "map_point": _MEMORISES._replace(nearest="encoder"),
        "laplace": Empty(_MANY_FACTORS, "svi"),
        **dict.fromkeys(("low_rank", "full_rank", "flow"), Empty(_MANY_FACTORS, "full_covariance_encoder")),
        "mean_field": Empty("the autoguide cannot be fitted in minibatches", "factors"),
    },
    steps={},
    latent_guides={
        "encoder": guides.vae.encoder,
        "full_covariance_encoder": guides.vae.full_covariance_encoder,
        "flow_encoder": guides.vae.flow_encoder,
        "semi_amortised": guides.vae.semi_amortised,
        "factors": guides.vae.factors,
    },
    latent_model=vae.model,
    prepare=_pixels,
    derive=vae.generated_moments,
    default_guide="encoder",
    num_draws=200,
    amortised=("encoder", "full_covariance_encoder", "flow_encoder", "semi_amortised"),
)
