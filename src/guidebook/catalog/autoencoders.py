"""Row of the variational autoencoder."""

import math
from typing import Any

import torch
from torch import Tensor

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import Choosing, Data, Guide, Row, Unavailable, figures
from guidebook.catalog.pixels import black_and_white
from guidebook.inference import Posterior
from guidebook.models import vae
from guidebook.workflow.options import Option

_NO_DECODER = "the decoder is a network, so no step over it has a closed form"
_MANY_FACTORS = "it would be one distribution over the factors of all rows together"
_MEMORISES = Unavailable(
    "points for the factors let the decoder memorise the rows; prior_scale gives the weights' MAP", "svi"
)


def _pixels(x: Tensor, options: dict[str, Any], top: float) -> Tensor:
    """Return zeros and ones for a Bernoulli decoder, dequantised values for a Gaussian one; ``top`` is white."""
    is_whole = bool((x == x.floor()).all()) and float(x.min()) >= 0
    if options["likelihood"] == "gaussian":
        return vae.dequantise(x, int(top) + 1) if is_whole else x
    if float(x.min()) < 0:
        raise ValueError(
            "vae: the Bernoulli likelihood takes intensities from 0 up; --set likelihood=gaussian takes any"
        )
    return black_and_white("vae", x, options["binarise"], top)


def _log_likelihood(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return each row's log likelihood, importance-sampled from the encoder; NaN if there is no encoder."""
    try:
        return vae.log_likelihood(params, x, num_draws=200)
    except ValueError:
        return torch.full((1,), math.nan)


def _held_out(posterior: Posterior, x: Tensor, options: dict[str, Any], seed: int) -> tuple[Tensor, None]:
    return vae.log_likelihood(
        posterior.params, x.to(next(iter(posterior.params.values()))), num_draws=200, seed=seed
    ), None


VAE = Row(
    name="vae",
    title="variational autoencoder",
    model=vae.model,
    data=Data("digits", preprocess=_pixels),
    options={
        "latent_dim": Option(int, 2, "number of factors", 1),
        "likelihood": Option(str, "bernoulli", "of a row given its factors", choices=("bernoulli", "gaussian")),
        "network": Option(str, "mlp", "kind of decoder and encoder", choices=("mlp", "conv", "linear")),
        "hidden": Option(int, None, "units of the hidden layer", 1),
        "shared_variance": Option(bool, False, "whether all columns of gaussian share one variance"),
        "prior_scale": Option(float, None, "prior standard deviation of the decoder's weights", 0, False),
        "binarise": Option(str, "threshold", "how grey becomes 0 or 1", choices=("threshold", "fixed")),
    },
    guides={
        "encoder": Guide(guides.vae.encoder, latent=True, minibatch=True),
        "full_covariance_encoder": Guide(guides.vae.full_covariance_encoder, latent=True, minibatch=True),
        "flow_encoder": Guide(guides.vae.flow_encoder, latent=True, minibatch=True),
        "semi_amortised": Guide(guides.vae.semi_amortised, latent=True, minibatch=True),
        "factors": Guide(guides.vae.factors, latent=True),
    },
    identify=lambda draws, anchor=None: {name: draws[name] for name in ("x_mean", "x_sd")},
    log_likelihood=_log_likelihood,
    default_methods=("svi:encoder", "svi:full_covariance_encoder", "svi:flow_encoder"),
    unavailable={
        "em": Unavailable(_NO_DECODER, "mcem"),
        "closed_form": Unavailable("only a linear decoder has one, and that is ppca", "svi"),
        "cavi": Unavailable(_NO_DECODER, "svi"),
        "gibbs": Unavailable(_NO_DECODER, "mcem"),
        **dict.fromkeys(
            ("dadvi", "pathfinder", "nuts", "hmc", "metropolis"),
            Unavailable("its weights are parameters without a prior", "mcem"),
        ),
        "map": _MEMORISES,
        "map_point": _MEMORISES._replace(nearest="encoder"),
        "laplace": Unavailable(_MANY_FACTORS, "svi"),
        **dict.fromkeys(("low_rank", "full_rank", "flow"), Unavailable(_MANY_FACTORS, "full_covariance_encoder")),
        "mean_field": Unavailable("the autoguide cannot be fitted in minibatches", "factors"),
    },
    steps={},
    ladder=("svi:encoder",),
    otherwise="guidebook choose vae, by the density of held-out rows; its weights are learned, and have no posterior",
    choosing=Choosing(
        "svi:encoder",
        folds=3,
        held_out=_held_out,
        methods=("svi:encoder", "svi:full_covariance_encoder"),
        incomparable={
            "likelihood": "it changes the data, and a probability is no density",
            "binarise": "it changes the data",
        },
    ),
    latent_model=vae.model,
    add_quantities=vae.generated_moments,
    figures=figures("vae"),
    per_row=outcomes.codes,
    findings=findings.used_factors,
    coords=lambda columns, x, options: {"x_mean": [columns], "x_sd": [columns]},
    default_options={
        "svi": {"num_steps": 15_000},  # networks settle late: the automatic stop takes far more
        "online": {"num_epochs": 100},
    },
    default_guide="encoder",
    num_draws=200,
)
