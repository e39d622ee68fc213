"""Generative models: one Pyro function a family, with its exact mathematics beside it."""

from . import factor_analysis, gmm, lda, logistic, mixture, ppca, vae
from ._shared.steps import GibbsSteps, Steps

__all__ = ["GibbsSteps", "Steps", "factor_analysis", "gmm", "lda", "logistic", "mixture", "ppca", "vae"]
