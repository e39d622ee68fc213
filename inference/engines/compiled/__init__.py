"""Stochastic variational inference at compiled speed: (model, guide, optimiser) as one step of machine code."""

from .descend import minimise_compiled
from .optimisers import RULES

__all__ = ["RULES", "minimise_compiled"]
