"""Generative models: one Pyro function a family, with its exact mathematics beside it."""

from . import factor_analysis, gmm, logistic, mixture, ppca
from .steps import GibbsSteps, Steps

__all__ = ["GibbsSteps", "Steps", "factor_analysis", "gmm", "logistic", "mixture", "ppca"]
