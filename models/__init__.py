"""Generative models: one Pyro function a family, with its exact mathematics beside it."""

from . import autoregressive, factor_analysis, gmm, lda, linear, logistic, mixture, ppca, vae
from ._shared.steps import ExactPosterior, GibbsSteps, OnlineSteps, Steps

__all__ = [
    "ExactPosterior",
    "GibbsSteps",
    "OnlineSteps",
    "Steps",
    "autoregressive",
    "factor_analysis",
    "gmm",
    "lda",
    "linear",
    "logistic",
    "mixture",
    "ppca",
    "vae",
]
