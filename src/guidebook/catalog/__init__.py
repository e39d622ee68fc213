"""The single table of models, their guides and methods, with a reason for every empty cell.

The command line, the contract tests, the reports and the README's grid are drawn from it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from guidebook.catalog.autoencoders import VAE
from guidebook.catalog.entry import Guide, Row
from guidebook.catalog.factors import FACTOR_ANALYSIS, PPCA
from guidebook.catalog.methods import ALIASES, FAMILIES, METHODS, OPTIMISERS, Method
from guidebook.catalog.mixtures import GMM, MIXTURE
from guidebook.catalog.regression import LOGISTIC
from guidebook.catalog.topics import LDA

__all__ = ["ALIASES", "FAMILIES", "METHODS", "OPTIMISERS", "ROWS", "Guide", "Method", "Row", "row_of"]

ROWS: dict[str, Row] = {row.name: row for row in (LOGISTIC, GMM, MIXTURE, PPCA, FACTOR_ANALYSIS, LDA, VAE)}


def row_of(model: Callable[..., Any] | None) -> Row | None:
    """Return the row whose model this function is, through ``functools.partial``; None for anybody else's."""
    while isinstance(model, partial):
        model = model.func
    return next((row for row in ROWS.values() if model is not None and model in (row.model, row.latent_model)), None)
