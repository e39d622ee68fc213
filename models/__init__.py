"""Generative models: one Pyro function a family, with its exact mathematics beside it."""

from . import gmm, logistic
from .steps import Steps

__all__ = ["Steps", "gmm", "logistic"]
