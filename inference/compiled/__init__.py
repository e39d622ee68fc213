"""Stochastic variational inference at compiled speed: (model, guide, optimiser) as one step of machine code."""

from .descend import minimise_compiled
from .optimisers import RULES
from .record import Untraceable

__all__ = ["RULES", "Untraceable", "minimise_compiled"]
