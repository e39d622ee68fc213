"""Pyro's mass matrix, started from a given one, and dense or diagonal as the draws of each window speak for."""

from typing import Any

import numpy as np
import torch
from pyro.infer.mcmc.adaptation import BlockMassMatrix
from torch import Size, Tensor

from ..traces.vectors import Sites
from .metric import LEAST_GAIN, Window, conditioning_gain


class ChosenMetric(BlockMassMatrix):
    """Pyro's adapter of the mass matrix.

    Parameters
    ----------
    dense_mass : bool, optional
        As in `nuts`.
    first : array, shape (d, d) or (d), optional
        The first inverse mass matrix, its entries in the order of ``shapes``. Default: ones.
    shapes : dict of Size
        Of the unconstrained sites.
    """

    def __init__(self, dense_mass: bool | None, first: np.ndarray | None, shapes: dict[str, Size]) -> None:
        super().__init__()
        self.dense_mass, self.first, self.shapes = dense_mass, first, shapes
        self.is_dense = False
        self._draws: list[tuple[Tensor, Tensor]] = []

    def configure(self, mass_matrix_shape: dict, adapt_mass_matrix: bool = True, options: Any = None) -> None:
        """Begin a warm-up."""
        super().configure(mass_matrix_shape, adapt_mass_matrix, options or {})
        ((names, found),) = self.inverse_mass_matrix.items()
        self.is_dense = found.dim() == 2
        if self.first is not None:
            order = self._order(names)
            first = self.first[np.ix_(order, order)] if self.is_dense else self.first[order]
            self.inverse_mass_matrix = {names: torch.from_numpy(first).to(found)}

    def update(self, z: Sites, z_grad: Sites | None) -> None:
        """Take note of a draw and of the gradients there."""
        super().update(z, z_grad)
        if self.dense_mass is None and z_grad is not None:
            self._draws.append((_joined(z), _joined(z_grad)))

    def end_adaptation(self) -> None:
        """Set the matrix at the end of a window."""
        super().end_adaptation()
        ((names, found),) = self.inverse_mass_matrix.items()
        if found.dim() == 1 or not self._draws:
            return
        window = Window(*(torch.stack(part)[None].cpu().numpy() for part in zip(*self._draws, strict=True)))
        self._draws = []
        self.is_dense = conditioning_gain(window) >= LEAST_GAIN
        if not self.is_dense:
            self.inverse_mass_matrix = {names: torch.diag(found.diagonal())}

    def in_own_order(self) -> Tensor:
        """Return the inverse mass matrix, or its diagonal, with its entries in the order of ``shapes``."""
        ((names, found),) = self.inverse_mass_matrix.items()
        back = torch.from_numpy(np.argsort(self._order(names))).to(found.device)
        return (found[back][:, back] if found.dim() == 2 else found[back]).detach().cpu()

    def _order(self, names: tuple[str, ...]) -> np.ndarray:
        """Return the places of Pyro's entries, site by site in its own order, among ours."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        begins = dict(zip(self.shapes, np.cumsum([0, *sizes[:-1]]), strict=True))
        return np.concatenate([begins[name] + np.arange(self.shapes[name].numel()) for name in names])


def _joined(sites: Sites) -> Tensor:
    return torch.cat([sites[name].detach().reshape(-1) for name in sorted(sites)])
