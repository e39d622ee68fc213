"""The single table of models, their guides and methods, with a reason for every empty cell.

The command line, the contract tests, the reports and the README's grid are drawn from it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from guidebook.catalog.autoencoders import VAE
from guidebook.catalog.autoregressive import AUTOREGRESSIVE
from guidebook.catalog.entry import Guide, Row
from guidebook.catalog.factors import FACTOR_ANALYSIS, PPCA
from guidebook.catalog.methods import ALIASES, FAMILIES, METHODS, OPTIMISERS, Method
from guidebook.catalog.mixtures import GMM, MIXTURE
from guidebook.catalog.regression import LINEAR, LOGISTIC
from guidebook.catalog.topics import LDA

__all__ = ["ALIASES", "FAMILIES", "METHODS", "OPTIMISERS", "ROWS", "Guide", "Method", "Row", "coords_of", "row_of"]

ROWS: dict[str, Row] = {
    row.name: row for row in (LOGISTIC, LINEAR, GMM, MIXTURE, PPCA, FACTOR_ANALYSIS, LDA, VAE, AUTOREGRESSIVE)
}


def row_of(model: Callable[..., Any] | None) -> Row | None:
    """Return the row whose model this function is, through ``functools.partial``; None for anybody else's."""
    while isinstance(model, partial):
        model = model.func
    return next((row for row in ROWS.values() if model is not None and model in (row.model, row.latent_model)), None)


def coords_of(model: Callable[..., Any] | None, x: Tensor, columns: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return names of the entries of a model's identified sites by the data's columns, as `compare` takes them.

    Parameters
    ----------
    model : callable or None
        A model of the collection, its options bound with ``functools.partial``; there are no names for others.
    x : Tensor, shape (n, d)
        The data, as the model takes them.
    columns : sequence of str, length d
        Names of their columns. Those that occur twice are numbered.
    """
    row = row_of(model)
    if row is None or row.coords is None:
        return {}
    options = {name: option.default for name, option in row.options.items()}
    options |= model.keywords if isinstance(model, partial) else {}
    return {site: [_told_apart(known) for known in names] for site, names in row.coords(columns, x, options).items()}


def _told_apart(names: Sequence[str]) -> list[str]:
    times = Counter(names)
    return [f"{name} ({place})" if times[name] > 1 else name for place, name in enumerate(names)]
