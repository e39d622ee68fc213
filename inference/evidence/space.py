"""Latent variables as unconstrained numbers, prior and likelihood apart, a row a datum where the data are apart."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.utils import _pytree as pytree

from ..mcmc.latent_vector import Blocks
from ..traces.draws import Sites, is_deterministic, is_latent, is_local, nodes

MOST_NUMBERS = 20_000_000  # that draws evaluated at once may come to, times the data's size


class LatentSpace(Blocks):
    """Unconstrained latent variables, shape (block, size), with the two parts of their log density, shape (block).

    Parameters
    ----------
    model : callable
        Any Pyro model with continuous latent sites.
    data : tuple
        Its arguments.
    by_row : bool
        Whether a block is a row of the data; else there is one block.
    """

    def __init__(self, model: Callable, data: tuple, *, by_row: bool) -> None:
        super().__init__(*((model, data) if by_row else (partial(model, *data), ())))
        numbers = self.start.numel() + sum(value.numel() for value in data if isinstance(value, Tensor))
        self.chunk = max(1, min(1000, MOST_NUMBERS // numbers))

    @property
    def names(self) -> list[str]:
        """The latent sites."""
        return [site.name for site in self._sites]

    def unconstrained(self, matrix: Tensor) -> Sites:
        """Unconstrained values by name."""
        return {site.name: value for site, value in self._split(matrix)}

    def matrix(self, sites: Mapping[str, Tensor]) -> Tensor:
        """Constrained values by name as unconstrained ones, shape (block, size)."""
        parts = [self._as_matrix(site.transform.inv(sites[site.name]), site.row_dim) for site in self._sites]
        return torch.cat(parts, 1)

    def log_terms(self, matrix: Tensor) -> Tensor:
        """Log density of the prior on the unconstrained scale, Jacobians in, and the log likelihood: (2, block)."""
        trace = poutine.trace(poutine.condition(self._model, data=self.sites(matrix))).get_trace(*self._data)
        trace.compute_log_prob()
        prior = self.by_block(trace, lambda name: name in self.names) + self.log_jacobian(matrix)
        return torch.stack([prior, self.by_block(trace, lambda name: name not in self.names)])

    def by_block(self, trace: poutine.Trace, wanted: Callable[[str], bool] = lambda _: True) -> Tensor:
        """Sum of the log densities of a trace's sites, shape (block); they must have been computed."""
        total = self.start.new_zeros(self._rows)
        for name, node in nodes(trace).items():
            if has_density(node) and wanted(name):
                total = total + self._by_block(node["log_prob"], node)
        return total

    def log_jacobian(self, matrix: Tensor) -> Tensor:
        """Of the transforms from the unconstrained scale, shape (block)."""
        total = self.start.new_zeros(self._rows)
        for site, value in self._split(matrix):
            terms = site.transform.log_abs_det_jacobian(value, site.transform(value))
            total = total + self._as_matrix(terms, site.row_dim).sum(1)
        return total


def latent_space(model: Callable, data: tuple) -> LatentSpace:
    """The model's latent variables, by row where rows depend on latent variables of their own and on nothing else.

    Raises
    ------
    ValueError
        If a latent site is discrete, or there is none, or a plate is subsampled.
    """
    trace = poutine.trace(model).get_trace(*data)
    latent = {name: node for name, node in nodes(trace).items() if is_latent(node)}
    if not latent:
        raise ValueError("evidence: the model has no latent site, so that its log density is the evidence already")
    for name, node in latent.items():
        if node["fn"].support.is_discrete:
            raise ValueError(f"evidence: site {name!r} is discrete: give the model with that site summed out")
    for name, node in nodes(trace).items():
        if is_plate(node) and (node["fn"].subsample_size or node["fn"].size) < node["fn"].size:
            raise ValueError(f"evidence: plate {name!r} takes a part of its rows: the evidence is of all of them")
    with pyro.validation_enabled(False):
        if is_by_row(trace, data):
            space = LatentSpace(model, data, by_row=True)
            if _are_apart(space):
                return space
        return LatentSpace(model, data, by_row=False)


def has_density(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace has a density: neither a plate, nor a parameter, nor a deterministic value."""
    return node["type"] == "sample" and not is_plate(node) and not is_deterministic(node)


def is_plate(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace stands for a plate."""
    return type(node.get("fn")).__name__ == "_Subsample"


def is_by_row(trace: poutine.Trace, data: tuple) -> bool:
    """Whether every site with a density lies in a plate over the rows of the data."""
    return all(is_local(node, data) for node in nodes(trace).values() if has_density(node))


def _are_apart(space: LatentSpace) -> bool:
    """Whether each row's density depends on that row's latent variables only, as its gradients have it."""
    at = space.start.clone().requires_grad_()
    with torch.enable_grad():
        terms = space.log_terms(at).sum(0)
        factors = torch.rand_like(terms)
        whole, weighted = (
            torch.autograd.grad((by * terms).sum(), at, retain_graph=True)[0]
            for by in (torch.ones_like(terms), factors)
        )
    expected = factors[:, None] * whole
    return torch.allclose(weighted, expected, rtol=1e-4, atol=1e-5 * float(whole.abs().max()), equal_nan=True)


def many(one: Callable, over: Any, chunk: int) -> Any:
    """Apply ``one`` to every row of the tensors in ``over``, and stack what it returns."""
    try:
        return torch.vmap(one, chunk_size=chunk)(over)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # a Python branch on a drawn value, say
        leaves, shape = pytree.tree_flatten(over)
        rows = [one(pytree.tree_unflatten(list(row), shape)) for row in zip(*leaves, strict=True)]
        return pytree.tree_map(lambda *values: torch.stack(values), *rows)
