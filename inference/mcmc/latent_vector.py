"""The latent variables of a Pyro model as a matrix: a row a datum where data are independent given the parameters.

Markov chains over such a matrix accept or reject each row by itself: a thousand data cost no more steps than one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ..traces.draws import is_latent, is_local, nodes

Sites = dict[str, Tensor]


class _Site(NamedTuple):
    name: str
    transform: Any  # from the unconstrained scale to the site's support
    shape: torch.Size  # of the unconstrained value
    row_dim: int | None  # which of its dimensions counts the rows


class Blocks:
    """Unconstrained latent variables, shape (block, size), and their log density, shape (block).

    A block is a row of the data where every latent site lies in a plate over the rows; else there is one block.

    Parameters
    ----------
    model : callable
        Any Pyro model with continuous latent sites.
    data : tuple
        Its arguments.

    Raises
    ------
    ValueError
        If a latent site is discrete, or there is none.
    """

    def __init__(self, model: Callable, data: tuple) -> None:
        self._model, self._data = model, data
        trace = poutine.trace(model).get_trace(*data)
        latent = {name: site for name, site in nodes(trace).items() if is_latent(site)}
        if not latent:
            raise ValueError("mcem: the model has no latent site to take an expectation over")
        for name, site in latent.items():
            if site["fn"].support.is_discrete:
                raise ValueError(f"mcem: site {name!r} is discrete: sum it out, or take em, whose E-step is exact")
        self.by_row = all(is_local(site, data) for site in latent.values())
        self._rows = len(data[0]) if self.by_row else 1
        self._sites, columns = [], []
        for name, site in latent.items():
            transform = biject_to(site["fn"].support)
            value = transform.inv(site["value"])
            row_dim = self._row_dim(site) + len(site["fn"].batch_shape) if self.by_row else None
            self._sites.append(_Site(name, transform, value.shape, row_dim))
            columns.append(self._as_matrix(value, row_dim))
        self.start = torch.cat(columns, 1).detach()

    def _row_dim(self, site: Any) -> int:
        """The dimension, counted from the end of the batch's, of the plate over the rows."""
        return next(frame.dim for frame in site["cond_indep_stack"] if frame.size == self._rows)

    def _as_matrix(self, value: Tensor, row_dim: int | None) -> Tensor:
        return value.reshape(1, -1) if row_dim is None else value.movedim(row_dim, 0).reshape(self._rows, -1)

    def sites(self, matrix: Tensor) -> Sites:
        """Constrained values by name."""
        return {site.name: site.transform(value) for site, value in self._split(matrix)}

    def _split(self, matrix: Tensor) -> list[tuple[_Site, Tensor]]:
        found, start = [], 0
        for site in self._sites:
            width = site.shape.numel() // self._rows
            part = matrix[:, start : start + width]
            start += width
            if site.row_dim is None:
                value = part.reshape(site.shape)
            else:
                moved = [self._rows, *(s for d, s in enumerate(site.shape) if d != site.row_dim)]
                value = part.reshape(moved).movedim(0, site.row_dim)
            found.append((site, value))
        return found

    def log_density(self, matrix: Tensor) -> Tensor:
        """Log density p(x, z) of each block on the unconstrained scale, Jacobians in, in nats; shape (block)."""
        values, total = {}, matrix.new_zeros(self._rows)
        pairs = self._split(matrix)
        for site, value in pairs:
            values[site.name] = site.transform(value)
        trace = poutine.trace(poutine.condition(self._model, data=values)).get_trace(*self._data)
        trace.compute_log_prob()
        for node in nodes(trace).values():
            if node["type"] == "sample" and "log_prob" in node and (not self.by_row or is_local(node, self._data)):
                total = total + self._by_block(node["log_prob"], node)
        for site, value in pairs:
            jacobian = site.transform.log_abs_det_jacobian(value, values[site.name])
            total = total + self._by_block(jacobian, nodes(trace)[site.name])
        return total

    def _by_block(self, terms: Tensor, node: Any) -> Tensor:
        if not self.by_row:
            return terms.sum().reshape(1)
        batch = len(node["fn"].batch_shape)
        terms = terms.flatten(batch).sum(-1) if terms.dim() > batch else terms
        return terms.movedim(self._row_dim(node), 0).reshape(self._rows, -1).sum(1)
