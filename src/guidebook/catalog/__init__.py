"""The single table of models, their guides, their methods and, for every empty cell, the reason.

The command line, the contract tests and the README's grid are drawn from it. A new model is a file and a row here.
"""

from guidebook.catalog.autoencoders import VAE
from guidebook.catalog.entry import Empty, Row, Small
from guidebook.catalog.factors import FACTOR_ANALYSIS, PPCA
from guidebook.catalog.methods import FAMILIES, METHODS, OPTIMISERS, SHORT
from guidebook.catalog.mixtures import GMM, MIXTURE
from guidebook.catalog.regression import LOGISTIC
from guidebook.catalog.topics import LDA

__all__ = ["FAMILIES", "METHODS", "OPTIMISERS", "ROWS", "SHORT", "Empty", "Row", "Small"]

ROWS: dict[str, Row] = {row.name: row for row in (LOGISTIC, GMM, MIXTURE, PPCA, FACTOR_ANALYSIS, LDA, VAE)}
