"""Stochastic variational inference at compiled speed: (model, guide, optimiser) as one step of machine code."""

from .fit import fit_compiled

__all__ = ["fit_compiled"]
