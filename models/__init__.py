"""Generative models: one Pyro function a family, with its exact mathematics beside it."""

from . import gmm, logistic
from .steps import GibbsSteps, Steps

__all__ = ["GibbsSteps", "Steps", "gmm", "logistic"]
