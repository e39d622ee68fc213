"""Stochastic variational inference at compiled speed: (model, guide, optimiser) as one step of machine code."""

from .fit import fit_compiled
from .optimisers import RULES

__all__ = ["RULES", "fit_compiled"]
