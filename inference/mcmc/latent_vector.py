"""The latent variables of a Pyro model as unconstrained numbers: a matrix with one row per independent block.

Where rows of the data are independent given the parameters, each is a block of its own. A Markov chain over such a
matrix accepts or rejects each block by itself: a thousand rows cost no more steps than one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import biject_to

from ..options import size_of
from ..traces.params import trace_at
from ..traces.sites import is_deterministic, is_latent, is_local, is_plate, nodes
from ..traces.vectors import Sites

MAX_NUMBERS = 20_000_000  # entries of draws evaluated at once, times the size of the data


class _Site(NamedTuple):
    name: str
    transform: Any  # from the unconstrained scale to the site's support
    shape: torch.Size  # of the unconstrained value
    row_dim: int | None  # dimension of the unconstrained value that counts the rows


class LatentVector:
    """Unconstrained latent variables, shape (block, size), and their log density, shape (block,).

    ``start`` are those of the trace, which is of the model, run on the data. A block is a row of the data if
    ``by_row``; otherwise there is one block. ``chunk`` is the number of draws to evaluate at once.
    """

    def __init__(self, model: Callable, data: tuple, trace: Trace, *, by_row: bool) -> None:
        self.model, self.data, self.trace, self.by_row = model, data, trace, by_row
        self._rows = len(data[0]) if by_row else 1
        self._sites, columns = [], []
        for name, site in nodes(trace).items():
            if is_latent(site):
                transform = biject_to(site["fn"].support)
                value = transform.inv(site["value"])
                row_dim = self._row_dim(site)
                row_dim = None if row_dim is None else row_dim + len(site["fn"].batch_shape)
                self._sites.append(_Site(name, transform, value.shape, row_dim))
                columns.append(self._as_matrix(value, row_dim))
        self.names = [site.name for site in self._sites]
        self.start = torch.cat(columns, 1).detach()
        numbers = self.start.numel() + size_of(data)
        self.chunk = max(1, min(1000, MAX_NUMBERS // numbers))

    @property
    def columns(self) -> list[str]:
        """The site of each column."""
        return [site.name for site in self._sites for _ in range(site.shape.numel() // self._rows)]

    def as_one_block(self) -> "LatentVector":
        """Return the same latent variables with all rows in one block."""
        return LatentVector(self.model, self.data, self.trace, by_row=False)

    def sites(self, matrix: Tensor) -> Sites:
        """Return constrained values by name."""
        return {site.name: site.transform(value) for site, value in self._split(matrix)}

    def unconstrained(self, matrix: Tensor) -> Sites:
        """Return unconstrained values by name."""
        return {site.name: value for site, value in self._split(matrix)}

    def matrix(self, sites: Mapping[str, Tensor]) -> Tensor:
        """Return constrained values by name as unconstrained ones, shape (block, size)."""
        parts = [self._as_matrix(site.transform.inv(sites[site.name]), site.row_dim) for site in self._sites]
        return torch.cat(parts, 1)

    def log_density(self, matrix: Tensor) -> Tensor:
        """Return log p(x, z) on the unconstrained scale, Jacobians included, in nats; shape (block,)."""
        return self.log_terms(matrix).sum(0)

    def log_terms(self, matrix: Tensor) -> Tensor:
        """Return log p(z) on the unconstrained scale, Jacobians included, and log p(x | z); shape (2, block)."""
        trace = trace_at(self.model, self.sites(matrix), self.data)
        prior = self.by_block(trace, lambda name: name in self.names) + self.log_jacobian(matrix)
        return torch.stack([prior, self.by_block(trace, lambda name: name not in self.names)])

    def by_block(self, trace: Trace, wanted: Callable[[str], bool] = lambda _: True) -> Tensor:
        """Return the sum of a trace's log densities, which must have been computed; shape (block,)."""
        total = self.start.new_zeros(self._rows)
        for name, node in nodes(trace).items():
            if has_density(node) and wanted(name):
                total = total + self._as_matrix(node["log_prob"], self._row_dim(node)).sum(1)
        return total

    def log_jacobian(self, matrix: Tensor) -> Tensor:
        """Return the log Jacobian determinants of the transforms from the unconstrained scale; shape (block,)."""
        total = self.start.new_zeros(self._rows)
        for site, value in self._split(matrix):
            terms = site.transform.log_abs_det_jacobian(value, site.transform(value))
            total = total + self._as_matrix(terms, site.row_dim).sum(1)
        return total

    def _row_dim(self, node: Any) -> int | None:
        """Return the batch dimension, counted from the end, of the plate over the rows; None if there is one block."""
        if not self.by_row:
            return None
        return next(frame.dim for frame in node["cond_indep_stack"] if frame.size == self._rows)

    def _as_matrix(self, value: Tensor, row_dim: int | None) -> Tensor:
        return value.reshape(1, -1) if row_dim is None else value.movedim(row_dim, 0).reshape(self._rows, -1)

    def _split(self, matrix: Tensor) -> list[tuple[_Site, Tensor]]:
        parts = matrix.split([site.shape.numel() // self._rows for site in self._sites], 1)
        return [(site, self._as_site(part, site)) for site, part in zip(self._sites, parts, strict=True)]

    def _as_site(self, part: Tensor, site: _Site) -> Tensor:
        if site.row_dim is None:
            return part.reshape(site.shape)
        others = [size for dim, size in enumerate(site.shape) if dim != site.row_dim]
        return part.reshape(self._rows, *others).movedim(0, site.row_dim)


def latent_vector(method: str, model: Callable, data: tuple) -> LatentVector:
    """Return the model's latent variables, by row if each row's density depends on its own latent variables alone.

    A ValueError, in the method's name, says if there is no latent site, one is discrete, or a plate is subsampled.
    """
    trace = poutine.trace(model).get_trace(*data)
    if not any(is_latent(node) for node in nodes(trace).values()):
        raise ValueError(f"{method}: the model has no latent site")
    for name, node in nodes(trace).items():
        if is_latent(node) and node["fn"].support.is_discrete:
            raise ValueError(f"{method}: site {name!r} is discrete: give the model with that site summed out")
    check_plates(method, trace)
    with pyro.validation_enabled(False):
        if is_by_row(trace, data):
            latents = LatentVector(model, data, trace, by_row=True)
            if _rows_are_independent(latents):
                return latents
        return LatentVector(model, data, trace, by_row=False)


def check_plates(method: str, trace: Trace) -> None:
    """Raise ValueError, in the method's name, if a plate of a trace subsamples its rows."""
    for name, node in nodes(trace).items():
        if is_plate(node) and (node["fn"].subsample_size or node["fn"].size) < node["fn"].size:
            raise ValueError(f"{method}: plate {name!r} subsamples its rows: {method} needs all of them")


def has_density(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace has a density: it is no plate, parameter or deterministic value."""
    return node["type"] == "sample" and not is_plate(node) and not is_deterministic(node)


def is_by_row(trace: Trace, data: tuple) -> bool:
    """Whether every site with a density lies in a plate over the rows of the data."""
    return all(is_local(node, data) for node in nodes(trace).values() if has_density(node))


def _rows_are_independent(latents: LatentVector) -> bool:
    """Whether each row's density depends on that row's latent variables only: reweighting rows reweights gradients."""
    at = latents.start.clone().requires_grad_()
    with torch.enable_grad():
        terms = latents.log_density(at)
        weights = torch.linspace(0.5, 1.5, len(terms)).to(terms)
        plain, weighted = (
            torch.autograd.grad((by * terms).sum(), at, retain_graph=True)[0]
            for by in (torch.ones_like(terms), weights)
        )
    expected = weights[:, None] * plain
    largest = float(plain.abs().nan_to_num(0.0, posinf=0.0).max())
    return torch.allclose(weighted, expected.to(weighted), rtol=1e-4, atol=1e-5 * largest, equal_nan=True)
